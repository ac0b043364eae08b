"""Fetching where something is wrong: no internet, walls, servers that are slow or lie, a full disk, two at once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import gdown
import pytest
import requests

from tests.unit import loopback
from tests.unit.loopback import DATA, OTHER, SHA256, Server, refused_address
from vosflow.catalog import Dataset, DriveFolderSource, DriveSource, HttpSource, HubSource
from vosflow.datasets import drive, fetch, reporter, transfer
from vosflow.datasets.expected import Expected, file_digests
from vosflow.datasets.fetch import fetch_archive, fetch_file
from vosflow.datasets.listing import catalog_rows, print_catalog
from vosflow.errors import VosflowError

HOUSE = Path(__file__).resolve().parents[2]
BLOB = hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest()
server = loopback.server


@pytest.fixture
def get(tmp_path, monkeypatch):
    """Fetch to {tmp_path}/data/file.bin; `pauses` collects those between two attempts, none of which is waited for."""

    def get(*sources, **known):
        sources = [HttpSource(kind="http", url=source) if isinstance(source, str) else source for source in sources]
        return fetch_file(sources, get.path, expected=Expected(**known), locks=tmp_path / "locks", say=get.said.append)

    get.path, get.said, get.pauses = tmp_path / "data" / "file.bin", [], []
    for module in (transfer, drive):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=get.pauses.append))
    monkeypatch.setattr(transfer, "ATTEMPTS", 3)
    return get


def final_names(path: Path) -> list[str]:
    return sorted(other.name for other in path.parent.iterdir() if other == path or other.suffix == ".fetched")


# ---- no internet ----------------------------------------------------------------------------------------------------


def test_without_internet_nothing_is_tried_twice(get, monkeypatch):
    def nothing(*arguments, **options):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    sources = [
        "https://dl.example.org/file",
        HubSource(kind="hf", repo="a/b", file="file"),
        DriveSource(kind="gdrive", id="abc"),
        DriveFolderSource(kind="gdrive_folder", id="abc", file="file"),
    ]
    with pytest.raises(VosflowError, match="its name cannot be resolved") as caught:
        get(*sources)
    assert get.pauses == [] and len([line for line in get.said if "failed" in line]) == 4
    assert "snakemake fetch_all" in caught.value.remedy


def test_dead_server_is_not_tried_twice(get, server):
    with refused_address() as dead:
        assert get(dead, server.url, sha256=SHA256).source == server.url
    assert get.pauses == [] and any("no connection (" in line and "refused" in line for line in get.said)


def test_connection_that_is_lost_on_the_way_is_tried_again(get, server, monkeypatch):
    """A network that goes away during a long download comes back; one that was never there does not."""
    attempts = []
    get_now = requests.get

    def get_or_fail(*arguments, **options):
        attempts.append(1)
        if len(attempts) == 2:
            return get_now(dead, **options)
        return get_now(*arguments, **options)

    server.cuts = [100_000]
    monkeypatch.setattr(requests, "get", get_or_fail)
    with refused_address() as dead:
        get(server.url, sha256=SHA256)
    assert len(attempts) == 3 and server.requests == [None, "bytes=100000-"]


# ---- answers that are no file ---------------------------------------------------------------------------------------


def test_server_that_does_not_answer(get, server, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", (5, 0.05))
    server.gate.clear()
    with pytest.raises(VosflowError, match=r"ReadTimeout.*3 attempts without progress"):
        get(server.url)
    assert len(get.pauses) == 2 and final_names(get.path) == []


def test_redirects_are_followed(get, server):
    server.redirects["/moved"] = server.url
    get(server.url.replace("/file", "/moved"), sha256=SHA256)
    assert get.path.read_bytes() == DATA


def test_circle_of_redirects(get, server):
    server.redirects["/file"] = server.url
    with pytest.raises(VosflowError, match="TooManyRedirects"):
        get(server.url)
    assert get.pauses == [] and final_names(get.path) == []


@pytest.mark.parametrize("status", [401, 403])
def test_gated_weights(get, server, monkeypatch, status):
    monkeypatch.setenv("HF_ENDPOINT", server.url.removesuffix("/file"))
    server.always = status
    with pytest.raises(VosflowError, match="Accept the terms at https://huggingface.co/facebook/sam3") as caught:
        get(HubSource(kind="hf", repo="facebook/sam3", file="sam3.pt"))
    assert "HF_TOKEN=" in str(caught.value) and get.pauses == []


def test_token_is_for_hugging_face_only(get, server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_ENDPOINT", server.url.removesuffix("/file"))
    other = Server()
    other_host = other.url.replace("127.0.0.1", "localhost")
    server.redirects["/a/b/resolve/main/file"] = other_host
    get(HubSource(kind="hf", repo="a/b", file="file"), sha256=SHA256)
    other.close()
    assert server.authorizations == ["Bearer secret"] and other.authorizations == [None]


# ---- hashes ---------------------------------------------------------------------------------------------------------


def test_digests_are_those_of_git(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    found = file_digests(tmp_path / "file")
    assert (found.sha256, found.git_blob_sha1) == (SHA256, BLOB)


def test_id_in_git_identifies_a_file(get, server):
    assert get(server.url, git_blob_sha1=BLOB).sha256 == SHA256
    get.path.unlink()
    server.data, server.etag = OTHER, '"two"'
    with pytest.raises(VosflowError, match=f"its id in git is [0-9a-f]{{40}}, expected {BLOB}"):
        get(server.url, git_blob_sha1=BLOB)


def test_first_digits_are_compared_and_the_rest_is_recorded(get, server, tmp_path):
    with pytest.raises(VosflowError, match=f"its sha256, {SHA256}, begins with {SHA256[:8]}, expected 00000000"):
        get(server.url, sha256_prefix="00000000")
    get(server.url, sha256_prefix=SHA256[:8])
    record = json.loads((tmp_path / "locks/file.bin.json").read_text())
    assert record["sha256"] == SHA256
    get.path.write_bytes(OTHER)
    with pytest.raises(VosflowError, match="recorded at the first download"):
        get(server.url, sha256_prefix=SHA256[:8])


# ---- the disk -------------------------------------------------------------------------------------------------------


def test_disk_that_becomes_full(get, server):
    """The system refuses to let a file grow, as a full disk does; with room again, the download is resumed."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(VosflowError, match="cannot be written") as caught:
            get(server.url, sha256=SHA256)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "resumed" in caught.value.remedy and final_names(get.path) == []
    get(server.url, sha256=SHA256)
    assert server.requests == [None, "bytes=100000-"] and get.path.read_bytes() == DATA


