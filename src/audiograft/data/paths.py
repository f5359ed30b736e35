"""Where a corpus may point to: the clips that a table or an archive names must lie below its folder, unless the user allows others.

A manifest is often somebody else's file. Without this check, a row with `../../etc/passwd` would be opened, and a hard link to it written into
the prepared corpus.
"""

from __future__ import annotations

import os
from pathlib import Path

from audiograft.files import address_error, is_address
from audiograft.types import DataError


class OutsideError(DataError):
    """A clip that leaves the folder of the file that names it."""


def clip_path(clip: str, folder: Path, place: str, allow_outside: bool = False, kind: str = "clip") -> str:
    """The path of a clip or a picture, joined to a folder.

    The check is lexical: nothing is looked up on disk, so a symbolic link inside the folder may point anywhere, since whoever made the folder made
    the link. A path with `..` is returned without, so that what was checked is what will be opened.

    Args:
        clip: as a row names it, relative to `folder` or absolute.
        folder: that of the manifest, or another to which its clips are relative.
        place: what names the clip, such as file and line; begins the error.
        allow_outside: let it lie anywhere, and leave it as it is.
        kind: what errors call it.

    Raises:
        OutsideError: the clip does not lie below `folder`.
        DataError: no path: it holds a NUL, or is an address.
    """
    if is_address(clip):
        raise DataError(f"{place}: {address_error(clip)}")
    if "\0" in clip:
        raise DataError(f"{place}: the path {clip!r} holds a NUL character: correct it")
    is_inside = not os.path.isabs(clip) and ".." not in clip  # as nearly all are
    if is_inside or allow_outside:
        return str(folder / clip)
    root = os.path.abspath(folder)
    full = os.path.normpath(os.path.join(root, clip))
    if full != root and not full.startswith(root if root.endswith(os.sep) else root + os.sep):
        raise OutsideError(
            f"{place}: the {kind} {clip} leaves the folder {folder}: move it there, or allow it with --allow-outside (data.allow_outside in a recipe)"
        )
    return full if os.path.isabs(clip) else str(folder / os.path.relpath(full, root))
