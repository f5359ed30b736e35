"""Fetch the archives of public corpora: resumed where they broke off, checked, and unpacked once.

Beside each archive NAME lies `NAME.fetched.json`, written last of all: it holds the checksum and says that the archive was unpacked whole.
What is not whole yet is called `NAME.part`.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiograft.data.archives import unpack
from audiograft.data.manifest import replace_text
from audiograft.data.sources.base import option
from audiograft.types import ConfigError, DataError

MIRROR_VARIABLE = "AUDIOGRAFT_MIRROR"
"""The environment variable that names a mirror where no option does."""
OnBytes = Callable[[int, int | None], None]
"""Called with the number of bytes that are here, and of all where that is known."""

_ATTEMPTS = 5
"""In a row without a byte more than before; a line that breaks once an hour may break any number of times."""
_FIRST_WAIT_S = 1.0
"""Before the second attempt; doubled with each."""
_TIMEOUT_S = 60.0
_BLOCK_BYTES = 1 << 20
_LINE_EVERY_S = 15.0
_WORTH_ANOTHER_TRY = frozenset((408, 425, 429, 500, 502, 503, 504))
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True)
class Download:
    """One file of a corpus.

    Attributes:
        address: where its publisher has it.
        file_name: what it is called here, and on mirrors.
        checksum: as published, `md5:...` or `sha256:...`; with none, what comes first is recorded, and compared with later.
        unpack: it is an archive, of which only the content is wanted.
    """

    address: str
    file_name: str
    checksum: str | None = None
    unpack: bool = True


@dataclass(frozen=True)
class _Record:
    """What is known of a file that was fetched whole. Size and time tell whether it's still the same without reading it."""

    checksum: str
    n_bytes: int
    modified_ns: int
    unpacked: bool


def download_option() -> Any:
    """The field of a source that has a public address."""
    return option("Fetch what is missing into the folder first.", False)


def mirror_option() -> Any:
    """The field of such a source that names another address."""
    return option(f"Address of a folder with the same archives, in place of their publisher's; by default what {MIRROR_VARIABLE} names.", None)


class _BrokenError(Exception):
    """A stream that broke off, or a server with troubles of its own: worth another try."""


