"""The scripts, run as their users run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def run_script(name: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """`python scripts/{name}` with these arguments; `options` are those of `subprocess.run`."""
    command = [sys.executable, str(SCRIPTS / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)
