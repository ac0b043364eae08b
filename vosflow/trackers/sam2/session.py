"""What all objects of one video share: its prompts in order, its frames, and the features of the current one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vosflow.ahead import ahead
from vosflow.manifest import Prompt
from vosflow.trackers.batches import Batches
from vosflow.trackers.prompts import first_index, prompts_by_frame
from vosflow.trackers.sam2.frames import FrameTensors
from vosflow.trackers.sam2.steps import Features, Steps
from vosflow.video import Video

FRAMES_AHEAD = 8
READERS = {"cpu": 1, "cuda": 4}  # threads; a network on a GPU outruns one of them


class Session:
    """One video on its way through the network.

    Attributes:
        steps, video: what it was made of.
        object_ids: ids of the objects, ascending.
        prompts: {object id: {frame index: prompt}}, frames in temporal order.
        first: index of the first frame with masks.
        objects: runs steps on several objects at once.

    Raises:
        VosflowError: bad prompts, see `prompts_by_frame`.
    """

    def __init__(self, steps: Steps, video: Video, *, objects_at_once: int = 1, frames_at_once: int = 1) -> None:
        by_frame = prompts_by_frame(video)
        self.steps = steps
        self.video = video
        self.prompts: dict[int, dict[int, Prompt]] = {}
        for index, prompts in by_frame.items():
            for prompt in prompts:
                self.prompts.setdefault(prompt.object, {})[index] = prompt
        self.object_ids = tuple(sorted(self.prompts))
        self.first = first_index(video, by_frame)
        self.objects = Batches(objects_at_once, "objects", video)
        device = steps.device.type
        self._threads = READERS[device]
        self._images = FrameTensors(video, steps.predictor.image_size, pin=device == "cuda")
        self._frames_at_once = frames_at_once
        self._frames = Batches(frames_at_once, "frames", video)
        self._at_hand: dict[int, Tensor] = {}  # frames that were read: the current one, and those to be encoded with it
        self._features: dict[int, Features] = {}

    def indices(self) -> Iterator[int]:
        """Indices of the frames with masks, in order; while the caller is at one, the next frames are read."""
        order = range(self.first, len(self.video))
        images = ahead(self._images.__getitem__, order, depth=FRAMES_AHEAD, threads=self._threads)
        with contextlib.closing(images):
            for start in range(0, len(order), self._frames_at_once):
                self._at_hand = {index: next(images) for index in order[start : start + self._frames_at_once]}
                for index in list(self._at_hand):
                    yield index
                    del self._at_hand[index]
                    self._features.pop(index, None)

    def features(self, index: int) -> Features:
        """Image features of a frame. They are kept as long as it is the current one, or else no other is asked for."""
        if index not in self._features:
            self._features = {}  # first, so that there is room for the new ones
            images = self._at_hand if index in self._at_hand else {index: self._images[index]}
            self._features = dict(zip(images, self._frames.run(self._encode, list(images.values())), strict=True))
        return self._features[index]

    def _encode(self, images: Sequence[Tensor]) -> list[Features]:
        device = self.steps.device
        return self.steps.encode_images(torch.stack([image.to(device, non_blocking=True) for image in images]))

    def prompt_mask(self, prompt: Prompt) -> Tensor:
        """The mask of a prompt as the network takes it, 0 or 1, float32 [1, 1, S, S].

        Raises:
            VosflowError: see `Video.read_prompt`.
        """
        size = (self.steps.predictor.image_size, self.steps.predictor.image_size)
        mask = torch.from_numpy(self.video.read_prompt(prompt))[None, None].float().to(self.steps.device)
        if mask.shape[-2:] == size:
            return mask
        mask = F.interpolate(mask, size=size, mode="bilinear", align_corners=False, antialias=True)
        return (mask >= 0.5).float()
