"""SAM-PT on one video: given objects (video object segmentation), or proposed ones (video instance segmentation)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from vosflow.manifest import LABEL_MAPS
from vosflow.trackers.base import Checkpoint, Masks
from vosflow.trackers.prompts import first_index, prompts_by_frame
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.following import PointFollower
from vosflow.trackers.sam_pt.merging import Merger, resize_logits, resize_mask
from vosflow.trackers.sam_pt.parts import part_module
from vosflow.trackers.sam_pt.predicting import Objects, Predictor
from vosflow.trackers.sam_pt.prompting import FrameEmbeddings, Prompter
from vosflow.trackers.sam_pt.queries import PointSampler
from vosflow.trackers.sam_pt.settings import Settings
from vosflow.video import Video

if TYPE_CHECKING:
    from vosflow.trackers.sam_pt.points.base import PointTracker
    from vosflow.trackers.sam_pt.sams.base import Sam

NEVER_SCORED = -1e8  # stands for the authors' minus infinity, which JSON does not have: below every mean IoU


class Session:
    """One video and all that works on it."""

    def __init__(
        self,
        video: Video,
        settings: Settings,
        point_tracker: PointTracker,
        sam: Sam,
        checkpoints: Mapping[str, Checkpoint],
        device: str,
    ) -> None:
        self.video = video
        self.settings = settings
        self.device = device
        self._sam = sam
        self._sam_weights = checkpoints["sam"].sha256
        self.clip = Clip.of_video(video, longest_side=settings.longest_size, shortest_side=settings.size)
        embeddings = FrameEmbeddings(sam, settings.sam, self._sam_weights, video.artefacts, device)
        self.predictor = Predictor(
            self.clip,
            settings,
            PointSampler(settings, video.name),
            PointFollower(settings, point_tracker, checkpoints, video.artefacts, video.name),
            Prompter(sam, settings, embeddings, video.name),
        )

    def propose(self) -> np.ndarray:
        """Masks of what SAM sees on the first frame, the best one first: bool [N, H, W] at the clip's size.

        They are an artefact: a SAM is asked a thousand times for them, whatever tracks them afterwards.
        """
        s, clip = self.settings, self.clip

        def make() -> dict[str, np.ndarray]:
            with torch.inference_mode():
                return {"packed": np.packbits(self._sam.propose(clip[0], s.max_num_masks).masks, axis=2)}

        facts = {"frame": clip.digest(0), "sam": s.sam, "weights": self._sam_weights, "most": s.max_num_masks}
        packed = self.video.artefacts.get("proposals", facts, make, modules=(part_module("sam", s.sam),))["packed"]
        return np.unpackbits(packed, axis=2, count=clip.width).astype(bool)


def track_objects(session: Session) -> Iterator[tuple[str, Masks]]:
    """The given objects of the session's video; each enters with its first prompt.

    Where a publisher wants only some frames (YouTube-VOS), only these are segmented, as in the authors' results.
    """
    video, clip = session.video, session.clip
    objects, prompts = _read_objects(session)
    if session.settings.compat == "published":  # the mask that was worked with, resized back
        prompts = [resize_mask(mask, video.height, video.width) for mask in objects.masks]
    spreads = session.settings.compat == "published"
    merger = Merger(objects.starts, prompts, size=(clip.height, clip.width), device=session.device, spreads=spreads)
    first = first_index(video, prompts_by_frame(video))
    names = video.frame_names
    frames = {i for i in range(first, len(names)) if not video.required or names[i] in video.required}
    for index, predictions in enumerate(session.predictor.predict(objects, at_start=False, frames=frames)):
        if index not in frames:
            continue
        winners = merger.winners(index, predictions)
        if video.layout == LABEL_MAPS:
            masks = np.array([0, *objects.ids], np.uint8)[winners]
        else:
            masks = {k: winners == number for number, k in enumerate(objects.ids, start=1)}
        yield names[index], masks


def track_instances(session: Session) -> Iterator[tuple[str, Masks]]:
    """Objects that SAM proposes on the first frame; their masks may overlap. Sets the video's scores."""
    video, clip = session.video, session.clip
    proposals = session.propose()
    count = len(proposals)
    if not count:
        video.remark("SAM proposed no object on the first frame.")
        yield from ((name, {}) for name in video.frame_names)
        return
    objects = Objects(list(range(1, count + 1)), [0] * count, proposals)
    ious = np.full((len(clip), count), np.nan)
    for index, predictions in enumerate(session.predictor.predict(objects, at_start=True, frames=range(len(clip)))):
        masks = {}
        for k, one in predictions.items():
            ious[index, k] = np.nan if one.iou is None else one.iou
            if one.logits is not None:
                mask = (resize_logits(one.logits, video.height, video.width) > 0).cpu().numpy()
                if mask.any():
                    masks[objects.ids[k]] = mask
        yield video.frame_names[index], masks
    for k, score in enumerate(score_objects(ious, session.settings.compat)):
        video.scores[objects.ids[k]] = score


def score_objects(ious: np.ndarray, compat: str) -> list[float]:
    """The score of each object: the mean of its expected IoU [T, O] over frames.

    nan: SAM was not asked. Under compat published an object with such a frame ranks below all that have none.
    """
    unasked = np.isnan(ious)
    means = np.where(unasked, 0, ious).sum(0) / np.maximum(1, (~unasked).sum(0))
    worst = unasked.any(0) if compat == "published" else unasked.all(0)
    return np.where(worst, NEVER_SCORED, means).tolist()


def _read_objects(session: Session) -> tuple[Objects, list[np.ndarray]]:
    """The objects of a video in the order of their appearance, and the masks given for them, as they are.

    Like frames, masks are worked on from those in the camera's resolution where there are some.
    """
    video, clip = session.video, session.clip
    ids, starts, masks, given = [], [], [], []
    for frame, prompts in prompts_by_frame(video).items():
        for prompt in prompts:
            if prompt.object in ids:
                video.remark(f"object {prompt.object} has several prompts: SAM-PT takes the first one.")
                continue
            mask = video.read_prompt(prompt)
            source = video.read_full_prompt(prompt) if video.has_full_prompts else mask
            worked = resize_mask(source, clip.height, clip.width)
            if not worked.any():  # so small that no pixel is left: keep the one that it is nearest to
                y, x = np.argwhere(source).mean(0) * (clip.height, clip.width) / source.shape
                worked[int(y), int(x)] = True
                video.remark(f"object {prompt.object} has less than a pixel at the size that is worked on.")
            ids.append(prompt.object)
            starts.append(frame)
            masks.append(worked)
            given.append(mask)
    return Objects(ids, starts, np.stack(masks)), given
