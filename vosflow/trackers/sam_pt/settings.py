"""Settings of SAM-PT under their published names, and the two sets of defaults that are called "SAM-PT"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from vosflow.trackers.base import TrackerSettings
from vosflow.trackers.sam_pt.parts import load_part
from vosflow.validation import explain_validation

Sampler = Literal["kmedoids", "shi-tomasi", "random", "mixed"]

PRESETS: dict[str, dict[str, object]] = {
    "paper": {
        "point_tracker": "pips",
        "sam": "vit_h",
        "positive_points_per_mask": 8,
        "reinit_point_tracker_horizon": 8,
        "reinit_horizon": 8,
        "reinit_variant": "reinit-on-horizon-and-sync-masks",
        "masks_batch_size": 5,
    },
    "head": {
        "point_tracker": "cotracker",
        "sam": "hq_vit_h",
        "positive_points_per_mask": 16,
        "reinit_point_tracker_horizon": 24,
        "reinit_horizon": 24,
        "reinit_variant": "reinit-at-median-of-area-diff",
        "masks_batch_size": 100,
    },
}
NEGATIVE_POINTS_OF_REINIT = 72  # model=sam_pt_reinit of the paper's code; there is no such model in the later one
TAPIR_OF_PAPER = {"visibility_threshold": 0.5}  # its weights are tapir_causal, run without causality


class Settings(TrackerSettings):
    """Settings of SAM-PT, with the names and, by preset, the defaults of SysCV/sam-pt.

    Attributes:
        preset: where the settings below come from if they are not given: "paper" is 228d7cd, the documented commands
            and the table with 76.65 on DAVIS 2017; "head" is 874ff7e.
        compat: "published" computes what the authors' code computes; "fixed" departs where that is evidently a defect:

            1. An object's score is the mean over the frames where it was prompted; the published one is minus infinity
               if there is one frame without.
            2. With use_point_reinit, an object whose mask is too small where it should start again stays lost; the
               published check for it never holds, so that points are made up in the frame's corner.
            3. Objects see each other's points also beyond masks_batch_size.
            4. The refinement box is scaled to SAM's input like points are (it is the same at longest_size 1024).
            5. The prompt is written as it was given; the published one is resized to and fro.
            6. Where frames are enlarged, objects without a mask on a frame leave the others alone; in the published
               code the first row and column of the frame become background then.
            7. Patches are compared in Lab of RGB images; the published code takes them for BGR.
            8. Point trackers that match masks (SuperGlue) match the masks that an object starts again from; the
               published code lets SAM make masks of the new query points, and matches those.
            Point trackers with defects of their own have a `compat`, too, which follows this one.

        point_tracker: name or import path, see vosflow/trackers/sam_pt/parts.py.
        point_tracker_settings: of that point tracker; what is not given has its defaults.
        sam: name or import path.
        positive_points_per_mask, negative_points_per_mask: points sampled from an object's mask, and outside of it.
        positive_point_selection_method, negative_point_selection_method: how; see `queries`.
        add_other_objects_positive_points_as_negative_points: when SAM is asked for one object.
        max_other_objects_positive_points: at most so many, drawn at random; None: all.
        point_tracker_mask_batch_size: objects that are tracked in one call of the point tracker. Part of the method
            where points influence each other (CoTracker), else a matter of memory; optical flow (RAFT) and matches
            (SuperGlue) are computed once for all objects whatever it says. (The authors' code refuses SuperGlue for
            more objects than that.)
        masks_batch_size: objects that know of each other, under compat published.
        sam_iou_threshold: below this predicted IoU the object has no mask on a frame.
        iterative_refinement_iterations: of SAM, each with the last mask and its box, after the first.
        use_patch_matching_filtering, patch_size, patch_similarity_threshold: points on patches that do not look like
            the one they came from are left out, and so are they on all frames after it.
        use_point_reinit: points are sampled anew from SAM's masks again and again (SAM-PT-reinit). With preset paper,
            negative_points_per_mask is then 72.
        reinit_variant: on which frame.
        reinit_horizon: frames in a window; reinit_point_tracker_horizon: frames that the point tracker sees, at least
            as many.
        longest_size: pixels of the longest side of the frames that are worked on. size: of the shortest one instead.
        max_num_masks: objects proposed on the first frame, where the dataset gives no prompts.
        seed: of all that is drawn: query points, which matches of SuperGlue are taken, which points of other objects.
            Each object of each video has random numbers of its own, also under compat published: others, batches and
            shards change nothing in them. The authors draw from one sequence for all objects and videos of a run, so
            that the same seed gives other points than theirs.
        precision: of SAM. The authors use float32, for video instance segmentation automatic mixed precision (float16).
    """

    preset: Literal["paper", "head"] = "paper"
    compat: Literal["published", "fixed"] = "published"
    point_tracker: str = "pips"
    point_tracker_settings: dict[str, Any] = Field(default_factory=dict)
    sam: str = "vit_h"
    positive_points_per_mask: int = Field(8, strict=True, ge=1)
    negative_points_per_mask: int = Field(1, strict=True, ge=0)
    positive_point_selection_method: Sampler = "kmedoids"
    negative_point_selection_method: Sampler = "mixed"
    add_other_objects_positive_points_as_negative_points: bool = Field(True, strict=True)
    max_other_objects_positive_points: int | None = Field(None, strict=True, ge=0)
    point_tracker_mask_batch_size: int = Field(5, strict=True, ge=1)
    masks_batch_size: int = Field(5, strict=True, ge=1)
    sam_iou_threshold: float = Field(0.7, allow_inf_nan=False)
    iterative_refinement_iterations: int = Field(12, strict=True, ge=0)
    use_patch_matching_filtering: bool = Field(False, strict=True)
    patch_size: int = Field(3, strict=True, ge=1)
    patch_similarity_threshold: float = Field(0.01, allow_inf_nan=False)
    use_point_reinit: bool = Field(False, strict=True)
    reinit_variant: Literal[
        "reinit-on-horizon-and-sync-masks",
        "reinit-at-median-of-area-diff",
        "reinit-on-similar-mask-area",
        "reinit-on-similar-mask-area-and-sync-masks",
    ] = "reinit-on-horizon-and-sync-masks"
    reinit_horizon: int = Field(8, strict=True, ge=3)
    reinit_point_tracker_horizon: int = Field(8, strict=True, ge=3)
    longest_size: int = Field(1024, strict=True, ge=16)
    size: int | None = Field(None, strict=True, ge=16)
    max_num_masks: int = Field(100, strict=True, ge=1)
    seed: int = Field(72, strict=True, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        """What is not given comes from the preset; an unknown preset is refused by its type."""
        if not isinstance(given, Mapping):
            return given
        preset = str(given.get("preset", "paper"))
        filled = {**PRESETS.get(preset, {}), **given}
        if preset == "paper" and given.get("use_point_reinit") and "negative_points_per_mask" not in given:
            filled["negative_points_per_mask"] = NEGATIVE_POINTS_OF_REINIT
        own = filled.setdefault("point_tracker_settings", {})
        if preset == "paper" and filled.get("point_tracker") == "tapir" and isinstance(own, Mapping):
            filled["point_tracker_settings"] = {**TAPIR_OF_PAPER, **own}
        return filled

    @field_validator("point_tracker_settings")
    @classmethod
    def _complete_point_tracker_settings(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """The settings of the point tracker, checked by its own class and complete."""
        if "point_tracker" not in info.data or "compat" not in info.data:  # refused already
            return value
        return _complete(info.data["point_tracker"], value, compat=info.data["compat"])

    @field_validator("patch_size")
    @classmethod
    def _check_patch_size(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("patch_size must be odd: a patch has its point in the middle")
        return value

    @model_validator(mode="after")
    def _check_horizons(self) -> Settings:
        if self.reinit_point_tracker_horizon < self.reinit_horizon:
            raise ValueError(
                "reinit_point_tracker_horizon must not be less than reinit_horizon: SAM needs points on every frame "
                "of a window"
            )
        return self

    def batches(self, objects: int) -> list[slice]:
        """Which of so many objects know of each other: `masks_batch_size` in a row, under compat fixed all."""
        most = self.masks_batch_size if self.compat == "published" else max(1, objects)
        return [slice(k, min(k + most, objects)) for k in range(0, objects, most)]

    def precision_on(self, device: str) -> str:
        """See `TrackerSettings.precision_on`."""
        return self.precision

    def notes(self) -> list[str]:
        """See `TrackerSettings.notes`."""
        commit = {"paper": "228d7cd, the documented commands", "head": "874ff7e"}[self.preset]
        notes = [
            f"preset {self.preset} ({commit}), compat {self.compat}: {self.point_tracker} with SAM {self.sam}, "
            f"{self.positive_points_per_mask}/{self.negative_points_per_mask} points"
            + (f", {self.reinit_variant} every {self.reinit_horizon} frames." if self.use_point_reinit else "."),
            "Random numbers are drawn for each object of each video by itself (seed "
            f"{self.seed}), so that order and shards change nothing; the authors draw them one after another, so that "
            "equal seeds do not give equal points.",
            f"Frames are worked on at {self.size} pixels on the shortest side."
            if self.size
            else f"Frames are worked on at {self.longest_size} pixels on the longest side.",
        ]
        if self.compat == "fixed":
            notes.append("compat fixed mends defects of the authors' code; no published number was made so.")
        if self.precision != "float32":
            notes.append(f"SAM computes in {self.precision}; the authors' in float32.")
        return notes


def _complete(point_tracker: str, given: Mapping[str, object], compat: str = "published") -> dict[str, Any]:
    """The settings of a point tracker with all defaults; `compat` is handed on to those that know it."""
    kind = load_part("point_tracker", point_tracker).Settings
    own = {"compat": compat, **given} if "compat" in kind.model_fields else dict(given)
    with explain_validation(kind, f"point_tracker_settings of {point_tracker}"):
        return kind.model_validate(own).model_dump(mode="json")
