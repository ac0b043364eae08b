"""Writing a checked submission: the same bytes each time, all at once or not at all."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vosflow.errors import VosflowError, cannot_write
from vosflow.manifest import Manifest
from vosflow.masks import DAVIS_PALETTE, read_label_map
from vosflow.submission.check import PackedFile, Progress, check_predictions
from vosflow.submission.formats import Format

MADE = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can hold
DEFLATE_LEVEL = 6
UNIX = 3
PERMISSIONS = 0o100644


@dataclass(frozen=True)
class Submission:
    """What was written: the file or folder, the number of files in it, and what one must know."""

    path: Path
    files: int
    notes: tuple[str, ...]


def write_submission(
    manifest: Manifest,
    predictions: str | Path,
    output: str | Path,
    wanted: Format,
    *,
    allow_empty_objects: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> Submission:
    """Check predictions (see `check_predictions`) and write what the server takes.

    Args:
        output: the zip; or the folder, which must not exist or be empty.

    Raises:
        VosflowError: the check found problems (the first ten are named), or the output cannot be written.
    """
    predictions, output = Path(predictions), Path(output)
    _check_output(output, predictions, wanted)
    options = {"allow_empty_objects": allow_empty_objects, "workers": workers, "progress": progress}
    findings = check_predictions(manifest, predictions, wanted, **options)
    findings.raise_problems(predictions)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        (write_zip if wanted.archive else write_folder)(findings.files, output)
    except OSError as error:
        raise cannot_write(output, error) from error
    return Submission(output, len(findings.files), (*findings.notes, *manifest.notes, *wanted.notes))


def write_zip(files: Sequence[PackedFile], output: Path) -> None:
    """Write a zip whose bytes depend on the files' names and contents only.

    PNG files are stored as they are: they are compressed already, and deflating them again would make the bytes
    depend on the version of zlib.
    """
    aside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(aside, "w") as archive:
            for file in files:
                entry = zipfile.ZipInfo(file.name, MADE)
                entry.create_system, entry.external_attr = UNIX, PERMISSIONS << 16
                png = file.name.endswith(".png")
                entry.compress_type = zipfile.ZIP_STORED if png else zipfile.ZIP_DEFLATED
                archive.writestr(entry, _content(file), compresslevel=None if png else DEFLATE_LEVEL)
        os.replace(aside, output)
    finally:
        aside.unlink(missing_ok=True)


def write_folder(files: Sequence[PackedFile], output: Path) -> None:
    """Write the files below the folder `output`."""
    aside = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        for file in files:
            path = aside / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_content(file))
        if output.exists():
            output.rmdir()  # empty, see _check_output
        os.rename(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _content(file: PackedFile) -> bytes:
    if not file.rewrite:
        return file.source.read_bytes()
    values, palette = read_label_map(file.source)
    image = Image.fromarray(values)
    image.putpalette(((palette or []) + DAVIS_PALETTE[len(palette or []) :])[: 3 * 256])
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


def _check_output(output: Path, predictions: Path, wanted: Format) -> None:
    problem = None
    if output.resolve().is_relative_to(predictions.resolve()):
        problem, remedy = "the output lies in the folder of predictions", "choose another --output"
    elif wanted.archive and output.is_dir():
        problem, remedy = "there is a folder of this name", "name a zip file, for instance submission.zip"
    elif not wanted.archive and output.exists() and (not output.is_dir() or any(output.iterdir())):
        problem, remedy = "it exists, and is no empty folder", "remove it, or choose another --output"
    if problem:
        expected = f"a new {'zip file' if wanted.archive else 'folder'} for {wanted.name}"
        raise VosflowError(problem, path=output, expected=expected, remedy=remedy)
