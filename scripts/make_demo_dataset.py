"""Write the demo dataset: eight small videos drawn from a seed, in the folder layout of DAVIS 2017."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.datasets.demo import write_demo_dataset
from vosflow.errors import run_command
from vosflow.records import FORMAT, refuse_filled_folder, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write, for example data/datasets/demo; with --marker, one that is already there is replaced",
    )
    parser.add_argument("--marker", type=Path, metavar="FILE", help="JSON file that says it is done")
    arguments = parser.parse_args()
    if not arguments.marker:
        refuse_filled_folder(arguments.output, "the demo dataset")
    write_demo_dataset(arguments.output)
    if arguments.marker:
        write_json(arguments.marker, {"format": FORMAT, "dataset": "demo"})


if __name__ == "__main__":
    run_command(main)
