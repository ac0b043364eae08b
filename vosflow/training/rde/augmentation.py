"""Random changes of images and masks for training: those of STCN, which RDE-VOS took over.

Source: dataset/ of https://github.com/hkchengrex/STCN (MIT) and of https://github.com/Limingxing00/RDE-VOS-CVPR2022.
Images are PIL images (RGB), masks PIL images of labels ("L"); every draw comes from the generator that is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torchvision.transforms.functional as TF
from PIL import Image
from torchvision.transforms import InterpolationMode

from vosflow.training.rde.tps import tps_map

FILL = (124, 116, 104)  # ImageNet's mean colour
TPS_CHANCE, TPS_POINTS, TPS_SIGMA = 1 / 3, 12, 0.02
PERTURB_ROUNDS = 250

Pair = tuple[Image.Image, Image.Image]
"""An image and its labels, of one size."""


def augment_clip(pairs: Sequence[Pair], rng: np.random.Generator, crop: int, area: tuple[float, float]) -> list[Pair]:
    """Frames of a video: one crop, flip and change of colour for all, and small ones for each. `crop` x `crop`."""
    flipped = rng.random() < 0.5
    box = random_box(pairs[0][0].size, rng, area)
    grey = rng.random() < 0.05
    colour = Colour(rng, 0.1, 0.03, 0.03)
    changed = []
    for image, labels in pairs:
        image = TF.resized_crop(image, *box, [crop, crop], InterpolationMode.BILINEAR)
        labels = TF.resized_crop(labels, *box, [crop, crop], InterpolationMode.NEAREST)
        if flipped:
            image, labels = TF.hflip(image), TF.hflip(labels)
        image = colour.of(image)
        if grey:
            image = TF.to_grayscale(image, num_output_channels=3)
        image, labels = _affine((image, labels), rng, degrees=15, scale=(1, 1), shear=10)
        changed.append((Colour(rng, 0.01, 0.01, 0.01).of(image), labels))
    return changed


def pseudo_frames(pair: Pair, rng: np.random.Generator, crop: int, count: int) -> list[Pair]:
    """A still image as `count` frames, each moved and bent in a way of its own. `crop` x `crop`."""
    image, labels = pair
    image = Colour(rng, 0.1, 0.05, 0.05, hue=0.05).of(image)
    image, labels = _affine((image, labels), rng, degrees=0, scale=(0.8, 1.5), shear=0)
    if rng.random() < 0.5:
        image, labels = TF.hflip(image), TF.hflip(labels)
    frames = []
    for _ in range(count):
        frame = _affine((image, labels), rng, degrees=20, scale=(0.9, 1.1), shear=10)
        frame = _cut(_resize(frame, crop), rng, crop)
        frame = (Colour(rng, 0.1, 0.05, 0.05).of(frame[0]), frame[1])
        frames.append(_bend(frame, rng) if rng.random() < TPS_CHANCE else frame)
    return frames


class Colour:
    """A random change of brightness, contrast, saturation and hue, each by at most so much, in random order."""

    def __init__(
        self, rng: np.random.Generator, brightness: float, contrast: float, saturation: float, hue: float = 0.0
    ) -> None:
        changes = [
            (TF.adjust_brightness, rng.uniform(1 - brightness, 1 + brightness)),
            (TF.adjust_contrast, rng.uniform(1 - contrast, 1 + contrast)),
            (TF.adjust_saturation, rng.uniform(1 - saturation, 1 + saturation)),
        ]
        if hue:
            changes.append((TF.adjust_hue, rng.uniform(-hue, hue)))
        self._changes = [changes[i] for i in rng.permutation(len(changes))]

    def of(self, image: Image.Image) -> Image.Image:
        """The image with that change."""
        for change, amount in self._changes:
            image = change(image, amount)
        return image


def random_box(size: tuple[int, int], rng: np.random.Generator, area: tuple[float, float]) -> tuple[int, int, int, int]:
    """A part of an image of `size` (width, height): (top, left, height, width).

    `area` is its share of the image, from and to; its sides differ by at most 4 : 3. (torchvision's RandomResizedCrop.)
    """
    width, height = size
    for _ in range(10):
        wanted = width * height * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(wanted * ratio)), round(math.sqrt(wanted / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    side = min(width, height)
    return (height - side) // 2, (width - side) // 2, side, side


def perturb_mask(mask: np.ndarray, rng: np.random.Generator, lowest_iou: float) -> np.ndarray:
    """A mask with errors: random patches of it grow or shrink until its IoU with the original falls below `lowest_iou`.

    As in CascadePSP (Cheng et al., CVPR 2020). In a few places a pixel is set first, so that holes and islands grow.

    Args:
        mask: bool [H, W].

    Returns:
        bool [H, W]; the mask itself where it is empty.
    """
    height, width = mask.shape
    changed = mask.astype(np.uint8)
    if not mask.any() or min(height, width) <= 2:
        return mask
    for _ in range(PERTURB_ROUNDS):
        for _ in range(4):
            left, top = int(rng.integers(0, width)), int(rng.integers(0, height))
            right, bottom = int(rng.integers(left + 1, width + 1)), int(rng.integers(top + 1, height + 1))
            patch = changed[top:bottom, left:right]
            if rng.random() < 0.25:
                patch[patch.shape[0] // 2, patch.shape[1] // 2] = rng.integers(0, 2)
            change = cv2.dilate if rng.random() < 0.5 else cv2.erode
            size = tuple(int(side) for side in rng.integers(3, max(4, min(height, width) // 20 + 4), 2))
            patch[:] = change(patch, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size))
        union = np.count_nonzero(mask | (changed > 0))
        if np.count_nonzero(mask & (changed > 0)) < lowest_iou * union:
            break
    return changed > 0


def _affine(pair: Pair, rng: np.random.Generator, degrees: float, scale: tuple[float, float], shear: float) -> Pair:
    motion = {
        "angle": rng.uniform(-degrees, degrees),
        "translate": [0, 0],
        "scale": rng.uniform(*scale),
        "shear": [rng.uniform(-shear, shear), 0.0],
    }
    image = TF.affine(pair[0], **motion, interpolation=InterpolationMode.BICUBIC, fill=FILL)
    return image, TF.affine(pair[1], **motion, interpolation=InterpolationMode.NEAREST, fill=0)


def _resize(pair: Pair, short_side: int) -> Pair:
    image = TF.resize(pair[0], short_side, InterpolationMode.BICUBIC)
    return image, TF.resize(pair[1], short_side, InterpolationMode.NEAREST)


def _cut(pair: Pair, rng: np.random.Generator, side: int) -> Pair:
    """A random square of an image whose shorter side is at least `side`."""
    width, height = pair[0].size
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    return TF.crop(pair[0], top, left, side, side), TF.crop(pair[1], top, left, side, side)


def _bend(pair: Pair, rng: np.random.Generator) -> Pair:
    """Warped by a thin-plate spline through points that are a little displaced."""
    points = rng.random((TPS_POINTS, 2))
    targets = points + rng.normal(0, TPS_SIGMA, points.shape)
    image, labels = (np.asarray(part) for part in pair)
    where = tps_map(points, targets, *labels.shape)
    bent = cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=FILL)
    bent_labels = cv2.remap(labels, where, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return Image.fromarray(bent), Image.fromarray(bent_labels)
