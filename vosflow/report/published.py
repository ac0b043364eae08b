"""Published numbers beside reproduced ones: which rows a run may be compared with, and why not the others."""

from __future__ import annotations

import json
import math
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

SAM_PT_SWITCHES = {
    "reinit_variant": "use_point_reinit",
    "reinit_horizon": "use_point_reinit",
    "reinit_point_tracker_horizon": "use_point_reinit",
    "patch_size": "use_patch_matching_filtering",
    "patch_similarity_threshold": "use_patch_matching_filtering",
    "max_other_objects_positive_points": "add_other_objects_positive_points_as_negative_points",
    "negative_point_selection_method": "negative_points_per_mask",
}
"""Settings of SAM-PT that do nothing where another one is false or 0. (Where a published number has that one on, it is
the other one that differs.)"""
SAM_PT_BATCHES = {"masks_batch_size": 5, "point_tracker_mask_batch_size": 5}
"""Numbers of objects of SAM-PT that do nothing where no video has more, and what they are by default."""
FOLLOWING_EACH_POINT = ("pips", "pips_plus_plus", "raft", "tapnet", "tapir", "superglue")
"""Point trackers that give a point's track whatever other points they are given, in whatever batches."""

COMPARABLE = (False, False, -1)  # nearer than any `_distance`
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

    Of the others those first whose settings are nearest. Otherwise the order is the catalog's (tables show the first
    J&F). A run that is not scored, or compared with something else than ground truth, has none. `published` replaces
    the catalog's rows.
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
    return sorted(found, key=lambda one: _distance(run, one.row) if one.reasons else COMPARABLE)


def of_main_score(run: RunResult, published: Iterable[PublishedRow] | None = None) -> Comparison | None:
    """The published number that stands beside the run's main score in tables: the first that `compare` finds."""
    found = (one for one in compare(run, published) if METRICS[one.row.metric] == run.rules.headline)
    return next(found, None)


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
    return sorted(found, key=lambda pair: _distance(run, pair[0]) if pair[1] else COMPARABLE)


def as_printed(row: PublishedRow) -> str:
    """A published number in percent, with the decimals that it has in the catalog (one at least)."""
    return f"{row.value:.1f}" if round(row.value, 1) == row.value else f"{row.value:g}"


def _reasons(run: RunResult, row: PublishedRow) -> Iterator[str]:
    """Why the run and the published number are not measures of the same thing, in words for a table."""
    if row.not_comparable:
        yield row.not_comparable
    protocol = run.description["protocol"]
    if row.evaluator and row.evaluator != protocol:
        yield f"scored by {_evaluator(row.evaluator)}, here by the rules of {protocol}"
    yield from _other_settings(run, row)
    yield from _missing(run)
    if math.isnan(run.scores[METRICS[row.metric]]):
        yield f"no {row.metric} could be computed here"


def _other_settings(run: RunResult, row: PublishedRow) -> Iterator[str]:
    """How the run's method differs from the published one's."""
    differing = _differing(run, row)
    if differing:
        settings = run.description["settings"]  # tell what a default is worth
        pairs = (
            f"{name}={as_text(settings.get(name, here))} (published: {as_text(there)})"
            for name, (here, there) in differing.items()
        )
        yield "other settings here: " + ", ".join(pairs)


def _differing(run: RunResult, row: PublishedRow) -> dict[str, tuple]:
    """{setting: (value of the run, published value)} where these differ; "default" stands for the tracker's own."""
    changed = _method_settings(run)
    names = sorted({*changed, *row.settings})
    values = {name: (changed.get(name, "default"), row.settings.get(name, "default")) for name in names}
    return {
        name: (here, there)
        for name, (here, there) in values.items()
        if here != there and not (run.tracker == "sam_pt" and _does_nothing(run, row, name))
    }


def _does_nothing(run: RunResult, row: PublishedRow, name: str) -> bool:
    """Whether a setting of SAM-PT, at the run's value or the published one, changes no mask of the run."""
    settings = run.description["settings"]
    if name in SAM_PT_SWITCHES:
        return not settings.get(SAM_PT_SWITCHES[name], True)
    if name == "point_tracker_mask_batch_size" and settings.get("point_tracker") in FOLLOWING_EACH_POINT:
        return True
    if name not in ("max_num_masks", *SAM_PT_BATCHES):
        return False
    objects = [video["objects"] for video in run.description["videos"]]
    if min(objects, default=0) == 0:  # SAM proposes them, any number
        return False
    if name == "max_num_masks":
        return True
    default = SAM_PT_BATCHES[name]
    return max(objects) <= min(settings.get(name, default), row.settings.get(name, default))


def _distance(run: RunResult, row: PublishedRow) -> tuple[bool, bool, int]:
    """How far a number that cannot be compared is: of something else, by other rules, with how many other settings."""
    other_rules = bool(row.evaluator) and row.evaluator != run.description["protocol"]
    return bool(row.not_comparable), other_rules, len(_differing(run, row))


def as_text(value: object) -> str:
    """The value of a setting in words for a reader: text as it is, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


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
