"""The frames of one video on disk: which they are, in which order, and how large."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vosflow.errors import VosflowError

JPEG_SUFFIXES = (".jpg", ".jpeg", ".JPG", ".JPEG")
PNG_SUFFIXES = (".png", ".PNG")


def numbered_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of `folder` with one of `suffixes`, sorted by the number that is their name; hidden files are left out.

    Raises:
        VosflowError: a name that is not a number, or two files with the same number.
    """
    numbers: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in suffixes or path.name.startswith("."):
            continue
        if not (path.stem.isascii() and path.stem.isdigit()):
            raise VosflowError(
                "the file's name is not a number",
                path=path,
                expected=f"frame numbers, like 00000{path.suffix}, which give the frames their order",
                remedy="rename the frames by their number in the video, or move this file elsewhere",
            )
        other = numbers.setdefault(int(path.stem), path)
        if other is not path:
            raise VosflowError(
                f"two files have the same frame number: {other.name} and {path.name}",
                path=folder,
                expected="one file per frame",
                remedy="remove one of the two",
            )
    return [numbers[number] for number in sorted(numbers)]


def list_frames(folder: Path, video: str, *, consecutive: bool = False) -> tuple[str, tuple[str, ...]]:
    """The suffix and the names of the frames in `folder`, in temporal order (by frame number).

    JPEG files are the frames if there are any, else PNG files. With `consecutive`, frames are numbered 0, 1, 2, ...

    Raises:
        VosflowError: no such folder, no frames, several suffixes, a name that is not a number, or a missing frame.
    """
    if not folder.is_dir():
        raise VosflowError(
            f"the frames of video {video} are missing",
            path=folder,
            expected="a folder with one JPEG file per frame",
            remedy="extract the dataset's archive again, or correct the list of videos",
        )
    files = numbered_files(folder, JPEG_SUFFIXES) or numbered_files(folder, PNG_SUFFIXES)
    if not files:
        raise VosflowError(
            f"video {video} has no frames",
            path=folder,
            expected="JPEG files (.jpg, .jpeg) or PNG files, named by frame number",
            remedy="extract the dataset's archive again, or take the video from the list",
        )
    suffixes = sorted({path.suffix for path in files})
    if len(suffixes) > 1:
        raise VosflowError(
            f"the frames of video {video} have different suffixes: {', '.join(suffixes)}",
            path=folder,
            expected="one suffix for all frames of a video",
            remedy="rename the files so that all have the same suffix",
        )
    names = tuple(path.stem for path in files)
    if consecutive:
        for number, name in enumerate(names):
            if int(name) != number:
                missing = f"{number:0{len(name)}d}{suffixes[0]}"
                raise VosflowError(
                    f"frame {missing} of video {video} is missing",
                    path=folder / missing,
                    expected=f"frames numbered from 0 without a hole (the next one there is {name}{suffixes[0]})",
                    remedy="the dataset is incomplete: extract its archive again",
                )
    return suffixes[0], names


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image in pixels, from its header.

    Raises:
        VosflowError: the file is missing, has no readable header, or is a grey image of more than 8 bits.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):  # as RGB they would be white
                raise VosflowError(
                    f"the image has more than 8 bits of grey (mode {image.mode})",
                    path=path,
                    expected="8 bits per channel, colour or grey",
                    remedy="convert the images: which 8 of the 16 bits are to be seen, only you know",
                )
            return image.height, image.width
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        reason = "empty file" if path.is_file() and path.stat().st_size == 0 else str(error)
        raise VosflowError(
            f"the image is unreadable ({reason})",
            path=path,
            expected="a JPEG or PNG image",
            remedy="the file is damaged: restore it (extract the dataset's archive again)",
        ) from error


def frame_size(paths: list[Path], video: str) -> tuple[int, int]:
    """Height and width that all frames of a video share; reads the header of every one.

    Raises:
        VosflowError: an unreadable header, or a frame of another size than the first.
    """
    height, width = image_size(paths[0])
    for path in paths[1:]:
        size = image_size(path)
        if size != (height, width):
            raise VosflowError(
                f"the frame is {size[1]}x{size[0]} pixels",
                path=path,
                expected=f"{width}x{height}, like the first frame of video {video}",
                remedy="restore the original frames; do not mix resolutions in one video",
            )
    return height, width
