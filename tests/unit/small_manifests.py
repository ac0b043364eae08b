"""Manifests of small trees, as adapters make them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vosflow.datasets import build_manifest
from vosflow.datasets.folder import folder_manifest

MASKS, FRAMES = "Annotations/480p", "JPEGImages/480p"


def build(dataset: str, split: str, root: Path, **lists: Path):
    """The manifest without its notes on counts: trees of tests are small."""
    manifest = build_manifest(dataset, split, root, lists=lists)
    return replace(manifest, notes=tuple(note for note in manifest.notes if "expected from the catalog" not in note))


def davis(root: Path, split: str = "val"):
    return build("davis2017", split, root)


def in_folder(root: Path, **options):
    return folder_manifest(root / FRAMES, root / MASKS, **options)
