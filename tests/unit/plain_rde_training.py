"""The training of RDE-VOS the plain way: one clip, one object at a time, everything spelled out.

Written from the description of the method; of vosflow it uses only the layers of the network.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vosflow.trackers.rde.network import RdeNetwork


class PlainClip:
    """One clip: images [T, 3, H, W], labels int64 [T, H, W], noisy masks [O, H, W], and how many objects there are."""

    def __init__(self, network: RdeNetwork, images: Tensor, labels: Tensor, noisy: Tensor, count: int) -> None:
        self.network, self.images, self.labels, self.noisy, self.count = network, images, labels, noisy, count
        self.slots = len(noisy)
        self.features = [network.encode_frames(image[None]) for image in images]
        self.kl = torch.zeros(())

    def loss(self, share: float, kl: float, f2: float, f4: float) -> Tensor:
        """The loss of the clip."""
        frames, pulls = self.three_frames() if len(self.images) == 3 else self.five_frames()
        ce = [self.cross_entropy(logits, t, share) for t, logits in enumerate(frames, 1)]
        total = 0.0
        for value in ce:
            total = (total + value) / 2
        return total + kl * self.kl + f2 * pulls.get(2, 0) + f4 * pulls.get(4, 0)

    def three_frames(self) -> tuple[list[Tensor], dict]:
        memory = [(0, self.begin())]
        first = self.predict(1, self.readouts(1, memory))
        memory.append((1, self.remember(1, first)))
        return [first, self.predict(2, self.readouts(2, memory))], {}

    def five_frames(self) -> tuple[list[Tensor], dict]:
        values = {0: self.begin()}
        frames = [self.predict(1, self.readouts(1, [(0, values[0])]))]
        values[1] = self.remember(1, frames[0])
        pulls = {}

        keys, compressed = self.sam(self.features[0].key, values[0], 1, values[1])
        small = self.readouts(2, [(keys, compressed)])
        large = self.readouts(2, [(0, values[0]), (1, values[1])])
        pulls[2] = self.pull(2, small, large)
        frames.append(self.predict(2, small))
        values[2] = self.remember(2, self.predict(2, large))

        frames.append(self.predict(3, self.readouts(3, [(t, values[t]) for t in range(3)])))
        values[3] = self.remember(3, frames[2])

        keys, compressed = self.sam(keys, compressed, 2, values[2])
        keys, compressed = self.sam(keys, compressed, 3, values[3])
        small = self.readouts(4, [(keys, compressed)])
        pulls[4] = self.pull(4, small, self.readouts(4, [(t, values[t]) for t in range(4)]))
        frames.append(self.predict(4, small))
        return frames, pulls

    def begin(self) -> list[Tensor]:
        noisy = self.encode(0, list(self.noisy))
        true = self.encode(0, [(self.labels[0] == k + 1).float() for k in range(self.slots)])
        self.kl = sum(self.divergence(*pair) for pair in zip(noisy, true, strict=True))
        return noisy

    def remember(self, t: int, logits: Tensor) -> list[Tensor]:
        probabilities = logits.softmax(0)
        return self.encode(t, [probabilities[1 + k] for k in range(self.slots)])

    def encode(self, t: int, masks: list[Tensor]) -> list[Tensor]:
        values = []
        for k, mask in enumerate(masks):
            others = sum((m for j, m in enumerate(masks) if j != k), torch.zeros_like(mask))[None, None]
            others = None if self.slots == 1 else others
            values.append(self.network.encode_values(self.images[t][None], self.features[t], mask[None, None], others))
        return values

    def sam(self, keys: Tensor, old: list[Tensor], t: int, new: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        compress = self.network.mem_compress
        values = [compress.values(a, b) for a, b in zip(old, new, strict=True)]
        return compress.keys(keys, self.features[t].key), values

    def readouts(self, t: int, memory: list) -> list[Tensor]:
        query = self.features[t].key[0].flatten(1)  # [K, P]
        keys = [self.features[m].key if isinstance(m, int) else m for m, _ in memory]
        keys = torch.cat([key[0].flatten(1) for key in keys], dim=1)  # [K, N]
        distances = (keys[:, :, None] - query[:, None]).square().sum(0)  # [N, P]
        weights = (-distances / math.sqrt(len(query))).softmax(0)  # what the query adds to all is of no account
        read = []
        for k in range(self.slots):
            values = torch.cat([value[k][0].flatten(1) for _, value in memory], dim=1)  # [V, N]
            read.append((values @ weights).unflatten(1, self.features[t].key.shape[2:])[None])
        return read

    def predict(self, t: int, readouts: list[Tensor]) -> Tensor:
        alone = [self.network.decode(read, self.features[t])[0].sigmoid() for read in readouts]
        alone = [p if k < self.count else torch.zeros_like(p) for k, p in enumerate(alone)]
        background = torch.ones_like(alone[0])
        for p in alone:
            background = background * (1 - p)
        return torch.logit(torch.stack([background, *alone]).clamp(1e-7, 1 - 1e-7))

    def cross_entropy(self, logits: Tensor, t: int, share: float) -> Tensor:
        pixels = F.cross_entropy(logits[None, : 1 + self.count], self.labels[t][None], reduction="none").flatten()
        return pixels.sort(descending=True).values[: int(share * len(pixels))].mean()

    def pull(self, t: int, small: list[Tensor], large: list[Tensor]) -> Tensor:
        thin = self.network.key_comp(self.features[t].f16)
        pairs = zip(small, large, strict=True)
        return sum(self.divergence(torch.cat([a, thin], 1), torch.cat([b, thin], 1)) for a, b in pairs)

    @staticmethod
    def divergence(pulled: Tensor, target: Tensor) -> Tensor:
        p, q = target.softmax(1), pulled.softmax(1)
        return (p * (p.log() - q.log())).mean()
