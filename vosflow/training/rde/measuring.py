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
    """Mean IoU on the frames after the first of some samples."""
    values = []
    for start in range(0, len(samples), at_once):
        batch = collate(samples[start : start + at_once]).to(device)
        values.append(mean_iou(step(batch, 1.0).predicted, batch.labels[:, 1:], batch.objects) * len(batch.images))
    return sum(values) / len(samples)


@torch.no_grad()
def write_samples(path: Path, step: TrainingPass, samples: Sequence[Sample], device: str) -> None:
    """A picture of predicted masks: one row for each sample, its first frame with the given masks."""
    batch = collate(samples).to(device)
    maps = torch.cat([batch.labels[:, :1], step(batch, 1.0).predicted], dim=1).cpu().numpy()  # [B, T, S, S]
    pixels = batch.images.cpu() * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    pixels = (pixels.clamp(0, 1) * 255).byte().permute(0, 1, 3, 4, 2).numpy()  # [B, T, S, S, 3]
    colours = np.array(DAVIS_PALETTE, np.uint8).reshape(-1, 3)[maps]
    mixed = np.where(maps[..., None] > 0, pixels // 2 + colours // 2, pixels)
    rows = [np.concatenate(list(frames), axis=1) for frames in mixed]
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)
