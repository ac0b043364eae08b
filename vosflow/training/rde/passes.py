"""How clips go through the network in training: three pseudo-frames with one object, or five frames with two.

The readout is over the whole memory, with a softmax; top-k and copies of the prompt's frame are for tracking alone.

Shapes: B clips, T frames, O objects (1 or 2), K channels of keys, V of values; [H, W] the crop, [h, w] at stride 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vosflow.trackers.rde.network import Features, RdeNetwork
from vosflow.training.rde.losses import bootstrapped_cross_entropy, pull, weigh_frames
from vosflow.training.rde.settings import StageSettings

LEAST = 1e-7  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True)
class Batch:
    """Clips to train on.

    Attributes:
        images: float32 [B, T, 3, H, W], normalised.
        labels: int64 [B, T, H, W], 0 to O.
        noisy: float32 [B, O, H, W], the masks of frame 0 with errors.
        objects: int64 [B], 1 or 2.
    """

    images: Tensor
    labels: Tensor
    noisy: Tensor
    objects: Tensor

    def to(self, device: str | torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(part.to(device, non_blocking=True) for part in self._parts()))

    def pin_memory(self) -> Batch:
        """The same in memory that is copied to a GPU while the host goes on; a DataLoader asks for it."""
        return Batch(*(part.pin_memory() for part in self._parts()))

    def _parts(self) -> tuple[Tensor, ...]:
        return self.images, self.labels, self.noisy, self.objects


@dataclass(frozen=True)
class Passed:
    """What came of a batch.

    Attributes:
        loss: to be minimised.
        terms: parts of it before they are weighted: "ce" and "kl", and "f2" and "f4" where there are five frames.
        predicted: int64 [B, T - 1, H, W], labels of the frames after the first.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    predicted: Tensor


class TrainingPass(nn.Module):
    """The network and the order of work of training: one call is one batch, with its losses.

    Args:
        network: without SAM clips have three frames and one object (stage 0), with it five and two.
    """

    def __init__(self, network: RdeNetwork, settings: StageSettings) -> None:
        super().__init__()
        self.network = network
        self._settings = settings

    def forward(self, batch: Batch, share: float) -> Passed:
        """`share` of the pixels count, see `bootstrapped_cross_entropy`."""
        clips = Clips(self.network, batch)
        work = _pass_three_frames if self.network.mem_compress is None else _pass_five_frames
        logits, terms = work(clips)
        labels = batch.labels.unbind(1)[1:]
        frame_losses = [
            bootstrapped_cross_entropy(part, truth, batch.objects, share)
            for part, truth in zip(logits, labels, strict=True)
        ]
        terms = {"ce": weigh_frames(frame_losses), **terms}
        weights = {name: getattr(self._settings, f"{name}_weight", 1.0) for name in terms}
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        predicted = torch.stack([part.detach().max(dim=1).indices for part in logits], dim=1)
        return Passed(loss, {name: term.detach() for name, term in terms.items()}, predicted)


Work = tuple[list[Tensor], dict[str, Tensor]]
"""Logits [B, 1 + O, H, W] of each frame after the first, and the pulls."""


def _pass_three_frames(clips: Clips) -> Work:
    """Stage 0: what is predicted on frame 1 is remembered for frame 2."""
    given, kl = clips.given()
    first = clips.decode(1, clips.read(1, [given]))
    second = clips.decode(2, clips.read(2, [given, clips.remember(1, first)]))
    return [first, second], {"kl": kl}


def _pass_five_frames(clips: Clips) -> Work:
    """Stages 1 to 3: frames 2 and 4 are read of the compressed memory, which is pulled towards the whole one.

    What is remembered of frame 2 is predicted with the whole memory. That prediction is the target's alone: it has no
    loss of its own. (The authors also decode the target of frame 4, and use it for nothing.)
    """
    memory, kl = clips.given()
    whole = [memory]
    logits = [clips.decode(1, clips.read(1, whole))]
    whole.append(clips.remember(1, logits[0]))

    compressed = clips.compress(whole[0], whole[1])
    readout, target = clips.read(2, [compressed]), clips.read(2, whole)
    f2 = clips.pull_readout(2, readout, target)
    logits.append(clips.decode(2, readout))
    whole.append(clips.remember(2, clips.decode(2, target)))

    logits.append(clips.decode(3, clips.read(3, whole)))
    whole.append(clips.remember(3, logits[2]))

    compressed = clips.compress(clips.compress(compressed, whole[2]), whole[3])
    readout, target = clips.read(4, [compressed]), clips.read(4, whole)
    f4 = clips.pull_readout(4, readout, target)
    logits.append(clips.decode(4, readout))
    return logits, {"kl": kl, "f2": f2, "f4": f4}


Memory = tuple[Tensor, Tensor]
"""Keys [B, K, h, w] and values [B, O, V, h, w] of one frame, or of several made one."""


