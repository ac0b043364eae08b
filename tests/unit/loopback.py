"""A server on this machine that can be cut, changed, or lie."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

DATA = bytes(range(256)) * 1_000
SHA256, MD5 = hashlib.sha256(DATA).hexdigest(), hashlib.md5(DATA).hexdigest()
OTHER = DATA[::-1]


class Server:
    """Serves `data` under any path; how well is told by the attributes."""

    def __init__(self) -> None:
        self.data = DATA
        self.ranges = True  # answer to Range headers
        self.etag: str | None = '"one"'
        self.cuts: list[int] = []  # close the connection after so many bytes, once for each
        self.statuses: list[int] = []  # answer with these first
        self.always: int | None = None
        self.content_type = "application/octet-stream"
        self.announce_length = True
        self.headers: dict[str, str] = {}  # sent with each file
        self.gate = threading.Event()  # closed, it answers nobody
        self.gate.set()
        self.redirects: dict[str, str] = {}  # path: address
        self.requests: list[str | None] = []  # the Range header of each
        self.authorizations: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *arguments) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/file"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.gate.set()
        self._http.shutdown()
        self._http.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        self.requests.append(wanted)
        self.authorizations.append(handler.headers.get("Authorization"))
        self.gate.wait()
        if handler.path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[handler.path])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        status = self.statuses.pop(0) if self.statuses else self.always
        if status:
            handler.send_response(status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        start = 0
        if wanted and self.ranges and handler.headers.get("If-Range") in (None, self.etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.data):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(self.data)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(self.data) - 1}/{len(self.data)}")
        else:
            handler.send_response(200)
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.send_header("Content-Type", self.content_type)
        for header in self.headers.items():
            handler.send_header(*header)
        if self.announce_length:
            handler.send_header("Content-Length", str(len(self.data) - start))
        handler.end_headers()
        body = self.data[start:]
        if self.cuts:
            body = body[: self.cuts.pop(0)]
        with contextlib.suppress(ConnectionError):
            handler.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server for one test."""
    server = Server()
    yield server
    server.close()


@contextlib.contextmanager
def refused_address() -> Iterator[str]:
    """An address at which nobody listens, and nobody else can: connections are refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/file"
