"""One finished study per test module; each test works on its own copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.project import Project

HERE = Path(__file__).resolve().parent
VIDEOS = {"a": 5, "b": 6, "c": 5, "d": 4}


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.workflow)


@pytest.fixture(scope="module")
def finished_project(tmp_path_factory) -> Project:
    """A project whose default study has run to the end."""
    project = Project.make(tmp_path_factory.mktemp("study") / "project", VIDEOS)
    project.snakemake()
    return project


@pytest.fixture
def project(finished_project, tmp_path) -> Project:
    """A copy of the finished project."""
    return finished_project.copy(tmp_path / "project")