class Clips:
    """A batch in the network, its frames' features computed."""

    def __init__(self, network: RdeNetwork, batch: Batch) -> None:
        self._network = network
        self._batch = batch
        features = network.encode_frames(batch.images.flatten(0, 1))
        self._frames = [_at_frame(features, len(batch.images), t) for t in range(batch.images.shape[1])]
        count = torch.arange(batch.noisy.shape[1], device=batch.objects.device)
        self._exists = (count < batch.objects[:, None])[:, :, None, None]  # [B, O, 1, 1]

    def given(self) -> tuple[Memory, Tensor]:
        """The memory of frame 0, of masks with errors, and the pull of its values towards those of the true masks.

        The pulls of two objects are added.
        """
        labels = self._batch.labels[:, 0]
        truth = torch.stack([labels == k for k in range(1, 1 + self._batch.noisy.shape[1])], dim=1).float()
        noisy = self._values(0, self._batch.noisy)
        return (self._frames[0].key, noisy), _pull_objects(noisy, self._values(0, truth))

    def remember(self, t: int, logits: Tensor) -> Memory:
        """The memory of frame t, of the probabilities predicted on it."""
        return self._frames[t].key, self._values(t, logits.softmax(dim=1)[:, 1:])

    def compress(self, old: Memory, new: Memory) -> Memory:
        """One memory of two, by SAM. In float32: its attention is cubic in its input."""
        with _full_precision(old[0]):
            keys = self._network.mem_compress.keys(old[0].float(), new[0].float())
            values = self._network.mem_compress.values(old[1].float().flatten(0, 1), new[1].float().flatten(0, 1))
        return keys, values.unflatten(0, old[1].shape[:2])

    def read(self, t: int, memories: list[Memory]) -> Tensor:
        """Values [B, O, V, h, w] for frame t from several memories, by a softmax over all their places."""
        keys = torch.stack([key for key, _ in memories], dim=2).float().flatten(2)  # [B, K, N]
        values = torch.stack([value for _, value in memories], dim=3).float()  # [B, O, V, T, h, w]
        queries = self._frames[t].key.flatten(2)  # [B, K, h w]
        with _full_precision(keys):
            scores = 2 * keys.transpose(1, 2) @ queries - keys.square().sum(dim=1)[:, :, None]  # [B, N, h w]
            weights = (scores / math.sqrt(keys.shape[1])).softmax(dim=1)
            read = values.flatten(1, 2).flatten(2) @ weights  # [B, O V, h w]
        return read.unflatten(1, values.shape[1:3]).unflatten(3, values.shape[4:])

    def decode(self, t: int, readout: Tensor) -> Tensor:
        """Logits float32 [B, 1 + O, H, W] of frame t, after soft aggregation (Oh et al., ICCV 2019)."""
        alone = self._network.decode(readout.flatten(0, 1), self._frames[t]).unflatten(0, readout.shape[:2])
        probabilities = alone.float().sigmoid() * self._exists  # [B, O, H, W]
        background = (1 - probabilities).prod(dim=1, keepdim=True)
        probabilities = torch.cat([background, probabilities], dim=1).clamp(LEAST, 1 - LEAST)
        return (probabilities / (1 - probabilities)).log()

    def pull_readout(self, t: int, readout: Tensor, target: Tensor) -> Tensor:
        """The pull of one readout of frame t towards another, both with what the decoder gets beside them."""
        thin = self._network.key_comp(self._frames[t].f16)[:, None].float().expand_as(readout)
        return _pull_objects(torch.cat([readout, thin], dim=2), torch.cat([target, thin], dim=2))

    def _values(self, t: int, masks: Tensor) -> Tensor:
        """Values [B, O, V, h, w] of objects with masks [B, O, H, W] on frame t."""
        image, features = self._batch.images[:, t], self._frames[t]
        others = masks.sum(dim=1, keepdim=True) - masks
        alone, others = (part.flatten(0, 1)[:, None] for part in (masks, others))  # [B O, 1, H, W]
        values = self._network.encode_values(image, features, alone, others if masks.shape[1] > 1 else None)
        return values.unflatten(0, masks.shape[:2])


def _pull_objects(pulled: Tensor, target: Tensor) -> Tensor:
    """The sum over objects of `pull`."""
    return torch.stack([pull(*part) for part in zip(pulled.unbind(1), target.unbind(1), strict=True)]).sum()


def _at_frame(features: Features, clips: int, t: int) -> Features:
    """Features of frame t of each clip, of those of all frames of one clip after the other."""

    def pick(part: Tensor) -> Tensor:
        return part.unflatten(0, (clips, -1))[:, t]

    thin = tuple(map(pick, features.thin))
    return Features(pick(features.key), pick(features.f16), thin, pick(features.skip8), pick(features.skip4))


def _full_precision(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)
