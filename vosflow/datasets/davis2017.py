"""DAVIS 2017 at 480p, semi-supervised: palette label maps, every object on the first frame (Pont-Tuset et al. 2017).

    JPEGImages/480p/{video}/00000.jpg   Annotations/480p/{video}/00000.png   ImageSets/2017/{split}.txt

test-dev has masks of the first frame only. The demo dataset has the same layout.
"""

from __future__ import annotations

from pathlib import Path

from vosflow.catalog import Split
from vosflow.datasets.folder import build_entry, check_layout, check_names, read_list
from vosflow.datasets.prompts import PromptRule
from vosflow.manifest import Manifest

VOID = 255  # a region that the DAVIS toolkit does not count as any object


def build(dataset: str, split: str, root: Path, facts: Split, *, video_list: str | Path | None = None) -> Manifest:
    """The manifest of a split in the layout of DAVIS 2017.

    Args:
        root: the folder that holds JPEGImages, Annotations and ImageSets.
        facts: the catalog's entry of the split.
        video_list: names of the videos separated by white space; default ImageSets/2017/{split}.txt.

    Raises:
        VosflowError: missing, damaged or contradicting files, each named.
    """
    check_layout(root, ("JPEGImages/480p", "Annotations/480p"), facts.folder)
    source = Path(video_list or root / "ImageSets" / "2017" / f"{split}.txt")
    entries, notes = [], []
    for name in check_names(read_list(source).split(), source):
        masks = f"Annotations/480p/{name}"
        entry, largest_value = build_entry(
            root,
            name,
            frames=f"JPEGImages/480p/{name}",
            masks=masks,
            rule=PromptRule(void=VOID),
            ground_truth=masks if facts.has_ground_truth else None,
            complete=True,
            consecutive=True,
        )
        if largest_value > max(entry.objects):
            notes.append(
                f"{name}: a later annotation holds object {largest_value}, but the first frame's largest is "
                f"{max(entry.objects)}; the protocol of DAVIS 2017 scores only objects of the first frame"
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
        notes=tuple(notes),
    )
