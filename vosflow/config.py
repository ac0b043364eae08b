"""The config file, typed. What is unknown or wrong is refused at planning, with the key, what is allowed, and a guess.

`vosflow/config.schema.json` is generated from these models (`python scripts/make_schema.py`), for editors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator

from vosflow.catalog import FolderDataset, PathText
from vosflow.errors import VosflowError
from vosflow.validation import explain_validation

Device = Literal["auto", "cpu", "cuda"]
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
MOST_SHARDS = 10_000
DATASET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*/[A-Za-z0-9][A-Za-z0-9_.-]*")


class Model(BaseModel):
    """Base: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_shards(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_SHARDS):
        return value
    raise ValueError(f"must be a whole number from 1 to {MOST_SHARDS}, or 'auto'")


Shards = Annotated[
    Any,
    BeforeValidator(_check_shards),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_SHARDS}, {"const": "auto"}]}),
]


class RunConfig(Model):
    """One line of a study: a tracker over dataset splits. Lists are swept: every combination is one run."""

    name: str | None = Field(None, description="Folder name of the run; by default the checkpoint's id or the tracker.")
    dataset: str | list[str] = Field(description="Dataset and split, e.g. davis2017/val; a list gives one run each.")
    tracker: str = Field(
        description="static, flow, sam2, sam2long, rde, sam_pt, or an import path of your own: package.module:Class."
    )
    checkpoint: str | list[str] | dict[str, str | list[str]] | None = Field(
        None,
        description="Id from the catalog or from `checkpoints:` below; a list is swept. For a tracker of several "
        "networks ids by role, e.g. {sam: mobile_sam}; roles that are left out get the tracker's own choice.",
    )
    settings: dict[str, Any] = Field({}, description="The tracker's settings; a value given as a list is swept.")

    @field_validator("dataset", "checkpoint")
    @classmethod
    def _sweep_is_not_empty(cls, value: object) -> object:
        if value == [] or (isinstance(value, dict) and [] in value.values()):
            raise ValueError("an empty list would drop this run: give at least one value")
        return value

    @field_validator("settings")
    @classmethod
    def _sweeps_are_not_empty(cls, settings: dict[str, Any]) -> dict[str, Any]:
        empty = [key for key, value in settings.items() if value == []]
        if empty:
            raise ValueError(f"{empty[0]}: an empty list would drop this run: give at least one value")
        return settings

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str | None) -> str | None:
        if name is not None and not RUN_NAME.fullmatch(name):
            raise ValueError("must be letters, digits and _ . + - (it becomes a folder's name)")
        return name


class ExecutionConfig(Model):
    """Where and how jobs run. Nothing here changes a result, except device and threads in its last bits."""

    device: Device = Field("auto", description="auto: a GPU if there is one. cuda: a GPU or an error. cpu.")
    shards: Shards = Field("auto", description="Jobs per run. auto: from the amount of work, see minutes_per_job.")
    minutes_per_job: float = Field(15, gt=0, description="With shards: auto, tracking jobs take about this long.")
    frames_per_second: float = Field(
        10,
        gt=0,
        description="Expected speed of a tracking job: for shards and time limits. scripts/plan.py measures it.",
    )
    threads: int = Field(1, ge=1, description="CPU threads per tracking job.")
    cache_gigabytes: float = Field(
        20, ge=0, description="Limit of what is kept in paths.cache; the least used goes first. 0 keeps nothing."
    )
    evaluation_workers: int = Field(2, ge=1, description="Processes that score the videos of one run.")


class PathsConfig(Model):
    """Where things are. Relative paths are relative to the folder in which snakemake runs."""

    results: PathText = Field("results", description="Masks, scores, tables, the page.")
    data: PathText = Field("data", description="Downloads, extracted datasets, checkpoints.")
    cache: PathText | None = Field(
        None, description="What several runs share, such as image embeddings; may be deleted. By default cache in data."
    )
    datasets: dict[str, PathText] = Field(
        {}, description="Folders of datasets that you have already, e.g. {davis2017: /data/DAVIS}."
    )
    checkpoints: dict[str, PathText] = Field({}, description="Files of catalog checkpoints that you have already.")


class UserCheckpoint(Model):
    """Weights of your own."""

    path: PathText = Field(description="The file: .pt or .safetensors.")
    config: str | None = Field(None, description="Network configuration: a name of the sam2 package, or a YAML file.")
    sha256: str | None = Field(None, description="Expected sha256 of the file; checked if given.")


