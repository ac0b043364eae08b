"""Video files (mp4 and others): decoded once into a folder of frames, which is used from then on.

Decoding is OpenCV's, with the FFmpeg in its wheels.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from vosflow.digest import file_digest
from vosflow.errors import VosflowError, cannot_write

MARKER = "video.json"  # in the folder of frames: which file they are of
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Extracted:
    """The frames of a video file: how many, height and width in pixels, frames per second (None: the file says none).

    `sha256` is that of the video; `suffix` and `digits` make the names of the frames.
    """

    sha256: str
    frames: int
    height: int
    width: int
    fps: float | None
    suffix: str
    digits: int


def extract_frames(video: str | Path, folder: str | Path, *, suffix: str = ".jpg", digits: int = 5) -> Extracted:
    """Decode `video` into `{folder}/00000.jpg`, `00001.jpg`, ... unless that has been done.

    The folder appears when all frames are there. Frames are upright, as the file's rotation says, uint8 [H, W, 3].

    Args:
        suffix: ".jpg" (quality 95) or ".png" (lossless, about ten times larger).
        digits: the names are frame numbers with at least so many digits.

    Raises:
        VosflowError: not a video that can be decoded, no frames, frames of different sizes, a folder of other frames in
            the way, or no room to write.
    """
    video, folder = Path(video), Path(folder)
    if not video.is_file():
        raise VosflowError("there is no such video", path=video, expected="a video file", remedy="correct the path")
    digest = file_digest(video)
    known = _known(folder)
    if known is not None and (known.sha256, known.suffix, known.digits) == (digest, suffix, digits):
        return known
    if known is None and folder.is_dir() and any(folder.iterdir()):
        raise VosflowError(
            "the folder for the frames holds something else",
            path=folder,
            expected="no such folder, or one that vosflow made from a video",
            remedy="name another folder, or remove this one",
        )
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.decoding")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        extracted = _decode(video, aside, digest, suffix, digits)
        (aside / MARKER).write_text(json.dumps(asdict(extracted)), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(aside, folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return extracted


def video_folders(video: str | Path, first_mask: str | Path, place: str | Path | None = None) -> tuple[Path, Path]:
    """Folders in the layout of `vosflow.datasets.folder` for one video file and the mask of its first frame.

    Args:
        first_mask: a PNG file with object ids as pixel values; it is linked, not copied.
        place: where the folders are made; by default `{video without suffix}.frames`, beside the video.

    Returns:
        (base_video_dir, input_mask_dir), which hold `{video}/00000.jpg`, ... and `{video}/00000.png`.

    Raises:
        VosflowError: as `extract_frames`, or the mask is missing.
    """
    video, first_mask = Path(video), Path(first_mask)
    if not first_mask.is_file():
        raise VosflowError(
            "the mask of the first frame is missing",
            path=first_mask,
            expected="a PNG file with object ids, of the size of the video",
            remedy="correct the path",
        )
    place = video.with_suffix(".frames") if place is None else Path(place)
    extract_frames(video, place / "frames" / video.stem)
    link = place / "masks" / video.stem / "00000.png"
    link.parent.mkdir(parents=True, exist_ok=True)
    aside = link.with_name(f".{os.getpid()}.png")
    aside.unlink(missing_ok=True)
    os.symlink(first_mask.absolute(), aside)
    os.replace(aside, link)
    return place / "frames", place / "masks"


def _decode(video: Path, folder: Path, digest: str, suffix: str, digits: int) -> Extracted:
    import cv2  # takes a while to import, and nothing else here needs it

    capture = cv2.VideoCapture(str(video))
    try:
        fps = capture.get(cv2.CAP_PROP_FPS)
        size, count = None, 0
        while True:
            there, frame = capture.read()  # uint8 [H, W, 3], BGR
            if not there:
                break
            size = size or frame.shape[:2]
            if frame.shape[:2] != size:
                raise _bad(video, f"frame {count} has another size than the first")
            _save(cv2, folder / f"{count:0{digits}d}{suffix}", frame)
            count += 1
    finally:
        capture.release()
    if size is None:
        raise _bad(video, "no frame of it can be decoded")
    return Extracted(digest, count, *size, fps if 0 < fps < 1000 else None, suffix, digits)


def _save(cv2, path: Path, frame) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix == ".jpg" else []
    done, code = cv2.imencode(path.suffix, frame, options)
    if not done:
        raise VosflowError(
            "the frame cannot be encoded", path=path, expected=".jpg or .png", remedy="change the suffix"
        )
    path.write_bytes(code.tobytes())  # cv2.imwrite does not say why it fails


def _bad(video: Path, problem: str) -> VosflowError:
    return VosflowError(
        f"not a video that can be decoded: {problem}",
        path=video,
        expected="an mp4, mov, avi, mkv or webm file that FFmpeg reads",
        remedy="convert it, or extract its frames yourself and name their folder instead",
    )


def _known(folder: Path) -> Extracted | None:
    """What was extracted to the folder before; of no video if a frame of it is gone. None if we did not make it."""
    try:
        known = Extracted(**json.loads((folder / MARKER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    there = sum(1 for path in folder.iterdir() if path.suffix == known.suffix)
    return known if there == known.frames else Extracted("", 0, 0, 0, None, "", 0)
