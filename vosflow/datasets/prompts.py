"""Which masks of a folder are prompts: the rules of `tools/vos_inference.py` of facebookresearch/sam2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vosflow.datasets.antialiased import FEWEST_VALUES, refuse_antialiased
from vosflow.datasets.lists import folder_names
from vosflow.errors import VosflowError
from vosflow.manifest import Prompt
from vosflow.masks import read_label_map

LATE = "set late_objects (--track_object_appearing_later_in_video)"


@dataclass(frozen=True)
class PromptRule:
    """How the masks of a folder become prompts.

    per_obj_png_file: masks are `{object}/{frame}.png` (any value above 0), not label maps `{frame}.png`.
    use_all_masks: every mask is a prompt, not only the first of each object.
    late_objects: objects may appear after the first frame; each starts at its first non-empty mask. Without it, the
        objects are those of the first input frame, and no others may appear later.
    binary: a label map holds one object, 1, which is any value above 0 (DAVIS 2016).
    void: a value of label maps that is no object.
    """

    per_obj_png_file: bool = False
    use_all_masks: bool = False
    late_objects: bool = False
    binary: bool = False
    void: int | None = None

    @property
    def encoding(self) -> str:
        """The encoding of the prompts in the manifest."""
        return "binary" if self.per_obj_png_file or self.binary else "label_map"


def read_mask(path: Path, height: int, width: int) -> np.ndarray:
    """The values of a mask file, uint8 [H, W].

    Raises:
        VosflowError: missing or damaged file, more than one channel, or another size than `height` x `width`.
    """
    values, _ = read_label_map(path)
    if values.shape != (height, width):
        raise VosflowError(
            f"the mask is {values.shape[1]}x{values.shape[0]} pixels",
            path=path,
            expected=f"{width}x{height}, the size of its frame",
            remedy="use the annotations of the same resolution as the frames",
        )
    return values


def values_above_zero(values: np.ndarray) -> list[int]:
    """The distinct values above 0 of a uint8 image, ascending."""
    return [int(value) for value in np.flatnonzero(np.bincount(values.ravel(), minlength=256)) if value]


class MaskFolder:
    """The given masks of one video: `{folder}/{frame}.png`, or `{folder}/{object}/{frame}.png`.

    `seen` are the values above 0 of files that have been read already, so that none is decoded twice.
    """

    def __init__(self, folder: Path, video: str, height: int, width: int, rule: PromptRule) -> None:
        self.folder, self.video, self.rule = folder, video, rule
        self._height, self._width = height, width
        self.seen: Mapping[Path, Sequence[int]] = {}
        if not folder.is_dir():
            raise VosflowError(
                f"the masks of video {video} are missing",
                path=folder,
                expected="a folder with at least the mask of the first frame",
                remedy="extract the dataset's archive again, or correct the folder of the masks",
            )
        self._object_folders = object_folders(folder, video) if rule.per_obj_png_file else {}

    def has(self, frame: str) -> bool:
        """Whether there is a mask (of any object) for `frame`."""
        if self.rule.per_obj_png_file:
            return any((folder / f"{frame}.png").is_file() for folder in self._object_folders.values())
        return (self.folder / f"{frame}.png").is_file()

    def objects_on(self, frame: str, *, allow_missing: bool) -> dict[int, Path]:
        """The non-empty objects on `frame`, ascending, and the file that holds each mask.

        Per-object files: a missing one is an error unless `allow_missing`, an empty one likewise, because a tracker
        cannot be given an empty mask and leaving it out would change the result silently.
        """
        if not self.rule.per_obj_png_file:
            path = self.folder / f"{frame}.png"
            values = self._values(path)
            if self.rule.binary:
                return {1: path} if values else {}
            return {value: path for value in values if value != self.rule.void}
        found = {}
        for object_id, folder in self._object_folders.items():
            path = folder / f"{frame}.png"
            if allow_missing and not path.is_file():
                continue
            if self._values(path):
                found[object_id] = path
            elif not allow_missing:
                raise VosflowError(
                    f"the mask of object {object_id} is empty on frame {frame} of video {self.video}",
                    path=path,
                    expected=f"at least one pixel above 0 for each object on input frame {frame}",
                    remedy=f"if objects appear later, {LATE}; else remove the object's folder",
                )
        return found

    def refuse_antialiased(self, path: Path, objects: int) -> None:
        """Refuse a label map, with that many objects, whose values are greys, and no ids. Raises VosflowError.

        One with a palette, as all publishers of label maps write them, is what its writer says it is.
        """
        if self.rule.encoding != "label_map" or objects < FEWEST_VALUES - 1:  # one more value may be void
            return
        values, palette = read_label_map(path)
        if palette is None:
            refuse_antialiased(values, path)

    def _values(self, path: Path) -> Sequence[int]:
        if path in self.seen:
            return self.seen[path]
        return values_above_zero(read_mask(path, self._height, self._width))


def find_prompts(masks: MaskFolder, frames: Sequence[str], root: Path) -> tuple[tuple[int, ...], tuple[Prompt, ...]]:
    """The objects of a video, ascending, and their prompts, ordered by frame and object.

    Args:
        frames: names of all frames in temporal order.
        root: what the prompts' paths are relative to.

    Raises:
        VosflowError: no prompt at all, an object that appears later without `late_objects`, or a mask of greys, in
            which the objects would be as many as there are greys.
    """
    rule, video = masks.rule, masks.video
    if rule.late_objects or rule.use_all_masks:
        input_frames = [frame for frame in frames if masks.has(frame)]
    else:
        input_frames = [frame for frame in frames[:1] if masks.has(frame)]
    objects: set[int] = set()
    prompts: list[Prompt] = []
    for frame in input_frames:
        given = masks.objects_on(frame, allow_missing=rule.late_objects)
        if not objects.issuperset(given):  # greys would be new ones
            masks.refuse_antialiased(next(iter(given.values())), len(given))
        for object_id, path in given.items():
            first_time = object_id not in objects
            if first_time and frame != input_frames[0] and not rule.late_objects:
                raise VosflowError(
                    f"object {object_id} of video {video} appears on frame {frame}, after the first input frame "
                    f"{input_frames[0]}",
                    path=path,
                    expected=f"only objects of the first input frame: {', '.join(map(str, sorted(objects))) or 'none'}",
                    remedy=f"to track objects that appear later, {LATE}",
                )
            objects.add(object_id)
            if first_time or rule.use_all_masks:
                prompts.append(Prompt(object_id, frame, path.relative_to(root).as_posix(), rule.encoding))
    if not prompts:
        raise _nothing_to_track(masks, frames, input_frames)
    return tuple(sorted(objects)), tuple(prompts)


def _nothing_to_track(masks: MaskFolder, frames: Sequence[str], input_frames: Sequence[str]) -> VosflowError:
    rule = masks.rule
    problem = "no mask with an object"
    if not (rule.late_objects or rule.use_all_masks):
        problem = f"the mask of its first frame, {frames[0]}, is {'empty' if input_frames else 'missing'}"
    remedy = f"restore the mask; if objects appear later, {LATE}"
    if not rule.per_obj_png_file and not any(masks.has(frame) for frame in frames) and folder_names(masks.folder):
        remedy = "for masks {object}/{frame}.png, set per_obj_png_file (--per_obj_png_file)"
    return VosflowError(
        f"video {masks.video} has no object to track: {problem}",
        path=masks.folder,
        expected="a mask that holds at least one object",
        remedy=remedy,
    )


def object_folders(folder: Path, video: str) -> dict[int, Path]:
    """The object folders of the per-object layout, by ascending object id; hidden folders are left out.

    Raises:
        VosflowError: a folder that is not named by an id, two for one object, or none.
    """
    folders = {}
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        if not (path.name.isascii() and path.name.isdigit()):
            raise VosflowError(
                f"the folder is not named by an object id, in video {video}",
                path=path,
                expected="one folder per object, named by its id, like 001",
                remedy="rename or remove the folder; for label maps, do not set per_obj_png_file",
            )
        if int(path.name) in folders:
            raise VosflowError(
                f"object {int(path.name)} of video {video} has two folders",
                path=path,
                expected="one folder per object",
                remedy=f"remove it or {folders[int(path.name)].name}",
            )
        folders[int(path.name)] = path
    if not folders:
        raise VosflowError(
            f"video {video} has no object folders",
            path=folder,
            expected="masks as {object}/{frame}.png",
            remedy="for label maps {frame}.png, do not set per_obj_png_file",
        )
    return dict(sorted(folders.items()))
