"""Finished runs as the report reads them: run.json and the score files that lie beside it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from vosflow.errors import VosflowError
from vosflow.evaluation.protocols import load_protocol
from vosflow.evaluation.protocols.base import InstanceProtocol, Rules
from vosflow.evaluation.scores import (
    GLOBAL_FILE,
    PER_OBJECT_FILE,
    SCORES_FILE,
    read_global_results,
    read_per_object_results,
    read_scores,
)
from vosflow.manifest import Manifest, load_manifest
from vosflow.records import read_json
from vosflow.roles import all_ids, by_role
from vosflow.trackers.base import TrackerSettings
from vosflow.trackers.registry import load_tracker

RERUN = "run snakemake again: it evaluates and describes the run anew"
SPED_UP = (
    "Frames/s is higher than the method alone reaches: some of what it computes was in the cache already (how much: "
    "artefacts in run.json). With cache_gigabytes: 0 nothing is kept."
)


@dataclass(frozen=True)
class RunResult:
    """One finished run.

    Attributes:
        path: its run.json; scores.csv, global_results.csv and masks/ lie in the same folder.
        description: the content of run.json.
        scores: the row of global_results.csv (fractions), or None where no ground truth is public.
    """

    path: Path
    description: dict
    scores: dict[str, float] | None

    @property
    def key(self) -> tuple[str, str]:
        """(dataset, run): what identifies the run in a summary."""
        return self.dataset, self.name

    @property
    def dataset(self) -> str:
        """Dataset and split as one word pair, e.g. "davis2017/val"."""
        return f"{self.description['dataset']}/{self.description['split']}"

    @property
    def name(self) -> str:
        return self.description["run"]

    @property
    def tracker(self) -> str:
        return self.description["tracker"]

    @property
    def checkpoint(self) -> str | None:
        """Id of the checkpoint, or None for a tracker without one; ids by role in one text, see `all_ids`."""
        return all_ids(self.description["checkpoint"])

    @property
    def weights(self) -> dict[str, dict]:
        """The facts of its weights by role; the role of a single checkpoint is ""."""
        return by_role(self.description["checkpoint"])

    @property
    def artefacts(self) -> str:
        """How many costly arrays were computed for it, and how many were there from other runs; "" without any."""
        counts = self.description["totals"].get("artefacts", {})
        return "; ".join(f"{kind}: {of['made']} made, {of['reused']} reused" for kind, of in sorted(counts.items()))

    @cached_property
    def rules(self) -> Rules | None:
        """The protocol by which it was scored, or None where no ground truth is public."""
        return None if self.scores is None else load_protocol(self.description["protocol"])

    @property
    def score(self) -> float:
        """The protocol's headline number, most often J&F, as a fraction; NaN without ground truth."""
        return math.nan if self.scores is None else self.scores[self.rules.headline]

    @property
    def score_name(self) -> str:
        """What `score` is called in tables and figures; "" without ground truth."""
        return "" if self.rules is None else short_name(self.rules.headline)

    @property
    def of_instances(self) -> bool:
        """Whether whole objects were scored through a video, each with one number, and not masks frame by frame."""
        return isinstance(self.rules, InstanceProtocol)

    @property
    def notes(self) -> list[str]:
        """What a reader must know of its numbers: of the protocol first, then of the run."""
        notes = [*(self.rules.notes if self.rules else ()), *self.description["notes"]]
        return notes + [SPED_UP] * self.is_sped_up

    @property
    def is_sped_up(self) -> bool:
        """Whether some of its costly arrays were not computed for it: its frames/s is then not the method's alone."""
        return any(of["reused"] for of in self.description["totals"].get("artefacts", {}).values())

    @property
    def devices(self) -> list[str]:
        """The devices that computed the videos, each once, in order of first use."""
        return list(dict.fromkeys(video["device"] for video in self.description["videos"]))

    @property
    def precisions(self) -> list[str]:
        """What the videos were computed in, each once ("float32", "bfloat16")."""
        return sorted({video["precision"] for video in self.description["videos"]})

    @property
    def mode(self) -> str:
        """The tracker's mode ("exact", "fast"), which RDE-VOS calls its speed, or "" where it has none."""
        settings = self.description["settings"]
        return settings.get("speed", settings.get("mode", ""))

    @property
    def slowest(self) -> float:
        """Frames/s of the slowest video."""
        return min(video["frames_per_second"] for video in self.description["videos"])

    @property
    def fastest(self) -> float:
        """Frames/s of the fastest video."""
        return max(video["frames_per_second"] for video in self.description["videos"])

    @property
    def family(self) -> str:
        """What a reader calls the method: the checkpoint's id, or the tracker's name where there is no checkpoint.

        Both, if the tracker runs on the checkpoints of another one, as sam2long does on those of sam2, or on several.
        """
        if self.checkpoint is None:
            return self.tracker
        if "" not in self.weights:
            return " + ".join([self.tracker, *(facts["id"] for facts in self.weights.values())])
        return f"{self.tracker} {self.checkpoint}" if _runs_on_checkpoints_of_another(self.tracker) else self.checkpoint

    @cached_property
    def changed_settings(self) -> dict:
        """The settings that differ from the tracker's defaults."""
        return non_default_settings(self.tracker, self.description["settings"])

    @cached_property
    def shown_settings(self) -> dict:
        """The settings worth showing: what one would write into a config for this run, and what the study sweeps."""
        written = written_settings(self.tracker, self.description["settings"])
        return dict(sorted({**written, **self.description["swept"]}.items()))

    @cached_property
    def manifest(self) -> Manifest:
        """The dataset split it ran on: the recorded path, or its place beside the run where results were moved."""
        recorded = Path(self.description["manifest"])
        return load_manifest(recorded if recorded.is_file() else self.path.parent.parent / "manifest.json")

    @cached_property
    def frame_scores(self) -> dict[str, dict[str, float]]:
        """video -> frame -> mean J&F (fraction) of its objects, from scores.csv; empty without scores of frames."""
        if self.scores is None or self.of_instances:
            return {}
        path = self.path.parent / SCORES_FILE
        table: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for score in read_scores(path):
            table[score.video][score.frame].append((score.J + score.F) / 2)
        expected = {video["video"] for video in self.description["videos"]}
        odd = sorted(set(table) - expected)  # some protocols give a short video no row
        if odd:
            raise VosflowError(
                f"the scores are not those of this run's videos ({', '.join(odd[:5])} not among them)",
                path=path,
                expected=f"the {len(expected)} videos named in {self.path.name}",
                remedy=f"delete the file and {RERUN}",
            )
        return {video: {frame: _mean(values) for frame, values in frames.items()} for video, frames in table.items()}

    @cached_property
    def video_scores(self) -> dict[str, float]:
        """video -> J&F (fraction): the mean over its objects of their means; empty without ground truth.

        Of instances it is J, each object's highest IoU with a result: there is no F.
        """
        if self.scores is None:
            return {}
        objects: dict[str, list[float]] = defaultdict(list)
        for name, (J, F) in read_per_object_results(self.path.parent / PER_OBJECT_FILE).items():
            objects[name.rpartition("_")[0]].append(J if self.of_instances else (J + F) / 2)
        return {video: _mean(values) for video, values in objects.items()}


