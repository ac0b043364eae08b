"""Where the data of a study come from: the catalog, folders that one has already, one's own files."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vosflow.catalog import (
    Archive,
    Dataset,
    FolderDataset,
    RemoteFile,
    find_archive,
    find_dataset,
    find_split,
    known,
    load_checkpoints,
    load_datasets,
)
from vosflow.config import Config
from vosflow.datasets.lists import folder_names, read_list
from vosflow.digest import canonical_json, code_digest, data_digest
from vosflow.errors import VosflowError
from vosflow.evaluation.protocols import BUILT_IN, load_protocol
from vosflow.manifest import LABEL_MAPS, PER_OBJECT

DATA = "data"  # where downloads are if nobody says otherwise
FETCHED = ".fetched"  # suffix of the marker beside a file that was fetched and checked
LIST_SUFFIXES = (".txt", ".json")
DATA_SUFFIXES = (".jpg", ".jpeg", ".png", *LIST_SUFFIXES)
MANY_FRAMES = 5_000  # in a split that is read by several processes
FRAMES_PER_VIDEO = 70  # a guess for planning shards where the catalog knows no number of frames


@dataclass(frozen=True)
class DatasetSource:
    """Where a dataset split comes from.

    Attributes:
        id: name of its folder below results, `{dataset}-{split}`.
        root: the folder that its adapter reads.
        requires: files that must be made or fetched before its manifest can be written.
        lists: files that the publisher ships apart from its archives, by role (see `vosflow.catalog.Split.lists`).
        folder: the description of a user's own dataset, else None.
        watched: a user's folders, in which files may come, go or change.
        beside: folders near them whose lists and meta files are watched, too.
        frames: estimated number of frames, for planning.
        adapter: the module of `vosflow.datasets` that reads it.
    """

    id: str
    dataset: str
    split: str
    root: str
    requires: tuple[str, ...]
    lists: dict[str, str]
    folder: FolderDataset | None
    protocol: str | None
    watched: tuple[str, ...]
    frames: int
    adapter: str
    beside: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """Arguments of scripts/write_manifest.py."""
        chosen = ["--dataset", self.dataset, "--split", self.split]
        if self.folder is not None:
            return [*chosen, "--folder", canonical_json(self.folder.model_dump(mode="json"))]
        lists = [argument for role, file in self.lists.items() for argument in ("--list", role, file)]
        return [*chosen, "--root", self.root, *lists]

    @property
    def state(self) -> str:
        """Digest of the watched folders; read from disk when asked for, so not in every job."""
        return _folder_state(self.watched, self.beside)

    @property
    def workers(self) -> int:
        """Processes that write the manifest: every file is read, which takes about 4 ms per 720p frame."""
        return 4 if self.frames > MANY_FRAMES else 1

    @property
    def code(self) -> str:
        """Digest of what shapes the manifest beside the files: the code that writes it, the catalog's facts."""
        code = code_digest("vosflow.datasets", f"vosflow.datasets.{self.adapter}")
        if self.folder is not None:
            return code
        facts = find_split(self.dataset, self.split).model_dump(mode="json", exclude={"source"})
        return data_digest([code, facts])


def dataset_source(config: Config, name: str, *, full_frames: bool = False) -> DatasetSource:
    """Where the dataset split `name` ("dataset/split") comes from.

    Args:
        full_frames: a tracker reads frames in the camera's resolution: they are wanted, too, if there are any.

    Raises:
        VosflowError: nobody knows it, or files that the config names for it are missing or contradict each other.
    """
    own = config.datasets.get(name)
    return _catalog_dataset(config, name, full_frames) if own is None else _user_dataset(name, own)


def archive_file(data: str, dataset: str, archive: str) -> str:
    """Where an archive of the catalog is downloaded to, below the folder `data`."""
    return f"{data}/downloads/{find_archive(dataset, archive).file}"


def import_command(what: str, data: str | Path, *arguments: str) -> str:
    """The command that imports `what` into the folder `data`, to be typed by a user."""
    place = () if Path(data) == Path(DATA) else ("--data", str(data))
    return f"python scripts/fetch.py {shlex.join(['--import', what, *arguments, *place])}"


def archive_arguments(file: str) -> list[str]:
    """Arguments of scripts/fetch.py for the dataset file that is called `file` in the catalog."""
    dataset, archive, _ = _archive_called(file)
    return ["--dataset", dataset, "--archive", archive]


def archive_identity(file: str) -> str:
    """Digest of what the file is compared with; if the catalog is corrected, what was fetched is checked again."""
    return data_digest(_archive_called(file)[2].identity)


def _archive_called(file: str) -> tuple[str, str, Archive]:
    for dataset, entry in load_datasets().items():
        for archive, facts in entry.archives.items():
            if facts.file == file:
                return dataset, archive, facts
    raise VosflowError("no dataset of the catalog has this file", path=file, remedy="python scripts/fetch.py --list")


