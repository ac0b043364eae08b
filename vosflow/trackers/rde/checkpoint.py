"""From weights on disk to a network of RDE-VOS."""

from __future__ import annotations

import torch
from torch import Tensor

from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.rde.network import RdeNetwork
from vosflow.trackers.state_dict import check_finite, list_differences, read_state_dict

STEM = "value_encoder.conv1.weight"  # [width, image 3 + mask 1 + the others' masks 1, 7, 7]
KEYS = "key_proj.key_proj.weight"
COMPRESSION = "mem_compress."  # SAM


def build_network(checkpoint: Checkpoint, mode: str) -> tuple[RdeNetwork, list[str]]:
    """The network whose weights these are, in evaluation mode, on the CPU.

    Its width is that of the weights. Every tensor must be there, none else, and each of the right shape. Weights of
    training stage 0 (static images) and of STCN, which lack SAM, are for mode stm alone. In those of stage 0, which
    take no other objects' masks, that input is added with zeros: it changes nothing of what they compute.

    Returns:
        The network, and what is to be remarked of the weights.

    Raises:
        VosflowError: weights missing, damaged, of another network, not finite, or without what `mode` needs.
    """
    weights = read_state_dict(checkpoint.path, "RDE-VOS", under="network")
    if unusable := [name for name in (STEM, KEYS) if name not in weights or weights[name].ndim != 4]:
        raise _wrong(checkpoint, f"no usable {unusable[0]}")
    compresses = any(name.startswith(COMPRESSION) for name in weights)
    if not compresses and mode != "stm":
        raise VosflowError(
            f"the checkpoint has no SAM ({COMPRESSION}*), which compresses the memory in mode {mode}: it is one of "
            + ("training stage 0" if weights[STEM].shape[1] == 4 else "STCN, or of training stage 0"),
            path=checkpoint.path,
            expected="weights of training stage 1, 2 or 3, such as model_s012_final.pth or model_s03_final.pth",
            remedy="use these, or mode: stm (--set mode=stm), which keeps all remembered frames and needs no SAM",
        )
    remarks = _add_other_masks(weights)
    # Built without memory, then given the tensors read: nothing is initialised at random, nothing can stay so.
    with torch.device("meta"):
        network = RdeNetwork(len(weights[STEM]), len(weights[KEYS]), compresses=compresses)
    if differences := list_differences(weights, network.state_dict()):
        raise _wrong(checkpoint, differences)
    check_finite(weights, checkpoint.path)
    network.load_state_dict(weights, assign=True)
    if mode == "stm":
        network.mem_compress = None  # else it would be compiled, and lie in the GPU's memory, for nothing
    return network.eval().requires_grad_(False), remarks


def _add_other_masks(weights: dict[str, Tensor]) -> list[str]:
    stem = weights[STEM]
    if stem.shape[1] != 4:
        return []
    weights[STEM] = torch.cat([stem, torch.zeros_like(stem[:, :1])], dim=1)
    return ["weights of training stage 0 (4 input channels): each object is tracked without the others' masks"]


def _wrong(checkpoint: Checkpoint, how: str) -> VosflowError:
    return VosflowError(
        f"the checkpoint does not fit the network of RDE-VOS ({how})",
        path=checkpoint.path,
        expected="a state dict of 435 tensors, as the authors publish, or of a narrower network trained here",
        remedy="fetch rde_s012, rde_s012_yv or rde_s03 of the catalog; weights trained with SE blocks (repeat > 0) "
        "are not supported",
    )
