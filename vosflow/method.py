"""A tracker with complete settings and its weights: what decides masks, and the keys that tell when they are stale."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from vosflow.digest import code_digest, data_digest, file_digest
from vosflow.errors import VosflowError
from vosflow.provenance import git_commit, lock_digest, versions
from vosflow.roles import by_role, each_role
from vosflow.trackers.base import Checkpoint, Tracker, TrackerSettings, Weights
from vosflow.trackers.registry import load_tracker, tracker_module
from vosflow.validation import explain_validation
from vosflow.weights import non_commercial_notes, parts_of

SHARED_MODULES = ("vosflow.video", "vosflow.masks")  # they shape every tracker's pixels


@dataclass(frozen=True)
class Method:
    """A tracker with complete settings and its weights: what, apart from the video, decides the masks."""

    tracker: str
    settings: TrackerSettings
    checkpoint: Weights = None

    @classmethod
    def of(
        cls, tracker: str, settings: Mapping[str, object] | None = None, checkpoint: Mapping[str, object] | None = None
    ) -> Method:
        """Build from plain data.

        Args:
            checkpoint: id, path, and optionally config and the expected sha256; or {role: these facts}.

        Raises:
            VosflowError: unknown tracker or settings, missing weights, or weights with another sha256.
        """
        kind = load_tracker(tracker)
        parsed = parse_settings(kind, tracker, settings or {})
        _check_weights(kind, tracker, parsed, checkpoint)
        return cls(tracker, parsed, each_role(_checkpoint, checkpoint))

    @property
    def uses_gpu(self) -> bool:
        """Whether the tracker computes on a GPU where there is one."""
        return load_tracker(self.tracker).uses_gpu

    @property
    def reads_full_frames(self) -> bool:
        """Whether the tracker reads frames in the camera's resolution, where there are any."""
        return getattr(load_tracker(self.tracker), "reads_full_frames", False)

    @property
    def digest(self) -> str:
        """Of the tracker and its settings: tells whose masks are in a folder."""
        return method_digest(self.tracker, self.settings.model_dump(mode="json"))

    @property
    def licence_notes(self) -> list[str]:
        """What the licences of its weights forbid."""
        return non_commercial_notes(one.id for one in by_role(self.checkpoint).values())

    @property
    def marks(self) -> dict[str, object]:
        """By which masks of this method are known in a folder; in every record. Weights: sha256, or sha256 by role."""
        return {"method": self.digest, "weights": each_role(lambda one: one.sha256, self.checkpoint)}

    @functools.cached_property
    def code(self) -> str:
        """Digest of the code that computes the masks."""
        return code_digest(*code_modules(self.tracker, self.settings))

    @functools.cached_property
    def provenance(self) -> dict[str, str | None]:
        """What the masks come from, as it is now: versions, commit, locked environment, code, weights."""
        return {**versions(), "git": git_commit(), "lock": lock_digest(), "code": self.code}

    def key(self, video: Mapping[str, object], device: str, precision: str) -> str:
        """The key of a video: digest of settings, weights, code, device, precision, and its part of the manifest.

        Args:
            video: see `Manifest.tracking_view`.
            device: "cpu" or "cuda".
            precision: what is computed in there, see `TrackerSettings.precision_on`: settings that leave it open mean
                another one on another GPU, whose masks must not pass for these.
        """
        weights = each_role(lambda one: {"sha256": one.sha256, "config": _config_id(one)}, self.checkpoint)
        return data_digest(
            {
                "tracker": self.tracker,
                "settings": self.settings.model_dump(mode="json"),
                "checkpoint": weights,
                "code": self.code,
                "device": device,
                "precision": precision,
                "video": video,
            }
        )


def code_modules(tracker: str, settings: TrackerSettings) -> tuple[str, ...]:
    """The modules that shape the masks of a tracker under these settings: its own, and those that it says it takes."""
    more = getattr(load_tracker(tracker), "code_modules", lambda settings: ())
    return (tracker_module(tracker), *SHARED_MODULES, *more(settings))


def method_digest(tracker: str, settings: Mapping[str, object]) -> str:
    """Digest of a tracker and its resolved settings."""
    return data_digest({"tracker": tracker, "settings": dict(settings)})


def parse_settings(kind: type[Tracker], tracker: str, settings: Mapping[str, object]) -> TrackerSettings:
    """Settings of a tracker, checked; raises VosflowError that names the key and what is allowed."""
    with explain_validation(kind.Settings, f"settings of tracker {tracker}"):
        return kind.Settings.model_validate(dict(settings))


def parse_assignments(items: Iterable[str]) -> dict[str, object]:
    """Settings from texts like "num_maskmem=4"; values are read as YAML. Raises VosflowError naming a wrong one."""
    settings = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise VosflowError(f"not a setting: {item!r}", expected="KEY=VALUE, for instance --set num_maskmem=4")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise VosflowError(
                f"the value of the setting {item!r} is not readable ({getattr(error, 'problem', None) or error})",
                expected="a value as in YAML: 4, true, fast, [1, 2] or '{iters: 12}'",
                remedy="put what has blanks, braces or brackets into quotes: --set 'KEY={name: value}'",
            ) from error
    return settings


def _check_weights(kind: type[Tracker], tracker: str, settings: TrackerSettings, given: Mapping | None) -> None:
    """Refuse weights that are not those which the tracker takes: one checkpoint, one for each role, or none."""
    parts = parts_of(kind, settings)
    found = set(by_role(given))
    if parts is None:
        if kind.needs_checkpoint and found != {""}:
            raise VosflowError(
                f"tracker {tracker} needs a checkpoint",
                expected="`checkpoint:` in the run, or --checkpoint FILE",
                remedy="name one of vosflow/catalog/checkpoints.yaml, or your own file",
            )
    elif found != set(parts):
        raise VosflowError(
            f"tracker {tracker} needs weights for " + (", ".join(sorted(parts)) or "nothing")
            + ", and was given some for " + (", ".join(sorted(found)) or "nothing"),
            expected="--checkpoint " + " ".join(f"{role}=FILE" for role in sorted(parts)),
            remedy="name a file for each role that the tracker has under these settings",
        )  # fmt: skip


def _checkpoint(given: Mapping[str, object]) -> Checkpoint:
    path = Path(str(given["path"]))
    if not path.is_file():
        raise VosflowError(
            "the weights are missing", path=path, remedy="fetch them (snakemake fetch_all), or mend the path"
        )
    found = file_digest(path)
    if given.get("sha256") and given["sha256"] != found:
        raise VosflowError(
            f"the checkpoint's sha256 is {found}",
            path=path,
            expected=f"{given['sha256']} (checkpoint {given['id']})",
            remedy="delete the file and fetch it again, or name the file that you mean as a checkpoint of your own",
        )
    return Checkpoint(id=str(given["id"]), path=path, sha256=found, config=given.get("config"))


def _config_id(checkpoint: Checkpoint) -> str | None:
    """A network configuration's name, or the digest of its file: a moved file stays the same configuration."""
    config = checkpoint.config
    return file_digest(config) if config and Path(config).is_file() else config