def test_imported_file_that_is_gone(get, server, tmp_path):
    get.path.parent.mkdir()
    get.path.symlink_to(tmp_path / "unmounted")
    with pytest.raises(VosflowError, match="imported from .*/unmounted, which is not there"):
        get(server.url)
    assert get.path.is_symlink() and server.requests == []


# ---- others at the same time ----------------------------------------------------------------------------------------


def test_two_processes_fetch_it_once(server, tmp_path):
    code = (  # each tells when it is about to take the lock; the server answers when both have
        "import sys; from vosflow.catalog import HttpSource; from vosflow.datasets import fetch;"
        "from vosflow.datasets.expected import Expected; acquire = fetch.filelock.FileLock.acquire\n"
        "def tell_and_acquire(lock):\n    print('acquires', flush=True); return acquire(lock)\n"
        "fetch.filelock.FileLock.acquire = tell_and_acquire\n"
        "fetch.fetch_file([HttpSource(kind='http', url=sys.argv[1])], sys.argv[2], locks=sys.argv[3],"
        " expected=Expected(sha256=sys.argv[4]))"
    )
    server.gate.clear()
    command = [sys.executable, "-c", code, server.url, tmp_path / "file.bin", tmp_path / "locks", SHA256]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, cwd=HOUSE, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ["acquires\n"] * 2
    server.gate.set()
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert len(server.requests) == 1 and (tmp_path / "file.bin").read_bytes() == DATA
    assert sum("already there" in text for text in told) == 1


# ---- Google Drive ---------------------------------------------------------------------------------------------------

FOLDER = DriveFolderSource(kind="gdrive_folder", id="folder", file="model.pth")


def answer(monkeypatch, listing, download=None):
    """Replace the two calls of gdown; `listing` are the files of the folder, as (id, path)."""
    files = [SimpleNamespace(id=id, path=path) for id, path in listing]
    monkeypatch.setattr(gdown, "download_folder", lambda **options: files)
    asked = []

    def fetch_one(**options):
        asked.append(options["id"])
        if download:
            raise download.pop(0) if len(download) > 1 else download[0]
        Path(options["output"]).write_bytes(DATA)

    monkeypatch.setattr(gdown, "download", fetch_one)
    return asked


def test_file_of_a_drive_folder_is_found_by_its_name(get, monkeypatch):
    asked = answer(monkeypatch, [("1", "RDE/model_yv.pth"), ("2", "RDE/model.pth")])
    assert get(FOLDER).source == "Google Drive folder folder, model.pth" and asked == ["2"]
    assert sorted(os.listdir(get.path.parent)) == [".file.bin.lock", "file.bin"]


def test_drive_folder_without_the_file(get, monkeypatch):
    answer(monkeypatch, [("1", "RDE/other.pth")])
    with pytest.raises(VosflowError, match="no files called model.pth; it has other.pth"):
        get(FOLDER)


