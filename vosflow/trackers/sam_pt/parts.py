"""Which point trackers and SAMs there are, by name.

They are named here as text and imported when they are asked for: a new one changes no other one's code digest.
"""

from __future__ import annotations

from vosflow.errors import VosflowError
from vosflow.trackers.naming import load_class, module_and_class

_POINTS = "vosflow.trackers.sam_pt.points"
_SAMS = "vosflow.trackers.sam_pt.sams"

POINT_TRACKERS = {
    "pips": f"{_POINTS}.pips:Pips",
    "pips_plus_plus": f"{_POINTS}.pips_plus_plus:PipsPlusPlus",
    "raft": f"{_POINTS}.raft:Raft",
    "tapnet": f"{_POINTS}.tapnet:TapNet",
    "tapir": f"{_POINTS}.tapir:Tapir",
    "cotracker": f"{_POINTS}.cotracker:CoTracker",
    "cotracker3": f"{_POINTS}.cotracker3:CoTracker3",
    "superglue": f"{_POINTS}.superglue:SuperGlue",
}
SAMS = {
    "vit_b": f"{_SAMS}.sam:SamVitB",
    "vit_l": f"{_SAMS}.sam:SamVitL",
    "vit_h": f"{_SAMS}.sam:SamVitH",
    "hq_vit_b": f"{_SAMS}.hq_sam:HqSamVitB",
    "hq_vit_l": f"{_SAMS}.hq_sam:HqSamVitL",
    "hq_vit_h": f"{_SAMS}.hq_sam:HqSamVitH",
    "light_hq_tiny": f"{_SAMS}.hq_sam:LightHqSamTiny",
    "mobile_sam": f"{_SAMS}.mobile_sam:MobileSam",
}
KINDS = {
    "point_tracker": (POINT_TRACKERS, ("Settings", "weights", "load"), "vosflow/trackers/sam_pt/points/base.py"),
    "sam": (SAMS, ("weights", "image_size", "load", "encode", "decode"), "vosflow/trackers/sam_pt/sams/base.py"),
}


def part_module(kind: str, name: str) -> str:
    """The module that defines a part: `kind` is "point_tracker" or "sam". Raises VosflowError for unknown names."""
    return _target(kind, name)[0]


def load_part(kind: str, name: str) -> type:
    """The class of a point tracker or SAM, by built-in name or by import path `package.module:Class`.

    Args:
        kind: "point_tracker" or "sam".

    Raises:
        VosflowError: there is none of this name, it cannot be imported, or it lacks what such a part must have.
    """
    part = load_class(kind, name, _target(kind, name))
    _, members, where = KINDS[kind]
    missing = [member for member in members if not hasattr(part, member)]
    if kind == "point_tracker" and not (hasattr(part, "track") or getattr(part, "matches_masks", False)):
        missing.append("track")
    if missing:
        raise VosflowError(
            f"{name} is no {kind}: it lacks {', '.join(missing)}",
            expected=f"a class with {', '.join(members)}, as in {where}",
            remedy="add what is missing",
        )
    return part


def _target(kind: str, name: str) -> tuple[str, str]:
    return module_and_class(kind, name, KINDS[kind][0], f"correct `{kind}:` in the settings")
