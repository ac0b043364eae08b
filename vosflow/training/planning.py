"""From the section `training` of a config to stages: their files, and what decides their weights. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vosflow.catalog import find_checkpoint, find_dataset, find_split, load_checkpoints
from vosflow.config import Config, TrainingConfig
from vosflow.datasets.training_sets import DAVIS_LIST, FLAT_SETS
from vosflow.digest import canonical_json, code_digest, data_digest
from vosflow.errors import VosflowError
from vosflow.sources import FETCHED, dataset_source, existing_folders
from vosflow.training.rde.files import CURVES, PLAN, WEIGHTS
from vosflow.training.rde.settings import CHAINS, PRESETS, SETS, StageSettings
from vosflow.training.rde.stage import SetFolder, StagePlan
from vosflow.training.set_identity import describe_set
from vosflow.validation import explain_validation

DEMO = "demo"  # instead of a folder: the set that vosflow draws
DEMO_SETS = "{data}/training/demo_sets.json"  # the sign that these are there
LAYOUTS = {  # of one's own folders
    "static": ("fss", *FLAT_SETS),
    "bl30k": ("JPEGImages", "Annotations"),
    "davis": ("JPEGImages", "Annotations", DAVIS_LIST),
    "youtube": ("JPEGImages", "Annotations"),
}
UNSCORED = {"static": "static_images", "bl30k": "bl30k"}  # datasets of the catalog that are for training alone
SPLITS = {"davis": "davis2017/train", "youtube": "youtubevos2019/train"}  # of datasets that have other splits, too
IMAGENET = {"resnet50": "resnet50_imagenet", "resnet18": "resnet18_imagenet"}
PROCESS_MB, WORKER_MB = 6_000, 1_000  # full size: CUDA, the network and Adam's state; three batches of 150 MB

# Imported where stages are trained, but nothing that weights follow from: how RDE-VOS tracks, other datasets and the
# catalog, settings (whose values count instead), and what tells of the progress. A training takes weeks.
NO_WEIGHTS = ("vosflow.trackers.rde", "vosflow.datasets") + tuple(
    f"vosflow.training.rde.{name}"
    for name in ("continuing", "curves", "files", "measuring", "saving", "settings", "stage", "telling")
)


@dataclass(frozen=True)
class StageJob:
    """One stage of a training, as the workflow runs it.

    Stages that agree in all that decides their weights are one stage, in one folder: whatever trainings they are of.

    Attributes:
        training: its id in the config.
        made: short digest of what decides the weights, those of the stage before included; part of the folder's name.
        folder: where its files are.
        inputs: files that must be there first.
        on_gpus: trains on GPUs; else on the CPU.
    """

    training: str
    plan: StagePlan
    made: str
    folder: str
    inputs: tuple[str, ...]
    on_gpus: bool

    @property
    def id(self) -> str:
        """Its name as a checkpoint."""
        return f"{self.training}.stage{self.plan.stage}"

    @property
    def weights(self) -> str:
        """File of the weights that it ends in."""
        return f"{self.folder}/{WEIGHTS}"

    @property
    def curves(self) -> str:
        """File of its curves."""
        return f"{self.folder}/{CURVES}"

    @property
    def variable(self) -> str:
        """The environment variable that tells its job what does not decide weights."""
        return f"VOSFLOW_STAGE_{self.made}"

    @property
    def gpus(self) -> int:
        """GPUs that the job asks for."""
        return self.plan.settings.processes if self.on_gpus else 0

    @property
    def minutes(self) -> int:
        """Time that a scheduler is asked for."""
        return math.ceil(60 * self.plan.settings.hours)

    @property
    def threads(self) -> int:
        """CPU threads of the job."""
        settings = self.plan.settings
        return settings.processes * (settings.threads + settings.workers)

    @property
    def mem_mb(self) -> int:
        """CPU memory of the job: its processes, and their workers with the batches that they have ready."""
        settings = self.plan.settings
        return settings.processes * (PROCESS_MB + WORKER_MB * settings.workers)


def plan_trainings(config: Config) -> list[StageJob]:
    """All stages of all trainings, each after those that it needs.

    Raises:
        VosflowError: stages in an order that does not exist, wrong settings, or data that nobody knows.
    """
    taken = [name for name in config.training if name in config.checkpoints or name in load_checkpoints()]
    if taken:
        raise VosflowError(
            "a training and a checkpoint have one name",
            path=f"training.{taken[0]}",
            expected="names that tell it from those of the catalog and those below `checkpoints:`",
            remedy="choose another name for the training",
        )
    return [job for name, training in config.training.items() for job in _plan_stages(config, name, training)]


def read_plan(plan: str, practical: str | None = None) -> StagePlan:
    """A stage from JSON, or from a file that holds it.

    Args:
        plan: what `StagePlan.as_data` gives, as plan.json in the folder of a stage; with `practical` only what decides.
        practical: the rest.

    Raises:
        VosflowError: no such file, no JSON, or not that of a stage.
    """
    inline = plan.lstrip().startswith("{")
    place = "--plan" if inline else plan
    try:
        with explain_validation(StageSettings, f"{place}, --practical"):
            data = json.loads(plan if inline else Path(plan).read_text(encoding="utf-8"))
            if practical is not None:
                data = {"deciding": data, "practical": json.loads(practical)}
            return StagePlan.of(data["deciding"], data["practical"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VosflowError(
            f"not the plan of a stage ({type(error).__name__}: {error})",
            path=f"{place}, --practical",
            expected=f"{PLAN} of a stage's folder, data/training/rde/stage{{n}}-{{digest}}, which its first job writes",
            remedy="name that file, without --practical: what jobs take from environment variables is in it",
        ) from error


def stage_variables(device: str, jobs: Sequence[StageJob]) -> dict[str, str]:
    """Environment variables for the jobs that train: what does not decide weights.

    Where trainings have a stage in common and differ in this, the first of them counts.
    """
    practical = {}
    for job in jobs:
        names = [other.id for other in jobs if other.made == job.made]
        practical.setdefault(job.variable, canonical_json({**job.plan.practical(), "names": names}))
    return {"VOSFLOW_TRAINING_DEVICE": device, **practical}


def find_trained(config: Config, name: str) -> StageJob | None:
    """The stage whose weights are called `name`: "{id}" for the last one of a training, "{id}.stage0"; None if none."""
    training = name if name in config.training else name.rpartition(".")[0]
    if training not in config.training:
        return None
    jobs = list(_plan_stages(config, training, config.training[training]))
    found = {training: jobs[-1]} | {job.id: job for job in jobs}
    if name not in found:
        raise VosflowError(
            f"the training has no weights called {name}",
            path=f"training.{training}",
            expected=", ".join(found),
            remedy="name one of these, or add the stage",
        )
    return found[name]


def _plan_stages(config: Config, name: str, training: TrainingConfig) -> Iterator[StageJob]:
    _check(name, training)
    previous: StageJob | None = None
    for stage in training.stages:
        settings = _settings(name, training, stage)
        sources = [_set_source(config, name, training, kind) for kind in SETS[stage]]
        imagenet, weights = _imagenet(config, training) if stage == 0 else ({}, ())
        plan = StagePlan(
            stage=stage,
            settings=settings,
            width=training.width,
            key_channels=training.key_channels,
            sets=tuple(source.folder for source in sources),
            previous=previous and previous.weights,
            imagenet=imagenet,
            origin={
                "sets": {source.folder.kind: source.identity for source in sources},
                "before": previous and previous.made,
                "imagenet": [find_checkpoint(IMAGENET[part]).identity for part in sorted(imagenet)],
                "code": code_digest("vosflow.training.rde.trainer", without=NO_WEIGHTS),
            },
            names=(f"{name}.stage{stage}",),
        )
        made = data_digest(plan.deciding())[:8]
        before = (previous.weights,) if previous else weights
        previous = StageJob(
            training=name,
            plan=plan,
            made=made,
            folder=f"{config.paths.data}/training/{training.method}/stage{stage}-{made}",
            inputs=tuple(dict.fromkeys([*before, *(file for source in sources for file in source.requires)])),
            on_gpus=config.execution.device != "cpu",
        )
        yield previous


def _check(name: str, training: TrainingConfig) -> None:
    stages = tuple(training.stages)
    if not any(chain[: len(stages)] == stages for chain in CHAINS):
        raise VosflowError(
            f"there is no training with the stages {list(stages)}",
            path=f"training.{name}.stages",
            expected="[0, 1, 2], [0, 3], or a beginning of these: each stage goes on from the one before",
            remedy="correct the order; 3 is stage 2 without stage 1 (BL30K) before it",
        )
    unknown = [stage for stage in training.stage_settings if stage not in stages]
    if unknown:
        raise VosflowError(
            f"there are settings for stage {unknown[0]}, which is not trained",
            path=f"training.{name}.stage_settings",
            expected=f"stages {list(stages)}",
            remedy="remove them, or add the stage",
        )
    if training.backbone == "imagenet" and training.width != 64:
        raise VosflowError(
            f"ImageNet weights are for networks of width 64, and this one has {training.width}",
            path=f"training.{name}.backbone",
            expected="width: 64, or backbone: random",
            remedy="say backbone: random to begin with random weights",
        )


def _settings(name: str, training: TrainingConfig, stage: int) -> StageSettings:
    given = {**training.settings, **training.stage_settings.get(stage, {})}
    with explain_validation(StageSettings, f"training.{name}, stage {stage}"):
        return StageSettings.model_validate({**PRESETS[training.preset][stage], **given})


@dataclass(frozen=True)
class _SetSource:
    """A training set: its folder, what tells it from others in any folder, and the files that must be there first."""

    folder: SetFolder
    identity: dict[str, Any]
    requires: tuple[str, ...]


def _set_source(config: Config, name: str, training: TrainingConfig, kind: str) -> _SetSource:
    data, given, key = config.paths.data, training.data.get(kind), f"training.{name}.data.{kind}"
    if given is None and UNSCORED.get(kind) in config.paths.datasets:
        given, key = config.paths.datasets[UNSCORED[kind]], f"paths.datasets.{UNSCORED[kind]}"
    if given == DEMO:
        marker = DEMO_SETS.format(data=data)
        return _SetSource(
            SetFolder(kind, f"{marker.removesuffix('.json')}/{kind}"), {"drawn by": demo_sets_code()}, (marker,)
        )
    if given is not None:
        return _SetSource(SetFolder(kind, given), _describe_own(kind, given, key), ())
    if kind == "bl30k":
        raise VosflowError(
            "BL30K (700 GB in six archives) has no address that a program could fetch it from",
            path=f"training.{name}.data",
            expected="bl30k: the folder that holds JPEGImages and Annotations",
            remedy=f"fetch it from {find_dataset('bl30k').register_at} and name its folder; or train [0, 3] without it",
        )
    if kind == "static":
        folder, archive = f"{data}/datasets/static_images/static", find_dataset("static_images").archives["static"]
        return _SetSource(SetFolder(kind, f"{folder}/static"), {"static": archive.identity}, (f"{folder}.json",))
    dataset, _, split = SPLITS[kind].partition("/")
    source, archives = dataset_source(config, SPLITS[kind]), find_dataset(dataset).archives
    if dataset in config.paths.datasets:
        identity = _describe_own(kind, source.root, f"paths.datasets.{dataset}")
    else:  # it may not be there yet
        identity = {name: archives[name].identity for name in find_split(dataset, split).archives}
    return _SetSource(SetFolder(kind, source.root), identity, source.requires)


def _describe_own(kind: str, folder: str, key: str) -> dict[str, Any]:
    """What tells a set in one's own folder from others; `key` of the config names the folder."""
    existing_folders([folder], key, f"the training set {kind}")
    if lacking := [part for part in LAYOUTS[kind] if not Path(folder, part).exists()]:
        raise VosflowError(
            f"the folder is not the training set {kind}: it has no {lacking[0]}",
            path=folder,
            expected=", ".join(LAYOUTS[kind]),
            remedy=f"correct {key}: the stage that needs it may begin days from now",
        )
    try:
        found = describe_set(kind, folder)
    except OSError as error:
        raise VosflowError(
            f"the training set {kind} cannot be listed ({error})",
            path=folder,
            expected=", ".join(LAYOUTS[kind]),
            remedy=f"mount or correct the path at {key}, and have it readable",
        ) from error
    if empty := [what for what in ("videos", "images") if found.get(what) == 0]:
        raise VosflowError(
            f"the training set {kind} has no {empty[0]}",
            path=folder,
            expected=f"{', '.join(LAYOUTS[kind])}, with {empty[0]} in them",
            remedy=f"mount or correct the path at {key}",
        )
    return found


def demo_sets_code() -> str:
    """Digest of the code that decides what the demo's training sets are."""
    return code_digest("vosflow.training.rde.demo_sets", without=NO_WEIGHTS)


def _imagenet(config: Config, training: TrainingConfig) -> tuple[dict[str, str], tuple[str, ...]]:
    """Files of the ImageNet weights, and the files that stand for their being there."""
    if training.backbone == "random":
        return {}, ()
    files, requires = {}, []
    for part, checkpoint in IMAGENET.items():
        given = config.paths.checkpoints.get(checkpoint)
        place = f"{config.paths.data}/checkpoints/{find_checkpoint(checkpoint).file}"
        files[part] = given or place
        requires.append(given or place + FETCHED)
    return files, tuple(requires)
