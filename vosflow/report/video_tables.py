"""Every video of every run as a table of shaded numbers, where bars would not fit a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vosflow.report.results import RunResult, main_runs, rank
from vosflow.report.tables import percent

MOST_RUNS, MOST_VIDEOS = 6, 60  # of a dataset whose videos are drawn as bars
SHADES = 10


@dataclass(frozen=True)
class VideoTable:
    """The J&F of each video (rows) and run (columns) of one dataset, the videos in the order of the main run's J&F.

    Attributes:
        runs: (name, whether it is the main run).
        rows: (video, [(percent or "", shade: 0 for a full score to SHADES)] of each run, the largest difference of two
            runs in percent).
    """

    dataset: str
    runs: list[tuple[str, bool]]
    rows: list[tuple[str, list[tuple[str, int]], str]]


def fits_bars(runs: Sequence[RunResult]) -> bool:
    """Whether the videos of these runs, all on one dataset, can be read as bars."""
    return len(runs) <= MOST_RUNS and all(len(run.video_scores) <= MOST_VIDEOS for run in runs)


def video_tables(runs: Sequence[RunResult]) -> list[VideoTable]:
    """A table for each dataset whose videos do not fit bars."""
    scored = [run for run in runs if run.scores is not None]
    made = []
    for dataset, main in main_runs(scored).items():
        chosen = [run for run in scored if run.dataset == dataset]
        if not fits_bars(chosen):
            rows = [
                (video, *_cells([run.video_scores.get(video) for run in chosen])) for video in ordered(main, chosen)
            ]
            made.append(VideoTable(dataset, [(run.name, run is main) for run in chosen], rows))
    return made


def ordered(main: RunResult, runs: Sequence[RunResult]) -> list[str]:
    """All videos of some runs: those of the main run by falling score, then those that only others have."""
    videos = sorted(main.video_scores, key=lambda video: -rank(main.video_scores[video]))
    return list(dict.fromkeys([*videos, *(video for run in runs for video in run.video_scores)]))


def _cells(scores: Sequence[float | None]) -> tuple[list[tuple[str, int]], str]:
    """What is shown of a video's scores (fractions; None where a run does not have it), and how far they are apart."""
    known = [score for score in scores if score is not None and not math.isnan(score)]
    cells = [("" if score is None else percent(score), _shade(score)) for score in scores]
    return cells, percent(max(known) - min(known)) if known else ""


def _shade(score: float | None) -> int:
    return 0 if score is None or math.isnan(score) else round(SHADES * (1 - min(max(score, 0.0), 1.0)))
