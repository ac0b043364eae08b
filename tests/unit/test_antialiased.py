"""Masks of greys are refused as prompts, and it is said how to mend them; label maps of any number of objects are not.

The masks of the demo and those that other tests make pass, too: without that, these tests would fail.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from vosflow.datasets.antialiased import refuse_antialiased
from vosflow.datasets.folder import folder_manifest
from vosflow.datasets.prompts import MaskFolder, PromptRule, find_prompts
from vosflow.errors import VosflowError

HEIGHT, WIDTH = 240, 320


def is_refused(values: np.ndarray | Image.Image) -> bool:
    try:
        refuse_antialiased(np.array(values), "mask.png")
    except VosflowError:
        return True
    return False


def shape(value: int = 255, size: int = 60) -> Image.Image:
    """A figure like a person: a trunk, limbs, a round head."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(drawn, (160, 120), (size // 2, size), 12, 0, 360, value, -1)
    cv2.circle(drawn, (170, 115 - size), size // 3, value, -1)
    for x in (-size, size):
        cv2.line(drawn, (160, 110), (160 + x, 120 + size), value, 9)
    return Image.fromarray(drawn)


def as_jpeg(mask: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    mask.save(file, "JPEG", quality=quality)
    return Image.open(file)


def resized(mask: Image.Image, factor: float, how: int) -> Image.Image:
    return mask.resize((int(factor * mask.width), int(factor * mask.height)), how)


@pytest.mark.parametrize("value", [255, 120, 60])
@pytest.mark.parametrize("factor", [0.25, 0.5, 0.6, 1.5, 2.0])
@pytest.mark.parametrize("how", [Image.BILINEAR, Image.BICUBIC, Image.LANCZOS])
def test_interpolated_masks(value, factor, how):
    assert is_refused(resized(shape(value), factor, how))


@pytest.mark.parametrize("quality", [50, 75, 90, 95])
def test_masks_that_were_jpegs(quality):
    assert is_refused(as_jpeg(shape(), quality)) and is_refused(as_jpeg(shape(70), quality))


@pytest.mark.parametrize("size", [8, 20, 60])
def test_blurred_averaged_and_smoothly_drawn_masks(size):
    smooth = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.ellipse(smooth, (160, 120), (size, size // 2), 30, 0, 360, 255, -1, cv2.LINE_AA)
    assert is_refused(smooth)
    assert is_refused(shape(size=size).filter(ImageFilter.GaussianBlur(1)))
    assert is_refused(resized(shape(size=size), 0.5, Image.BOX))


def test_several_objects_in_greys_of_their_own():
    """As when colours of a palette were turned into greys."""
    drawn = np.array(shape(113, 40))
    cv2.circle(drawn, (60, 60), 40, 38, -1)
    cv2.rectangle(drawn, (200, 20), (300, 90), 75, -1)
    assert not is_refused(drawn)
    assert is_refused(resized(Image.fromarray(drawn), 0.7, Image.BILINEAR))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    objects=st.integers(1, 200),
    size=st.sampled_from([1, 2, 3, 5, 9, 25]),
    density=st.sampled_from([0.1, 1, 3]),
    shrink=st.sampled_from([1, 2, 3]),
)
def test_no_crowd_is_taken_for_an_antialiased_mask(seed, objects, size, density, shrink):
    """Objects of any size and id in an area that they fill `density` times, so that they cover each other."""
    rng = np.random.default_rng(seed)
    side = max(8, int(size * (objects / density) ** 0.5))
    crowd = np.zeros((side + 20, side + 30), np.uint8)
    for number in rng.permutation(255)[:objects] + 1:
        x, y = rng.integers(10, 10 + side, 2)
        axes = [int(axis) for axis in size * rng.uniform(0.25, 0.75, 2)]
        cv2.ellipse(crowd, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, int(number), -1)
    assert not is_refused(crowd[::shrink, ::shrink])


@pytest.mark.parametrize("thick", [2, 3, 8])
def test_stripes_tiles_and_strings_are_objects(thick):
    """Of two pixels or more. In order of their ids and one pixel wide they would be a border drawn smoothly."""
    stripes = np.repeat(np.arange(1, 31, dtype=np.uint8), thick)[None].repeat(60, 0)
    assert not is_refused(np.pad(stripes, 5))
    tiles = np.kron(np.arange(1, 101, dtype=np.uint8).reshape(10, 10), np.ones((thick + 1, thick + 1), np.uint8))
    assert not is_refused(np.pad(tiles, 5))
    strings = np.array(shape(1))
    for number in range(2, 12):
        cv2.line(strings, (10 * number, 0), (160, 120), number, thick)
    assert not is_refused(strings)


def test_more_objects_than_odd_values():
    """Single pixels between the objects, as annotators leave them: most values are ids all the same."""
    tiles = np.kron(np.arange(10, 170, 10, dtype=np.uint8).reshape(4, 4), np.ones((20, 20), np.uint8))
    for place in range(5):
        tiles[2 + 3 * place :: 20, 19] = 171 + place
    assert not is_refused(tiles)
    tiles[(tiles > 40) & (tiles < 171)] = 0
    assert is_refused(tiles), "beside four objects these five are most of the values"


def video(folder: Path, mask: Image.Image) -> tuple[Path, Path]:
    """Folders of frames and masks of one video of two frames."""
    for name in ("00000", "00001"):
        (folder / "frames/v").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", mask.size).save(folder / f"frames/v/{name}.jpg")
    (folder / "masks/v").mkdir(parents=True)
    mask.save(folder / "masks/v/00000.png")
    return folder / "frames", folder / "masks"


@pytest.mark.parametrize("layout", [{}, {"late_objects": True}, {"use_all_masks": True}, {"protocol": "mose"}])
@pytest.mark.parametrize("value", [255, 90])
def test_prompts_are_not_read_from_them(tmp_path, layout, value):
    frames, masks = video(tmp_path, resized(shape(value), 0.5, Image.BILINEAR))
    if "protocol" in layout:
        layout = {**layout, "annotations": masks}  # then these are read first
    with pytest.raises(VosflowError, match=r"v/00000.png: the mask is antialiased, or was a JPEG: \d+ of") as caught:
        folder_manifest(frames, masks, **layout)
    path = masks / "v/00000.png"
    limit = int(re.search(r"255 \* \(value > (\d+)\)", str(caught.value))[1])
    Image.open(path).point(lambda grey: 255 * (grey > limit)).save(path)  # as the message says
    assert folder_manifest(frames, masks, **layout).video("v").objects == (255,)
    assert folder_manifest(frames, masks, binary=True).video("v").objects == (1,)


@pytest.mark.parametrize("layout", [{"late_objects": True}, {"use_all_masks": True}])
def test_nor_from_later_ones(tmp_path, layout):
    frames, masks = video(tmp_path, shape())
    shape().filter(ImageFilter.GaussianBlur(1)).save(masks / "v/00001.png")
    with pytest.raises(VosflowError, match="v/00001.png: the mask is antialiased"):
        folder_manifest(frames, masks, **layout)
    assert folder_manifest(frames, masks).video("v").objects == (255,), "where it is no prompt, it is not looked at"


def test_a_mask_of_0_and_255_whose_255_is_void(tmp_path):
    """DAVIS 2017: the greys were all its objects."""
    _, masks = video(tmp_path, averaged := resized(shape(), 0.5, Image.BOX))
    folder = MaskFolder(masks / "v", "v", averaged.height, averaged.width, PromptRule(void=255))
    with pytest.raises(VosflowError, match=r"3 of its 4 values above 0 lie only along borders .*\(64, 128, 192\)"):
        find_prompts(folder, ["00000"], tmp_path)


def test_what_is_any_value_above_0_may_be_grey(tmp_path):
    """Masks of one object each: there it is the publisher's rule."""
    frames, masks = video(tmp_path, resized(shape(), 0.5, Image.BILINEAR))
    assert folder_manifest(frames, masks, binary=True).video("v").objects == (1,)
    (masks / "v/001").mkdir()
    (masks / "v/00000.png").rename(masks / "v/001/00000.png")
    assert folder_manifest(frames, masks, per_obj_png_file=True).video("v").objects == (1,)


def test_a_palette_says_that_values_are_ids(tmp_path):
    mask = resized(shape(), 0.5, Image.BILINEAR)
    greys = set(np.unique(mask).tolist()) - {0, 255}
    frames, masks = video(tmp_path, mask)
    with pytest.raises(VosflowError, match="antialiased"):
        folder_manifest(frames, masks)
    mask.putpalette([value for value in range(256) for _ in range(3)])
    mask.save(masks / "v/00000.png")
    assert greys <= set(folder_manifest(frames, masks).video("v").objects)
