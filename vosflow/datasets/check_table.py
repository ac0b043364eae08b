"""What a check of a dataset found, as tables for people."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from vosflow.catalog import find_dataset, find_split
from vosflow.config import parse_config
from vosflow.datasets.check import ODD, WRONG, Finding, SplitCheck
from vosflow.errors import VosflowError
from vosflow.sources import dataset_source

SHOWN = 20  # findings of each kind


def splits_of(name: str) -> list[tuple[str, str]]:
    """The splits that `name` means, "dataset/split" or "dataset"; raises VosflowError if there is none."""
    dataset, slash, split = name.partition("/")
    if slash:
        find_split(dataset, split)
        return [(dataset, split)]
    found = [(dataset, split) for split in find_dataset(dataset).splits]
    if not found:
        raise VosflowError(
            f"{dataset} has no splits to check",
            expected="a dataset whose videos are read here",
            remedy="python scripts/fetch.py --list shows what there is",
        )
    return found


def where_is(
    dataset: str, split: str, data: str, root: Path | None, lists: list[list[str]]
) -> tuple[str, dict[str, str]]:
    """The folder that the split's adapter reads, and its lists that are there; `lists` are the user's [role, file]."""
    paths = {"data": data, "datasets": {dataset: str(root)} if root else {}}
    config = parse_config({"runs": [{"dataset": f"{dataset}/{split}", "tracker": "static"}], "paths": paths})
    source = dataset_source(config, f"{dataset}/{split}")
    found = {role: file for role, file in source.lists.items() if Path(file).is_file()}
    return source.root, {**found, **dict(lists)}


def print_check(console: Console, title: str, check: SplitCheck, *, everything: bool = False) -> None:
    """Print the counts and the findings; of each kind the first twenty, or `everything`."""
    console.print(title, style="bold", highlight=False)
    counts = Table()
    for column in ("", "found", "published"):
        counts.add_column(column, justify="left" if not column else "right")
    for count in check.counts:
        expected = "unknown" if count.expected is None else str(count.expected)
        counts.add_row(count.what, str(count.found), expected, style="red" if count.differs else None)
    console.print(counts)
    for kind, style in ((WRONG, "red"), (ODD, "yellow")):
        found = [finding for finding in check.findings if finding.kind == kind]
        if found:
            console.print(_findings(kind, style, found if everything else found[:SHOWN]))
            if len(found) > SHOWN and not everything:
                console.print(f"... and {len(found) - SHOWN} more {kind} things: --all shows them")
    console.print("sound" if check.sound else "not as published", style="green" if check.sound else "red")


def _findings(kind: str, style: str, findings: list[Finding]) -> Table:
    table = Table(border_style=style)
    for column in ("video", kind, "file"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(finding.video, finding.text, finding.path)
    return table
