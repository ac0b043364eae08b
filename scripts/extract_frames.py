#!/usr/bin/env python
"""Turn video files into folders of frames, each once: {output}/{video}/00000.jpg, 00001.jpg, ..."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import VosflowError, run_command

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("videos", type=Path, nargs="+", help="video files, or folders of them")
    parser.add_argument("--output", type=Path, required=True, help="folder with one sub-folder per video")
    parser.add_argument("--suffix", choices=(".jpg", ".png"), default=".jpg", help="format (default: %(default)s)")
    parser.add_argument(
        "--digits",
        type=int,
        choices=range(1, 10),
        default=5,
        metavar="N",
        help="digits of the frames' names; UVO has 1 (default: 5)",
    )
    arguments = parser.parse_args()

    from rich.progress import track

    from vosflow.datasets.video_file import extract_frames

    files = [file for path in arguments.videos for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    files = [file for file in files if file.suffix.lower() in SUFFIXES or file in arguments.videos]
    if not files:
        raise VosflowError("no video files", path=arguments.videos[0], expected=" ".join(SUFFIXES))
    if twice := next((file for file in files if [other.stem for other in files].count(file.stem) > 1), None):
        raise VosflowError(f"two videos are called {twice.stem}", path=twice, remedy="extract them to two folders")
    total = 0
    for file in track(files, "videos"):
        place = arguments.output / file.stem
        total += extract_frames(file, place, suffix=arguments.suffix, digits=arguments.digits).frames
    print(f"{arguments.output}: {len(files)} videos, {total} frames", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
