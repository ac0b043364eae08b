"""Check predictions for a dataset whose ground truth is not public, and write what its server takes: a zip (SA-V: a
folder). Every frame, size and id is checked first; if anything is wrong, the first ten problems are named and nothing
is written. The same predictions always give the same bytes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import VosflowError, run_command
from vosflow.options import at_least
from vosflow.submission.formats import FORMATS, chosen_split


def main() -> None:
    """Parse arguments, check and pack."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--dataset", required=True, help="dataset or dataset/split, e.g. mose/valid; known: " + ", ".join(FORMATS))
    add("--predictions", type=Path, required=True, help="masks: {video}/{frame}.png (UVO: results.json)")
    add("--output", type=Path, required=True, help="zip to write (SA-V: folder)")
    add("--manifest", type=Path, help="the split's manifest (default: results/{dataset}-{split}/manifest.json)")
    add("--allow-empty-objects", action="store_true", help="let objects pass that have no pixel on any frame")
    add("--workers", type=at_least(1), default=min(8, os.cpu_count() or 1), help="threads (default: cores, 8 at most)")
    args = parser.parse_args()
    dataset, split = chosen_split(args.dataset)
    path = args.manifest or Path("results", f"{dataset}-{split}", "manifest.json")
    if not path.is_file():
        raise VosflowError(
            "the manifest is missing: it says which frames and objects the server wants",
            path=path,
            expected="the manifest of " + f"{dataset}/{split}",
            remedy=f"write it: python scripts/write_manifest.py --dataset {dataset} --split {split} --root FOLDER "
            "--output FILE; then name it with --manifest",
        )

    from vosflow.evaluation.table import show_progress
    from vosflow.manifest import load_manifest
    from vosflow.submission.pack import write_submission

    manifest = load_manifest(path)
    if (manifest.dataset, manifest.split) != (dataset, split):
        problem = f"this is the manifest of {manifest.dataset}/{manifest.split}"
        raise VosflowError(problem, path=path, expected=f"that of {dataset}/{split}", remedy="correct --dataset")
    options = {"allow_empty_objects": args.allow_empty_objects, "workers": args.workers}
    with show_progress("checking") as progress:
        done = write_submission(manifest, args.predictions, args.output, FORMATS[dataset], progress=progress, **options)
    print(f"{done.path}: {done.files} files of {len(manifest.videos)} videos, for {FORMATS[dataset].name}")
    print("".join(f"note: {note}\n" for note in done.notes), end="")


if __name__ == "__main__":
    run_command(main)
