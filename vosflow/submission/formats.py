"""The layouts that the servers of the datasets want."""

from __future__ import annotations

from dataclasses import dataclass

from vosflow.errors import VosflowError
from vosflow.manifest import INSTANCES, LABEL_MAPS, PER_OBJECT

CODALAB = "CodaLab at lisn was announced to close in December 2025: look for the server's new place first"


@dataclass(frozen=True)
class Format:
    """What one server takes.

    Attributes:
        name: what is submitted, for people.
        splits: the splits of the dataset that are scored by it; the first one is meant where none is named.
        layout: the output layout of the masks.
        top: folder at the root of the zip that holds the videos; "" for none.
        archive: one zip file; otherwise a folder.
        notes: what a user must know before sending it.
    """

    name: str
    splits: tuple[str, ...]
    layout: str = LABEL_MAPS
    top: str = ""
    archive: bool = True
    notes: tuple[str, ...] = ()


# Sources: the scorers and instructions of the publishers, where they are public; the rest says so in its notes.
FORMATS = {
    # davis2017-evaluation, codalab/evaluation_codalab.py: a zip with a single top folder is rejected; all videos needed
    "davis2017": Format("DAVIS 2017 test-dev", ("test-dev",), notes=(CODALAB,)),
    "mose": Format(
        "MOSE v1 valid",
        ("valid",),
        notes=("Codabench 12220; the server's code is not public: videos at the root, as for DAVIS",),
    ),
    # henghuiding/MOSE-api, MOSEv2/sam2_rcms/tools/score.py: frames are paired by position, so all are needed
    "mosev2": Format("MOSE v2 valid", ("valid",), notes=("Codabench 10062",)),
    "youtubevos2018": Format(
        "YouTube-VOS 2018 valid",
        ("valid", "valid_all_frames"),
        top="Annotations",
        notes=("CodaLab 7685; the layout is that of its sample submission", CODALAB),
    ),
    "youtubevos2019": Format(
        "YouTube-VOS 2019 valid",
        ("valid", "valid_all_frames"),
        top="Annotations",
        notes=("CodaLab 6066; the layout is that of its sample submission", CODALAB),
    ),
    # LingyihongFD/lvos-evaluation, the CodaLab script reads res/Annotations/{video}
    "lvos_v1": Format("LVOS v1 test", ("test",), top="Annotations", notes=("CodaLab 8767", CODALAB)),
    "lvos_v2": Format(
        "LVOS v2 test",
        ("test",),
        top="Annotations",
        notes=("there is no server for v2 test: its authors score on valid",),
    ),
    # facebookresearch/sam2, sav_dataset/README.md
    "sav": Format(
        "SA-V",
        ("test", "val"),
        layout=PER_OBJECT,
        archive=False,
        notes=("there is no server: the ground truth is public, sav_evaluator.py reads this folder",),
    ),
    "uvo": Format(
        "UVO dense",
        ("test", "val"),
        layout=INSTANCES,
        notes=("a results.json at the root of the zip; where the challenge takes it now is not known",),
    ),
}


def find_format(dataset: str, split: str) -> Format | None:
    """The format of a dataset split, or None if nothing takes its results."""
    entry = FORMATS.get(dataset)
    return entry if entry is not None and split in entry.splits else None


def chosen_split(name: str) -> tuple[str, str]:
    """(dataset, split) of what a user names: "mose/valid", or "mose" for the split that its server scores.

    Raises:
        VosflowError: nothing takes submissions for it.
    """
    dataset, slash, split = name.partition("/")
    entry = FORMATS.get(dataset)
    if entry is None or (slash and split not in entry.splits):
        raise VosflowError(
            f"there is no submission format for {name}",
            expected="one of " + ", ".join(f"{key}/{known.splits[0]}" for key, known in FORMATS.items()),
            remedy="if its ground truth is public, score it with scripts/evaluate.py",
        )
    return dataset, split or entry.splits[0]
