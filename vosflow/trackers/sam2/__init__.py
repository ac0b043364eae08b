"""SAM 2 by its authors' package (https://github.com/facebookresearch/sam2, 2b90b9f; arXiv 2408.00714).

The masks are those of the authors' `tools/vos_inference.py`, pixel by pixel: objects are tracked independently of each
other, and what can be shared between them (decoded frames, image features) is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint, Masks, TrackerSettings
from vosflow.video import Video

if TYPE_CHECKING:
    from vosflow.trackers.sam2.modes import Mode
    from vosflow.trackers.sam2.session import Session
    from vosflow.trackers.sam2.steps import Steps

TRAINED_NUM_MASKMEM = 7  # of every released checkpoint
TRAINED_IMAGE_SIZE = 1024
OVERLAP_CEILING = -10.0  # where objects overlap, the scores of all but the best are lowered to this


class Settings(TrackerSettings):
    """Settings of SAM 2. `None` leaves what the network's configuration says.

    Attributes:
        score_thresh: a pixel belongs to an object if its logit is above this.
        apply_postprocessing: the authors' flag of this name: masks of the decoder that are unstable are replaced by
            the best of its three candidates. Their hole filling is left out, see `notes`.
        num_maskmem: frames in the memory: the prompted ones count as one, the others are the most recent.
        max_obj_ptrs_in_encoder: frames whose object pointers are attended to, at most.
        memory_temporal_stride_for_eval: distance in frames between memories (beyond the last frame).
        image_size: pixels; frames are resized to image_size x image_size.
        mode: "exact" gives the pixels of the authors' code at the same precision; "fast" lets objects share calls of
            the network, and on a GPU frames, too, which rounds otherwise in the last bits.
        precision: "bfloat16" is automatic mixed precision, what the authors use on a GPU; "float32" is theirs on a CPU.
            None: float32, but bfloat16 in fast mode on a GPU that computes in it.
    """

    score_thresh: float = Field(0.0, ge=-1024.0, allow_inf_nan=False)  # -1024 is the score of absent objects
    apply_postprocessing: bool = False
    num_maskmem: int | None = Field(None, strict=True)
    max_obj_ptrs_in_encoder: int | None = Field(None, strict=True)
    memory_temporal_stride_for_eval: int | None = Field(None, strict=True, ge=1)
    image_size: int | None = Field(None, strict=True)
    mode: Literal["exact", "fast"] = "exact"
    precision: Literal["float32", "bfloat16"] | None = None

    @field_validator("num_maskmem")
    @classmethod
    def _check_num_maskmem(cls, value: int | None) -> int | None:
        if value == 0:
            raise ValueError(
                "num_maskmem=0 skips memory attention, with it object pointers and even the no-memory embedding, so "
                "that the decoder gets features it never saw in training: use 1 (prompted frames only) or more"
            )
        if value is not None and value < 0:
            raise ValueError("num_maskmem counts frames: use 1 or more")
        return value

    @field_validator("max_obj_ptrs_in_encoder")
    @classmethod
    def _check_max_obj_ptrs(cls, value: int | None) -> int | None:
        if value is not None and value < 2:
            raise ValueError(
                "max_obj_ptrs_in_encoder must be 2 or more: distances in time are divided by one less than it, "
                "which for 1 is a division by zero"
            )
        return value

    @field_validator("image_size")
    @classmethod
    def _check_image_size(cls, value: int | None) -> int | None:
        if value is not None and (value % 32 or not 64 <= value <= 4096):
            raise ValueError(
                "image_size must be a multiple of 32 (the stride of the image encoder's last stage) from 64 to 4096"
            )
        return value

    def precision_on(self, device: str) -> str:
        """See `TrackerSettings.precision_on`."""
        if self.precision is not None or self.mode == "exact" or device == "cpu":
            return self.precision or "float32"
        import torch

        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"

    def notes(self) -> list[str]:
        """See `TrackerSettings.notes`."""
        notes = []
        if self.num_maskmem is not None and self.num_maskmem > TRAINED_NUM_MASKMEM:
            notes.append(
                f"num_maskmem={self.num_maskmem} is out of distribution: checkpoints are trained with "
                f"{TRAINED_NUM_MASKMEM}; frames further back than {TRAINED_NUM_MASKMEM - 1} get the temporal position "
                f"of the {TRAINED_NUM_MASKMEM - 1}th."
            )
        if self.num_maskmem is not None and self.num_maskmem < TRAINED_NUM_MASKMEM:
            notes.append(
                f"num_maskmem={self.num_maskmem} keeps the trained temporal positions of the nearest frames and of the "
                "prompted ones; object pointers reach as far back as before (max_obj_ptrs_in_encoder)."
            )
        if self.image_size is not None and self.image_size != TRAINED_IMAGE_SIZE:
            notes.append(
                f"image_size={self.image_size} is out of distribution for the released checkpoints, "
                f"which are trained at {TRAINED_IMAGE_SIZE}."
            )
        if self.apply_postprocessing:
            notes.append(
                "apply_postprocessing does not fill holes: the authors do so only where sam2 was built with its CUDA "
                "extension, and masks shall not depend on how a package was built."
            )
        if self.mode == "fast":
            notes.append(
                "mode fast: objects share calls of the network; on a GPU so do frames, in bfloat16 where precision is "
                "not given. The masks are those of mode exact but for rounding."
            )
        if self.score_thresh < OVERLAP_CEILING:
            notes.append(
                f"score_thresh={self.score_thresh:g} is below {OVERLAP_CEILING:g}, the score given to an object where "
                "another one wins: pixels of several objects go to the smallest id, not to the most certain one."
            )
        return notes


class Sam2Tracker:
    """SAM 2 as a tracker.

    Args:
        settings: see `Settings`.
        checkpoint: weights (.pt or .safetensors) with their network configuration: a name in the sam2 package such as
            configs/sam2.1/sam2.1_hiera_b+.yaml, or a YAML file.
        device: "cpu" or "cuda".
    """

    Settings = Settings
    needs_checkpoint = True
    needs_config = True
    network = "sam2"
    uses_gpu = True

    def __init__(self, settings: Settings, checkpoint: Checkpoint | None, device: str) -> None:
        if checkpoint is None:
            raise VosflowError(
                "the tracker sam2 needs a checkpoint",
                expected="weights and the network configuration that belongs to them",
                remedy="name a checkpoint in the study, or give --checkpoint and --sam2_cfg to scripts/track.py",
            )
        self.settings = settings
        self.checkpoint = checkpoint
        self.device = device
        self._steps: Steps | None = None
        self._mode: Mode | None = None

    def load(self) -> None:
        """Build the network and load its weights; does nothing if that was done.

        Raises:
            VosflowError: no GPU where one is demanded, or an unusable checkpoint or configuration.
        """
        if self._steps is None:
            from vosflow.trackers.sam2.modes import resolve_mode
            from vosflow.trackers.sam2.network import build_predictor
            from vosflow.trackers.sam2.steps import Steps

            predictor = build_predictor(self.checkpoint, self.settings, self.device)
            self._mode = resolve_mode(self.settings, predictor.image_size, self.device)
            self._steps = Steps(predictor, self._mode.precision)

    def track(self, video: Video) -> Iterator[tuple[str, Masks]]:
        """Track one video, see `vosflow.trackers.base.Tracker.track`.

        Without late objects, frames before the first prompt are left out, as the authors do; with late objects every
        frame is given. Every object of the prompts has a mask on every frame given.

        Raises:
            VosflowError: bad video, or whatever `load` raises.
        """
        self.load()
        from vosflow.trackers.sam2.tracking import track_video

        yield from track_video(self._session(video), self.settings.score_thresh)

    def _session(self, video: Video) -> Session:
        """What one video's objects share, in the mode of the settings."""
        from vosflow.trackers.sam2.session import Session

        return Session(
            self._steps,
            video,
            objects_at_once=self._mode.objects_at_once,
            frames_at_once=self._mode.frames_at_once,
        )
