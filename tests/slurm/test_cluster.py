"""Studies on a real Slurm: where jobs run, on which devices, and that results are those of one machine."""

from __future__ import annotations

from tests.slurm.conftest import HERE, study_config
from tests.workflow.project import Project

RESULTS = ("masks/**/*.png", "scores.csv", "global_results.csv", "per_object_results.csv")


def demo_config() -> dict:
    """Trackers of the demo study: one without weights and one with."""
    runs = [{"tracker": "flow"}, {"tracker": "sam2", "checkpoint": "sam2_demo"}]
    return {**study_config(1), "runs": [{"dataset": "toy/val", **run} for run in runs]}


def results(project: Project) -> dict[str, bytes]:
    top = project.folder / "results/toy-val"
    paths = [path for pattern in RESULTS for path in sorted(top.glob(f"*/{pattern}"))]
    return {str(path.relative_to(top)): path.read_bytes() for path in paths}


def test_a_study_gives_the_same_bytes_on_a_cluster(study, tmp_path):
    study.write_config(demo_config())
    local = Project(study.copy(tmp_path / "local").folder)
    before = len(study.cluster.jobs())
    process = study.start()
    study.finish(process)
    jobs = study.cluster.jobs()[before:]
    assert {job["NodeList"] for job in jobs} <= {"node1", "node2"}  # both, unless one job ends before the next comes
    assert {job["Partition"] for job in jobs} == {"cpu"} and {job["JobState"] for job in jobs} == {"COMPLETED"}
    assert len(jobs) == 2 + 2 + 2 + 2  # shards, descriptions, scores, tables and page
    local.snakemake("score_all")
    assert results(study) == results(local) and len(results(study)) == 2 * (20 + 3)
    assert "Nothing to be done" in study.snakemake().stdout


def test_concurrent_gpu_jobs_have_devices_of_their_own(study):
    config = study_config(2)
    on_gpu = {"dataset": "toy/val", "tracker": "staged:StagedGpuTracker"}
    config["runs"] += [{**on_gpu, "name": "gpu", "settings": {"shift": [1, 2]}}]
    config["execution"]["device"] = "auto"
    study.write_config(config)
    study.path = (HERE / "pretend",)
    before = len(study.cluster.jobs())
    process = study.start("track_all")
    study.wait(process, lambda: len(study.cluster.jobs("RUNNING")) == 6, "all jobs run")
    study.wait(process, lambda: sum(study.times("started").values()) == 6, "all jobs are at work")
    study.release()
    study.finish(process)
    attempts = [attempt for video in study.times("started") for attempt in study.told(video, "started")]
    jobs = {job["JobId"]: job for job in study.cluster.jobs()[before:]}
    on_gpus = {a["SLURM_JOB_ID"]: a for a in attempts if jobs[a["SLURM_JOB_ID"]]["Partition"] == "gpu"}
    assert len(jobs) == 6 and len(on_gpus) == 4
    assert {jobs[job]["TresPerJob"] for job in on_gpus} == {"gres:gpu:1"}
    assert len({(a["SLURMD_NODENAME"], a["CUDA_VISIBLE_DEVICES"]) for a in on_gpus.values()}) == 4
    assert {a["SLURMD_NODENAME"] for a in on_gpus.values()} == {"node1", "node2"}
    assert all(a["CUDA_VISIBLE_DEVICES"] is None for a in attempts if a["SLURM_JOB_ID"] not in on_gpus)
    records = study.read_records("gpu@shift=2")
    assert {record["device"] for record in records.values()} == {"pretend GPU"} and len(records) == 4
