"""Why a stage is trained from its beginning although there is one: said before weeks are spent. No torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vosflow.digest import canonical_json
from vosflow.training.forecast import progress
from vosflow.training.planning import StageJob
from vosflow.training.rde.files import CURVES, PLAN, WEIGHTS, WORK

ORIGIN = {
    "before": "the stage before it is another one",
    "imagenet": "the ImageNet weights are others",
    "code": "the code that trains has changed",
}


@dataclass(frozen=True)
class Earlier:
    """The folder of a stage that was begun or finished, and what decided it: None where it was not written down."""

    folder: Path
    deciding: Mapping[str, Any] | None

    def of_settings(self, job: StageJob) -> list[str]:
        """Which settings have changed since, in words."""
        return [] if self.deciding is None else list(_setting_differences(self.deciding, _deciding(job)))

    def of_origin(self, job: StageJob) -> list[str]:
        """What else has."""
        if self.deciding is None:
            return ["an older vosflow made it, which did not write down what decided its weights"]
        return list(_origin_differences(self.deciding["origin"], _deciding(job)["origin"]))

    def distance(self, job: StageJob) -> tuple[bool, int]:
        """How far it is from being this stage."""
        return self.deciding is None, len(self.of_settings(job)) + len(self.of_origin(job))


def review_trainings(jobs: Sequence[StageJob], data: str, announce: Callable[[str], None]) -> None:
    """Announce each stage that is to begin anew while an earlier one of the same name lies there, and what differs.

    Args:
        data: the folder `paths: data:`.
    """
    used = {Path(job.folder) for job in jobs}
    for job in jobs:
        if _is_begun(Path(job.folder)):
            continue
        earlier = [one for one in _find_earlier(job, data) if one.folder not in used]
        if not earlier:
            continue
        announce(_tell(job, min(earlier, key=lambda one: one.distance(job))))


def _tell(job: StageJob, earlier: Earlier) -> str:
    done = (earlier.folder / WEIGHTS).exists()
    iterations, _ = progress(earlier.folder / CURVES)
    under_way = f"stopped after {iterations} iterations" if iterations else "was begun"
    state = "is done" if done else under_way
    if not earlier.of_settings(job):
        keep = f"To keep that one all the same: {_move(earlier.folder, Path(job.folder))}"
    elif done:
        keep = f"To use that one all the same, name {earlier.folder / WEIGHTS} under `checkpoints:`"
    else:
        keep = "That one goes on when its settings are as they were"
    differences = "; ".join([*earlier.of_settings(job), *earlier.of_origin(job)])
    return f"training {job.id} begins anew: in {earlier.folder} it {state}, but {differences}. {keep}"


def _move(old: Path, new: Path) -> str:
    """The command that makes one folder the other; those of the first layout have another parent."""
    command = shlex.join(["mv", "-T", str(old), str(new)])
    return command if new.parent.is_dir() else f"{shlex.join(['mkdir', '-p', str(new.parent)])} && {command}"


def _deciding(job: StageJob) -> dict[str, Any]:
    return json.loads(canonical_json(job.plan.deciding()))  # lists, not tuples


def _find_earlier(job: StageJob, data: str) -> Iterator[Earlier]:
    """Stages that were begun under this name; in older layouts below the id of the training."""
    stage = job.plan.stage
    for folder in sorted(Path(job.folder).parent.glob(f"stage{stage}-*")):
        plan = _read(folder / PLAN)
        if _is_begun(folder) and (plan is None or job.id in plan["practical"]["names"]):
            yield Earlier(folder, plan and plan["deciding"])
    older = Path(data, "training", job.training)
    if older != Path(job.folder).parent:
        yield from (Earlier(folder, None) for folder in sorted(older.glob(f"stage{stage}-*")) if _is_begun(folder))


def _is_begun(folder: Path) -> bool:
    return any((folder / name).exists() for name in (WORK, WEIGHTS))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        return plan if plan["practical"]["names"] and plan["deciding"]["origin"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _setting_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in ("width", "key_channels"):
        if then[name] != now[name]:
            yield f"{name} is {now[name]} and was {then[name]}"
    settings = then["settings"], now["settings"]
    for name in _keys(*settings):
        before, after = (part.get(name) for part in settings)
        if before != after:
            yield f"{name} is {after} and was {before}"


def _origin_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for kind in _keys(then["sets"], now["sets"]):
        before, after = then["sets"].get(kind, {}), now["sets"].get(kind, {})
        if before != after:
            yield f"the training set {kind} {_set_difference(before, after)}"
    for name, words in ORIGIN.items():
        if then[name] != now[name]:
            yield words


def _set_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    for what in ("videos", "images"):
        if before.get(what) != after.get(what) and what in before and what in after:
            return f"has {after[what]} {what} and had {before[what]}"
    if before.keys() != after.keys():
        return "comes from another source (the catalog, the demo generator, or a folder of one's own)"
    if before.get("names") != after.get("names"):
        return "has other names"
    return "has other files, or files of other sizes" if "files" in after else "is another version"


def _keys(*parts: Iterable[str]) -> list[str]:
    return sorted({name for part in parts for name in part})
