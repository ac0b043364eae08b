"""The protocol of LVOS v1 and v2 (semi-supervised)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from vosflow.evaluation.protocols.object_frames import ObjectFramesProtocol
from vosflow.evaluation.scores import Score
from vosflow.evaluation.statistics import SEEN, UNSEEN, Rows, Summary, group_means, mean, summarize_objects
from vosflow.manifest import Manifest


class Lvos(ObjectFramesProtocol):
    """LVOS v1 and v2: the rules of LingyiHongfd's lvos-evaluation at 25cb02d.

    1. An object is annotated on the frames start, start + 5, ... of its own range in the dataset's meta file. The first
       and the last of them do not count. So an object that comes late is judged from its own start.
    2. Ids that the meta file does not name are ignored, in ground truth and prediction. There is no void region: 255 is
       background.
    3. On a frame of its range an object that is absent from both masks scores J = F = 1.
    4. J and F are those of DAVIS (the Python code of the toolkit).
    5. A video is unseen if the toolkit's unseen_videos.txt lists it, with all its objects. Each measure is averaged
       over the seen and over the unseen objects; J, F and V are the means of these two, J&F of the four means of J and
       F. It is not the mean over all objects, which stands beside it (J&F-objects-Mean).
    6. V, the temporal stability of an object, is the square root of the variance of (J + F) / 2 over its frames
       (population variance, rounded to 4 decimals first). Lower is better.

    The toolkit has a second, compiled boundary operator that gives another F: it takes s ^ (E | S | SE) where the
    Python code takes (s ^ E) | (s ^ S) | (s ^ SE). A disc of radius 60 shifted by 10 pixels at 854x480 has F 0.6529 by
    the Python code and 0.6374 by the compiled one. Numbers made with it are not comparable with these.
    """

    name = "lvos"
    about = (
        "LVOS v1 and v2, by the rules of lvos-evaluation: each object on the frames of its own range, without the "
        "first and the last; J&F is the mean of four means: J and F of seen and of unseen videos; V is the temporal "
        "stability, lower is better."
    )
    notes = (
        "LVOS: J&F is the mean over the seen and unseen groups, not over objects; F is that of the toolkit's Python "
        "code (its compiled operator gives another F).",
    )

    def counted(self, frames: Sequence[str]) -> Sequence[str]:
        return frames[1:-1]

    def summarize(self, scores: Iterable[Score], manifest: Manifest) -> Summary:
        objects = summarize_objects(scores, _variation, self.group_of(manifest))
        seen, unseen = (mean(o.extra[0] for o in objects if o.group == group) for group in (SEEN, UNSEEN))
        V = {"V-Mean": (seen + unseen) / 2, "V-seen-Mean": seen, "V-unseen-Mean": unseen}
        return Summary(objects, {**group_means(objects), **V}, ("V-Mean",))


def _variation(rows: Rows) -> tuple[float]:
    """V of one object: rule 6."""
    both = np.array([(row.J + row.F) / 2 for row in rows])
    variance = np.sum((np.mean(both) - both) ** 2) / len(both)
    return (math.sqrt(round(float(variance), 4)),)
