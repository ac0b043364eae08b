"""The steps of SAM 2's network on one frame, for several objects (or hypotheses about them) at once.

They are what `SAM2Base.track_step` of the sam2 package does, taken apart: so that image features and constants are
computed once for all objects, nothing is computed that nobody reads, and several objects can share a call. With one
object at a time every number is bit by bit that of the package.

Shapes: B objects, S = image_size, s = S/4, [h, w] = S/16, C = hidden_dim, Cm = mem_dim.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

ABSENT = -1024.0  # the logit of every pixel of an object that the network holds for absent


@dataclass(frozen=True)
class Features:
    """Image features of one frame, shared by all objects.

    Attributes:
        maps: [tokens, 1, channels] of each level, the one that memory attention takes (h w tokens, C channels) last.
        positions: their sine positions, of the same shapes.
        sizes: (height, width) of the levels.
    """

    maps: list[Tensor]
    positions: list[Tensor]
    sizes: list[tuple[int, int]]

    def of(self, objects: int) -> tuple[list[Tensor], list[Tensor]]:
        """(maps, positions) repeated for a number of objects, without a copy."""
        return tuple([level.expand(-1, objects, -1) for level in levels] for levels in (self.maps, self.positions))


@dataclass(frozen=True)
class Prompted:
    """What is made of the given masks of B objects.

    Attributes:
        masks: logits, float32 [B, 1, s, s].
        memory: bfloat16 [h w, B, Cm].
        pointers: [B, C].
    """

    masks: Tensor
    memory: Tensor
    pointers: Tensor

    def split(self) -> list[Prompted]:
        """One of each object."""
        parts = (self.masks.split(1), self.memory.split(1, dim=1), self.pointers.split(1))
        return [Prompted(*part) for part in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Decoded:
    """What the decoder makes of a frame for B objects: M candidates each.

    Attributes:
        masks: logits, float32 [B, M, s, s]; `ABSENT` everywhere where the object is held for absent.
        ious: estimated IoU of each candidate, [B, M].
        tokens: output tokens of the candidates [B, M, C], or of all of them together [B, 1, C].
        object_scores: logit of being visible, [B, 1].
    """

    masks: Tensor
    ious: Tensor
    tokens: Tensor
    object_scores: Tensor

    def best(self) -> tuple[Tensor, Tensor]:
        """The masks [B, 1, s, s] with the highest estimated IoU, and their tokens [B, C]."""
        objects = torch.arange(len(self.ious), device=self.ious.device)
        best = self.ious.argmax(dim=-1)
        tokens = self.tokens[objects, best] if self.tokens.shape[1] > 1 else self.tokens[:, 0]
        return self.masks[objects, best][:, None], tokens


class Steps:
    """The network of a predictor, step by step, at one precision ("float32" or "bfloat16").

    The predictor is changed and belongs to it from then on. Every method must be called inside `computing()`.
    """

    def __init__(self, predictor: SAM2VideoPredictor, precision: str) -> None:
        self.predictor = predictor
        self.precision = precision
        self.device = predictor.device
        # The authors' predictor encodes memories object by object, where this does nothing; in a shared call it would
        # let objects influence each other.
        predictor.non_overlap_masks_for_mem_enc = False
        _keep_positions(predictor)
        if precision == "bfloat16":
            _round_weights(predictor)
        decoder = predictor.sam_mask_decoder
        self._candidates = decoder.num_multimask_outputs if predictor._use_multimask(False, None) else 1
        self._no_prompt: tuple[Tensor, Tensor, Tensor] | None = None
        self._memory_positions: Tensor | None = None
        self._rows: dict[int, Tensor] = {}

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """No gradients, and the precision asked for: float32 is not TF32, which torch allows on GPUs by default."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if self.precision == "bfloat16":
                stack.enter_context(torch.autocast(self.device.type, torch.bfloat16))
            elif self.device.type == "cuda":
                stack.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            yield

    def encode_images(self, images: Tensor) -> list[Features]:
        """Features of each of N frames, float32 [N, 3, S, S]."""
        encoded = self.predictor.forward_image(images)
        features = []
        for frame in range(len(images)):
            one = {
                key: [level[frame : frame + 1] for level in encoded[key]] for key in ("backbone_fpn", "vision_pos_enc")
            }
            features.append(Features(*self.predictor._prepare_backbone_features(one)[1:]))
        return features

    def encode_prompt(self, features: Features, masks: Tensor) -> Prompted:
        """Take `masks`, 0 or 1, float [B, 1, S, S], as those of B objects on this frame."""
        maps, positions = features.of(len(masks))
        output = self.predictor.track_step(
            frame_idx=0,
            is_init_cond_frame=True,
            current_vision_feats=maps,
            current_vision_pos_embeds=positions,
            feat_sizes=features.sizes,
            point_inputs=None,
            mask_inputs=masks,
            output_dict={},
            num_frames=1,
            run_mem_encoder=False,
        )
        logits, scores = output["pred_masks"], output["object_score_logits"]
        # The memory is made from the stride-4 logits, not from the mask itself: this is how the authors' code does it.
        memory = self.encode_memory(features, logits, scores, from_prompt=True)
        return Prompted(logits, memory, output["obj_ptr"])

    def attend(self, features: Features, memory: Tensor, positions: Tensor, pointer_tokens: int) -> Tensor:
        """Image features that know the memory: the input of the decoder, [B, C, h, w].

        Args:
            memory: [L, B, Cm]: tokens of frames, then `pointer_tokens` tokens of object pointers.
            positions: what is added to the keys, [L, B, Cm].
        """
        maps, own_positions = features.of(memory.shape[1])
        attended = self.predictor.memory_attention(
            curr=maps[-1:],
            curr_pos=own_positions[-1:],
            memory=memory,
            memory_pos=positions,
            num_obj_ptr_tokens=pointer_tokens,
        )  # [h w, B, C]
        return attended.permute(1, 2, 0).unflatten(2, features.sizes[-1])

    def decode(self, features: Features, pixels: Tensor) -> Decoded:
        """Masks from image features that know the memory, [B, C, h, w], by the decoder without any prompt."""
        sparse, dense, positions = self._embed_no_prompt()
        high_res = [
            level.permute(1, 2, 0).unflatten(2, size) for level, size in zip(features.maps, features.sizes, strict=True)
        ]
        masks, ious, tokens, scores = self.predictor.sam_mask_decoder(
            image_embeddings=pixels,
            image_pe=positions,
            sparse_prompt_embeddings=sparse.expand(len(pixels), -1, -1),
            dense_prompt_embeddings=dense,
            multimask_output=self._candidates > 1,
            repeat_image=False,
            high_res_features=high_res[:-1] or None,
        )
        if self.predictor.pred_obj_scores:
            masks = torch.where(scores[:, :, None, None] > 0, masks, ABSENT)
        return Decoded(masks.float(), ious, tokens, scores)

    def pointers(self, tokens: Tensor, object_scores: Tensor) -> Tensor:
        """Object pointers [B, C] of the decoder's tokens [B, C], given the logits [B, 1] of being visible."""
        predictor = self.predictor
        pointers = predictor.obj_ptr_proj(tokens)
        if not predictor.pred_obj_scores:
            return pointers
        visible = object_scores.sigmoid() if predictor.soft_no_obj_ptr else (object_scores > 0).float()
        if predictor.fixed_no_obj_ptr:
            pointers = visible * pointers
        return pointers + (1 - visible) * predictor.no_obj_ptr

    def encode_memory(
        self, features: Features, masks: Tensor, object_scores: Tensor, *, from_prompt: bool = False
    ) -> Tensor:
        """The memory of a frame, bfloat16 [h w, B, Cm], from the objects' logits [B, 1, s, s] and visibility [B, 1]."""
        maps, _ = features.of(len(masks))
        memory, positions = self.predictor._encode_new_memory(
            current_vision_feats=maps,
            feat_sizes=features.sizes,
            pred_masks_high_res=self._enlarge(masks, channels=1 if from_prompt else self._candidates),
            object_score_logits=object_scores,
            is_mask_from_pts=from_prompt,
        )  # [B, Cm, h, w]
        if self._memory_positions is None:
            self._memory_positions = positions[-1][:1].flatten(2).permute(2, 0, 1).clone()  # [h w, 1, Cm]
        return memory.to(torch.bfloat16).flatten(2).permute(2, 0, 1)

    def spatial_positions(self, row: int) -> Tensor:
        """Positions of a frame's memory in space and time, [h w, 1, Cm]; some memory must have been encoded before.

        Args:
            row: 0 for the frame before, 1 for the one before that, ..., num_maskmem-1 for prompted frames.
        """
        if row not in self._rows:
            self._rows[row] = self._memory_positions + self.predictor.maskmem_tpos_enc[row]
        return self._rows[row]

    def attended(
        self, memories: Sequence[tuple[Tensor, int]], pointers: Sequence[tuple[Tensor, int]], longest: int
    ) -> tuple[Tensor, Tensor]:
        """What one object's view of a frame attends to: tokens and their positions, [L, 1, Cm] each.

        Args:
            memories: (memory of a frame [h w, 1, Cm], row of its positions), see `spatial_positions`.
            pointers: (object pointer [1, C], distance in frames); there may be none.
            longest: see `pointer_positions`.
        """
        tokens = [memory for memory, _ in memories]
        positions = [self.spatial_positions(row) for _, row in memories]
        if pointers:
            tokens.append(self.pointer_tokens(torch.stack([pointer for pointer, _ in pointers])))
            positions.append(self.pointer_positions([distance for _, distance in pointers], longest))
        return torch.cat(tokens), torch.cat(positions)

    @property
    def tokens_per_pointer(self) -> int:
        """How many tokens of memory an object pointer is cut into, C/Cm."""
        return self.predictor.hidden_dim // self.predictor.mem_dim

    def pointer_tokens(self, pointers: Tensor) -> Tensor:
        """P pointers of each object, [P, B, C], as tokens of memory, [P * C/Cm, B, Cm]."""
        parts = pointers.unflatten(2, (-1, self.predictor.mem_dim))  # [P, B, C/Cm, Cm]
        return parts.permute(0, 2, 1, 3).flatten(0, 1)

    def pointer_positions(self, distances: Sequence[int], longest: int) -> Tensor:
        """Positions in time of the tokens of object pointers, [P * C/Cm, 1, Cm].

        Args:
            distances: in frames, of the P pointers.
            longest: how many pointers are attended to at most, min(frames of the video, max_obj_ptrs_in_encoder).
        """
        from sam2.modeling.sam2_utils import get_1d_sine_pe

        predictor = self.predictor
        if not predictor.add_tpos_enc_to_obj_ptrs:
            return torch.zeros(len(distances) * self.tokens_per_pointer, 1, predictor.mem_dim, device=self.device)
        channels = predictor.hidden_dim if predictor.proj_tpos_enc_in_obj_ptrs else predictor.mem_dim
        scaled = torch.tensor(distances).to(self.device, non_blocking=True) / (longest - 1)
        projected = predictor.obj_ptr_tpos_proj(get_1d_sine_pe(scaled, dim=channels))  # [P, Cm]
        return projected[:, None].repeat_interleave(self.tokens_per_pointer, dim=0)

    def _enlarge(self, masks: Tensor, *, channels: int) -> Tensor:
        """Logits [B, 1, s, s] at full size, [B, 1, S, S].

        The authors' code enlarges all candidates of the decoder and then takes the best. On a CPU the last bits depend
        on the number of channels: copies of the one mask stand for the candidates.
        """
        size = (self.predictor.image_size, self.predictor.image_size)
        repeated = masks.repeat(1, channels, 1, 1)
        return F.interpolate(repeated, size=size, mode="bilinear", align_corners=False)[:, :1]

    def _embed_no_prompt(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the decoder gets without a prompt: sparse [1, 2, C] and dense [1, C, h, w], positions [1, C, h, w]."""
        if self._no_prompt is None:
            encoder = self.predictor.sam_prompt_encoder
            # A point labelled -1 is how the authors' code says "no point".
            coordinates = torch.zeros(1, 1, 2, device=self.device)
            labels = -torch.ones(1, 1, dtype=torch.int32, device=self.device)
            sparse, dense = encoder(points=(coordinates, labels), boxes=None, masks=None)
            self._no_prompt = sparse, dense, encoder.get_dense_pe()
        return self._no_prompt


class KnownPositions(nn.Module):
    """Sine positions that are computed once for each size, where the sam2 package copies them at each call."""

    def __init__(self, compute: nn.Module) -> None:
        super().__init__()
        self._compute = compute
        self._known: dict[tuple[int, int], Tensor] = {}

    def forward(self, features: Tensor) -> Tensor:
        """Positions [B, C, H, W] for features of this size."""
        size = tuple(features.shape[-2:])
        if size not in self._known:
            self._known[size] = self._compute(features[:1])
        return self._known[size].expand(len(features), -1, -1, -1)


def _keep_positions(predictor: SAM2VideoPredictor) -> None:
    """Have everything that depends only on the size of images computed once, and not for every frame."""
    trunk, neck, encoder = predictor.image_encoder.trunk, predictor.image_encoder.neck, predictor.memory_encoder
    trunk._get_pos_embed = functools.cache(trunk._get_pos_embed)  # resized bicubically
    neck.position_encoding = KnownPositions(neck.position_encoding)
    encoder.position_encoding = KnownPositions(encoder.position_encoding)


def _round_weights(predictor: SAM2VideoPredictor) -> None:
    """Round the weights that automatic mixed precision would round: it forgets them after every frame."""
    for module in predictor.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.bfloat16()
