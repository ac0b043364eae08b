"""The rerun matrix: what each kind of change announces in a dry run, and what it then recomputes."""

from __future__ import annotations

import copy
import shutil

import pytest

from tests.workflow.project import DEFAULT_CONFIG

TABLES = {"tables", "report"}
RUNS = "score_all"  # without tables and page, which are no matter of these tests: they say what is planned of them
BOTH_OF_MINE = {"mine@shift=0", "mine@shift=2"}


@pytest.fixture
def config():
    return copy.deepcopy(DEFAULT_CONFIG)


def recomputed(project, before) -> set[str]:
    return {video for video, when in project.computed().items() if before.get(video) != when}


def test_everything_is_there_and_nothing_to_do(project):
    results = project.folder / "results"
    for name in ("tables/summary.csv", "tables/summary.md", "report/index.html", "toy-val/flow/run.json"):
        assert (results / name).stat().st_size > 100
    header = (results / "toy-val/flow/global_results.csv").read_text().splitlines()[0]
    assert header == "J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay"
    assert len(project.computed()) == 16
    assert "Nothing to be done" in project.snakemake().stdout


def test_a_changed_setting_reruns_that_run_only(project, config):
    config["runs"][2]["settings"]["gain"] = 2.0
    project.write_config(config)
    assert project.planned() == BOTH_OF_MINE | TABLES
    before = project.computed()
    project.snakemake(RUNS)
    assert recomputed(project, before) == {f"{run}/{video}" for run in BOTH_OF_MINE for video in "abcd"}


def test_an_added_value_runs_that_value_only(project, config):
    config["runs"][2]["settings"]["shift"].append(5)
    project.write_config(config)
    assert project.planned() == {"mine@shift=5"} | TABLES
    before = project.computed()
    project.snakemake()
    assert recomputed(project, before) == {f"mine@shift=5/{video}" for video in "abcd"}
    assert "shift=5" in (project.folder / "results/tables/summary.csv").read_text()


def test_reordered_keys_and_number_types_change_nothing(project, config):
    config["runs"] = [dict(reversed(run.items())) for run in config["runs"]]
    config["runs"][2]["settings"] = {"gain": 1, "shift": [0, 2]}
    project.write_config(dict(reversed(config.items())))
    assert project.planned() == set()


def edit(project, module: str, old: str, new: str) -> None:
    path = project.folder / module
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_comment_changes_nothing(project):
    for module in ("vosflow/trackers/flow.py", "vosflow/masks.py", "vosflow/evaluation/measures.py", "my_helper.py"):
        edit(project, module, "\n\n", "\n# A remark.\n\n")
    assert project.planned() == set()


def test_logic_of_one_trackers_module_reruns_that_tracker_only(project):
    edit(project, "my_helper.py", "np.roll(mask, pixels, axis=1)", "np.roll(mask, -pixels, axis=1)")
    assert project.planned() == BOTH_OF_MINE | TABLES
    before, masks = project.computed(), project.mask_bytes("mine@shift=2")
    project.snakemake(RUNS)
    assert recomputed(project, before) == {f"{run}/{video}" for run in BOTH_OF_MINE for video in "abcd"}
    assert project.mask_bytes("mine@shift=2") != masks


def test_logic_of_the_scores_rescores_and_tracks_nothing(project):
    edit(project, "vosflow/evaluation/measures.py", "\n\n\ndef ", "\n\nEDITED = True\n\n\ndef ")
    before = project.computed()
    assert project.planned() >= {"static", "flow"} | BOTH_OF_MINE | TABLES
    text = project.snakemake(RUNS).stdout
    assert "rule track_shard" not in text and recomputed(project, before) == set()


def test_another_number_of_shards_recomputes_no_video(project, config):
    config["execution"]["shards"] = 3
    project.write_config(config)
    before = project.computed()
    text = project.snakemake(RUNS).stdout
    assert text.count("rule track_shard_on_cpu:") == 12 and recomputed(project, before) == set()


