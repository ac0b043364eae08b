"""From a network configuration and weights to the predictor of the sam2 package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig, OmegaConf

from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam2.checkpoint import MEMORY_TABLE, load_weights, read_weights, resize_memory

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    from vosflow.trackers.sam2 import Settings

PREDICTOR = "sam2.sam2_video_predictor.SAM2VideoPredictor"
POSTPROCESSING = {  # of build_sam2_video_predictor(apply_postprocessing=True), without its fill_hole_area
    "sam_mask_decoder_extra_args.dynamic_multimask_via_stability": True,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_delta": 0.05,
    "sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh": 0.98,
    "binarize_mask_from_pts_for_mem_enc": True,
}
OVERRIDES = ("num_maskmem", "max_obj_ptrs_in_encoder", "memory_temporal_stride_for_eval", "image_size")


def build_predictor(checkpoint: Checkpoint, settings: Settings, device: str) -> SAM2VideoPredictor:
    """Build the network, load the weights, move it to `device`, in evaluation mode.

    Raises:
        VosflowError: no GPU where one is demanded; configuration or weights missing, broken, or not of each other;
            the sam2 package is not installed.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise VosflowError(
            f"the device {device} is demanded, but torch sees no GPU",
            expected="a CUDA GPU with a driver that this torch supports",
            remedy="check nvidia-smi and CUDA_VISIBLE_DEVICES, or track on the CPU (device: cpu)",
        )
    model_config = _configure(read_config(checkpoint), settings)
    weights = read_weights(checkpoint.path)
    if settings.num_maskmem is not None and MEMORY_TABLE in weights:
        weights[MEMORY_TABLE] = resize_memory(weights[MEMORY_TABLE], settings.num_maskmem)
    predictor = _instantiate(model_config, checkpoint)
    load_weights(predictor, weights, checkpoint)
    _forget_cached_positions(predictor)
    return predictor.to(device).eval()


def _forget_cached_positions(predictor: SAM2VideoPredictor) -> None:
    """Drop the sine positions that the constructor computes on any GPU it sees: CPU results shall not depend on it."""
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    for module in predictor.modules():
        if isinstance(module, PositionEmbeddingSine):
            module.cache.clear()


def read_config(checkpoint: Checkpoint) -> DictConfig:
    """The network configuration of a checkpoint: a YAML file, or a name in the sam2 package.

    Hydra's composition, with its global state, is not used: the released configurations are plain files.

    Raises:
        VosflowError: none is given, it is not found, or it does not describe a model.
    """
    if checkpoint.config is None:
        raise VosflowError(
            f"no network configuration is given for checkpoint {checkpoint.id}",
            path=checkpoint.path,
            expected="a name such as configs/sam2.1/sam2.1_hiera_b+.yaml, or a YAML file",
            remedy="add `config:` to the checkpoint's entry, or give --sam2_cfg to scripts/track.py",
        )
    path = _find_config(checkpoint.config)
    try:
        config = OmegaConf.load(path)
        OmegaConf.resolve(config)
        model = config.model
        if not isinstance(model, DictConfig):
            raise TypeError("`model` is not a mapping")
    except Exception as error:  # OmegaConf passes on whatever its YAML reader raises
        raise VosflowError(
            f"not a network configuration ({error})",
            path=path,
            expected="YAML with `model:`, as in the configs folder of the sam2 package",
            remedy="correct the file, or name one of the released configurations",
        ) from error
    return model


def _find_config(name: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    package = _package_folder()
    for candidate in (package / name, package / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    known = sorted(str(path.relative_to(package)) for path in package.glob("configs/sam2*/*hiera_?*.yaml"))
    raise VosflowError(
        "no such network configuration",
        path=name,
        expected="a YAML file, or one of " + ", ".join(name for name in known if "training" not in name),
        remedy="check the spelling of the checkpoint's config",
    )


def _package_folder() -> Path:
    spec = importlib.util.find_spec("sam2")
    if spec is None:
        raise VosflowError(
            "the package sam2 is not installed",
            expected="sam2 in the Python environment that tracks",
            remedy="install it as envs/requirements-no-deps.txt says",
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _configure(model_config: DictConfig, settings: Settings) -> DictConfig:
    """The configuration with the settings in it; what a setting leaves at None stays as it is."""
    overrides = {"_target_": PREDICTOR}
    overrides |= {key: getattr(settings, key) for key in OVERRIDES if getattr(settings, key) is not None}
    if settings.apply_postprocessing:
        overrides |= POSTPROCESSING
    configured = model_config.copy()
    for key, value in overrides.items():
        OmegaConf.update(configured, key, value, force_add=True)
    return configured


def _instantiate(model_config: DictConfig, checkpoint: Checkpoint) -> SAM2VideoPredictor:
    from hydra.errors import HydraException
    from hydra.utils import instantiate

    try:
        return instantiate(model_config, _recursive_=True)
    except HydraException as error:
        raise VosflowError(
            f"the network cannot be built ({error})",
            path=checkpoint.config,
            expected="arguments that the classes of the installed sam2 package take",
            remedy="compare the file with the released configurations in the sam2 package",
        ) from error
