"""How well masks fit in training: IoU with the true ones, and pictures of some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vosflow.masks import DAVIS_PALETTE
from vosflow.trackers.rde.images import MEAN, STD
from vosflow.training.rde.passes import TrainingPass
from vosflow.training.rde.samples import Sample, collate

LEAST_SIDE = 192  # of a frame in the picture of samples, in screen pixels: small crops are enlarged


def mean_iou(predicted: Tensor, labels: Tensor, objects: Tensor) -> float:
    """Mean IoU over objects and frames, as J: 1 where an object is neither there nor predicted.

    Args:
        predicted, labels: int64 [B, T, H, W].
        objects: int64 [B], how many objects each clip has.
    """
    values = []
    for slot in range(1, 1 + int(objects.max())):
        chosen = objects >= slot
        found, true = predicted[chosen] == slot, labels[chosen] == slot
        union = (found | true).sum(dim=(2, 3))
        values.append(torch.where(union > 0, (found & true).sum(dim=(2, 3)) / union.clamp_min(1), 1.0).flatten())
    return float(torch.cat(values).mean())


@torch.no_grad()
def measure(step: TrainingPass, samples: Sequence[Sample], at_once: int, device: str) -> float:
    """Mean IoU over all objects on the frames after the first of some samples, however many are taken `at_once`."""
    total, objects = 0.0, 0
    for start in range(0, len(samples), at_once):
        batch = collate(samples[start : start + at_once]).to(device)
        count = int(batch.objects.sum())
        total += mean_iou(step(batch, 1.0).predicted, batch.labels[:, 1:], batch.objects) * count
        objects += count
    return total / objects


@torch.no_grad()
def write_samples(path: Path, step: TrainingPass, samples: Sequence[Sample], device: str) -> None:
    """A picture of predicted masks over grey frames: one row for each sample, its first frame with the given masks.

    White lines are the outlines of the true masks.
    """
    batch = collate(samples).to(device)
    maps = torch.cat([batch.labels[:, :1], step(batch, 1.0).predicted], dim=1).cpu().numpy()  # [B, T, S, S]
    pixels = batch.images.cpu() * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    grey = (pixels.clamp(0, 1) * 255).mean(dim=2).byte().numpy()[..., None]  # [B, T, S, S, 1]
    colours = np.array(DAVIS_PALETTE, np.uint8).reshape(-1, 3)[maps]
    mixed = np.where(maps[..., None] > 0, grey // 2 + colours // 2, grey // 2 + 64)
    mixed[_outlines(batch.labels.cpu().numpy())] = 255
    rows = [np.concatenate(list(frames), axis=1) for frames in mixed]
    picture = Image.fromarray(np.concatenate(rows, axis=0))
    scale = max(1, LEAST_SIDE // batch.images.shape[-1])
    picture.resize((picture.width * scale, picture.height * scale), Image.NEAREST).save(path)


def _outlines(labels: np.ndarray) -> np.ndarray:
    """bool [..., H, W]: the right or the lower neighbour of a pixel has another label."""
    edges = np.zeros(labels.shape, bool)
    edges[..., :, :-1] |= labels[..., :, :-1] != labels[..., :, 1:]
    edges[..., :-1, :] |= labels[..., :-1, :] != labels[..., 1:, :]
    return edges
