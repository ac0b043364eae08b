"""The protocol of YouTube-VOS 2018 and 2019, as far as it is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vosflow.evaluation.protocols.object_frames import ObjectFramesProtocol
from vosflow.evaluation.scores import Score
from vosflow.evaluation.statistics import Summary, group_means, summarize_objects
from vosflow.manifest import Manifest


class YoutubeVos(ObjectFramesProtocol):
    """YouTube-VOS 2018 and 2019. No scorer is public: an approximation for ground truth of one's own.

    What the publishers say (Xu et al., "YouTube-VOS: A Large-Scale Video Object Segmentation Benchmark", 2018, and the
    challenge's page):
    1. J and F are those of DAVIS.
    2. Objects fall into two groups, by category: seen in training or not. G is the mean of J and F of both groups, each
       a mean over objects.
    3. Annotated frames count, every fifth, as meta.json lists them for each object; the first is its own first one.

    What is assumed:
    4. The first frame of each object does not count, as its mask is given; the last one does.
    5. An object that is absent from both masks of a frame scores J = F = 1.
    6. Ids that meta.json does not name are ignored; there is no void region.
    """

    name = "youtube-vos"
    about = (
        "YouTube-VOS 2018 and 2019, approximate, as there is no public scorer and no public ground truth of valid: J "
        "and F of DAVIS on each object's annotated frames after its first; G is the mean of four means: J and F of "
        "seen and of unseen categories."
    )
    headline = "G"
    notes = (
        "YouTube-VOS: no public scorer, so this is approximate; which frames of an object the server leaves out is not "
        "known. Only the server's number is the official one.",
    )

    def counted(self, frames: Sequence[str]) -> Sequence[str]:
        return frames[1:]

    def summarize(self, scores: Iterable[Score], manifest: Manifest) -> Summary:
        objects = summarize_objects(scores, group=self.group_of(manifest))
        means = group_means(objects)
        return Summary(objects, {"G": means["J&F-Mean"], **means})
