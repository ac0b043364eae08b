"""Print the summary of a study as a table, and where its page is."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import VosflowError, run_command
from vosflow.report.terminal import print_summary


def main() -> None:
    """Parse arguments and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--summary", required=True, help="summary.csv that scripts/summarize.py wrote")
    parser.add_argument("--page", required=True, help="index.html that scripts/write_report.py wrote")
    args = parser.parse_args()
    page = Path(args.page).resolve()
    if not page.is_file():
        raise VosflowError(
            "the page is missing",
            path=args.page,
            expected="index.html, written by scripts/write_report.py",
            remedy="run snakemake again",
        )
    print_summary(args.summary)
    print(f"\nThe page, to open in a browser:\n{page}")


if __name__ == "__main__":
    run_command(main)
