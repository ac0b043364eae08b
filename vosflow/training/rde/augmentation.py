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
TPS_CHANCE, TPS_POINTS, TPS_SIGMA = 0.33, 12, 0.02
GREY_CHANCE = 0.05
PERTURB_ROUNDS, ISLAND_CHANCE = 250, 0.1
AUTHORS_CROP, LARGEST_KERNEL = 384, 9  # pixels; errors of masks are as large as theirs, relative to the crop

Pair = tuple[Image.Image, Image.Image]
"""An image and its labels, of one size."""


def augment_clip(pairs: Sequence[Pair], rng: np.random.Generator, crop: int, area: tuple[float, float]) -> list[Pair]:
    """Frames of a video: one crop, flip and change of colour for all, and small ones for each. `crop` x `crop`."""
    flipped = rng.random() < 0.5
    box = random_box(pairs[0][0].size, rng, area)
    colour = Colour(rng, 0.1, 0.03, 0.03, grey=GREY_CHANCE)
    changed = []
    for image, labels in pairs:
        image = TF.resized_crop(image, *box, [crop, crop], InterpolationMode.BICUBIC)
        labels = TF.resized_crop(labels, *box, [crop, crop], InterpolationMode.NEAREST)
        if flipped:
            image, labels = TF.hflip(image), TF.hflip(labels)
        image, labels = _affine((colour.of(image), labels), rng, degrees=15, scale=(1, 1), shear=10)
        changed.append((Colour(rng, 0.01, 0.01, 0.01).of(image), labels))
    return changed


def pseudo_frames(pair: Pair, rng: np.random.Generator, crop: int, count: int) -> list[Pair]:
    """A still image with one object as `count` frames, each moved and bent in a way of its own. `crop` x `crop`.

    The mask is rotated as smoothly as its image, and cut at one half in the end.
    """
    image, mask = pair[0], pair[1].point(lambda label: 255 * (label > 0))
    image, mask = _affine((image, mask), rng, degrees=0, scale=(0.8, 1.5), shear=0, image_by=InterpolationMode.NEAREST)
    if rng.random() < 0.5:
        image, mask = TF.hflip(image), TF.hflip(mask)
    image = Colour(rng, 0.1, 0.05, 0.05, hue=0.05, grey=GREY_CHANCE).of(image)
    frames = []
    for _ in range(count):
        frame = _affine((image, mask), rng, degrees=20, scale=(0.9, 1.1), shear=10, labels_by=InterpolationMode.BICUBIC)
        frame = _cut(_resize(frame, crop), rng, crop)
        frame = (Colour(rng, 0.1, 0.05, 0.05).of(frame[0]), frame[1])
        frames.append(_bend(frame, rng) if rng.random() < TPS_CHANCE else frame)
    return [(image, mask.point(lambda value: value > 127)) for image, mask in frames]


