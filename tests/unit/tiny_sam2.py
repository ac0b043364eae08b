"""A tiny SAM 2 with seeded random weights, and a clip for it. It segments nothing, but its masks are ragged, move,
overlap and depend on the memory, so that a slip in any step changes pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from tests.unit.clips import moving_boxes, save_label_map
from vosflow.datasets.folder import folder_manifest
from vosflow.masks import read_label_map
from vosflow.trackers.base import Checkpoint
from vosflow.video import Video

FRAMES = 10
SIZE = 64  # image_size of the tiny network
MODULES = "sam2.modeling."
ATTENTION = {
    "_target_": MODULES + "sam.transformer.RoPEAttention",
    "rope_theta": 10000.0,
    "feat_sizes": [4, 4],
    "embedding_dim": 64,
    "num_heads": 1,
    "downsample_rate": 1,
    "dropout": 0.0,
}


def sine(features: int) -> dict:
    target = MODULES + "position_encoding.PositionEmbeddingSine"
    return {"_target_": target, "num_pos_feats": features, "normalize": True, "scale": None, "temperature": 10000}


CONFIG = {
    "_target_": "sam2.sam2_video_predictor.SAM2VideoPredictor",
    "image_encoder": {
        "_target_": MODULES + "backbones.image_encoder.ImageEncoder",
        "scalp": 1,
        "trunk": {
            "_target_": MODULES + "backbones.hieradet.Hiera",
            "embed_dim": 16,
            "num_heads": 1,
            "stages": [1, 1, 2, 1],
            "global_att_blocks": [3],
            "window_spec": [8, 8, 8, 4],
            "window_pos_embed_bkg_spatial_size": [7, 7],
        },
        "neck": {
            "_target_": MODULES + "backbones.image_encoder.FpnNeck",
            "position_encoding": sine(64),
            "d_model": 64,
            "backbone_channel_list": [128, 64, 32, 16],
            "fpn_top_down_levels": [2, 3],
            "fpn_interp_model": "nearest",
        },
    },
    "memory_attention": {
        "_target_": MODULES + "memory_attention.MemoryAttention",
        "d_model": 64,
        "pos_enc_at_input": True,
        "num_layers": 1,
        "layer": {
            "_target_": MODULES + "memory_attention.MemoryAttentionLayer",
            "activation": "relu",
            "dim_feedforward": 128,
            "dropout": 0.0,
            "pos_enc_at_attn": False,
            "d_model": 64,
            "pos_enc_at_cross_attn_keys": True,
            "pos_enc_at_cross_attn_queries": False,
            "self_attention": ATTENTION,
            "cross_attention": ATTENTION | {"rope_k_repeat": True, "kv_in_dim": 16},
        },
    },
    "memory_encoder": {
        "_target_": MODULES + "memory_encoder.MemoryEncoder",
        "out_dim": 16,
        "in_dim": 64,
        "position_encoding": sine(16),
        "mask_downsampler": {
            "_target_": MODULES + "memory_encoder.MaskDownSampler",
            "embed_dim": 64,
            "kernel_size": 3,
            "stride": 2,
            "padding": 1,
        },
        "fuser": {
            "_target_": MODULES + "memory_encoder.Fuser",
            "num_layers": 1,
            "layer": {
                "_target_": MODULES + "memory_encoder.CXBlock",
                "dim": 64,
                "kernel_size": 7,
                "padding": 3,
                "layer_scale_init_value": 0.1,
                "use_dwconv": True,
            },
        },
    },
    "num_maskmem": 7,
    "image_size": SIZE,
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
} | dict.fromkeys(
    (
        "use_mask_input_as_output_without_sam",
        "directly_add_no_mem_embed",
        "no_obj_embed_spatial",
        "use_high_res_features_in_sam",
        "multimask_output_in_sam",
        "iou_prediction_use_sigmoid",
        "use_obj_ptrs_in_encoder",
        "add_tpos_enc_to_obj_ptrs",
        "proj_tpos_enc_in_obj_ptrs",
        "use_signed_tpos_enc_to_obj_ptrs",
        "only_obj_ptrs_in_the_past_for_eval",
        "pred_obj_scores",
        "pred_obj_scores_mlp",
        "fixed_no_obj_ptr",
        "multimask_output_for_tracking",
        "use_multimask_token_for_obj_ptr",
        "use_mlp_for_obj_ptr_proj",
    ),
    True,
)


def build(changes: dict | None = None) -> torch.nn.Module:
    from hydra.utils import instantiate

    config = OmegaConf.create(CONFIG)
    for key, value in (changes or {}).items():
        OmegaConf.update(config, key, value, force_add=True)
    return instantiate(config, _recursive_=True).eval()


def make_checkpoint(folder: Path) -> Checkpoint:
    """Write the network's weights and configuration into `folder`."""
    OmegaConf.save(OmegaConf.create({"model": CONFIG}), folder / "tiny.yaml")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = build().state_dict()
    weights["sam_mask_decoder.pred_obj_score_head.layers.2.bias"].fill_(1.0)  # else every object counts as absent
    torch.save({"model": weights}, folder / "tiny.pt")
    return Checkpoint("tiny", folder / "tiny.pt", "0" * 64, str(folder / "tiny.yaml"))


def make_clip(folder: Path) -> Path:
    """One video of three objects; object 2 is absent from the first frames, in every folder of masks but `together`."""
    images, label_maps = moving_boxes(FRAMES, objects=3)
    for t, (image, label_map) in enumerate(zip(images, label_maps, strict=True)):
        (folder / "frames/v").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"frames/v/{t:05d}.jpg", quality=90)
        save_label_map(folder / f"together/v/{t:05d}.png", label_map)
        late = np.where((label_map == 2) & (t < 3), 0, label_map).astype(np.uint8)
        save_label_map(folder / f"late/v/{t:05d}.png", late)
        if t >= 2:
            save_label_map(folder / f"later/v/{t:05d}.png", late)
        if t in (0, 6):
            save_label_map(folder / f"sparse/v/{t:05d}.png", label_map)
        for k in (1, 2, 3):
            if (label_map == k).any():
                save_label_map(folder / f"objects/v/{k:03d}/{t:05d}.png", (label_map == k).astype(np.uint8))
            if (late == k).any():
                save_label_map(folder / f"late_objects/v/{k:03d}/{t:05d}.png", (late == k).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip"))


def given_masks(folder: Path, per_object: bool) -> dict[int, dict[int, np.ndarray]]:
    """{frame index: {object: mask}} of a folder of annotations."""
    found: dict[int, dict[int, np.ndarray]] = {}
    for path in sorted(folder.rglob("*.png")):
        values, _ = read_label_map(path)
        ids = [int(path.parent.name)] if per_object else [int(k) for k in np.unique(values) if k]
        found.setdefault(int(path.stem), {}).update({k: values > 0 if per_object else values == k for k in ids})
    return found


def video_of(clip: Path, masks: str, **flags: bool) -> Video:
    return Video.of(folder_manifest(clip / "frames", clip / masks, **flags), "v")
