"""A narrow RDE-VOS with weights from a seed, a clip for it, and sets to train it on. It segments nothing, but its masks
are ragged, move, and depend on the memory, so that a slip in any step changes pixels.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.unit.clips import make_videos, moving_boxes, save_label_map
from vosflow.datasets.folder import folder_manifest
from vosflow.datasets.training_sets import FLAT_SETS
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.rde.network import RdeNetwork
from vosflow.training.rde.files import CURVES, WEIGHTS
from vosflow.training.rde.settings import PRESETS, StageSettings
from vosflow.training.rde.stage import SetFolder, StagePlan
from vosflow.video import Video

WIDTH, KEYS = 16, 16
FRAMES, HEIGHT, WIDE = 10, 68, 93  # padded to 80 x 96: 5 x 6 places
FIRST = {"together": (0, 0, 0), "late": (0, 3, 6), "later": (2, 2, 5)}  # frames on which objects 1, 3, 4 are given
OBJECTS = (1, 3, 4)
GAIN = 3**-0.5
# With these, scores have a spread of a few units and many rows are read, values stay of size 1 however often SAM feeds
# on its own output (its attention has no softmax and grows with their cube), and masks depend on the memory.
FACTORS = {
    "decoder.pred.weight": 0.1,
    "key_proj.key_proj.weight": 0.08,
    "value_encoder.fuser.block1.conv2.weight": 0.05,
    "value_encoder.fuser.block1.downsample.weight": 0.05,
}
STAGE = {  # of training, in seconds
    "iterations": 6,
    "crop": 48,
    "batch_size": 2,
    "processes": 1,
    "workers": 0,
    "learning_rate": 1e-3,
    "milestones": (4,),
    "bootstrap": (1, 5),
    "clip_gradient": 1.0,
    "compression": "average",
    "held_out": 2,
    "log_every": 2,
    "measure_every": 4,
    "save_every": 3,
}
SHORT_CALIBRATION = (1, 2)  # batches, samples in each; else most of the time of a short stage goes into it


def make_clip(folder: Path) -> Path:
    """Frames in {folder}/frames/clip, and prompts in {folder}/{name}/clip for each name of `FIRST`."""
    rng = np.random.default_rng(3)
    small = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    background = np.asarray(Image.fromarray(small).resize((WIDE, HEIGHT)))
    for t in range(FRAMES):
        image, label_map = background.copy(), np.zeros((HEIGHT, WIDE), np.uint8)
        for number, k in enumerate(OBJECTS):
            rows, columns = slice(5 + 20 * number, 21 + 20 * number), slice(8 + 4 * t, 30 + 4 * t + 6 * number)
            image[rows, columns] = (220 - 70 * number, 40 + 60 * number, 25 * t)
            label_map[rows, columns] = k
        path = folder / "frames" / "clip" / f"{t:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        for name, first in FIRST.items():
            new = [k for k, start in zip(OBJECTS, first, strict=True) if start == t]
            if new:
                save_label_map(folder / name / "clip" / f"{t:05d}.png", np.where(np.isin(label_map, new), label_map, 0))
    return folder


def video_of(clip: Path, prompts: str = "together", **layout: bool) -> Video:
    """The clip as a tracker sees it."""
    late = {"late_objects": prompts != "together"}
    manifest = folder_manifest(clip / "frames", clip / prompts, **{**late, **layout})
    return Video.of(manifest, "clip")


@torch.no_grad()
def make_weights(width: int = WIDTH, keys: int = KEYS) -> dict[str, Tensor]:
    """Noise over the square root of the fan-in, and the running statistics that images give with it."""
    torch.manual_seed(0)
    network = RdeNetwork(width, keys)
    for name, tensor in network.named_parameters():
        if tensor.ndim > 1:
            tensor.normal_(std=FACTORS.get(name, 1.0) * GAIN / tensor[0].numel() ** 0.5)
        elif not name.endswith("weight"):
            tensor.normal_(std=0.02)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    network.train()
    images = torch.randn(2, 3, 80, 96)
    features = network.encode_frames(images)
    network.encode_values(images[:1], features.split()[0], torch.rand(2, 1, 80, 96), torch.rand(2, 1, 80, 96))
    weights = network.state_dict()
    # What differs between objects goes in beside many more channels that do not: louder, so that masks depend on it.
    weights["value_encoder.conv1.weight"][:, 3:] *= 4
    for conv in ("conv1", "downsample"):
        weights[f"value_encoder.fuser.block1.{conv}.weight"][:, : 4 * width] *= 6
        weights[f"decoder.compress.{conv}.weight"][:, : 8 * width] *= 40
    return weights


def save_checkpoint(weights: object, path: Path) -> Checkpoint:
    """`weights` as torch saves them."""
    torch.save(weights, path)
    return Checkpoint(path.stem, path, "")


def make_still_images(folder: Path, each: int = 1) -> Path:
    """A training set "static": so many images in each of its folders."""
    images, label_maps = moving_boxes(len(FLAT_SETS) + 1, 1)
    for image, label_map, place in zip(images, label_maps, (*FLAT_SETS, "fss/thing"), strict=True):
        (folder / place).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(image).save(folder / place / f"{number}.jpg")
            Image.fromarray(label_map * 255).save(folder / place / f"{number}.png")
    return folder


def make_training_videos(folder: Path, videos: dict[str, int], listed: Sequence[str] | None = None) -> Path:
    """Videos {name: frames} as a training set; "davis" takes those `listed` (None: all)."""
    make_videos(folder, videos)
    (folder / "ImageSets/2017/train.txt").write_text("\n".join(videos if listed is None else listed))
    return folder


def stage_plan(sets: Path, stage: int, previous: str | None = None, **changes) -> StagePlan:
    """A stage of the narrow network on {sets}/static or {sets}/davis; `changes` of its settings."""
    settings = StageSettings(**{**PRESETS["paper"][stage], **STAGE, **changes})
    kind = "static" if stage == 0 else "davis"
    return StagePlan(stage, settings, 8, 16, (SetFolder(kind, str(sets / kind)),), previous)


def curve(folder: Path) -> list[dict[str, str]]:
    """The rows of curves.csv, without what differs each time."""
    with open(folder / CURVES, newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def same_weights(one: Path, other: Path) -> bool:
    """Whether the stages in two folders ended in the same weights, bit for bit."""
    wanted, found = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    return all(torch.equal(found[name], wanted[name]) for name in wanted)


def check_same_but_for_rounding(found: Path, wanted: Path) -> None:
    """Fail unless two stages, trained by other numbers of processes, ended in the same weights and losses."""
    weights = load_file(found / WEIGHTS), load_file(wanted / WEIGHTS)
    apart = torch.cat([(weights[0][name] - weights[1][name]).abs().flatten() for name in weights[1]])
    assert apart.mean() < 0.1 * STAGE["learning_rate"]  # Adam makes steps of the rate also of rounding errors
    for name in ("loss", "ce", "kl", "iou"):
        values = [float(curve(folder)[-1][name]) for folder in (found, wanted)]
        assert values[0] == pytest.approx(values[1], rel=1e-2), name


# --- fixtures: a module has those that it gives a name in itself (clip = tiny_rde.clip)


@pytest.fixture(scope="module", autouse=True)
def denormal_numbers():
    """Training flushes them to zero, for all of the process: other tests count on them."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module", autouse=True)
def short_calibration():
    """Of networks that begin at random, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vosflow.training.rde.trainer.CALIBRATION", SHORT_CALIBRATION)
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_clip`."""
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """See `make_weights`."""
    return make_weights()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The same as a file."""
    return save_checkpoint(make_weights(), tmp_path_factory.mktemp("weights") / "narrow.pth")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training sets: static/, davis/, and the same videos as bl30k/ and youtube/."""
    folder = tmp_path_factory.mktemp("sets")
    make_still_images(folder / "static")
    make_training_videos(folder / "davis", {f"v{number}": 8 for number in range(5)})
    for kind in ("bl30k", "youtube"):
        (folder / kind).symlink_to("davis")
    return folder
