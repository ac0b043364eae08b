"""SAM's mask decoder for several objects on one frame: the package's weights and numbers, but for the last bits.

The package projects all image tokens anew for each object. Here
- what a mask prompt adds to the image tokens has few channels before its last projection, so the projections of the
  first layer are those of the frame, computed once, and a narrow product for each object;
- the positional encoding is projected once, with the weights;
- projections of the same tokens are one product, attention is fused, tokens stay channels last;
- of the candidate masks only the one that is asked for is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from segment_anything_hq.modeling import Sam
    from segment_anything_hq.modeling.transformer import Attention, TwoWayAttentionBlock


@dataclass(frozen=True)
class FrameTokens:
    """What the decoder computes of a frame for all prompts.

    Attributes:
        tokens: its embedding, [N, C] for N places.
        projected: of them, for the first layer of the decoder, see `Projection`.
        hq_features: [C/8, 4 h, 4 w], HQ-SAM only.
    """

    tokens: Tensor
    projected: Tensor
    hq_features: Tensor | None


class Projection:
    """Several linear layers on the image tokens as one; positions are added to the inputs of some.

    Args:
        layers: (weight [O, C], bias [O], whether positions are added) each.
        positions: of the image tokens, [N, C].
    """

    def __init__(self, layers: list[tuple[Tensor, Tensor, bool]], positions: Tensor) -> None:
        self.weight = torch.cat([weight for weight, _, _ in layers])
        self._sizes = [len(weight) for weight, _, _ in layers]
        self._constant = torch.cat(
            [F.linear(positions, weight * placed, bias) for weight, bias, placed in layers], dim=-1
        )  # [N, sum of O]

    def __call__(self, tokens: Tensor) -> Tensor:
        """[..., N, C] -> [..., N, sum of O]."""
        return _plus(F.linear(tokens, self.weight), self._constant)

    def split(self, projected: Tensor) -> tuple[Tensor, ...]:
        """The layers' outputs, [..., N, O] each."""
        return projected.split(self._sizes, dim=-1)


