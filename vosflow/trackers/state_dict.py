"""Reading state dicts of networks, with errors that name the file."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vosflow.errors import VosflowError

SHOWN_KEYS = 3


def read_state_dict(path: str | Path, network: str, under: str) -> dict[str, Tensor]:
    """Read a state dict from a `.safetensors` file, or from one of torch.save. Floats become float32.

    No code in the file is run (`weights_only=True`).

    Args:
        network: whose weights these should be, for messages.
        under: the key under which its publisher's files may hold the state dict.

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
            weights = content.get(under, content) if isinstance(content, dict) else content
    except FileNotFoundError as error:
        raise VosflowError("the checkpoint is missing", path=path, remedy="fetch it, or correct the path") from error
    except Exception as error:  # both readers raise many types for a damaged file
        reason = "it is not a file of plain tensors" if isinstance(error, pickle.UnpicklingError) else str(error)
        raise VosflowError(
            f"the checkpoint is unreadable ({reason})",
            path=path,
            expected=f"weights of {network}, as torch.save or safetensors write them, complete",
            remedy="the file is damaged or of another kind: delete it, and fetch or train it again",
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise VosflowError(
            "the checkpoint does not hold a state dict",
            path=path,
            expected=f"{{name: tensor}}, or that under the key {under}, as in the files that the authors of {network} "
            "publish",
            remedy=f"save the network's state_dict() under the key {under}",
        )
    return {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}


def list_differences(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """How the names and shapes of `weights` differ from those of `wanted`, naming a few; "" if they do not."""
    problems = {
        "missing": wanted.keys() - weights.keys(),
        "unexpected": weights.keys() - wanted.keys(),
        "of another shape": [
            f"{name} {list(weights[name].shape)} instead of {list(wanted[name].shape)}"
            for name in wanted.keys() & weights.keys()
            if weights[name].shape != wanted[name].shape
        ],
    }
    return "; ".join(f"{len(keys)} {kind}: {_few(keys)}" for kind, keys in problems.items() if keys)


def check_finite(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights with NaN or infinite values, of which a network makes empty masks, or random ones, and no error.

    Called by whatever loads a network, with the tensors that it loads: what else a file holds, nobody computes with.

    Args:
        path: their file, for the message.

    Raises:
        VosflowError: names the first such tensor.
    """
    broken = [name for name, values in weights.items() if not _is_finite(values)]
    if broken:
        raise VosflowError(
            f"there are NaN or infinite values in {len(broken)} of the checkpoint's {len(weights)} tensors "
            f"({broken[0]}{', ...' if len(broken) > 1 else ''})",
            path=path,
            expected="finite weights: with these, masks would be empty or random, and nothing would say why",
            remedy="the training that they are from diverged, or they were saved in a type too small for them: take an "
            "earlier state of that training, or fetch the file again",
        )


def _is_finite(values: Tensor) -> bool:
    """Whether all values are; a finite sum says so in a fifteenth of the time, an infinite one may be an overflow."""
    return bool(values.sum().isfinite() or values.isfinite().all())


def _few(keys: Iterable[str]) -> str:
    keys = sorted(keys)
    return ", ".join(keys[:SHOWN_KEYS]) + (", ..." if len(keys) > SHOWN_KEYS else "")
