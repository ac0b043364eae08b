"""HQ-SAM (Ke et al., arXiv 2306.01567): SAM with an output token and features of its own for finer masks."""

from __future__ import annotations

from vosflow.trackers.base import Part
from vosflow.trackers.sam_pt.sams.segment_anything import SegmentAnything


class HqSamVitB(SegmentAnything):
    """With ViT-B."""

    weights = Part(network="hq_sam", checkpoint="hq_sam_vit_b")
    kind = "HQ-SAM ViT-B"


class HqSamVitL(SegmentAnything):
    """With ViT-L."""

    weights = Part(network="hq_sam", checkpoint="hq_sam_vit_l")
    kind = "HQ-SAM ViT-L"


class HqSamVitH(SegmentAnything):
    """With ViT-H."""

    weights = Part(network="hq_sam", checkpoint="hq_sam_vit_h")
    kind = "HQ-SAM ViT-H"


class LightHqSamTiny(SegmentAnything):
    """With the TinyViT of MobileSAM."""

    weights = Part(network="light_hq_sam", checkpoint="light_hq_sam_vit_tiny")
    kind = "HQ-SAM TinyViT"
