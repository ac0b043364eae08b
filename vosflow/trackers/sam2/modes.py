"""What the settings `mode` and `precision` mean for a network on a device."""

from __future__ import annotations

from dataclasses import dataclass

from vosflow.trackers.sam2 import Settings

ALL_OBJECTS = 1_000  # at once: more than a video has
FRAMES_ON_A_GPU = 4  # at once, for the image encoder
# Measured with sam2.1_hiera_tiny on one thread: sharing calls makes the steps of 10 objects 1.04 times faster at 256
# pixels, where calls cost something beside their arithmetic, and 0.85 times at 512.
LARGEST_SHARED_ON_A_CPU = 256


@dataclass(frozen=True)
class Mode:
    """How to compute: "float32" or "bfloat16", and how many objects and frames share a call of the network."""

    precision: str
    objects_at_once: int
    frames_at_once: int


def resolve_mode(settings: Settings, image_size: int, device: str) -> Mode:
    """The mode that `settings` ask for.

    Fast mode is never slower than exact mode: on a CPU, objects share calls only where that pays.

    Args:
        image_size: of the network, in pixels.
        device: "cpu" or "cuda".
    """
    precision = settings.precision_on(device)
    if settings.mode == "exact":
        return Mode(precision, 1, 1)
    if device == "cpu":
        return Mode(precision, ALL_OBJECTS if image_size <= LARGEST_SHARED_ON_A_CPU else 1, 1)
    return Mode(precision, ALL_OBJECTS, FRAMES_ON_A_GPU)
