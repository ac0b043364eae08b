"""What the networks of point trackers share: loading weights by name, and computing in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.state_dict import check_finite, list_differences, read_state_dict

Network = TypeVar("Network", bound=nn.Module)
StateDict = dict[str, Tensor]


def load_network(
    build: Callable[[], Network],
    checkpoint: Checkpoint,
    name: str,
    under: str = "model_state_dict",
    rename: Callable[[StateDict], StateDict] = lambda weights: weights,
) -> Network:
    """A network with the weights of a file, in evaluation mode, on the CPU. Every tensor must be there, and none else.

    Args:
        build: makes the network; its random weights are never computed.
        name: what the network is called, for messages.
        under: the key under which its authors' files hold the state dict, beside that of an optimizer, say. Files that
            `scripts/convert_checkpoint.py` made of such have it in front of each name.
        rename: from the names in the file, without `module.` in front, to those of the network.

    Raises:
        VosflowError: weights missing, damaged, not finite, or of another network.
    """
    weights = read_state_dict(checkpoint.path, name, under)
    inner = {key.removeprefix(f"{under}/"): value for key, value in weights.items() if key.startswith(f"{under}/")}
    weights = rename({key.removeprefix("module."): value for key, value in (inner or weights).items()})
    with torch.device("meta"):
        network = build()
    if differences := list_differences(weights, network.state_dict()):
        raise VosflowError(
            f"the checkpoint does not fit {name} ({differences})",
            path=checkpoint.path,
            expected=f"weights of {name}, with the names of parameters that its authors gave them",
            remedy="name weights of this network (python scripts/fetch.py --list), or another point tracker",
        )
    check_finite(weights, checkpoint.path)
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def to_image(frame: np.ndarray, device: str) -> Tensor:
    """A frame uint8 RGB [H, W, 3] as an image from -1 to 1, float32 [1, 3, H, W]."""
    image = torch.tensor(np.ascontiguousarray(frame), device=device).permute(2, 0, 1)[None].float()
    return 2 * (image / 255) - 1


@contextlib.contextmanager
def float32(device: str) -> Iterator[None]:
    """No gradients; and float32 is not TF32, which torch allows in convolutions on GPUs by default."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        if device == "cuda":
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
        yield


def refuse_small(clip: Clip, side: int, name: str, reason: str) -> None:
    """Raise VosflowError if a side of the clip's frames has less than `side` pixels."""
    if min(clip.height, clip.width) < side:
        raise VosflowError(
            f"frames of {clip.width} x {clip.height} pixels are too small for {name}: {reason}",
            expected=f"at least {side} pixels on each side, after resizing to SAM's input",
            remedy="take another point tracker for videos this narrow",
        )
