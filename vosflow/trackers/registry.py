"""Which trackers there are. Apart from `base`, so that a new tracker here changes no other tracker's code digest."""

from __future__ import annotations

from vosflow.errors import VosflowError
from vosflow.trackers.base import Tracker, TrackerSettings
from vosflow.trackers.naming import load_class, module_and_class

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
    kind = load_class("tracker", name, _target(name))
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
    return module_and_class("tracker", name, BUILT_IN, "correct `tracker:` in the config")
