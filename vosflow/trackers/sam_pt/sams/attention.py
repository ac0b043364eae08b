"""Attention of SAM's ViT in one fused call.

The package writes the weights of every pair of tokens to memory, several times over: for ViT-H and 4096 tokens 1 GiB a
time. The fused kernels of torch give the same numbers but for the last bits.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from segment_anything_hq.modeling import ImageEncoderViT
    from segment_anything_hq.modeling.image_encoder import Attention


def fuse_attention(encoder: ImageEncoderViT) -> None:
    """Let all blocks of `encoder` use `attend`."""
    for block in encoder.blocks:
        block.attn.forward = functools.partial(attend, block.attn)


def attend(layer: Attention, tokens: Tensor) -> Tensor:
    """What `Attention.forward` of the package computes.

    Self-attention with decomposed relative positions (MViTv2, arXiv 2112.01526): the distances in y and in x each add
    a term that also depends on the query.

    Args:
        tokens: [B, h, w, C]; B is the number of windows where attention is within windows.

    Returns:
        [B, h, w, C].
    """
    batch, height, width, _ = tokens.shape
    projected = layer.qkv(tokens).reshape(batch, height * width, 3, layer.num_heads, -1)
    queries, keys, values = projected.permute(2, 0, 3, 1, 4)  # [B, heads, h w, c] each
    grid = queries.unflatten(2, (height, width))
    by_row = torch.einsum("bnhwc,hkc->bnhwk", grid, _by_distance(layer.rel_pos_h, height))  # [B, heads, h, w, h]
    by_column = torch.einsum("bnhwc,wkc->bnhwk", grid, _by_distance(layer.rel_pos_w, width))  # [B, heads, h, w, w]
    bias = (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)  # [B, heads, h w, h w]
    attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.to(queries.dtype))
    return layer.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))


def _by_distance(table: Tensor, side: int) -> Tensor:
    """Of a table [2 side - 1, c], the row of each pair's distance: [side, side, c], queries first."""
    places = torch.arange(side, device=table.device)
    return table[places[:, None] - places[None, :] + side - 1]
