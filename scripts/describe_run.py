"""Gather what a finished run was made from and what it cost: the job behind the rule `describe_run`."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.describe import describe_run
from vosflow.errors import run_command
from vosflow.manifest import load_manifest
from vosflow.records import write_json


def main() -> None:
    """Parse arguments and write run.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", required=True, help="manifest of the dataset split")
    parser.add_argument("--description", required=True, help="JSON of the run's settings, as planned")
    parser.add_argument("--folder", required=True, help="the run's folder")
    parser.add_argument("--output", required=True, help="run.json")
    args = parser.parse_args()
    description = json.loads(args.description)
    write_json(args.output, describe_run(description, load_manifest(args.manifest), args.manifest, args.folder))


if __name__ == "__main__":
    run_command(main)
