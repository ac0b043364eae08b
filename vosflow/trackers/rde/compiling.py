"""The parts of the network as compiled graphs (torch.compile): fewer kernels, and fewer calls of them from Python.

Compiling takes a minute or more, so it must not begin anew with each video. Of a tensor's dimensions, those that differ
between videos (height, width, objects) stay open, and a part is compiled at most twice: for one object, for which
PyTorch always compiles apart, and for several. All of it is done at once, when the tracker is loaded, on a made-up
frame: so what is compiled does not depend on which video comes first, and its time is in no video's frames/s.

CUDA graphs (mode "reduce-overhead") are not used: their results lie in memory that the next replay overwrites, and here
results live on, in memories and as features of frames to come.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from vosflow.errors import VosflowError
from vosflow.trackers.rde.computing import Computing
from vosflow.trackers.rde.network import Features, RdeNetwork

SIZE = (480, 864)  # of the made-up frame; kernels are chosen for sizes near it
SEVERAL = 5  # objects that stand for any number from 2 on
MOST_GRAPHS = 64  # of a part in one process: torch's own limit, 8, is that of few trackers in turn


def compile_parts(network: RdeNetwork, computing: Computing, backend: str | Callable = "inductor") -> None:
    """Replace the network's parts by compiled ones; it was brought to its device by `Computing.prepare`.

    Args:
        backend: of torch.compile: "inductor" fuses kernels, others are for tests.

    Raises:
        VosflowError: PyTorch cannot compile here, for want of a compiler, of a GPU that it has one for, or of memory.
    """
    torch._dynamo.config.recompile_limit = max(MOST_GRAPHS, torch._dynamo.config.recompile_limit)
    parts = [(network, name) for name in ("encode_frames", "encode_values", "decode")]
    if network.mem_compress is not None:
        parts += [(network.mem_compress, name) for name in ("keys", "values")]
    for owner, name in parts:
        setattr(owner, name, CompiledPart(getattr(owner, name), computing, backend))
    print("compiling the network: a minute or more, unless it was done here before", file=sys.stderr, flush=True)
    start = time.monotonic()
    try:
        with computing.computing():
            _compile_all(network, computing)
    except torch.OutOfMemoryError as error:
        raise VosflowError(
            f"out of memory on {computing.device} while the network was compiled ({error})",
            expected=f"memory for {SEVERAL} objects on a frame of {SIZE[1]}x{SIZE[0]} pixels",
            remedy="end other programs that use the device (nvidia-smi lists them), or track without compiling, which "
            "goes on with fewer objects at once where memory runs out: compile: false (--set compile=false)",
        ) from error
    except Exception as error:  # from any layer of the compiler, or from the compilers of C and CUDA that it calls
        raise VosflowError(
            f"the network cannot be compiled by torch.compile ({type(error).__name__}: {error})",
            expected="a C compiler (gcc), Python's headers, triton, and a GPU of compute capability 7.0 or more"
            if computing.device == "cuda"
            else "a C++ compiler (g++)",
            remedy="install what is missing (module load gcc, or apt install build-essential python3-dev), or track "
            "without it: compile: false (--set compile=false)",
        ) from error
    print(f"compiled in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


class CompiledPart:
    """A part of the network, compiled.

    A graph assumes how its inputs lie in memory, and that they begin where their memory does, which a frame of a batch
    does not. So that no more graphs are needed, other inputs are copied first: 30 MB of a frame in bfloat16.
    """

    def __init__(self, function: Callable, computing: Computing, backend: str | Callable) -> None:
        # With fullgraph, what cannot be compiled is an error, as is one graph too many: nothing falls back in silence.
        self._function = torch.compile(function, fullgraph=True, backend=backend)
        self._channels_last = computing.channels_last

    def __call__(self, *inputs: Tensor | Features) -> Tensor | Features:
        """What the part returns for these."""
        return self._function(*(_each(self._lay_out, one) for one in inputs))

    def compile(self, *inputs: Tensor | Features) -> Tensor | Features:
        """The same, with a graph for inputs of all sizes; for one object or frame if there is one, else for several."""
        return self._function(*(_each(_open, _each(self._lay_out, one)) for one in inputs))

    def _lay_out(self, tensor: Tensor) -> Tensor:
        _, channels, height, width = tensor.shape
        strides = (channels * height * width, height * width, width, 1)
        if self._channels_last:
            strides = (channels * height * width, 1, channels * width, channels)
        if tensor.stride() == strides and tensor.storage_offset() == 0 and tensor.is_inference():
            return tensor
        return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _open(tensor: Tensor) -> Tensor:
    """The tensor [N, C, h, w], marked: h, w and N may be others (but N not 1, for which PyTorch compiles apart)."""
    for dimension in (0, 2, 3):
        if tensor.shape[dimension] > 1:
            torch._dynamo.mark_dynamic(tensor, dimension)
    return tensor


def _each(function: Callable[[Tensor], Tensor], given: Tensor | Features) -> Tensor | Features:
    if isinstance(given, Tensor):
        return function(given)
    thin = tuple(map(function, given.thin))
    return Features(function(given.key), function(given.f16), thin, function(given.skip8), function(given.skip4))


def _compile_all(network: RdeNetwork, computing: Computing) -> None:
    images = torch.zeros(computing.frames_at_once, 3, *SIZE, dtype=computing.dtype, device=computing.device)
    image, features = images[:1], network.encode_frames.compile(images).split()[0]
    for objects in sorted({1, min(SEVERAL, computing.objects_at_once)}):
        masks, others = (images.new_zeros(objects, 1, *SIZE) for _ in range(2))
        values = network.encode_values.compile(image, features, masks, others)
        network.decode.compile(values, features)
        if network.mem_compress is not None:
            network.mem_compress.values.compile(values, values.clone())
    if network.mem_compress is not None:
        network.mem_compress.keys.compile(features.key, features.key.clone())
