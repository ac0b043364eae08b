"""From a config to what there is to do: runs, shards, files. Pure planning, without torch or pandas.

Read at every planning and once more by every job that Snakemake starts on a cluster, so it must stay quick.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vosflow.catalog import find_split
from vosflow.config import MOST_SHARDS, Config, RunConfig, parse_config
from vosflow.digest import code_digest, data_digest, file_digest
from vosflow.errors import VosflowError, told_of
from vosflow.evaluation.protocols import load_protocol
from vosflow.manifest import INSTANCES
from vosflow.method import code_modules, parse_settings
from vosflow.roles import by_role, each_role
from vosflow.sources import DatasetSource, check_names, dataset_source
from vosflow.submission.formats import find_format
from vosflow.trackers.base import TrackerSettings
from vosflow.trackers.registry import load_tracker
from vosflow.training.planning import DEMO_SETS, StageJob, plan_trainings
from vosflow.weights import CheckpointSource, Sources, non_commercial_notes, weight_sources

MINUTES_AT_LEAST = 30  # time limit of the smallest job: a busy file system and a slow start must fit in
MARGIN = 4  # a job may take this many times as long as expected before a scheduler ends it

T = TypeVar("T")

RESULTS_FILE = "results.json"
SCORE_FILES = ("scores.csv", "per_object_results.csv", "global_results.csv")


@dataclass(frozen=True)
class Run:
    """One tracker with one complete set of settings and its weights, over one dataset split."""

    id: str
    dataset: DatasetSource
    tracker: str
    settings: Mapping[str, Any]
    swept: Mapping[str, Any]
    notes: tuple[str, ...]
    checkpoint: Sources
    device: str
    shards: int
    folder: str
    minutes: float
    code: str = field(repr=False, default="")

    @property
    def gpus(self) -> int:
        """GPUs that a tracking job asks for."""
        return int(self.device != "cpu")

    @property
    def time_limit(self) -> int:
        """Minutes that a tracking job asks a scheduler for, the first time; `minutes` is what it should take."""
        return max(MINUTES_AT_LEAST, math.ceil(MARGIN * self.minutes))

    @property
    def licence_notes(self) -> list[str]:
        """What the licences of its weights forbid."""
        return non_commercial_notes(one.id for one in by_role(self.checkpoint).values())

    @property
    def scored(self) -> bool:
        """Whether there is public ground truth to score against."""
        return self.dataset.protocol is not None

    @property
    def proposes(self) -> bool:
        """Whether its tracker proposes the objects, because its dataset gives no prompts."""
        return _wants_instances(self.dataset)

    @property
    def predictions(self) -> str:
        """What is scored and submitted: the folder of masks, or the file of instances."""
        return self.file(RESULTS_FILE if self.proposes else "masks")

    @property
    def prediction_files(self) -> list[str]:
        """Files that scoring waits for, beside the shard records."""
        return [self.predictions] if self.proposes else []

    @property
    def scoring_options(self) -> str:
        """Options of scripts/evaluate.py: who proposes objects may find none, and the file is known to be complete."""
        return "--no-strict" if self.proposes else ""

    @property
    def protocol(self) -> str | None:
        """The scoring rules of the dataset's publisher."""
        return self.dataset.protocol

    @functools.cached_property
    def made(self) -> str:
        """Short digest of what decides the masks, apart from the videos; part of the shard records' names.

        So a record of other settings, weights or code is another file, and what is stale is seen without Snakemake's
        own memory of parameters, which does not travel with copied results.
        """
        weights = each_role(lambda one: one.sha256 or one.path, self.checkpoint)
        config = each_role(_config_id, self.checkpoint)
        division = code_digest("vosflow.sharding")  # shards of two ways to divide would miss videos between them
        return data_digest([self.tracker, dict(self.settings), weights, config, self.code, division])[:8]

    @property
    def shard_records(self) -> list[str]:
        """The declared outputs of the run's tracking jobs."""
        return [self.file(f"shards/{n}-of-{self.shards}-{self.made}.json") for n in range(1, self.shards + 1)]

    @property
    def results(self) -> list[str]:
        """All files of a finished run that Snakemake knows: asked for by name, so that a deleted one is made again."""
        scores = [self.file(name) for name in SCORE_FILES] if self.scored else []
        return [*self.shard_records, self.file("run.json"), *self.prediction_files, *scores, *self.submissions]

    @property
    def submissions(self) -> list[str]:
        """The checked zip that a run without public ground truth ends in, if there is a server for its dataset."""
        if self.scored or find_format(self.dataset.dataset, self.dataset.split) is None:
            return []
        return [self.file("submission.zip")]

    @property
    def checkpoint_inputs(self) -> list[str]:
        """Files that tracking waits for: the weights, or the sign that they were fetched and checked."""
        return [one.requires for one in by_role(self.checkpoint).values()]

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
        keys = ("id", "path", "config", "sha256")
        checkpoint = each_role(lambda one: {key: getattr(one, key) for key in keys}, self.checkpoint)
        return {"tracker": self.tracker, "settings": dict(self.settings), "checkpoint": checkpoint}

    @property
    def description(self) -> dict[str, Any]:
        """What tables and the page must know of the run, as plain data."""
        return {
            "dataset": self.dataset.dataset,
            "split": self.dataset.split,
            "run": self.id,
            "tracker": self.tracker,
            "settings": dict(self.settings),
            "swept": dict(self.swept),
            "notes": [*self.notes, *self.licence_notes],
            "checkpoint": each_role(
                lambda one: {"id": one.id, "file": one.path, "config": one.config}, self.checkpoint
            ),
            "scored": self.scored,
        }


