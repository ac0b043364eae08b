#!/usr/bin/env python
"""Write the manifest of a dataset split: its videos, frames, objects, prompts and ground truth, all checked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import VosflowError, run_command
from vosflow.options import at_least


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, metavar="NAME", help="dataset of the catalog, or any name")
    parser.add_argument("--split", required=True, metavar="NAME", help="its split")
    parser.add_argument("--root", type=Path, help="folder with its files, for instance the DAVIS folder of the archive")
    parser.add_argument(
        "--list",
        action="append",
        nargs=2,
        default=[],
        metavar=("ROLE", "FILE"),
        help="file that comes beside the archive, as --list videos meta_valid.json",
    )
    parser.add_argument(
        "--folder",
        metavar="JSON",
        help="for a dataset that is not in the catalog: its description, as in the config: "
        '\'{"base_video_dir": "frames", "input_mask_dir": "masks"}\'',
    )
    parser.add_argument("--workers", type=at_least(1), default=1, help="processes, for many videos (default: 1)")
    parser.add_argument("--output", type=Path, required=True, help="manifest to write")
    arguments = parser.parse_args()
    if (arguments.root is None) == (arguments.folder is None):
        raise VosflowError("--root or --folder?", expected="one of them: --root for a dataset of the catalog")

    from vosflow.datasets import build_folder_manifest, build_manifest, folder_description  # not needed for --help
    from vosflow.manifest import save_manifest

    if arguments.folder is not None:
        description = folder_description(arguments.folder)
        manifest = build_folder_manifest(arguments.dataset, arguments.split, description)
    else:
        options = {"lists": dict(arguments.list), "workers": arguments.workers}
        manifest = build_manifest(arguments.dataset, arguments.split, arguments.root, **options)
    save_manifest(manifest, arguments.output)
    frames = sum(len(video.frames.names) for video in manifest.videos)
    print(f"{arguments.output}: {len(manifest.videos)} videos, {frames} frames", file=sys.stderr)
    return None


if __name__ == "__main__":
    run_command(main)
