"""Write the summary of a study: one row per run, as CSV and Markdown. The job behind the rule `summarize`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import run_command
from vosflow.records import write_text
from vosflow.report.markdown import markdown
from vosflow.report.results import load_runs
from vosflow.report.tables import summary_rows, write_summary


def main() -> None:
    """Parse arguments and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", required=True, nargs="+", metavar="RUN.JSON", help="run.json of each run, in order")
    parser.add_argument("--csv", required=True, help="table for programs: full precision, scores as fractions")
    parser.add_argument("--md", required=True, help="table for readers: percent with one decimal")
    args = parser.parse_args()
    rows = summary_rows(load_runs(args.runs))
    write_summary(rows, args.csv)
    write_text(args.md, markdown(rows))


if __name__ == "__main__":
    run_command(main)
