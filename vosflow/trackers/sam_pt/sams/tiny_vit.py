"""TinyViT, the image encoder of MobileSAM and Light HQ-SAM, made faster: same numbers but for the last bits.

Batch normalisations become part of the convolutions before them, maps are channels last, attention is one fused call.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from segment_anything_hq.modeling import TinyViT
    from segment_anything_hq.modeling.tiny_vit_sam import Attention


def speed_up(encoder: TinyViT) -> None:
    """Change an encoder that has its weights and is in evaluation mode. Its parameters have other names after that."""
    _fold(encoder)
    encoder.to(memory_format=torch.channels_last)
    for layer in encoder.layers[1:]:  # the first one has convolutions only
        for block in layer.blocks:
            block.attn.forward = functools.partial(attend, block.attn)


def _fold(module: nn.Module) -> None:
    """Replace each convolution and its batch normalisation, `Conv2d_BN` of the package, by one convolution."""
    for name, child in module.named_children():
        if hasattr(child, "fuse"):
            setattr(module, name, child.fuse().requires_grad_(False).eval())
        else:
            _fold(child)


def attend(layer: Attention, tokens: Tensor) -> Tensor:
    """What `Attention.forward` of the package computes in evaluation mode: attention within windows.

    Args:
        tokens: [windows, N, C].

    Returns:
        [windows, N, C].
    """
    parts = layer.qkv(layer.norm(tokens)).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
    queries, keys, values = parts.split([layer.key_dim, layer.key_dim, layer.d], dim=-1)
    attended = F.scaled_dot_product_attention(queries, keys, values, layer.ab.to(queries.dtype), scale=layer.scale)
    return layer.proj(attended.transpose(1, 2).flatten(2))
