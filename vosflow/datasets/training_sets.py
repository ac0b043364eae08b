"""Where STCN, XMem and RDE-VOS find what they are trained on: still images with a mask each, and videos.

    static/{DUTS-TR,DUTS-TE,ecssd,BIG_small,HRSOD_small}/{name}.jpg, {name}.png
    static/fss/{class}/{number}.jpg, {number}.png
    {JPEGImages,Annotations}/{video}/{frame}.jpg, .png; in DAVIS {JPEGImages,Annotations}/480p/{video}/...

Only listed here, nothing is read: an epoch does not need all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vosflow.datasets.lists import folder_names
from vosflow.errors import VosflowError

DAVIS_LIST = "ImageSets/2017/train.txt"
"""The videos of DAVIS that are trained on: those of val lie in the same folders."""

FLAT_SETS = {"DUTS-TR": 1, "DUTS-TE": 1, "ecssd": 1, "BIG_small": 5, "HRSOD_small": 5}
"""How often each set of pairs side by side is taken in one epoch (Cutie and STCN); fss, in folders of classes, once."""


@dataclass(frozen=True)
class ImagePair:
    """A still image, the mask of its one object (any value above 0), and how often an epoch takes them."""

    image: Path
    mask: Path
    repeat: int = 1


def list_static_images(root: str | Path) -> list[ImagePair]:
    """All pairs of image and mask below the folder `static` of static_data.zip, in a fixed order.

    Raises:
        VosflowError: a set is missing or empty, or an image has no mask.
    """
    root = Path(root)
    classes = folder_names(root / "fss")
    if not classes:
        raise _no_images(root / "fss", "folders of classes", "fss/{class}/{number}.jpg and .png: folders of classes")
    folders = [(root / "fss" / name, 1) for name in classes]
    folders += [(root / name, repeat) for name, repeat in FLAT_SETS.items()]
    return [ImagePair(image, mask, repeat) for folder, repeat in folders for image, mask in _pairs(folder)]


def videos_folder(root: str | Path, part: str) -> Path:
    """The folder in `root` that holds the folders of videos, of `part` "JPEGImages" or "Annotations"."""
    folder = Path(root, part)
    return folder / "480p" if (folder / "480p").is_dir() else folder


def _pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    images = sorted(folder.glob("*.jpg")) if folder.is_dir() else []
    if not images:
        raise _no_images(folder, "{name}.jpg", "pairs of {name}.jpg and {name}.png")
    for image in images:
        mask = image.with_suffix(".png")
        if not mask.is_file():
            raise VosflowError(
                "the image has no mask",
                path=image,
                expected=f"{mask.name} beside it",
                remedy="extract static_data.zip again",
            )
        yield image, mask


def _no_images(folder: Path, lacking: str, expected: str) -> VosflowError:
    return VosflowError(
        "this set of training images is " + (f"empty: it has no {lacking}" if folder.is_dir() else "missing"),
        path=folder,
        expected=expected,
        remedy="extract static_data.zip again, and name the folder `static` that is in it",
    )
