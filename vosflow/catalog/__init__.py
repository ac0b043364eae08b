"""The catalog: datasets, checkpoints and published results as data, each fact with its source.

Read at every planning, so this module imports nothing heavy. What is not known is null, never a guess.
"""

from __future__ import annotations

import csv
import difflib
import json
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from vosflow.errors import VosflowError

FOLDER = Path(__file__).parent

Evidence = Literal[
    "publisher",  # stated by the publisher of the file
    "publisher_tree",  # the id of the file in its publisher's git repository at a named commit
    "third_party_corroborated",  # the same value in several independent public repositories
    "third_party_recorded",  # recorded by someone who downloaded the file; few sources
    "made_here",  # the file is made by this repository
    "unknown",  # not found: the first download records what it saw (see vosflow.datasets.fetch)
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Sha256Prefix = Annotated[str, Field(pattern=r"^[0-9a-f]{8,63}$")]
Md5 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sha1 = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
FileName = Annotated[str, Field(pattern=r"^[^/\\]+$")]
ListRole = Literal["videos", "unseen", "meta"]

Network = Literal[
    "sam2",
    "sam",
    "hq_sam",
    "light_hq_sam",
    "mobile_sam",
    "rde",
    "pips",
    "pips_plus_plus",
    "cotracker",
    "cotracker2",
    "cotracker3",
    "cotracker3_offline",
    "tapir",
    "tapnet",
    "raft",
    "raft_small",
    "superglue",
    "superpoint",
    "resnet18",
    "resnet50",
]
"""Which network weights are for: a whole tracker (sam2, rde), or a part of one (a SAM, a point tracker, a backbone)."""


def _clean_path(path: str) -> str:
    """One spelling for one place: `~` expanded, no doubled or trailing slashes."""
    if "{" in path or "}" in path:
        raise ValueError("braces are not possible in a path: Snakemake takes them for wildcards")
    return os.path.normpath(os.path.expanduser(path))


PathText = Annotated[str, AfterValidator(_clean_path)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class HttpSource(_Entry):
    """A plain HTTP or HTTPS address."""

    kind: Literal["http"]
    url: Annotated[str, Field(pattern=r"^https?://")]


class DriveSource(_Entry):
    """A public file of Google Drive."""

    kind: Literal["gdrive"]
    id: str


class DriveFolderSource(_Entry):
    """A file in a public folder of Google Drive, whose own id nobody published: it is found by its name."""

    kind: Literal["gdrive_folder"]
    id: str
    file: FileName


class HubSource(_Entry):
    """A file of a Hugging Face repository."""

    kind: Literal["hf"]
    repo: Annotated[str, Field(pattern=r"^[^/]+/[^/]+$")]
    file: str
    revision: str = "main"
    repo_type: Literal["model", "dataset"] = "model"


Source = Annotated[HttpSource | DriveSource | DriveFolderSource | HubSource, Field(discriminator="kind")]


class RemoteFile(_Entry):
    """A file to fetch: the name it gets here (unique in the catalog), where from, and how to know that it is right.

    `published_as` is its publisher's name for it, where that differs. `git_blob_sha1` is the id of the file in a git
    repository; `sha256_prefix` the first digits of its sha256, which some publishers put into the file's name.
    `about_mb` is its size as someone rounded it: shown, never compared.
    `source` says where the facts are from, `evidence` how good they are.
    """

    file: FileName
    published_as: FileName | None = None
    sources: tuple[Source, ...] = ()
    size_bytes: Annotated[int, Field(gt=0)] | None = None
    about_mb: Annotated[float, Field(gt=0)] | None = None
    sha256: Sha256 | None = None
    sha256_prefix: Sha256Prefix | None = None
    md5: Md5 | None = None
    git_blob_sha1: Sha1 | None = None
    evidence: Evidence
    source: str
    quirks: tuple[str, ...] = ()

    @property
    def identity(self) -> dict[str, object]:
        """What is compared with a download: its size and hashes, as far as they are known."""
        names = ("size_bytes", "sha256", "sha256_prefix", "md5", "git_blob_sha1")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def hashed_by(self) -> tuple[str, ...]:
        """The hashes that identify the file; if there is none, the first download is recorded and decides."""
        return tuple(name for name in ("sha256", "md5", "git_blob_sha1") if getattr(self, name) is not None)


class Archive(RemoteFile):
    """A file of a dataset; `extract` says whether it is an archive (or a list, used as it is).

    `holds` are a few files or folders inside it that tell it from others: what someone gives us is recognised by them.
    """

    extract: bool = True
    holds: tuple[str, ...] = ()


class FullFrames(_Entry):
    """The archive with a split's frames in the camera's resolution, and the folder of all videos in it."""

    archive: str
    folder: str


class Split(_Entry):
    """One split of a dataset.

    `adapter` is a module of `vosflow.datasets`. `archives` are the ids it needs; `folder` is where the adapter's files
    begin inside the archive (see `Dataset.root`). `lists` are ids of files that are used as they are, by their role:
    `videos` names the videos, `unseen` those of categories that no training set has, `meta` tells more of objects;
    those in `optional_lists` may be missing where a user gives a folder. `full_frames` are the frames in the
    camera's resolution, fetched for trackers that read them. Counts are null where they are unknown.
    `has_ground_truth` says that runs are scored by `protocol`; `agreement_with` names what they are compared with
    where that is no ground truth, so that no score may be called one.
    """

    adapter: str
    archives: tuple[str, ...] = ()
    folder: str = ""
    lists: dict[ListRole, str] = {}
    optional_lists: tuple[ListRole, ...] = ()
    full_frames: FullFrames | None = None
    protocol: str | None = None
    has_ground_truth: bool
    agreement_with: str | None = None
    layout: Literal["label_maps", "per_object", "instances"] = "label_maps"
    late_objects: bool = False
    fps: Annotated[float, Field(gt=0)] | None = None
    videos: int | None = None
    frames: int | None = None
    objects: int | None = None
    source: str
    notes: tuple[str, ...] = ()


class Dataset(_Entry):
    """A dataset: who may have it, on which terms, its archives and its splits; `register_at` is where to ask for it."""

    name: str
    access: Literal["open", "registration", "login", "made_here"]
    register_at: str | None = None
    licence: str
    terms: str | None = None
    notes: tuple[str, ...] = ()
    archives: dict[str, Archive] = {}
    splits: dict[str, Split] = {}

    @model_validator(mode="after")
    def _archives_exist(self) -> Dataset:
        for name, split in self.splits.items():
            used = (*split.archives, *split.lists.values())
            used += (split.full_frames.archive,) if split.full_frames else ()
            for archive in used:
                if archive not in self.archives:
                    raise ValueError(f"split {name} uses archive {archive}, which is not among the archives")
        return self

    def root(self, split: str, folder: str | Path) -> Path:
        """The folder that the split's adapter reads, where archives are extracted to `{folder}/{archive}`.

        A split that needs several archives is read from `folder`; its adapter knows their ids.
        """
        facts = self.splits[split]
        return Path(folder, *(facts.archives if len(facts.archives) == 1 else ()), facts.folder)


class Package(RemoteFile):
    """An archive in which weights are published; `member` is their path in it."""

    member: str


class CheckpointEntry(RemoteFile):
    """Weights: of which network, and which configuration of it (for SAM 2, a file of the sam2 package).

    They have `sources`; or are published in an archive, `package`; or, part of this repository, have a `path`
    (relative to its root). `non_commercial` says that the licence forbids commercial use. A `pickled` file may run
    code when it is read as its authors read it: it is converted to `{stem}.safetensors` when it is fetched, and only
    that is read (see `vosflow.datasets.convert`).
    """

    network: Network
    config: str | None = None
    licence: str
    non_commercial: bool = False
    path: str | None = None
    package: Package | None = None
    pickled: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> CheckpointEntry:
        if [bool(self.sources), self.path is not None, self.package is not None].count(True) != 1:
            raise ValueError("give one of `sources`, `package` and, for a file of this repository, `path`")
        return self

    @property
    def weights_file(self) -> str:
        """Name of the file that trackers read."""
        return f"{Path(self.file).stem}.safetensors" if self.pickled else self.file


class FolderDataset(_Entry):
    """A dataset that a user describes in the config; the arguments of `vosflow.datasets.folder.folder_manifest`."""

    base_video_dir: PathText = Field(description="Frames: {video}/{frame}.jpg below it. Or one video file (mp4, ...).")
    input_mask_dir: PathText = Field(
        description="Given masks: {video}/{frame}.png below it. For a video file: the PNG file of its first frame."
    )
    videos: PathText | tuple[str, ...] | None = Field(
        None, description="Names of the videos, or a file with one per line; all if not given."
    )
    per_obj_png_file: bool = Field(False, description="Masks are {video}/{object}/{frame}.png, also in the output.")
    use_all_masks: bool = Field(False, description="All given masks are prompts, not only each object's first.")
    late_objects: bool = Field(False, description="Objects may appear later (track_object_appearing_later_in_video).")
    annotations: PathText | None = Field(None, description="Ground truth: {video}/{frame}.png below it.")
    protocol: str | None = Field(None, description="Rules of scoring, for instance davis2017; needs `annotations`.")
    binary: bool = Field(False, description="Masks hold one object, any value above 0, as in DAVIS 2016.")
    fps: Annotated[float, Field(gt=0)] | None = Field(None, description="Frames per second of the videos.")
    frames_dir: PathText | None = Field(
        None, description="Where the frames of a video file are put; by default {video}.frames, beside it."
    )


def _read_settings(value: object) -> object:
    return json.loads(value or "{}") if isinstance(value, str) else value


class PublishedRow(_Entry):
    """One published number: in percent, except frames per second (FPS).

    `tracker` and `checkpoint` are those that give it here; empty where there are none, or nobody says which. `settings`
    differ from the tracker's defaults. `evaluator` is a protocol, "server", "unknown", or empty where all evaluators
    agree. `not_comparable` says why nothing here can reproduce it although all that seems equal.
    """

    method: str
    variant: str = ""
    tracker: str = ""
    checkpoint: str
    settings: Annotated[dict[str, float | int | str | bool], BeforeValidator(_read_settings)] = {}
    dataset: str
    split: str
    evaluator: str = ""
    metric: Literal["J&F", "J", "F", "G", "J&F-dot", "J-seen", "F-seen", "J-unseen", "F-unseen", "AR100", "AP", "FPS"]
    value: Annotated[float, Field(ge=0)]
    hardware: str = ""
    source: Annotated[str, Field(min_length=1)]
    not_comparable: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _is_percent(self) -> PublishedRow:
        if self.metric != "FPS" and self.value > 100:
            raise ValueError(f"{self.metric} is in percent, and {self.value} is above 100")
        return self


@cache
def load_datasets() -> dict[str, Dataset]:
    """All datasets of the catalog, by id; raises VosflowError if the file is wrong."""
    return _load(FOLDER / "datasets.yaml", Dataset)


@cache
def load_checkpoints() -> dict[str, CheckpointEntry]:
    """All checkpoints of the catalog, by id; raises VosflowError if the file is wrong."""
    return _load(FOLDER / "checkpoints.yaml", CheckpointEntry)


@cache
def load_published() -> tuple[PublishedRow, ...]:
    """All published numbers of the catalog; raises VosflowError if the file is wrong."""
    path = FOLDER / "published.csv"
    with open(path, encoding="utf-8", newline="") as file:
        return tuple(_check(PublishedRow, row, path, f"line {n}") for n, row in enumerate(csv.DictReader(file), 2))


def find_dataset(dataset: str) -> Dataset:
    """The catalog's entry of `dataset`; raises VosflowError with the nearest names if there is none."""
    return load_datasets()[known(dataset, load_datasets(), "dataset")]


def find_split(dataset: str, split: str) -> Split:
    """The catalog's entry of a split; raises VosflowError with the nearest names if there is none."""
    splits = find_dataset(dataset).splits
    return splits[known(split, splits, f"split of {dataset}")]


def find_archive(dataset: str, archive: str) -> Archive:
    """The catalog's entry of an archive; raises VosflowError with the nearest names if there is none."""
    archives = find_dataset(dataset).archives
    return archives[known(archive, archives, f"archive of {dataset}")]


def find_checkpoint(checkpoint: str) -> CheckpointEntry:
    """The catalog's entry of a checkpoint; raises VosflowError with the nearest names if there is none."""
    return load_checkpoints()[known(checkpoint, load_checkpoints(), "checkpoint")]


def known(name: str, names: Iterable[str], what: str) -> str:
    """`name`, if it is among `names`; raises VosflowError that suggests the nearest one otherwise."""
    names = list(names)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1)
    raise VosflowError(
        f"unknown {what}: {name!r}" if name else f"no {what} is named",
        expected="one of " + ", ".join(names) if names else f"nothing: there is no {what}",
        remedy=f"did you mean {near[0]!r}?" if near else "correct the name; `scripts/fetch.py --list` shows all",
    )


def _load(path: Path, model: type[BaseModel]) -> dict:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C loader is ten times faster where PyYAML has it
    data = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    return {key: _check(model, value, path, key) for key, value in data.items()}


def _check(model: type[BaseModel], data: object, path: Path, where: str):
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in (where, *first["loc"]))
        raise VosflowError(f"{place}: {first['msg']}", path=path, remedy="correct the catalog") from error
