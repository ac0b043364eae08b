#!/usr/bin/env python
"""Extract a fetched archive, safely and at once or not at all."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import run_command
from vosflow.records import refuse_filled_folder


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, help="zip, tar or compressed tar archive")
    parser.add_argument("--folder", type=Path, required=True, help="folder for its content; replaced if made by this")
    parser.add_argument("--marker", type=Path, help="JSON file that says it is done (default: {folder}.json)")
    arguments = parser.parse_args()

    from vosflow.datasets.archive import extract_archive  # not needed for --help

    marker = arguments.marker or arguments.folder.with_name(f"{arguments.folder.name}.json")
    if not arguments.marker and not marker.is_file():
        refuse_filled_folder(arguments.folder, "what is in the archive")
    extracted = extract_archive(arguments.archive, arguments.folder, marker)
    print(f"{arguments.folder}: {extracted.files:,} files, {extracted.bytes:,} bytes", file=sys.stderr)
    return None


if __name__ == "__main__":
    run_command(main)
