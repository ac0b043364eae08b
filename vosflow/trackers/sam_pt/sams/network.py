"""The networks of the package segment-anything-hq, built to the shapes of their weights.

Nothing but the weights is needed: every size follows from a shape, except the number of heads in the decoder's
attention, which is 8 in all published ones, and the offset in layer normalisations.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from vosflow.errors import VosflowError
from vosflow.trackers.sam_pt.sams.attention import fuse_attention
from vosflow.trackers.sam_pt.sams.tiny_vit import speed_up
from vosflow.trackers.state_dict import check_finite, list_differences, read_state_dict

if TYPE_CHECKING:
    from segment_anything_hq.modeling import Sam

DECODER_HEADS = 8
DECODER_DOWNSAMPLING = 2  # of the channels in the decoder's attention between tokens and image
TINY_VIT_IMAGE_SIZE = 1024  # the package's TinyViT takes no other
HQ_TOKEN = "mask_decoder.hf_token.weight"
# (channels, blocks) of the image encoders that were published; TinyViT: of its four stages
PUBLISHED = {
    (768, 12): "ViT-B",
    (1024, 24): "ViT-L",
    (1280, 32): "ViT-H",
    ((64, 128, 160, 320), (2, 2, 6, 2)): "TinyViT",
}

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Kind:
    """Which SAM weights are for.

    Attributes:
        family: "SAM" or "HQ-SAM".
        encoder: "ViT" or "TinyViT".
        size: "ViT-B" and so on if it is one of the published sizes.
    """

    family: str
    encoder: str
    size: str | None

    def __str__(self) -> str:
        return f"{self.family} {self.size or f'with a {self.encoder} of a size of its own'}"

    def may_stand_for(self, name: str) -> bool:
        """Whether these are weights of `name`, such as "HQ-SAM ViT-B", or of a network like it in a size of its own."""
        return name == str(self) if self.size else name.startswith(f"{self.family} {self.encoder}")


def load_network(path: str | Path, wanted: str) -> Sam:
    """The network that the weights in a file belong to, in evaluation mode on the CPU.

    Args:
        wanted: what it must be, such as "HQ-SAM ViT-B": weights of another published size, of another family or with
            another image encoder are refused, those of a size of one's own are not.

    Raises:
        VosflowError: the file is missing, damaged, not finite, holds the weights of something else, or not all of them.
    """
    weights = read_state_dict(path, wanted, under="model")
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    try:
        kind = identify(shapes)
        network = build(shapes) if kind.may_stand_for(wanted) else None
    except (KeyError, IndexError, ValueError, ZeroDivisionError, AssertionError) as error:
        raise VosflowError(
            f"the checkpoint holds no complete SAM (looking for {error})",
            path=path,
            expected=f"the state dict of {wanted}, with the names of parameters that its authors use",
            remedy="fetch the file anew (python scripts/fetch.py --list names all), or correct the path",
        ) from error
    if network is None:
        raise VosflowError(
            f"wrong checkpoint: these are weights of {kind}, and {wanted} was asked for",
            path=path,
            expected=f"weights of {wanted}",
            remedy="name the SAM that the weights are for, or weights that are for this SAM",
        )
    if differences := list_differences(weights, network.state_dict()):
        raise VosflowError(
            f"the checkpoint does not fit {kind} ({differences})",
            path=path,
            expected=f"all weights of {wanted} and nothing else, under the names that its authors use",
            remedy="fetch the file anew, or save the state dict of the whole network",
        )
    check_finite(weights, path)
    network.load_state_dict(weights, assign=True)
    network.requires_grad_(False).eval()
    if kind.encoder == "TinyViT":
        speed_up(network.image_encoder)
    return network


def identify(shapes: Shapes) -> Kind:
    """Which SAM a state dict is of. Raises KeyError, naming a parameter, if it is of none."""
    family = "HQ-SAM" if HQ_TOKEN in shapes else "SAM"
    if "image_encoder.patch_embed.seq.0.c.weight" in shapes:
        sizes = _tiny_vit_sizes(shapes)
        return Kind(family, "TinyViT", PUBLISHED.get((tuple(sizes["embed_dims"]), tuple(sizes["depths"]))))
    channels = shapes["image_encoder.pos_embed"][3]
    return Kind(family, "ViT", PUBLISHED.get((channels, _count(shapes, "image_encoder.blocks."))))


def build(shapes: Shapes) -> Sam:
    """A network of these sizes. Its parameters are unset, but for TinyViT's, which the package insists on."""
    package = _package()
    if "image_encoder.pos_embed" in shapes:
        encoder = _vit(package.ImageEncoderViT, shapes)
        side = shapes["image_encoder.pos_embed"][1]
    else:
        encoder = package.TinyViT(img_size=TINY_VIT_IMAGE_SIZE, drop_path_rate=0.0, **_tiny_vit_sizes(shapes))
        side = TINY_VIT_IMAGE_SIZE // 16
    channels = shapes["mask_decoder.iou_token.weight"][1]
    with torch.device("meta"):
        prompt_encoder = package.PromptEncoder(
            embed_dim=channels,
            image_embedding_size=(side, side),
            input_image_size=(encoder.img_size, encoder.img_size),
            mask_in_chans=shapes["prompt_encoder.mask_downscaling.3.weight"][0],
        )
        decoder = _decoder(package, shapes, channels)
    return package.Sam(encoder, prompt_encoder, decoder)


