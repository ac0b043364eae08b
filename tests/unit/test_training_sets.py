"""Lists of what RDE-VOS is trained on: still images with masks, and BL30K."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vosflow.datasets.training_sets import FLAT_SETS, list_static_images
from vosflow.errors import VosflowError


@pytest.fixture
def static(tmp_path) -> Path:
    for place in (*FLAT_SETS, "fss/abacus", "fss/zebra"):
        for name in ("1", "2"):
            for suffix in (".jpg", ".png"):
                (tmp_path / place).mkdir(parents=True, exist_ok=True)
                (tmp_path / place / f"{name}{suffix}").touch()
    return tmp_path


def test_static_images(static):
    pairs = list_static_images(static)
    assert len(pairs) == 14 and pairs[0].image == static / "fss/abacus/1.jpg"
    assert all(pair.mask == pair.image.with_suffix(".png") for pair in pairs)
    assert sum(pair.repeat for pair in pairs) == 4 + 3 * 2 + 2 * 2 * 5


def test_static_image_without_mask(static):
    (static / "ecssd/2.png").unlink()
    with pytest.raises(VosflowError, match="the image has no mask"):
        list_static_images(static)


@pytest.mark.parametrize(
    ("place", "lacking"), [("BIG_small", "{name}.jpg"), ("fss/zebra", "{name}.jpg"), ("fss", "folders of classes")]
)
def test_static_set_that_is_empty_or_missing(static, place, lacking):
    shutil.rmtree(static / place)
    if place != "fss/zebra":
        with pytest.raises(VosflowError, match=rf"{place}: this set of training images is missing\n"):
            list_static_images(static)
    (static / place).mkdir()
    with pytest.raises(VosflowError, match=rf"{place}: this set of training images is empty: it has no {lacking}\n"):
        list_static_images(static)
