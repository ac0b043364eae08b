"""What the settings `speed`, `precision` and `compile` mean for the network on a device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from vosflow.errors import VosflowError
from vosflow.trackers.rde import Settings
from vosflow.trackers.rde.network import RdeNetwork

ALL_OBJECTS = 1_000  # at once: more than a video has
FRAMES_ON_A_GPU = 4  # at once, for the key encoder


@dataclass(frozen=True)
class Computing:
    """How to compute.

    Attributes:
        device: "cpu" or "cuda".
        precision: "float32" or "bfloat16".
        objects_at_once, frames_at_once: how many share a call of the network; fewer, once memory runs out. On a CPU
            several take as long as one by one, and more memory: what objects share is computed once in any case.
        channels_last: layout of features in memory.
        compiles: the network's parts are compiled, see `compiling`.
    """

    device: str
    precision: str = "float32"
    objects_at_once: int = 1
    frames_at_once: int = 1
    channels_last: bool = False
    compiles: bool = False

    def prepare(self, network: RdeNetwork) -> RdeNetwork:
        """Bring the network to the device, in this precision and layout; it is changed.

        Keys stay in float32: they decide what is read, and SAM makes each from the one before, over the whole video.
        """
        if self.precision == "bfloat16":
            network.bfloat16()
            network.key_proj.float()
            if network.mem_compress is not None:
                network.mem_compress.key_encoder.float()
                network.mem_compress.compress_key.float()
        network.to(self.device)
        if self.channels_last:
            for weight in (weight for weight in network.parameters() if weight.ndim == 4):
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return network

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """No gradients; and float32 is not TF32, which torch allows in convolutions on GPUs by default."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if self.device == "cuda":
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            yield

    @property
    def dtype(self) -> torch.dtype:
        """What images and masks are given in."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


def resolve_computing(settings: Settings, device: str) -> Computing:
    """What `settings` ask for on a device, "cpu" or "cuda"; raises VosflowError if there is no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise VosflowError(
            f"the device {device} is demanded, but torch sees no GPU",
            expected="a CUDA GPU with a driver that this torch supports",
            remedy="check nvidia-smi and CUDA_VISIBLE_DEVICES, or track on the CPU (device: cpu)",
        )
    precision, compiles = settings.precision_on(device), settings.compiles_on(device)
    if device == "cpu":
        return Computing(device, precision, compiles=compiles)
    fast = settings.speed == "fast"
    return Computing(device, precision, ALL_OBJECTS, FRAMES_ON_A_GPU, channels_last=fast, compiles=compiles)
