"""From a config to what there is to do: runs, shards, files. Pure planning, without torch or pandas.

Read at every planning and once more by every job that Snakemake starts on a cluster, so it must stay quick.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vosflow
from vosflow.catalog import (
    FolderDataset,
    find_archive,
    find_checkpoint,
    find_dataset,
    find_split,
    load_checkpoints,
    load_datasets,
)
from vosflow.config import Config, RunConfig, parse_config
from vosflow.digest import canonical_json, code_digest, data_digest
from vosflow.engine import SHARED_MODULES, parse_settings
from vosflow.errors import VosflowError
from vosflow.evaluation.protocols import load_protocol
from vosflow.records import count_losses, note_lost_masks
from vosflow.trackers.registry import load_tracker, tracker_module

HOUSE = Path(vosflow.__file__).resolve().parents[1]
FRAMES_PER_VIDEO = 70  # a guess for planning shards where the catalog knows no number of frames


@dataclass(frozen=True)
class DatasetSource:
    """Where a dataset split comes from.

    Attributes:
        id: name of its folder below results, `{dataset}-{split}`.
        root: the folder that its adapter reads.
        requires: files that must be made or fetched before its manifest can be written.
        video_list: file that names the videos, where the publisher ships it apart.
        folder: the description of a user's own dataset, else None.
        state: digest of a user's folders, so that added or removed files are noticed.
        frames: estimated number of frames, for planning.
        adapter: the module of `vosflow.datasets` that reads it.
    """

    id: str
    dataset: str
    split: str
    root: str
    requires: tuple[str, ...]
    video_list: str | None
    folder: FolderDataset | None
    protocol: str | None
    state: str
    frames: int
    adapter: str

    @property
    def arguments(self) -> list[str]:
        """Arguments of scripts/write_manifest.py."""
        chosen = ["--dataset", self.dataset, "--split", self.split]
        if self.folder is not None:
            return [*chosen, "--folder", canonical_json(self.folder.model_dump(mode="json"))]
        return [*chosen, "--root", self.root, *(["--video-list", self.video_list] if self.video_list else [])]

    @property
    def code(self) -> str:
        """Digest of the code that writes the manifest."""
        return code_digest("vosflow.datasets", f"vosflow.datasets.{self.adapter}")


@dataclass(frozen=True)
class CheckpointSource:
    """Weights: where the file is or will be, what network it belongs to, and its sha256 if it is known."""

    id: str
    path: str
    config: str | None
    sha256: str | None


@dataclass(frozen=True)
class Run:
    """One tracker with one complete set of settings and one checkpoint, over one dataset split."""

    id: str
    dataset: DatasetSource
    tracker: str
    settings: Mapping[str, Any]
    swept: Mapping[str, Any]
    notes: tuple[str, ...]
    checkpoint: CheckpointSource | None
    gpus: int
    shards: int
    folder: str
    code: str = field(repr=False, default="")

    @property
    def scored(self) -> bool:
        """Whether there is public ground truth to score against."""
        return self.dataset.protocol is not None

    @property
    def protocol(self) -> str | None:
        """The scoring rules of the dataset's publisher."""
        return self.dataset.protocol

    @property
    def shard_records(self) -> list[str]:
        """The declared outputs of the run's tracking jobs."""
        return [self.file(f"shards/{shard}-of-{self.shards}.json") for shard in range(1, self.shards + 1)]

    @property
    def checkpoint_inputs(self) -> list[str]:
        """Files of weights that tracking waits for."""
        return [] if self.checkpoint is None else [self.checkpoint.path]

    def losses(self, shard: str) -> int:
        """How often masks of this shard were found missing: a parameter of the tracking job, so that it runs again."""
        return count_losses(self.file(f"shards/{shard}-of-{self.shards}.json"))

    @property
    def evaluation_code(self) -> str:
        """Digest of the code that scores the run."""
        return code_digest("vosflow.evaluation.run", type(load_protocol(self.protocol)).__module__)

    def file(self, name: str) -> str:
        """Path of a file in the run's folder."""
        return f"{self.folder}/{name}"

    @property
    def method(self) -> dict[str, Any]:
        """What decides the masks, as plain data for the tracking job."""
        checkpoint = self.checkpoint and vars(self.checkpoint)
        return {"tracker": self.tracker, "settings": dict(self.settings), "checkpoint": checkpoint}

    @property
    def description(self) -> dict[str, Any]:
        """What tables and the page must know of the run, as plain data."""
        checkpoint = self.checkpoint and {
            "id": self.checkpoint.id,
            "file": self.checkpoint.path,
            "config": self.checkpoint.config,
        }
        return {
            "dataset": self.dataset.dataset,
            "split": self.dataset.split,
            "run": self.id,
            "tracker": self.tracker,
            "settings": dict(self.settings),
            "swept": dict(self.swept),
            "notes": list(self.notes),
            "checkpoint": checkpoint,
            "scored": self.scored,
        }


