"""Tracking one video with RDE-VOS: the work that a policy has planned, frame by frame, all objects together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from vosflow.ahead import ahead
from vosflow.errors import VosflowError
from vosflow.manifest import LABEL_MAPS, Prompt
from vosflow.trackers.base import Masks
from vosflow.trackers.batches import Batches
from vosflow.trackers.rde import Settings
from vosflow.trackers.rde.computing import Computing
from vosflow.trackers.rde.images import Frame
from vosflow.trackers.rde.memory import Memory
from vosflow.trackers.rde.network import STRIDE, Features, RdeNetwork
from vosflow.trackers.rde.policies import Step, plan_steps
from vosflow.video import Video

FRAMES_AHEAD = 8
READERS = {"cpu": 1, "cuda": 4}  # threads; a network on a GPU outruns one of them
LEAST = 1e-7  # probabilities are kept this far from 0 and 1


def track_video(
    network: RdeNetwork, computing: Computing, video: Video, settings: Settings
) -> Iterator[tuple[str, Masks]]:
    """Yield (frame name, masks) from the first prompt on, see `vosflow.trackers.base.Tracker.track`."""
    tracking = Tracking(network, computing, video, settings)
    label_maps = ((index, tracking.frame.label_map(p, tracking.ids)) for index, p in tracking.run())
    for index, label_map in _arriving(label_maps):
        if video.layout == LABEL_MAPS:
            yield video.frame_names[index], label_map
        else:
            yield video.frame_names[index], {k: label_map == k for k in video.objects}


def _arriving(label_maps: Iterator[tuple[int, Tensor]]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (frame index, label map) in the host's memory, each once the work on the next frame is under way.

    So a GPU has work while the host waits for its results, which is once per frame and nowhere else.
    """
    coming = None
    for index, label_map in label_maps:
        begun = index, _fetch(label_map)
        if coming is not None:
            yield coming[0], coming[1]()
        coming = begun
    if coming is not None:
        yield coming[0], coming[1]()


def _fetch(label_map: Tensor) -> Callable[[], np.ndarray]:
    """Begin to copy a label map to the host's memory; what is returned waits until it is there."""
    if not label_map.is_cuda:
        return label_map.numpy
    copied = label_map.to("cpu", non_blocking=True)  # torch pins this memory
    event = torch.cuda.Event(blocking=True)
    event.record()

    def wait() -> np.ndarray:
        event.synchronize()
        return copied.numpy()

    return wait


