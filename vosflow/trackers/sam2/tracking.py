"""Tracking one video with SAM 2: prompts into memory, then frame by frame, objects independent of each other.

The masks are those of `tools/vos_inference.py` of https://github.com/facebookresearch/sam2, in both of its modes: all
objects together, or one pass per object where objects appear late. Since its predictor never lets objects influence
each other before the last step, one pass over the frames with a separate memory per object gives the same pixels,
encodes a frame once for all objects, and yields masks as it goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from vosflow.manifest import LABEL_MAPS
from vosflow.masks import merge_objects
from vosflow.trackers.base import Masks
from vosflow.trackers.prompts import first_index, prompts_by_frame
from vosflow.video import Video

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

NOT_YET = -1024.0  # the score of an object on frames before its first prompt
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def track_video(
    predictor: SAM2VideoPredictor, video: Video, score_thresh: float, precision: str
) -> Iterator[tuple[str, Masks]]:
    """Yield (frame name, masks) of each frame, see `vosflow.trackers.base.Tracker.track`.

    Args:
        score_thresh: a pixel belongs to an object if its logit is above this.
        precision: "float32" or "bfloat16".
    """
    by_frame = prompts_by_frame(video)
    state = _new_state(predictor, video)
    memories = {object_id: ObjectMemory(predictor, state) for object_id in _object_ids(video)}
    for index, prompts in by_frame.items():
        with _computing(predictor.device, precision):
            for prompt in prompts:
                memories[prompt.object].add_prompt(index, video.read_prompt(prompt))
    for index in range(first_index(video, by_frame), len(video)):
        with _computing(predictor.device, precision):
            scores = _video_scores(video, memories, index, predictor.device)  # [O, 1, H, W]
            if video.layout == LABEL_MAPS:
                scores = predictor._apply_non_overlapping_constraints(scores)
            masks = (scores[:, 0] > score_thresh).cpu().numpy()  # [O, H, W]
        yield video.frame_names[index], _in_layout(video, dict(zip(memories, masks, strict=True)))


class ObjectMemory:
    """What the network remembers of one object; made from the predictor's own steps.

    Every prompted frame is kept. Of the others only those that later frames still attend to: the memory is constant,
    however long the video.
    """

    def __init__(self, predictor: SAM2VideoPredictor, state: dict) -> None:
        self._predictor = predictor
        self._state = state
        self._outputs = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        reach = (predictor.num_maskmem - 1) * predictor.memory_temporal_stride_for_eval
        self._reach = max(reach, predictor.max_obj_ptrs_in_encoder - 1, 1)  # frames

    @property
    def start(self) -> int:
        """Index of the object's first prompted frame."""
        return min(self._outputs["cond_frame_outputs"])

    def add_prompt(self, index: int, mask: np.ndarray) -> None:
        """Take `mask`, bool [H, W], as the object's mask on frame `index`, and encode it into memory.

        All prompts must be added before the first `logits`: frames attend to prompts that come later, too.
        """
        predictor = self._predictor
        size = (predictor.image_size, predictor.image_size)
        given = torch.from_numpy(mask)[None, None].float().to(self._state["device"])  # [1, 1, H, W]
        if given.shape[-2:] != size:
            given = F.interpolate(given, size=size, mode="bilinear", align_corners=False, antialias=True)
            given = (given >= 0.5).float()  # [1, 1, S, S]
        output, _ = self._step(index, mask=given)
        # The memory is made from the stride-4 logits, not from the mask itself: this is how the authors' code does it.
        high_res = F.interpolate(output["pred_masks"], size=size, mode="bilinear", align_corners=False)
        output["maskmem_features"], output["maskmem_pos_enc"] = predictor._run_memory_encoder(
            self._state, index, 1, high_res, output["object_score_logits"], is_mask_from_pts=True
        )
        self._outputs["cond_frame_outputs"][index] = output

    def logits(self, index: int) -> Tensor:
        """Logits of the object on frame `index`, float32 [1, 1, S/4, S/4]. Call in temporal order from `start` on."""
        given = self._outputs["cond_frame_outputs"].get(index)
        if given is not None:
            return given["pred_masks"]
        tracked = self._outputs["non_cond_frame_outputs"]
        tracked[index], logits = self._step(index, mask=None)
        tracked.pop(index - self._reach, None)
        return logits

    def _step(self, index: int, mask: Tensor | None) -> tuple[dict, Tensor]:
        return self._predictor._run_single_frame_inference(
            self._state,
            self._outputs,
            index,
            batch_size=1,
            is_init_cond_frame=mask is not None,
            point_inputs=None,
            mask_inputs=mask,
            reverse=False,
            run_mem_encoder=mask is None,
        )


class FrameTensors:
    """The frames of a video as the network takes them, float32 [3, S, S] each, read when asked for.

    Resized by Pillow (bicubic, aspect ratio ignored), scaled in float64, normalised in float32: in this order, else
    last bits differ from the authors' code.
    """

    def __init__(self, video: Video, image_size: int) -> None:
        self._video = video
        self._size = (image_size, image_size)
        self._mean = torch.tensor(MEAN)[:, None, None]
        self._std = torch.tensor(STD)[:, None, None]

    def __getitem__(self, index: int) -> Tensor:
        image = np.asarray(Image.fromarray(self._video.read_frame(index)).resize(self._size)) / 255.0
        # Contiguous: the channels-last strides of an image would lead to other kernels.
        tensor = torch.from_numpy(image).permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        return tensor.sub_(self._mean).div_(self._std)


def _new_state(predictor: SAM2VideoPredictor, video: Video) -> dict:
    """The entries of the predictor's inference state that its single steps read; shared by all objects."""
    return {
        "images": FrameTensors(video, predictor.image_size),
        "num_frames": len(video),
        "device": predictor.device,
        "storage_device": predictor.device,
        "cached_features": {},  # the predictor keeps the features of the last frame in it
        "constants": {},
    }


def _video_scores(video: Video, memories: dict[int, ObjectMemory], index: int, device: torch.device) -> Tensor:
    """Logits of all objects on frame `index` at the size of the video, float32 [O, 1, H, W]."""
    size = (video.height, video.width)
    started = [memory.start <= index for memory in memories.values()]
    scores = torch.full((len(memories), 1, *size), NOT_YET, device=device)
    if any(started):
        logits = torch.cat([memory.logits(index) for memory in memories.values() if memory.start <= index])
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        scores[torch.tensor(started, device=device)] = logits
    return scores


def _object_ids(video: Video) -> list[int]:
    return sorted({prompt.object for prompt in video.prompts})


def _in_layout(video: Video, masks: dict[int, np.ndarray]) -> Masks:
    return merge_objects(masks, video.height, video.width) if video.layout == LABEL_MAPS else masks


@contextlib.contextmanager
def _computing(device: torch.device, precision: str) -> Iterator[None]:
    """No gradients, and the precision asked for: float32 is not TF32, which torch allows on GPUs by default."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if precision == "bfloat16":
            stack.enter_context(torch.autocast(device.type, torch.bfloat16))
        elif device.type == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        yield
