"""Which trackers there are. Apart from `base`, so that a new tracker here changes no other tracker's code digest."""

from __future__ import annotations

import difflib
import importlib

from vosflow.errors import VosflowError
from vosflow.trackers.base import Tracker

BUILT_IN = {
    "static": "vosflow.trackers.static:StaticTracker",
    "flow": "vosflow.trackers.flow:FlowTracker",
    "sam2": "vosflow.trackers.sam2:Sam2Tracker",
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
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise VosflowError(
            f"tracker {name!r} cannot be imported ({error})",
            expected="an importable module and a class in it, written as package.module:Class",
            remedy="check the import path, and that the module's folder is on PYTHONPATH",
        ) from error


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