class Decoding:
    """The mask decoder of `network`, and what encodes its mask prompts."""

    def __init__(self, network: Sam) -> None:
        prompts, decoder = network.prompt_encoder, network.mask_decoder
        self._decoder = decoder
        self._grid = prompts.image_embedding_size
        self._is_hq = hasattr(decoder, "hf_token")
        positions = prompts.get_dense_pe()[0].flatten(1).T  # [N, C]
        transformer = decoder.transformer
        self._layers = list(transformer.layers)
        self._projections = [_of_layer(layer, positions) for layer in self._layers]
        enlarging = decoder.output_upscaling
        self._enlarge = [_as_linear(enlarging[0]), _as_linear(enlarging[3])]
        final = transformer.final_attn_token_to_image
        self._final = Projection([_key(final), _value(final), (*self._enlarge[0], False)], positions)
        # A mask prompt: convolutions, then a 1 x 1 one, which is taken together with the first layer's projections.
        *narrow, widening = prompts.mask_downscaling
        self._narrow = nn.Sequential(*narrow)
        weight, bias = widening.weight.flatten(1), widening.bias
        first = self._projections[0].weight
        self._mask_tokens = weight, bias
        self._mask_projected = first @ weight, first @ bias
        nothing = prompts.no_mask_embed.weight[0]
        self._no_mask = nothing, first @ nothing

    def prepare(self, embedding: Tensor, hq_features: Tensor | None) -> FrameTokens:
        """Of an embedding [C, h, w]."""
        tokens = embedding.flatten(1).T.contiguous()
        return FrameTokens(tokens, self._projections[0](tokens), hq_features)

    def decode(self, frame: FrameTokens, sparse: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """The masks for prompts that leave no doubt.

        Args:
            sparse: embeddings of points and boxes, [B, P, C].
            masks: mask prompts [B, 1, 4 h, 4 w].

        Returns:
            Logits [B, 1, 4 h, 4 w] and expected IoU [B].
        """
        if sparse.device.type != "cpu":
            return self._decode(frame, sparse, masks)
        # A CPU is a third faster on what fits into its caches: one object at a time.
        prompts = [(sparse[b : b + 1], None if masks is None else masks[b : b + 1]) for b in range(len(sparse))]
        low_res, iou = zip(*(self._decode(frame, *prompt) for prompt in prompts), strict=True)
        return torch.cat(low_res), torch.cat(iou)

    def _decode(self, frame: FrameTokens, sparse: Tensor, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        image, projected = self._with_masks(frame, masks)
        decoder, batch = self._decoder, len(sparse)
        own = [decoder.iou_token.weight, decoder.mask_tokens.weight]
        own += [decoder.hf_token.weight] if self._is_hq else []
        prompt = torch.cat([torch.cat(own).expand(batch, -1, -1), sparse], dim=1)
        tokens = prompt
        for number, (layer, projection) in enumerate(zip(self._layers, self._projections, strict=True)):
            if number:
                projected = projection(image)
            keys, values, queries = projection.split(projected)
            tokens = _attend_tokens(layer, tokens, prompt)
            tokens = layer.norm2(tokens + _look(layer.cross_attn_token_to_image, tokens + prompt, keys, values))
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            image = layer.norm4(_plus(_answer(layer.cross_attn_image_to_token, queries, tokens, prompt), image))
        keys, values, enlarged = self._final.split(self._final(image))
        final = decoder.transformer.final_attn_token_to_image
        tokens = decoder.transformer.norm_final_attn(tokens + _look(final, tokens + prompt, keys, values))
        return self._draw(enlarged, tokens, frame.hq_features), decoder.iou_prediction_head(tokens[:, 0])[:, 0]

    def _with_masks(self, frame: FrameTokens, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """Image tokens with mask prompts, [B, N, C] ([N, C] without any), and their projections."""
        if masks is None:
            return frame.tokens + self._no_mask[0], (frame.projected + self._no_mask[1])[None]
        narrow = self._narrow(masks).flatten(2).mT  # [B, N, few]
        parts = (self._mask_tokens, frame.tokens), (self._mask_projected, frame.projected)
        image, projected = (_plus(F.linear(narrow, *layer), of_frame) for layer, of_frame in parts)
        return image, projected

    def _draw(self, enlarged: Tensor, tokens: Tensor, hq_features: Tensor | None) -> Tensor:
        """Logits [B, 1, 4 h, 4 w] from image tokens, already [B, N, 4 x channels], and the decoder's tokens."""
        decoder, (height, width) = self._decoder, self._grid
        norm = decoder.output_upscaling[1]
        enlarged = enlarged.unflatten(-1, (4, -1))
        enlarged = F.gelu(F.layer_norm(enlarged, enlarged.shape[-1:], norm.weight, norm.bias, norm.eps))
        enlarged = F.gelu(F.linear(enlarged, *self._enlarge[1])).unflatten(-1, (4, -1))  # [B, N, 4, 4, C/8]
        mask = decoder.output_hypernetworks_mlps[0](tokens[:, 1])  # [B, C/8]
        logits = torch.einsum("bnijc,bc->bnij", enlarged, mask)[..., None]
        logits = _interleave(logits, height, width)
        if not self._is_hq:
            return logits
        hq_mask = decoder.hf_mlp(tokens[:, 1 + len(decoder.mask_tokens.weight)])
        return logits + self._draw_hq(_interleave(enlarged, height, width), hq_mask, hq_features)

    def _draw_hq(self, enlarged: Tensor, mask: Tensor, hq_features: Tensor) -> Tensor:
        """What HQ-SAM adds: its last convolution and the product with the mask's token are one convolution."""
        *first, last = self._decoder.embedding_maskfeature
        for layer in first:
            enlarged = layer(enlarged)
        kernels = torch.einsum("bo,ockl->bckl", mask, last.weight)
        parts = [F.conv2d(enlarged[b : b + 1], kernels[b : b + 1], padding=last.padding) for b in range(len(mask))]
        constant = torch.einsum("bo,ohw->bhw", mask, hq_features + last.bias[:, None, None])
        return torch.cat(parts) + constant[:, None]


def _of_layer(layer: TwoWayAttentionBlock, positions: Tensor) -> Projection:
    """Image tokens as keys and values of the tokens' attention, and as queries of their own."""
    back = layer.cross_attn_image_to_token.q_proj
    looking = layer.cross_attn_token_to_image
    return Projection([_key(looking), _value(looking), (back.weight, back.bias, True)], positions)


def _key(layer: Attention) -> tuple[Tensor, Tensor, bool]:
    return layer.k_proj.weight, layer.k_proj.bias, True


def _value(layer: Attention) -> tuple[Tensor, Tensor, bool]:
    return layer.v_proj.weight, layer.v_proj.bias, False


def _as_linear(layer: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """A transposed convolution of kernel and stride 2 gives each place 2 x 2: weight [4 x O, C] and bias [4 x O]."""
    return layer.weight.permute(2, 3, 1, 0).flatten(0, 2), layer.bias.repeat(4)


def _interleave(parts: Tensor, height: int, width: int) -> Tensor:
    """Values of 2 x 2 parts of 2 x 2 parts of h x w places, [B, h w, 4, 4, C] -> [B, C, 4 h, 4 w]."""
    batch, _, _, _, channels = parts.shape
    parts = parts.reshape(batch, height, width, 2, 2, 2, 2, channels)
    return parts.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(batch, channels, 4 * height, 4 * width)


def _attend_tokens(layer: TwoWayAttentionBlock, tokens: Tensor, prompt: Tensor) -> Tensor:
    """Self-attention of the decoder's tokens; the first layer has them without their embedding, and nothing to add."""
    if layer.skip_first_layer_pe:
        return layer.norm1(layer.self_attn(q=tokens, k=tokens, v=tokens))
    placed = tokens + prompt
    return layer.norm1(tokens + layer.self_attn(q=placed, k=placed, v=tokens))


def _look(layer: Attention, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Tokens attend to the image, whose keys and values are projected already."""
    return layer.out_proj(_attend(layer.q_proj(tokens), keys, values, layer.num_heads))


def _answer(layer: Attention, queries: Tensor, tokens: Tensor, prompt: Tensor) -> Tensor:
    """The image, whose queries are projected already, attends to tokens."""
    keys, values = layer.k_proj(tokens + prompt), layer.v_proj(tokens)
    return layer.out_proj(_attend(queries, keys, values, layer.num_heads))


def _plus(new: Tensor, other: Tensor) -> Tensor:
    """The sum, in place of `new` unless that would round it: fresh memory costs more than the sum."""
    return new.add_(other) if new.dtype == other.dtype and new.numel() >= other.numel() else new + other


def _attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """[B, Q, I], [B, K, I], [B, K, I] -> [B, Q, I]; B may be 1 in those of the image."""
    batch = max(len(queries), len(keys))
    parts = [x.to(values.dtype).expand(batch, -1, -1).unflatten(-1, (heads, -1)) for x in (queries, keys, values)]
    return F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts)).transpose(1, 2).flatten(2)
