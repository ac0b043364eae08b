"""From a config to what there is to do: runs, shards, files. Pure planning, without torch or pandas.

Read at every planning and once more by every job that Snakemake starts on a cluster, so it must stay quick.
"""

from __future__ import annotations

import csv
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
    RemoteFile,
    find_archive,
    find_checkpoint,
    find_dataset,
    find_split,
    known,
    load_checkpoints,
    load_datasets,
)
from vosflow.config import Config, RunConfig, parse_config
from vosflow.digest import canonical_json, code_digest, data_digest, file_digest
from vosflow.engine import SHARED_MODULES, method_digest, parse_settings
from vosflow.errors import VosflowError
from vosflow.evaluation.protocols import BUILT_IN, load_protocol
from vosflow.records import RunFolder, withdraw_false_records
from vosflow.trackers.base import Tracker
from vosflow.trackers.registry import load_tracker, tracker_module

DATA_SUFFIXES = (".jpg", ".jpeg", ".png", ".txt", ".json")
HOUSE = Path(vosflow.__file__).resolve().parents[1]
SCORE_FILES = ("scores.csv", "per_object_results.csv", "global_results.csv")
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
    device: str
    shards: int
    folder: str
    code: str = field(repr=False, default="")

    @property
    def gpus(self) -> int:
        """GPUs that a tracking job asks for."""
        return int(self.device != "cpu")

    @property
    def scored(self) -> bool:
        """Whether there is public ground truth to score against."""
        return self.dataset.protocol is not None

    @property
    def protocol(self) -> str | None:
        """The scoring rules of the dataset's publisher."""
        return self.dataset.protocol

    @property
    def made(self) -> str:
        """Short digest of what decides the masks, apart from the videos; part of the shard records' names.

        So a record of other settings, weights or code is another file, and what is stale is seen without Snakemake's
        own memory of parameters, which does not travel with copied results.
        """
        weights = self.checkpoint and (self.checkpoint.sha256 or self.checkpoint.path)
        config = self.checkpoint and self.checkpoint.config
        if config and Path(config).is_file():
            config = file_digest(config)
        return data_digest([self.tracker, dict(self.settings), weights, config, self.code])[:8]

    @property
    def shard_records(self) -> list[str]:
        """The declared outputs of the run's tracking jobs."""
        return [self.file(f"shards/{n}-of-{self.shards}-{self.made}.json") for n in range(1, self.shards + 1)]

    @property
    def results(self) -> list[str]:
        """All files of a finished run that Snakemake knows: asked for by name, so that a deleted one is made again."""
        scores = [self.file(name) for name in SCORE_FILES] if self.scored else []
        return [*self.shard_records, self.file("run.json"), *scores]

    @property
    def checkpoint_inputs(self) -> list[str]:
        """Files of weights that tracking waits for."""
        return [] if self.checkpoint is None else [self.checkpoint.path]

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
        _check_paths(config)
        self._datasets: dict[str, DatasetSource] = {}
        runs = [run for line in config.runs for run in self._expand(line)]
        places = list(self._datasets)  # runs of one dataset stand together, in tables too
        self.runs: list[Run] = sorted(runs, key=lambda run: places.index(f"{run.dataset.dataset}/{run.dataset.split}"))
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
                checkpoint=self._checkpoint_source(line.tracker, kind, checkpoint),
                device=self.config.execution.device if kind.uses_gpu else "cpu",
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
                remedy="add the split: " + ", ".join(f"{dataset}/{name}" for name in find_dataset(dataset).splits),
            )
        if dataset not in load_datasets():
            known(
                name,
                [*self.config.datasets, *(f"{d}/{s}" for d, e in load_datasets().items() for s in e.splits)],
                "dataset",
            )
        facts, entry = find_split(dataset, split), find_dataset(dataset)
        data = self.config.paths.data
        given = self.config.paths.datasets.get(dataset)
        video_list = f"{data}/downloads/{entry.archives[facts.video_list].file}" if facts.video_list else None
        if given is not None:
            root, requires, state = given, (), _folder_state([given], f"paths.datasets.{dataset}")
            if video_list:
                found = _find_beside(given, entry.archives[facts.video_list])
                video_list, requires = (found, ()) if found else (video_list, (video_list,))
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

    def _checkpoint_source(self, tracker: str, kind: type[Tracker], name: str | None) -> CheckpointSource | None:
        needed = kind.needs_checkpoint
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
            path = _existing(own.path, f"checkpoints.{name}.path")
            if own.config is None and getattr(kind, "needs_config", False):
                raise VosflowError(
                    f"tracker {tracker} needs the network configuration of these weights",
                    path=f"checkpoints.{name}",
                    expected="`config:`, for instance configs/sam2.1/sam2.1_hiera_b+.yaml, or a YAML file",
                    remedy="add it to the entry",
                )
            return CheckpointSource(name, path, own.config, own.sha256)
        entry = find_checkpoint(name)
        config = _house_config(entry.config)
        given = self.config.paths.checkpoints.get(name)
        if given is not None:
            # Weights that are trained here may be trained anew; published ones are what they are.
            sha256 = None if entry.path else entry.sha256
            return CheckpointSource(name, _existing(given, f"paths.checkpoints.{name}"), config, sha256)
        if entry.path is not None:
            return CheckpointSource(name, _from_here(entry.path), config, entry.sha256)
        return CheckpointSource(name, f"{self.config.paths.data}/checkpoints/{entry.file}", config, entry.sha256)


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


