"""Scoring masks while they are still in memory: right after a tracker has made them, without reading them back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vosflow.errors import VosflowError
from vosflow.evaluation.ground_truth import check_ground_truth
from vosflow.evaluation.protocols.base import Protocol, VideoScorer
from vosflow.evaluation.scores import Score
from vosflow.manifest import LABEL_MAPS, Manifest

if TYPE_CHECKING:
    from vosflow.trackers.base import Masks


@dataclass
class _Begun:
    """A video that is being scored: the frames that are still to come, each with its objects."""

    scorer: VideoScorer
    coming: Iterator[tuple[str, Sequence[int]]]
    next: tuple[str, Sequence[int]] | None


class LiveScorer:
    """Takes the masks of videos, frame by frame, and scores them by a protocol.

    It never raises once it is built: a tracker must not fail for what is wrong with scoring. A video that it could not
    score (frames missing or out of order, masks that break the rules) is not among `rows`; scored from its files by
    `vosflow.evaluation.run.evaluate`, it is, or gives the error.
    """

    def __init__(self, manifest: Manifest, protocol: Protocol) -> None:
        """Check the ground truth of all videos of `manifest`.

        Raises:
            VosflowError: a file of it is missing or unreadable, or cannot be scored by the protocol.
        """
        protocol.check(manifest)
        check_ground_truth(manifest)
        self._manifest, self._protocol = manifest, protocol
        self._needs = {video.name: protocol.needs(video, manifest.root) for video in manifest.videos}
        self._begun: dict[str, _Begun] = {}
        self._given_up: set[str] = set()

    def add(self, video: str, frame: str, masks: Masks) -> None:
        """Score one frame, if the protocol needs it; frames of a video must come in temporal order.

        Args:
            masks: label map uint8 [H, W], or in the per-object layout {object id: bool [H, W]}.
        """
        if video in self._given_up or frame not in self._needs.get(video, ()):
            return
        try:
            begun = self._begun.get(video) or self._begin(video)
            name, objects = begun.next or (None, ())
            if name != frame:
                raise VosflowError(f"frame {frame} comes out of order")
            begun.scorer.add(frame, self._selected(video, masks, objects))
            begun.next = next(begun.coming, None)
        except Exception:  # whatever it is: the masks are good, and `evaluate` will say it, with the name of the file
            self._given_up.add(video)
            self._begun.pop(video, None)

    @property
    def rows(self) -> dict[str, list[Score]]:
        """The rows of all videos that have been scored completely. Call once, at the end."""
        rows = {}
        for video, begun in self._begun.items():
            if begun.next is None:
                with contextlib.suppress(Exception):  # as above
                    rows[video] = begun.scorer.rows()
        return rows

    def _begin(self, video: str) -> _Begun:
        coming = iter(self._needs[video].items())
        scorer = self._protocol.scorer(self._manifest.video(video), self._manifest.root)
        self._begun[video] = _Begun(scorer, coming, next(coming))
        return self._begun[video]

    def _selected(self, video: str, masks: Masks, objects: Sequence[int]) -> Masks:
        """What reading the files would give."""
        entry = self._manifest.video(video)
        selected = masks if self._manifest.layout == LABEL_MAPS else {o: masks[o] for o in objects}
        arrays = selected.values() if isinstance(selected, Mapping) else (selected,)
        if any(array.shape != (entry.height, entry.width) for array in arrays):
            raise VosflowError(f"masks of video {video} are of another size than the ground truth")
        return selected
