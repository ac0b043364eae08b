"""Where weights and datasets of a study come from: the right network, what is here already, what is converted."""

from __future__ import annotations

from pathlib import Path

import pytest

from vosflow.config import parse_config
from vosflow.errors import VosflowError
from vosflow.sources import dataset_source
from vosflow.study import load_study
from vosflow.trackers.base import TrackerSettings
from vosflow.trackers.registry import load_tracker
from vosflow.weights import checkpoint_id, checkpoint_source


class AnyTracker:
    """A user's tracker that says nothing of its network."""

    Settings = TrackerSettings
    needs_checkpoint = True
    uses_gpu = False


class TapirTracker(AnyTracker):
    network = "tapir"


def config(**paths):
    return parse_config({"runs": [{"dataset": "demo/val", "tracker": "static"}], "paths": paths})


@pytest.mark.parametrize("name", ["rde_s012", "sam_vit_h", "cotracker2", "resnet50_imagenet"])
def test_weights_of_another_network_are_refused(name):
    with pytest.raises(
        VosflowError, match=f"checkpoint {name} holds weights of .*, and tracker sam2 runs sam2"
    ) as found:
        checkpoint_source(config(), "sam2", load_tracker("sam2"), name)
    assert "sam2.1_large" in found.value.expected and "rde" not in found.value.expected


def test_own_tracker_may_take_any_weights():
    source = checkpoint_source(config(), "mine:AnyTracker", AnyTracker, "rde_s012")
    assert (source.path, source.config) == ("data/checkpoints/model_s012_final.pth", None)
    assert source.requires == "data/checkpoints/model_s012_final.pth.fetched"


def test_pickled_weights_are_read_converted():
    source = checkpoint_source(config(), "tapir", TapirTracker, "tapir_causal")
    assert source.path == "data/checkpoints/causal_tapir_checkpoint.safetensors" and source.sha256 is None
    assert source.requires == "data/checkpoints/causal_tapir_checkpoint.npy.fetched"
    assert checkpoint_id("causal_tapir_checkpoint.npy") == "tapir_causal"


def test_pickled_weights_that_are_here_must_be_converted(tmp_path):
    given = tmp_path / "causal_tapir_checkpoint.npy"
    given.touch()
    with pytest.raises(VosflowError, match="a pickle, which may run code") as found:
        checkpoint_source(config(checkpoints={"tapir_causal": str(given)}), "tapir", TapirTracker, "tapir_causal")
    assert f"--import {given} --checkpoint tapir_causal" in found.value.remedy
    converted = given.with_suffix(".safetensors")
    converted.touch()
    given_paths = config(checkpoints={"tapir_causal": str(converted)})
    assert checkpoint_source(given_paths, "tapir", TapirTracker, "tapir_causal").path == str(converted)


def test_weights_in_archives_are_fetched_under_their_own_name():
    assert checkpoint_id("raft-things.pth") == "raft_things"
    with pytest.raises(VosflowError, match="no checkpoint of the catalog has this file"):
        checkpoint_id("sam2_demo.safetensors")


@pytest.mark.parametrize("below", ["", "DAVIS", "trainval-480p/DAVIS"])
def test_folder_that_holds_the_archives(tmp_path, below):
    """What was extracted with the publisher's folders around it is found in them."""
    (tmp_path / "mine" / below / "JPEGImages").mkdir(parents=True)
    given = config(datasets={"davis2017": str(tmp_path / "mine")})
    assert Path(dataset_source(given, "davis2017/val").root) == tmp_path / "mine" / below


def test_datasets_without_given_masks_are_refused_before_anything_is_fetched():
    with pytest.raises(VosflowError, match="no masks are given here") as caught:
        load_study({"runs": [{"dataset": "uvo/val", "tracker": "static"}]})
    assert "scripts/evaluate.py" in caught.value.remedy
