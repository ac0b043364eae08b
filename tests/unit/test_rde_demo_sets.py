"""The training sets of RDE-VOS's demo: fewer than there are, but drawn by the same code."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vosflow.datasets.demo_drawing import FRAMES, HEIGHT, WIDTH, render
from vosflow.datasets.demo_scenes import KINDS, make_scene
from vosflow.errors import DiskError
from vosflow.training.rde import demo_sets
from vosflow.training.rde.demo_sets import SIDE, SLOWER, write_demo_sets
from vosflow.training.rde.sets import VideoSet, read_set


@pytest.fixture(autouse=True)
def few(monkeypatch) -> None:
    monkeypatch.setattr(demo_sets, "STILL_IMAGES", 21)  # one in each 20 goes into the rare folders
    monkeypatch.setattr(demo_sets, "VIDEOS", {"bl30k": 3, "davis": 2, "youtube": 1})


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_demo_sets_read_as_the_real_ones_and_do_not_depend_on_workers(tmp_path):
    folder = tmp_path / "sets"
    write_demo_sets(folder, 1)
    first = files(folder)
    (folder / "old").touch()
    write_demo_sets(folder, 3)
    assert files(folder) == first and list(tmp_path.iterdir()) == [folder]
    still = read_set("static", folder / "static")
    assert len(still) == 21 and {np.asarray(Image.open(pair.mask)).any() for pair in still} == {True}
    for kind, count in demo_sets.VIDEOS.items():
        videos = read_set(kind, folder / kind)
        assert isinstance(videos, VideoSet) and [len(frames) for frames in videos.videos.values()] == [10] * count
        for name in videos.videos:
            image, labels = videos.read(*videos.files(name, 0))
            assert image.size == (SIDE, SIDE) and np.count_nonzero(labels) >= 500


def test_a_slowed_scene_shows_the_same_later():
    for number, kind in enumerate(KINDS):
        scene = make_scene(kind, 700_000 + number, difficulty=30)
        slowed = demo_sets._slowed(scene)
        times = (0, 5, FRAMES - 1)
        _, quick = render(scene, times, WIDTH, HEIGHT)
        _, slow = render(slowed, [SLOWER * t for t in times], WIDTH, HEIGHT)
        for one, other in zip(quick, slow, strict=True):
            assert np.mean(one != other) < 0.02  # but for rounding, also of the speed of wobbling


def test_a_full_disk_in_a_worker_is_told_as_such(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(demo_sets, "_save", full)  # workers are forked
    with pytest.raises(DiskError, match="the disk .or your quota. is full"):
        write_demo_sets(tmp_path / "sets", 2)
