"""One cluster per test module, and studies on it that do as the test says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import PATIENCE, Cluster, wait_until, why_not
from tests.workflow.project import DEFAULT_CONFIG, Project

HERE = Path(__file__).resolve().parent
RUN = "held"


def pytest_collection_modifyitems(items) -> None:
    reason = why_not()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


class Study(Project):
    """A study on a cluster whose videos wait for the test; see staged.py."""

    cluster: Cluster
    path = ()

    @property
    def stage(self) -> Path:
        return self.folder / "stage"

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(self.folder), *map(str, self.path)])
        return {**super().environment, **self.cluster.environment, "PYTHONPATH": path, "STAGE": str(self.stage)}

    @property
    def log(self) -> str:
        """What Snakemake has printed so far, in all its lives."""
        return (self.folder / "snakemake.log").read_text()

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start `snakemake --profile slurm` and let it run."""
        command = [sys.executable, str(HERE / "impatient.py"), "--profile", "slurm", *arguments]
        with open(self.folder / "snakemake.log", "ab") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self.processes.append(process)
        return process

    def finish(self, process: subprocess.Popen) -> None:
        """Wait for the end of Snakemake, which must be a good one."""
        assert process.wait(PATIENCE) == 0, self.log

    def wait(self, process: subprocess.Popen, condition, what: str) -> None:
        """Wait for something while Snakemake runs."""
        try:
            wait_until(lambda: condition() or process.poll() is not None, what)
            assert condition(), f"Snakemake ended before {what}"
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def told(self, video: str, event: str) -> list[dict[str, str]]:
        """Where each attempt at a video was started or finished."""
        path = self.stage / f"{video}.{event}"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def times(self, event: str) -> dict[str, int]:
        """How often each video was started or finished."""
        return {path.stem: len(self.told(path.stem, event)) for path in sorted(self.stage.glob(f"*.{event}"))}

    def release(self, *videos: str) -> None:
        """Let these videos go on; all, if none is named."""
        for video in videos:
            (self.stage / f"{video}.go").touch()
        if not videos:
            (self.stage / "hold").unlink()

    def read_records(self, run: str = RUN) -> dict[str, dict]:
        """Records of finished videos."""
        paths = sorted((self.folder / f"results/toy-val/{run}/videos").glob("*.json"))
        records = {path.stem: json.loads(path.read_text()) for path in paths}
        return {video: record for video, record in records.items() if "key" in record}


def study_config(shards: int) -> dict:
    """One run whose videos wait."""
    return {
        **DEFAULT_CONFIG,
        "runs": [{"name": RUN, "dataset": "toy/val", "tracker": "staged:StagedTracker"}],
        "execution": {"device": "cpu", "shards": shards, "evaluation_workers": 1},
    }


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Project:
    """A project whose manifest is written already."""
    project = Project.make(tmp_path_factory.mktemp("slurm") / "project", {"a": 5, "b": 6, "c": 5, "d": 4})
    shutil.copy(HERE / "staged.py", project.folder)
    project.write_config(study_config(1))
    (project.folder / "stage").mkdir()
    (project.folder / "stage/hold").touch()
    project.snakemake("results/toy-val/manifest.json")
    return project


@pytest.fixture
def study(cluster, prepared, tmp_path):
    """A study in a folder of its own; whatever the test leaves running is ended."""
    study = Study(prepared.copy(tmp_path / "study").folder)
    study.cluster, study.processes = cluster, []
    yield study
    for process in study.processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    cluster.clear()
