"""The rules are clean for Snakemake's own linter and formatter, and the shipped studies can be planned."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.workflow.prepared import HOUSE, run_snakemake


def test_lint_is_clean():
    answer = run_snakemake(["--lint"], HOUSE)
    assert answer.returncode == 0 and "Congratulations" in answer.stdout, answer.stdout


def test_rules_are_formatted():
    command = [sys.executable, "-m", "snakefmt", "--check", "Snakefile", "rules"]
    answer = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("study", sorted((HOUSE / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_are_planned_for_a_cluster(study):
    options = ["--profile", "slurm", "--configfile", str(study), "-n", "--quiet", "rules"]
    options += ["--forceall"]  # also what somebody has run in this checkout
    answer = run_snakemake(options, HOUSE)
    assert answer.returncode == 0, answer.stdout
    assert re.search(r"^track_shard(_on_cpu)? +\d+$", answer.stdout, re.MULTILINE)


def test_fetch_all_fetches_what_the_study_needs_and_nothing_else(tmp_path):
    study = HOUSE / "studies" / "sam2_memory_ablation.yaml"
    options = ["fetch_all", "-n", "--configfile", str(study), "--directory", str(tmp_path), "--cores", "1"]
    answer = run_snakemake(options, HOUSE)
    assert answer.returncode == 0, answer.stdout
    fetched = re.findall(r"^    output: data/(?:downloads|checkpoints)/(\S+)\.fetched$", answer.stdout, re.MULTILINE)
    assert sorted(fetched) == [
        "DAVIS-2017-trainval-480p.zip",
        "MOSE-meta_valid.json",
        "MOSE-valid.tar.gz",
        "sam2_hiera_base_plus.pt",
        "sam2_hiera_large.pt",
    ]
