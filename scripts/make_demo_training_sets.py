"""Write small training sets drawn by the demo generator: still images and videos, in the layouts of the real ones."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import run_command
from vosflow.options import at_least
from vosflow.records import FORMAT, refuse_filled_folder, write_json
from vosflow.training.rde.demo_sets import write_demo_sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--marker", type=Path, metavar="FILE", help="JSON file that says it is done")
    parser.add_argument("--workers", type=at_least(1), default=1, metavar="N", help="processes that draw (default: 1)")
    arguments = parser.parse_args()
    if not arguments.marker:
        refuse_filled_folder(arguments.output, "the training sets")
    write_demo_sets(arguments.output, arguments.workers)
    if arguments.marker:
        write_json(arguments.marker, {"format": FORMAT, "dataset": "demo_sets"})


if __name__ == "__main__":
    run_command(main)