def test_quota_is_asked_about_once(get, monkeypatch):
    refusal = gdown.exceptions.FileURLRetrievalError("Too many users have viewed or downloaded this file recently.")
    asked = answer(monkeypatch, [], [refusal])
    with pytest.raises(VosflowError, match="quota is used up") as caught:
        get(DriveSource(kind="gdrive", id="abc"))
    assert asked == ["abc"] and get.pauses == []
    assert "do not try again at once" in caught.value.remedy and "your own Drive" in caught.value.remedy


def test_drive_that_will_not_resume_is_begun_anew(get, monkeypatch):
    folder = get.path.with_name("file.bin.abc.gdrive")
    folder.mkdir(parents=True)
    (folder / "file.bin12345678.part").write_bytes(b"half")
    calls = []

    def download(**options):
        calls.append(sorted(path.name for path in folder.iterdir()))
        if len(calls) == 1:
            raise gdown.exceptions.DownloadError("Server did not honor the requested byte range; ...")
        Path(options["output"]).write_bytes(DATA)

    monkeypatch.setattr(gdown, "download", download)
    get(DriveSource(kind="gdrive", id="abc"), sha256=SHA256)
    assert calls == [["file.bin12345678.part"], []]


@pytest.fixture
def drive_server(server, monkeypatch, tmp_path):
    """gdown itself, whose requests to Google are answered by the server of this test."""
    monkeypatch.setattr(sys.modules["gdown.download"], "DEFAULT_COOKIES_FILE", str(tmp_path / "cookies.txt"))
    send = requests.Session.request

    def request(self, method, url, **options):
        return send(self, method, url.replace("https://drive.google.com", server.url.removesuffix("/file")), **options)

    monkeypatch.setattr(requests.Session, "request", request)
    return server


def test_what_gdown_makes_of_a_file(get, drive_server):
    drive_server.headers["Content-Disposition"] = 'attachment; filename="other.bin"'
    drive_server.cuts = [100_000]
    get(DriveSource(kind="gdrive", id="abc"), sha256=SHA256)
    assert get.path.read_bytes() == DATA and len(get.pauses) == 1


def test_what_gdown_makes_of_the_quota_page(get, drive_server):
    text = "Too many users have viewed or downloaded this file recently. Please try accessing the file again later."
    drive_server.data = f'<html><p class="uc-error-subcaption">{text}</p></html>'.encode()
    drive_server.content_type = "text/html; charset=utf-8"
    with pytest.raises(VosflowError, match="quota is used up"):
        get(DriveSource(kind="gdrive", id="abc"))
    assert len(drive_server.requests) == 1 and get.pauses == []


# ---- walls ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def walled(monkeypatch):
    facts = Dataset(
        name="SA-V",
        access="registration",
        register_at="https://walled.example.org/form",
        licence="CC BY 4.0",
        archives={"val": {"file": "sav_val.tar", "evidence": "unknown", "source": "its README"}},
        splits={},
    )
    monkeypatch.setattr(fetch, "find_dataset", lambda name: facts)
    monkeypatch.setattr(fetch, "find_archive", lambda name, archive: facts.archives[archive])


def test_wall_says_where_to_register(walled, tmp_path):
    with pytest.raises(VosflowError, match="SA-V is given to registered people only") as caught:
        fetch_archive("sav", "val", tmp_path, locks=tmp_path / "locks")
    assert "register and get sav_val.tar at https://walled.example.org/form" in caught.value.remedy
    assert "--import PATH --dataset sav --archive val" in caught.value.remedy
    assert "paths: datasets: {sav: FOLDER}" in caught.value.remedy


def test_copies_of_walled_data_are_named_but_not_fetched(tmp_path):
    with pytest.raises(VosflowError, match="YouTube-VOS 2018 is given to registered people only") as caught:
        fetch_archive("youtubevos2018", "valid", tmp_path, locks=tmp_path / "locks")
    assert "https://youtube-vos.org" in caught.value.remedy and "Google Drive 1-QrceIl5s" in caught.value.remedy


def test_data_behind_a_page(tmp_path):
    with pytest.raises(VosflowError, match="BL30K cannot be fetched by a program") as caught:
        fetch_archive("bl30k", "a", tmp_path, locks=tmp_path / "locks")
    assert "https://doi.org/10.13012/B2IDB-1702934_V1" in caught.value.remedy