def check_names(config: Config) -> None:
    """Refuse names that would be taken for something else.

    `paths` for things that nobody knows would silently be fetched instead; something of one's own under a name of the
    catalog would be shown beside numbers that were published for another thing.
    """
    for dataset in config.paths.datasets:
        known(dataset, load_datasets(), "dataset in paths.datasets")
    for checkpoint in config.paths.checkpoints:
        known(checkpoint, load_checkpoints(), "checkpoint in paths.checkpoints")
    for name in config.checkpoints.keys() & load_checkpoints().keys():
        raise _taken(f"checkpoints.{name}", f"to use your copy of the published file, say paths: checkpoints: {name}")
    for name in config.datasets:
        if name.partition("/")[0] in load_datasets():
            raise _taken(f"datasets.{name}", "to use your copy of the published files, say it in paths: datasets")


def _taken(key: str, remedy: str) -> VosflowError:
    return VosflowError(
        "this name is one of the catalog's",
        path=key,
        expected="a name of your own: results stand beside numbers that were published for the catalog's",
        remedy=f"choose another name; {remedy}",
    )


def _catalog_dataset(config: Config, name: str, full_frames: bool) -> DatasetSource:
    dataset, slash, split = name.partition("/")
    if not slash:
        raise VosflowError(
            f"{name!r} is not a dataset split",
            path="dataset",
            expected="the form dataset/split, for instance davis2017/val",
            remedy="add the split: " + ", ".join(f"{dataset}/{name}" for name in find_dataset(dataset).splits),
        )
    if dataset not in load_datasets():
        known(
            name,
            [*config.datasets, *(f"{d}/{s}" for d, e in load_datasets().items() for s in e.splits)],
            "dataset",
        )
    facts, entry = find_split(dataset, split), find_dataset(dataset)
    data = config.paths.data
    given = config.paths.datasets.get(dataset)
    lists = {role: f"{data}/downloads/{entry.archives[archive].file}" for role, archive in facts.lists.items()}
    if given is not None:
        existing_folders([given], f"paths.datasets.{dataset}")
        root, requires = _root_below(given, entry, split), ()
        watched = (root,)  # not all of what was given: other splits and datasets may be in it, with millions of files
        tops = (given, str(Path(root).parent))
        beside = (*tops, *(f"{top}/train" for top in tops))  # YouTube-VOS names the seen categories there
        for role, archive in facts.lists.items():
            places = (given, root, *(f"{given}/{name}" for name in facts.archives))
            found = _find_beside(places, entry.archives[archive])
            if found is not None:
                lists[role] = found
            elif role in facts.optional_lists and not Path(lists[role]).is_file():  # there if it was fetched by hand
                del lists[role]
            else:
                requires = (*requires, lists[role] + FETCHED)
    else:
        root = str(entry.root(split, f"{data}/datasets/{dataset}"))
        markers = [f"{data}/datasets/{dataset}/{archive}.json" for archive in facts.archives]
        watched, beside = ((root,) if any(_imported(marker) for marker in markers) else ()), ()
        if full_frames and facts.full_frames:
            archive = facts.full_frames.archive
            markers.append(f"{data}/datasets/{dataset}/{archive}.json")
            lists["full_frames"] = f"{data}/datasets/{dataset}/{archive}/{facts.full_frames.folder}"
        markers = markers or [f"{data}/datasets/{dataset}.json"]
        requires = (*markers, *(lists[role] + FETCHED for role in facts.lists))
    return DatasetSource(
        id=f"{dataset}-{split}",
        dataset=dataset,
        split=split,
        root=root,
        requires=tuple(requires),
        lists=lists,
        folder=None,
        protocol=facts.protocol if facts.has_ground_truth else None,
        watched=watched,
        frames=facts.frames or (facts.videos or 1) * FRAMES_PER_VIDEO,
        adapter=facts.adapter,
        beside=beside,
    )


def _root_below(given: str, entry: Dataset, split: str) -> str:
    """The folder that the split's adapter reads: what a user gave, or where in it the archives have that folder.

    Where an archive has a list of its own in it (DAVIS, SA-V), so that no other looks like it, it is also found in the
    only one of the sub-folders that has all of it, whatever that is called (`trainval` and `test-dev` of STCN's users).
    """
    facts = entry.splits[split]
    for place in (entry.root(split, given), Path(given, facts.folder)):
        if facts.folder and place.is_dir():
            return str(place)
    held = [path for archive in facts.archives for path in entry.archives[archive].holds]
    if len(facts.archives) == 1 and facts.folder and any(path.endswith(".txt") for path in held):
        held = [PurePosixPath(path).relative_to(facts.folder) for path in held]
        tops = [
            given,
            *(f"{given}/{name}{inner}" for name in folder_names(Path(given)) for inner in ("", f"/{facts.folder}")),
        ]
        found = [top for top in tops if all(Path(top, path).exists() for path in held)]
        if len(found) == 1:
            return found[0]
    return given


