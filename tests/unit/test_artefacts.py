"""Artefacts: what is kept comes back byte for byte; whatever happens to the folder, no result changes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vosflow import artefacts
from vosflow.artefacts import GIGABYTE, Artefacts, ArtefactStore, open_store
from vosflow.errors import VosflowError

MADE = {
    "tokens": np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),  # not in C order
    "visible": np.array([[True, False]]),
    "scale": np.float32(0.5),
    "none": np.zeros((0, 2), np.int64),
    "half": np.arange(5, dtype=np.uint16)[::2],
}


class Maker:
    """Counts how often it is asked."""

    def __init__(self, arrays=None):
        self.arrays, self.calls = MADE if arrays is None else arrays, 0

    def __call__(self):
        self.calls += 1
        return self.arrays


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_read_back_is_what_was_made_in_bytes_shape_and_memory_order(tmp_path):
    make = Maker()
    one, two = (Artefacts(ArtefactStore(tmp_path, 1)) for _ in range(2))
    made, read, unkept = one.get("k", {"a": 1}, make), two.get("k", {"a": 1}, make), Artefacts().get("k", {}, make)
    assert make.calls == 2 and one.counts == {"k": {"made": 1, "reused": 0}}
    assert two.counts == {"k": {"made": 0, "reused": 1}}
    for name, array in MADE.items():
        for found in (made[name], read[name], unkept[name]):
            assert found.dtype == array.dtype and found.shape == array.shape and found.flags.c_contiguous
            assert found.tobytes() == np.asarray(array).tobytes()
    assert [path.suffix for path in files(tmp_path)] == [".safetensors"]


def test_kind_facts_origin_and_code_decide_what_is_the_same(tmp_path):
    make, store = Maker(), ArtefactStore(tmp_path, 1)
    asked = [
        ("k", {"a": 1}, {"device": "cpu"}, "c", None),
        ("l", {"a": 1}, {"device": "cpu"}, "c", None),
        ("k", {"a": 2}, {"device": "cpu"}, "c", None),
        ("k", {"a": 1}, {"device": "cuda"}, "c", None),
        ("k", {"a": 1}, {"device": "cpu"}, "d", None),
        ("k", {"a": 1}, {"device": "cpu"}, "c", ("m",)),
    ]
    for _ in range(2):
        for kind, facts, origin, code, modules in asked:
            of_modules = lambda modules, code=code: f"{code} {modules}"  # noqa: E731
            Artefacts(store, origin=origin, code=of_modules).get(kind, facts, make, modules)
    assert make.calls == len(asked)


def test_only_what_was_there_from_before_counts_as_reused(tmp_path):
    """Once: what a video asks for twice did not make it faster than it would be alone."""
    make, store = Maker(), ArtefactStore(tmp_path, 1)
    first, second = Artefacts(store), Artefacts(store)
    for cache in (first, first, second, second):
        cache.get("k", {}, make)
    assert make.calls == 1
    assert first.counts == {"k": {"made": 1, "reused": 0}} and second.counts == {"k": {"made": 0, "reused": 1}}


def test_a_damaged_file_is_made_again_with_a_remark(tmp_path):
    remarks: list[str] = []
    make, cache = Maker(), Artefacts(ArtefactStore(tmp_path, 1), remark=remarks.append)
    cache.get("k", {}, make)
    (path,) = files(tmp_path)
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[-1] ^= 1
    for bad in (b"", good[:20], good[:-3], bytes(flipped)):
        path.write_bytes(bad)
        assert cache.get("k", {}, make)["tokens"].tobytes() == MADE["tokens"].tobytes()
        assert path.read_bytes() == good
    assert make.calls == 5 and len(remarks) == 4 and "damaged" in remarks[0]
    path.unlink()
    cache.get("k", {}, make)
    assert make.calls == 6 and len(remarks) == 4  # it is just not there


def megabyte(seed: int) -> dict[str, np.ndarray]:
    return {"x": np.full(10**6, seed, np.uint8)}


def test_the_folder_stays_below_its_limit_and_the_least_used_goes_first(tmp_path):
    make, store = Maker(megabyte(1)), ArtefactStore(tmp_path, 0.005)
    cache = Artefacts(store)
    clock = 10**9
    for number in (0, 1, 2, 3, 0, 4, 5, 6):
        cache.get("k", {"n": number}, make)
        for path in files(tmp_path):  # times of use far enough apart for any file system
            if path.stat().st_mtime > 10**8:
                clock += 1
                os.utime(path, ns=(clock, clock))
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 0.005 * GIGABYTE
    before = make.calls
    assert before == 7 and cache.counts["k"] == {"made": 7, "reused": 0}
    for number in (6, 5, 4, 0):  # 0 was used again after 1, 2 and 3 were made
        cache.get("k", {"n": number}, make)
    assert make.calls == before
    cache.get("k", {"n": 1}, make)
    assert make.calls == before + 1
    cache.get("k", {"n": "large"}, Maker({"x": np.zeros(6 * 10**6, np.uint8)}))  # larger than all: it evicts nothing
    assert len(files(tmp_path)) >= 4


def test_leftovers_of_killed_processes_are_evicted_as_well(tmp_path):
    left = tmp_path / f"k/ab/.{'ab' * 32}.host.1"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(4 * 10**6))
    os.utime(left, (1, 1))
    Artefacts(ArtefactStore(tmp_path, 0.005)).get("k", {}, Maker({"x": np.zeros(2 * 10**6, np.uint8)}))
    assert not left.exists() and len(files(tmp_path)) == 1


def test_nothing_but_artefacts_is_ever_evicted(tmp_path):
    """Somebody may name a folder that holds other things, too."""
    others = [
        tmp_path / "DAVIS/ab/video.png",
        tmp_path / f"w/ab/{'cd' * 32}.safetensors",
        tmp_path / "w/ab/w.safetensors",
    ]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(4 * 10**6))
        os.utime(path, (1, 1))
    (tmp_path / "w/ab/folder").mkdir()
    cache = Artefacts(ArtefactStore(tmp_path, 0.003))
    for number in range(4):
        cache.get("k", {"n": number}, Maker({"x": np.zeros(10**6, np.uint8)}))
    assert all(path.exists() for path in others)
    assert 1 <= len(list((tmp_path / "k").rglob("*.safetensors"))) <= 2


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_told_of_once_and_still_read(tmp_path, monkeypatch, capsys, reason):
    make, store = Maker(), ArtefactStore(tmp_path, 1)
    Artefacts(store).get("k", {"a": 0}, make)

    def refuse(*_):
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(artefacts.os, "replace", refuse)
    monkeypatch.setattr(artefacts.os, "utime", refuse)
    cache = Artefacts(store)
    for number in (0, 1, 2, 1):
        assert cache.get("k", {"a": number}, make)["visible"].tobytes() == MADE["visible"].tobytes()
    assert cache.counts == {"k": {"made": 3, "reused": 1}} and len(files(tmp_path)) == 1
    told = capsys.readouterr().err
    assert told.count("artefacts are not kept") == 1 and str(tmp_path) in told


def test_a_file_where_the_folder_should_be_fails_nothing(tmp_path, capsys):
    (tmp_path / "cache").write_text("")
    cache = Artefacts(ArtefactStore(tmp_path / "cache", 1))
    assert cache.get("k", {}, Maker())["scale"] == 0.5 and "not kept" in capsys.readouterr().err


def test_a_folder_that_vanishes_in_between_fails_nothing_and_is_made_again(tmp_path, monkeypatch, capsys):
    store = ArtefactStore(tmp_path / "cache", 1)
    replace = os.replace

    def vanish(aside, path):
        aside.unlink()
        replace(aside, path)

    monkeypatch.setattr(artefacts.os, "replace", vanish)
    Artefacts(store).get("k", {}, Maker())
    monkeypatch.setattr(artefacts.os, "replace", replace)
    Artefacts(store).get("k", {}, Maker())
    assert len(files(tmp_path)) == 1 and capsys.readouterr().err == ""


def test_no_limit_keeps_nothing(tmp_path):
    assert open_store(tmp_path / "cache", 0) is None
    make = Maker()
    cache = Artefacts(open_store(tmp_path / "cache", 0))
    cache.get("k", {}, make), cache.get("k", {}, make)
    assert make.calls == 2 and not (tmp_path / "cache").exists()


TWO_AT_ONCE = """
import sys
import numpy as np
from vosflow.artefacts import Artefacts, ArtefactStore

cache = Artefacts(ArtefactStore(sys.argv[1], 0.002))
for turn in range(3):
    for number in range(40):
        found = cache.get("k", {"n": number}, lambda: {"x": np.full(10**5, number, np.uint8)})
        assert (found["x"] == number).all(), number
"""


def test_two_processes_that_write_read_and_evict_at_once(tmp_path):
    house = Path(artefacts.__file__).parents[1]
    command = [sys.executable, "-c", TWO_AT_ONCE, str(tmp_path)]
    processes = [subprocess.Popen(command, cwd=house, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in processes] == [("", 0), ("", 0)]
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 0.0025 * GIGABYTE


@pytest.mark.parametrize("gigabytes", [-1, float("nan")])
def test_a_limit_that_is_none_is_refused(tmp_path, gigabytes):
    with pytest.raises(VosflowError, match="the cache cannot hold"):
        open_store(tmp_path, gigabytes)
