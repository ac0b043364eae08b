"""Masks of everything on a frame, without prompts: what video instance segmentation starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vosflow.trackers.sam_pt.sams.base import Proposals

if TYPE_CHECKING:
    from vosflow.trackers.sam_pt.sams.steps import Steps


def propose_masks(steps: Steps, frame: np.ndarray, most: int) -> Proposals:
    """The authors' SamAutomaticMaskGenerator with its own settings, on the whole frame.

    A grid of 32 x 32 points prompts for masks; kept are those with an expected IoU above 0.88 and a stability of 0.95,
    of several with boxes that overlap by more than 0.7 the best one.

    Args:
        frame: uint8 RGB [H, W, 3].
        most: the number of masks to return, at most.

    Returns:
        masks by descending expected IoU, the order in which the generator gives them.
    """
    from segment_anything_hq import SamAutomaticMaskGenerator

    with steps.computing():
        records = SamAutomaticMaskGenerator(steps.network).generate(frame)[:most]
    masks = np.array([record["segmentation"] for record in records], dtype=bool).reshape(-1, *frame.shape[:2])
    return Proposals(masks, np.array([record["predicted_iou"] for record in records], dtype=np.float32))