def _vit(build: Callable[..., nn.Module], shapes: Shapes) -> nn.Module:
    _, side, _, channels = shapes["image_encoder.pos_embed"]
    blocks = _count(shapes, "image_encoder.blocks.")
    patch = shapes["image_encoder.patch_embed.proj.weight"][2]
    # A table of relative positions has 2 s - 1 rows for attention over s x s tokens.
    spans = [(shapes[f"image_encoder.blocks.{i}.attn.rel_pos_h"][0] + 1) // 2 for i in range(blocks)]
    with torch.device("meta"):
        encoder = build(
            img_size=side * patch,
            patch_size=patch,
            embed_dim=channels,
            depth=blocks,
            num_heads=channels // shapes["image_encoder.blocks.0.attn.rel_pos_h"][1],
            mlp_ratio=shapes["image_encoder.blocks.0.mlp.lin1.weight"][0] / channels,
            out_chans=shapes["image_encoder.neck.0.weight"][0],
            norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=min(spans),
            global_attn_indexes=tuple(i for i, span in enumerate(spans) if span == side),
        )
    fuse_attention(encoder)
    return encoder


def _tiny_vit_sizes(shapes: Shapes) -> dict[str, list[int]]:
    """Channels, blocks, heads and windows of the four stages. The first one has convolutions only."""
    stages = range(_count(shapes, "image_encoder.layers."))
    biases = [shapes[f"image_encoder.layers.{i}.blocks.0.attn.attention_biases"] for i in stages[1:]]
    return {
        "embed_dims": [
            shapes["image_encoder.layers.0.blocks.0.conv1.c.weight"][1],
            *(shapes[f"image_encoder.layers.{i}.blocks.0.attn.norm.weight"][0] for i in stages[1:]),
        ],
        "depths": [_count(shapes, f"image_encoder.layers.{i}.blocks.") for i in stages],
        "num_heads": [1, *(heads for heads, _ in biases)],
        # one bias per pair of distances, (0 ... window - 1) in x and y
        "window_sizes": [1, *(round(distances**0.5) for _, distances in biases)],
    }


def _decoder(package: object, shapes: Shapes, channels: int) -> nn.Module:
    transformer = package.TwoWayTransformer(
        depth=_count(shapes, "mask_decoder.transformer.layers."),
        embedding_dim=channels,
        num_heads=DECODER_HEADS,
        mlp_dim=shapes["mask_decoder.transformer.layers.0.mlp.lin1.weight"][0],
        attention_downsample_rate=DECODER_DOWNSAMPLING,
    )
    sizes = {
        "transformer_dim": channels,
        "transformer": transformer,
        "num_multimask_outputs": shapes["mask_decoder.mask_tokens.weight"][0] - 1,
        "iou_head_depth": _count(shapes, "mask_decoder.iou_prediction_head.layers."),
        "iou_head_hidden_dim": shapes["mask_decoder.iou_prediction_head.layers.0.weight"][0],
    }
    if HQ_TOKEN not in shapes:
        return package.MaskDecoder(**sizes)
    return package.MaskDecoderHQ(**sizes, vit_dim=shapes["mask_decoder.compress_vit_feat.0.weight"][0])


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbers follow `prefix` in the names of parameters. Raises KeyError if there is none."""
    numbers = {name.removeprefix(prefix).partition(".")[0] for name in shapes if name.startswith(prefix)}
    if not numbers:
        raise KeyError(prefix + "0")
    return len(numbers)


def _package() -> object:
    """The package's networks. Its TinyViT imports timm by outdated names, and registers its sizes there anew."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import segment_anything_hq.modeling as package
    except ImportError as error:
        raise VosflowError(
            f"the package segment-anything-hq, which holds the networks of all SAMs, cannot be imported ({error})",
            expected="the environment of envs/, which has it, and timm",
            remedy="install both as envs/requirements-no-deps.txt says",
        ) from error
    return package
