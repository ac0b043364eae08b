"""Watch a study while it runs, from any machine that sees its results: videos, speed, time left, failures and logs."""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from rich.console import Console
from rich.live import Live

from vosflow.config import read_config
from vosflow.errors import run_command
from vosflow.study import load_study
from vosflow.watch import StudyWatch


def main() -> None:
    """Parse arguments and show; on a terminal until all videos are tracked or Ctrl-C, else once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--configfile", default="config.yaml", help="the study, as for snakemake (default: config.yaml)"
    )
    parser.add_argument("--seconds", type=float, default=5, help="between two looks (default: 5, at least 0.5)")
    args = parser.parse_args()
    watch = StudyWatch(load_study(read_config(args.configfile), args.configfile))
    console = Console(width=None if sys.stdout.isatty() else 120)
    watch.look()
    if not console.is_terminal:
        console.print(watch.show(1000, console.width), highlight=False)
        return
    with Live(watch.show(console.height, console.width), console=console, auto_refresh=False) as live:
        while not watch.complete:
            time.sleep(max(args.seconds, 0.5))
            watch.look()
            live.update(watch.show(console.height, console.width), refresh=True)


if __name__ == "__main__":
    run_command(main)
