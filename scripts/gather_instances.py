"""Gather the objects that a run proposed into one results.json: the job behind the rule `gather_instances`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import run_command
from vosflow.instances import write_results
from vosflow.manifest import load_manifest


def main() -> None:
    """Parse arguments and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", required=True, help="manifest of the dataset split")
    parser.add_argument("--masks", required=True, help="the run's folder of masks: {video}/instances.jsonl")
    parser.add_argument("--output", required=True, help="results.json, in the format of YouTube-VIS")
    args = parser.parse_args()
    count = write_results(load_manifest(args.manifest), args.masks, args.output)
    print(f"{args.output}: {count} objects")


if __name__ == "__main__":
    run_command(main)
