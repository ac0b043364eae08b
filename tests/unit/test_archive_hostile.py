"""Archives that are made to harm: refused, or made harmless. (Paths, links and devices: test_archive.py.)"""

from __future__ import annotations

import io
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.test_archive import assert_nothing_is_left, content, extract, make_tar, make_zip, names_in, tar_member
from vosflow.datasets import archive as archive_module
from vosflow.datasets.archive import extract_archive, extract_member, member_names, plain_name
from vosflow.errors import VosflowError


def test_zip_that_declares_too_much_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "data.zip", {"zeros": bytes(40_000_000)})
    monkeypatch.setattr(archive_module._Extraction, "_write", lambda *arguments: pytest.fail("something was written"))
    with pytest.raises(VosflowError, match="more than 200 times"):
        extract(archive, tmp_path / "data")


def test_zip_that_lies_about_sizes(tmp_path):
    """Declared as 10 bytes: never more than that is unpacked, and the check sum tells."""
    archive = make_zip(tmp_path / "data.zip", {"zeros": bytes(1_000_000)})
    data = archive.read_bytes().replace(struct.pack("<L", 1_000_000), struct.pack("<L", 10))
    archive.write_bytes(data)
    with pytest.raises(VosflowError, match="damaged or cannot be read"):
        extract(archive, tmp_path / "data")
    assert_nothing_is_left(tmp_path / "data")


def test_files_of_one_zip_that_share_their_bytes(tmp_path):
    """The bomb of overlapping members (Fifield 2019): each is harmless, together they are enormous."""
    one = make_zip(tmp_path / "one.zip", {"a": bytes(200_000)}).read_bytes()
    start = one.index(b"PK\x01\x02")
    header, entry, end = one[:start], one[start : one.index(b"PK\x05\x06")], one[one.index(b"PK\x05\x06") :]
    count = 2_000
    end = end[:8] + struct.pack("<HHLL", count, count, len(entry) * count, start) + end[20:]
    (tmp_path / "data.zip").write_bytes(header + entry * count + end)
    with pytest.raises(VosflowError, match="refused|damaged"):
        extract(tmp_path / "data.zip", tmp_path / "data")
    assert_nothing_is_left(tmp_path / "data")


def test_tar_bomb_stops_while_it_is_unpacked(tmp_path):
    archive = make_tar(tmp_path / "data.tar", [tar_member("zeros", bytes(40_000_000))])
    with pytest.raises(VosflowError, match="more than 200 times"):
        extract(archive, tmp_path / "data")
    assert_nothing_is_left(tmp_path / "data")


def test_more_files_than_an_archive_can_hold_honestly(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "FEW_FILES", 100)
    archive = make_tar(tmp_path / "data.tar", [tar_member(f"{n % 7}", b"") for n in range(3_000)], "w:xz")
    with pytest.raises(VosflowError, match="one of more than .* files in an archive this small"):
        extract(archive, tmp_path / "data")
    assert_nothing_is_left(tmp_path / "data")


def test_thousands_of_tiny_files_are_no_harm(tmp_path):
    """Label maps without any object are small and many."""
    files = {f"video{n % 30}/{n:05d}.png": bytes([n % 251]) * 90 for n in range(3_000)}
    archive = make_tar(tmp_path / "data.tar", [tar_member(*item) for item in files.items()])
    assert extract(archive, tmp_path / "data").files == 3_000


def test_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10))
    with pytest.raises(VosflowError, match="No space left|are needed, 0.0 GB are free"):
        extract(make_zip(tmp_path / "data.zip", {"a": b"12345678901"}), tmp_path / "data")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_the_same_name_twice(tmp_path, kind):
    if kind == "tar":
        archive = make_tar(tmp_path / "data.tar", [tar_member("a", b"one"), tar_member("./a", b"two")])
    else:
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive = tmp_path / "data.zip"
            with zipfile.ZipFile(archive, "w") as file:
                file.writestr("a", b"one")
                file.writestr("a", b"two")
    extract(archive, tmp_path / "data")
    assert content(tmp_path / "data") == {"a": b"two"}


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_a_file_that_is_a_folder_too(tmp_path, names):
    archive = make_tar(tmp_path / "data.tar", [tar_member(name, b"x") for name in names])
    with pytest.raises(VosflowError, match="both a file and a folder"):
        extract(archive, tmp_path / "data")
    assert_nothing_is_left(tmp_path / "data")


def test_a_folder_in_the_place_of_a_file(tmp_path):
    archive = make_tar(tmp_path / "data.tar", [tar_member("a", b"x"), tar_member("a", kind=tarfile.DIRTYPE)])
    with pytest.raises(VosflowError, match="both a file and a folder"):
        extract(archive, tmp_path / "data")