def fetch(download: Download, folder: str | Path, mirror: str | None = None, on_bytes: OnBytes | None = None) -> Path:
    """Have a file of a corpus in a folder: found there, resumed, or fetched; checked; and unpacked there if it is to be.

    Processes that want the same file at once wait for the first of them. An archive that was unpacked may be deleted: it is not fetched again.

    Args:
        download: the file.
        folder: made where it is missing.
        mirror: base address from which it is taken instead, under its file name; else that of `AUDIOGRAFT_MIRROR`.
        on_bytes: progress; as lines on stderr by default.

    Returns:
        The file, or the folder where it was unpacked.

    Raises:
        DataError: it can't be had (what is there stays, and is resumed), is not what was published (it is put aside as `NAME.wrong`), or can't be
            unpacked.
    """
    folder = Path(folder)
    path = folder / download.file_name
    record = _read_record(path)
    if record is not None and record.unpacked and download.unpack:
        return folder
    address = _address(download, mirror)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder / f".{path.name}.lock"):
            record = _read_record(path)
            if record is None or not (record.unpacked and download.unpack):
                _fetch_locked(download, path, address, record, on_bytes or _Lines(path.name))
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error.strerror or error}): free space or correct the permissions, then run it again") from error
    return folder if download.unpack else path


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Wait until no other process is in here with the same lock."""
    with lock.open("w") as file:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch_locked(download: Download, path: Path, address: str, record: _Record | None, on_bytes: OnBytes) -> None:
    if not path.exists():
        _download(address, path, on_bytes)
    state = path.stat()
    if record is None or (state.st_size, state.st_mtime_ns) != (record.n_bytes, record.modified_ns):
        record = _checked(download, path, record)
        if not download.unpack:
            _write_record(path, record)
    if download.unpack:
        unpack(path, path.parent)
        _write_record(path, _Record(record.checksum, record.n_bytes, record.modified_ns, unpacked=True))


def _address(download: Download, mirror: str | None) -> str:
    mirror = mirror or os.environ.get(MIRROR_VARIABLE)
    address = download.address if not mirror else f"{mirror.rstrip('/')}/{urllib.parse.quote(download.file_name)}"
    if not address.startswith(("https://", "http://")):
        raise ConfigError(f"{mirror}: no address of a mirror: give one that begins with https://")
    return address


def _checked(download: Download, path: Path, record: _Record | None) -> _Record:
    """Compare a whole file with what was published, else with what came the first time."""
    expected = download.checksum or (record.checksum if record is not None else None)
    algorithm = expected.partition(":")[0] if expected else "sha256"
    with path.open("rb") as file:
        found = f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
    if expected and found != expected.lower():
        aside = path.replace(path.with_name(path.name + ".wrong"))
        if download.checksum:
            raise DataError(f"{aside}: is {found}, but {expected} was published: run it again to fetch it anew, or from another mirror")
        raise DataError(f"{aside}: is {found}, but {expected} came the first time: if the corpus has a new edition, delete {_record_path(path)}")
    state = path.stat()
    return _Record(found, state.st_size, state.st_mtime_ns, unpacked=False)


def _download(address: str, path: Path, on_bytes: OnBytes) -> None:
    """Fetch into `NAME.part`, as often as it takes, and rename."""
    part = path.with_name(path.name + ".part")
    attempts, furthest_bytes = 0, 0
    while True:
        try:
            _continue_part(address, part, on_bytes)
            break
        except _BrokenError as error:
            have_bytes = part.stat().st_size if part.exists() else 0
            attempts = attempts + 1 if have_bytes <= furthest_bytes else 1
            furthest_bytes = max(furthest_bytes, have_bytes)
            if attempts == _ATTEMPTS:
                raise DataError(f"{address}: broke off at {_shown(have_bytes)} ({error}): run it again, it goes on from there") from error
            time.sleep(_FIRST_WAIT_S * 2 ** (attempts - 1))
    part.replace(path)
    _validator_path(part).unlink(missing_ok=True)


def _continue_part(address: str, part: Path, on_bytes: OnBytes) -> None:
    """One request, for what is missing."""
    have_bytes = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "audiograft"}
    if have_bytes:
        headers["Range"] = f"bytes={have_bytes}-"
        with suppress(FileNotFoundError):
            # The server then sends the whole file if it is another one by now, rather than the end of that one.
            headers["If-Range"] = _validator_path(part).read_text(encoding="utf-8")
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=_TIMEOUT_S) as response:
            start, total_bytes = _extent(response, have_bytes)
            _refuse_full_disk(address, part, start, total_bytes)
            _note_validator(part, response)
            _receive(response, part, start, total_bytes, on_bytes)
    except urllib.error.HTTPError as error:
        with error:
            _judge(error, address, part, have_bytes)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DataError(f"{address}: its certificate is not trusted ({reason.verify_message}): correct the clock, or name a mirror") from error
        raise _BrokenError(str(reason) or type(reason).__name__) from error


def _extent(response: http.client.HTTPResponse, have_bytes: int) -> tuple[int, int | None]:
    """(where what the server sends begins, length of the whole where it says so). A server may ignore that a part was asked for."""
    if response.status == http.client.PARTIAL_CONTENT:
        found = _RANGE.match(response.headers.get("Content-Range", ""))
        if found is None or found[1] is None or int(found[1]) != have_bytes:
            raise _BrokenError("the server sent another part than was asked for")
        return have_bytes, None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _receive(response: http.client.HTTPResponse, part: Path, start: int, total_bytes: int | None, on_bytes: OnBytes) -> None:
    have_bytes = start
    with part.open("ab" if start else "wb") as file:
        on_bytes(have_bytes, total_bytes)
        # read1 hands over what came, where read would wait for a full block and lose it to a broken line.
        while block := _read(response):
            file.write(block)
            have_bytes += len(block)
            on_bytes(have_bytes, total_bytes)
    if total_bytes is not None and have_bytes != total_bytes:
        raise _BrokenError(f"{_shown(total_bytes)} were announced")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(_BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:  # apart from the disk's errors, which no other try mends
        raise _BrokenError(str(error) or type(error).__name__) from error


def _judge(error: urllib.error.HTTPError, address: str, part: Path, have_bytes: int) -> None:
    """What to make of an answer that is no file: done, worth another try, or hopeless."""
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        found = _RANGE.match(error.headers.get("Content-Range", ""))
        if found is not None and found[2] == str(have_bytes):
            return  # there was nothing left to fetch
        part.unlink()
        raise _BrokenError("what was there is longer than the file") from error
    if error.code in _WORTH_ANOTHER_TRY:
        raise _BrokenError(f"HTTP {error.code} {error.reason}") from error
    goal = part.with_name(part.name.removesuffix(".part"))
    raise DataError(f"{address}: HTTP {error.code} {error.reason}: name a mirror, or fetch it by hand as {goal}") from error


def _refuse_full_disk(address: str, part: Path, start: int, total_bytes: int | None) -> None:
    free_bytes = shutil.disk_usage(part.parent).free
    if total_bytes is not None and total_bytes - start > free_bytes:
        raise DataError(f"{address}: needs {_shown(total_bytes - start)}, and {part.parent} has {_shown(free_bytes)} left: free space")


def _validator_path(part: Path) -> Path:
    return part.with_name(part.name + ".from")


def _note_validator(part: Path, response: http.client.HTTPResponse) -> None:
    """Keep what tells this edition of the file from others (RFC 9110, section 13.1.5), for the next request."""
    tag = response.headers.get("ETag", "")
    validator = tag if tag.startswith('"') else response.headers.get("Last-Modified", "")
    if validator:
        replace_text(_validator_path(part), validator)
    else:
        _validator_path(part).unlink(missing_ok=True)


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".fetched.json")


def _read_record(path: Path) -> _Record | None:
    try:
        return _Record(**json.loads(_record_path(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{_record_path(path)}: can't be read ({error}): delete it, then the file is checked again") from error


def _write_record(path: Path, record: _Record) -> None:
    replace_text(_record_path(path), json.dumps(record.__dict__) + "\n")


def _shown(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes} bytes"


class _Lines:
    """Progress as lines on stderr, few enough for a log, and safe beside the progress bar of whoever reads the rows meanwhile."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.started_s = self.last_s = time.monotonic()
        self.first_bytes: int | None = None

    def __call__(self, have_bytes: int, total_bytes: int | None) -> None:
        now_s = time.monotonic()
        if self.first_bytes is None:
            self.first_bytes = have_bytes
            size = "" if total_bytes is None else f", {_shown(total_bytes)}" + (f", of which {_shown(have_bytes)} are here" if have_bytes else "")
            self._write(f"fetching {self.name}{size}")
        elif now_s - self.last_s >= _LINE_EVERY_S:
            self.last_s = now_s
            share = "" if not total_bytes else f" of {_shown(total_bytes)} ({100 * have_bytes // total_bytes} %)"
            self._write(f"{self.name}: {_shown(have_bytes)}{share}, {_shown(int((have_bytes - self.first_bytes) / (now_s - self.started_s)))}/s")

    def _write(self, line: str) -> None:
        sys.stderr.write(line + "\n")
