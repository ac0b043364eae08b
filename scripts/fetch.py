#!/usr/bin/env python
"""Fetch or import files of the catalog: archives of datasets, checkpoints. Checked, resumed, recorded."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import VosflowError, run_command
from vosflow.records import FORMAT, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--list", nargs="?", const="", metavar="WORD", help="show the catalog, or those files whose row has WORD in it")
    add("--dataset", metavar="NAME", help="dataset of the catalog, for instance davis2017")
    add("--archive", metavar="ID", help="archive of the dataset, for instance trainval-480p")
    add("--checkpoint", metavar="ID", help="checkpoint of the catalog, for instance sam2.1_tiny")
    add("--import", dest="given", type=Path, metavar="PATH", help="use this folder, archive or file: nothing is copied")
    add("--data", type=Path, default=Path("data"), help="folder of all downloads (default: %(default)s)")
    add("--marker", type=Path, metavar="FILE", help="JSON file that says it is there and was checked")
    options = parser.parse_args()
    locks = options.data / "locks"

    if options.list is not None:
        from vosflow.datasets.listing import print_catalog  # none of these imports is needed for --help

        return print_catalog(options.data, options.list)
    if bool(options.dataset) == bool(options.checkpoint):
        raise VosflowError(
            "one thing is fetched at a time" if options.dataset else "nothing to fetch",
            expected="--checkpoint ID; or --dataset NAME and --archive ID; or --import PATH and one of these",
            remedy="`python scripts/fetch.py --list` shows what there is",
        )
    if options.given:
        from vosflow.datasets.imports import import_checkpoint, import_dataset

        if options.checkpoint:
            return print(*import_checkpoint(options.given, options.checkpoint, options.data, locks))
        return print(*import_dataset(options.given, options.dataset, options.archive, options.data, locks), sep="\n")
    from vosflow.datasets.fetch import fetch_archive
    from vosflow.datasets.fetch_weights import fetch_checkpoint

    if options.checkpoint:
        record = fetch_checkpoint(options.checkpoint, options.data, locks=locks)
    else:
        record = fetch_archive(options.dataset, options.archive or "", options.data, locks=locks)
    if options.marker:  # for the workflow
        write_json(options.marker, {"format": FORMAT, **asdict(record)})


if __name__ == "__main__":
    run_command(main)
