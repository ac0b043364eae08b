"""Extraction: everything or nothing, and nothing outside the folder."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.unit.scripts import run_script
from vosflow.datasets.archive import extract_archive
from vosflow.digest import file_digest
from vosflow.errors import VosflowError

HOUSE = Path(__file__).resolve().parents[2]
FILES = {"DAVIS/JPEGImages/bear/00000.jpg": b"frame" * 50, "DAVIS/ImageSets/val.txt": b"bear"}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def tar_member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    return info, io.BytesIO(data)


def make_tar(path: Path, members, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:
        for info, data in members:
            file.addfile(info, data)
    return path


def extract(archive: Path, folder: Path):
    return extract_archive(archive, folder, folder.with_name(f"{folder.name}.json"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_nothing_is_left(folder: Path) -> None:
    assert not folder.exists() and not folder.with_name(f"{folder.name}.json").exists()
    assert not [name for name in names_in(folder.parent) if name.startswith(f".{folder.name}")]


def names_in(folder: Path) -> list[str]:
    """What is in a folder, but for the lock that an extraction takes."""
    return sorted(name for name in os.listdir(folder) if not (name.startswith(".") and name.endswith(".lock")))


@pytest.mark.parametrize("kind", ["zip", "w:gz", "w:", "w:xz"])
def test_extracts_and_marks(tmp_path, kind):
    if kind == "zip":
        archive = make_zip(tmp_path / "data.zip", FILES)
    else:
        archive = make_tar(tmp_path / "data.tar", [tar_member(*item) for item in FILES.items()], kind)
    folder = tmp_path / "deep" / "data"
    extracted = extract(archive, folder)
    assert content(folder) == FILES
    marker = json.loads((tmp_path / "deep" / "data.json").read_text())
    assert marker == {"archive": archive.name, "sha256": file_digest(archive), "files": 2, "bytes": 254}
    assert extracted.files == 2


def test_replaces_what_was_there(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "old.txt").touch()
    extract(make_zip(tmp_path / "data.zip", FILES), folder)
    assert content(folder) == FILES
    assert names_in(tmp_path) == ["data", "data.json", "data.zip"]


def test_failed_extraction_keeps_what_was_there_but_no_marker(tmp_path):
    folder = tmp_path / "data"
    extract(make_zip(tmp_path / "data.zip", FILES), folder)
    make_zip(tmp_path / "data.zip", {**FILES, "../evil": b"x"})
    with pytest.raises(VosflowError):
        extract(tmp_path / "data.zip", folder)
    assert content(folder) == FILES and not (tmp_path / "data.json").exists()


@pytest.mark.parametrize("name", ["/tmp/vosflow-evil", "../evil", "a/../../evil", "a/../b", "..\\evil"])
@pytest.mark.parametrize("make", ["zip", "tar"])
def test_refuses_paths_outside(tmp_path, name, make):
    if make == "zip":
        archive = make_zip(tmp_path / "data.zip", {"good": b"1"})
        with zipfile.ZipFile(archive, "a") as file:
            info = zipfile.ZipInfo("placeholder")
            info.filename = name
            file.writestr(info, b"evil")
    else:
        archive = make_tar(tmp_path / "data.tar", [tar_member("good", b"1"), tar_member(name, b"evil")])
    with pytest.raises(VosflowError, match="refused.*an absolute path, or one with"):
        extract(archive, tmp_path / "inner" / "data")
    assert_nothing_is_left(tmp_path / "inner" / "data")
    assert not list(tmp_path.rglob("*evil*")) and not Path("/tmp/vosflow-evil").exists()


def test_refuses_a_link_outside(tmp_path):
    for link in ("/etc", "..", "../other", "a/../../other"):
        archive = make_tar(tmp_path / "data.tar", [tar_member("link", kind=tarfile.SYMTYPE, link=link)])
        with pytest.raises(VosflowError, match="a link that leads outside"):
            extract(archive, tmp_path / "inner" / "data")
        assert_nothing_is_left(tmp_path / "inner" / "data")


def test_refuses_to_write_through_a_link(tmp_path):
    (tmp_path / "victim").mkdir()
    members = [tar_member("link", kind=tarfile.SYMTYPE, link=str(tmp_path / "victim")), tar_member("link/evil", b"1")]
    with pytest.raises(VosflowError, match="a path through a link that leads outside"):
        extract(make_tar(tmp_path / "data.tar", members), tmp_path / "data")
    assert not list((tmp_path / "victim").iterdir())


def test_refuses_a_chain_of_links(tmp_path):
    members = [  # `out` leads inside as long as `deep/here` does not exist
        tar_member("deep", kind=tarfile.DIRTYPE),
        tar_member("out", kind=tarfile.SYMTYPE, link="deep/here/../.."),
        tar_member("deep/here", kind=tarfile.SYMTYPE, link="."),
    ]
    with pytest.raises(VosflowError, match="a link that leads outside"):
        extract(make_tar(tmp_path / "data.tar", members), tmp_path / "data")


def test_file_in_the_place_of_a_link_does_not_go_through_it(tmp_path):
    (tmp_path / "victim").write_bytes(b"untouched")
    members = [tar_member("a", kind=tarfile.SYMTYPE, link=str(tmp_path / "victim")), tar_member("a", b"evil")]
    extract(make_tar(tmp_path / "data.tar", members), tmp_path / "data")
    assert (tmp_path / "victim").read_bytes() == b"untouched"
    assert content(tmp_path / "data") == {"a": b"evil"}


def test_links_inside_are_kept(tmp_path):
    members = [
        tar_member("a/file", b"1"),
        tar_member("b/soft", kind=tarfile.SYMTYPE, link="../a/file"),
        tar_member("hard", kind=tarfile.LNKTYPE, link="a/file"),
    ]
    extract(make_tar(tmp_path / "data.tar", members), tmp_path / "data")
    assert (tmp_path / "data" / "b" / "soft").is_symlink()
    assert content(tmp_path / "data") == {"a/file": b"1", "b/soft": b"1", "hard": b"1"}


def test_zip_with_a_link(tmp_path):
    for link, works in (("good", True), ("../../etc", False)):
        archive = make_zip(tmp_path / "data.zip", {"good": b"1"})
        with zipfile.ZipFile(archive, "a") as file:
            info = zipfile.ZipInfo("link")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(info, link)
        if works:
            extract(archive, tmp_path / "data")
            assert (tmp_path / "data" / "link").read_bytes() == b"1"
        else:
            with pytest.raises(VosflowError, match="a link that leads outside"):
                extract(archive, tmp_path / "data")


@pytest.mark.parametrize("link", ["../outside", "/etc/passwd", "nothing"])
def test_refuses_hard_links_to_other_files(tmp_path, link):
    (tmp_path / "outside").touch()
    with pytest.raises(VosflowError, match="refused"):
        extract(
            make_tar(tmp_path / "data.tar", [tar_member("hard", kind=tarfile.LNKTYPE, link=link)]), tmp_path / "data"
        )


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_refuses_devices(tmp_path, kind):
    with pytest.raises(VosflowError, match="neither a file, a folder nor a link"):
        extract(make_tar(tmp_path / "data.tar", [tar_member("device", kind=kind)]), tmp_path / "data")


def test_refuses_a_bomb(tmp_path):
    archive = make_zip(tmp_path / "data.zip", {"zeros": bytes(40_000_000)})
    with pytest.raises(VosflowError, match="more than 200 times"):
        extract(archive, tmp_path / "data")
    assert_nothing_is_left(tmp_path / "data")


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz", "data.tar"])
def test_names_damage(tmp_path, name):
    noise = os.urandom(50_000)
    if name == "data.zip":
        archive = make_zip(tmp_path / name, {"noise": noise})
    else:
        archive = make_tar(tmp_path / name, [tar_member("noise", noise)], "w:gz" if "gz" in name else "w:")
    whole = archive.read_bytes()
    archive.write_bytes(whole[:20_000])
    with pytest.raises(VosflowError, match="damaged or cannot be read"):
        extract(archive, tmp_path / "data")
    if name != "data.tar":  # a plain tar file has no check sums of its contents: the fetch's hash protects it
        archive.write_bytes(whole[:20_000] + b"damaged!" + whole[20_008:])
        with pytest.raises(VosflowError, match="damaged or cannot be read"):
            extract(archive, tmp_path / "data")
    assert_nothing_is_left(tmp_path / "data")


@pytest.mark.parametrize(
    "data", [b"", b"<!doctype html><html>", gzip.compress(b"not a tar file")], ids=["empty", "web page", "gzip of text"]
)
def test_names_what_is_no_archive(tmp_path, data):
    (tmp_path / "data.zip").write_bytes(data)
    with pytest.raises(VosflowError, match="damaged or cannot be read"):
        extract(tmp_path / "data.zip", tmp_path / "data")


def test_names_a_missing_archive(tmp_path):
    with pytest.raises(VosflowError, match="cannot be extracted"):
        extract(tmp_path / "data.zip", tmp_path / "data")


def test_killed_extraction_leaves_nothing_under_the_name(tmp_path):
    archive, folder = make_zip(tmp_path / "data.zip", FILES), tmp_path / "data"
    code = (  # killed at the last moment: all is extracted, nothing renamed
        "import os, sys; from vosflow.datasets import archive;"
        "archive.replace_folder = lambda *paths: os.kill(os.getpid(), 9);"
        "archive.extract_archive(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, archive, folder, tmp_path / "data.json"]
    assert subprocess.run(command, cwd=HOUSE).returncode == -signal.SIGKILL
    assert not folder.exists() and not (tmp_path / "data.json").exists()
    assert content(tmp_path / ".data.extracting") == FILES  # left behind, and cleared away by the next one
    done = run_script("extract_archive.py", archive, "--folder", folder)
    assert done.returncode == 0 and "2 files" in done.stderr
    assert content(folder) == FILES and names_in(tmp_path) == ["data", "data.json", "data.zip"]


def test_two_processes_extract_once(tmp_path):
    """The second waits for the first, and takes what it made."""
    archive, folder, marker = make_zip(tmp_path / "data.zip", FILES), tmp_path / "data", tmp_path / "data.json"
    code = (  # each tells what it does; the one that extracts goes on when it is told to
        "import sys; from vosflow.datasets import archive\n"
        "whole, acquire = archive._extract, archive.filelock.FileLock.acquire\n"
        "def extract(*paths):\n    print('extracting', flush=True); sys.stdin.readline(); return whole(*paths)\n"
        "def wait(lock, blocking=True):\n"
        "    if blocking:\n        print('waiting', flush=True)\n"
        "    return acquire(lock, blocking=blocking)\n"
        "archive._extract, archive.filelock.FileLock.acquire = extract, wait\n"
        "archive.extract_archive(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, archive, folder, marker]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=HOUSE, **pipes) as first:
        assert first.stdout.readline() == "extracting\n"
        with subprocess.Popen(command, cwd=HOUSE, **pipes) as second:
            assert second.stdout.readline() == "waiting\n"
            assert first.communicate("go on\n")[0] == "" and first.returncode == 0
            assert second.communicate()[0] == "" and second.returncode == 0
    assert content(folder) == FILES and names_in(tmp_path) == ["data", "data.json", "data.zip"]


def test_extracted_again_where_that_is_asked_for(tmp_path):
    archive, folder = make_zip(tmp_path / "data.zip", FILES), tmp_path / "data"
    extract(archive, folder)
    (folder / "DAVIS/ImageSets/val.txt").write_bytes(b"changed")
    extract(archive, folder)
    assert content(folder) == FILES


def test_a_folder_of_other_things_is_not_replaced(tmp_path):
    """Somebody may mean "unpack it in here": nothing of theirs is removed."""
    archive, folder = make_zip(tmp_path / "data.zip", FILES), tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    done = run_script("extract_archive.py", archive, "--folder", folder)
    assert done.returncode == 1 and "the folder holds something else" in done.stderr
    assert (folder / "thesis.tex").read_text() == "years of work"
    for _ in range(2):  # what it made itself, it replaces
        done = run_script("extract_archive.py", archive, "--folder", tmp_path / "new")
        assert done.returncode == 0 and content(tmp_path / "new") == FILES
