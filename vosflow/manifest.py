"""The manifest: one JSON file that says all a tracker and a protocol may know about a dataset split.

Paths inside a video entry are relative to the manifest's `root`, so that moving a dataset changes no video's entry
(and therefore recomputes nothing).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vosflow.errors import VosflowError
from vosflow.records import write_text

FORMAT = 1
LABEL_MAPS = "label_maps"  # one palette PNG per frame, pixel value = object id
PER_OBJECT = "per_object"  # one binary PNG per object and frame; objects may overlap
INSTANCES = "instances"  # one results.json for all videos: masks with scores, as video instance segmentation wants
LAYOUTS = (LABEL_MAPS, PER_OBJECT, INSTANCES)
NOT_FOR_TRACKERS = ("fps", "ground_truth", "ground_truth_content", "object_frames", "groups", "external_id")


@dataclass(frozen=True)
class ImageFolder:
    """Images `{root}/{folder}/{name}{suffix}` for each name, in temporal order."""

    folder: str
    suffix: str
    names: tuple[str, ...]

    def path(self, root: str | Path, name: str) -> Path:
        """Path of the image called `name`."""
        return Path(root) / self.folder / f"{name}{self.suffix}"


@dataclass(frozen=True)
class Prompt:
    """The given mask of one object on one frame.

    `encoding` is "label_map" (pixels equal to the object id) or "binary" (pixels above 0).
    """

    object: int
    frame: str
    mask: str
    encoding: str = "label_map"


@dataclass(frozen=True)
class VideoEntry:
    """One video: frames, size in pixels, objects, prompts, and the ground truth if it is public.

    `content` is a fingerprint of the input files (see `vosflow.datasets.content_digest`): it makes a replaced file
    a changed video. `ground_truth` is never seen by a tracker and is not part of a video's key. In the per-object
    layout its `folder` holds one sub-folder per object.

    `required` are the frames that a submission must hold (all, if empty); a tracker may leave out the others. What only
    scoring and submissions need, and no tracker sees: `object_frames` are the annotated frames of each object, where
    not every object is annotated on every frame of `ground_truth`; `groups` the group that each object is averaged in
    ("seen", "unseen"); `external_id` the video's id in the publisher's JSON file (`Manifest.annotations`).

    `full_frames` are the same frames in the camera's resolution, where their publisher gives them (DAVIS), `full_masks`
    the masks of the prompts, and `full_content` is their fingerprint: only trackers that ask for them see them
    (`Video.read_full_frame`, `Video.read_full_prompt`).
    """

    name: str
    frames: ImageFolder
    height: int
    width: int
    objects: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    fps: float | None = None
    content: str = ""
    ground_truth: ImageFolder | None = None
    ground_truth_content: str = ""
    required: tuple[str, ...] = ()
    object_frames: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)
    external_id: int | str | None = None
    full_frames: ImageFolder | None = None
    full_masks: ImageFolder | None = None
    full_content: str = ""

    @property
    def cost(self) -> int:
        """Estimated work in arbitrary units: frames x (1 + objects)."""
        return len(self.frames.names) * (1 + len(self.objects))


@dataclass(frozen=True)
class Manifest:
    """One dataset split.

    `layout` is the output layout its publisher wants. `late_objects` says that objects may appear after the first
    frame, each with its own prompt. `protocol` names the scoring rules, or is None where no ground truth is public.
    `binary_ground_truth` says that ground-truth masks are one object encoded as "any value above 0" (DAVIS 2016).
    `annotations` is the publisher's JSON file of masks, relative to `root`, where the ground truth is no PNG files.
    `agreement_with` names what masks are compared with where that is no ground truth ("the sample submission"); what is
    computed is then an agreement, never a score.
    """

    dataset: str
    split: str
    root: str
    videos: tuple[VideoEntry, ...]
    layout: str = LABEL_MAPS
    late_objects: bool = False
    protocol: str | None = None
    binary_ground_truth: bool = False
    annotations: str | None = None
    agreement_with: str | None = None
    notes: tuple[str, ...] = field(default=())

    def tracking_view(self, name: str, *, full_frames: bool = False) -> dict:
        """All of a video that can shape its masks, as plain JSON types: the part of the manifest that its key is of.

        Ground truth and the places of files are left out; `content` stands for what is in the files. What is in
        `full_frames` counts for trackers that read them.
        """
        entry = asdict(self.video(name))
        del entry["full_frames"], entry["full_masks"]
        if not (full_frames and entry["full_content"]):
            del entry["full_content"]
        for key in NOT_FOR_TRACKERS:
            del entry[key]
        if not entry["required"]:
            del entry["required"]
        entry["frames"] = {"names": entry["frames"]["names"]}
        entry["prompts"] = [{key: value for key, value in p.items() if key != "mask"} for p in entry["prompts"]]
        return {**entry, "layout": self.layout, "late_objects": self.late_objects}

    def video(self, name: str) -> VideoEntry:
        """The entry called `name`; raises VosflowError if there is none."""
        for entry in self.videos:
            if entry.name == name:
                return entry
        raise VosflowError(
            f"no video called {name!r} in {self.dataset}/{self.split}",
            expected="one of " + ", ".join(v.name for v in self.videos[:8]) + (" ..." if len(self.videos) > 8 else ""),
            remedy="check the spelling, or write the manifest again",
        )


def save_manifest(manifest: Manifest, path: str | Path) -> None:
    """Write `manifest` as JSON, one line per video, at once or not at all; raises DiskError if it cannot."""
    head = {"format": FORMAT, **{k: v for k, v in asdict(manifest).items() if k != "videos"}}
    lines = [json.dumps(asdict(video), separators=(",", ":"), sort_keys=True) for video in manifest.videos]
    text = json.dumps(head)[:-1] + ', "videos": [\n' + ",\n".join(lines) + "\n]}\n"
    write_text(path, text)


def load_manifest(path: str | Path) -> Manifest:
    """Read a manifest; raises VosflowError naming the file if it is missing, broken or of another format."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise KeyError("format")
        videos = tuple(_video(entry) for entry in data.pop("videos"))
        return Manifest(videos=videos, **{**data, "notes": tuple(data.get("notes", ()))})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VosflowError(
            f"not a readable manifest ({type(error).__name__}: {error})",
            path=path,
            expected=f"a manifest of format {FORMAT}, written by scripts/write_manifest.py",
            remedy="delete the file and run snakemake again",
        ) from error


def _folder(data: dict | None) -> ImageFolder | None:
    return None if data is None else ImageFolder(data["folder"], data["suffix"], tuple(data["names"]))


def _video(data: dict) -> VideoEntry:
    fields = dict(data)
    fields["frames"] = _folder(fields["frames"])
    fields["ground_truth"] = _folder(fields["ground_truth"])
    fields["full_frames"] = _folder(fields.get("full_frames"))
    fields["full_masks"] = _folder(fields.get("full_masks"))
    fields["objects"] = tuple(fields["objects"])
    fields["prompts"] = tuple(Prompt(**prompt) for prompt in fields["prompts"])
    fields["required"] = tuple(fields.get("required", ()))
    fields["object_frames"] = {int(key): tuple(names) for key, names in fields.get("object_frames", {}).items()}
    fields["groups"] = {int(key): group for key, group in fields.get("groups", {}).items()}
    return VideoEntry(**fields)
