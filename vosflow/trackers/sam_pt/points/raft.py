"""RAFT as a point tracker (Teed and Deng, ECCV 2020, arXiv 2003.12039): points go along with the optical flow.

A point is visible wherever it is inside the frame. The authors of SAM-PT ran RAFT in mixed precision on GPUs; here it
computes in float32.
"""

from __future__ import annotations

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

    def load(self) -> None:
        """Load the weights. Raises VosflowError for weights of another network."""
        from vosflow.trackers.sam_pt.points.raft_network import load_raft

        self._network = load_raft(self.checkpoint).to(self.device)

    def track(self, clip: Clip, queries: np.ndarray, artefacts: Artefacts) -> Tracks:
        """See `PointTracker.track`. Flows are artefacts of kind "flow", several pairs of frames each.

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
        flows = np.empty(0)
        for t in range(first.min(initial=len(clip)), len(clip) - 1):
            block, pair = divmod(t, PAIRS_PER_ARTEFACT)
            if pair == 0 or not len(flows):
                flows = self._flows(clip, block * PAIRS_PER_ARTEFACT, artefacts)
            moving = first <= t
            places = torch.from_numpy(positions[t, moving])
            motion = sample_bilinear(torch.from_numpy(flows[pair])[None], places[None])[0]
            positions[t + 1, moving] = (places + motion).numpy()
        inside = (positions >= 0) & (positions < (clip.width, clip.height))
        return Tracks(positions, inside.all(axis=-1))

    def _flows(self, clip: Clip, start: int, artefacts: Artefacts) -> np.ndarray:
        """Flow from each frame to the next, from frame `start` on, float32 [at most 8, H, W, 2]."""
        frames = range(start, min(start + PAIRS_PER_ARTEFACT + 1, len(clip)))
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
