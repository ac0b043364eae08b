"""Weights of the catalog: fetched, taken out of archives, converted, imported."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.unit import loopback
from tests.unit.loopback import DATA, MD5, OTHER, SHA256, Server
from vosflow.catalog import CheckpointEntry
from vosflow.datasets import fetch_weights, imports
from vosflow.datasets.fetch_weights import fetch_checkpoint
from vosflow.datasets.imports import import_checkpoint
from vosflow.errors import VosflowError

FACTS = {"network": "raft", "licence": "BSD", "evidence": "publisher", "source": "its README"}
server = loopback.server


@pytest.fixture
def catalog(monkeypatch):
    """Checkpoints by id, for this test."""
    entries: dict[str, CheckpointEntry] = {}
    for module in (fetch_weights, imports):
        monkeypatch.setattr(module, "find_checkpoint", entries.__getitem__)
    return entries


def fetch(tmp_path: Path, checkpoint: str = "x"):
    return fetch_checkpoint(checkpoint, tmp_path / "data", locks=tmp_path / "data/locks")


def take(tmp_path: Path, given: Path, checkpoint: str = "x") -> list[str]:
    return import_checkpoint(given, checkpoint, tmp_path / "data", tmp_path / "data/locks")


def packed(server: Server, members: dict[str, bytes], kind: str) -> None:
    """Let the server deliver an archive."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            for name, data in members.items():
                file.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as file:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    server.data = buffer.getvalue()


def package_entry(server: Server, kind: str, member: str) -> CheckpointEntry:
    sources = [{"kind": "http", "url": server.url}]
    package = {"file": f"models.{kind}", "sources": sources, "member": member, "evidence": "unknown", "source": "s"}
    return CheckpointEntry(file="raft-things.pth", md5=MD5, package=package, **FACTS)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("member", ["models/raft-things.pth", "raft-things.pth"])
def test_weights_in_an_archive(tmp_path, server, catalog, kind, member):
    """Found by the whole name, or by its last part: publishers' archives are described in both ways."""
    packed(server, {"models/raft-small.pth": OTHER, "models/raft-things.pth": DATA}, kind)
    catalog["x"] = package_entry(server, kind, member)
    record = fetch(tmp_path)
    assert (tmp_path / "data/checkpoints/raft-things.pth").read_bytes() == DATA
    assert (record.sha256, record.compared_with) == (SHA256, "publisher: its README")
    assert member in record.source and server.url in record.source
    fetch(tmp_path)
    assert len(server.requests) == 1
    assert sorted(os.listdir(tmp_path / "data/locks")) == [f"models.{kind}.json", "raft-things.pth.json"]


def test_wrong_weights_in_an_archive(tmp_path, server, catalog):
    packed(server, {"models/raft-things.pth": OTHER}, "zip")
    catalog["x"] = package_entry(server, "zip", "models/raft-things.pth")
    with pytest.raises(VosflowError, match="not the file of the catalog: its md5 is") as caught:
        fetch(tmp_path)
    assert MD5 in str(caught.value) and hashlib.md5(OTHER).hexdigest() in str(caught.value)
    assert [name for name in os.listdir(tmp_path / "data/checkpoints") if not name.endswith(".lock")] == []


def test_archive_without_the_weights(tmp_path, server, catalog):
    packed(server, {"a/raft-things.pth": DATA, "b/raft-things.pth": DATA}, "zip")
    catalog["x"] = package_entry(server, "zip", "models/raft-things.pth")
    with pytest.raises(VosflowError, match="there is no file models/raft-things.pth in it"):
        fetch(tmp_path)


def pickled(server: Server, tmp_path: Path) -> CheckpointEntry:
    content = {"params": {"net": {"w": np.ones((2, 2), np.float32)}}, "state": {}}
    np.save(tmp_path / "tapir.npy", np.array(content, dtype=object), allow_pickle=True)
    server.data = (tmp_path / "tapir.npy").read_bytes()
    sources = [{"kind": "http", "url": server.url}]
    sha256 = hashlib.sha256(server.data).hexdigest()
    return CheckpointEntry(**{**FACTS, "file": "tapir.npy", "sources": sources, "sha256": sha256, "pickled": True})


