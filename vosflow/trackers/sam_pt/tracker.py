"""SAM-PT as a tracker (https://github.com/SysCV/sam-pt, 228d7cd and 874ff7e; arXiv 2307.01197).

Three stages share work between runs: images are embedded once per SAM, points tracked once per point tracker and
queries, and only prompting and merging are done for each run. See `settings.Settings` for what can be chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from vosflow.errors import VosflowError
from vosflow.manifest import INSTANCES
from vosflow.trackers.base import Checkpoint, Masks, Part
from vosflow.trackers.sam_pt.parts import load_part, part_module
from vosflow.trackers.sam_pt.settings import Settings
from vosflow.video import Video

if TYPE_CHECKING:
    from vosflow.trackers.sam_pt.points.base import PointTracker
    from vosflow.trackers.sam_pt.sams.base import Sam

SAM_ROLE = "sam"


class SamPtTracker:
    """SAM-PT: any point tracker with any SAM.

    Args:
        settings: see `Settings`.
        checkpoint: {role: weights}: "sam", and the roles of the point tracker.
        device: "cpu" or "cuda".
    """

    Settings = Settings
    needs_checkpoint = True
    uses_gpu = True
    proposes_objects = True
    reads_full_frames = True  # DAVIS, as the authors do
    starts_objects_late = True  # in scripts/track.py, as in the authors' code

    def __init__(self, settings: Settings, checkpoint: Mapping[str, Checkpoint], device: str) -> None:
        self.settings = settings
        self.checkpoints = checkpoint
        self.device = device
        self._sam: Sam | None = None
        self._point_tracker: PointTracker | None = None

    @classmethod
    def parts(cls, settings: Settings) -> dict[str, Part]:
        """What weights it takes, by role."""
        points = load_part("point_tracker", settings.point_tracker).weights
        if settings.preset == "paper" and settings.point_tracker == "tapir":
            points = {role: dataclasses.replace(part, checkpoint="tapir_causal") for role, part in points.items()}
        return {**points, SAM_ROLE: load_part("sam", settings.sam).weights}

    @classmethod
    def code_modules(cls, settings: Settings) -> tuple[str, ...]:
        """The modules of the point tracker and the SAM: edits of others change nothing."""
        return part_module("point_tracker", settings.point_tracker), part_module("sam", settings.sam)

    def load(self) -> None:
        """Load the weights of all parts; does nothing if that was done.

        Raises:
            VosflowError: no GPU where one is demanded, or unusable weights.
        """
        if self._sam is not None:
            return
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise VosflowError(
                "torch sees no GPU",
                expected="a CUDA device, because device: cuda is set",
                remedy="check nvidia-smi and the driver, or set execution: {device: cpu} (--device cpu)",
            )
        kind, settings = load_part("point_tracker", self.settings.point_tracker), self.settings.point_tracker_settings
        roles = {role: one for role, one in self.checkpoints.items() if role in kind.weights}
        point_tracker = kind(kind.Settings.model_validate(settings), roles, self.device)
        point_tracker.load()
        sam = load_part("sam", self.settings.sam)(
            {SAM_ROLE: self.checkpoints[SAM_ROLE]}, self.device, self.settings.precision
        )
        sam.load()
        self._point_tracker, self._sam = point_tracker, sam

    def track(self, video: Video) -> Iterator[tuple[str, Masks]]:
        """Track one video, see `vosflow.trackers.base.Tracker.track`.

        In the layout "instances", SAM proposes the objects on the first frame.

        Raises:
            VosflowError: bad video, or whatever `load` raises.
        """
        self.load()
        from vosflow.trackers.sam_pt.session import Session, track_instances, track_objects

        session = Session(video, self.settings, self._point_tracker, self._sam, self.checkpoints, self.device)
        yield from track_instances(session) if video.layout == INSTANCES else track_objects(session)
