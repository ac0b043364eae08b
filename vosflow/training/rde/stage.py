"""What one stage of a training is, as plain data: from the study to the job that trains it. No torch.

In two parts. What decides its weights holds no paths: the same videos in another folder are the same training. Where
its files are, and the settings that decide nothing, may change while it is under way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vosflow.errors import VosflowError
from vosflow.training.rde.settings import StageSettings


@dataclass(frozen=True)
class SetFolder:
    """A training set: which it is ("static", "bl30k", "davis", "youtube"), and its folder."""

    kind: str
    root: str


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        stage: 0 to 3.
        width, key_channels: of the network, 64 and 64 as published.
        sets: what it is trained on.
        previous: weights of the stage before; None for stage 0.
        imagenet: {"resnet50": file, "resnet18": file}; empty: stage 0 begins at random.
        origin: what else decides its weights, by name: what its sets hold, the stage before, the code. Kept beside the
            weights, to tell what has changed when a stage begins anew; nothing is computed from it.
        names: what a study calls its weights, for instance "rde.stage0"; several if trainings have the stage in common.
    """

    stage: int
    settings: StageSettings
    width: int
    key_channels: int
    sets: tuple[SetFolder, ...]
    previous: str | None = None
    imagenet: Mapping[str, str] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """All of it, as plain data for `of`."""
        return {"deciding": self.deciding(), "practical": self.practical()}

    def deciding(self) -> dict[str, Any]:
        """What decides the weights, as plain data for `of`."""
        return {
            "stage": self.stage,
            "width": self.width,
            "key_channels": self.key_channels,
            "settings": self.settings.deciding,
            "sets": [part.kind for part in self.sets],
            "origin": dict(self.origin),
        }

    def practical(self) -> dict[str, Any]:
        """The rest: settings that decide no weights, where files are, names."""
        return {
            "names": list(self.names),
            "settings": self.settings.practical,
            "sets": [part.root for part in self.sets],
            "previous": self.previous,
            "imagenet": dict(self.imagenet),
        }

    @classmethod
    def of(cls, deciding: Mapping[str, Any], practical: Mapping[str, Any]) -> StagePlan:
        """From what `deciding` and `practical` gave.

        Raises:
            VosflowError: the clips of an iteration are not those that decide.
        """
        chosen = dict(deciding["settings"])
        clips = chosen.pop("clips")
        settings = StageSettings(**{**chosen, **practical["settings"]})
        if settings.clips != clips:
            raise VosflowError(
                f"{settings.processes} processes with a batch_size of {settings.batch_size} are {settings.clips} clips "
                f"in an iteration, and the stage is trained with {clips}",
                path="processes, batch_size",
                expected=f"settings whose product is {clips}",
                remedy="correct one of the two",
            )
        folders = tuple(SetFolder(*part) for part in zip(deciding["sets"], practical["sets"], strict=True))
        parts = {name: deciding[name] for name in ("stage", "width", "key_channels", "origin")}
        places = {name: practical[name] for name in ("previous", "imagenet")}
        return cls(settings=settings, sets=folders, names=tuple(practical["names"]), **parts, **places)