def test_walled_file_that_was_put_there_is_taken(walled, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/sav_val.tar").write_bytes(DATA)
    assert fetch_archive("sav", "val", tmp_path, locks=tmp_path / "locks").sha256 == SHA256


# ---- what is shown --------------------------------------------------------------------------------------------------


def test_lines_in_a_log(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr(reporter.time, "monotonic", lambda: now[0])
    advance = reporter.LineReporter(said.append).progress("file", 100_000_000)
    for now[0], have in ((0, 0), (5, 20_000_000), (10, 50_000_000), (12, 60_000_000), (20, 90_000_000)):
        advance(have)
    assert said == ["file: 50 of 100 MB (50 %), 5.0 MB/s", "file: 90 of 100 MB (90 %), 4.5 MB/s"]


def test_bar_on_a_terminal(server, tmp_path):
    """The script on a pseudo-terminal shows a bar, and messages in lines of their own."""
    import pty

    code = (
        "import sys; from vosflow.catalog import HttpSource; from vosflow.datasets.fetch import fetch_file;"
        "fetch_file([HttpSource(kind='http', url=sys.argv[1])], sys.argv[2], locks=sys.argv[3])"
    )
    main, terminal = pty.openpty()
    command = [sys.executable, "-c", code, server.url, tmp_path / "file.bin", tmp_path / "locks"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, cwd=HOUSE, stderr=terminal, env=environment) as job:
        os.close(terminal)
        written = bytearray()
        with contextlib.suppress(OSError):  # so Linux says that nobody has the terminal open any more
            while part := os.read(main, 4096):  # at once: it holds little, and whoever writes more waits
                written += part
    os.close(main)
    text = written.decode()
    assert job.returncode == 0 and "━" in text and f"sha256 {SHA256}" in text


def test_what_circulates_is_told(tmp_path, capsys):
    """An archive with an old md5 that copies of a script still expect; numbers that differ from the publisher's."""
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/DAVIS-data.zip").write_bytes(b"an archive of another year")
    with pytest.raises(VosflowError, match="its md5 is .*, expected 0cb3cf9c.*; md5 464ebb59.* still circulates"):
        fetch_archive("davis2016", "data", tmp_path, locks=tmp_path / "locks")
    told = capsys.readouterr().err
    assert "note on DAVIS 2016: the archive of DAVIS 2017 also lists" in told
    assert "note on DAVIS-data.zip: md5 464ebb59" in told


def test_the_list_of_some_files_tells_what_is_noted_on_them(tmp_path, capsys):
    print_catalog(tmp_path, "davis2017 test-dev")
    few = capsys.readouterr().out
    assert "davis2017: frames are those of the publisher" in few and "464ebb59" not in few
    print_catalog(tmp_path)
    assert "frames are those of the publisher" not in capsys.readouterr().out  # a table, and not all notes


def test_a_word_of_the_list_is_not_sought_in_how_files_are_checked(tmp_path):
    assert {row.kind for row in catalog_rows(tmp_path, "rde")} == {"rde"}  # and not all that is "recorded"


def test_the_remedy_is_for_the_data_folder_in_use(tmp_path):
    data = tmp_path / "my data"
    with pytest.raises(VosflowError) as caught:
        fetch_archive("sav", "val", data, locks=data / "locks")
    assert f"--dataset sav --archive val --data '{data}'" in caught.value.remedy
    with pytest.raises(VosflowError) as caught:
        fetch_archive("sav", "val", "data", locks=data / "locks")
    assert "--archive val (PATH" in caught.value.remedy


def raw_server(answer: bytes) -> str:
    """The address of a server that gives one answer, byte by byte as it is here."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening, listening.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/file"


@pytest.mark.parametrize(
    "answer",
    [
        b"200 OK\r\nContent-Length: many\r\n\r\nabc",
        b"200 OK\r\nContent-Length: 3, 3\r\n\r\nabc",
        b"503 Busy\r\nRetry-After: \xb2\r\nContent-Length: 0\r\n\r\n",
        b"302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n",
        b"302 Found\r\nLocation: http://\xff\xfe/\r\nContent-Length: 0\r\n\r\n",
        b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc",
    ],
)
def test_answers_that_make_no_sense_fall_through_to_the_next_source(get, server, answer):
    record = get(raw_server(b"HTTP/1.1 " + answer), server.url, sha256=SHA256)
    assert record.source == server.url and get.path.read_bytes() == DATA and get.pauses == []
    assert any("its answer makes no sense" in line for line in get.said)


def test_page_of_drive_that_gdown_does_not_understand(get, server, monkeypatch):
    def lost(**options):
        raise AttributeError("'NoneType' object has no attribute 'group'")

    monkeypatch.setattr("gdown.download", lost)
    assert get(DriveSource(kind="gdrive", id="abc"), server.url, sha256=SHA256).source == server.url
    assert any("its page is not understood" in line for line in get.said)


def test_what_is_said_of_a_file_that_passed(get, server):
    get(server.url, size=len(DATA), sha256=SHA256)
    assert get.said[-1].endswith("size and sha256 as expected")
    get.path.unlink()
    get.path = get.path.with_name("other.bin")
    get(server.url, size=len(DATA))
    assert get.said[-1].endswith("no hash is known to compare it with, so its own is recorded")
