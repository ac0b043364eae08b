"""RAFT as a point tracker (Teed and Deng, ECCV 2020, arXiv 2003.12039): points go along with the optical flow.

A point is visible wherever it is inside the frame. The authors of SAM-PT ran RAFT in mixed precision on GPUs; here it
computes in float32.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from vosflow.trackers.base import Checkpoint, Part
from vosflow.trackers.sam_pt.clip import Clip
from vosflow.trackers.sam_pt.points.base import PointTrackerSettings, Tracks
from vosflow.trackers.sam_pt.points.both_ways import track_both_ways

if TYPE_CHECKING:
    from vosflow.artefacts import Artefacts

SMALLEST_SIDE = 128
PAIRS_PER_ARTEFACT = 8
KEPT_BYTES = 256 * 2**20  # of flows, 56 pairs of 1024 x 576 pixels: more than a window of SAM-PT-reinit has
FLOW_CODE = ("vosflow.trackers.sam_pt.points.raft_network",)


class Settings(PointTrackerSettings):
    """Knobs of RAFT, with SAM-PT's defaults.

    Attributes:
        iters: updates of the flow.
    """

    iters: int = Field(default=32, ge=1)


class Raft:
    """Optical flow, chained from frame to frame; points do not influence each other."""

    Settings = Settings
    weights = {"point_tracker": Part(network="raft", checkpoint="raft_things")}
    costs_by_frames = True

    def __init__(self, settings: Settings, checkpoints: Mapping[str, Checkpoint], device: str) -> None:
        self.settings = settings
        self.checkpoint = checkpoints["point_tracker"]
        self.device = device
        self._kept: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()  # flows by digests of both frames

    def load(self) -> None:
        """Load the weights. Raises VosflowError for weights of another network."""
        from vosflow.trackers.sam_pt.points.raft_network import load_raft

        self._network = load_raft(self.checkpoint).to(self.device)

    def track(self, clip: Clip, queries: np.ndarray, artefacts: Artefacts) -> Tracks:
        """See `PointTracker.track`. Flows are artefacts of kind "flow", several pairs of frames each.

        Those used last stay in memory: windows that overlap do not compute them again, disk or no disk.

        Raises:
            VosflowError: frames of less than 128 pixels a side.
        """
        from vosflow.trackers.sam_pt.points.networks import float32, refuse_small

        reason = "the coarsest level of its correlations, at 1/64, would have less than 2 x 2 places"
        refuse_small(clip, SMALLEST_SIDE, "RAFT", reason)
        with float32(self.device):
            return track_both_ways(lambda clip, queries: self._track_forwards(clip, queries, artefacts), clip, queries)

    def _track_forwards(self, clip: Clip, queries: np.ndarray, artefacts: Artefacts) -> Tracks:
        import torch

        from vosflow.trackers.sam_pt.points.sampling import sample_bilinear

        first = queries[:, 0].astype(int)
        positions = np.zeros((len(clip), len(queries), 2), np.float32)
        positions[first, np.arange(len(queries))] = queries[:, 1:]
        for t in range(first.min(initial=len(clip)), len(clip) - 1):
            moving = first <= t
            places = torch.from_numpy(positions[t, moving])
            motion = sample_bilinear(torch.from_numpy(self._flow(clip, t, artefacts))[None], places[None])[0]
            positions[t + 1, moving] = (places + motion).numpy()
        inside = (positions >= 0) & (positions < (clip.width, clip.height))
        return Tracks(positions, inside.all(axis=-1))

    def _flow(self, clip: Clip, index: int, artefacts: Artefacts) -> np.ndarray:
        """Flow from frame `index` to the next, float32 [H, W, 2]: kept, or made with its neighbours that are not."""
        pair = _pair(clip, index)
        if pair not in self._kept:
            start = index - index % PAIRS_PER_ARTEFACT
            block = range(start, min(start + PAIRS_PER_ARTEFACT, len(clip) - 1))
            missing = [i for i in block if _pair(clip, i) not in self._kept]
            flows = self._flows(clip, range(missing[0], missing[-1] + 2), artefacts)
            for i, flow in enumerate(flows, start=missing[0]):
                self._kept[_pair(clip, i)] = flow.copy()  # by itself: a view would hold the others
            while len(self._kept) > PAIRS_PER_ARTEFACT and sum(one.nbytes for one in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(pair)
        return self._kept[pair]

    def _flows(self, clip: Clip, frames: range, artefacts: Artefacts) -> np.ndarray:
        """Flow from each of some frames in a row to the next, float32 [frames - 1, H, W, 2]."""
        facts = {
            "frames": [clip.digest(i) for i in frames],
            "weights": self.checkpoint.sha256,
            "iters": self.settings.iters,
        }

        def make() -> dict[str, np.ndarray]:
            from vosflow.trackers.sam_pt.points.raft_network import estimate_flows

            flows = estimate_flows(self._network, [clip[i] for i in frames], self.settings.iters, self.device)
            return {"flow": flows}

        return artefacts.get("flow", facts, make, FLOW_CODE)["flow"]


def _pair(clip: Clip, index: int) -> tuple[str, str]:
    """Digests of frame `index` and the next one."""
    return clip.digest(index), clip.digest(index + 1)
