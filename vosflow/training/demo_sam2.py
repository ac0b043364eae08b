"""Trains the micro SAM 2 of the demo study from scratch, on clips of the demo's scenes drawn from other seeds.

The recipe follows the video training of SAM 2 (Ravi et al. 2024, arXiv:2408.00714, appendix D): the first frame's
mask is the prompt, later frames are predicted one after the other from the memory of the frames before; focal and dice
loss on the best of three masks, L1 loss on the predicted IoU, cross entropy on the presence of the object. It is scaled
down to one CPU thread: short clips that grow longer and harder, and, early on, memories of true instead of predicted
masks.

The same seed and number of updates give the same weights on the same machine, however often the run is interrupted.
"""

from __future__ import annotations

import csv
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from vosflow.datasets.demo import render_clip
from vosflow.datasets.demo_drawing import FRAMES
from vosflow.errors import VosflowError

CONFIG = Path(__file__).parents[1] / "catalog" / "sam2_demo.yaml"
FIRST_SEED = 1_000_000  # of the training clips; smaller seeds are left to the dataset and to held-out clips
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as SAM 2 normalises its frames
COLUMNS = ("update", "loss", "mask_loss", "iou_loss", "presence_loss", "iou", "seconds")


@dataclass(frozen=True)
class Phase:
    """Part of the curriculum: up to the fraction `until` of all updates, clips of so many frames per update."""

    until: float
    frames: int
    clips: int


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the weights.

    A curriculum of `updates`, in which the learning rate falls to nearly nothing, then `refine_updates` more on clips
    of its last phase, with a rate that rises and falls once more (Loshchilov and Hutter 2017, arXiv:1608.03983).
    `difficulty_until` and `teacher_until` are fractions of `updates`: the scenes reach full difficulty, and memories
    come from predicted masks only, from there on.
    """

    updates: int = 5500
    refine_updates: int = 3500
    seed: int = 0
    learning_rate: float = 1e-3
    refine_learning_rate: float = 6e-4
    warmup: int = 100
    weight_decay: float = 0.01
    clip_gradient: float = 1.0
    average: float = 0.998  # decay of the running mean of the weights, which is what gets exported
    objects_per_clip: int = 3
    smallest_prompt: int = 40  # pixels
    difficulty_until: float = 0.25
    teacher_until: float = 0.15
    phases: tuple[Phase, ...] = (Phase(0.08, 3, 4), Phase(0.25, 5, 3), Phase(0.7, 8, 2), Phase(1.0, 10, 2))

    @property
    def total(self) -> int:
        """All updates."""
        return self.updates + self.refine_updates

    def phase(self, update: int) -> Phase:
        """The phase of an update."""
        return next((phase for phase in self.phases if update / self.updates < phase.until), self.phases[-1])

    def rate(self, update: int) -> float:
        """The learning rate of an update: in both parts a short rise, then half a cosine down to 2 %."""
        if update < self.updates:
            peak, length = self.learning_rate, self.updates
        else:
            peak, length, update = self.refine_learning_rate, self.refine_updates, update - self.updates
        cosine = 0.5 + 0.5 * math.cos(math.pi * (update / length))
        return peak * min(1.0, (update + 1) / self.warmup) * (0.02 + 0.98 * cosine)


@dataclass(frozen=True)
class Batch:
    """Clips and the objects in them.

    images: float32 [C, T, 3, S, S], normalised. clip_of: int64 [O], the clip of each object.
    masks: bool [O, T, S, S], the truth.
    """

    images: Tensor
    clip_of: Tensor
    masks: Tensor


def build_model(config: Path = CONFIG, seed: int = 0) -> nn.Module:
    """The untrained network of a configuration file, in training mode."""
    torch.manual_seed(seed)
    model = instantiate(OmegaConf.load(config).model, _recursive_=True)
    # Objects are mostly present, and masks of objects that are believed absent get no gradient.
    nn.init.constant_(model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 1.0)
    return model.train()


def draw_batch(recipe: Recipe, update: int, size: int) -> Batch:
    """The clips of one update, size x size pixels; depends on nothing but the arguments."""
    progress = update / recipe.updates
    phase = recipe.phase(update)
    difficulty = 10 + int(90 * min(1.0, progress / recipe.difficulty_until))
    rng = np.random.default_rng((recipe.seed, update))
    images, clip_of, masks = [], [], []
    while len(images) < phase.clips:
        stride = int(rng.integers(1, 2 + difficulty // 50))  # 1 to 3 frames from one to the next
        start = int(rng.integers(0, FRAMES - stride * (phase.frames - 1)))
        frames, label_maps = render_clip(
            FIRST_SEED + int(rng.integers(0, 2**31)),
            frames=phase.frames,
            width=size,
            height=size,
            start=start,
            stride=stride,
            difficulty=difficulty,
        )
        area = np.bincount(label_maps[0].ravel())
        objects = [label for label in range(1, len(area)) if area[label] >= recipe.smallest_prompt]
        if not objects:
            continue
        for label in rng.permutation(objects)[: recipe.objects_per_clip]:
            clip_of.append(len(images))
            masks.append(label_maps == label)
        images.append(torch.from_numpy(frames))
    pixels = torch.stack(images).permute(0, 1, 4, 2, 3).float() / 255
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return Batch((pixels - mean) / std, torch.tensor(clip_of), torch.from_numpy(np.stack(masks)))


@dataclass(frozen=True)
class Prediction:
    """What the network says about one frame.

    masks: logits [O, 3, S/4, S/4]. ious: predicted IoU of each mask [O, 3]. presence: logits [O].
    """

    masks: Tensor
    ious: Tensor
    presence: Tensor


def track(model: nn.Module, batch: Batch, *, true_memory: bool = False) -> list[Prediction]:
    """Track the objects of a batch from their masks on the first frame; predictions for the frames after it.

    The same steps as `SAM2Base.track_step`, which hides the presence logits in training. With `true_memory`, what is
    remembered of a frame is the true mask.
    """
    count = batch.images.shape[1]
    backbone = model.forward_image(batch.images.flatten(0, 1))
    _, features, positions, sizes = model._prepare_backbone_features(backbone)  # [h*w, C*T, d] per level
    memory = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    predictions = []
    for t in range(count):
        here = batch.clip_of * count + t
        current = [level[:, here] for level in features]
        truth = batch.masks[:, t : t + 1].float()  # [O, 1, S, S]
        # A clip stands for a part of a longer video: pointers are numbered as in one.
        output, heads, _, _ = model._track_step(
            t,
            t == 0,
            current,
            [p[:, here] for p in positions],
            sizes,
            None,
            None if t else truth,
            memory,
            FRAMES,
            False,
            None,
        )
        masks, _, ious, _, high_res, output["obj_ptr"], presence = heads
        if t:
            predictions.append(Prediction(masks, ious, presence[:, 0]))
            if true_memory:
                high_res, presence = truth * 20 - 10, truth.flatten(1).amax(1, keepdim=True) * 20 - 10
        if t < count - 1:
            model._encode_memory_in_output(current, sizes, None, True, high_res, presence, output)
        memory["non_cond_frame_outputs" if t else "cond_frame_outputs"][t] = output
    return predictions


def frame_loss(prediction: Prediction, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of one frame.

    Args:
        truth: bool [O, S, S].

    Returns:
        The loss, and for the log: mask, IoU and presence loss and the best mask's IoU, float [4].
    """
    present = truth.flatten(1).any(1).float()
    counted = present * (prediction.presence > 0)  # where absence is predicted, masks are constants
    total = counted.sum().clamp(min=1)
    logits = prediction.masks.clamp(-40, 40)
    # The covered part of each coarse pixel: says more about the outline than a yes or no.
    share = F.avg_pool2d(truth[:, None].float(), truth.shape[-1] // logits.shape[-1]).expand_as(logits)
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, share, reduction="none")
    focal = ((0.75 - 0.5 * share) * (probability - share).square() * entropy).mean((-1, -2))
    overlap, areas = (probability * share).sum((-1, -2)), (probability + share).sum((-1, -2))
    dice = 1 - (2 * overlap + 1) / (areas + 1)
    each = 20 * focal + dice + 0.5 * entropy.mean((-1, -2))  # [O, 3]
    mask_loss = ((0.8 * each.min(1).values + 0.2 * each.mean(1)) * counted).sum() / total

    with torch.no_grad():
        inside, true_inside = logits > 0, share > 0.5
        iou = (inside & true_inside).sum((-1, -2)) / (inside | true_inside).sum((-1, -2)).clamp(min=1)
    iou_loss = ((prediction.ious - iou).abs().mean(1) * counted).sum() / total
    presence_loss = F.binary_cross_entropy_with_logits(prediction.presence, present)
    best = (iou.max(1).values * counted).sum() / total
    log = torch.stack([mask_loss.detach(), iou_loss.detach(), presence_loss.detach(), best])
    return mask_loss + iou_loss + presence_loss, log