class Colour:
    """A random change of brightness, contrast, saturation and hue, each by at most so much, in random order.

    `grey` is the chance that no colour is left.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        brightness: float,
        contrast: float,
        saturation: float,
        *,
        hue: float = 0.0,
        grey: float = 0.0,
    ) -> None:
        changes = [
            (TF.adjust_brightness, rng.uniform(1 - brightness, 1 + brightness)),
            (TF.adjust_contrast, rng.uniform(1 - contrast, 1 + contrast)),
            (TF.adjust_saturation, rng.uniform(1 - saturation, 1 + saturation)),
        ]
        if hue:
            changes.append((TF.adjust_hue, rng.uniform(-hue, hue)))
        self._changes = [changes[i] for i in rng.permutation(len(changes))]
        self._grey = rng.random() < grey

    def of(self, image: Image.Image) -> Image.Image:
        """The image with that change."""
        for change, amount in self._changes:
            image = change(image, amount)
        return TF.to_grayscale(image, num_output_channels=3) if self._grey else image


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
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))  # the largest one in the middle
    return (height - h) // 2, (width - w) // 2, h, w


def perturb_mask(mask: np.ndarray, rng: np.random.Generator, lowest_iou: float) -> np.ndarray:
    """A mask with errors: random patches of it grow or shrink until its IoU with the original falls below `lowest_iou`.

    As in CascadePSP (Cheng et al., CVPR 2020), with the numbers of RDE-VOS. In a few places a pixel is set first, so
    that holes and islands grow.

    Args:
        mask: bool [H, W].

    Returns:
        bool [H, W]; the mask itself where it is empty.
    """
    height, width = mask.shape
    changed = mask.astype(np.uint8)
    if not mask.any() or min(height, width) <= 2:
        return mask
    largest = max(4, round(LARGEST_KERNEL * min(height, width) / AUTHORS_CROP))
    for _ in range(PERTURB_ROUNDS):
        for _ in range(4):
            left, top = int(rng.integers(0, width)), int(rng.integers(0, height))
            right, bottom = int(rng.integers(left + 1, width + 1)), int(rng.integers(top + 1, height + 1))
            patch = changed[top:bottom, left:right]
            if rng.random() < ISLAND_CHANCE:
                patch[patch.shape[0] // 2, patch.shape[1] // 2] = rng.integers(0, 2)
            change = cv2.dilate if rng.random() < 0.5 else cv2.erode
            patch[:] = change(patch, _kernel(int(rng.integers(3, largest + 1)), rng))
        union = np.count_nonzero(mask | (changed > 0))
        if np.count_nonzero(mask & (changed > 0)) < lowest_iou * union:
            break
    return changed > 0


def _kernel(side: int, rng: np.random.Generator) -> np.ndarray:
    """A square, a disc, or an ellipse that lies or stands."""
    shapes = (
        (cv2.MORPH_RECT, (side, side)),
        (cv2.MORPH_ELLIPSE, (side, side)),
        (cv2.MORPH_ELLIPSE, (side, side // 2)),
        (cv2.MORPH_ELLIPSE, (side // 2, side)),
    )
    return cv2.getStructuringElement(*shapes[int(rng.integers(len(shapes)))])


def _affine(
    pair: Pair,
    rng: np.random.Generator,
    degrees: float,
    scale: tuple[float, float],
    shear: float,
    *,
    image_by: InterpolationMode = InterpolationMode.BICUBIC,
    labels_by: InterpolationMode = InterpolationMode.NEAREST,
) -> Pair:
    motion = {
        "angle": rng.uniform(-degrees, degrees),
        "translate": [0, 0],
        "scale": rng.uniform(*scale),
        "shear": [rng.uniform(-shear, shear), 0.0],
    }
    image = TF.affine(pair[0], **motion, interpolation=image_by, fill=FILL)
    return image, TF.affine(pair[1], **motion, interpolation=labels_by, fill=0)


def _resize(pair: Pair, short_side: int) -> Pair:
    image = TF.resize(pair[0], short_side, InterpolationMode.BICUBIC)
    return image, TF.resize(pair[1], short_side, InterpolationMode.NEAREST)


def _cut(pair: Pair, rng: np.random.Generator, side: int) -> Pair:
    """A random square of an image whose shorter side is at least `side`."""
    width, height = pair[0].size
    top, left = int(rng.integers(0, height - side + 1)), int(rng.integers(0, width - side + 1))
    return TF.crop(pair[0], top, left, side, side), TF.crop(pair[1], top, left, side, side)


def _bend(pair: Pair, rng: np.random.Generator) -> Pair:
    """Warped by a thin-plate spline through points that are a little displaced; black where nothing is."""
    points = rng.random((TPS_POINTS, 2))
    targets = points + rng.normal(0, TPS_SIGMA, points.shape)
    image, labels = (np.asarray(part) for part in pair)
    where = tps_map(points, targets, *labels.shape)
    bent = cv2.remap(image, where, None, cv2.INTER_LINEAR)
    bent_labels = cv2.remap(labels, where, None, cv2.INTER_NEAREST)
    return Image.fromarray(bent), Image.fromarray(bent_labels)
