"""A point tracker and a SAM small enough to reason about, and as exact as real ones must be: one by one = batched."""

from __future__ import annotations

import numpy as np

from vosflow.trackers.base import Part
from vosflow.trackers.sam_pt.points.base import PointTrackerSettings, Tracks
from vosflow.trackers.sam_pt.sams.base import Decoded, Proposals

LOW_RES = 4  # pixels of the frame in one of the low-resolution masks


class ToyPoints:
    """Points move to the right by `speed` pixels a frame, and hide on every `hides`th frame, each at its own time."""

    class Settings(PointTrackerSettings):
        speed: float = 2.0
        hides: int = 5

    weights = {"point_tracker": Part(network="pips", checkpoint="pips")}
    calls = 0

    def __init__(self, settings, checkpoints, device):
        self.settings = settings
        self.checkpoint = checkpoints["point_tracker"]

    def load(self):
        self.checkpoint.path.read_bytes()

    def track(self, clip, queries, artefacts):
        type(self).calls += 1
        away = np.arange(len(clip))[:, None] - queries[None, :, 0]  # [T, N]
        positions = queries[None, :, 1:] + away[..., None] * np.array([self.settings.speed, 0], np.float32)
        visible = (away + queries[None, :, 1].astype(int)) % self.settings.hides != 0
        return Tracks(positions.astype(np.float32), visible | (away == 0))


class ToyMatcher(ToyPoints):
    """Finds the first pixels of a mask, on every frame where they are."""

    matches_masks = True
    track = None

    def track_masks(self, clip, masks, frames, count, generators):
        places = [np.argwhere(mask)[:, ::-1] for mask in masks]
        points = np.concatenate(
            [pixels[rng.integers(len(pixels), size=count)] for pixels, rng in zip(places, generators, strict=True)]
        )
        positions = np.broadcast_to(points.astype(np.float32), (len(clip), len(points), 2)).copy()
        return Tracks(positions, np.ones(positions.shape[:2], bool))


class ToySam:
    """A pixel is the more likely on the object the more its colour is like that of the object's points."""

    weights = Part(network="sam", checkpoint="sam_vit_b")
    image_size = 128  # twice the frame's side: boxes are in other coordinates than points
    calls = 0
    encoded = 0
    asked = 0  # for proposals

    def __init__(self, checkpoints, device, precision):
        self.checkpoint = checkpoints["sam"]

    def load(self):
        self.checkpoint.path.read_bytes()

    def encode(self, frame):
        import torch

        type(self).encoded += 1
        return {"embedding": torch.from_numpy(np.array(frame)).float().permute(2, 0, 1)}

    def decode(self, features, size, points, labels, boxes=None, masks=None, full_size=True):
        import torch
        from torch.nn import functional as F

        type(self).calls += 1
        image = torch.as_tensor(features["embedding"])  # [3, H, W]
        points = torch.as_tensor(points).round().long()
        results = []
        for b in range(len(points)):  # by itself: sums over a batch would round otherwise
            x, y = points[b, :, 0].clamp(0, size[1] - 1), points[b, :, 1].clamp(0, size[0] - 1)
            distances = (image[None] - image[:, y, x].T[:, :, None, None]).abs().sum(1)  # [P, H, W]
            on = torch.as_tensor(labels)[b] == 1
            far = torch.full((1, *size), 200.0)
            logits = torch.cat([distances[~on], far]).amin(0) - torch.cat([distances[on], far]).amin(0)
            if boxes is not None:
                x0, y0, x1, y1 = (float(v) for v in torch.as_tensor(boxes)[b])
                rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
                logits = logits - 30.0 * ((columns < x0 - 4) | (columns > x1 + 4) | (rows < y0 - 4) | (rows > y1 + 4))
            if masks is not None:
                logits = logits + 0.5 * torch.as_tensor(masks)[b, 0].repeat_interleave(LOW_RES, 0).repeat_interleave(
                    LOW_RES, 1
                )
            results.append(logits.clamp(-100, 100))
        logits = torch.stack(results)
        low_res = F.avg_pool2d(logits[:, None], LOW_RES)
        iou = torch.stack([one.abs().mean() / 100 for one in logits])
        return Decoded(logits if full_size else None, low_res, iou)

    def propose(self, frame, most):
        type(self).asked += 1
        masks = [np.zeros(frame.shape[:2], bool) for _ in range(2)]
        masks[0][4:14, 5:20] = True
        masks[1][2:16, 3:24] = True
        return Proposals(np.stack(masks)[:most], np.array([0.9, 0.8], np.float32)[:most])


class BlindSam(ToySam):
    """Sees no objects."""

    def propose(self, frame, most):
        return Proposals(np.zeros((0, *frame.shape[:2]), bool), np.zeros(0, np.float32))
