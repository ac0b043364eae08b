"""Weights for TAPIR and TapNet under the names and shapes of the published JAX files, and a clip for them.

Every array depends on its name and shape only, so that another implementation can be given the same ones. The mixer of
TAPIR has two blocks instead of twelve, that files stay small (`BLOCKS`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

BLOCKS = 2
QUERIES = np.array([[0, 60, 40], [2, 150.5, 90.25], [3, 20, 100]], np.float32)  # (frame, x, y)

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def moving_texture(frames: int = 4) -> np.ndarray:
    """uint8 [T, 120, 200, 3]: coarse noise that moves 7 pixels to the left and 5 up per frame."""
    texture = np.random.default_rng(0).integers(0, 256, (20, 30, 3))
    texture = texture.repeat(10, 0).repeat(10, 1).astype(np.uint8)
    return np.stack([texture[5 * t : 5 * t + 120, 7 * t : 7 * t + 200] for t in range(frames)])


def tapir_shapes(pyramid_level: int) -> Shapes:
    """Names and shapes of `params` in tapir_checkpoint_panning.npy (0) and causal_tapir_checkpoint.npy (1)."""
    yield "tapir/~/resnet/~/initial_conv/w", (7, 7, 3, 64)
    channels = 64
    for group, outputs in enumerate((64, 128, 256, 256)):
        for number in range(2):
            block = f"tapir/~/resnet/~/block_group_{group}/~/block_{number}/~"
            if number == 0:
                yield f"{block}/shortcut_conv/w", (1, 1, channels, outputs)
            for layer, inputs in enumerate((channels, outputs)):
                yield f"{block}/instancenorm_{layer}/scale", (inputs,)
                yield f"{block}/instancenorm_{layer}/offset", (inputs,)
                yield f"{block}/conv_{layer}/w", (3, 3, inputs, outputs)
            channels = outputs
    yield from _head_shapes("tapir/~", (3, 3), 2)
    mixer = "tapir/~/pips_mlp_mixer"
    yield from _layer(f"{mixer}/linear", 388 + 49 * (pyramid_level + 2), 512)
    yield from _layer(f"{mixer}/linear_1", 512, 388)
    yield f"{mixer}/layer_norm/scale", (512,)
    for number in range(BLOCKS):
        block = f"{mixer}/block_{number}" if number else f"{mixer}/block"
        for norm in ("layer_norm", "layer_norm_1"):
            yield f"{block}/{norm}/scale", (512,)
        for layer in ("mlp1_up", "mlp1_up_1"):
            yield f"{block}/{layer}/w", (3, 1, 2048)
            yield f"{block}/{layer}/b", (2048,)
        yield from _layer(f"{block}/mlp2_up", 512, 2048)
        yield from _layer(f"{block}/mlp2_down", 2048, 512)


def tapnet_shapes() -> tuple[Shapes, Shapes]:
    """Names and shapes of `params` and of `state` in TapNet's checkpoint.npy."""
    return _tapnet_params(), _tapnet_state()


def _tapnet_blocks() -> Iterator[tuple[str, int, int, bool]]:
    channels = 64
    for unit, outputs in enumerate((64, 128, 256)):
        for number in range(2):
            yield f"tap_net/~/tsm_resnet_video/tsm_resnet_unit_{unit}/block_{number}", channels, outputs, number == 0
            channels = outputs


def _tapnet_params() -> Shapes:
    yield "tap_net/~/tsm_resnet_video/tsm_resnet_stem/w", (7, 7, 3, 64)
    for block, inputs, outputs, projects in _tapnet_blocks():
        if projects:
            yield f"{block}/shortcut_conv/w", (1, 1, inputs, outputs)
        for norm, conv, channels in (("batch_norm", "conv_0", inputs), ("batch_norm_1", "conv_2", outputs)):
            yield f"{block}/{norm}/scale", (1, 1, 1, channels)
            yield f"{block}/{norm}/offset", (1, 1, 1, channels)
            yield f"{block}/{conv}/w", (3, 3, channels, outputs)
    yield from _head_shapes("tap_net/~", (1, 3, 3), 1)


def _tapnet_state() -> Shapes:
    for block, inputs, outputs, _ in _tapnet_blocks():
        for norm, channels in (("batch_norm", inputs), ("batch_norm_1", outputs)):
            for average in ("mean_ema", "var_ema"):
                yield f"{block}/{norm}/~/{average}/average", (1, 1, 1, channels)
                yield f"{block}/{norm}/~/{average}/hidden", (1, 1, 1, channels)
                yield f"{block}/{norm}/~/{average}/counter", ()


def _head_shapes(owner: str, kernel: tuple[int, ...], logits: int) -> Shapes:
    for name, inputs, outputs in (
        ("cost_volume_regression_1", 1, 16),
        ("cost_volume_regression_2", 16, 1),
        ("cost_volume_occlusion_1", 16, 32),
    ):
        yield f"{owner}/{name}/w", (*kernel, inputs, outputs)
        yield f"{owner}/{name}/b", (outputs,)
    yield from _layer(f"{owner}/cost_volume_occlusion_2", 32, 16)
    yield from _layer(f"{owner}/occlusion_out", 16, logits)


def _layer(name: str, inputs: int, outputs: int) -> Shapes:
    yield f"{name}/w", (inputs, outputs)
    yield f"{name}/b", (outputs,)


def haiku_weights(shapes: Shapes) -> dict[str, dict[str, np.ndarray]]:
    """{module: {leaf: array}}, as Haiku has it."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, shape in shapes:
        module, _, leaf = name.rpartition("/")
        noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
        if leaf == "w" and "regression" in module:  # positive, so that heat is where costs are: points do move
            value = np.abs(noise) * np.float32(2 / np.sqrt(np.prod(shape[:-1])))
        elif leaf == "w":
            value = noise * np.float32((0.3 if "linear_1" in module else 1) / np.sqrt(np.prod(shape[:-1])))
        elif leaf == "counter":
            value = np.int32(7)
        elif leaf == "scale":
            value = 1 + np.float32(0.1) * noise
        elif "var_ema" in module:
            value = np.float32(0.5) + np.abs(noise)
        else:
            value = np.float32(0.1) * noise
        found.setdefault(module, {})[leaf] = value
    return found
