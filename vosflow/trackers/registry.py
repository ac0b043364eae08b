"""Which trackers there are. Apart from `base`, so that a new tracker here changes no other tracker's code digest."""

from __future__ import annotations

import difflib
import importlib

from vosflow.errors import VosflowError
from vosflow.trackers.base import Tracker, TrackerSettings

MEMBERS = ("Settings", "needs_checkpoint", "uses_gpu", "load", "track")
BUILT_IN = {
    "static": "vosflow.trackers.static:StaticTracker",
    "flow": "vosflow.trackers.flow:FlowTracker",
    "sam2": "vosflow.trackers.sam2:Sam2Tracker",
    "sam2long": "vosflow.trackers.sam2long:Sam2LongTracker",
    "rde": "vosflow.trackers.rde:RdeTracker",
    "sam_pt": "vosflow.trackers.sam_pt.tracker:SamPtTracker",
}


def tracker_module(name: str) -> str:
    """The module that defines a tracker: a built-in name, or the import path `package.module:Class` of a user's own."""
    return _target(name)[0]


def load_tracker(name: str) -> type[Tracker]:
    """The class of a tracker, by built-in name or import path.

    Raises:
        VosflowError: no such tracker, or its module cannot be imported.
    """
    module, attribute = _target(name)
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise VosflowError(
            f"tracker {name!r} cannot be imported ({type(error).__name__}: {error})",
            expected="an importable module and a class in it, written as package.module:Class",
            remedy="check the path, that the module's folder is on PYTHONPATH, and what the module itself imports",
        ) from error
    missing = [member for member in MEMBERS if not hasattr(kind, member)]
    if missing or not (isinstance(kind.Settings, type) and issubclass(kind.Settings, TrackerSettings)):
        raise VosflowError(
            f"{name} is no tracker: "
            + (f"it lacks {', '.join(missing)}" if missing else "its Settings do not derive from TrackerSettings"),
            expected="a class with " + ", ".join(MEMBERS) + ", as in vosflow/trackers/base.py",
            remedy="add what is missing",
        )
    return kind


def _target(name: str) -> tuple[str, str]:
    module, colon, attribute = BUILT_IN.get(name, name).partition(":")
    if colon:
        return module, attribute
    close = difflib.get_close_matches(name, BUILT_IN, n=1)
    raise VosflowError(
        f"unknown tracker {name!r}" + (f", did you mean {close[0]!r}?" if close else ""),
        expected="one of " + ", ".join(BUILT_IN) + ", or the import path of your own: package.module:Class",
        remedy="correct `tracker:` in the config",
    )
