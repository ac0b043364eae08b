"""The weights that a stage begins with: of ImageNet, at random, or those of the stage before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from vosflow.errors import VosflowError
from vosflow.trackers.rde.network import MemoryCompression, RdeNetwork
from vosflow.trackers.state_dict import check_finite, list_differences, read_state_dict
from vosflow.training.rde.passes import Batch
from vosflow.training.rde.settings import StageSettings

STEM = "value_encoder.conv1.weight"
COMPRESSION = "mem_compress."
BIASES = ("conv1.bias", "conv2.bias", "downsample.0.bias")  # of the value encoder alone


def first_network(
    width: int, key_channels: int, seed: int, imagenet: Mapping[str, str | Path], calibration: Iterable[Batch]
) -> RdeNetwork:
    """The network of stage 0 before any training.

    Args:
        imagenet: files of torchvision's weights, "resnet50" for the key encoder and "resnet18" for the value encoder;
            empty: both begin at random, as torchvision's ResNets do. (Not the authors' way: for networks of other
            widths.) Batch normalisation, which is frozen, then takes its statistics from `calibration`.

    Raises:
        VosflowError: files missing, damaged, not finite, or of other networks.
    """
    torch.manual_seed(seed)
    network = RdeNetwork(width, key_channels, compresses=False, others=False)
    nn.init.orthogonal_(network.key_proj.key_proj.weight)
    nn.init.zeros_(network.key_proj.key_proj.bias)
    for part, name in ((network.key_encoder, "resnet50"), (network.value_encoder, "resnet18")):
        if imagenet:
            _load_resnet(part, Path(imagenet[name]), name)
        else:
            _randomise_resnet(part)
    if not imagenet:
        _calibrate(network, calibration)
    return network


def next_network(
    stage: int, path: str | Path, width: int, key_channels: int, settings: StageSettings
) -> tuple[RdeNetwork, list[str]]:
    """The network of stage 1, 2 or 3 with the weights of the stage before.

    What stage 0 does not have is added: a fifth input channel for the others' masks (orthogonal), and SAM.

    SAM begins with torch's random weights, as in the authors' code (model/modules.py of their repository; zeros for the
    last layer of its attention stand there, commented out), or as `average_memories`. It feeds on its own output, and
    without a norm or a softmax its attention is cubic in what it gets. So with random weights size decides: values of
    rms 0.3 shrink from round to round, from about 1 on they grow. Measured with 512 channels over the three rounds of a
    training clip: 3 becomes 30, 1e4, 1e12. A network of full size that begins at random has values of rms 1.7, and a
    first loss of 1e3 to 1e4 on small crops; 1e17 was seen. From trained weights of stage 0 the authors saw NaN for some
    iterations, which their loss scale skips (issue 2 of their repository); so does the trainer here.

    Returns:
        The network, and what is to be told of what was added.

    Raises:
        VosflowError: weights missing, damaged, not finite, of another width, or of a stage that cannot come before.
    """
    weights = read_state_dict(Path(path), "RDE-VOS", under="network")
    torch.manual_seed(settings.seed + stage)
    network = RdeNetwork(width, key_channels)
    if STEM not in weights or weights[STEM].ndim != 4:
        raise _unfitting(path, f"no {STEM}", width)
    if stage == 2 and not any(name.startswith(COMPRESSION) for name in weights):
        raise VosflowError(
            "stage 2 comes after stage 1, and these weights have no SAM: they are of stage 0",
            path=path,
            expected="weights of stage 1",
            remedy="train [0, 1, 2], or [0, 3] without BL30K",
        )
    remarks = []
    if weights[STEM].shape[1] == 4:
        added = torch.empty(len(weights[STEM]), 1, 7, 7)
        weights[STEM] = torch.cat([weights[STEM], nn.init.orthogonal_(added)], dim=1)
        remarks.append("the weights before have 4 input channels: the one for the others' masks is added")
    if not any(name.startswith(COMPRESSION) for name in weights):
        if settings.compression == "average":
            average_memories(network.mem_compress)
        fresh = network.mem_compress.state_dict()
        weights |= {f"{COMPRESSION}{name}": tensor for name, tensor in fresh.items()}
        how = {"random": "at random, as the authors' does", "average": "as the mean of both memories"}
        remarks.append(f"the weights before have no SAM, it begins {how[settings.compression]} (compression)")
    if differences := list_differences(weights, network.state_dict()):
        raise _unfitting(path, differences, width)
    check_finite(weights, path)
    network.load_state_dict(weights)
    return network, remarks


@torch.no_grad()
def average_memories(compression: MemoryCompression, noise: float = 0.1) -> None:
    """Make SAM begin as the mean of the old and the new memory, with a little of itself, at random.

    Not the authors' way, whose SAM begins at random: see `next_network`. Here values keep their size.

    Args:
        noise: factor of the random weights that stay.
    """
    for branch in (compression.key_encoder, compression.value_encoder):
        branch.non_local.W.weight.mul_(noise**2)
        branch.non_local.W.bias.zero_()
        branch.conv1.conv1.weight.mul_(noise)
    for conv in (compression.compress_key, compression.compress_value):
        conv.weight.mul_(noise)
        conv.bias.zero_()
        same = torch.arange(conv.out_channels)
        conv.weight[same, same, :, 1, 1] += 0.5  # both memories, at the place itself


def _load_resnet(part: nn.Module, path: Path, name: str) -> None:
    given = read_state_dict(path, name, under="state_dict")
    stages = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.")
    given = {key: tensor for key, tensor in given.items() if key.startswith(stages)}
    if name == "resnet50":
        given = {key.replace("layer1.", "res2."): tensor for key, tensor in given.items()}
    wanted = part.state_dict()
    if name == "resnet18":
        stem = given.get("conv1.weight", torch.empty(0))
        if stem.ndim == 4:  # the input for the mask is new
            given["conv1.weight"] = torch.cat([stem, nn.init.orthogonal_(torch.empty(len(stem), 1, 7, 7))], dim=1)
        added = {key: tensor for key, tensor in wanted.items() if key.startswith("fuser.")}
        biases = {key: torch.zeros_like(tensor) for key, tensor in wanted.items() if key.endswith(BIASES)}
        given |= added | {key: bias for key, bias in biases.items() if not key.startswith("fuser.")}
    if differences := list_differences(given, wanted):
        raise VosflowError(
            f"these are not ImageNet weights of {name} ({differences})",
            path=path,
            expected=f"torchvision's {name}, and a network of width 64",
            remedy=f"fetch {name}_imagenet of the catalog; for other widths say backbone: random",
        )
    check_finite(given, path)
    part.load_state_dict(given)


def _randomise_resnet(part: nn.Module) -> None:
    """As torchvision does it, but for the input of the mask, which begins as it does beside ImageNet weights."""
    for name, conv in part.named_modules():
        if isinstance(conv, nn.Conv2d) and not name.startswith("fuser"):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
    with torch.no_grad():
        stem = part.conv1.weight
        if stem.shape[1] > 3:
            stem[:, 3:] = nn.init.orthogonal_(torch.empty_like(stem[:, 3:]))


@torch.no_grad()
def _calibrate(network: RdeNetwork, batches: Iterable[Batch]) -> None:
    """Give batch normalisation the mean statistics of some batches."""
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over all calls
    network.train()
    for batch in batches:
        features = network.encode_frames(batch.images[:, 0])
        network.encode_values(batch.images[:, 0], features, batch.noisy[:, :1], None)
    for layer in layers:
        layer.momentum = 0.1
    network.eval()


def _unfitting(path: str | Path, how: str, width: int) -> VosflowError:
    return VosflowError(
        f"the weights do not fit the network of this training ({how})",
        path=path,
        expected=f"weights of the stage before, of the same width ({width}) and key channels",
        remedy="correct width and key_channels, or train the stage before with these",
    )
