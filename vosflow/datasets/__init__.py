"""Datasets: one adapter per publisher's format, each of which writes the same manifest; fetching; extraction.

Importing this package is cheap: an adapter (and with it NumPy and Pillow) is imported when it is asked for.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vosflow.catalog import FolderDataset, Split, find_split
from vosflow.digest import file_digest
from vosflow.errors import VosflowError
from vosflow.manifest import ImageFolder, Manifest, Prompt

if TYPE_CHECKING:
    from vosflow.datasets.videos import Plan

SHOWN = 20  # notes on single videos in a manifest


def build_manifest(
    dataset: str, split: str, root: str | Path, *, lists: Mapping[str, str | Path] | None = None, workers: int = 1
) -> Manifest:
    """The manifest of a dataset split of the catalog.

    Args:
        dataset, split: as in the catalog.
        root: the folder that its adapter reads, for instance the `DAVIS` folder of the DAVIS 2017 archive.
        lists: files that the publisher ships apart from the archives, by role (`vosflow.catalog.Split.lists`).
        workers: processes that read the files, where there are many.

    Counts that differ from the catalog's, and what else a reader must know, become notes of the manifest, also told
    on stderr.

    Raises:
        VosflowError: unknown dataset or split, or files that are missing, damaged or contradict each other.
    """
    facts = find_split(dataset, split)
    plan = plan_split(dataset, split, root, lists=lists)
    from vosflow.datasets.videos import read_videos

    read = read_videos(Path(root), plan.videos, workers)
    manifest = Manifest(
        dataset=dataset,
        split=split,
        root=str(root),
        videos=tuple(entry for entry, _ in read),
        layout=facts.layout,
        late_objects=facts.late_objects,
        protocol=facts.protocol,
        binary_ground_truth=plan.binary_ground_truth,
        annotations=plan.annotations,
        agreement_with=facts.agreement_with,
        notes=(*facts.notes, *plan.notes, *_some(note for _, notes in read for note in notes)),
    )
    manifest = replace(manifest, notes=(*manifest.notes, *count_notes(manifest, facts)))
    for note in manifest.notes:
        print(f"note on {dataset}/{split}: {note}", file=sys.stderr)
    return manifest


def plan_split(dataset: str, split: str, root: str | Path, *, lists: Mapping[str, str | Path] | None = None) -> Plan:
    """Which files belong to a split of the catalog, as its adapter finds them; arguments as of `build_manifest`."""
    facts = find_split(dataset, split)
    if not Path(root).is_dir():
        gone = f": it was imported from {os.readlink(root)}, which is not there" if Path(root).is_symlink() else ""
        raise VosflowError(
            f"the folder of the dataset is missing{gone}",
            path=root,
            expected=f"the extracted files of {dataset}/{split}",
            remedy="mount or restore it, and import it anew if it is elsewhere now"
            if gone
            else "fetch and extract its archives (scripts/fetch.py, scripts/extract_archive.py), or correct the path",
        )
    adapter = importlib.import_module(f"vosflow.datasets.{facts.adapter}")
    return adapter.plan(Path(root), split, facts, {role: Path(file) for role, file in (lists or {}).items()})


def _some(notes: Iterable[str]) -> tuple[str, ...]:
    """A few notes on single videos, and how many more there are."""
    notes = tuple(notes)
    return notes if len(notes) <= SHOWN else (*notes[:SHOWN], f"and {len(notes) - SHOWN} more of this kind")


def build_folder_manifest(dataset: str, split: str, description: FolderDataset) -> Manifest:
    """The manifest of a dataset that a user describes in the config (see `vosflow.datasets.folder`)."""
    from vosflow.datasets.folder import folder_manifest

    return folder_manifest(dataset=dataset, split=split, **description.model_dump())


def folder_description(text: str) -> FolderDataset:
    """The description of a user's dataset, from JSON; raises VosflowError for unknown keys or wrong values."""
    try:
        return FolderDataset.model_validate_json(text)
    except ValidationError as error:
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")  # a wrong key explains most
        place = ".".join(str(part) for part in first["loc"])
        raise VosflowError(
            f"the description of the dataset is wrong: {place + ': ' if place else ''}{first['msg']}",
            expected=f"a JSON object with some of {', '.join(FolderDataset.model_fields)}",
            remedy="correct it in the config",
        ) from error


def count_notes(manifest: Manifest, facts: Split) -> tuple[str, ...]:
    """One sentence per count (videos, frames, objects) that differs from what the catalog says."""
    counted = {
        "videos": len(manifest.videos),
        "frames": sum(len(video.frames.names) for video in manifest.videos),
        "objects": sum(len(video.objects) for video in manifest.videos),
    }
    return tuple(
        f"{counted[name]} {name} found, {known} expected from the catalog: the dataset may be incomplete or changed"
        for name in counted
        if (known := getattr(facts, name)) is not None and known != counted[name]
    )


def content_digest(root: str | Path, frames: ImageFolder, prompts: Iterable[Prompt]) -> str:
    """Fingerprint of a video's input files, hexadecimal sha256: names and content of the frames and of the prompts.

    It does not cover time stamps or the place of the files: the same archive, extracted again elsewhere, has the same
    digest.
    """
    digest = hashlib.sha256()
    for name in frames.names:
        digest.update(f"{name}{frames.suffix} {file_digest(frames.path(root, name))}\n".encode())
    for mask in sorted({prompt.mask for prompt in prompts}):
        digest.update(file_digest(Path(root) / mask).encode())
    return digest.hexdigest()
