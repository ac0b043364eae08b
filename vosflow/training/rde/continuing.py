"""Whether a stage may go on from what a job before has left: the same training, on the same files, in one folder."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from vosflow.datasets.training_sets import ImagePair
from vosflow.errors import VosflowError
from vosflow.training.rde.files import PLAN, SETS, WORK
from vosflow.training.rde.saving import write_aside
from vosflow.training.rde.sets import VideoSet
from vosflow.training.rde.stage import StagePlan

Facts = dict[str, dict[str, Any]]
"""Of each training set, by kind: how many "videos" and "frames" it has, or "images", and a digest of all "names"."""


def list_facts(plan: StagePlan, sets: Sequence[VideoSet | list[ImagePair]]) -> Facts:
    """What tells the files of a stage's sets from others: all their names, wherever they are."""
    return {part.kind: _facts(part.root, found) for part, found in zip(plan.sets, sets, strict=True)}


def check_plan(then: Mapping[str, Any], plan: StagePlan, path: Path) -> None:
    """Refuse the work file of another training.

    What the sets hold, the stage before and the code are not compared: where they have changed a stage has another
    folder, and who puts a work file there wants to go on with it.

    Args:
        then: `plan.deciding()` of the job that wrote the work file `path`; or as first versions had it, with folders.

    Raises:
        VosflowError: its settings, network, stage or sets are others.
    """
    now, then = _comparable(plan.deciding()), _comparable(then)
    if different := [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]:
        raise VosflowError(
            "the work file belongs to another training: "
            + ", ".join(f"{name} is {now.get(name)} and was {then.get(name)}" for name in different),
            path=path,
            expected="the plan that it was begun with",
            remedy="name another folder, or delete the file to start from scratch",
        )


def begin_or_compare(folder: Path, plan: StagePlan, facts: Facts) -> None:
    """Write down what a stage is made from, in plan.json and sets.json; what is made from other files is refused.

    Where what decides has changed and somebody goes on all the same, plan.json keeps what it was, under "earlier".

    Raises:
        VosflowError: names of files in a training set have changed since the stage was begun.
    """
    path = folder / SETS
    then = _read_json(path)
    if not then or not (folder / WORK).exists():  # it begins, or goes on with the files as they are
        _write_json(path, facts)
    elif then != facts:
        changed = [
            f"{kind} has {_counts(facts.get(kind))}, and had {_counts(then.get(kind))}"
            for kind in sorted(facts.keys() | then.keys())
            if facts.get(kind) != then.get(kind)
        ]
        raise VosflowError(
            "a training set has changed since the stage was begun: " + "; ".join(changed),
            path=", ".join(part.root for part in plan.sets),
            expected=f"the names of files whose digest is in {path}",
            remedy=f"restore the set; to go on with it as it is, delete {path}; to train anew, delete {folder}",
        )
    before = _read_json(folder / PLAN)
    earlier = before.get("earlier", [])
    if before and before["deciding"] != json.loads(json.dumps(plan.deciding())):
        earlier = [*earlier, before["deciding"]]
    _write_json(folder / PLAN, {**plan.as_data(), **({"earlier": earlier} if earlier else {})})


def check_agreement(seen: Mapping[str, Any]) -> None:
    """Refuse processes that do not see the same, on machines that have no folder in common.

    Args:
        seen: by name, what must be the same in all processes.

    Raises:
        VosflowError: it is not, in each of them.
    """
    mine = {"node": socket.gethostname(), **seen}
    all_seen: list[dict[str, Any]] = [{} for _ in range(dist.get_world_size())]
    dist.all_gather_object(all_seen, mine)
    first = all_seen[0]
    for rank, other in enumerate(all_seen):
        if apart := [name for name in seen if other[name] != first[name]]:
            name = apart[0]
            raise VosflowError(
                f"the processes see different things: {name} is {first[name]} in number 0, on {first['node']}, and "
                f"{other[name]} in number {rank}, on {other['node']}",
                path=name,
                expected="one folder of the stage, and the same training sets, on all nodes",
                remedy="put both on a file system that the nodes share, under the same path",
            )


def _comparable(deciding: Mapping[str, Any]) -> dict[str, Any]:
    settings = dict(deciding["settings"])
    if "clips" not in settings:
        settings["clips"] = settings.pop("batch_size") * settings.pop("processes")
    kinds = [part if isinstance(part, str) else part["kind"] for part in deciding["sets"]]
    return {**settings, **{name: deciding[name] for name in ("stage", "width", "key_channels")}, "sets": kinds}


def _facts(root: str, found: VideoSet | list[ImagePair]) -> dict[str, Any]:
    if isinstance(found, VideoSet):
        names = (f"{video}/{frame}" for video, frames in found.videos.items() for frame in frames)
        count = {"videos": len(found.videos), "frames": sum(map(len, found.videos.values()))}
    else:
        names = (pair.image.relative_to(root).as_posix() for pair in found)
        count = {"images": len(found)}
    return {**count, "names": _digest(names)}


def _digest(names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()[:16]


def _counts(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return "nothing"
    return ", ".join(f"{value} {name}" for name, value in facts.items() if name != "names") + f" ({facts['names']})"


def _read_json(path: Path) -> dict[str, Any]:
    """What is in a file; {} if there is none, or nothing that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    write_aside(path, lambda aside: aside.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8"))
