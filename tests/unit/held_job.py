"""Another process that tracks videos and stands still in the middle of one until the test lets it go on."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from vosflow.manifest import Manifest, save_manifest

HOUSE = Path(__file__).resolve().parents[2]
PATIENCE = 600  # seconds; how long a test hangs that would hang for ever

READING, WRITING = "while reading", "while writing"
JOB = """
import sys
from vosflow.engine import track_shard
from vosflow.manifest import load_manifest
from vosflow.mask_writer import VideoMaskWriter
from vosflow.method import Method
from vosflow.video import Video

tracker, shift, manifest, folder, name, place = sys.argv[1:]
read_frame, save = Video.read_frame, VideoMaskWriter._save

def stand_still():
    print("held", flush=True)
    sys.stdin.readline()

def read_or_wait(self, index):
    if (self.name, index, place) == (name, 2, "while reading"):
        stand_still()
    return read_frame(self, index)

def save_or_wait(self, path, values):
    if (self._final.name, path.name, place) == (name, "00002.png", "while writing"):
        stand_still()
    return save(self, path, values)

Video.read_frame, VideoMaskWriter._save = read_or_wait, save_or_wait
settings = {"shift": int(shift)} if shift else {}
track_shard(Method.of(tracker, settings), load_manifest(manifest), folder, shard=1, shards=1)
"""


@contextlib.contextmanager
def held_job(
    manifest: Manifest, folder: Path, video: str, *, tracker: str, shift: str = "", place: str = WRITING
) -> Iterator[subprocess.Popen]:
    """A job over all videos that stands still in frame 2 of `video`, of which frames 0 and 1 are written.

    It goes on when its stdin is closed, and ends with the context in any case.
    """
    path = folder.with_name("manifest of a held job.json")
    save_manifest(manifest, path)
    command = [sys.executable, "-c", JOB, tracker, shift, str(path), str(folder), video, place]
    with subprocess.Popen(command, cwd=HOUSE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
        try:
            assert job.stdout.readline() == "held\n"
            deadline = time.monotonic() + PATIENCE
            while not list((folder / "masks").glob(f".*.writing.{video}/00001.png")):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield job
        finally:
            job.kill()
