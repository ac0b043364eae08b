"""What all tests share: the order of their files, and that processes can be interrupted."""

from __future__ import annotations

import signal
from pathlib import Path

HERE = Path(__file__).resolve().parent
LONGEST = ("slurm/test_faults.py", "workflow/test_reruns.py", "workflow", "slurm")


def pytest_configure() -> None:
    """Tests send Ctrl-C. Shells make what they start in the background ignore it, and so would all that tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items) -> None:
    """Files that take longest come first, so that none is left running alone in the end.

    For `pytest-xdist --dist loadfile --no-loadscope-reorder`, which begins files in this order.
    """
    items.sort(key=lambda item: _rank(item.path))


def _rank(path: Path) -> int:
    places = (rank for rank, name in enumerate(LONGEST) if (HERE / name) in (path, *path.parents))
    return next(places, len(LONGEST))
