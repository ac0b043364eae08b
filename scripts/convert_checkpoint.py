#!/usr/bin/env python
"""Convert pickled weights (.npy with objects, .pt, .pth) to safetensors, without running what is in the pickle."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the pickled weights")
    parser.add_argument("--output", type=Path, help="safetensors file to write (default: beside it)")
    parser.add_argument(
        "--drop-unknown",
        action="store_true",
        help="leave out objects that are neither arrays, tensors nor dictionaries, instead of refusing the file",
    )
    arguments = parser.parse_args()

    from vosflow.datasets.convert import convert_checkpoint  # not needed for --help

    output = arguments.output or arguments.file.with_suffix(".safetensors")
    done = convert_checkpoint(arguments.file, output, drop_unknown=arguments.drop_unknown)
    dropped = f"; left out: {', '.join(done['dropped'])}" if done["dropped"] else ""
    print(f"{output}: {done['tensors']} tensors{dropped}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
