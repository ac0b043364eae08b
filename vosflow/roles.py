"""The weights of a run: one checkpoint, one for each role that a tracker of several networks has, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def by_role(checkpoint: Any) -> dict[str, Any]:
    """{role: checkpoint}; the role of a single checkpoint is "". Facts of checkpoints as in run.json do as well."""
    if checkpoint is None:
        return {}
    if isinstance(checkpoint, Mapping) and "id" not in checkpoint:
        return dict(sorted(checkpoint.items()))
    return {"": checkpoint}


def each_role(function: Callable[[Any], Any], checkpoint: Any) -> Any:
    """`function` of the checkpoint, {role: `function` of its checkpoint}, or None: of the form of `checkpoint`."""
    if checkpoint is None:
        return None
    results = {role: function(one) for role, one in by_role(checkpoint).items()}
    return results[""] if results.keys() == {""} else results


def all_ids(checkpoint: Any) -> str | None:
    """The ids of all checkpoints in one text, for tables: those of several as "point_tracker=pips, sam=sam_vit_h"."""
    ids = {role: one["id"] if isinstance(one, Mapping) else one.id for role, one in by_role(checkpoint).items()}
    return ids.get("") or ", ".join(f"{role}={name}" for role, name in ids.items()) or None
