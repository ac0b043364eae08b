"""Weights of SAM 2: reading them, and adapting the one table that depends on the memory's size."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.state_dict import check_finite, list_differences, read_state_dict

MEMORY_TABLE = "maskmem_tpos_enc"


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict: `.safetensors`, or the authors' `.pt` ({"model": state dict}); see `read_state_dict`."""
    return read_state_dict(path, "SAM 2", under="model")


def resize_memory(table: Tensor, num_maskmem: int) -> Tensor:
    """The temporal positions of a memory of another size, from those that were trained.

    Row r is the position of a memory r+1 frames ago, the last row that of prompted frames. A smaller memory keeps the
    rows of the nearest frames and the last one; a larger one repeats the row of the frames furthest back. The network
    indexes rows from the end, so that without this edit every position would shift.

    Args:
        table: [trained num_maskmem, 1, 1, C].
        num_maskmem: wanted size, 1 or more.

    Returns:
        [num_maskmem, 1, 1, C]; the very same values if the size is as trained.
    """
    recent, prompted = table[:-1], table[-1:]  # [M-1, 1, 1, C], [1, 1, 1, C]
    rows = torch.arange(num_maskmem - 1).clamp(max=len(recent) - 1)
    return torch.cat([recent[rows], prompted])


def load_weights(model: nn.Module, weights: dict[str, Tensor], checkpoint: Checkpoint) -> None:
    """Load `weights` into `model`: every tensor of both, none of another shape.

    Raises:
        VosflowError: they do not fit (names a few keys and both files), or are not finite.
    """
    if differences := list_differences(weights, model.state_dict()):
        raise VosflowError(
            f"wrong checkpoint for the config {checkpoint.config} ({differences})",
            path=checkpoint.path,
            expected=f"the weights of the network that {checkpoint.config} describes",
            remedy="pair the files as their publisher does: sam2.1_hiera_tiny.pt with "
            "configs/sam2.1/sam2.1_hiera_t.yaml, small with _s, base_plus with _b+, large with _l",
        )
    check_finite(weights, checkpoint.path)
    model.load_state_dict(weights)