class Study:
    """The runs that one config asks for, and the files that they need."""

    def __init__(self, config: Config) -> None:
        self.config = config
        check_names(config)
        self._datasets: dict[str, DatasetSource] = {}
        self._in_full = set(_of_each(config.runs, _read_in_full))
        self.trainings = plan_trainings(config)
        runs = _of_each(config.runs, self._expand)
        _check_devices(runs)
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

    def run(self, dataset: str, run: str, made: str | None = None) -> Run:
        """The run in the folder `{dataset}/{run}`.

        Args:
            made: what the run is thought to be made from. A job on a cluster reads the config again when it starts: if
                it was edited meanwhile, the job would write masks of other settings under the name of these.

        Raises:
            VosflowError: the run is made from something else by now.
        """
        found = self._by_id[dataset, run]
        if made not in (None, found.made):
            raise VosflowError(
                "settings, weights or code of this run were edited after its jobs were planned",
                path=found.folder,
                expected=f"what it was planned with ({made}, and now it is {found.made})",
                remedy="let snakemake end, or interrupt it, and start it again",
            )
        return found

    def stage(self, stage: str, made: str) -> StageJob:
        """A stage of a training; raises VosflowError if it was edited after its job was planned."""
        found = next((job for job in self.trainings if job.made == made), None)
        if found is None:
            now = [job for job in self.trainings if str(job.plan.stage) == stage]
            raise VosflowError(
                "settings, data or code of this training were edited after its jobs were planned",
                path=", ".join(job.id for job in now),
                expected=f"what it was planned with ({made}, and now it is {', '.join(job.made for job in now)})",
                remedy="let snakemake end, or interrupt it, and start it again",
            )
        return found

    def stage_pattern(self, *, gpus: bool) -> str:
        """Regular expression for the stages that are trained on GPUs, or on the CPU; matches nothing if none are."""
        return _alternatives(str(job.plan.stage) for job in self.trainings if job.on_gpus == gpus) or "(?!)"

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

    def run_pattern_by_device(self, gpus: int) -> str:
        """Regular expression for the ids of those runs whose jobs ask for `gpus` GPUs; matches nothing if none do."""
        return _alternatives(run.id for run in self.runs if run.gpus == gpus) or "(?!)"

    @property
    def data_files(self) -> list[str]:
        """Files that stand for all datasets of the study being fetched and extracted."""
        return sorted({file for source in self._datasets.values() for file in source.requires})

    @property
    def checkpoint_files(self) -> list[str]:
        """All weights of the study that come from outside, and all that trainings need of it."""
        made = {job.weights for job in self.trainings} | {DEMO_SETS.format(data=self.config.paths.data)}
        needed = {file for run in self.runs for file in run.checkpoint_inputs}
        return sorted((needed | {file for job in self.trainings for file in job.inputs}) - made)

    def _expand(self, line: RunConfig) -> Iterable[Run]:
        """All combinations of one line of `runs`."""
        kind = load_tracker(line.tracker)
        lists = {key: value for key, value in sorted(line.settings.items()) if isinstance(value, list)}
        fixed = {key: value for key, value in line.settings.items() if key not in lists}
        datasets = line.dataset if isinstance(line.dataset, list) else [line.dataset]
        digest = functools.cache(lambda modules: code_digest(*modules))
        for dataset, checkpoint, *values in itertools.product(datasets, _checkpoints(line), *lists.values()):
            chosen = dict(zip(lists, values, strict=True))
            settings = parse_settings(kind, line.tracker, {**fixed, **chosen})
            resolved = settings.model_dump(mode="json")
            swept = {key: resolved[key] for key in lists}
            source = self._dataset_source(dataset)
            with told_of(f"dataset: {dataset}"):
                _check_prompts(line.tracker, settings, source)
            run_id = _run_id(line, checkpoint, swept)
            work = source.frames / self.config.execution.frames_per_second / 60  # minutes
            shards = self._shards(work)
            weights = weight_sources(self.config, line.tracker, kind, settings, checkpoint)
            yield Run(
                id=run_id,
                dataset=source,
                tracker=line.tracker,
                settings=resolved,
                swept=swept,
                notes=tuple(settings.notes()),
                checkpoint=weights,
                device=self.config.execution.device if kind.uses_gpu else "cpu",
                shards=shards,
                minutes=work / shards,
                folder=f"{self.config.paths.results}/{source.id}/{run_id}",
                code=digest(code_modules(line.tracker, settings)),
            )

    def _shards(self, work: float) -> int:
        """Jobs for this many minutes of work. Never from the number of GPUs or from earlier records.

        Those differ between two plannings of one study, and the jobs that Snakemake starts must plan as it did.
        """
        execution = self.config.execution
        if execution.shards != "auto":
            return execution.shards
        return min(max(1, math.ceil(work / execution.minutes_per_job)), MOST_SHARDS)

    def _dataset_source(self, name: str) -> DatasetSource:
        if name not in self._datasets:
            self._datasets[name] = dataset_source(self.config, name, full_frames=name in self._in_full)
        return self._datasets[name]


