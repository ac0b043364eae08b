"""What a protocol is: the exact rules by which a publisher scores masks. It knows no tracker and reads no predictions.

needs    which frames of a video must be predicted
scorer   takes the masks of these frames one by one, from files or straight from a tracker, and gives rows of scores
summarize   the statistics that the publisher reports, from the rows of all videos
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vosflow.errors import VosflowError
from vosflow.manifest import LABEL_MAPS, Manifest, VideoEntry

if TYPE_CHECKING:
    from vosflow.evaluation.scores import Score
    from vosflow.evaluation.statistics import Summary
    from vosflow.trackers.base import Masks


class VideoScorer(ABC):
    """Scores one video. Holds numbers, never frames: memory does not grow with the length of a video."""

    @abstractmethod
    def add(self, frame: str, masks: Masks, path: Path | None = None) -> None:
        """Score one frame of those that the protocol needs, each once, in temporal order.

        Args:
            frame: its name.
            masks: label map uint8 [H, W], or in the per-object layout {object id: bool [H, W]}.
            path: the file (or folder) they were read from, for messages; None if they are only in memory.

        Raises:
            VosflowError: the ground truth is unreadable, or the masks break the rules.
        """

    @abstractmethod
    def rows(self) -> list[Score]:
        """Rows of the video, sorted by object, then frame. Call once, after the last frame."""


class Protocol(ABC):
    """The rules of one publisher. Instances hold no state and can be pickled: videos are scored in many processes.

    Attributes:
        name: as users type it.
        about: one paragraph for `scripts/evaluate.py --protocol list`.
        layouts: the output layouts it can score.
        extra: names of the measures beside J and F, in the order of `Score.extra`.
        headline: the column of global_results.csv that a paper would quote.
        notes: what a reader must know of every number: defects that are reproduced, approximations.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    layouts: ClassVar[tuple[str, ...]] = (LABEL_MAPS,)
    extra: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[str] = "J&F-Mean"
    notes: ClassVar[tuple[str, ...]] = ()

    def check(self, manifest: Manifest) -> None:
        """Raise VosflowError if this dataset split cannot be scored by these rules."""
        if manifest.layout not in self.layouts:
            raise VosflowError(
                f"protocol {self.name} cannot score {manifest.dataset}/{manifest.split}: its layout is "
                f"{manifest.layout}",
                expected=f"layout {' or '.join(self.layouts)}",
                remedy="use the protocol of the dataset's publisher",
            )

    @abstractmethod
    def needs(self, video: VideoEntry, root: str | Path) -> Mapping[str, Sequence[int]]:
        """The frames that must be predicted, in temporal order, each with the ids of the objects that count on it.

        Raises:
            VosflowError: no frame of the video can be scored, or its ground truth is unreadable.
        """

    @abstractmethod
    def scorer(self, video: VideoEntry, root: str | Path) -> VideoScorer:
        """A fresh scorer of the video; `root` is the manifest's. Raises VosflowError as `needs` does."""

    @abstractmethod
    def summarize(self, scores: Iterable[Score], manifest: Manifest) -> Summary:
        """The statistics that the publisher reports, from the rows of all videos."""
