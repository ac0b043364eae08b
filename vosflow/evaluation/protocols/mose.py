"""The protocol of MOSE v1."""

from __future__ import annotations

from vosflow.evaluation.protocols.davis import Davis2017


class Mose(Davis2017):
    """MOSE v1, by the rules of davis2017, which its paper says it follows. The server's code is not public.

    1. All rules of davis2017: the first and the last frame do not count; objects are 1..N of the first frame; a
       predicted id above N is an error; an object absent from both masks of a frame scores J = F = 1 there; totals are
       means over objects.

    The ground truth of `valid` is not public: this is for videos held out of the training split and for ground truth of
    one's own. Source: Ding et al., "MOSE: A New Dataset for Video Object Segmentation in Complex Scenes" (ICCV 2023).
    """

    name = "mose"
    about = (
        "MOSE v1: the rules of davis2017, which its paper says it follows. For videos held out of the training split, "
        "or ground truth of your own; that of valid is not public, and neither is the server's code."
    )
    notes = ("Consistent with DAVIS 2017, as MOSE's paper says; the code of its server is not public.",)
