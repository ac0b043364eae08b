"""Weights with NaN or infinite values are refused, whatever the network (RDE-VOS: see `test_rde_use`)."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import vosflow
from tests.unit import tiny_sam2, tiny_sams
from vosflow.errors import VosflowError
from vosflow.trackers.base import Checkpoint
from vosflow.trackers.sam2 import Sam2Tracker
from vosflow.trackers.sam2long import Sam2LongTracker
from vosflow.trackers.sam_pt.points import networks
from vosflow.trackers.sam_pt.sams import network as sams
from vosflow.trackers.state_dict import check_finite

VALUES = [float("nan"), float("inf"), -float("inf")]


def load_sam2(kind: type, folder: Path, spoil: Callable[[dict], None]) -> None:
    checkpoint = tiny_sam2.make_checkpoint(folder)
    weights = torch.load(checkpoint.path, weights_only=True)["model"]
    spoil(weights)
    torch.save({"model": weights}, checkpoint.path)
    kind(kind.Settings(), checkpoint, "cpu").load()


def load_sam(folder: Path, spoil: Callable[[dict], None]) -> None:
    sam = tiny_sams.make_sam("ViT", False)
    spoil(sam.state_dict())
    sams.load_network(tiny_sams.save(sam, folder / "sam.pth"), "SAM ViT-B")


def load_point_tracker(folder: Path, spoil: Callable[[dict], None]) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    spoil(network.state_dict())
    sick = {"state": {0: {"exp_avg": torch.tensor(VALUES)}}}  # of an optimizer: nobody computes with it
    torch.save({"model_state_dict": network.state_dict(), "optimizer_state_dict": sick}, folder / "points.pth")
    checkpoint = Checkpoint("points", folder / "points.pth", "")
    networks.load_network(lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), checkpoint, "Points")


@pytest.mark.parametrize(
    ("load", "count", "name"),
    [
        (lambda *given: load_sam2(Sam2Tracker, *given), 300, "memory_attention.layers.0.linear1.weight"),
        (lambda *given: load_sam2(Sam2LongTracker, *given), 300, "no_obj_ptr"),
        (load_sam, None, "mask_decoder.iou_token.weight"),
        (load_point_tracker, 7, "1.running_var"),
    ],
)
def test_networks_are_not_given_them(load, count, name, tmp_path):
    def spoil(weights):
        weights[name].view(-1)[-1] = VALUES[0]

    load(tmp_path, lambda weights: None)
    with pytest.raises(
        VosflowError, match=rf"values in 1 of the checkpoint's {count or '.*'} tensors \({name}\)\n"
    ) as caught:
        load(tmp_path, spoil)
    assert caught.value.path.startswith(str(tmp_path)) and "fetch the file again" in str(caught.value)


@pytest.mark.parametrize("value", VALUES)
def test_the_first_is_named_and_all_are_counted(value):
    weights = {
        "steps": torch.tensor(3),
        "none": torch.ones(0),
        "a": torch.ones(2),
        "c": torch.ones(3, 3),
        "b": torch.ones(1),
    }
    for name in "cb":
        weights[name].view(-1)[0] = value
    with pytest.raises(VosflowError, match=r"w.pt: there are NaN .* 2 of the checkpoint's 5 tensors \(c, ...\)"):
        check_finite(weights, "w.pt")


def test_values_that_only_their_sum_makes_infinite_are_fine():
    check_finite({"large": torch.full((9,), 3e38), "steps": torch.tensor(3), "none": torch.ones(0)}, "w.pt")


def test_all_that_compare_weights_with_a_network_check_them():
    """So that a new network does not forget it."""
    users = 0
    for path in Path(vosflow.__file__).parent.rglob("*.py"):
        calls = [node.func.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]  # fmt: skip
        assert calls.count("check_finite") == calls.count("list_differences"), path
        users += "check_finite" in calls
    assert users >= 6
