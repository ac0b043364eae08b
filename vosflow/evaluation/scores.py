"""The score files of a run: one tidy table of all values, and the two tables made from it.

    scores.csv               video,object,frame,J,F,...        in the manifest's video order, then object, then frame
    global_results.csv       J&F-Mean,J-Mean,...               one row; which columns, the protocol says
    per_object_results.csv   Sequence,J-Mean,F-Mean,...        Sequence is {video}_{object}

Values are fractions, written with full precision: reading them back gives the same floats. Each file appears whole or
not at all. Nothing here is a cache: an evaluation never reads what an earlier one wrote.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vosflow.errors import VosflowError

if TYPE_CHECKING:
    from vosflow.evaluation.statistics import Summary

SCORES_FILE = "scores.csv"
GLOBAL_FILE = "global_results.csv"
PER_OBJECT_FILE = "per_object_results.csv"
GLOBAL_COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
SCORE_COLUMNS = ("video", "object", "frame", "J", "F")
PER_OBJECT_COLUMNS = ("Sequence", "J-Mean", "F-Mean")


class Score(NamedTuple):
    """J and F (fractions) of one object on one frame, and what the protocol adds: one row of scores.csv."""

    video: str
    object: int
    frame: str
    J: float
    F: float
    extra: tuple[float, ...] = ()


def write_results(folder: str | Path, scores: Iterable[Score], summary: Summary, extra: Sequence[str] = ()) -> None:
    """Write the three files into `folder`, which is made if need be; `extra` names the values of `Score.extra`."""
    folder = Path(folder)
    _write(folder / SCORES_FILE, (*SCORE_COLUMNS, *extra), ((*score[:5], *score.extra) for score in scores))
    _write(folder / PER_OBJECT_FILE, (*PER_OBJECT_COLUMNS, *summary.object_columns), _per_object_rows(summary))
    _write(folder / GLOBAL_FILE, tuple(summary.totals), [list(summary.totals.values())])


def read_scores(path: str | Path) -> list[Score]:
    """The rows of a scores.csv; raises VosflowError naming the file if it is missing or not one."""
    try:
        return [
            Score(video, int(object_id), frame, float(J), float(F), tuple(float(value) for value in extra))
            for video, object_id, frame, J, F, *extra in _read(path, SCORE_COLUMNS)[1]
        ]
    except ValueError as error:
        raise _not_a_table(path, SCORE_COLUMNS, str(error)) from error


def read_global_results(path: str | Path) -> dict[str, float]:
    """The one row of a global_results.csv, {column: fraction}; raises VosflowError as `read_scores` does."""
    try:
        columns, (values,) = _read(path, ())
        return {name: float(value) for name, value in zip(columns, values, strict=True)}
    except ValueError as error:
        raise _not_a_table(path, GLOBAL_COLUMNS, str(error)) from error


def read_per_object_results(path: str | Path) -> dict[str, tuple[float, float]]:
    """{"{video}_{object}": (J-Mean, F-Mean)} of a per_object_results.csv; raises VosflowError as `read_scores` does."""
    try:
        return {name: (float(J), float(F)) for name, J, F, *_ in _read(path, PER_OBJECT_COLUMNS)[1]}
    except ValueError as error:
        raise _not_a_table(path, PER_OBJECT_COLUMNS, str(error)) from error


def _per_object_rows(summary: Summary) -> Iterable[Sequence[object]]:
    return ((f"{o.video}_{o.object}", o.J.mean, o.F.mean, *o.extra) for o in summary.objects)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")  # writes floats with repr: full precision
            writer.writerow(columns)
            writer.writerows(rows)
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise VosflowError(
            f"the scores cannot be written ({error})",
            path=path,
            expected="a writable folder and room on the disk",
            remedy="check permissions and free space, or choose another output folder",
        ) from error


def _read(path: str | Path, columns: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file whose header begins with `columns`."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError) as error:
        raise _not_a_table(path, columns, str(error)) from error
    if not header or tuple(header[: len(columns)]) != tuple(columns):
        raise _not_a_table(path, columns, f"its header is {','.join(header)!r}")
    return header, rows


def _not_a_table(path: str | Path, columns: Sequence[str], why: str) -> VosflowError:
    return VosflowError(
        f"not a readable table of scores ({why})",
        path=path,
        expected=f"a CSV file with the columns {','.join(columns)}",
        remedy="delete the file and evaluate again (scripts/evaluate.py)",
    )
