"""A look at earlier results, once per planning: what they promise, and what this study will replace."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from vosflow.errors import VosflowError
from vosflow.method import method_digest
from vosflow.records import RunFolder, withdraw_false_records
from vosflow.study import Run, Study


def review_results(study: Study, announce: Callable[[str], None]) -> None:
    """Withdraw promises of earlier jobs that are no longer true, and announce what will be computed again or replaced.

    To be called once per planning, not by the jobs: while they run, results are in between.

    Raises:
        VosflowError: where results or data should go, there is a file.
    """
    _refuse_files_for_folders(study)
    dropped = _runs_dropped_from_tables(study)
    if dropped:
        announce(
            f"{study.config.paths.results}: the tables and the page are of another study ({dropped} runs) and will be "
            "replaced; masks and scores stay. To keep them, give this study its own `paths: results:`"
        )
    for note in dict.fromkeys(note for run in study.runs for note in run.licence_notes):
        announce(note)
    for run in study.runs:
        false = withdraw_false_records(run.folder, run.shard_records)
        if false:
            announce(f"{run.folder}: masks of {', '.join(false)} are gone or out of date and will be computed again")
        if any(not Path(record).exists() for record in run.shard_records):
            others = _videos_of_other_settings(run)
            if others:
                announce(
                    f"{run.folder} holds {others} videos of other settings, which will be replaced; "
                    "to keep both, give this run another `name:`"
                )


def _refuse_files_for_folders(study: Study) -> None:
    paths = study.config.paths
    for key, folder in {"results": paths.results, "data": paths.data, "cache": study.config.cache}.items():
        for place in (Path(folder), *Path(folder).parents):
            if place.exists() and not place.is_dir():
                raise VosflowError(
                    "this is a file",
                    path=place,
                    expected=f"a folder, or nothing yet: the config says `paths: {key}: {folder}`",
                    remedy="name another folder",
                )


def _runs_dropped_from_tables(study: Study) -> int:
    """Runs of another study in the tables that this one will replace."""
    try:
        with open(f"{study.config.paths.results}/tables/summary.csv", newline="", encoding="utf-8") as file:
            listed = {(row["dataset"], row["run"]) for row in csv.DictReader(file)}
    except (OSError, KeyError):
        return 0
    planned = {(f"{run.dataset.dataset}/{run.dataset.split}", run.id) for run in study.runs}
    return 0 if listed & planned else len(listed)


def _videos_of_other_settings(run: Run) -> int:
    """Finished videos of other settings; what a killed job left has no method yet."""
    folder = RunFolder(run.folder)
    records = [folder.read_record(path.stem) for path in sorted(folder.videos.glob("*.json"))]
    planned = method_digest(run.tracker, run.settings)
    return sum(record is not None and record.get("method", planned) != planned for record in records)
