"""As much of the Hugging Face hub as it takes to read one data set from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

from file_server import running

DATA_SET = "someone/speech"
_COMMIT = "a" * 40


@dataclass
class HubServer:
    """The data set's files by their paths.

    Attributes:
        fetched: (path, n_bytes) of each part of a file that was sent.
    """

    files: Mapping[str, bytes]
    address: str = ""
    fetched: list[tuple[str, int]] = field(default_factory=list)

    def folder(self, path: str) -> list[dict[str, object]] | None:
        """What is in a folder; None where there is none."""
        prefix = f"{path}/" if path else ""
        names = {file[len(prefix) :].partition("/")[0] for file in self.files if file.startswith(prefix)}
        return [self.entry(prefix + name) for name in sorted(names)] or None

    def entry(self, path: str) -> dict[str, object]:
        kind = "file" if path in self.files else "directory"
        return {"type": kind, "path": path, "oid": "0" * 40, "size": len(self.files.get(path, b""))}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    shop: HubServer

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:  # noqa: N802
        path = unquote(urlparse(self.path).path)
        if found := re.fullmatch(rf"/datasets/{DATA_SET}/resolve/[^/]+/(.+)", path):
            self._file(found[1])
        elif found := re.fullmatch(rf"/api/datasets/{DATA_SET}/tree/[^/]+(?:/(.*))?", path):
            everything = "recursive=true" in self.path.lower()
            self._json([self.shop.entry(file) for file in self.shop.files] if everything else self.shop.folder(found[1] or ""))
        elif re.fullmatch(rf"/api/datasets/{DATA_SET}(/revision/.+)?", path):
            self._json({"id": DATA_SET, "sha": _COMMIT, "private": False, "tags": [], "siblings": [{"rfilename": file} for file in self.shop.files]})
        else:
            self._json(None, "RepoNotFound")

    do_HEAD = do_GET  # noqa: N815

    def _json(self, content: object, error: str = "EntryNotFound") -> None:
        if content is None:
            self._send(404, json.dumps({"error": error}).encode(), {"X-Error-Code": error, "X-Repo-Commit": _COMMIT})
        else:
            self._send(200, json.dumps(content).encode(), {})

    def _file(self, path: str) -> None:
        content = self.shop.files.get(path)
        if content is None:
            self._json(None)
            return
        headers = {"ETag": f'"{path}"', "X-Repo-Commit": _COMMIT, "X-Linked-Size": str(len(content))}
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked:
            start, end = int(asked[1]), min(int(asked[2]), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content = content[start : end + 1]
        if self.command == "GET":
            self.shop.fetched.append((path, len(content)))
        self._send(206 if asked else 200, content, headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def hub(files: Mapping[str, bytes]) -> Iterator[HubServer]:
    """Serve a data set of these files until the block ends."""
    shop = HubServer(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"shop": shop}))
    server.daemon_threads = True
    with running(server) as shop.address:
        yield shop