def _of_each(lines: Iterable[RunConfig], function: Callable[[RunConfig], Iterable[T]]) -> list[T]:
    """All that `function` gives for the lines of `runs`; its errors tell which line it is."""
    found = []
    for number, line in enumerate(lines):
        with told_of(f"runs.{number}"):
            found += function(line)
    return found


def _read_in_full(line: RunConfig) -> list[str]:
    """The datasets of a line whose frames its tracker reads in the camera's resolution, where there are such."""
    wanted = getattr(load_tracker(line.tracker), "reads_full_frames", False)
    return ([line.dataset] if isinstance(line.dataset, str) else line.dataset) if wanted else []


def _check_prompts(tracker: str, settings: TrackerSettings, source: DatasetSource) -> None:
    """Refuse at planning what would fail video by video: prompts that a tracker does not take."""
    if _wants_instances(source) and not getattr(load_tracker(tracker), "proposes_objects", False):
        raise VosflowError(
            f"no masks are given here: a tracker must propose objects itself, which {tracker} does not",
            expected="a dataset with given masks, or a tracker with `proposes_objects = True`",
            remedy="choose another tracker; a JSON file of instances that another program made is scored by "
            "scripts/evaluate.py",
        )
    lacking = settings.lacking_for_late_objects()
    late = (source.folder or find_split(source.dataset, source.split)).late_objects
    if late and lacking is not None:
        raise VosflowError(
            f"objects may be given on later frames here, which {tracker} does not take with these settings",
            expected=f"the settings {lacking}, or a dataset whose objects are all given on one frame",
            remedy="add them to the run's settings; or, if all objects are given on one frame, declare the dataset "
            "yourself under `datasets:`, without late_objects",
        )


def _wants_instances(source: DatasetSource) -> bool:
    return source.folder is None and find_split(source.dataset, source.split).layout == INSTANCES


def load_study(data: Mapping[str, Any], source: str = "config.yaml") -> Study:
    """Check a config and plan it.

    Args:
        source: name of the config file, for messages.

    Raises:
        VosflowError: what is wrong with the config, or which files that it names are missing.
    """
    config = parse_config(data, source)
    with told_of(source):
        return Study(config)


def _check_devices(runs: Iterable[Run]) -> None:
    """Refuse runs of one name that need a GPU on one dataset and none on another: rules know runs by their names."""
    gpus: dict[str, int] = {}
    for run in runs:
        if gpus.setdefault(run.id, run.gpus) != run.gpus:
            raise VosflowError(
                f"two runs called {run.id} compute on different devices",
                path="runs",
                expected="runs of one name to be of one tracker",
                remedy="give them different names (`name:`)",
            )


def _checkpoints(line: RunConfig) -> Iterable[str | dict[str, str] | None]:
    """What `checkpoint:` of a line stands for: each id of a list, each combination of ids by role."""
    if not isinstance(line.checkpoint, dict):
        return line.checkpoint if isinstance(line.checkpoint, list) else [line.checkpoint]
    lists = [ids if isinstance(ids, list) else [ids] for ids in line.checkpoint.values()]
    return [dict(zip(line.checkpoint, ids, strict=True)) for ids in itertools.product(*lists)]


def _config_id(source: CheckpointSource) -> str | None:
    """A network configuration's name, or the digest of its file."""
    return file_digest(source.config) if source.config and Path(source.config).is_file() else source.config


def _run_id(line: RunConfig, checkpoint: str | dict[str, str] | None, swept: Mapping[str, Any]) -> str:
    """Folder name of a run: base name, then the swept settings in alphabetical order.

    No commas: Snakemake 9.27 cannot hand a wildcard with one to a job on a cluster (it quotes the value when it
    submits, and splits at every comma when the job starts).
    """
    base = line.name or (isinstance(checkpoint, str) and checkpoint) or line.tracker.rpartition(":")[2]
    parts = [base]
    if line.name and isinstance(line.checkpoint, list):
        parts.append(f"checkpoint={checkpoint}")
    if isinstance(line.checkpoint, dict):
        lists = sorted(role for role, ids in line.checkpoint.items() if isinstance(ids, list))
        parts += [f"checkpoint.{role}={checkpoint[role]}" for role in lists]
    parts += [f"{key}={_value_text(value)}" for key, value in sorted(swept.items())]
    return "@".join(parts)


def _value_text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, Mapping):
        return "+".join(f"{key}-{_value_text(one)}" for key, one in sorted(value.items()))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9_.+-]", "-", text)


def _alternatives(names: Iterable[str]) -> str:
    return "|".join(sorted({re.escape(name) for name in names}))
