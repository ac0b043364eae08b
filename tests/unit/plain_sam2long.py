"""SAM2Long done plainly, on the modules of the sam2 package: one object after another, every copy of a pathway on its
own, nothing shared, nothing forgotten. What the tracker must give, to the pixel, and what it costs without savings.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.unit.tiny_sam2 import FRAMES, build, given_masks
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam2long import Settings


class Plainly:
    """The published algorithm on the modules of the sam2 package, for one object."""

    def __init__(self, predictor: torch.nn.Module, state: dict, settings: Settings) -> None:
        self.predictor, self.state, self.settings = predictor, state, settings
        self.frames = state["num_frames"]
        self.longest = min(self.frames, predictor.max_obj_ptrs_in_encoder)
        self.evaluations = 0

    def features(self, index: int) -> tuple:
        return self.predictor._get_image_feature(self.state, index, 1)[2:]

    def track(self, start: int, mask: np.ndarray) -> dict[int, Tensor]:
        """{frame index: logits [1, 1, s, s]}."""
        rules = self.settings
        self.predictor.reset_state(self.state)
        self.features(start)  # encoded here, outside of the plain attention
        with sdpa_kernel(SDPBackend.MATH):
            self.predictor.add_new_mask(inference_state=self.state, frame_idx=start, obj_id=1, mask=mask)
            self.predictor.propagate_in_video_preflight(self.state)
        self.prompt = dict(self.state["output_dict_per_obj"][0]["cond_frame_outputs"][start], frame=start, score=10.0)
        self.prompt["positions"] = self.prompt["maskmem_pos_enc"][-1].flatten(2).permute(2, 0, 1)
        pathways, sums = [[]], [0.0]
        for index in range(start + 1, self.frames):
            self.features(index)
            with sdpa_kernel(SDPBackend.MATH):
                masks = [self.propose(index, pathway) for pathway in pathways]
                if index == start + 1:
                    ious = [mask["iou"] for mask in masks[0]]
                    first = self.remember(index, masks[0][ious.index(max(ious))])
                    pathways, sums = [[first]] * rules.num_pathway, [0.0] * rules.num_pathway
                    continue
                flat = [
                    (sums[p] + math.log(mask["iou"] + 1e-5), p, mask) for p, own in enumerate(masks) for mask in own
                ]
                flat.sort(key=lambda item: -item[0])
                alive = flat[: rules.num_pathway]
                if all(abs(own[0]["score"]) <= rules.uncertainty for own in masks):
                    alive, kinds = [], set()
                    for item in flat:
                        kind = round(math.copysign(item[2]["iou"], 1 if item[2]["score"] > 0 else -1), 2)
                        if kind not in kinds:
                            alive, kinds = [*alive, item], kinds | {kind}
                    alive = alive[: rules.num_pathway]
                    if len(alive) < rules.num_pathway:
                        represented = {p for _, p, _ in alive}
                        for p in set(range(len(masks))) - represented:
                            alive.append(next(item for item in flat if item[1] == p))
                    alive = alive[: rules.num_pathway]
                pathways = [[*pathways[p], self.remember(index, mask)] for _, p, mask in alive]
                sums = [total for total, _, _ in alive]
        logits = {step["frame"]: step["logits"] for step in pathways[0]}
        return {start: self.prompt["pred_masks"], **logits}

    def propose(self, index: int, pathway: list[dict]) -> list[dict]:
        self.evaluations += 1
        p, size = self.predictor, self.predictor.num_maskmem
        chosen = []
        for step in reversed(pathway):
            if step["iou"] > self.settings.iou_thre and step["score"] > 0 and len(chosen) < self.longest - 1:
                chosen.insert(0, step)
        if pathway and (not chosen or chosen[-1] is not pathway[-1]):
            chosen.append(pathway[-1])
        frames = [self.prompt, *(chosen[-(size - 1) :] if size > 1 else [])]
        pointers, distances = [self.prompt], [index - self.prompt["frame"]]
        for distance in range(1, self.longest):
            if distance < len(chosen):
                pointers, distances = [*pointers, chosen[-distance]], [*distances, distance]
        memory = [step["maskmem_features"].flatten(2).permute(2, 0, 1) for step in frames]
        rows = [size - 1, *range(len(frames) - 2, -1, -1)]
        positions = [self.prompt["positions"] + p.maskmem_tpos_enc[row] for row in rows]
        times = torch.tensor(distances) / (self.longest - 1)
        pointer_positions = p.obj_ptr_tpos_proj(get_1d_sine_pe(times, dim=p.hidden_dim))[:, None]
        parts = p.hidden_dim // p.mem_dim
        memory.append(torch.stack([step["obj_ptr"] for step in pointers]).reshape(-1, 1, p.mem_dim))
        positions.append(pointer_positions.repeat_interleave(parts, dim=0))
        weights = torch.ones(sum(map(len, memory)))
        if len(frames) > 1:
            of_frames = self.weigh(frames).repeat_interleave(len(memory[0]))
            weights = torch.cat([of_frames, self.weigh(pointers).repeat_interleave(parts)])
        maps, own_positions, sizes = self.features(index)
        pixels = self.attend(
            maps[-1], own_positions[-1], torch.cat(memory), torch.cat(positions), weights, len(memory[-1])
        )
        high_res = [
            level.permute(1, 2, 0).view(1, -1, *size) for level, size in zip(maps[:-1], sizes[:-1], strict=True)
        ]
        tokens = []
        watch = p.sam_mask_decoder.register_forward_hook(lambda *call: tokens.append(call[-1][2]))
        pixels = pixels.permute(1, 2, 0).view(1, -1, *sizes[-1])
        low, high, ious, *_, score = p._forward_sam_heads(pixels, high_res_features=high_res, multimask_output=True)
        watch.remove()
        there = (score > 0).float()
        return [
            {
                "logits": low[:, j : j + 1],
                "high": high[:, j : j + 1],
                "iou": ious[0, j].item(),
                "score": score.item(),
                "obj_ptr": there * p.obj_ptr_proj(tokens[0][:, j]) + (1 - there) * p.no_obj_ptr,
            }
            for j in range(3)
        ]

    @staticmethod
    def weigh(steps: list[dict]) -> Tensor:
        ranks = torch.tensor([step["score"] for step in steps]).argsort(stable=True).argsort()
        return torch.linspace(0.95, 1.05, len(steps))[ranks]

    def attend(
        self, maps: Tensor, own: Tensor, memory: Tensor, positions: Tensor, weights: Tensor, pointer_tokens: int
    ) -> Tensor:
        """The memory attention of the package, written out, with weighted keys."""
        attention = self.predictor.memory_attention
        output, memory, positions = (
            (maps + 0.1 * own).transpose(0, 1),
            memory.transpose(0, 1),
            positions.transpose(0, 1),
        )
        for layer in attention.layers:
            normed = layer.norm1(output)
            output = output + layer.self_attn(normed, normed, v=normed)
            keys = weights[None, :, None] * (memory + positions)
            output = output + layer.cross_attn_image(
                layer.norm2(output), keys, memory, num_k_exclude_rope=pointer_tokens
            )
            output = output + layer.linear2(layer.activation(layer.linear1(layer.norm3(output))))
        return attention.norm(output).transpose(0, 1)

    def remember(self, index: int, mask: dict) -> dict:
        maps, _, sizes = self.features(index)
        score = torch.tensor([[mask["score"]]])
        features, _ = self.predictor._encode_new_memory(maps, sizes, mask["high"], score, is_mask_from_pts=False)
        return mask | {"frame": index, "maskmem_features": features.to(torch.bfloat16)}


@torch.inference_mode()
def plainly(
    clip: Path,
    masks: str,
    checkpoint: Checkpoint,
    settings: Settings,
    *,
    per_object: bool = False,
    changes: dict | None = None,
    weights: dict | None = None,
) -> tuple[dict[int, dict[int, np.ndarray]], int]:
    """({frame index: {object: mask}}, evaluations of the network)."""
    predictor = build(changes)
    predictor.load_state_dict(weights or torch.load(checkpoint.path, weights_only=True)["model"])
    state = predictor.init_state(video_path=str(clip / "frames/v"))
    prompts = given_masks(clip / masks / "v", per_object)
    ids = sorted({k for given in prompts.values() for k in given})
    size = state["video_height"], state["video_width"]
    scores = torch.full((FRAMES, len(ids), 1, *size), -1024.0)
    evaluations = 0
    for i, k in enumerate(ids):
        start = min(index for index in prompts if k in prompts[index])
        one = Plainly(predictor, state, settings)
        for index, logits in one.track(start, prompts[start][k]).items():
            scores[index, i] = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0]
        evaluations += one.evaluations
    if not per_object:
        scores = torch.stack([predictor._apply_non_overlapping_constraints(frame) for frame in scores])
    above = (scores > settings.score_thresh).numpy()
    return {t: {k: above[t, i, 0] for i, k in enumerate(ids)} for t in range(FRAMES)}, evaluations
