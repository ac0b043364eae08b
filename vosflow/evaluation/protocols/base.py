"""What a protocol is: ground truth and label maps in, rows of scores out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vosflow.manifest import Manifest, VideoEntry

if TYPE_CHECKING:
    from vosflow.evaluation.scores import Score
    from vosflow.evaluation.statistics import Summary


class Protocol(ABC):
    """The rules of one publisher. Instances hold no state and can be pickled: videos are scored in many processes."""

    name: ClassVar[str]

    @abstractmethod
    def check(self, manifest: Manifest, predictions: Path) -> None:
        """Raise VosflowError if this dataset cannot be scored by these rules, or if a file is missing."""

    @abstractmethod
    def score_video(self, video: VideoEntry, root: str | Path, predictions: str | Path) -> list[Score]:
        """Rows of one video, sorted by object, then frame.

        Args:
            video: its entry in the manifest.
            root: the manifest's root.
            predictions: the folder that holds the label maps of all videos.

        Raises:
            VosflowError: a file is unreadable, or its content breaks the rules.
        """

    @abstractmethod
    def summarize(self, scores: Iterable[Score]) -> Summary:
        """The statistics that the publisher reports, from the rows of all videos."""
