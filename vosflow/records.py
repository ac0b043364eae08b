"""Records on disk: what is finished, from which inputs, and at what cost.

Two kinds. A *video record* stands beside each finished video's masks and carries its key; the engine skips a video
whose record holds the key that it would compute now. A *shard record* is what Snakemake sees of a shard: it lists the
keys, and its text is the same whenever the same videos are finished, however often the job is repeated.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from vosflow.errors import VosflowError
from vosflow.progress import now

FORMAT = 1


def write_json(path: str | Path, data: dict) -> None:
    """Write `data` as indented JSON with sorted keys, atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(aside, path)


def read_json(path: str | Path) -> dict:
    """Read a record; raises VosflowError naming the file if it is missing, broken or of another format."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"not a record of format {FORMAT}")
    except (OSError, ValueError) as error:
        raise VosflowError(
            f"not a readable record ({error})",
            path=path,
            expected=f"JSON written by this workflow, format {FORMAT}",
            remedy="delete the file and run snakemake again",
        ) from error
    return data


class RunFolder:
    """The folder of one run, `results/{dataset}-{split}/{run}`: where masks and records are.

    Args:
        masks: another folder for the masks than `{folder}/masks`.
    """

    def __init__(self, folder: str | Path, masks: str | Path | None = None) -> None:
        self.path = Path(folder)
        self.masks = Path(masks) if masks else self.path / "masks"
        self.videos = self.path / "videos"

    def record_path(self, video: str) -> Path:
        """File of a video's record."""
        return self.videos / f"{video}.json"

    def read_record(self, video: str) -> dict | None:
        """A video's record, or None if there is none that can be read: then the video is not finished."""
        try:
            return read_json(self.record_path(video))
        except VosflowError:
            return None

    def is_finished(self, video: str, key: str) -> bool:
        """Whether the video was finished with this key and its masks are still all there."""
        record = self.read_record(video)
        return record is not None and record.get("key") == key and self.masks_are_complete(video, record)

    def masks_are_complete(self, video: str, record: dict) -> bool:
        """Whether the masks that `record` counts still exist.

        Two `stat` calls where nothing was touched since: a folder's modification time changes when a file in it is
        deleted or added. Where it did change (also by copying the results), names are counted.
        """
        folders = record["masks"]
        for name, facts in folders.items():
            folder = self.masks / video / name if name != "." else self.masks / video
            try:
                if folder.stat().st_mtime_ns == facts["mtime_ns"]:
                    continue
                if sum(entry.name.endswith(".png") for entry in os.scandir(folder)) < facts["files"]:
                    return False
            except OSError:
                return False
        return True

    def count_masks(self, video: str) -> dict[str, dict[str, int]]:
        """{sub-folder: {"files", "mtime_ns"}} of a video's masks; the sub-folder is "." for label maps."""
        top = self.masks / video
        counted = {}
        for folder in [top, *sorted(entry for entry in top.iterdir() if entry.is_dir())]:
            files = sum(entry.name.endswith(".png") for entry in os.scandir(folder))
            if files:
                counted[str(folder.relative_to(top))] = {"files": files, "mtime_ns": folder.stat().st_mtime_ns}
        return counted


def note_lost_masks(folder: str | Path, shards: Iterable[str | Path]) -> list[str]:
    """Find shard records of a run that promise masks which are no longer there, and note the loss beside them.

    Masks are not declared to Snakemake (it would delete them when a job fails), so it cannot see that one was
    deleted; nor does it run a job again whose output is missing while later results exist. But the number of losses
    (`count_losses`) is a parameter of the tracking job: noting one makes Snakemake run the shard again, which
    recomputes just the lost videos. A loss is noted once, however often it is planned before it is mended.

    Args:
        folder: the run's folder.
        shards: its shard records, as far as they exist.

    Returns:
        Names of the videos whose masks are gone.
    """
    run = RunFolder(folder)
    lost: list[str] = []
    for path in map(Path, shards):
        try:
            promised = read_json(path)["videos"]
        except (VosflowError, KeyError):
            continue
        gone = [item["video"] for item in promised if not run.is_finished(item["video"], item["key"])]
        if not gone:
            continue
        lost += gone
        notes = _losses_path(path)
        if not notes.exists() or notes.stat().st_mtime_ns < path.stat().st_mtime_ns:
            with open(notes, "a", encoding="utf-8") as file:
                file.write(f"{now()} {' '.join(gone)}\n")
    return lost


def count_losses(shard: str | Path) -> int:
    """How often masks of a shard were found missing."""
    try:
        return len(_losses_path(Path(shard)).read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        return 0


def _losses_path(shard: Path) -> Path:
    return shard.with_suffix(".losses")
