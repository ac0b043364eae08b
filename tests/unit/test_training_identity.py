"""What decides that a stage of training is the same one: what is in its sets, not where they are; and what is said."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.unit.tiny_rde import make_still_images, make_training_videos
from vosflow.config import parse_config
from vosflow.training.planning import StageJob, plan_trainings
from vosflow.training.review import review_trainings
from vosflow.training.set_identity import describe_set

DATA = "data"


@pytest.fixture
def sets(tmp_path, monkeypatch) -> Path:
    """Training sets in the folder `sets` below the current one."""
    monkeypatch.chdir(tmp_path)
    make_still_images(tmp_path / "sets/static")
    for name in ("davis", "youtube", "bl30k"):
        make_training_videos(tmp_path / "sets" / name, {f"v{number}": 4 for number in range(3)})
    return tmp_path / "sets"


def plan(folder: str | Path = "sets", paths: dict | None = None, **training) -> list[StageJob]:
    """The stages of a training on the sets in a folder, read from disk anew."""
    describe_set.cache_clear()
    data = {kind: f"{folder}/{kind}" for kind in ("static", "davis", "youtube")}
    given = {"method": "rde", "stages": [0, 3], "width": 16, "backbone": "random", "data": data, **training}
    runs = [{"dataset": "demo/val", "tracker": "static"}]
    config = {"runs": runs, "training": {"mine": given}, "execution": {"device": "cpu"}, "paths": paths or {}}
    return plan_trainings(parse_config(config))


def made(*args, **training) -> list[str]:
    return [job.made for job in plan(*args, **training)]


def test_sets_that_moved_are_the_same(sets, tmp_path):
    before = plan()
    shutil.copytree(sets, tmp_path / "mounted elsewhere")  # other times, too
    shutil.rmtree(sets)
    after = plan(tmp_path / "mounted elsewhere")
    assert [job.folder for job in after] == [job.folder for job in before]
    assert [job.plan.deciding() for job in after] == [job.plan.deciding() for job in before]
    assert all(str(tmp_path) in part.root for part in after[1].plan.sets)


def test_where_data_lies_decides_nothing(sets):
    """Nor does it where sets are fetched: they are what the catalog compares a download with."""
    fetched = {"data": {}, "backbone": "imagenet", "width": 64}
    here, there = (plan(paths={"data": folder}, **fetched) for folder in ("data", "/scratch/data"))
    assert [job.made for job in here] == [job.made for job in there]
    assert [job.plan.sets for job in here] != [job.plan.sets for job in there]


def test_a_set_is_the_same_however_its_folder_is_named(sets):
    paths = {"datasets": {"davis2017": "sets/davis", "youtubevos2019": "sets/youtube", "static_images": "sets/static"}}
    assert made(data={}, paths=paths) == made()
    (sets / "davis/JPEGImages/480p").rename(sets / "davis/frames")
    (sets / "davis/JPEGImages").rmdir()
    (sets / "davis/frames").rename(sets / "davis/JPEGImages")
    assert made(data={}, paths=paths) == made(), "without a folder for the resolution"


def test_files_that_training_does_not_read_decide_nothing(sets):
    before = made()
    for place in ("davis", "davis/JPEGImages", "davis/JPEGImages/480p/v1", "static", "static/fss", "static/ecssd"):
        (sets / place / "README.txt").touch()
        (sets / place / ".cache").mkdir()
    make_training_videos(sets / "davis", {"of val": 4}, listed=["v0", "v1", "v2"])
    assert made() == before


def reencode(path: Path) -> None:
    Image.open(path).save(path, quality=30)


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        (lambda sets: shutil.rmtree(sets / "youtube/JPEGImages/480p/v1"), 3),
        (lambda sets: make_training_videos(sets / "youtube", {"new": 4}), 3),
        (lambda sets: (sets / "davis/ImageSets/2017/train.txt").write_text("v0 v2"), 3),
        (lambda sets: reencode(sets / "davis/JPEGImages/480p/v0/00000.jpg"), 3),
        (lambda sets: (sets / "davis/Annotations/480p/v2/00003.png").unlink(), 3),
        (lambda sets: reencode(sets / "static/DUTS-TE/0.jpg"), 0),
        (lambda sets: reencode(sets / "static/fss/thing/0.jpg"), 0),
        (lambda sets: (sets / "static/fss/thing").rename(sets / "static/fss/another"), 0),
    ],
)
def test_other_videos_and_other_images_are_another_set(sets, change, stage):
    first, last = made()
    change(sets)
    after = made()
    assert after[1] != last and (after[0] != first) == (stage == 0)


def test_planning_looks_into_few_of_many_videos(tmp_path, monkeypatch):
    names = [f"{number:04d}" for number in range(1000)]
    for name in names:
        for part in ("JPEGImages", "Annotations"):
            (tmp_path / part / name).mkdir(parents=True)
    looked, sized, listdir, stat = [], [], os.listdir, os.stat
    monkeypatch.setattr(os, "listdir", lambda path: looked.append(path) or listdir(path))
    monkeypatch.setattr(os, "stat", lambda path, **how: sized.append(path) or stat(path, **how))
    before = describe_set("bl30k", str(tmp_path))
    assert before["videos"] == 1000 and len(sized) <= 8 * 32 and 32 <= len(looked) <= 2 * 32
    describe_set.cache_clear()
    (tmp_path / "JPEGImages/0001").rename(tmp_path / "JPEGImages/0001b")
    assert describe_set("bl30k", str(tmp_path)) != before, "but all their names are read"


# --- what is said before a stage begins anew


def begin(job: StageJob, *, done: bool = False, iterations: int = 40, names: list[str] | None = None) -> None:
    """Leave what a job of this stage leaves."""
    folder = Path(job.folder)
    folder.mkdir(parents=True)
    (folder / ("weights.safetensors" if done else "work.pt")).touch()
    (folder / "curves.csv").write_text(f"iteration,seconds\n0,\n{iterations},1.5\n")
    data = job.plan.as_data()
    data["practical"]["names"] = names or data["practical"]["names"]
    (folder / "plan.json").write_text(json.dumps(data))


def announced(jobs: list[StageJob]) -> list[str]:
    said: list[str] = []
    review_trainings(jobs, DATA, said.append)
    return said


def test_nothing_is_said_of_stages_that_are_new_or_go_on(sets):
    jobs = plan()
    assert announced(jobs) == []
    begin(jobs[0], done=True)
    begin(jobs[1])
    assert announced(plan()) == []


def test_a_stage_that_begins_anew_says_why_and_how_to_keep_the_old_one(sets):
    old = plan()
    begin(old[0], done=True)
    begin(old[1])
    shutil.rmtree(sets / "youtube/JPEGImages/480p/v1")
    new = plan()
    (said,) = announced(new)
    assert said.startswith(f"training mine.stage3 begins anew: in {old[1].folder} it stopped after 40 iterations, but ")
    assert "but the training set youtube has 2 videos and had 3." in said
    assert said.endswith(f"mv -T {old[1].folder} {new[1].folder}")
    (said,) = announced(plan(stage_settings={3: {"learning_rate": 1e-4}}))
    assert "learning_rate is 0.0001 and was 2e-05; the training set youtube has 2 videos" in said
    assert said.endswith("That one goes on when its settings are as they were")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda sets: reencode(sets / "static/ecssd/0.jpg"), "static has other files, or files of other sizes"),
        (lambda sets: (sets / "static/fss/thing").rename(sets / "static/fss/another"), "static has other names"),
        (lambda sets: make_still_images(sets / "more"), None),
    ],
)
def test_why_a_finished_stage_is_trained_again(sets, change, said):
    (old, _) = plan()
    begin(old, done=True)
    change(sets)
    found = announced(plan()[:1])
    assert len(found) == (said is not None)
    if said:
        assert said in found[0] and "it is done, but" in found[0] and f": mv -T {old.folder} " in found[0]


def test_what_else_may_have_changed_is_told(sets, monkeypatch):
    old = plan(stage_settings={3: {"seed": 1}})
    for job in old:
        begin(job)
    monkeypatch.setattr("vosflow.training.planning.code_digest", lambda *modules, without=(): "edited")
    first, last = announced(plan(width=8, data={**dict.fromkeys(("static", "davis", "youtube"), "demo")}))
    assert "width is 8 and was 16; the training set static comes from another source" in first
    assert "; the code that trains has changed. That one goes on when its settings" in first
    assert "the stage before it is another one" in last and "seed is 14159265 and was 1" in last


def test_the_nearest_of_several_earlier_stages_is_named_and_those_of_others_are_not(sets):
    for settings, names in (({"seed": 1, "crop": 64}, None), ({"seed": 1}, None), ({}, ["other.stage0"])):
        (job, _) = plan(settings={**settings, "kl_weight": 3})
        begin(job, names=names)
    (said,) = announced(plan()[:1])
    assert "but kl_weight is 10.0 and was 3.0; seed is" in said and "crop" not in said


def test_stages_of_the_first_layout_are_told_of(sets):
    folder = Path("data/training/mine/stage0-01234567")
    folder.mkdir(parents=True)
    (folder / "work.pt").touch()
    (job, _) = plan()
    (said,) = announced([job])
    assert f"in {folder} it was begun, but an older vosflow made it" in said
    subprocess.run(said.partition("all the same: ")[2], shell=True, check=True)
    assert (Path(job.folder) / "work.pt").exists() and announced([job]) == []
