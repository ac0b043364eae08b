"""Score label maps against ground truth: prints a table and writes scores.csv, per_object_results.csv and
global_results.csv. Nothing is read from an earlier evaluation."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--annotations", type=Path, help="ground truth: {video}/{frame}.png (DAVIS/Annotations/480p)")
    truth.add_argument("--manifest", type=Path, help="a dataset split's manifest, instead of --annotations")
    parser.add_argument("--predictions", type=Path, required=True, help="label maps to score: {video}/{frame}.png")
    parser.add_argument(
        "--videos",
        type=Path,
        help="with --annotations: a list of videos, or DAVIS 2016's list of frame pairs (default: all sub-folders)",
    )
    parser.add_argument("--protocol", help="davis2017 or davis2016 (default: davis2017, or the manifest's)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: cores)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the three files")
    args = parser.parse_args()
    if args.manifest and args.videos:
        parser.error("--videos goes with --annotations: a manifest has its own list")

    from vosflow.evaluation.annotations import annotated_folder
    from vosflow.evaluation.run import evaluate_run
    from vosflow.evaluation.table import print_summary, progress_bar
    from vosflow.manifest import load_manifest

    if args.manifest:
        manifest = load_manifest(args.manifest)
    else:
        manifest = annotated_folder(args.annotations, videos=args.videos, protocol=args.protocol or "davis2017")
    with progress_bar() as progress:
        evaluation = evaluate_run(
            manifest,
            args.predictions,
            args.output,
            protocol=args.protocol,
            workers=args.workers,
            progress=progress,
        )
    print_summary(evaluation.summary, title=args.protocol or manifest.protocol)


if __name__ == "__main__":
    run_command(main)
