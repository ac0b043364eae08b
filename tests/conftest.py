"""What all tests share: their order, that they are the same each time, and that processes can be interrupted."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples each time, however slow the machine: `pytest --hypothesis-profile=default` looks for others.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")

HERE = Path(__file__).resolve().parent
LONGEST = ("slurm/test_faults.py", "workflow/test_reruns.py", "workflow", "slurm")


def pytest_configure() -> None:
    """Tests send Ctrl-C. Shells make what they start in the background ignore it, and so would all that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
