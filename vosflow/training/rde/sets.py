"""What is trained on: lists of still images and of videos, and how one sample is drawn from them.

    static   as `vosflow.datasets.training_sets.list_static_images`
    videos   {JPEGImages,Annotations}/{video}/{frame}.jpg, .png, also with 480p/ in between as in DAVIS

A frame without a mask is not used (YouTube-VOS has masks on every fifth frame, and only these frames in train).
Frames of YouTube-VOS, most of 720p, are resized to 480p when they are read. The authors do so once, into JPEG files
(scripts/resize_youtube.py), whose folder can be named as well, and leave out 7 of 3471 videos (util/yv_subset.txt).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vosflow.datasets.lists import file_stems, folder_names, read_names
from vosflow.datasets.training_sets import DAVIS_LIST, ImagePair, list_static_images, videos_folder
from vosflow.errors import VosflowError
from vosflow.training.rde.augmentation import Pair

FEWEST_FRAMES = 3  # videos with fewer are left out, as the authors do
TRIES = 5  # to find a clip whose first frame has an object
SMALL, TINY, GROWN = 900, 100, 400  # pixels, of objects of BL30K in a crop of 384 x 384
AUTHORS_CROP = 384 * 384


@dataclass(frozen=True)
class VideoSet:
    """Videos to draw clips from.

    Attributes:
        images, masks: folders with a folder for each video.
        videos: by name, the names of the frames that have a mask, in temporal order. (Files as paths would take
            gigabytes for the five million of BL30K.)
        repeat: how often an epoch takes each.
        frame_step: of the video's frames, one of this many is here: jumps are counted in the video's.
        checks_areas: leave out objects that are small, as for BL30K.
        short_side: larger frames are resized to this shorter side, in pixels; None: none are.
    """

    images: Path
    masks: Path
    videos: Mapping[str, Sequence[str]]
    repeat: int = 1
    frame_step: int = 1
    checks_areas: bool = False
    short_side: int | None = None

    def files(self, name: str, frame: int) -> tuple[Path, Path]:
        """The image and the mask of a frame of a video."""
        frame_name = self.videos[name][frame]
        return self.images / name / f"{frame_name}.jpg", self.masks / name / f"{frame_name}.png"

    def read(self, image: Path, mask: Path) -> Pair:
        """A frame's image and labels from its files; raises what `read_pair` raises."""
        pair = read_pair(image, mask)
        return pair if self.short_side is None else _shrink(pair, self.short_side)


TRAITS = {
    "bl30k": {"checks_areas": True},
    "davis": {"repeat": 5},
    "youtube": {"frame_step": 5, "short_side": 480},
}


def read_set(kind: str, root: str | Path) -> VideoSet | list[ImagePair]:
    """The training set `kind` ("static", "bl30k", "davis" or "youtube") in the folder `root`.

    Of DAVIS only the videos in ImageSets/2017/train.txt are taken: those of val lie in the same folders.

    Raises:
        VosflowError: folders, lists, masks or videos are missing, or no video is long enough for a clip.
    """
    if kind == "static":
        return list_static_images(root)
    names = read_names(Path(root) / DAVIS_LIST) if kind == "davis" else None
    images, masks = (videos_folder(root, part) for part in ("JPEGImages", "Annotations"))
    return VideoSet(images, masks, _list_videos(images, masks, names), **TRAITS[kind])


def _list_videos(images: Path, masks: Path, names: Sequence[str] | None) -> dict[str, list[str]]:
    """Frames with masks of each video; videos with fewer than three are left out, and it is said so."""
    videos, short = {}, []
    for name in sorted(names if names is not None else folder_names(images)):
        frames = sorted(file_stems(images / name, ".jpg") & file_stems(masks / name, ".png"))
        if not frames:
            raise VosflowError(
                "the video has no frames with masks",
                path=images / name,
                expected=f"{{frame}}.jpg, and {{frame}}.png in {masks / name}",
                remedy="complete the dataset, or remove the folder",
            )
        if len(frames) < FEWEST_FRAMES:
            short.append(name)
        else:
            videos[name] = frames
    if not videos:
        raise VosflowError(
            f"no video has the {FEWEST_FRAMES} frames with masks that a clip needs"
            + (f" (the longest of {len(short)} are shorter)" if short else ""),
            path=images,
            expected="videos of at least three frames, each with a mask",
            remedy="name another folder of training videos",
        )
    if short:
        listed = ", ".join(short[:5]) + (", ..." if len(short) > 5 else "")
        print(
            f"{images}: {len(short)} of {len(short) + len(videos)} videos have fewer than {FEWEST_FRAMES} frames with "
            f"masks and are left out: {listed}",
            file=sys.stderr,
            flush=True,
        )
    return videos


