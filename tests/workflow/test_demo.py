"""The embedded study as a newcomer runs it: config.yaml, from nothing to the page, with the committed weights."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from vosflow.catalog import find_checkpoint
from vosflow.digest import file_digest

HOUSE = Path(__file__).resolve().parents[2]


def snakemake(folder: Path) -> str:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", str(HOUSE / "config.yaml")]
    answer = subprocess.run(
        [*command, "--snakefile", str(HOUSE / "Snakefile"), "--directory", str(folder)],
        cwd=HOUSE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    snakemake(folder)
    return folder


@pytest.fixture(scope="module")
def table(demo) -> dict[str, dict[str, str]]:
    with open(demo / "results/tables/summary.csv", newline="", encoding="utf-8") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def score(table, run: str) -> float:
    return float(table[run]["J&F"])


def test_the_committed_weights_are_those_of_the_catalog():
    entry = find_checkpoint("sam2_demo")
    path = HOUSE / entry.path
    assert entry.sha256 == file_digest(path)
    assert path.stat().st_size <= 4_000_000


def test_sam2_beats_the_baselines_by_a_clear_margin(table):
    best_baseline = max(score(table, "static"), score(table, "flow"))
    assert score(table, "sam2_demo@num_maskmem=7") > best_baseline + 0.10


def test_fewer_memories_cost_accuracy(table):
    assert score(table, "sam2_demo@num_maskmem=7") > score(table, "sam2_demo@num_maskmem=1") + 0.05


def test_the_page_stands_alone(demo):
    page = (demo / "results/report/index.html").read_text()
    assert page.count("<svg") >= 3 and page.count("data:image/") >= 20
    assert "sam2_demo@num_maskmem=7" in page and find_checkpoint("sam2_demo").sha256 in page
    assert "<script src" not in page and "<link" not in page


def test_a_second_run_has_nothing_to_do(demo):
    assert "Nothing to be done" in snakemake(demo)
