"""Pickled weights: converted where they are harmless, refused where they are not, and never run."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.unit.scripts import run_script
from vosflow.datasets import convert
from vosflow.datasets.convert import convert_checkpoint
from vosflow.errors import VosflowError

PARAMETERS = {"tapir/~/resnet": {"w": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.float32(0.5)}}


class Evil:
    """Writes a file when it is unpickled in the usual way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def save_npy(path: Path, content: object) -> Path:
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def test_arrays_in_dictionaries(tmp_path):
    """The layout of the TAPIR checkpoints."""
    path = save_npy(tmp_path / "tapir.npy", {"params": PARAMETERS, "state": {}, "step": 7})
    done = convert_checkpoint(path, tmp_path / "tapir.safetensors")
    found = load_file(tmp_path / "tapir.safetensors")
    assert done == {"tensors": 2, "dropped": []}
    assert set(found) == {"params/tapir/~/resnet/w", "params/tapir/~/resnet/b"}
    assert np.array_equal(found["params/tapir/~/resnet/w"], PARAMETERS["tapir/~/resnet"]["w"])
    assert sorted(os.listdir(tmp_path)) == ["tapir.npy", "tapir.safetensors"]


def test_training_checkpoint_of_torch(tmp_path):
    """Tensors that share memory, and what is no tensor: steps, states, arguments."""
    network = OrderedDict({"conv.weight": torch.randn(2, 3), "conv.steps": torch.tensor(4)})
    content = {"it": 5, "network": network, "tied": network["conv.weight"], "args": argparse.Namespace(lr=1e-4, a=[1])}
    torch.save(content, tmp_path / "model.pth")
    done = convert_checkpoint(tmp_path / "model.pth", tmp_path / "model.safetensors", drop_unknown=True)
    found = load_file(tmp_path / "model.safetensors")
    assert done == {"tensors": 3, "dropped": ["argparse.Namespace"]}
    assert torch.equal(found["network/conv.weight"], network["conv.weight"]) and found["network/conv.steps"] == 4


def test_the_malicious_file_is_malicious(tmp_path):
    path = save_npy(tmp_path / "weights.npy", {"evil": Evil(tmp_path / "victim")})
    subprocess.run([sys.executable, "-c", "import sys, numpy; numpy.load(sys.argv[1], allow_pickle=True)", path])
    assert (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    "name, drop_unknown", [("w.npy", False), ("w.npy", True), ("zip.pth", False), ("old.pth", True)]
)
def test_malicious_pickle_is_never_run(tmp_path, name, drop_unknown):
    content = {"evil": Evil(tmp_path / "victim"), "w": PARAMETERS["tapir/~/resnet"]["w"]}
    path, output = tmp_path / name, tmp_path / "out.safetensors"
    if name == "w.npy":
        save_npy(path, content)
    else:
        content["w"] = torch.from_numpy(content["w"])
        torch.save(content, path, _use_new_zipfile_serialization=name == "zip.pth")
    if drop_unknown:
        assert convert_checkpoint(path, output, drop_unknown=True) == {"tensors": 1, "dropped": ["posix.system"]}
    else:
        with pytest.raises(VosflowError, match="refused: it is a pickle that asks for posix.system") as caught:
            convert_checkpoint(path, output)
        assert "--drop-unknown" in caught.value.remedy and not output.exists()
    assert not (tmp_path / "victim").exists()


def test_pickle_that_kills_its_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "_CHILD", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(VosflowError, match="the converting process ended with status -9"):
        convert_checkpoint(tmp_path / "evil.npy", tmp_path / "out.safetensors")


@pytest.mark.parametrize("content", [b"", b"<html>", pickle.dumps({"a": 1})])
def test_what_is_no_checkpoint(tmp_path, content):
    (tmp_path / "file.npy").write_bytes(content)
    with pytest.raises(VosflowError, match="cannot be converted"):
        convert_checkpoint(tmp_path / "file.npy", tmp_path / "out.safetensors")


def test_npy_without_objects(tmp_path):
    np.save(tmp_path / "file.npy", np.ones(3, np.float32))
    assert convert_checkpoint(tmp_path / "file.npy", tmp_path / "out.safetensors")["tensors"] == 1


def test_script(tmp_path):
    path = save_npy(tmp_path / "tapir.npy", {"params": PARAMETERS, "step": Evil(tmp_path / "victim")})
    refused = run_script("convert_checkpoint.py", path)
    assert refused.returncode == 1 and "posix.system" in refused.stderr
    done = run_script("convert_checkpoint.py", path, "--drop-unknown")
    assert done.returncode == 0 and "2 tensors" in done.stderr and "left out: posix.system" in done.stderr
    assert (tmp_path / "tapir.safetensors").exists() and not (tmp_path / "victim").exists()


def test_torchscript_is_refused(tmp_path, capsys, monkeypatch):
    """Its program would be read by torch itself, past the check of names."""
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as file:
        for name in ("data.pkl", "constants.pkl", "version"):
            file.writestr(f"model/{name}", b"")
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("torch read it"))
    convert._convert_here(str(tmp_path / "model.pt"), str(tmp_path / "model.safetensors"), False)
    assert "a TorchScript archive" in json.loads(capsys.readouterr().out)["error"]


def test_tensors_that_would_have_one_name(tmp_path, capsys):
    torch.save({"a/b": torch.ones(1), "a": {"b": torch.zeros(1)}}, tmp_path / "model.pt")
    convert._convert_here(str(tmp_path / "model.pt"), str(tmp_path / "model.safetensors"), False)
    assert "two of its tensors would have the same name" in json.loads(capsys.readouterr().out)["error"]
    assert not (tmp_path / "model.safetensors").exists()
