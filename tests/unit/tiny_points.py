"""Narrow networks of PIPs and PIPs++ with weights from a seed, and a clip in which things move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vosflow.artefacts import Artefacts
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points.base import PointTracker, Tracks

FLOAT_NOISE = 1e-4  # pixels


def make_frames(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise that shifts by (2, 1) pixels per frame, uint8 [T, H, W, 3]."""
    rng = np.random.default_rng(seed)
    coarse = torch.tensor(rng.uniform(0, 255, (1, 3, height // 6 + 4, width // 6 + 4)))
    size = (height + count, width + 2 * count)
    large = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 255)[0].permute(1, 2, 0)
    large = large.byte().numpy()
    return np.stack([large[t : t + height, 2 * t : 2 * t + width] for t in range(count)])


def save_weights(network: nn.Module, path: Path) -> Checkpoint:
    """As the authors of PIPs save them, with the state of an optimizer beside."""
    optimizer = torch.optim.Adam(network.parameters())
    torch.save({"optimizer_state_dict": optimizer.state_dict(), "model_state_dict": network.state_dict()}, path)
    return Checkpoint(path.stem, path, "0" * 64)


@torch.no_grad()
def scale_(network: nn.Module, factors: dict[str, float]) -> dict[str, Tensor]:
    """Multiply parameters whose names contain a key; returns the state dict."""
    for name, tensor in network.named_parameters():
        for part, factor in factors.items():
            if part in name:
                tensor.mul_(factor)
    return network.state_dict()


def loaded(kind: type[PointTracker], checkpoint: Checkpoint, **settings: object) -> PointTracker:
    """A point tracker on the CPU."""
    tracker = kind(kind.Settings(**settings), {"point_tracker": checkpoint}, "cpu")
    tracker.load()
    return tracker


def track(tracker: PointTracker, frames: np.ndarray, queries: list[tuple[float, float, float]]) -> Tracks:
    """Tracks on frames in memory."""
    return tracker.track(Clip.of_array(frames), np.array(queries, np.float32).reshape(-1, 3), Artefacts())


def assert_same(tracks: Tracks, other: Tracks) -> None:
    """Equal but for float noise."""
    np.testing.assert_allclose(tracks.positions, other.positions, rtol=0, atol=FLOAT_NOISE)
    np.testing.assert_array_equal(tracks.visible, other.visible)