class Study:
    """The runs that one config asks for, and the files that they need."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._datasets: dict[str, DatasetSource] = {}
        self.runs: list[Run] = [run for line in config.runs for run in self._expand(line)]
        self._by_id = {(run.dataset.id, run.id): run for run in self.runs}
        if len(self._by_id) < len(self.runs):
            ids = [f"{run.dataset.id}/{run.id}" for run in self.runs]
            twice = sorted({name for name in ids if ids.count(name) > 1})
            raise VosflowError(
                "several runs would have the same folder: " + ", ".join(twice),
                path="runs",
                expected="each combination of dataset, name and swept settings once",
                remedy="give the runs different names (`name:`)",
            )

    def run(self, dataset: str, run: str) -> Run:
        """The run in the folder `{dataset}/{run}`."""
        return self._by_id[dataset, run]

    def dataset(self, dataset: str) -> DatasetSource:
        """The dataset split whose folder below results is called `dataset`."""
        return next(source for source in self._datasets.values() if source.id == dataset)

    @property
    def dataset_pattern(self) -> str:
        """Regular expression for the dataset folders of this study."""
        return _alternatives(run.dataset.id for run in self.runs)

    @property
    def run_pattern(self) -> str:
        """Regular expression for the run ids of this study."""
        return _alternatives(run.id for run in self.runs)

    @property
    def data_files(self) -> list[str]:
        """Files that stand for all datasets of the study being fetched and extracted."""
        return sorted({file for source in self._datasets.values() for file in source.requires})

    @property
    def checkpoint_files(self) -> list[str]:
        """All weights of the study."""
        return sorted({file for run in self.runs for file in run.checkpoint_inputs})

    def _expand(self, line: RunConfig) -> Iterable[Run]:
        """All combinations of one line of `runs`."""
        kind = load_tracker(line.tracker)
        lists = {key: value for key, value in sorted(line.settings.items()) if isinstance(value, list)}
        fixed = {key: value for key, value in line.settings.items() if key not in lists}
        checkpoints = line.checkpoint if isinstance(line.checkpoint, list) else [line.checkpoint]
        datasets = line.dataset if isinstance(line.dataset, list) else [line.dataset]
        code = code_digest(tracker_module(line.tracker), *SHARED_MODULES)
        for dataset, checkpoint, *values in itertools.product(datasets, checkpoints, *lists.values()):
            chosen = dict(zip(lists, values, strict=True))
            settings = parse_settings(kind, line.tracker, {**fixed, **chosen})
            resolved = settings.model_dump(mode="json")
            swept = {key: resolved[key] for key in lists}
            source = self._dataset_source(dataset)
            run_id = _run_id(line, checkpoint, swept)
            yield Run(
                id=run_id,
                dataset=source,
                tracker=line.tracker,
                settings=resolved,
                swept=swept,
                notes=tuple(settings.notes()),
                checkpoint=self._checkpoint_source(line.tracker, kind.needs_checkpoint, checkpoint),
                gpus=int(kind.uses_gpu and self.config.execution.device != "cpu"),
                shards=self._shards(source),
                folder=f"{self.config.paths.results}/{source.id}/{run_id}",
                code=code,
            )

    def _shards(self, source: DatasetSource) -> int:
        execution = self.config.execution
        if execution.shards != "auto":
            return execution.shards
        return max(1, math.ceil(source.frames / execution.frames_per_shard))

    def _dataset_source(self, name: str) -> DatasetSource:
        if name not in self._datasets:
            own = self.config.datasets.get(name)
            self._datasets[name] = self._catalog_dataset(name) if own is None else _user_dataset(name, own)
        return self._datasets[name]

    def _catalog_dataset(self, name: str) -> DatasetSource:
        dataset, slash, split = name.partition("/")
        if not slash:
            raise VosflowError(
                f"{name!r} is not a dataset split",
                path="runs.dataset",
                expected="the form dataset/split, for instance davis2017/val",
                remedy="add the split: " + ", ".join(f"{dataset}/{known}" for known in find_dataset(dataset).splits),
            )
        facts, entry = find_split(dataset, split), find_dataset(dataset)
        data = self.config.paths.data
        given = self.config.paths.datasets.get(dataset)
        video_list = f"{data}/downloads/{entry.archives[facts.video_list].file}" if facts.video_list else None
        if given is not None:
            root, requires, state = given, (), _folder_state([given], f"paths.datasets.{dataset}")
            if video_list and (Path(given) / Path(video_list).name).is_file():
                video_list = str(Path(given) / Path(video_list).name)
            elif video_list:
                requires = (video_list,)
        else:
            root, state = str(entry.root(split, f"{data}/datasets/{dataset}")), ""
            markers = [f"{data}/datasets/{dataset}/{archive}.json" for archive in facts.archives]
            markers = markers or [f"{data}/datasets/{dataset}.json"]
            requires = (*markers, video_list) if video_list else tuple(markers)
        return DatasetSource(
            id=f"{dataset}-{split}",
            dataset=dataset,
            split=split,
            root=root,
            requires=tuple(requires),
            video_list=video_list,
            folder=None,
            protocol=facts.protocol if facts.has_ground_truth else None,
            state=state,
            frames=facts.frames or (facts.videos or 1) * FRAMES_PER_VIDEO,
            adapter=facts.adapter,
        )

    def _checkpoint_source(self, tracker: str, needed: bool, name: str | None) -> CheckpointSource | None:
        if name is None or not needed:
            if needed == (name is not None):
                return None
            raise VosflowError(
                f"tracker {tracker} needs a checkpoint" if needed else f"tracker {tracker} takes no checkpoint",
                path="runs.checkpoint",
                remedy="name one of the catalog (python scripts/fetch.py --list)" if needed else "remove `checkpoint:`",
            )
        own = self.config.checkpoints.get(name)
        if own is not None:
            if not Path(own.path).is_file():
                raise VosflowError("no such file", path=own.path, expected=f"weights, as checkpoints.{name}.path says")
            return CheckpointSource(name, own.path, own.config, own.sha256)
        entry = find_checkpoint(name)
        if entry.path is not None:
            return CheckpointSource(name, _from_here(entry.path), _house_config(entry.config), entry.sha256)
        path = self.config.paths.checkpoints.get(name, f"{self.config.paths.data}/checkpoints/{entry.file}")
        if name in self.config.paths.checkpoints and not Path(path).is_file():
            raise VosflowError("the file is missing", path=path, expected=f"paths.checkpoints.{name} of the config")
        return CheckpointSource(name, path, _house_config(entry.config), entry.sha256)


def archive_file(data: str, dataset: str, archive: str) -> str:
    """Where an archive of the catalog is downloaded to, below the folder `data`."""
    return f"{data}/downloads/{find_archive(dataset, archive).file}"


def archive_arguments(file: str) -> list[str]:
    """Arguments of scripts/fetch.py for the dataset file that is called `file` in the catalog."""
    for dataset, entry in load_datasets().items():
        for archive, facts in entry.archives.items():
            if facts.file == file:
                return ["--dataset", dataset, "--archive", archive]
    raise VosflowError("no dataset of the catalog has this file", path=file, remedy="python scripts/fetch.py --list")


def checkpoint_id(file: str) -> str:
    """The catalog's id of the weights whose file is called `file`."""
    for name, entry in load_checkpoints().items():
        if entry.file == file and entry.sources:
            return name
    raise VosflowError("no checkpoint of the catalog has this file", path=file, remedy="python scripts/fetch.py --list")


