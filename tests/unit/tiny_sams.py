"""Small SAMs for tests: the package's networks, with weights from a recipe, and the package's own way to run them."""

from __future__ import annotations

import functools
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports timm by names that timm is about to drop
    import segment_anything_hq as package

modeling = package.modeling
CHANNELS = 32
VIT = {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 3, "window_size": 3, "global_attn_indexes": (1,)}
# The package's TinyViT insists on images of 1024 pixels, on 256 channels at its end, and on 320 in its last stage.
TINY_VIT = {
    "img_size": 1024,
    "embed_dims": [4, 8, 12, 320],
    "depths": [1, 1, 2, 1],
    "num_heads": [1, 1, 2, 4],
    "window_sizes": [1, 4, 7, 5],
}


def make_sam(encoder: str, hq: bool) -> modeling.Sam:
    """A network of the package in evaluation mode, encoder "ViT" or "TinyViT", with weights from `fill`."""
    if encoder == "ViT":
        norm = functools.partial(nn.LayerNorm, eps=1e-6)
        image_encoder = modeling.ImageEncoderViT(**VIT, out_chans=CHANNELS, norm_layer=norm, use_rel_pos=True)
        channels, early = CHANNELS, VIT["embed_dim"]
    else:
        image_encoder = modeling.TinyViT(**TINY_VIT, drop_path_rate=0.0)
        channels, early = 256, TINY_VIT["embed_dims"][2]
    side = image_encoder.img_size // 16
    prompt_encoder = modeling.PromptEncoder(channels, (side, side), (side * 16, side * 16), mask_in_chans=8)
    sizes = {
        "transformer_dim": channels,
        "transformer": modeling.TwoWayTransformer(depth=2, embedding_dim=channels, num_heads=8, mlp_dim=24),
        "iou_head_depth": 2,
        "iou_head_hidden_dim": 40,
    }
    decoder = modeling.MaskDecoderHQ(**sizes, vit_dim=early) if hq else modeling.MaskDecoder(**sizes)
    sam = modeling.Sam(image_encoder, prompt_encoder, decoder)
    fill(sam)
    return sam.eval()


def fill(network: nn.Module) -> None:
    """Weights that depend on their names only: noise over the root of the fan-in, scales near 1, shifts near 0."""
    for name, values in network.state_dict().items():
        if not values.is_floating_point():
            continue
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(values.shape).astype(np.float32)
        if name.endswith("running_var"):
            noise = np.ones_like(noise)
        elif values.ndim == 1:
            noise = 0.1 * noise + name.endswith("weight")
        elif "gaussian" not in name and "rel_pos" not in name:
            noise *= 1.5 / np.sqrt(np.prod(values.shape[1:]))
        values.copy_(torch.from_numpy(noise))


def make_confident(sam: modeling.Sam) -> None:
    """Let a network expect good masks, and draw small ones with sharp edges, so that it proposes some."""
    head = sam.mask_decoder.iou_prediction_head.layers[-1]
    head.weight.data *= 0.01
    head.bias.data += 0.95
    for mlp in sam.mask_decoder.output_hypernetworks_mlps:
        mlp.layers[-1].bias.data -= 1
        for parameter in mlp.layers[-1].parameters():
            parameter.data *= 1000


def save(sam: modeling.Sam, path: Path) -> Path:
    """Its state dict, as its authors publish theirs."""
    torch.save(sam.state_dict(), path)
    return path
