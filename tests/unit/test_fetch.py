"""Fetching, against a server on this machine that can be cut, changed, or lie."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import gdown
import pytest

from tests.unit import loopback
from tests.unit.loopback import DATA, MD5, OTHER, SHA256, Server, refused_address
from vosflow.catalog import CheckpointEntry, DriveSource, HttpSource, HubSource
from vosflow.datasets import fetch
from vosflow.datasets.expected import Expected
from vosflow.datasets.fetch import fetch_catalog_file, fetch_file, hub_url
from vosflow.errors import VosflowError

server = loopback.server


@pytest.fixture
def get(tmp_path):
    """Fetch to {tmp_path}/downloads/file.bin without pauses; `said` collects the progress lines."""

    def get(*sources, **known):
        sources = [HttpSource(kind="http", url=source) if isinstance(source, str) else source for source in sources]
        options = {"locks": tmp_path / "locks", "backoff": 0, "say": get.said.append}
        return fetch_file(sources, get.path, expected=Expected(**known), **options)

    get.path = tmp_path / "downloads" / "file.bin"
    get.lock = tmp_path / "locks" / "file.bin.json"
    get.said = []
    return get


def left_behind(path: Path) -> list[str]:
    return sorted(other.name for other in path.parent.iterdir() if not other.name.startswith("."))


def unfinished(get, server, count: int, data: bytes = DATA) -> None:
    """Leave what a download killed after `count` bytes leaves."""
    get.path.parent.mkdir(parents=True)
    get.path.with_name("file.bin.part").write_bytes(data[:count])
    get.path.with_name("file.bin.part.json").write_text(json.dumps({"url": server.url, "validator": server.etag}))


@pytest.mark.parametrize("known", [{}, {"size": len(DATA)}, {"sha256": SHA256}, {"md5": MD5, "size": len(DATA)}])
def test_fetches_and_records(get, server, known):
    record = get(server.url, **known)
    assert get.path.read_bytes() == DATA and left_behind(get.path) == ["file.bin"]
    assert (record.sha256, record.md5, record.size_bytes, record.source) == (SHA256, MD5, len(DATA), server.url)
    assert json.loads(get.lock.read_text())["sha256"] == SHA256
    assert (record.compared_with == "nothing") == ("sha256" not in known and "md5" not in known)


def test_file_that_is_there_is_checked_not_fetched(get, server):
    get(server.url, sha256=SHA256)
    get(server.url, sha256=SHA256)
    assert len(server.requests) == 1
    get.path.write_bytes(OTHER)
    with pytest.raises(VosflowError, match="already there is wrong") as caught:
        get(server.url, sha256=SHA256)
    assert SHA256 in str(caught.value) and hashlib.sha256(OTHER).hexdigest() in str(caught.value)
    assert get.path.read_bytes() == OTHER  # a user's file is not deleted


def test_resumes_what_a_killed_download_left(get, server):
    unfinished(get, server, 100_000)
    get(server.url, sha256=SHA256)
    assert server.requests == ["bytes=100000-"] and get.path.read_bytes() == DATA


def test_resumes_after_cuts(get, server):
    server.cuts = [50_000, 60_000, 1]
    get(server.url, sha256=SHA256)
    assert server.requests == [None, "bytes=50000-", "bytes=110000-", "bytes=110001-"]
    assert get.path.read_bytes() == DATA


def test_many_cuts_with_progress_are_no_failure(get, server):
    server.cuts = [10_000] * 12
    get(server.url, sha256=SHA256)
    assert len(server.requests) == 13


def test_cut_without_content_length(get, server):
    server.announce_length, server.cuts = False, [50_000]
    get(server.url, sha256=SHA256, size=len(DATA))
    assert server.requests == [None, "bytes=50000-"] and get.path.read_bytes() == DATA


def test_server_that_ignores_ranges(get, server):
    server.ranges = False
    unfinished(get, server, 100_000)
    get(server.url, sha256=SHA256)
    assert server.requests == ["bytes=100000-"] and get.path.read_bytes() == DATA


def test_content_that_changed_since(get, server):
    unfinished(get, server, 100_000, OTHER)
    server.etag = '"two"'
    get(server.url, sha256=SHA256)
    assert server.requests == ["bytes=100000-"] and get.path.read_bytes() == DATA


def test_content_that_changed_unnoticed_is_fetched_again_once(get, server):
    server.etag = None
    unfinished(get, server, 100_000, OTHER)
    get(server.url, sha256=SHA256)
    assert server.requests == ["bytes=100000-", None] and get.path.read_bytes() == DATA
    assert any("once more from the beginning" in line for line in get.said)


def test_unfinished_download_from_another_source_is_not_continued(get, server):
    unfinished(get, server, 100_000, OTHER)
    get(f"{server.url}?mirror", sha256=SHA256)
    assert server.requests == [None] and get.path.read_bytes() == DATA


def test_unfinished_download_that_was_complete(get, server):
    unfinished(get, server, len(DATA))
    get(server.url, sha256=SHA256)
    assert get.path.read_bytes() == DATA and len(server.requests) == 1  # status 416


def test_unfinished_download_that_is_too_long(get, server):
    unfinished(get, server, len(DATA), DATA)
    get.path.with_name("file.bin.part").open("ab").write(b"more")
    get(server.url, sha256=SHA256)
    assert server.requests == [f"bytes={len(DATA) + 4}-", None] and get.path.read_bytes() == DATA


def test_busy_server_is_tried_again(get, server):
    server.statuses = [503, 429, 500]
    get(server.url, sha256=SHA256)
    assert len(server.requests) == 4


def test_server_that_stays_busy_is_given_up(get, server):
    server.always = 503
    with pytest.raises(VosflowError, match="status 503 .5 attempts without progress"):
        get(server.url)
    assert len(server.requests) == 5


def test_dead_source_falls_through_and_says_so(get, server):
    server.statuses = [404]
    record = get(f"{server.url}/gone", server.url, sha256=SHA256)
    assert record.source == server.url and len(server.requests) == 2
    assert any("/gone failed: status 404" in line for line in get.said)


def test_no_connection_falls_through(get, server):
    with refused_address() as dead:
        assert get(dead, server.url, sha256=SHA256).source == server.url


def test_all_sources_are_named_if_all_fail(get, server):
    server.always = 404
    with refused_address() as dead, pytest.raises(VosflowError) as caught:
        get(server.url, dead)
    message = str(caught.value)
    assert f"{server.url}: status 404" in message and f"{dead}: " in message
    assert str(get.path) in caught.value.remedy and not get.path.exists()


def test_wrong_hash_shows_both_and_keeps_the_file_aside(get, server):
    server.data = OTHER
    with pytest.raises(VosflowError) as caught:
        get(server.url, sha256=SHA256, stated_by="publisher: its README")
    message, wrong = str(caught.value), hashlib.sha256(OTHER).hexdigest()
    assert SHA256 in message and wrong in message and "publisher: its README" in message
    assert left_behind(get.path) == ["file.bin.bad"] and not get.lock.exists()
    assert get.path.with_name("file.bin.bad").read_bytes() == OTHER


def test_wrong_file_falls_through_to_the_next_source(get, server):
    second = Server()
    server.data = OTHER
    assert get(server.url, second.url, sha256=SHA256).source == second.url
    second.close()
    assert get.path.read_bytes() == DATA


def test_wrong_size_is_refused_before_it_is_fetched(get, server):
    with pytest.raises(VosflowError, match="has 256,000 bytes, expected 255,999"):
        get(server.url, size=len(DATA) - 1)
    assert not get.path.exists()


def test_web_page_in_place_of_the_file(get, server):
    server.data = b"  <!DOCTYPE html><html>Please log in</html>"
    for server.content_type in ("text/html; charset=utf-8", "application/octet-stream"):
        with pytest.raises(VosflowError, match="a web page"):
            get(server.url)
    assert not get.path.exists() and not get.lock.exists()


def test_unknown_hash_is_recorded_and_compared_from_then_on(get, server):
    get(server.url)
    get.path.unlink()
    server.data, server.etag = OTHER, '"two"'
    with pytest.raises(VosflowError, match="expected " + SHA256) as caught:
        get(server.url)
    assert "recorded at the first download" in str(caught.value) and not get.path.exists()
    assert json.loads(get.lock.read_text())["sha256"] == SHA256
    get.lock.unlink()
    assert get(server.url).sha256 == hashlib.sha256(OTHER).hexdigest()


def test_damaged_record_is_named(get, server):
    get(server.url)
    get.lock.write_text("{")
    with pytest.raises(VosflowError, match="record is damaged"):
        get(server.url)
    get.lock.write_text('{"format": 9}')
    with pytest.raises(VosflowError, match="record is not of this version"):
        get(server.url)


def test_full_disk(get, server, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000))
    with pytest.raises(VosflowError, match="the disk has 0.0 GB free"):
        get(server.url, size=len(DATA))
    assert server.requests == []


def test_folder_that_cannot_be_written(get, server, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch, "http_file", full)
    with pytest.raises(VosflowError, match="No space left on device"):
        get(server.url)


def test_hub_files_are_plain_addresses(get, server, monkeypatch):
    model = HubSource(kind="hf", repo="facebook/sam2-hiera-tiny", file="a.pt")
    dataset = HubSource(kind="hf", repo="FudanCVL/MOSEv2", file="a.tar.gz", repo_type="dataset", revision="abc")
    assert hub_url(model) == "https://huggingface.co/facebook/sam2-hiera-tiny/resolve/main/a.pt"
    assert hub_url(dataset) == "https://huggingface.co/datasets/FudanCVL/MOSEv2/resolve/abc/a.tar.gz"
    monkeypatch.setattr(fetch, "hub_url", lambda source: f"{server.url}/{source.file}")
    assert get(model, sha256=SHA256).source == f"{server.url}/a.pt"


def test_catalog_entry(tmp_path, server):
    entry = CheckpointEntry(
        file="file.bin",
        sources=({"kind": "http", "url": server.url},),
        sha256=SHA256,
        evidence="publisher",
        source="its README",
        network="sam2",
        config="c",
        licence="l",
    )
    record = fetch_catalog_file(entry, tmp_path / "file.bin", locks=tmp_path / "locks")
    assert record.compared_with == "publisher: its README"


def test_two_at_once_fetch_it_once(get, server):
    threads = [threading.Thread(target=get, args=(server.url,), kwargs={"sha256": SHA256}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1 and get.path.read_bytes() == DATA


# ---- Google Drive: only the one call of gdown is replaced -----------------------------------------------------------

DRIVE = DriveSource(kind="gdrive", id="abc")
QUOTA = "Too many users have viewed or downloaded this file recently. Please try accessing the file again later."


def drive(monkeypatch, answer) -> list[dict]:
    calls = []

    def download(**options):
        calls.append(options)
        return answer(options)

    monkeypatch.setattr(gdown, "download", download)
    return calls


def deliver(data: bytes):
    return lambda options: Path(options["output"]).write_bytes(data)


def refuse(error: Exception):
    def answer(options):
        Path(options["output"] + "12345678.part").write_bytes(b"half")
        raise error

    return answer


def test_drive(get, monkeypatch):
    calls = drive(monkeypatch, deliver(DATA))
    record = get(DRIVE, sha256=SHA256)
    assert record.source == "Google Drive abc" and left_behind(get.path) == ["file.bin"]
    assert calls[0]["id"] == "abc" and calls[0]["resume"] is True


def test_drive_takes_the_arguments_that_are_given(get, monkeypatch):
    import inspect

    known = inspect.signature(gdown.download).parameters
    calls = drive(monkeypatch, deliver(DATA))
    get(DRIVE)
    assert set(calls[0]) <= set(known)


def test_drive_keeps_an_unfinished_download_for_the_next_time(get, monkeypatch):
    drive(monkeypatch, refuse(gdown.exceptions.DownloadError("Download is incomplete")))
    with pytest.raises(VosflowError, match="Download is incomplete"):
        get(DRIVE)
    kept = get.path.with_name("file.bin.abc.gdrive")
    assert [path.name for path in kept.iterdir()] == ["file.bin12345678.part"]
    drive(monkeypatch, deliver(DATA))
    get(DRIVE, sha256=SHA256)
    assert left_behind(get.path) == ["file.bin"]


def test_two_drive_files_do_not_share_an_unfinished_download(get, monkeypatch):
    calls = drive(monkeypatch, refuse(gdown.exceptions.DownloadError("gone")))
    with pytest.raises(VosflowError):
        get(DRIVE, DriveSource(kind="gdrive", id="def"))
    assert len({Path(call["output"]).parent for call in calls}) == 2


def test_drive_quota_is_recognised(get, monkeypatch, server):
    calls = drive(monkeypatch, refuse(gdown.exceptions.FileURLRetrievalError(QUOTA)))
    with pytest.raises(VosflowError, match="quota is used up") as caught:
        get(DRIVE)
    assert "24 hours" in caught.value.remedy and len(calls) == 1
    assert get(DRIVE, server.url, sha256=SHA256).source == server.url


def test_drive_quota_page_in_place_of_the_file(get, monkeypatch):
    drive(monkeypatch, deliver(f"<html><body>{QUOTA}</body></html>".encode()))
    with pytest.raises(VosflowError, match="quota is used up .Drive sent a web page"):
        get(DRIVE)
    assert left_behind(get.path) == ["file.bin.abc.gdrive"] and not os.listdir(
        get.path.with_name(left_behind(get.path)[0])
    )


def test_drive_wrong_file_after_a_resume_is_fetched_again_once(get, monkeypatch):
    (get.path.parent / "file.bin.abc.gdrive").mkdir(parents=True)
    leftover = get.path.parent / "file.bin.abc.gdrive" / "file.bin12345678.part"
    leftover.write_bytes(b"half")

    def answer(options):
        data = OTHER if leftover.exists() else DATA
        leftover.unlink(missing_ok=True)
        Path(options["output"]).write_bytes(data)

    calls = drive(monkeypatch, answer)
    get(DRIVE, sha256=SHA256)
    assert len(calls) == 2 and get.path.read_bytes() == DATA


def test_drive_downloads_wait_for_each_other(get, monkeypatch, tmp_path):
    running, most = [], []

    def answer(options):
        running.append(1)
        most.append(len(running))
        threading.Event().wait(0.05)
        Path(options["output"]).write_bytes(DATA)
        running.pop()

    drive(monkeypatch, answer)
    threads = [
        threading.Thread(
            target=fetch_file,
            args=([DRIVE], tmp_path / name),
            kwargs={"locks": tmp_path / "locks", "say": get.said.append},
        )
        for name in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
