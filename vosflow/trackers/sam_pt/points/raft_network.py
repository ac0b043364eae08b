"""Optical flow by RAFT (Teed and Deng, ECCV 2020, arXiv 2003.12039): torchvision's network, the authors' weights.

What depends on one frame alone is computed once per frame, what is the same in all iterations once before them, and the
flow is brought to full resolution once after them.

Shapes: B pairs of frames, [H, W] divisible by 8, [h, w] = [H/8, W/8].
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.optical_flow import RAFT, raft_large
from torchvision.models.optical_flow._utils import make_coords_grid, upsample_flow

from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam_pt.points.networks import StateDict, load_network, to_image

STRIDE = 8
HIDDEN = 128  # channels of the context encoder that start the recurrent unit; the others are its context
CORRELATION_BYTES = 3 * 2**29  # of all pairs of places, for the frame pairs of one call

# From the authors' names of parameters to torchvision's; `norm3` is a second name of `downsample.1`.
NAMES = (
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    (r"^(\w+_encoder)\.conv1\.", r"\1.convnormrelu.0."),
    (r"^(\w+_encoder)\.norm1\.", r"\1.convnormrelu.1."),
    (r"^(\w+_encoder)\.conv2\.", r"\1.conv."),
    (r"\.(layer\d\.\d)\.conv(\d)\.", r".\1.convnormrelu\2.0."),
    (r"\.(layer\d\.\d)\.norm([12])\.", r".\1.convnormrelu\2.1."),
    (r"^update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"^update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"^update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"^update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)


def load_raft(checkpoint: Checkpoint) -> RAFT:
    """RAFT on the CPU, with weights by the authors' names (raft-things.pth) or by torchvision's.

    Raises:
        VosflowError: weights missing, damaged, not finite, or of another network, such as RAFT's small one.
    """
    return load_network(raft_large, checkpoint, "RAFT", rename=_rename)


def _rename(weights: StateDict) -> StateDict:
    if not any(name.startswith("fnet.") for name in weights):
        return weights
    renamed = {}
    for name, value in weights.items():
        if ".norm3." not in name:
            for theirs, ours in NAMES:
                name = re.sub(theirs, ours, name)
            renamed[name] = value
    return renamed


def estimate_flows(network: RAFT, frames: Sequence[np.ndarray], iters: int, device: str) -> np.ndarray:
    """Optical flow from each frame to the next.

    Args:
        frames: T of uint8 RGB [H, W, 3].
        iters: updates of the flow.

    Returns:
        float32 [T - 1, H, W, 2], (x, y) in pixels.
    """
    height, width = frames[0].shape[:2]
    padding = _padding(height, width)
    images = [F.pad(to_image(frame, device), padding, mode="replicate") for frame in frames]
    features = [network.feature_encoder(image) for image in images]  # [1, 256, h, w] each
    contexts = [network.context_encoder(image) for image in images[:-1]]
    flows = []
    at_once = _pairs_at_once(features[0], device)
    for start in range(0, len(contexts), at_once):
        stop = min(start + at_once, len(contexts))
        one, other = torch.cat(features[start:stop]), torch.cat(features[start + 1 : stop + 1])
        flow = _estimate(network, one, other, torch.cat(contexts[start:stop]), iters)
        left, _, top, _ = padding
        flow = flow[:, :, top : top + height, left : left + width]
        flows.append(flow.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(flows)


def _estimate(network: RAFT, one: Tensor, other: Tensor, context: Tensor, iters: int) -> Tensor:
    """Flow [B, 2, H, W] from features of both frames and the context [B, 256, h, w] of the first one."""
    network.corr_block.build_pyramid(one, other)
    hidden, context = context[:, :HIDDEN].tanh(), context[:, HIDDEN:].relu()
    update = network.update_block
    units = [
        _RecurrentUnit(unit, context) for unit in (update.recurrent_block.convgru1, update.recurrent_block.convgru2)
    ]
    start = make_coords_grid(len(one), *one.shape[-2:], device=one.device)  # [B, 2, h, w]
    places = start
    for _ in range(iters):
        correlations = network.corr_block.index_pyramid(places)
        motion = update.motion_encoder(places - start, correlations)
        for unit in units:
            hidden = unit(hidden, motion)
        places = places + update.flow_head(hidden)
    network.corr_block.corr_pyramid = []  # hundreds of MB
    return upsample_flow(places - start, network.mask_predictor(hidden))


class _RecurrentUnit:
    """torchvision's ConvGRU, a third of whose convolutions is done before the iterations: that over the context.

    Args:
        context: [B, 128, h, w].
    """

    def __init__(self, unit: nn.Module, context: Tensor) -> None:
        self._padding = unit.convz.padding
        self._gates = self._prepare((unit.convz, unit.convr), context)
        self._candidate = self._prepare((unit.convq,), context)

    def _prepare(self, convolutions: Sequence[nn.Conv2d], context: Tensor) -> tuple[Tensor, Tensor]:
        """Weights for hidden state and motion, and what the context gives."""
        weight = torch.cat([convolution.weight for convolution in convolutions])
        bias = torch.cat([convolution.bias for convolution in convolutions])
        hidden, fixed, motion = weight.split(HIDDEN, dim=1)
        return torch.cat([hidden, motion], dim=1), F.conv2d(context, fixed, bias, padding=self._padding)

    def __call__(self, hidden: Tensor, motion: Tensor) -> Tensor:
        """Both [B, 128, h, w] -> the new hidden state."""
        update, reset = self._convolve(hidden, motion, *self._gates).sigmoid().chunk(2, dim=1)
        candidate = self._convolve(reset * hidden, motion, *self._candidate).tanh()
        return (1 - update) * hidden + update * candidate

    def _convolve(self, hidden: Tensor, motion: Tensor, weight: Tensor, fixed: Tensor) -> Tensor:
        return F.conv2d(torch.cat([hidden, motion], dim=1), weight, padding=self._padding) + fixed


def _padding(height: int, width: int) -> tuple[int, int, int, int]:
    """What to add on the left, right, top and bottom, as the authors do."""
    across, down = -width % STRIDE, -height % STRIDE
    return across // 2, across - across // 2, down // 2, down - down // 2


def _pairs_at_once(features: Tensor, device: str) -> int:
    """How many pairs share a call. On a CPU several take as long as one by one, and more memory."""
    places = features.shape[-2] * features.shape[-1]
    return max(1, CORRELATION_BYTES // (4 * places**2)) if device == "cuda" else 1
