"""Write the page of a study: table, plots, every video, filmstrips. The job behind the rule `write_report`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that the script runs from a plain checkout

from vosflow.errors import run_command
from vosflow.options import at_least
from vosflow.report.page import write_page
from vosflow.report.results import load_runs
from vosflow.report.training import load_stages


def main() -> None:
    """Parse arguments and write index.html."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", required=True, nargs="+", metavar="RUN.JSON", help="run.json of each run, in order")
    parser.add_argument("--summary", required=True, help="summary.csv that scripts/summarize.py wrote for these runs")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where index.html goes")
    parser.add_argument("--title", default="vosflow", help="headline of the page (default: %(default)s)")
    parser.add_argument(
        "--filmstrips",
        type=at_least(0),
        default=2,
        metavar="N",
        help="best and worst videos shown per dataset, this many of each; 0: none (default: %(default)s)",
    )
    parser.add_argument("--training", nargs="*", default=[], metavar="ID=CURVES.CSV", help="of each trained stage")
    args = parser.parse_args()
    stages = load_stages([item.partition("=")[::2] for item in args.training])
    shown = {"title": args.title, "filmstrips": args.filmstrips, "stages": stages}
    page = write_page(load_runs(args.runs), args.summary, args.output, **shown)
    print(f"wrote {page} ({page.stat().st_size / 2**20:.1f} MiB)")


if __name__ == "__main__":
    run_command(main)
