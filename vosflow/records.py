"""Records on disk: what is finished, from which inputs, and at what cost.

Two kinds. A *video record* stands beside each finished video's masks and carries its key; the engine skips a video
whose record holds the key that it would compute now. A *shard record* is what Snakemake sees of a shard: it lists the
keys, and its text is the same whenever the same videos are finished, however often the job is repeated.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from vosflow.errors import VosflowError, cannot_write

FORMAT = 1
MASK_FILES = (".png", ".jsonl")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, which appears at once or not at all; raises DiskError if it cannot."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8", newline="\n")
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


def write_json(path: str | Path, data: dict) -> None:
    """Write `data` as indented JSON with sorted keys; see `write_text`."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True) + "\n")


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
        self.lock_file = self.path / ".lock"
        self.has_locks = True  # as far as is known

    @contextlib.contextmanager
    def lock(self, video: str, wait: Callable[[], None] | None = None) -> Iterator[bool]:
        """Keep other processes, on any machine that shares the disk, off this video; yields whether it is ours.

        It is not if another process has it. With `wait` that is called then, and the lock waited for. Whoever waited
        must look again whether the video is finished: where Snakemake was killed, jobs that it left on a cluster go on
        beside those of the next one. One lock file per run; each video is a byte of it. The system releases it when
        the process ends, however it ends. File systems without locks are trusted to be used by one job at a time.
        """
        place = (1, zlib.crc32(video.encode()))  # length and start
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.lock_file, "a", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise cannot_write(self.lock_file, error) from error
        with file:
            ours = True
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, *place)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    ours = wait is not None
                    if wait is not None:
                        wait()
                        fcntl.lockf(file, fcntl.LOCK_EX, *place)
                elif error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    self._tell_of_no_locks()
                else:
                    raise
            yield ours

    def _tell_of_no_locks(self) -> None:
        if self.has_locks:
            self.has_locks = False
            print(
                f"{self.path}: this file system has no locks: let no two jobs track the same videos (before you start "
                "a killed snakemake again, end the jobs that it left)",
                file=sys.stderr,
                flush=True,
            )

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
        """Whether the masks that `record` counts still exist; their content is not looked at.

        Two `stat` calls where nothing was touched since: a folder's modification time changes when a file in it is
        deleted or added. Where it did change (also by copying the results), names are counted.
        """
        folders = record["masks"]
        for name, facts in folders.items():
            folder = self.masks / video / name if name != "." else self.masks / video
            try:
                if folder.stat().st_mtime_ns == facts["mtime_ns"]:
                    continue
                if _mask_files(folder) < facts["files"]:
                    return False
            except OSError:
                return False
        return True

    def count_masks(self, video: str) -> dict[str, dict[str, int]]:
        """{sub-folder: {"files", "mtime_ns"}} of a video's masks; the sub-folder is "." unless each object has one."""
        top = self.masks / video
        counted = {}
        for folder in [top, *sorted(entry for entry in top.iterdir() if entry.is_dir())]:
            files = _mask_files(folder)
            if files:
                counted[str(folder.relative_to(top))] = {"files": files, "mtime_ns": folder.stat().st_mtime_ns}
        return counted


def _mask_files(folder: Path) -> int:
    return sum(entry.name.endswith(MASK_FILES) for entry in os.scandir(folder))


def check_output_folder(
    run: RunFolder,
    inputs: Iterable[str | Path],
    videos: Iterable[str],
    marks: Mapping[str, str | None],
    *,
    overwrite: bool,
) -> None:
    """Refuse to write masks over a dataset, over files that vosflow did not make, or over those of other settings.

    Args:
        run: where masks would be written.
        inputs: folders that are read.
        videos: names of the videos that would be written.
        marks: by which masks of the same method are known: entries of their records.
        overwrite: replace masks that are there (but never a dataset's files).

    Raises:
        VosflowError: which folder is in the way, and what to do.
    """
    output = run.masks.resolve()
    for folder in inputs:
        place = Path(folder).resolve()
        if output == place or output in place.parents or place in output.parents:
            raise VosflowError(
                "the output folder and a folder that is read are one, or lie in each other",
                path=run.masks,
                expected=f"an output folder apart from {folder}",
                remedy="choose another output folder: masks would replace the files of the dataset",
            )
    if overwrite:
        return
    for video in videos:
        record = run.read_record(video)
        same = record is not None and all(record.get(mark, value) == value for mark, value in marks.items())
        if same or not (run.masks / video).exists():
            continue
        raise VosflowError(
            "there are masks of another tracker or of other settings"
            if record
            else "there is a folder that vosflow did not make",
            path=run.masks / video,
            expected="an empty output folder, or one with masks of the same tracker and settings",
            remedy="choose another output folder, or say --overwrite to replace what is there",
        )


def refuse_filled_folder(folder: Path, holds: str) -> None:
    """Refuse a folder with something in it where it would be replaced; for scripts that are called by hand.

    Args:
        holds: what the folder will hold, in words.

    Raises:
        VosflowError: there is something in it.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise VosflowError(
            "the folder holds something else, which would be removed",
            path=folder,
            expected="a folder that is not there, or that is empty",
            remedy=f"name another one: it will hold {holds}, and nothing else",
        )


def withdraw_false_records(folder: str | Path, shards: Iterable[str | Path]) -> list[str]:
    """Delete those shard records of a run that promise masks which are gone or were made with other settings since.

    Masks are not declared to Snakemake (it would delete them when a job fails), so it cannot see that one was
    deleted. Without its record the shard runs again, and recomputes just the videos that are not finished.

    Args:
        folder: the run's folder.
        shards: its shard records, as far as they exist.

    Returns:
        Names of the videos that are not what was promised.
    """
    run = RunFolder(folder)
    false: list[str] = []
    for path in map(Path, shards):
        try:
            promised = read_json(path)["videos"]
        except (VosflowError, KeyError):
            continue
        broken = [item["video"] for item in promised if not run.is_finished(item["video"], item["key"])]
        if broken:
            path.unlink(missing_ok=True)
            false += broken
    return false