def load_study(data: Mapping[str, Any], announce: Callable[[str], None] = print) -> Study:
    """Check a config and plan it.

    Masks that were deleted since are noted (see `vosflow.records.note_lost_masks`) and announced.

    Raises:
        VosflowError: what is wrong with the config, or which files that it names are missing.
    """
    study = Study(parse_config(data))
    for run in study.runs:
        lost = note_lost_masks(run.folder, run.shard_records)
        if lost:
            announce(f"{run.folder}: masks of {', '.join(lost)} are gone or out of date; their shards will run again")
    return study


def _user_dataset(name: str, own: FolderDataset) -> DatasetSource:
    dataset, _, split = name.partition("/")
    folders = [own.base_video_dir, own.input_mask_dir, *([own.annotations] if own.annotations else [])]
    state = _folder_state(folders, f"datasets.{name}")
    if own.protocol is not None:
        load_protocol(own.protocol)  # an unknown one is refused now, not after hours of tracking
    if isinstance(own.videos, str):
        if not Path(own.videos).is_file():
            raise VosflowError("the list of videos is missing", path=own.videos, expected=f"datasets.{name}.videos")
        videos = len(Path(own.videos).read_text(encoding="utf-8").split())
        requires: tuple[str, ...] = (own.videos,)
    else:
        videos = len(own.videos or os.listdir(own.base_video_dir))
        requires = ()
    return DatasetSource(
        id=f"{dataset}-{split}",
        dataset=dataset,
        split=split,
        root=own.base_video_dir,
        requires=requires,
        video_list=None,
        folder=own,
        protocol=own.protocol,
        state=state,
        frames=videos * FRAMES_PER_VIDEO,
        adapter="folder",
    )


