"""The rules are clean for Snakemake's own linter and formatter, and the shipped studies can be planned."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.workflow

HOUSE = Path(__file__).resolve().parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=HOUSE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def test_lint_is_clean():
    answer = run("snakemake", "--lint")
    assert answer.returncode == 0 and "Congratulations" in answer.stdout, answer.stdout


def test_rules_are_formatted():
    answer = run("snakefmt", "--check", "Snakefile", "rules")
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("study", sorted((HOUSE / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_are_planned_for_a_cluster(study):
    answer = run("snakemake", "--profile", "slurm", "--configfile", str(study), "-n", "--quiet", "rules")
    assert answer.returncode == 0, answer.stdout
    assert re.search(r"^track_shard(_on_cpu)? +\d+$", answer.stdout, re.MULTILINE)


def test_fetch_all_fetches_what_the_study_needs_and_nothing_else(tmp_path):
    study = HOUSE / "studies" / "sam2_memory_ablation.yaml"
    answer = run(
        "snakemake", "fetch_all", "-n", "--configfile", str(study), "--directory", str(tmp_path), "--cores", "1"
    )
    assert answer.returncode == 0, answer.stdout
    fetched = re.findall(r"^    output: data/(?:downloads|checkpoints)/(\S+)\.fetched$", answer.stdout, re.MULTILINE)
    assert sorted(fetched) == [
        "DAVIS-2017-trainval-480p.zip",
        "MOSE-meta_valid.json",
        "MOSE-valid.tar.gz",
        "sam2_hiera_base_plus.pt",
        "sam2_hiera_large.pt",
    ]
