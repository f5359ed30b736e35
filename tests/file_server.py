"""A web server on this machine that gives files, and can be made to behave as badly as real ones do."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Files by their path without the first slash, and what goes wrong.

    Attributes:
        ranges: it sends parts where they are asked for.
        tags: the ETag of each file that has one.
        cut_after: lengths at which the next answers break off, one an answer; None for a whole one.
        statuses: HTTP statuses of the next answers, before any is given properly.
        lengths: it says how long what it sends is.
        requests: (path, Range header or "") of all that was asked.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    tags: dict[str, str] = field(default_factory=dict)
    cut_after: list[int | None] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    lengths: bool = True
    requests: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def serving(**files: bytes) -> Iterator[FileServer]:
    """Serve until the block ends; more files may be put into `.files` meanwhile."""
    shop = FileServer(files=dict(files))

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:  # noqa: N802
            name, asked = self.path.lstrip("/"), self.headers.get("Range", "")
            shop.requests.append((name, asked))
            status = shop.statuses.pop(0) if shop.statuses else 200
            if status != 200 or name not in shop.files:
                self.send_error(status if status != 200 else 404)
                return
            content, tag = shop.files[name], shop.tags.get(name, "")
            found = re.fullmatch(r"bytes=(\d+)-", asked)
            start = int(found[1]) if found and shop.ranges and self.headers.get("If-Range", tag) == tag else 0
            if start >= len(content) > 0:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if shop.lengths:
                self.send_header("Content-Length", str(len(content) - start))
            if tag:
                self.send_header("ETag", tag)
            self.end_headers()
            end = shop.cut_after.pop(0) if shop.cut_after else None
            self.wfile.write(content[start : None if end is None else start + end])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with running(server) as shop.address:
        yield shop


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[str]:
    """The address of a server that answers until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
