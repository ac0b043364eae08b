"""What a result came from: versions of the code and of the libraries, and the machine."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import vosflow
from vosflow.digest import file_digest

PACKAGES = ("torch", "torchvision", "sam2", "segment-anything-hq", "numpy", "opencv-python-headless", "pillow")
_HOUSE = Path(vosflow.__file__).resolve().parents[1]


@functools.lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Versions of vosflow, Python and the packages that shape pixels; what is not installed is left out."""
    found = {"vosflow": vosflow.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.lru_cache(maxsize=1)
def git_commit() -> str | None:
    """Commit of the checkout, with "+changes" if tracked files differ from it; None outside a checkout."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(_HOUSE), "describe", "--always", "--abbrev=12", "--dirty=+changes", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


@functools.lru_cache(maxsize=1)
def lock_digest() -> str:
    """sha256 of the locked environment, which names every package version with its hashes."""
    return file_digest(_HOUSE / "envs" / "requirements.txt")
