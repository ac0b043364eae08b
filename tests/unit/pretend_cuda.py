"""A GPU where there is none: tensors that say they are on cuda:0, with the values of tensors on the CPU inside.

Whole trackers run on it. Like a real one it refuses tensors of two devices in one operation and numpy arrays of tensors
on it, and autocast("cuda") chooses its types, not that of CPUs. Nor does it take a convolution in float32 in inference
mode while TF32 is allowed. It knows nothing of kernels, speed and memory.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import zip_longest
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
aten = torch.ops.aten
TAKES_BOTH = {aten.copy_.default, aten._to_copy.default}
ASKS = {"aten::item", "aten::is_nonzero", "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}
TAKES_INDICES = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
WAITS: list[str] = []  # operations for which the host has waited for the GPU


class OnGpu(Tensor):
    """A tensor on the pretended GPU; `inner` is the one on the CPU that has its values."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        with torch.inference_mode(False):  # else views of parameters could not be made
            return Tensor._make_wrapper_subclass(
                cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=CUDA
            )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"OnGpu({self.inner!r})"

    def __reduce_ex__(self, protocol: int) -> tuple:
        return self.inner.__reduce_ex__(protocol)

    def tolist(self) -> list:
        return self.detach().cpu().tolist()

    def numpy(self, *, force: bool = False) -> None:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Also sees what has no tensor on the GPU among its arguments: factories, and copies to it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _run(function, args: tuple, kwargs: dict):
    leaves = tree_leaves((args, kwargs))
    on_gpu = any(isinstance(leaf, OnGpu) for leaf in leaves)
    if on_gpu:
        _check(function, args, kwargs)
    device = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), CUDA if on_gpu else CPU)
    inner = tree_map_only(OnGpu, lambda tensor: tensor.inner, (args, kwargs))
    inner_args, inner_kwargs = tree_map_only(torch.device, lambda _: CPU, inner)
    if _waits(function, args, kwargs, on_gpu, device):
        WAITS.append(function.name())
    result = _compute(function, inner_args, inner_kwargs)
    written = _written(function, args, kwargs)
    if written is not None:
        return written
    if inner_args and result is inner_args[0]:  # of `to`, which has copied nothing
        if isinstance(args[0], OnGpu) == (device.type == "cuda"):
            return args[0]
        result = result.clone()
    return tree_map_only(Tensor, OnGpu, result) if device.type == "cuda" else result


def _waits(function, args: tuple, kwargs: dict, on_gpu: bool, device: torch.device) -> bool:
    """Whether the host waits for the GPU: it asks for a value, or copies without saying that it need not wait."""
    if on_gpu and function.name() in ASKS:
        return True
    if on_gpu and function in TAKES_INDICES:
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    copies = function.name() in ("aten::_to_copy", "aten::to.device", "aten::to.dtype_layout")
    if not copies or isinstance(args[0], OnGpu) == (device.type == "cuda"):
        return False
    return not (kwargs.get("non_blocking") or any(argument is True for argument in args[1:]))


def _check(function, args: tuple, kwargs: dict) -> None:
    """Raise what CUDA raises where a tensor of the CPU, with dimensions, meets one of the GPU."""
    if function in TAKES_BOTH:
        return
    if function in TAKES_INDICES and isinstance(args[0], OnGpu):
        args = (args[0], *args[2:])
    others = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and not isinstance(x, OnGpu)]
    if any(other.ndim for other in others):
        raise RuntimeError(f"Expected all tensors to be on the same device, cuda:0 and cpu found in {function.name()}")
    refuses_tf32 = torch.is_inference_mode_enabled() and torch.backends.cudnn.allow_tf32  # training does not
    if refuses_tf32 and function.name().startswith("aten::conv") and args[0].dtype == torch.float32:
        raise RuntimeError("a convolution in float32 would be computed in TF32")


def _compute(function, args: tuple, kwargs: dict):
    if function is aten._fused_sdp_choice.default:
        return int(torch.nn.attention.SDPBackend.MATH)  # a choice for CPUs is none for GPUs
    if function is aten.cudnn_batch_norm.default:
        return *aten.native_batch_norm.default(*args, **kwargs), args[0].new_empty(0)
    try:
        return function(*args, **kwargs)
    except RuntimeError as error:
        if "can't allocate memory" in str(error):
            raise torch.OutOfMemoryError("CUDA out of memory") from error
        raise


def _written(function, args: tuple, kwargs: dict):
    """The argument that a function in place, or one with `out`, returns."""
    results = function._schema.returns
    if len(results) != 1 or results[0].alias_info is None or not results[0].alias_info.is_write:
        return None
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            return args[place] if place < len(args) else kwargs[argument.name]
    return None


@torch.no_grad()
def _backward(loss: Tensor) -> None:
    """`Tensor.backward`. Torch's engine asks the driver for its streams, so nodes are called from here, one by one."""
    waiting = Counter(node for parent in _nodes(loss.grad_fn) for node, _ in parent.next_functions)
    arrived = defaultdict(dict, {loss.grad_fn: {0: torch.ones_like(loss)}})  # {node: {number of its input: gradient}}
    ready = [loss.grad_fn]
    while ready:
        node = ready.pop()
        given = arrived.pop(node, {})
        if hasattr(node, "variable"):
            leaf, (gradient,) = node.variable, given.values()
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
            continue
        gradients = node(*(given.get(i) for i in range(len(node._input_metadata)))) if given else ()
        gradients = gradients if isinstance(gradients, tuple) else (gradients,)
        for (following, number), gradient in zip_longest(node.next_functions, gradients):
            if following is None:
                continue
            if gradient is not None:
                about = following._input_metadata[number]
                if gradient.device != about.device:
                    raise RuntimeError(f"a gradient on {gradient.device}, expected on {about.device}")
                fitting, known = gradient.sum_to_size(about.shape).to(about.dtype), arrived[following]
                known[number] = known[number] + fitting if number in known else fitting
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)


def _nodes(first: object) -> set:
    """All nodes of the graph of gradients that are reached from `first`."""
    found, front = {first}, [first]
    while front:
        new = {node for node, _ in front.pop().next_functions if node is not None} - found
        found |= new
        front += new
    return found


class _Event:
    def __init__(self, **_: bool) -> None:
        pass

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


@contextlib.contextmanager
def pretend_cuda() -> Iterator[None]:
    """Within, torch has a GPU as far as this module pretends one; in this thread, and without one in others."""
    patches = {
        "is_available": lambda: True,
        "_lazy_init": lambda: None,
        "get_device_name": lambda *_: "pretended GPU",
        "is_bf16_supported": lambda *_, **__: True,
        "reset_peak_memory_stats": lambda *_: None,
        "max_memory_allocated": lambda *_: 1,
        "empty_cache": lambda: None,
        "Event": _Event,
    }
    torch._C._ensureCUDADeviceGuardSet()
    WAITS.clear()
    with contextlib.ExitStack() as stack:
        for name, value in patches.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(Tensor, "pin_memory", Tensor.clone))
        check = "_accelerator_graph_capture_health_check"
        stack.enter_context(mock.patch.object(torch.optim.Optimizer, check, lambda _: None))
        stack.enter_context(mock.patch.object(Tensor, "backward", _backward))
        for setter, value, before in (
            (torch._C._set_only_lift_cpu_tensors, True, False),
            (torch.__future__.set_overwrite_module_params_on_conversion, True, False),
        ):
            setter(value)
            stack.callback(setter, before)
        stack.enter_context(_Mode())
        yield