def _folder_state(folders: Iterable[str], key: str) -> str:
    """Digest of the names and modification times of all folders below `folders`: files that come or go change it."""
    found = []
    for folder in folders:
        if not Path(folder).is_dir():
            raise VosflowError(
                "the folder is missing",
                path=folder,
                expected=f"a folder, as the config says at {key}",
                remedy="mount or correct the path",
            )
        for place, subfolders, _ in os.walk(folder):
            subfolders.sort()
            found.append((os.path.relpath(place, folder), os.stat(place).st_mtime_ns))
    return data_digest(found)


def _house_config(config: str) -> str:
    """A network configuration that is a file of this repository, as a path from here; else the name as it is."""
    return _from_here(config) if (HOUSE / config).is_file() else config


def _from_here(path: str) -> str:
    """Path of a file of this repository, relative where it is below the current folder."""
    full = HOUSE / path
    if not full.is_file():
        raise VosflowError(
            "a file of vosflow itself is missing", path=full, remedy=f"restore it: git checkout -- {path}"
        )
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)


def _run_id(line: RunConfig, checkpoint: str | None, swept: Mapping[str, Any]) -> str:
    """Folder name of a run: base name, then the swept settings in alphabetical order.

    No commas: Snakemake 9.27 cannot hand a wildcard with one to a job on a cluster (it quotes the value when it
    submits, and splits at every comma when the job starts).
    """
    base = line.name or checkpoint or line.tracker.rpartition(":")[2]
    parts = [base]
    if line.name and isinstance(line.checkpoint, list):
        parts.append(f"checkpoint={checkpoint}")
    parts += [f"{key}={_value_text(value)}" for key, value in sorted(swept.items())]
    return "@".join(parts)


def _value_text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", text)


def _alternatives(names: Iterable[str]) -> str:
    return "|".join(sorted({re.escape(name) for name in names}))
