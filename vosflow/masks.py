"""Label maps and object masks: palette, reading, merging. What is here shapes pixels; writing is in `mask_writer`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vosflow.errors import VosflowError


def voc_palette() -> list[int]:
    """The 256-colour map of PASCAL VOC, which DAVIS uses: bit k of an id goes to bit 7-k//3 of channel k%3."""
    palette = []
    for index in range(256):
        colour = [0, 0, 0]
        for bit in range(8):
            colour[bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
        palette += colour
    return palette


DAVIS_PALETTE = voc_palette()


def read_label_map(path: str | Path) -> tuple[np.ndarray, list[int] | None]:
    """Read a palette, grey or 1-bit image without touching its values.

    Returns:
        The pixel values, uint8 [H, W], and the RGB palette (flat list) or None.

    Raises:
        VosflowError: the file is missing, damaged, a JPEG, or has more than one channel or 8 bits.
    """
    try:
        with Image.open(path) as image:
            if image.format == "JPEG":
                raise VosflowError(
                    "the mask is a JPEG, whose values are not the ids that were saved",
                    path=path,
                    expected="one channel of object ids: a palette (P) or grey (L) 8-bit PNG",
                    remedy="save masks as PNG; what was lost in a JPEG does not come back by renaming or converting it",
                )
            if image.mode not in ("P", "L", "1"):
                raise VosflowError(
                    f"the mask is a {image.mode} image",
                    path=path,
                    expected="one channel of object ids: a palette (P) or grey (L) 8-bit PNG",
                    remedy="save the ids themselves, not their colours; a viewer's screenshot or a JPEG will not do",
                )
            values = np.array(image, dtype=np.uint8)
            palette = image.getpalette() if image.mode == "P" else None
    except FileNotFoundError as error:
        raise VosflowError(
            "the mask is missing",
            path=path,
            expected="a PNG with object ids",
            remedy="restore the file, or write the manifest again",
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise VosflowError(
            f"the mask is unreadable ({error})",
            path=path,
            expected="a complete PNG with object ids",
            remedy="the file is damaged (truncated?): restore or recompute it",
        ) from error
    return values, palette


def merge_objects(masks: Mapping[int, np.ndarray], height: int, width: int) -> np.ndarray:
    """Paint object masks into one label map, uint8 [H, W]; where masks overlap, the smallest id wins.

    The rule of `put_per_obj_mask` in facebookresearch/sam2 tools/vos_inference.py.
    """
    label_map = np.zeros((height, width), np.uint8)
    for object_id in sorted(masks, reverse=True):
        label_map[masks[object_id]] = object_id
    return label_map


def object_folder(object_id: int) -> str:
    """Folder name of one object in the per-object layout."""
    return f"{object_id:03d}"
