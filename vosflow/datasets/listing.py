"""What the catalog knows, as a table: what it is, who may have it, how large, how it is checked, whether it is here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vosflow.catalog import RemoteFile, load_checkpoints, load_datasets
from vosflow.datasets.transfer import part_path

HOUSE = Path(__file__).resolve().parents[2]
WIDTH = 180  # columns where the output is no terminal, so that nothing is cut off


@dataclass(frozen=True)
class Row:
    """One file of the catalog. `place` is where it is or would be, `here` yes, no, unfinished or imported."""

    kind: str
    id: str
    access: str
    licence: str
    megabytes: str
    checked_by: str
    place: Path
    here: str


def catalog_rows(data: str | Path, word: str = "") -> list[Row]:
    """All files of the catalog in whose row `word` stands (upper and lower case alike), datasets first.

    Not in how they are checked: "rde" stands in "recorded".
    """
    data = Path(data)
    rows = []
    for name, dataset in load_datasets().items():
        access, licence = dataset.access.replace("_", " "), dataset.licence
        if not dataset.archives:
            place = data / "datasets" / name
            rows.append(Row("dataset", name, access, licence, "", "", place, "yes" if place.is_dir() else "no"))
        for archive, entry in dataset.archives.items():
            place = data / "downloads" / entry.file
            here = "imported" if _is_imported(data / "datasets" / name / archive) else _here(place)
            rows.append(Row("dataset", f"{name} {archive}", access, licence, *_facts(entry), place, here))
    for name, entry in load_checkpoints().items():
        place = HOUSE / entry.path if entry.path else data / "checkpoints" / entry.file
        access = "in vosflow" if entry.path else "open"
        rows.append(Row(entry.network, name, access, entry.licence, *_facts(entry), place, _here(place)))
    return [row for row in rows if word.lower() in _searched(row).lower()]


def _searched(row: Row) -> str:
    return " ".join([row.kind, row.id, row.access, row.licence, str(row.place), row.here])


def print_catalog(data: str | Path, word: str = "") -> None:
    """Print `catalog_rows` as a table to stdout; with `word`, also what should be known of these."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, options in (
        ("for", {"no_wrap": True}),
        ("id", {"no_wrap": True}),
        ("access", {"no_wrap": True}),
        ("licence", {"overflow": "fold", "max_width": 28}),
        ("MB", {"justify": "right", "no_wrap": True}),
        ("checked by", {"overflow": "fold", "max_width": 30}),
        ("place", {"overflow": "fold"}),
        ("here", {"no_wrap": True}),
    ):
        table.add_column(heading, **options)
    rows = catalog_rows(data, word)
    before = ""
    for row in rows:
        dataset = row.id.partition(" ")[0]
        terms = ("", "") if dataset == before else (row.access, row.licence)  # once for each dataset
        before = dataset
        table.add_row(row.kind, row.id, *terms, row.megabytes, row.checked_by, _short(row.place), row.here)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(table)
    shown = {row.id.partition(" ")[0] for row in rows}
    for name, dataset in load_datasets().items():
        if dataset.register_at and name in shown:
            console.print(f"{dataset.name}: {dataset.terms or 'register'} ({dataset.register_at})", soft_wrap=True)
    for line in _notes({row.id for row in rows}) if word else ():
        console.print(line, soft_wrap=True)
    held = sum(row.here in ("yes", "imported") for row in rows)
    console.print(f"{len(rows)} files, {held} here. Terms and sources: vosflow/catalog/*.yaml")


def _notes(ids: set[str]) -> Iterator[str]:
    """What the catalog notes on these rows, one line each."""
    for name, dataset in load_datasets().items():
        files = {f"{name} {archive}": entry for archive, entry in dataset.archives.items()}
        if ids & {name, *files}:
            yield from (f"{name}: {note}" for note in dataset.notes)
        yield from (f"{id}: {quirk}" for id, entry in files.items() if id in ids for quirk in entry.quirks)
    yield from (f"{id}: {quirk}" for id, entry in load_checkpoints().items() if id in ids for quirk in entry.quirks)


def checked_by(entry: RemoteFile) -> str:
    """What a download is compared with, in words."""
    if entry.hashed_by:
        return f"{', '.join(entry.hashed_by)} ({entry.evidence.replace('_', ' ')})"
    if entry.sha256_prefix:
        return f"first digits of sha256 ({entry.evidence}), then the first download"
    return "the first download"


def _facts(entry: RemoteFile) -> tuple[str, str]:
    size = f"{entry.size_bytes / 1e6:,.0f}" if entry.size_bytes else "?"
    return f"~{entry.about_mb:,.0f}" if size == "?" and entry.about_mb else size, checked_by(entry)


def _here(place: Path) -> str:
    if place.is_symlink():
        return "imported" if place.exists() else "imported, but gone"
    if place.is_file():
        return "yes"
    unfinished = part_path(place).exists() or any(place.parent.glob(f"{place.name}.*.gdrive"))
    return "unfinished" if unfinished else "no"


def _is_imported(extracted: Path) -> bool:
    return extracted.is_symlink() or (extracted.is_dir() and any(path.is_symlink() for path in extracted.iterdir()))


def _short(place: Path) -> str:
    return (
        str(place.relative_to(Path.cwd())) if place.is_absolute() and place.is_relative_to(Path.cwd()) else str(place)
    )
