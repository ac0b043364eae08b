#!/usr/bin/env python
"""Check a dataset: counts against its publisher's, sizes, missing and unreadable files. Status 1 if it is wrong."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import VosflowError, run_command
from vosflow.options import at_least


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "name", metavar="NAME[/SPLIT]", help="of the catalog, as davis2017/val; all splits if only NAME"
    )
    parser.add_argument("--root", type=Path, help="folder with its files, if they are not below the data folder")
    parser.add_argument("--data", default="data", help="the data folder of the config (default: data)")
    parser.add_argument(
        "--list", action="append", nargs=2, default=[], metavar=("ROLE", "FILE"), help="as of write_manifest"
    )
    parser.add_argument("--full", action="store_true", help="decode every image; without it, headers are read")
    parser.add_argument("--workers", type=at_least(1), default=2, help="processes (default: 2)")
    parser.add_argument("--all", action="store_true", help="show every finding, not only the first twenty of each kind")
    arguments = parser.parse_args()

    from rich.console import Console

    from vosflow.datasets.check import check_split
    from vosflow.datasets.check_table import print_check, splits_of, where_is

    console = Console()
    sound = True
    for dataset, split in splits_of(arguments.name):
        name = f"{dataset}/{split}"
        try:
            root, lists = where_is(dataset, split, arguments.data, arguments.root, arguments.list)
            with console.status(name) as status:
                told = lambda video, name=name, status=status: status.update(f"{name}: {video}")  # noqa: E731
                options = {"full": arguments.full, "workers": arguments.workers, "told": told}
                check = check_split(dataset, split, root, lists=lists, **options)
        except VosflowError as error:  # one may have some splits only
            print(f"{name}: error: {error}", file=sys.stderr)
            sound = False
            continue
        print_check(console, f"{name} in {root}", check, everything=arguments.all)
        sound = sound and check.sound
    return 0 if sound else 1


if __name__ == "__main__":
    run_command(main)