class Training:
    """A run of training at some update. `history` has one row (see `COLUMNS`) per logged interval."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.model = build_model(seed=recipe.seed)
        self.average = [p.detach().clone() for p in self.model.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), betas=(0.9, 0.98), weight_decay=recipe.weight_decay, fused=True
        )
        self.update = 0
        self.history: list[list[float]] = []

    def step(self) -> list[float]:
        """Do one update; returns its loss, mask, IoU and presence loss, and the best masks' mean IoU."""
        recipe, progress = self.recipe, self.update / self.recipe.updates
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.rate(self.update)
        batch = draw_batch(recipe, self.update, self.model.image_size)
        coin = np.random.default_rng((recipe.seed, self.update, 1)).random()
        predictions = track(self.model, batch, true_memory=coin > progress / recipe.teacher_until)
        losses = [frame_loss(p, batch.masks[:, t]) for t, p in enumerate(predictions, start=1)]
        loss = torch.stack([loss for loss, _ in losses]).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_gradient)
        self.optimizer.step()
        self.update += 1
        decay = min(recipe.average, self.update / (self.update + 9))  # young means forget their start
        torch._foreach_lerp_(self.average, [p.detach() for p in self.model.parameters()], 1 - decay)
        return [float(loss.detach()), *torch.stack([log for _, log in losses]).mean(0).tolist()]

    def averaged_weights(self) -> dict[str, Tensor]:
        """The state dict of the network with the running means of its weights."""
        names = [name for name, _ in self.model.named_parameters()]
        return {**self.model.state_dict(), **dict(zip(names, self.average, strict=True))}

    def save(self, path: Path) -> None:
        """Write everything that is needed to go on, atomically."""
        state = {
            "recipe": asdict(self.recipe),
            "update": self.update,
            "history": self.history,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }
        _write_aside(path, lambda aside: torch.save(state, aside))

    @classmethod
    def load(cls, path: Path, recipe: Recipe | None = None) -> Training:
        """Read a saved run; raises VosflowError if the file is unreadable or was made by another recipe."""
        try:
            state = torch.load(path, weights_only=True)
            phases = tuple(Phase(**phase) for phase in state["recipe"].pop("phases"))
            saved = Recipe(**state["recipe"], phases=phases)
        except Exception as error:  # torch raises anything from OSError to UnpicklingError
            raise VosflowError(
                f"not a readable state of training ({type(error).__name__}: {error})",
                path=path,
                expected="a work file of scripts/train_demo_sam2.py",
                remedy="name another work file, or delete this one to start from scratch",
            ) from error
        if recipe is not None and saved != recipe:
            raise VosflowError(
                f"the work file belongs to another training ({saved.total} updates, seed {saved.seed})",
                path=path,
                expected=f"{recipe.total} updates, seed {recipe.seed}, and the same recipe",
                remedy="give the same options as at the start, or another work file",
            )
        training = cls(saved)
        training.update, training.history = state["update"], state["history"]
        training.model.load_state_dict(state["model"])
        training.average = state["average"]
        training.optimizer.load_state_dict(state["optimizer"])
        return training


