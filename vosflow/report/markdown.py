"""The summary of a study as Markdown, for READMEs: one table per dataset."""

from __future__ import annotations

from collections.abc import Sequence

from vosflow.report.tables import (
    NO_GROUND_TRUTH,
    TEXT_COLUMNS,
    UNITS,
    Row,
    best_score,
    by_dataset,
    common_notes,
    format_cell,
    heading,
    is_best,
    notes_of,
    said_once,
    shown_columns,
)


def markdown(rows: Sequence[Row]) -> str:
    """GitHub tables: percent with one decimal, the best score of each dataset in bold, notes by numbers."""
    notes: list[str] = []
    lines = []
    for dataset, chosen in by_dataset(rows).items():
        lines += [f"### {escaped(dataset)}", "", escaped(said_once(chosen)), "", *_table(chosen, notes), ""]
        lines += [f"All runs: {escaped(note)}  " for note in common_notes(chosen)]
        lines += [""] if common_notes(chosen) else []
    lines.append(f"{UNITS} Measured on: {'; '.join(dict.fromkeys(row['device'] for row in rows))}.")
    lines += [""] if notes else []
    lines += [f"- [{number}] {escaped(note)}" for number, note in enumerate(notes, 1)]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row], notes: list[str]) -> list[str]:
    """Lines of the table of one dataset; what only some of its runs carry is appended to `notes`."""
    columns = shown_columns(rows)
    best = best_score(rows, rows[0]["dataset"])
    told = common_notes(rows)
    lines = [
        "| " + " | ".join(heading(name).replace("|", "\\|") for name in columns) + " |",
        "|" + "|".join("---" if name in TEXT_COLUMNS else "--:" for name in columns) + "|",
    ]
    for row in rows:
        cells = {name: escaped(format_cell(name, row[name])) for name in columns}
        if row["headline"] == "":
            cells["J&F"] = NO_GROUND_TRUTH
        elif is_best(row, best):
            cells[row["headline"]] = f"**{cells[row['headline']]}**"
        own = [note for note in notes_of(row) if note not in told]
        notes += [note for note in own if note not in notes]
        cells["run"] += "".join(f" [{notes.index(note) + 1}]" for note in own)
        lines.append("| " + " | ".join(cells.values()) + " |")
    return lines


def escaped(text: str) -> str:
    """Text in which Markdown sees no marks of its own."""
    for character in "\\|*_`<>[]":
        text = text.replace(character, "\\" + character)
    return text.replace("\n", " ")