def test_names_that_differ_in_case_only(tmp_path, monkeypatch):
    archive = make_zip(tmp_path / "data.zip", {"Bear/0.jpg": b"1", "bear/0.jpg": b"2"})
    extract(archive, tmp_path / "data")
    assert content(tmp_path / "data") == {"Bear/0.jpg": b"1", "bear/0.jpg": b"2"}
    monkeypatch.setattr(archive_module, "_folds_case", lambda folder: True)  # as on macOS
    with pytest.raises(VosflowError, match="differs from another only in upper and lower case"):
        extract(archive, tmp_path / "data")


def test_names_that_are_no_text(tmp_path):
    members = [tar_member("caf\udce9/\udcff.txt", b"1"), tar_member("line\nbreak\x1b[31m.txt", b"2")]
    extract(make_tar(tmp_path / "data.tar", members), tmp_path / "data")
    assert content(tmp_path / "data") == {"caf%E9/%FF.txt": b"1", "line%0Abreak%1B[31m.txt": b"2"}
    assert plain_name("Überraschung 日本.png") == "Überraschung 日本.png"


def test_zip_with_names_in_another_encoding(tmp_path):
    archive = make_zip(tmp_path / "data.zip", {"caf_.txt": b"1"})
    archive.write_bytes(archive.read_bytes().replace(b"caf_.txt", b"caf\xe9.txt"))
    extract(archive, tmp_path / "data")
    assert list(content(tmp_path / "data").values()) == [b"1"]


def test_very_long_and_very_deep_names(tmp_path):
    for name in ("a" * 300, "/".join("d" * 3_000)):
        with pytest.raises(VosflowError, match="cannot be extracted"):
            extract(make_tar(tmp_path / "data.tar", [tar_member(name, b"x")]), tmp_path / "data")
        assert_nothing_is_left(tmp_path / "data")


PIECES = st.sampled_from(["a", "b", "A", "..", ".", "", "/", "c\\d", "e\nf", "x" * 20, "\udce9"])
MEMBERS = st.lists(
    st.tuples(
        st.lists(PIECES, min_size=1, max_size=4).map("/".join),
        st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
        st.lists(PIECES, min_size=1, max_size=3).map("/".join),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(MEMBERS)
def test_nothing_ever_leaves_the_folder(members):
    """Whatever the members are: all of it inside, with links that stay inside; or an error, and nothing."""
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        (top / "outside").write_bytes(b"untouched")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as file:
            for name, kind, link in members:
                file.addfile(*tar_member(name, b"data" if kind == tarfile.REGTYPE else b"", kind, link))
        (top / "data.tar").write_bytes(buffer.getvalue())
        folder = top / "inner" / "data"
        try:
            extract_archive(top / "data.tar", folder, top / "data.json")
        except VosflowError:
            assert not folder.exists()
        else:
            for path in folder.rglob("*"):
                assert path.resolve().is_relative_to(folder.resolve())  # which fails for a circle of links
        assert (top / "outside").read_bytes() == b"untouched"
        assert {path.name for path in top.iterdir()} <= {"outside", "data.tar", "data.json", "inner"}
        assert set(names_in(top / "inner")) <= {"data"} if (top / "inner").exists() else True


def test_one_member(tmp_path):
    archive = make_zip(tmp_path / "data.zip", {"models/a.pth": b"1", "models/b.pth": b"2"})
    assert member_names(archive) == ["models/a.pth", "models/b.pth"]
    extract_member(archive, "models/b.pth", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"2"
    with pytest.raises(VosflowError, match="there is no file models/c.pth in it"):
        extract_member(archive, "models/c.pth", tmp_path / "c")
    (tmp_path / "no.zip").write_bytes(b"<html>")
    with pytest.raises(VosflowError, match="damaged or cannot be read"):
        extract_member(tmp_path / "no.zip", "a", tmp_path / "a")


def test_links_with_bytes_that_no_path_has(tmp_path):
    """A zero byte (written as a pax header), bytes that are not UTF-8, and a path of 5 MB."""
    link, data = tar_member("link", kind=tarfile.SYMTYPE, link="a")
    link.pax_headers = {"linkpath": "a\0b"}
    broken = [make_tar(tmp_path / "zero.tar", [(link, data)], "w:")]
    for name, target in (("bytes.zip", b"\xff\xfe"), ("long.zip", b"a" * 5_000_000)):
        info = zipfile.ZipInfo("link")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(info, target)
        broken.append(tmp_path / name)
    for archive in broken:
        with pytest.raises(VosflowError, match="damaged or cannot be read"):
            extract(archive, tmp_path / "data")
        assert_nothing_is_left(tmp_path / "data")


def test_zip_with_names_that_are_no_names(tmp_path):
    """A name of no letters; a name that says it is UTF-8 and is not."""
    archive = make_zip(tmp_path / "data.zip", {"abcdé": b"1"})
    name, data = "abcdé".encode(), archive.read_bytes()
    for instead in (b"\0" + name[1:], b"\xff" + name[1:]):
        archive.write_bytes(data.replace(name, instead))
        for read in (member_names, lambda path: extract(path, tmp_path / "data")):
            with pytest.raises(VosflowError):
                read(archive)