class TrainingConfig(Model):
    """Weights that are trained as part of the study, stage after stage.

    Runs name them like any checkpoint: `{id}` those of the last stage, `{id}.stage0` those of stage 0.
    """

    method: Literal["rde"] = Field(description="What is trained: RDE-VOS.")
    stages: list[int] = Field(
        min_length=1, description="[0, 1, 2] with BL30K, [0, 3] without it, or a beginning of these."
    )
    preset: Literal["paper", "released"] = Field(
        "paper",
        description="The authors' settings; released: with the weights of losses of their rerun, in stage 2 alone.",
    )
    width: int = Field(64, ge=8, multiple_of=4, description="Channels of the network's stems; 64 as published.")
    key_channels: int = Field(64, ge=8, multiple_of=4, description="Channels of keys; 64 as published.")
    backbone: Literal["imagenet", "random"] = Field(
        "imagenet", description="What stage 0 begins with; imagenet needs width 64."
    )
    data: dict[Literal["static", "bl30k", "davis", "youtube"], PathText] = Field(
        {},
        description="Folders of training sets; those not named come from the catalog (BL30K must be named). "
        "`demo`: a small set that vosflow draws.",
    )
    settings: dict[str, Any] = Field({}, description="Changes of the preset for all stages, e.g. {crop: 320}.")
    stage_settings: dict[int, dict[str, Any]] = Field(
        {}, description="Changes of the preset by stage, e.g. {0: {iterations: 1000}}."
    )


class ReportConfig(Model):
    """The page."""

    title: str = Field("vosflow", description="Headline of the page.")
    filmstrips: int = Field(2, ge=0, le=20, description="Best and worst videos shown as filmstrips, this many of each.")


class Config(Model):
    """A study."""

    runs: list[RunConfig] = Field(min_length=1, description="What to run.")
    execution: ExecutionConfig = Field(ExecutionConfig(), description="Where and how jobs run.")
    paths: PathsConfig = Field(PathsConfig(), description="Where things are.")
    datasets: dict[str, FolderDataset] = Field({}, description="Datasets of your own, by name/split.")
    checkpoints: dict[str, UserCheckpoint] = Field({}, description="Checkpoints of your own, by id.")
    training: dict[str, TrainingConfig] = Field({}, description="Weights to train, by id.")
    report: ReportConfig = Field(ReportConfig(), description="The page.")

    @property
    def cache(self) -> str:
        """The folder of artefacts that runs share."""
        return self.paths.cache or f"{self.paths.data}/cache"

    @field_validator("checkpoints", "training")
    @classmethod
    def _checkpoints_can_name_folders(cls, checkpoints: dict[str, Any]) -> dict[str, Any]:
        for name in checkpoints:
            if not RUN_NAME.fullmatch(name):
                raise ValueError(f"{name!r} must be letters, digits and _ . + - (it becomes part of a folder's name)")
        return checkpoints

    @field_validator("datasets")
    @classmethod
    def _datasets_have_splits(cls, datasets: dict[str, FolderDataset]) -> dict[str, FolderDataset]:
        for name in datasets:
            if not DATASET_NAME.fullmatch(name):
                raise ValueError(f"{name!r} must have the form name/split, of letters, digits, _ and .")
        return datasets


def parse_config(data: Mapping[str, Any], source: str = "config.yaml") -> Config:
    """Check a config that was read from YAML.

    Raises:
        VosflowError: names every wrong key, with what is allowed and the closest known key.
    """
    with explain_validation(Config, source):
        return Config.model_validate(dict(data))


def read_config(path: str | Path) -> dict[str, Any]:
    """The content of a config file, unchecked; raises VosflowError if there is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        data = yaml.safe_load(text)
        if not isinstance(data, dict):
            raise ValueError("it holds no keys")
    except (OSError, ValueError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}" if mark else error
        raise VosflowError(
            f"not a readable config file ({reason})",
            path=path,
            expected="a YAML file in UTF-8, like config.yaml, indented with blanks",
            remedy="correct the path, or what is named in brackets",
        ) from error
    _refuse_repeated_keys(yaml.compose(text, yaml.SafeLoader), path)
    return data


def _refuse_repeated_keys(node: yaml.Node | None, path: str | Path) -> None:
    """Of a key that stands twice YAML keeps the last one silently: half a study would be gone.

    `node` is of a text that `yaml.safe_load` takes: its keys are scalars.
    """
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in lines:
                raise VosflowError(
                    f"the key {key.value!r} stands twice, in lines {lines[key.value]} and {line}",
                    path=path,
                    expected="each key once: the first one would be ignored",
                    remedy="join the two, or remove one",
                )
            lines[key.value] = line
            _refuse_repeated_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_repeated_keys(value, path)


def config_schema() -> dict[str, Any]:
    """The JSON schema of the config file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
