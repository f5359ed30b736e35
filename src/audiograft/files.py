"""Files that hold sound or pictures, before anything is decoded: opened, or one line that says why not; and which of them are images."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from audiograft.types import MediaError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HEAD_BYTES = 12
"""So many from the start tell an image."""
_IMAGE_MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_HEIF_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}


def is_address(path: str) -> bool:
    """Whether it is an address, such as https://example.org/a.wav, and no path."""
    return _ADDRESS.match(path) is not None


def address_error(address: str) -> str:
    """What is wrong with an address in the place of a path."""
    return f"{address} is an address, and addresses are never fetched: download it first, and name the file"


def file_name(source: str | Path | bytes | BinaryIO) -> str:
    """A file as the caller named it; `<bytes>` or `<file>` where it has no name."""
    if isinstance(source, bytes):
        return "<bytes>"
    if isinstance(source, str | Path):
        return str(source)
    name = getattr(source, "name", None)  # a number for a file without a path
    return name if isinstance(name, str) else "<file>"


@contextmanager
def opened(source: str | Path | bytes | BinaryIO, error: type[MediaError], refusal: str, buffering: int = -1) -> Iterator[BinaryIO]:
    """The source as a binary file that can seek, at its start. A caller's file stays open.

    Args:
        source: a path, the bytes of a file, or an open binary file.
        error: what is raised, by what the file should hold.
        refusal: its message for what is none of these.
        buffering: of a path, as for `open`.

    Raises:
        MediaError: of the kind `error`, as in `open_file`, or for a file that is open as text.
    """
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str | Path):
        with open_file(source, str(source), error, buffering) as file:
            yield file if file.seekable() else io.BytesIO(file.read())
    elif not hasattr(source, "read"):
        raise error(refusal)
    elif isinstance(source, io.TextIOBase):
        raise error(f"{file_name(source)}: opened as text: open it in binary mode, 'rb'")
    elif source.seekable():
        source.seek(0)
        yield source
    else:
        yield io.BytesIO(source.read())


def open_file(path: str | Path, name: str, error: type[MediaError], buffering: int = -1) -> BinaryIO:
    """Open a file for reading, in binary mode.

    Args:
        path: of the file.
        name: of it, for errors.
        error: what is raised, by what the file should hold.
        buffering: as for `open`.

    Raises:
        MediaError: of the kind `error`, where there is no such file, or it can't be opened.
    """
    try:
        return open(path, "rb", buffering=buffering)
    except FileNotFoundError:
        if is_address(str(path)):
            raise error(address_error(name), kind="missing") from None
        raise error(f"{name}: no such file: check the path", kind="missing") from None
    except IsADirectoryError:
        raise error(f"{name}: is a folder: name a file in it") from None
    except PermissionError:
        raise error(f"{name}: permission denied: make the file readable (chmod +r)") from None
    except (OSError, ValueError) as reason:  # ValueError: a zero byte in the path
        raise error(f"{name}: can't be opened ({getattr(reason, 'strerror', reason)}): check the path") from None


def image_format(file: BinaryIO) -> str | None:
    """The format of a file that begins like an image, such as `PNG`; None of any other. Leaves it at its start."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        return "WebP"
    if head[4:8] == b"ftyp":
        return _HEIF_BRANDS.get(head[8:12])
    return next((name for magic, name in _IMAGE_MAGIC.items() if head.startswith(magic)), None)
