"""MobileSAM (Zhang et al., arXiv 2306.14289): TinyViT, trained to give the embeddings of ViT-H, with SAM's decoder."""

from __future__ import annotations

from vosflow.trackers.base import Part
from vosflow.trackers.sam_pt.sams.segment_anything import SegmentAnything


class MobileSam(SegmentAnything):
    """The published one, 5 M parameters in the image encoder."""

    weights = Part(network="mobile_sam", checkpoint="mobile_sam")
    kind = "SAM TinyViT"