def test_pickled_weights_are_converted_once(tmp_path, server, catalog, capsys):
    catalog["x"] = pickled(server, tmp_path)
    fetch(tmp_path)
    converted = tmp_path / "data/checkpoints" / catalog["x"].weights_file
    assert set(load_file(converted)) == {"params/net/w"}
    before = converted.stat().st_mtime_ns
    fetch(tmp_path)
    assert converted.stat().st_mtime_ns == before and len(server.requests) == 1
    converted.unlink()
    fetch(tmp_path)
    assert converted.exists() and "1 tensors of the pickle tapir.npy" in capsys.readouterr().err


# ---- import ---------------------------------------------------------------------------------------------------------


def entry(**known) -> CheckpointEntry:
    return CheckpointEntry(
        file="w.pt", sources=({"kind": "http", "url": "http://nowhere.invalid/w"},), **known, **FACTS
    )


def test_import_links_the_file(tmp_path, catalog):
    catalog["x"] = entry(sha256=SHA256)
    (tmp_path / "mine.pt").write_bytes(DATA)
    (line,) = take(tmp_path, tmp_path / "mine.pt")
    place = tmp_path / "data/checkpoints/w.pt"
    assert os.readlink(place) == str(tmp_path / "mine.pt") and "compared with publisher: its README" in line
    assert (tmp_path / "data/checkpoints/w.pt.fetched").exists()
    assert fetch(tmp_path).source == str(tmp_path / "mine.pt")  # what the workflow does: it finds it there
    (tmp_path / "other.pt").write_bytes(DATA)
    take(tmp_path, tmp_path / "other.pt")
    assert os.readlink(place) == str(tmp_path / "other.pt")


def test_import_of_another_file_is_refused(tmp_path, catalog):
    catalog["x"] = entry(sha256=SHA256, size_bytes=len(DATA))
    (tmp_path / "mine.pt").write_bytes(OTHER)
    with pytest.raises(VosflowError, match="not the file of the catalog: its sha256 is") as caught:
        take(tmp_path, tmp_path / "mine.pt")
    assert SHA256 in str(caught.value) and hashlib.sha256(OTHER).hexdigest() in str(caught.value)
    assert (tmp_path / "mine.pt").exists()
    assert [name for name in os.listdir(tmp_path / "data/checkpoints") if not name.endswith(".lock")] == []


def test_import_without_a_published_hash_is_recorded(tmp_path, catalog):
    catalog["x"] = CheckpointEntry(
        file="w.pt",
        sources=({"kind": "gdrive_folder", "id": "1", "file": "w.pt"},),
        **{**FACTS, "evidence": "unknown"},
    )
    (tmp_path / "mine.pt").write_bytes(DATA)
    (line,) = take(tmp_path, tmp_path / "mine.pt")
    assert "no hash is published" in line
    (tmp_path / "mine.pt").write_bytes(OTHER)
    with pytest.raises(VosflowError, match="recorded at the first download"):
        fetch(tmp_path)
    with pytest.raises(VosflowError, match="recorded at the first download"):
        take(tmp_path, tmp_path / "mine.pt")


def test_import_of_the_archive_that_weights_come_in(tmp_path, server, catalog):
    packed(server, {"models/raft-things.pth": DATA}, "zip")
    (tmp_path / "models.zip").write_bytes(server.data)
    catalog["x"] = package_entry(server, "zip", "models/raft-things.pth")
    take(tmp_path, tmp_path / "models.zip")
    assert (tmp_path / "data/checkpoints/raft-things.pth").read_bytes() == DATA and server.requests == []


def test_import_converts_pickles(tmp_path, server, catalog):
    catalog["x"] = pickled(server, tmp_path)
    take(tmp_path, tmp_path / "tapir.npy")
    assert set(load_file(tmp_path / "data/checkpoints/tapir.safetensors")) == {"params/net/w"}


def test_import_of_nothing(tmp_path, catalog):
    catalog["x"] = entry(sha256=SHA256)
    with pytest.raises(VosflowError, match="no such file or folder"):
        take(tmp_path, tmp_path / "nothing")
