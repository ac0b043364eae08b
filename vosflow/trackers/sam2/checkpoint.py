"""Weights of SAM 2: reading them, and adapting the one table that depends on the memory's size."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint

MEMORY_TABLE = "maskmem_tpos_enc"
SHOWN_KEYS = 3


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict: `.safetensors`, or the authors' `.pt` ({"model": state dict}). Floats become float32.

    No code in the file is run (`weights_only=True`).

    Raises:
        VosflowError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            weights = content.get("model", content) if isinstance(content, dict) else content
    except FileNotFoundError as error:
        raise VosflowError("the checkpoint is missing", path=path, remedy="fetch it, or correct the path") from error
    except Exception as error:  # both readers raise many types for a damaged file
        reason = "it is not a file of plain tensors" if isinstance(error, pickle.UnpicklingError) else str(error)
        raise VosflowError(
            f"the checkpoint is unreadable ({reason})",
            path=path,
            expected="a .pt file of SAM 2 or a .safetensors file, complete",
            remedy="the file is damaged or of another kind: delete it and fetch it again",
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise VosflowError(
            "the checkpoint does not hold a state dict",
            path=path,
            expected='{"model": {name: tensor}} as in the files that the authors of SAM 2 publish',
            remedy="save the network's state_dict() under the key model",
        )
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


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
        VosflowError: they do not fit; names a few keys and both files.
    """
    wanted = model.state_dict()
    problems = {
        "missing": wanted.keys() - weights.keys(),
        "unexpected": weights.keys() - wanted.keys(),
        "of another shape": [
            f"{name} {list(weights[name].shape)} instead of {list(wanted[name].shape)}"
            for name in wanted.keys() & weights.keys()
            if weights[name].shape != wanted[name].shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(f"{len(keys)} {kind}: {_few(keys)}" for kind, keys in problems.items() if keys)
        raise VosflowError(
            f"wrong checkpoint for the config {checkpoint.config} ({listed})",
            path=checkpoint.path,
            expected=f"the weights of the network that {checkpoint.config} describes",
            remedy="pair the files as their publisher does: sam2.1_hiera_tiny.pt with "
            "configs/sam2.1/sam2.1_hiera_t.yaml, small with _s, base_plus with _b+, large with _l",
        )
    model.load_state_dict(weights)


def _few(keys: Iterable[str]) -> str:
    keys = sorted(keys)
    return ", ".join(keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "")