def load_study(data: Mapping[str, Any], source: str = "config.yaml") -> Study:
    """Check a config and plan it.

    Args:
        source: name of the config file, for messages.

    Raises:
        VosflowError: what is wrong with the config, or which files that it names are missing.
    """
    return Study(parse_config(data, source))


def review_results(study: Study, announce: Callable[[str], None]) -> None:
    """Withdraw promises of earlier jobs that are no longer true, and announce what will be computed again or replaced.

    To be called once per planning, not by the jobs: while they run, results are in between.
    """
    dropped = _runs_dropped_from_tables(study)
    if dropped:
        announce(
            f"{study.config.paths.results}: the tables and the page are of another study ({dropped} runs) and will be "
            "replaced; masks and scores stay. To keep them, give this study its own `paths: results:`"
        )
    for run in study.runs:
        false = withdraw_false_records(run.folder, run.shard_records)
        if false:
            announce(f"{run.folder}: masks of {', '.join(false)} are gone or out of date and will be computed again")
        if any(not Path(record).exists() for record in run.shard_records):
            others = _videos_of_other_settings(run)
            if others:
                announce(
                    f"{run.folder} holds {others} videos of other settings, which will be replaced; "
                    "to keep both, give this run another `name:`"
                )


def _runs_dropped_from_tables(study: Study) -> int:
    """Runs of another study in the tables that this one will replace."""
    try:
        with open(f"{study.config.paths.results}/tables/summary.csv", newline="", encoding="utf-8") as file:
            listed = {(row["dataset"], row["run"]) for row in csv.DictReader(file)}
    except (OSError, KeyError):
        return 0
    planned = {(f"{run.dataset.dataset}/{run.dataset.split}", run.id) for run in study.runs}
    return 0 if listed & planned else len(listed)


def _videos_of_other_settings(run: Run) -> int:
    folder = RunFolder(run.folder)
    records = [folder.read_record(path.stem) for path in sorted(folder.videos.glob("*.json"))]
    planned = method_digest(run.tracker, run.settings)
    return sum(record is not None and record.get("method") != planned for record in records)


def _find_beside(folder: str, file: RemoteFile) -> str | None:
    """A file of the catalog in a user's folder or next to it, under our name or its publisher's."""
    for place in (Path(folder), Path(folder).parent):
        for name in (file.published_as, file.file):
            if name and (place / name).is_file():
                return str(place / name)
    return None


def _check_paths(config: Config) -> None:
    """Refuse `paths` for things that nobody knows: else they would silently be fetched instead."""
    for dataset in config.paths.datasets:
        known(dataset, load_datasets(), "dataset in paths.datasets")
    for checkpoint in config.paths.checkpoints:
        known(checkpoint, load_checkpoints(), "checkpoint in paths.checkpoints")


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
    load_protocol(own.protocol)
    problem = None
    if own.annotations is None:
        problem = "there are no `annotations` to score against"
    elif own.late_objects:
        problem = "it scores only objects of the first frame, and these may appear later (late_objects)"
    elif own.per_obj_png_file:
        problem = "it scores label maps, and these masks are one file per object (per_obj_png_file)"
    elif own.binary and own.protocol == "davis2017":
        problem = "binary masks of one object belong to davis2016"
    if problem:
        raise VosflowError(
            f"protocol {own.protocol} cannot score this dataset: {problem}",
            path=f"datasets.{name}",
            expected="annotations in the form that the protocol scores, or no protocol",
            remedy="correct the entry, or leave out `protocol`: then the run ends in label maps",
        )


def _user_dataset(name: str, own: FolderDataset) -> DatasetSource:
    dataset, _, split = name.partition("/")
    folders = [own.base_video_dir, own.input_mask_dir, *([own.annotations] if own.annotations else [])]
    state = _folder_state(folders, f"datasets.{name}")
    _check_protocol(name, own)
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
    """Digest of the names, sizes and modification times of all data files below `folders`, links followed.

    What comes, goes or is overwritten changes it; then the manifest is written again, and its digests of contents
    decide which videos really changed.
    """
    found: list[tuple[str, int, int]] = []
    for folder in folders:
        if not Path(folder).is_dir():
            raise VosflowError(
                "the folder is missing",
                path=folder,
                expected=f"a folder, as the config says at {key}",
                remedy="mount or correct the path",
            )
        seen: set[str] = set()
        for place, subfolders, files in os.walk(folder, followlinks=True):
            real = os.path.realpath(place)
            if real in seen:  # a link back up
                subfolders.clear()
                continue
            seen.add(real)
            for name in files:
                if name.lower().endswith(DATA_SUFFIXES):
                    facts = os.stat(os.path.join(place, name))
                    found.append((os.path.relpath(os.path.join(place, name), folder), facts.st_size, facts.st_mtime_ns))
    return data_digest(sorted(found))


def _existing(path: str, key: str) -> str:
    if not Path(path).is_file():
        raise VosflowError("no such file", path=path, expected=f"weights, as the config says at {key}")
    return path


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
