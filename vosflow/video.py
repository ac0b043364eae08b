"""A video as a tracker sees it: frames as RGB arrays, prompts as boolean masks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from vosflow.ahead import ahead
from vosflow.artefacts import Artefacts
from vosflow.errors import VosflowError
from vosflow.manifest import Manifest, Prompt, VideoEntry
from vosflow.masks import DAVIS_PALETTE, read_label_map

FRAMES_AHEAD = 4


class Video:
    """Frames and prompts of one video of a manifest, read from disk on demand.

    Attributes:
        name, height, width, objects, prompts, fps: as in the manifest's entry.
        frame_names: names of all frames in temporal order.
        required: names of the frames that a submission must hold, which alone a tracker may give; all, if empty.
        has_full_frames: the same frames are there in the camera's resolution, see `read_full_frame`.
        has_full_prompts: and so are the masks of the prompts, see `read_full_prompt`.
        layout: the output layout ("label_maps", "per_object" or "instances").
        late_objects: objects may appear after the first frame, each with its own prompt.
        remarks: what the tracker had to say of this video, see `remark`.
        artefacts: where it gets arrays that are costly to compute, and the same in other runs.
        scores: {object id: score}, set by a tracker that proposes objects (layout "instances").
    """

    def __init__(self, entry: VideoEntry, root: str | Path, *, layout: str, late_objects: bool) -> None:
        self._entry = entry
        self._root = Path(root)
        self.name = entry.name
        self.height, self.width = entry.height, entry.width
        self.objects = entry.objects
        self.prompts = entry.prompts
        self.fps = entry.fps
        self.frame_names = entry.frames.names
        self.required = entry.required
        self.has_full_frames = entry.full_frames is not None
        self.has_full_prompts = entry.full_masks is not None
        self.layout = layout
        self.late_objects = late_objects
        self.remarks: list[str] = []
        self.artefacts = Artefacts()
        self.scores: dict[int, float] = {}

    @classmethod
    def of(cls, manifest: Manifest, name: str) -> Video:
        """The video called `name` of `manifest`."""
        return cls(manifest.video(name), manifest.root, layout=manifest.layout, late_objects=manifest.late_objects)

    def __len__(self) -> int:
        return len(self.frame_names)

    def remark(self, text: str) -> None:
        """Have `text` kept in the video's record: for a tracker that had to do otherwise than its settings say."""
        self.remarks.append(text)

    def frame_path(self, index: int) -> Path:
        """File of frame number `index`."""
        return self._entry.frames.path(self._root, self.frame_names[index])

    def read_frame(self, index: int) -> np.ndarray:
        """Frame number `index` as RGB, uint8 [H, W, 3].

        Raises:
            VosflowError: the file is missing, unreadable, or of another size than the video.
        """
        path = self.frame_path(index)
        frame = self._read_image(index, path)
        if frame.shape[:2] != (self.height, self.width):
            raise VosflowError(
                f"frame {self.frame_names[index]} is {frame.shape[1]}x{frame.shape[0]} pixels",
                path=path,
                expected=f"{self.width}x{self.height}, like the first frame of video {self.name}",
                remedy="restore the original frames; do not mix resolutions in one video",
            )
        return frame

    def read_full_frame(self, index: int) -> np.ndarray:
        """Frame number `index` in the camera's resolution, RGB, uint8 [H, W, 3]; for trackers that declare
        `reads_full_frames`.

        Raises:
            VosflowError: the file is missing or unreadable.
        """
        return self._read_image(index, self._entry.full_frames.path(self._root, self.frame_names[index]))

    def _read_image(self, index: int, path: Path) -> np.ndarray:
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB"))
        except FileNotFoundError as error:
            raise VosflowError(
                f"frame {self.frame_names[index]} of video {self.name} is missing",
                path=path,
                expected=f"{len(self)} frames, as listed in the manifest",
                remedy="restore the file (fetch or extract the dataset again), or write the manifest again without it",
            ) from error
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise VosflowError(
                f"frame {self.frame_names[index]} of video {self.name} is unreadable ({error})",
                path=path,
                expected="a complete JPEG or PNG image",
                remedy="the file is damaged: restore it (extract the dataset's archive again)",
            ) from error

    def frames(self, start: int) -> Iterator[tuple[int, np.ndarray]]:
        """(index, frame as of `read_frame`) of all frames from number `start` on, read ahead in a thread."""
        indices = range(start, len(self))
        with contextlib.closing(ahead(self.read_frame, indices, depth=FRAMES_AHEAD)) as frames:
            yield from zip(indices, frames, strict=True)

    def read_prompt(self, prompt: Prompt) -> np.ndarray:
        """The mask of `prompt`, bool [H, W].

        Raises:
            VosflowError: missing or damaged file, RGB mask, another size than the frames, or no pixel of the object.
        """
        path = self._root / prompt.mask
        mask = self._read_mask(prompt, path)
        if mask.shape != (self.height, self.width):
            raise self._other_size(mask, path, f"{self.width}x{self.height}, the size")
        return mask

    def read_full_prompt(self, prompt: Prompt) -> np.ndarray:
        """The mask of `prompt` in the camera's resolution, bool [H, W], of the shape of `read_full_frame`'s frames.

        Raises:
            VosflowError: as `read_prompt`.
        """
        path = self._entry.full_masks.path(self._root, prompt.frame)
        mask = self._read_mask(prompt, path)
        height, width, _ = self.read_full_frame(self.frame_names.index(prompt.frame)).shape
        if abs(mask.shape[0] * width - mask.shape[1] * height) > max(width, height):  # more than a pixel off
            raise self._other_size(mask, path, f"the shape, {width}x{height},")
        return mask

    def _other_size(self, mask: np.ndarray, path: Path, expected: str) -> VosflowError:
        return VosflowError(
            f"the mask is {mask.shape[1]}x{mask.shape[0]} pixels",
            path=path,
            expected=f"{expected} of the frames of video {self.name}",
            remedy="use the annotations of the same resolution as the frames",
        )

    def _read_mask(self, prompt: Prompt, path: Path) -> np.ndarray:
        label_map, _ = read_label_map(path)
        mask = label_map > 0 if prompt.encoding == "binary" else label_map == prompt.object
        if not mask.any():
            raise VosflowError(
                f"the prompt of object {prompt.object} is empty on frame {prompt.frame} of video {self.name}",
                path=path,
                expected=f"at least one pixel of object {prompt.object}",
                remedy="give a mask on a frame where the object is visible, or drop the object from the prompts",
            )
        return mask

    def palette(self) -> list[int]:
        """RGB palette for the label maps: that of the first prompt's file, else the DAVIS palette."""
        if self.prompts:
            _, palette = read_label_map(self._root / self.prompts[0].mask)
            if palette is not None:
                return palette
        return DAVIS_PALETTE
