"""The protocol of DAVIS 2017, unsupervised (multi-object): proposals without given ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vosflow.errors import VosflowError
from vosflow.evaluation.ground_truth import ground_truth_frames, read_ground_truth
from vosflow.evaluation.measures import boundary_radius, boundary_scores, count_pairs, disk, region_scores
from vosflow.evaluation.protocols.base import VideoScorer
from vosflow.evaluation.protocols.davis import VOID, Davis2017
from vosflow.evaluation.scores import Score
from vosflow.manifest import VideoEntry

MAX_PROPOSALS = 20


class Davis2017Unsupervised(Davis2017):
    """DAVIS 2017, unsupervised: the rules of davischallenge's davis2017-evaluation at ac7c43f.

    1. All ground-truth frames count, the first and the last too.
    2. A video's objects are 1..N, N being the largest id of its first ground-truth frame; a gap is an object all the
       same; an object that first appears later with an id above N does not count.
    3. 255 in the ground truth is void: its pixels are taken out of both masks, before the boundaries are traced too.
    4. A prediction holds up to 20 proposals, the ids 1..20, without relation to the ground truth's ids. A larger id
       (255 included) is an error.
    5. Each object is matched with one proposal for the whole video: the assignment with the largest sum of (J + F) / 2,
       each averaged over all frames. Proposals that are left over cost nothing.
    6. With fewer proposals than objects, the rest are empty ones.
    7. Where an object and its proposal are both absent, J = F = 1. Statistics and totals are those of davis2017.

    Rows are named by the ground truth's ids. The toolkit names them in the order of the matched proposals, so that its
    table of objects may be in another order; no total depends on it.
    """

    name = "davis2017-unsupervised"
    about = (
        "DAVIS 2017, unsupervised, by the rules of davis2017-evaluation: up to 20 proposals per video, matched with "
        "the objects by (J+F)/2 over the whole video; all frames; void pixels left out; means over objects."
    )

    def needs(self, video: VideoEntry, root: str | Path) -> dict[str, range]:
        return dict.fromkeys(ground_truth_frames(video), self.scored_objects(video, root))

    def scorer(self, video: VideoEntry, root: str | Path) -> VideoScorer:
        return _ProposalScorer(video, root, self.scored_objects(video, root))


class _ProposalScorer(VideoScorer):
    def __init__(self, video: VideoEntry, root: str | Path, objects: range) -> None:
        self._video, self._root, self._objects = video, root, objects
        self._proposals = len(objects)  # at least one for each object, empty ones if need be
        self._tolerance = disk(boundary_radius(video.height, video.width))
        self._pairs: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # J and F of object i and proposal j, [N, most]

    def add(self, frame: str, masks: np.ndarray, path: Path | None = None) -> None:
        proposals = int(masks.max())
        if proposals > MAX_PROPOSALS:
            raise VosflowError(
                f"the prediction has id {proposals}: there may be at most {MAX_PROPOSALS} proposals",
                path=path,
                expected=f"0 for background and ids 1 to {MAX_PROPOSALS}",
                remedy="number the proposals from 1 and keep the best ones; save ids, not colours or probabilities",
            )
        self._proposals = max(self._proposals, proposals)
        truth = read_ground_truth(self._video, self._root, frame)
        guess = np.where(truth == VOID, np.uint8(0), masks)
        most = range(1, max(MAX_PROPOSALS, len(self._objects)) + 1)
        counts = count_pairs(truth, guess, self._objects, most, self._tolerance)
        self._pairs[frame] = region_scores(counts), boundary_scores(counts)[0]

    def rows(self) -> list[Score]:
        from scipy.optimize import linear_sum_assignment  # slow to import, and studies are planned with this module

        # [proposal, object, frame], the order of the toolkit: equal sums and so equal matches, ties included
        J, F = (
            np.ascontiguousarray(np.stack([pair[measure] for pair in self._pairs.values()]).transpose(2, 1, 0))
            for measure in (0, 1)
        )
        J, F = J[: self._proposals], F[: self._proposals]
        matches = zip(*linear_sum_assignment(-(J.mean(axis=2) + F.mean(axis=2)) / 2), strict=True)
        proposal_of = {int(index): int(proposal) for proposal, index in matches}
        return [
            Score(
                self._video.name,
                object_id,
                frame,
                float(J[proposal_of[index], index, time]),
                float(F[proposal_of[index], index, time]),
            )
            for index, object_id in enumerate(self._objects)
            for time, frame in enumerate(self._pairs)
        ]
