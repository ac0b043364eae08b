"""Published numbers beside reproduced ones: which rows a run may be compared with, and why not the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vosflow.catalog import PublishedRow, find_split, load_published
from vosflow.errors import VosflowError
from vosflow.report.results import RunResult
from vosflow.trackers.sam2 import TRAINED_IMAGE_SIZE, TRAINED_NUM_MASKMEM

METRICS = {
    "J&F": "J&F-Mean",
    "J": "J-Mean",
    "F": "F-Mean",
    "G": "G",
    "J&F-dot": "J&F-dot-Mean",
    "J-seen": "J-seen-Mean",
    "F-seen": "F-seen-Mean",
    "J-unseen": "J-unseen-Mean",
    "F-unseen": "F-unseen-Mean",
    "AR100": "AR@100",
    "AP": "AP",
}
"""The column of global_results.csv for each metric; those that a run's protocol does not compute are passed over."""

SAM2_AS_PUBLISHED = {"num_maskmem": (TRAINED_NUM_MASKMEM,), "image_size": (TRAINED_IMAGE_SIZE,)}
SAME_METHOD = ("precision", "speed", "compile", "preset", "frames", "seed")
SPEEDS = ("exact", "fast")  # of most trackers' `mode`; that of RDE-VOS is another method for each value
AS_PUBLISHED = {"sam2": SAM2_AS_PUBLISHED, "sam2long": SAM2_AS_PUBLISHED}
"""Values that say aloud what the released networks do anyway: they change no method, nor do those of SAME_METHOD,
whatever they are (a preset only names the values of other settings, what frames masks are given of changes none of
them, published numbers are means over seeds), and SPEEDS."""

TOLERANCE = 0.005
"""How far two runs of the same weights may be apart, as a fraction: the re-runs of SAM 2 on SA-V test by the authors of
SAM2Long are up to 0.5 points from the numbers of its own README. Not a published value."""


@dataclass(frozen=True)
class Comparison:
    """A published number and the run that stands beside it; fractions.

    `reasons` say why they are not measures of the same thing; if there is none, `difference` = reproduced - published.
    """

    run: RunResult
    row: PublishedRow
    published: float
    reproduced: float
    reasons: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        return None if self.reasons else self.reproduced - self.published

    @property
    def within_tolerance(self) -> bool | None:
        """Whether the run reproduces the number, or None where they cannot be compared."""
        return None if self.reasons else abs(self.reproduced - self.published) <= TOLERANCE + 1e-9


def compare(run: RunResult, published: Iterable[PublishedRow] | None = None) -> list[Comparison]:
    """The published numbers for the tracker, checkpoint, dataset and split of `run`: comparable ones first.

    Otherwise the order is the catalog's (tables show the first J&F). A run that is not scored, or compared with
    something else than ground truth, has none. `published` replaces the catalog's rows.
    """
    if run.scores is None or run.description.get("agreement_with") or run.checkpoint is None:
        return []
    identity = (run.tracker, run.checkpoint, run.description["dataset"], run.description["split"])
    found = [
        Comparison(run, row, row.value / 100, run.scores[column], tuple(_reasons(run, row)))
        for row in (load_published() if published is None else published)
        if (row.tracker, row.checkpoint, row.dataset, row.split) == identity
        and (column := METRICS.get(row.metric)) in run.scores
    ]
    return sorted(found, key=lambda comparison: bool(comparison.reasons))


def awaited(run: RunResult, published: Iterable[PublishedRow] | None = None) -> list[tuple[PublishedRow, list[str]]]:
    """The numbers that a server gave others for the tracker and checkpoint of a run that has no public ground truth.

    Each with the reasons why the server's answer to this run's submission will not be a measure of the same thing.
    Servers score a video's annotated frames whether a tracker was given these alone or all frames ("valid_all_frames").
    """
    if run.scores is not None or run.checkpoint is None:
        return []
    split = run.description["split"].removesuffix("_all_frames")
    identity = (run.tracker, run.checkpoint, run.description["dataset"], split)
    found = [
        (row, [*filter(None, [row.not_comparable]), *_other_settings(run, row), *_missing(run)])
        for row in (load_published() if published is None else published)
        if (row.tracker, row.checkpoint, row.dataset, row.split) == identity and row.metric != "FPS"
    ]
    return sorted(found, key=lambda pair: bool(pair[1]))


def _reasons(run: RunResult, row: PublishedRow) -> Iterator[str]:
    """Why the run and the published number are not measures of the same thing, in words for a table."""
    if row.not_comparable:
        yield row.not_comparable
    protocol = run.description["protocol"]
    if row.evaluator and row.evaluator != protocol:
        yield f"scored by {_evaluator(row.evaluator)}, here by the rules of {protocol}"
    yield from _other_settings(run, row)
    yield from _missing(run)


def _other_settings(run: RunResult, row: PublishedRow) -> Iterator[str]:
    """How the run's method differs from the published one's."""
    changed = dict(sorted(_method_settings(run).items()))
    if changed != row.settings:
        differing = {name: changed.get(name, "default") for name in sorted({*changed, *row.settings})}
        differing = {name: value for name, value in differing.items() if row.settings.get(name, "default") != value}
        yield "other settings: " + ", ".join(f"{name}={value}" for name, value in differing.items())


def _method_settings(run: RunResult) -> dict:
    """The settings that make `run` another method than the tracker at its defaults."""
    stated = AS_PUBLISHED.get(run.tracker, {})
    return {
        name: value
        for name, value in run.changed_settings.items()
        if name not in SAME_METHOD and value not in (*stated.get(name, ()), *SPEEDS)
    }


def _evaluator(name: str) -> str:
    return {"server": "the publisher's server", "unknown": "an evaluator that is not named"}.get(name, name)


def _missing(run: RunResult) -> Iterator[str]:
    """How many videos, frames and objects were tracked where the publisher counts others."""
    try:
        facts = find_split(run.description["dataset"], run.description["split"])
    except VosflowError:  # a dataset of the user's own
        return
    for what in ("videos", "frames", "objects"):
        published, tracked = getattr(facts, what), run.description["totals"][what]
        if published not in (None, tracked):
            yield f"{tracked} of {published} {what}"
