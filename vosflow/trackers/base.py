"""What a tracker is. It knows no dataset and no Snakemake: frames and prompts in, masks out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from vosflow.video import Video

Masks = np.ndarray | Mapping[int, np.ndarray]
"""The masks of one frame: a label map uint8 [H, W], or, in the other layouts, {object id: bool [H, W]}."""


class TrackerSettings(BaseModel):
    """Base of every tracker's settings: typed, with defaults, unknown keys refused. Its methods may be overridden."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def notes(self) -> list[str]:
        """What a reader of results must know of these settings, for instance that they are out of distribution."""
        return []

    def precision_on(self, device: str) -> str:
        """What the network computes in on `device`, "cpu" or "cuda" (there is one); recorded, and part of every key."""
        return "float32"

    def lacking_for_late_objects(self) -> str | None:
        """Settings that are needed where objects may be given on later frames, in words; None if these will do.

        Where they are lacking, a study is refused when it is planned, and not video by video.
        """
        return None


@dataclass(frozen=True)
class Checkpoint:
    """Weights on disk: file, sha256 of the file, and the network configuration that belongs to it."""

    id: str
    path: Path
    sha256: str
    config: str | None = None


Weights = Checkpoint | Mapping[str, Checkpoint] | None
"""What a tracker is built with: one checkpoint, {role: checkpoint} where it has `parts`, or nothing."""


@dataclass(frozen=True)
class Part:
    """A role that weights play in a tracker: of which network they are, and whose are taken if a run names none.

    Attributes:
        network: one of `vosflow.catalog.Network`.
        checkpoint: id of the catalog.
    """

    network: str
    checkpoint: str


class Tracker(Protocol):
    """A method of video object segmentation. Built once per shard, then asked for one video after another.

    The module that defines it must import quickly: heavy libraries (torch) are imported inside functions, because
    `Settings` is read whenever a study is planned.

    What a tracker may define besides:

    - `network = "tapir"`: its one checkpoint must be of this network (see `vosflow.catalog.Network`).
    - `needs_config = True`: weights of a user's own must come with a network configuration.
    - `parts(settings) -> {role: Part}`, a class method: it is made of several networks. It then gets its weights as
      {role: Checkpoint}, all roles, and runs name them by role: `checkpoint: {sam: mobile_sam}`.
    - `code_modules(settings) -> (module, ...)`, a class method: modules that shape the masks under these settings and
      that its own module does not import; an edit in one of them reruns just the runs that use it.
    - `reads_full_frames = True`: it reads frames in the camera's resolution where a publisher gives them beside smaller
      ones (DAVIS): `video.has_full_frames`, `video.read_full_frame`, and masks (`video.has_full_prompts`,
      `video.read_full_prompt`). They are then fetched, and part of its keys.
    - `proposes_objects = True`: it needs no prompts where a dataset gives none (layout "instances"). It then yields
      {object id from 1: bool [H, W]}, overlapping or not, objects left out where they have no pixel, and sets
      `video.scores[id]` for each before it ends. Whatever has a score is a result, with or without a pixel.
    """

    Settings: ClassVar[type[TrackerSettings]]
    needs_checkpoint: ClassVar[bool]
    uses_gpu: ClassVar[bool]

    def __init__(self, settings: TrackerSettings, checkpoint: Weights, device: str) -> None: ...

    def load(self) -> None:
        """Load the weights onto the device. Called once, before the first `track`, and only if there is work to do."""
        ...

    def track(self, video: Video) -> Iterator[tuple[str, Masks]]:
        """Yield (frame name, masks) in temporal order, at most once per frame of `video`.

        The masks follow `video.layout` and have the size `video.height` x `video.width`. Frames before an object's
        prompt may be left out (they are not written), and where `video.required` names some frames, all others.
        Raises VosflowError for bad input.
        """
        ...
