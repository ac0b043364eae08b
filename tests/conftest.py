"""What all tests share: their order, that they are the same each time, and that processes can be interrupted."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples each time, however slow the machine: `pytest --hypothesis-profile=default` looks for others.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")

HERE = Path(__file__).resolve().parent
NEEDED_BYTES = 10**9  # of folders of tests, at most; those of passed tests are deleted at once
LONGEST = ("slurm/test_faults.py", "workflow/test_reruns.py", "workflow", "slurm")


def pytest_configure() -> None:
    """Tests send Ctrl-C. Shells make what they start in the background ignore it, and so would all that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart(session) -> None:
    """A disk that fills would fail hundreds of tests, each with a message of its own."""
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        pytest.exit(
            f"{folder} has {free / 1e9:.1f} GB free, and all tests together need up to {NEEDED_BYTES / 1e9:.0f} GB: "
            "free some there, or set TMPDIR to a folder on another disk",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Torch's global generator begins anew in each test, whichever tests ran before in this process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_collection_modifyitems(items) -> None:
    """Files that take longest come first, so that none is left running alone in the end.

    For `pytest-xdist --dist loadfile --no-loadscope-reorder`, which begins files in this order.
    """
    items.sort(key=lambda item: _rank(item.path))


def _rank(path: Path) -> int:
    places = (rank for rank, name in enumerate(LONGEST) if (HERE / name) in (path, *path.parents))
    return next(places, len(LONGEST))
