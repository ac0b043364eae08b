"""Segment Anything (Kirillov et al., arXiv 2304.02643) in its three sizes."""

from __future__ import annotations

from vosflow.trackers.base import Part
from vosflow.trackers.sam_pt.sams.segment_anything import SegmentAnything


class SamVitB(SegmentAnything):
    """With ViT-B."""

    weights = Part(network="sam", checkpoint="sam_vit_b")
    kind = "SAM ViT-B"


class SamVitL(SegmentAnything):
    """With ViT-L."""

    weights = Part(network="sam", checkpoint="sam_vit_l")
    kind = "SAM ViT-L"


class SamVitH(SegmentAnything):
    """With ViT-H."""

    weights = Part(network="sam", checkpoint="sam_vit_h")
    kind = "SAM ViT-H"