def train(
    recipe: Recipe, work: str | Path, *, log_every: int = 50, save_every: int = 300, stop_at: int | None = None
) -> Training:
    """Train to the end, or go on where the work file stands.

    Writes the state to `work` and the losses to `work` with the suffix .csv every `save_every` updates, and progress to
    stderr every `log_every`. Sets torch to one thread: more change the weights, and help little at this size.

    Args:
        stop_at: stop (and save) early at this update.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    work = Path(work)
    work.parent.mkdir(parents=True, exist_ok=True)
    training = Training.load(work, recipe) if work.exists() else Training(recipe)
    end = recipe.total if stop_at is None else min(stop_at, recipe.total)
    recent, began = [], time.perf_counter()
    while training.update < end:
        recent.append(training.step())
        if training.update % log_every == 0 or training.update == end:
            seconds = time.perf_counter() - began
            row = [training.update, *(round(float(x), 5) for x in np.mean(recent, axis=0)), round(seconds, 1)]
            training.history.append(row)
            print(" ".join(f"{k}={v}" for k, v in zip(COLUMNS, row, strict=True)), file=sys.stderr, flush=True)
            recent, began = [], time.perf_counter()
        if training.update % save_every == 0 or training.update == end:
            training.save(work)
            _write_aside(work.with_suffix(".csv"), lambda aside: _write_losses(aside, training.history))
    return training


def export(training: Training, path: str | Path) -> None:
    """Write the averaged weights as float16 safetensors, atomically; the configuration is sam2_demo.yaml."""
    weights = {name: tensor.half().contiguous() for name, tensor in training.averaged_weights().items()}
    metadata = {"config": CONFIG.name, "updates": str(training.update), "seed": str(training.recipe.seed)}
    _write_aside(Path(path), lambda aside: aside.write_bytes(to_safetensors(weights, metadata)))


def _write_losses(path: Path, history: list[list[float]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *history])


def _write_aside(path: Path, write: Callable[[Path], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.writing")
    write(aside)
    os.replace(aside, path)