def draw_frames(video: VideoSet, name: str, rng: np.random.Generator, count: int, jump: int) -> list[tuple[Path, Path]]:
    """The files of a clip: from a random frame on, each next 1 to jump + 1 frames later, half of them backwards.

    Where `count` such jumps do not fit into the video, the clip begins near the video's beginning, and frames are drawn
    towards the end or repeat: as the authors have it, but never out of order.
    """
    frames, most = video.videos[name], max(1, jump // video.frame_step)
    last, fitting = len(frames) - 1, min(most, len(frames))
    starts = max(most // 2 + 1, len(frames) - count * fitting + 1)
    places = [min(int(rng.integers(starts)), last)]
    while len(places) < count:
        wanted = places[-1] + int(rng.integers(0, fitting + 1)) + 1
        places.append(max(places[-1], min(wanted, len(frames) - fitting // len(places), last)))
    if rng.random() < 0.5:
        places.reverse()
    return [video.files(name, place) for place in places]


def choose_objects(label_maps: Sequence[np.ndarray], rng: np.random.Generator, *, checks_areas: bool) -> list[int]:
    """One or two ids of objects on the first frame; [] if there is none.

    Args:
        label_maps: uint8 [H, W] of the frames.
        checks_areas: leave out objects of at most 900 pixels there, but for those of more than 100 that stay below 400
            on the next two frames: objects of BL30K that are hidden at first. Pixels of a crop of 384 x 384; in a
            smaller one as many fewer.
    """
    ids = [int(k) for k in np.unique(label_maps[0]) if k not in (0, 255)]
    if checks_areas:
        pixel = AUTHORS_CROP / label_maps[0].size
        areas = {k: [pixel * int(np.count_nonzero(labels == k)) for labels in label_maps[:3]] for k in ids}
        ids = [k for k in ids if areas[k][0] > SMALL or (areas[k][0] > TINY and max(areas[k][1:]) < GROWN)]
    return [int(k) for k in rng.permutation(ids)[:2]]


def read_pair(image: Path, mask: Path, *, binary: bool = False) -> Pair:
    """An image (RGB) and its labels; with `binary` the labels are 1 where the mask is above 127.

    Raises:
        VosflowError: a file is missing or damaged, the two differ in size, or labels are colours.
    """
    picture, labels = _read(image).convert("RGB"), _read(mask)
    if binary:
        labels = labels.convert("L")
    elif labels.mode not in ("P", "L"):
        raise VosflowError(
            f"the mask has no ids of objects: its pixels are of Pillow's mode {labels.mode}",
            path=mask,
            expected="a PNG with a palette, or of 8 bits a pixel in grey",
            remedy="write the masks anew; with `skip_unreadable: true` in the settings training goes on without it",
        )
    if picture.size != labels.size:
        raise VosflowError(
            f"the mask is {labels.size[0]} x {labels.size[1]} pixels, its image {picture.size[0]} x {picture.size[1]}",
            path=mask,
            expected=f"the size of {image}",
            remedy="correct the file; with `skip_unreadable: true` in the stage's settings training goes on without it",
        )
    values = np.asarray(labels)
    return picture, Image.fromarray((values > 127).astype(np.uint8) if binary else values)


def _shrink(pair: Pair, short_side: int) -> Pair:
    """Resized as the authors' script does it: bicubic with antialiasing, labels to the nearest."""
    image, labels = pair
    shorter = min(image.size)
    if shorter <= short_side:
        return pair
    size = (image.width * short_side // shorter, image.height * short_side // shorter)
    return image.resize(size, Image.BICUBIC), labels.resize(size, Image.NEAREST)


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises SyntaxError for damaged PNG files
        raise VosflowError(
            f"the image cannot be read ({error})",
            path=path,
            expected="a complete image file",
            remedy="restore it; with `skip_unreadable: true` in the stage's settings training goes on without it",
        ) from error