class Tracking:
    """One video on its way through the network.

    Shapes: O objects that were given so far, in the order in which they were; [H, W] the padded frame.

    Attributes:
        frame: how frames are resized and padded.
        object_ids: of the O objects.
        ids: the same behind a 0 for the background, [1 + O], on the device; uint8, but int32 if the video has an id
            that this cannot hold (where each object has its own PNG).

    Raises:
        VosflowError: bad prompts, see `plan_steps`, or frames too small for SAM.
    """

    def __init__(self, network: RdeNetwork, computing: Computing, video: Video, settings: Settings) -> None:
        self.frame = Frame.of(video.height, video.width, settings.short_side)
        _check_size(video, self.frame, settings.mode)
        self.object_ids: list[int] = []
        holds_all = max(video.objects, default=0) <= torch.iinfo(torch.uint8).max
        self.ids = torch.zeros(1, dtype=torch.uint8 if holds_all else torch.int32, device=computing.device)
        names = set(settings.frames == "required" and video.required or video.frame_names)
        self._wanted = {index for index, name in enumerate(video.frame_names) if name in names}
        self._steps = plan_steps(video, settings.policy, settings.mem_every, self._wanted)
        self._network = network
        self._computing = computing
        self._video = video
        self._settings = settings
        self._objects = Batches(computing.objects_at_once, "objects", video)
        self._frames = Batches(computing.frames_at_once, "frames", video)
        self._memories: list[Memory] = []  # of the objects in `object_ids`, those given together in one of them

    def run(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (frame index, probabilities float32 [1 + O, H, W], the background's first) of each frame wanted."""
        for step, image, features in self._frames_in_order():
            with self._computing.computing():
                if step.tracks:
                    probabilities = self._track(features)
                else:  # nobody is there yet
                    probabilities = torch.ones(1, *image.shape[2:], device=image.device)
                if step.prompts:
                    probabilities = self._give(probabilities, step.prompts)
                if (step.prompts or step.remembers) and step is not self._steps[-1]:
                    self._remember(image, features, probabilities[1:])
            if step.index in self._wanted:
                yield step.index, probabilities

    def _frames_in_order(self) -> Iterator[tuple[Step, Tensor, Features]]:
        """(step, image [1, 3, H, W], features) of each step; the next frames are read, and some encoded, meanwhile."""
        device = self._computing.device
        images = ahead(self._read, self._steps, depth=FRAMES_AHEAD, threads=READERS[device])
        with contextlib.closing(images):
            for start in range(0, len(self._steps), self._computing.frames_at_once):
                steps = self._steps[start : start + self._computing.frames_at_once]
                with self._computing.computing():
                    batch = [next(images).to(device, non_blocking=True)[None] for _ in steps]
                    features = self._frames.run(self._encode, self._filled(batch))
                for step in steps:
                    yield step, batch.pop(0), features.pop(0)

    def _read(self, step: Step) -> Tensor:
        # Rounded here, in a thread: as part of the copy to a GPU, this process and the GPU would wait for each other.
        image = self.frame.image(self._video.read_frame(step.index)).to(self._computing.dtype)
        return image.pin_memory() if self._computing.device == "cuda" else image

    def _encode(self, images: Sequence[Tensor]) -> list[Features]:
        return self._network.encode_frames(torch.cat(list(images))).split()

    def _filled(self, batch: list[Tensor]) -> list[Tensor]:
        """Where the network is compiled, the last batch is no shorter: that would be one more graph, for one frame."""
        missing = self._computing.frames_at_once - len(batch) if self._computing.compiles else 0
        return batch + batch[-1:] * missing

    def _track(self, features: Features) -> Tensor:
        """Probabilities [1 + O, H, W] of the objects that are remembered."""
        readout = torch.cat([memory.read(features.key) for memory in self._memories])  # [O, V, h, w]
        logits = self._over_objects(lambda part: self._network.decode(part, features), readout)
        return aggregate(logits.sigmoid())

    def _give(self, probabilities: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """The probabilities [1 + O, H, W] with new objects, whose masks are given, joined to them.

        Where a mask is given, no other object is. The result goes through soft aggregation like every frame, so that
        given masks are not quite 0 and 1.
        """
        masks = torch.stack([self.frame.mask(self._video.read_prompt(prompt)) for prompt in prompts])
        masks = masks.to(probabilities.device)
        others = probabilities[1:].masked_fill(masks.sum(dim=0) > 0.5, 0.0)
        self.object_ids += [prompt.object for prompt in prompts]
        self.ids = torch.tensor([0, *self.object_ids], dtype=self.ids.dtype, device=probabilities.device)
        return aggregate(torch.cat([others, masks]))

    def _remember(self, image: Tensor, features: Features, masks: Tensor) -> None:
        """Have the frame join the memories of all objects; masks are their probabilities, [O, H, W]."""
        dtype = self._computing.dtype
        others = masks.sum(dim=0) - masks
        values = self._over_objects(
            lambda mask, other: self._network.encode_values(image, features, mask, other),
            masks[:, None].to(dtype),
            others[:, None].to(dtype),
        )  # [O, V, h, w]
        known = 0
        for memory in self._memories:
            own = values[known : known + memory.objects]
            memory.update(features.key, own, self._compress_keys, self._compress_values)
            known += memory.objects
        if known < len(values):
            settings = self._settings
            self._memories.append(Memory(settings.mode, settings.top_k, features.key, values[known:]))

    def _compress_keys(self, old: Tensor, new: Tensor) -> Tensor:
        return self._network.mem_compress.keys(old, new)

    def _compress_values(self, old: Tensor, new: Tensor) -> Tensor:
        return self._over_objects(self._network.mem_compress.values, old, new)

    def _over_objects(self, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """`function` of tensors whose first dimension is objects, as is its result's; on as many as fit at once."""

        def of_part(part: range) -> list[Tensor]:
            return list(function(*(tensor[part.start : part.stop] for tensor in tensors)).split(1))

        return torch.cat(self._objects.run(of_part, range(len(tensors[0]))))


def _check_size(video: Video, frame: Frame, mode: str) -> None:
    if mode != "stm" and min(frame.size) <= STRIDE:
        raise VosflowError(
            f"the frames of video {video.name} are {video.width}x{video.height} pixels, too small for mode {mode}",
            expected=f"more than {STRIDE} pixels each way: SAM needs more than one place of {STRIDE}x{STRIDE} pixels",
            remedy="have frames enlarged (short_side: 480), or use mode: stm, which needs no SAM",
        )


def aggregate(masks: Tensor) -> Tensor:
    """Probabilities of the background and O objects, [1 + O, H, W], from those of each object alone, [O, H, W].

    Soft aggregation of STM (Oh et al., ICCV 2019): the softmax of logits, which is the share in the sum of odds.
    """
    background = (1 - masks).prod(dim=0, keepdim=True)
    probabilities = torch.cat([background, masks]).clamp(LEAST, 1 - LEAST)
    odds = probabilities / (1 - probabilities)
    return odds / odds.sum(dim=0)
