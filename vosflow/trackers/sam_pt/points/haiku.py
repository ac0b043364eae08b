"""Weights of networks that were trained with DeepMind's Haiku, under the names and in the layout of PyTorch.

What `vosflow.datasets.convert` makes of their `.npy` files has names like `params/tapir/~/resnet/~/initial_conv/w`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

LEAVES = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias"}
AVERAGES = {"mean_ema": "running_mean", "var_ema": "running_var"}


def is_haiku(weights: Mapping[str, Tensor]) -> bool:
    """Whether names are those of Haiku's parameters and states."""
    return any(name.startswith("params/") for name in weights)


def from_haiku(weights: Mapping[str, Tensor], modules: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename and transpose. What is neither parameter nor running average (an optimizer's state) is left out.

    Args:
        weights: names as `convert` writes them.
        modules: regular expressions of whole Haiku modules, and what they are called in PyTorch. A name that none of
            them knows stays as it is, so that it is found unexpected when the weights are loaded. An empty one is left
            out: of layers that the network has and never runs.
    """
    found = {}
    for name, value in weights.items():
        kind, _, path = name.partition("/")
        module, _, leaf = path.rpartition("/")
        if kind == "state":
            module, _, average = module.rpartition("/~/")
            if leaf != "average":  # a counter, and the sum before its bias is removed
                continue
            leaf = AVERAGES.get(average, leaf)
        elif kind != "params":
            continue
        target = _rename(module, modules)
        if target is None:
            found[name] = value
        elif target:
            # Norms are flattened: some versions of Haiku keep [1, 1, 1, C].
            found[f"{target}.{LEAVES.get(leaf, leaf)}"] = _transpose(value) if leaf == "w" else value.flatten()
    return found


def _rename(module: str, modules: Mapping[str, str]) -> str | None:
    for pattern, target in modules.items():
        if match := re.fullmatch(pattern, module):
            return match.expand(target)
    return None


def _transpose(kernel: Tensor) -> Tensor:
    """A kernel [..., in, out] as [out, in, ...]; of 3-D convolutions over one frame as that of a 2-D convolution."""
    if kernel.ndim == 5:
        kernel = kernel[0]
    return kernel.permute(-1, -2, *range(kernel.ndim - 2)).contiguous()
