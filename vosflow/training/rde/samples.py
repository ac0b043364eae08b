"""The order of samples, and each sample: both follow from the seed and the position: training can stop anywhere.

Position p of a stage is the p-th sample that is trained on, over all processes. Nothing about it depends on what was
drawn before, on the number of workers, or on who draws it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from vosflow.errors import VosflowError
from vosflow.trackers.rde.images import MEAN, STD
from vosflow.training.rde.augmentation import Pair, augment_clip, perturb_mask, pseudo_frames, random_box
from vosflow.training.rde.passes import Batch
from vosflow.training.rde.schedules import max_jump
from vosflow.training.rde.sets import TRIES, VideoSet, choose_objects, draw_frames, read_pair
from vosflow.training.rde.settings import StageSettings

LOWEST_IOU = (0.85, 1.0)  # of perturbed masks, drawn for each clip
ANOTHER = 20  # samples tried where files are skipped; more than these, and the set is broken

Sample = tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]
"""images float32 [T, 3, S, S], labels int64 [T, S, S], noisy float32 [O, S, S], number of objects."""


class Samples(Dataset):
    """Samples of one stage by position.

    Args:
        sets: what `read_set` gives for each training set of the stage: videos, or still images.
        positions: those of one process, in order; item i of the dataset is the sample at positions[i].

    An item is a sample, or the VosflowError that reading it raised: a worker could not raise it as it is.
    """

    def __init__(self, sets: Sequence, settings: StageSettings, positions: Sequence[int]) -> None:
        self._settings = settings
        self._positions = positions
        self._still = not isinstance(sets[0], VideoSet)
        units = [unit for kind in sets for unit in _units(kind)]
        if len(units) <= settings.held_out:
            raise VosflowError(
                f"{settings.held_out} videos or images are held out, and the set has {len(units)}",
                path="held_out",
                expected="more than are held out, to train on",
                remedy="lower held_out in the settings of the stage",
            )
        cut = len(units) - settings.held_out
        self.held_out = units[cut:]
        self._epoch = [unit for unit, repeat in units[:cut] for _ in range(repeat)]

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Sample | VosflowError:
        try:
            return self._draw(int(self._positions[index]))
        except VosflowError as error:
            return error

    def measured(self) -> list[Sample]:
        """One sample of each held-out unit, always the same: a crop as in training, masks without errors."""
        found = []
        for index, (unit, _) in enumerate(self.held_out):
            try:
                found.append(self._measured(unit, index))
            except VosflowError as error:
                self._skip(error)
        return found

    def unit(self, position: int) -> object:
        """What is drawn from at a position: each epoch has an order of its own."""
        epoch, place = divmod(position, len(self._epoch))
        order = np.random.default_rng((self._settings.seed, epoch)).permutation(len(self._epoch))
        return self._epoch[order[place]]

    def _draw(self, position: int) -> Sample:
        rng = np.random.default_rng((self._settings.seed, 1, position))
        unit = self.unit(position)
        for _ in range(ANOTHER):
            try:
                return self._sample(unit, rng, position)
            except VosflowError as error:
                self._skip(error)
                unit = self._epoch[int(rng.integers(len(self._epoch)))]
        return self._sample(unit, rng, position)

    def _skip(self, error: VosflowError) -> None:
        """Say what is left out; raises the error if nothing may be."""
        if not self._settings.skip_unreadable:
            raise error
        print(f"skipped: {error.path}: {error.problem}", file=sys.stderr, flush=True)

    def _sample(self, unit: object, rng: np.random.Generator, position: int) -> Sample:
        crop = self._settings.crop
        if self._still:
            pair = read_pair(unit.image, unit.mask, binary=True)
            return _finish(pseudo_frames(pair, rng, crop, 3), [1], rng, slots=1)
        videos, name = unit
        batch = self._settings.batch_size * self._settings.processes
        jump = max_jump(self._settings, position // batch)
        for _ in range(TRIES):
            files = draw_frames(videos, name, rng, 5, jump)
            pairs = augment_clip([videos.read(*file) for file in files], rng, crop, self._settings.crop_area)
            chosen = choose_objects([np.asarray(p[1]) for p in pairs], rng, checks_areas=videos.checks_areas)
            if chosen:
                break
        return _finish(pairs, chosen, rng, slots=2)

    def _measured(self, unit: object, index: int) -> Sample:
        rng = np.random.default_rng((self._settings.seed, 2, index))
        crop = self._settings.crop
        if self._still:
            pair = read_pair(unit.image, unit.mask, binary=True)
            return _finish(pseudo_frames(pair, rng, crop, 3), [1], None, slots=1)
        videos, name = unit
        whole = [videos.read(*file) for file in draw_frames(videos, name, rng, 5, self._settings.max_jump)]
        for _ in range(TRIES):
            top, left, height, width = random_box(whole[0][0].size, rng, self._settings.crop_area)
            box = (left, top, left + width, top + height)
            pairs = [
                (p.resize((crop, crop), Image.BICUBIC, box), labels.resize((crop, crop), Image.NEAREST, box))
                for p, labels in whole
            ]
            chosen = choose_objects([np.asarray(p[1]) for p in pairs], rng, checks_areas=False)
            if chosen:
                break
        return _finish(pairs, chosen, None, slots=2)


def collate(samples: Sequence[Sample | VosflowError]) -> Batch | VosflowError:
    """Samples as one batch, or the first error among them."""
    for sample in samples:
        if isinstance(sample, VosflowError):
            return sample
    images, labels, noisy, objects = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.stack(labels), torch.stack(noisy), torch.tensor(objects))


def _units(kind: VideoSet | list) -> list[tuple[object, int]]:
    if isinstance(kind, VideoSet):
        return [((kind, name), kind.repeat) for name in kind.videos]
    return [(pair, pair.repeat) for pair in kind]


def _finish(pairs: Sequence[Pair], ids: Sequence[int], rng: np.random.Generator | None, slots: int) -> Sample:
    """Tensors of a clip with the objects `ids`; their masks on frame 0 get errors if there is a generator."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image, _ in pairs])).permute(0, 3, 1, 2).float() / 255
    pixels = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    maps = np.stack([np.asarray(labels) for _, labels in pairs])
    labels = np.zeros(maps.shape, np.int64)
    noisy = np.zeros((slots, *maps.shape[1:]), np.float32)
    lowest = None if rng is None else rng.uniform(*LOWEST_IOU)
    for slot, k in enumerate(ids):
        labels[maps == k] = slot + 1
        mask = maps[0] == k
        noisy[slot] = mask if rng is None else perturb_mask(mask, rng, lowest)
    # Without an object the first slot counts as one that is nowhere: a loss needs at least one.
    return pixels, torch.from_numpy(labels), torch.from_numpy(noisy), max(1, len(ids))