def _imported(marker: str) -> bool:
    """Whether files of the user's stand for an extracted archive (`vosflow.datasets.imports`): they may change."""
    try:
        return "imported_from" in json.loads(Path(marker).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _user_dataset(name: str, own: FolderDataset) -> DatasetSource:
    dataset, _, split = name.partition("/")
    inputs = [own.base_video_dir, own.input_mask_dir]
    is_file = Path(own.base_video_dir).is_file()  # one video file, and the mask of its first frame
    folders = [*([] if is_file else inputs), *([own.annotations] if own.annotations else [])]
    watched = existing_folders(folders, f"datasets.{name}")
    _check_protocol(name, own)
    if is_file:
        requires, videos = tuple(inputs), 1
    elif isinstance(own.videos, str):
        if not Path(own.videos).is_file():
            raise VosflowError(
                "the list of videos is missing",
                path=own.videos,
                expected=f"a text file with one name per line, as the config says at datasets.{name}.videos",
                remedy="correct the path, or leave out `videos`: then all folders are taken",
            )
        videos = len(read_list(Path(own.videos)).split())
        requires = (own.videos,)
    else:
        videos = len(own.videos or os.listdir(own.base_video_dir))
        requires = ()
    return DatasetSource(
        id=f"{dataset}-{split}",
        dataset=dataset,
        split=split,
        root=own.base_video_dir,
        requires=requires,
        lists={},
        folder=own,
        protocol=own.protocol,
        watched=watched,
        frames=videos * FRAMES_PER_VIDEO,
        adapter="folder",
    )


def _check_protocol(name: str, own: FolderDataset) -> None:
    """Refuse at planning what a protocol would refuse after hours of tracking."""
    if own.protocol is None:
        if own.annotations is None:
            return
        raise VosflowError(
            "there are `annotations`, but no `protocol` to score by",
            path=f"datasets.{name}",
            expected="`protocol:`, one of " + ", ".join(BUILT_IN),
            remedy="name the rules; or leave out `annotations`: then the run ends in label maps",
        )
    rules, layout = load_protocol(own.protocol), PER_OBJECT if own.per_obj_png_file else LABEL_MAPS
    problem = None
    if own.annotations is None:
        problem = "there are no `annotations` to score against"
    elif rules.needs_meta:
        problem = "what it must know of the objects stands in a meta file of the publisher"
    elif layout not in rules.layouts:
        problem = "it scores label maps, and these masks are one file per object (per_obj_png_file)"
        if layout == LABEL_MAPS:
            problem = "it does not score label maps; for masks of one file per object say per_obj_png_file"
    elif own.late_objects and not rules.late_objects:
        problem = "it scores only objects of the first frame, and these may appear later (late_objects)"
    elif own.binary and own.protocol == "davis2017":
        problem = "binary masks of one object belong to davis2016"
    if problem:
        raise VosflowError(
            f"protocol {own.protocol} cannot score this dataset: {problem}",
            path=f"datasets.{name}",
            expected="annotations in the form that the protocol scores, or no protocol",
            remedy="correct the entry, or leave out `protocol`: then the run ends in label maps",
        )


def _find_beside(folders: Iterable[str], file: RemoteFile) -> str | None:
    """A file of the catalog in a user's folders or next to them, under our name or its publisher's."""
    for place in dict.fromkeys(place for folder in folders for place in (Path(folder), Path(folder).parent)):
        for name in (file.published_as, file.file):
            if name and (place / name).is_file():
                return str(place / name)
    return None


def existing_folders(folders: Iterable[str], key: str, what: str = "a folder") -> tuple[str, ...]:
    """The folders themselves, if all are there.

    Args:
        key: of the config, where they are named.
        what: each of them is.

    Raises:
        VosflowError: one is missing.
    """
    folders = tuple(folders)
    for folder in folders:
        if not Path(folder).is_dir():
            raise VosflowError(
                "the folder is missing",
                path=folder,
                expected=f"{what}, as the config says at {key}",
                remedy="mount or correct the path",
            )
    return folders


def _folder_state(folders: Iterable[str], beside: Iterable[str] = ()) -> str:
    """Digest of the names, sizes and modification times of all data files below `folders`, links followed.

    And of the lists and meta files that lie directly in the folders `beside`.

    What comes, goes or is overwritten changes it; then the manifest is written again, and its digests of contents
    decide which videos really changed.
    """
    found: list[tuple[str, int, int]] = []
    for folder in folders:
        seen: set[str] = set()
        for place, subfolders, files in os.walk(folder, followlinks=True):
            real = os.path.realpath(place)
            if real in seen:  # a link back up
                subfolders.clear()
                continue
            seen.add(real)
            for name in files:
                if name.lower().endswith(DATA_SUFFIXES):
                    path = os.path.join(place, name)
                    found.append((os.path.relpath(path, folder), *_size_and_time(path)))
    for folder in beside:
        for path in Path(folder).glob("*.*") if Path(folder).is_dir() else ():
            if path.name.lower().endswith(LIST_SUFFIXES):
                found.append((str(path), *_size_and_time(path)))
    return data_digest(sorted(found))


def _size_and_time(path: str | Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:  # a dangling or circular link: named when the manifest is written
        return -1, -1
    return found.st_size, found.st_mtime_ns
