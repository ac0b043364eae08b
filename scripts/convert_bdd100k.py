#!/usr/bin/env python
"""Turn the masks of BDD100K MOTS 2020 into label maps, and link the frames: {folder}/vos/{split}/..."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with images/seg_track_20 and labels/seg_track_20/bitmasks")
    parser.add_argument("--split", choices=("train", "val"), default="val", help="(default: %(default)s)")
    arguments = parser.parse_args()

    from rich.progress import track

    from vosflow.datasets.bdd100k_masks import convert_split

    made = [name for _, names in track(convert_split(arguments.folder, arguments.split), "videos") for name in names]
    print(f"{arguments.folder / 'vos' / arguments.split}: {len(made)} videos", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
