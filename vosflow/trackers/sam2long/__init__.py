"""SAM2Long: a SAM 2 that keeps several hypotheses in a tree of memories (Ding et al., arXiv 2410.16268).

It needs no training and runs on the weights of every SAM 2 and 2.1. The masks are those of the authors' script
(https://github.com/Mark12Ding/SAM2Long, 7193b77, `tools/vos_inference.py`), from a description of what it computes;
none of its code, whose licence is CC BY-NC 4.0, is in here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from vosflow.errors import VosflowError
from vosflow.trackers.base import Masks
from vosflow.trackers.sam2 import TRAINED_IMAGE_SIZE, Sam2Tracker
from vosflow.trackers.sam2 import Settings as Sam2Settings
from vosflow.video import Video

PRESETS = {
    "readme": {"num_pathway": 3, "iou_thre": 0.1, "uncertainty": 2.0},
    "script": {"num_pathway": 3, "iou_thre": 0.3, "uncertainty": 1.0},
}
NEEDED = {  # of the network; true of every SAM 2 and 2.1
    "multimask_output_in_sam": True,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "use_obj_ptrs_in_encoder": True,
    "pred_obj_scores": True,
    "memory_temporal_stride_for_eval": 1,
}


class Settings(Sam2Settings):
    """Settings of SAM2Long: those of SAM 2, and of the memory tree.

    Attributes:
        preset: where the three settings below come from if they are not given: "readme" are the values in the
            authors' commands, "script" the defaults of their script's own flags.
        num_pathway: hypotheses that live on after each frame, at most.
        iou_thre: a frame can be attended to later if the predicted IoU of its mask is above this and the object is
            there (its object score is above 0).
        uncertainty: on a frame where all object scores are within this of 0, hypotheses are chosen to be different.
        compat: "published" is what the authors' code computes, to the pixel. "corrected" departs from it where it
            evidently does not do what it was written for; no published number was made so:

            1. The object pointers of all selected frames are attended to. The published loop ends one too early, so
               that the oldest selected frame has no pointer, and a single one none at all.
            2. Pathways are different from the start. The published tree begins with copies of one pathway, and since
               copies propose the same masks, the best of these is chosen again as often as there are copies: until the
               first uncertain frame there is one hypothesis. Without copies, each frame's best masks are hypotheses.

            Not corrected, because they may well be meant: a selected frame's place in time is its rank among the
            selected ones; the frame after the prompt is greedy; the last frame is attended to even if its mask is bad.

    In both, the weights of attention keys are counted per token of the network in use. The published code counts 4096
    tokens per frame and 4 per pointer, which is right at 1024 pixels and breaks at any other image_size.
    """

    preset: Literal["readme", "script"] = "readme"
    num_pathway: int = Field(3, strict=True, ge=1)
    iou_thre: float = Field(0.1, ge=0, le=1, allow_inf_nan=False)
    uncertainty: float = Field(2.0, ge=0, allow_inf_nan=False)
    compat: Literal["published", "corrected"] = "published"

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        """What is not given comes from the preset; an unknown preset is refused by its type."""
        if not isinstance(given, dict):
            return given
        return {**PRESETS.get(str(given.get("preset", "readme")), {}), **given}

    @field_validator("memory_temporal_stride_for_eval")
    @classmethod
    def _refuse_stride(cls, value: int | None) -> int | None:
        if value is not None:
            raise ValueError(
                "memory_temporal_stride_for_eval has no meaning for SAM2Long: the memory tree selects frames by their "
                "predicted IoU (iou_thre), not by their distance"
            )
        return value

    def notes(self) -> list[str]:
        """See `TrackerSettings.notes`."""
        notes = super().notes()
        if self.image_size not in (None, TRAINED_IMAGE_SIZE):
            notes.append(
                f"image_size={self.image_size}: the published code of SAM2Long is bound to {TRAINED_IMAGE_SIZE} pixels "
                "(it counts 4096 tokens per frame); the true number of tokens is used."
            )
        if self.preset == "script":
            values = ", ".join(f"{key}={getattr(self, key):g}" for key in PRESETS["script"])
            notes.append(
                f"preset script ({values}): what is not given explicitly is a default of the authors' script; the "
                "commands in their README use iou_thre=0.1, uncertainty=2."
            )
        if self.compat == "corrected":
            notes.append(
                "compat corrected departs from the authors' code: all selected frames have object pointers, and "
                "pathways are different from the start. Published numbers were not made so."
            )
        return notes


class Sam2LongTracker(Sam2Tracker):
    """SAM2Long as a tracker, on the checkpoints of SAM 2; see `Settings` and `Sam2Tracker`.

    Each object is tracked from its own prompt, of which there must be one.
    """

    Settings = Settings
    starts_objects_late = True  # in scripts/track.py, as in the authors' script, whose flag for it does nothing

    def load(self) -> None:
        """Build the network and load its weights; does nothing if that was done.

        Raises:
            VosflowError: no GPU where one is demanded, an unusable checkpoint, or a network without what the memory
                tree needs.
        """
        super().load()
        predictor = self._steps.predictor
        odd = {key: getattr(predictor, key) for key, value in NEEDED.items() if getattr(predictor, key) != value}
        if odd:
            raise VosflowError(
                "SAM2Long cannot use this network: " + ", ".join(f"{key} is {value}" for key, value in odd.items()),
                path=self.checkpoint.config,
                expected=", ".join(f"{key}: {NEEDED[key]}" for key in odd) + ", as in every SAM 2 and 2.1",
                remedy="track with sam2, or use a checkpoint of SAM 2 with its own configuration",
            )

    def track(self, video: Video) -> Iterator[tuple[str, Masks]]:
        """Track one video, see `vosflow.trackers.base.Tracker.track`.

        A frame is given once no hypothesis disputes it, which may be many frames after it was read. With late objects
        every frame is given, else those from the first prompt on.

        Raises:
            VosflowError: bad video, an object with several prompts, or whatever `load` raises.
        """
        self.load()
        from vosflow.trackers.sam2long.tracking import track_video

        yield from track_video(self._session(video), self.settings)