def test_a_deleted_label_map_recomputes_that_video_only(project):
    victim = project.folder / "results/toy-val/flow/masks/c/00002.png"
    content = victim.read_bytes()
    victim.unlink()
    before = project.computed()
    text = project.snakemake(RUNS).stdout
    assert "masks of c are gone" in text
    assert recomputed(project, before) == {"flow/c"}
    assert victim.read_bytes() == content
    assert "Nothing to be done" in project.snakemake(RUNS).stdout


def test_an_added_frame_recomputes_that_video_only(project):
    frames = project.folder / "videos/JPEGImages/480p/b"
    masks = project.folder / "videos/Annotations/480p/b"
    (frames / "00006.jpg").write_bytes((frames / "00005.jpg").read_bytes())
    (masks / "00006.png").write_bytes((masks / "00005.png").read_bytes())
    before = project.computed()
    project.snakemake(RUNS)
    assert recomputed(project, before) == {f"{run}/b" for run in ("static", "flow", *BOTH_OF_MINE)}


def test_overwritten_ground_truth_rescores_and_tracks_nothing(project):
    mask = project.folder / "videos/Annotations/480p/b/00003.png"
    mask.write_bytes((project.folder / "videos/Annotations/480p/b/00001.png").read_bytes())
    before, scores = project.computed(), (project.folder / "results/toy-val/flow/scores.csv").read_text()
    project.snakemake(RUNS)
    assert recomputed(project, before) == set()
    assert (project.folder / "results/toy-val/flow/scores.csv").read_text() != scores


@pytest.mark.parametrize("name", ["scores.csv", "per_object_results.csv", "run.json", "shards"])
def test_a_deleted_result_is_made_again(project, name):
    path = project.folder / "results/toy-val/flow" / name
    before = project.computed()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    project.snakemake(RUNS)
    assert path.exists() and recomputed(project, before) == set()


def test_a_deleted_run_is_made_again(project):
    masks = project.mask_bytes("flow")
    shutil.rmtree(project.folder / "results/toy-val/flow")
    before = project.computed()
    project.snakemake(RUNS)
    assert recomputed(project, before) == {f"flow/{video}" for video in "abcd"}
    assert project.mask_bytes("flow") == masks


def test_what_is_stale_is_seen_without_snakemakes_own_memory(project, config):
    """Results that were copied to another machine, or a deleted .snakemake."""
    shutil.rmtree(project.folder / ".snakemake")
    (project.folder / "results/toy-val/static/masks/c/00001.png").unlink()
    config["runs"][1]["settings"] = {"preset": "fast"}
    project.write_config(config)
    before = project.computed()
    text = project.snakemake(RUNS).stdout
    assert "flow holds 4 videos of other settings" in text
    assert recomputed(project, before) == {"static/c"} | {f"flow/{video}" for video in "abcd"}
    assert '"preset": "fast"' in (project.folder / "results/toy-val/flow/run.json").read_text()


def test_two_studies_in_turn_never_keep_masks_of_each_other(project, config):
    config["runs"] = config["runs"][2:]
    other = copy.deepcopy(config)
    other["runs"][0]["settings"] = {"gain": 2.0, "shift": [2, 3]}
    other["execution"]["shards"] = 1
    expected = project.mask_bytes("mine@shift=2")
    for study in (other, config, other, config):
        project.write_config(study)
        project.snakemake(RUNS)
        run = (project.folder / "results/toy-val/mine@shift=2/run.json").read_text()
        assert f'"gain": {study["runs"][0]["settings"]["gain"]}' in run
    assert project.mask_bytes("mine@shift=2") == expected


def test_a_removed_run_needs_only_new_tables(project, config):
    del config["runs"][2]
    project.write_config(config)
    assert project.planned() == TABLES
    project.snakemake()
    assert "mine" not in (project.folder / "results/tables/summary.csv").read_text()