def load_runs(paths: Iterable[str | Path]) -> list[RunResult]:
    """Read finished runs in the given order.

    Raises:
        VosflowError: a run.json or its scores are missing or broken, the same run is given twice, or there is none.
    """
    runs = [load_run(path) for path in paths]
    if not runs:
        raise VosflowError("there is no run to report", expected="at least one run.json")
    seen: dict[tuple[str, str], Path] = {}
    for run in runs:
        if run.key in seen:
            raise VosflowError(
                f"run {run.name!r} on {run.dataset} is given twice",
                path=run.path,
                expected=f"each run once; the other one is {seen[run.key]}",
                remedy="leave one of them out",
            )
        seen[run.key] = run.path
    return runs


def load_run(path: str | Path) -> RunResult:
    """Read one run.json and the global_results.csv beside it; raises VosflowError naming the file."""
    path = Path(path)
    description = read_json(path)
    return RunResult(
        path, description, read_global_results(path.parent / GLOBAL_FILE) if description["scored"] else None
    )


def _runs_on_checkpoints_of_another(tracker: str) -> bool:
    try:
        return getattr(load_tracker(tracker), "network", tracker) != tracker
    except VosflowError:  # it cannot be imported here
        return False


def non_default_settings(tracker: str, settings: dict) -> dict:
    """The settings that differ from the tracker's defaults; all of them if the tracker cannot be imported here."""
    try:
        defaults = _defaults(load_tracker(tracker).Settings)
    except VosflowError:
        return dict(settings)
    return {name: value for name, value in settings.items() if name not in defaults or value != defaults[name]}


def written_settings(tracker: str, settings: dict) -> dict:
    """The fewest settings that give all of these: a preset stands for the values that it gives to others.

    Those that differ from the tracker's defaults where it cannot be imported here or has other settings by now.
    """
    try:
        kind = load_tracker(tracker).Settings
    except VosflowError:
        return dict(settings)
    needed = dict(settings)
    if _resolved(kind, needed) != settings:
        return non_default_settings(tracker, settings)
    for name in sorted(settings, key=lambda name: (name == "preset", name)):  # a preset goes only if it says nothing
        fewer = {other: value for other, value in needed.items() if other != name}
        if _resolved(kind, fewer) == settings:
            needed = fewer
    return needed


def _resolved(kind: type[TrackerSettings], given: dict) -> dict | None:
    """All settings where some are given, or None if these are refused."""
    try:
        return kind(**given).model_dump(mode="json")
    except (ValidationError, VosflowError):
        return None


def _defaults(kind: type[TrackerSettings]) -> dict:
    """The settings where none are given (a preset may complete them); where some must be, those that need not."""
    try:
        return kind().model_dump(mode="json")
    except ValidationError:
        return {
            name: to_jsonable_python(field.get_default(call_default_factory=True))
            for name, field in kind.model_fields.items()
            if not field.is_required()
        }


def short_name(column: str) -> str:
    """A column of global_results.csv as tables call it: J&F for J&F-Mean."""
    return column.removesuffix("-Mean")


def main_runs(runs: Sequence[RunResult]) -> dict[str, RunResult]:
    """The run that stands for each dataset: the highest score, and the first of equals (or without ground truth)."""
    best: dict[str, RunResult] = {}
    for run in runs:
        if run.dataset not in best or rank(run.score) > rank(best[run.dataset].score):
            best[run.dataset] = run
    return best


def rank(score: float) -> float:
    """What runs and videos are ordered by: one that is no number comes last."""
    return -math.inf if math.isnan(score) else score


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
