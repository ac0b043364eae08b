"""Say what a study would cost before anything runs: videos and frames to do and done, jobs, and estimated hours."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from rich.console import Console

from vosflow.config import read_config
from vosflow.errors import VosflowError, run_command
from vosflow.forecast import forecast_study
from vosflow.report.forecast import forecast_table, forecast_totals
from vosflow.slurm import limit_warnings, partition_limits
from vosflow.study import load_study
from vosflow.training.forecast import forecast_trainings

HOUSE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Parse arguments, look at what is there, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--configfile", default="config.yaml", help="the study, as for snakemake (default: config.yaml)"
    )
    parser.add_argument("--profile", default=HOUSE / "profiles/slurm", help="its partitions are compared with Slurm's")
    args = parser.parse_args()
    study = load_study(read_config(args.configfile), args.configfile)
    forecasts = forecast_study(study)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(forecast_table(forecasts))
    for line in forecast_totals(forecasts, study.config.execution):
        console.print(line, highlight=False)
    for line in forecast_trainings(study.trainings):
        console.print(line, highlight=False)
    try:
        limits = partition_limits()
    except VosflowError as error:
        console.print(f"warning: partitions are not compared: {error}", highlight=False)
        limits = {}
    for warning in limit_warnings(study, args.profile, limits):
        console.print(f"warning: {warning}", highlight=False)


if __name__ == "__main__":
    run_command(main)
