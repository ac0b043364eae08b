#!/usr/bin/env python
"""Fetch a file of the catalog: an archive of a dataset, or a checkpoint; checked, resumed, recorded."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.catalog import find_archive, find_checkpoint
from vosflow.errors import VosflowError, run_command
from vosflow.records import FORMAT, write_json


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="list all files of the catalog, and which are there")
    parser.add_argument("--dataset", metavar="NAME", help="dataset of the catalog, for instance davis2017")
    parser.add_argument("--archive", metavar="ID", help="archive of the dataset, for instance trainval-480p")
    parser.add_argument("--checkpoint", metavar="ID", help="checkpoint of the catalog, for instance sam2.1_tiny")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to put it (default: below --data)")
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="folder of all downloads (default: %(default)s)"
    )
    parser.add_argument("--locks", type=Path, help="folder of the records of what was fetched (default: {data}/locks)")
    parser.add_argument("--marker", type=Path, metavar="FILE", help="JSON file that says it is there and was checked")
    arguments = parser.parse_args()

    from vosflow.datasets.fetch import fetch_catalog_file, list_catalog  # not needed for --help

    if arguments.list:
        print("\n".join(list_catalog(arguments.data)))
        return None
    if arguments.checkpoint:
        entry, folder = find_checkpoint(arguments.checkpoint), "checkpoints"
    elif arguments.dataset and arguments.archive:
        entry, folder = find_archive(arguments.dataset, arguments.archive), "downloads"
    else:
        raise VosflowError(
            "nothing to fetch",
            expected="--checkpoint ID, or --dataset NAME and --archive ID",
            remedy="`scripts/fetch.py --list` shows what there is",
        )
    output = arguments.output or arguments.data / folder / entry.file
    record = fetch_catalog_file(entry, output, locks=arguments.locks or arguments.data / "locks")
    if arguments.marker:
        write_json(arguments.marker, {"format": FORMAT, **asdict(record)})
    return None


if __name__ == "__main__":
    run_command(main)
