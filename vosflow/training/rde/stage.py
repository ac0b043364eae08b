"""What one stage of a training is, as plain data: from the study to the job that trains it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    """

    stage: int
    settings: StageSettings
    width: int
    key_channels: int
    sets: tuple[SetFolder, ...]
    previous: str | None = None
    imagenet: Mapping[str, str] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """Plain data, for `of`."""
        return {
            "stage": self.stage,
            "settings": self.settings.model_dump(mode="json"),
            "width": self.width,
            "key_channels": self.key_channels,
            "sets": [vars(part) for part in self.sets],
            "previous": self.previous,
            "imagenet": dict(self.imagenet),
        }

    def deciding(self) -> dict[str, Any]:
        """The same without settings that decide no weights."""
        return {**self.as_data(), "settings": self.settings.deciding}

    @classmethod
    def of(cls, data: Mapping[str, Any], practical: Mapping[str, Any] = {}) -> StagePlan:
        """From what `as_data` gave, or from what `deciding` gave and the `practical` settings."""
        sets = tuple(SetFolder(**part) for part in data["sets"])
        settings = StageSettings(**{**data["settings"], **practical})
        return cls(**{**data, "settings": settings, "sets": sets})
