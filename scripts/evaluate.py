"""Score masks against ground truth by a publisher's rules, and print a table. With --output also scores.csv,
per_object_results.csv and global_results.csv are written. Nothing is read from an earlier evaluation."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import run_command
from vosflow.options import at_least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--annotations", type=Path, help="ground truth: {video}/{frame}.png, or what the protocol takes (see list)")
    add("--manifest", type=Path, help="a dataset split's manifest, instead of --annotations")
    add("--predictions", type=Path, help="masks to score: {video}/{frame}.png (or results.json)")
    add("--compare", type=Path, metavar="OTHER", help="masks to compare them with: differences and their intervals")
    add("--protocol", help="the rules; `list` describes them (default: davis2017, or the manifest's)")
    add("--videos", type=Path, help="list of videos, or of DAVIS 2016's frame pairs (default: all sub-folders)")
    add("--meta", type=Path, help="the publisher's JSON file beside the masks (LVOS, MOSE v2, YouTube-VOS)")
    add("--strict", action=argparse.BooleanOptionalAction, default=True, help="--no-strict: what is missing is empty")
    add("--workers", type=at_least(1), default=os.cpu_count() or 1, help="processes (default: cores)")
    add("--output", type=Path, help="folder for the three files")
    args = parser.parse_args()

    from vosflow.evaluation import table  # not needed for --help

    if args.protocol == "list":
        return table.print_protocols()
    if (args.annotations is None) == (args.manifest is None) or args.predictions is None:
        parser.error("give --predictions, and either --annotations or --manifest")
    if args.manifest and (args.videos or args.meta):
        parser.error("--videos and --meta go with --annotations: a manifest has its own list")

    from vosflow.evaluation.annotations import annotated_folder
    from vosflow.evaluation.run import evaluate_run
    from vosflow.manifest import load_manifest

    extra = {"protocol": args.protocol or "davis2017", "videos": args.videos, "meta": args.meta}
    truth = load_manifest(args.manifest) if args.manifest else annotated_folder(args.annotations, **extra)
    options = {"protocol": args.protocol, "strict": args.strict, "workers": args.workers}
    with table.show_progress() as progress:
        result = evaluate_run(truth, args.predictions, args.output, progress=progress, **options)
        other = evaluate_run(truth, args.compare, progress=progress, **options) if args.compare else None
    table.print_evaluation(result, truth)
    if other is not None:
        table.print_comparison(result, other, args.predictions, args.compare)


if __name__ == "__main__":
    run_command(main)
