"""MOSE: palette label maps, every object on the first frame; `valid` has no public ground truth (Ding et al. 2023).

JPEGImages/{video}/00000.jpg   Annotations/{video}/00000.png   meta_{split}.json (a file of its own)
"""

from __future__ import annotations

import json
from pathlib import Path

from vosflow.catalog import Split
from vosflow.datasets.folder import build_entry, check_layout, check_names, read_list
from vosflow.datasets.prompts import PromptRule
from vosflow.errors import VosflowError
from vosflow.manifest import Manifest


def build(dataset: str, split: str, root: Path, facts: Split, *, video_list: str | Path | None = None) -> Manifest:
    """The manifest of a split of MOSE; videos are sorted by name.

    Args:
        root: the folder that holds JPEGImages and Annotations (`valid` of the archive valid.tar.gz).
        facts: the catalog's entry of the split.
        video_list: the publisher's meta_{split}.json; default {root}/meta_{split}.json.

    Raises:
        VosflowError: missing, damaged or contradicting files, each named.
    """
    check_layout(root, ("JPEGImages", "Annotations"), facts.folder)
    entries = []
    for name in meta_videos(Path(video_list or root / f"meta_{split}.json")):
        entry, _ = build_entry(
            root,
            name,
            frames=f"JPEGImages/{name}",
            masks=f"Annotations/{name}",
            rule=PromptRule(),
            ground_truth=f"Annotations/{name}" if facts.has_ground_truth else None,
            complete=True,
            consecutive=True,
        )
        entries.append(entry)
    return Manifest(
        dataset=dataset,
        split=split,
        root=str(root),
        videos=tuple(entries),
        layout=facts.layout,
        late_objects=facts.late_objects,
        protocol=facts.protocol,
    )


def meta_videos(path: Path) -> list[str]:
    """Names of the videos in `{"videos": {name: ...}}`, sorted; raises VosflowError if that is not in the file."""
    try:
        names = sorted(json.loads(read_list(path))["videos"].keys())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VosflowError(
            f"not a list of MOSE's videos ({type(error).__name__}: {error})",
            path=path,
            expected='JSON like {"videos": {"0a0b1c2d": ...}}',
            remedy="fetch the file again (scripts/fetch.py --dataset mose), or correct the path",
        ) from error
    return check_names(names, path)
