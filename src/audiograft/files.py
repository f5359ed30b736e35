"""Files that hold sound or pictures, before anything is decoded: opened, or one line that says why not; and which of them are images."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from audiograft.types import MediaError

_HEAD_BYTES = 12
"""So many from the start tell an image."""
_IMAGE_MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_HEIF_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}


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
