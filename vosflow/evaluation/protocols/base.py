"""What a protocol is: the exact rules by which a publisher scores masks. It knows no tracker.

Rules               what all have: name, description, layouts
Protocol            scores masks frame by frame, and reads no predictions itself:
    needs               which frames of a video must be predicted
    scorer              takes the masks of these frames one by one, from files or straight from a tracker
    summarize           the statistics that the publisher reports, from the rows of all videos
InstanceProtocol    scores a file of results: whole videos of instances with scores, some right and some not
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from vosflow.errors import VosflowError
from vosflow.manifest import INSTANCES, LABEL_MAPS, Manifest, VideoEntry

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


class Rules(ABC):
    """The rules of one publisher. Instances hold no state and can be pickled: videos are scored in many processes.

    Attributes:
        name: as users type it.
        about: one paragraph for `scripts/evaluate.py --protocol list`.
        layouts: the output layouts it can score.
        late_objects: objects count that first appear after the first frame.
        ignores_ids: predicted ids that are no objects are background: wrong ids are no error, but warned of.
        needs_meta: what it must know of the objects stands in a file of the publisher, which a folder of masks lacks.
        extra: names of the measures beside J and F, in the order of `Score.extra`.
        headline: the column of global_results.csv that a paper would quote.
        notes: what a reader must know of every number: defects that are reproduced, approximations.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    layouts: ClassVar[tuple[str, ...]] = (LABEL_MAPS,)
    late_objects: ClassVar[bool] = False
    ignores_ids: ClassVar[bool] = False
    needs_meta: ClassVar[bool] = False
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
        for video in manifest.videos if manifest.layout == LABEL_MAPS else ():
            odd = [object_id for object_id in (*video.objects, *video.object_frames) if not 1 <= object_id <= 255]
            if odd:
                raise VosflowError(
                    f"video {video.name} has an object {odd[0]}, which no label map can hold",
                    path=manifest.root,
                    expected="ids from 1 to 255",
                    remedy="correct the ids in the publisher's meta file, or write the manifest again",
                )

    def remarks(self, manifest: Manifest) -> Iterable[str]:
        """What is odd in this ground truth and changes numbers by these rules; raises VosflowError if it is unreadable.

        For bare folders: in manifests of datasets the adapters note it.
        """
        return ()


class Protocol(Rules):
    """Rules that score one frame after the other."""

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


class InstanceProtocol(Rules):
    """Rules that score instances: masks through a whole video, each with a score, in one file for all videos."""

    layouts = (INSTANCES,)

    @abstractmethod
    def evaluate(
        self, manifest: Manifest, results: Path, *, strict: bool, progress: Callable[[str, int, int], None] | None
    ) -> tuple[list[Score], Summary, dict[str, int]]:
        """Score a file of results.

        Args:
            manifest: a dataset split with `annotations`.
            results: the file.
            strict: a video without results is an error; otherwise nothing was found in it.
            progress: called after each video with its name, the number of finished videos and the number of all.

        Returns:
            One row per ground-truth object, the publisher's statistics, and {video: 1} of videos without results.

        Raises:
            VosflowError: a file is unreadable, or breaks the format.
        """
