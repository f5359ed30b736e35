"""Tar archives as streams of groups: members that follow each other and have one name but for their suffixes.

Nothing is written and nothing is unpickled: the name of a member is a name, and its bytes are bytes. What is passed over is not read.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from audiograft.data.archives import tar_members
from audiograft.types import DataError

MAX_MEMBER_BYTES = 1 << 30
"""A larger one is no clip, and would fill the memory."""


@dataclass
class Group:
    """Members of one name.

    Attributes:
        key: their name without suffixes.
        members: their bytes by suffix, in small letters and without the dot; empty where the group is passed over.
        fault: why it can't be used; None where it can.
    """

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    fault: str | None = None


def split_at_first_dot(name: str) -> tuple[str, str]:
    """Key and suffix in the manner of WebDataset: `a/b.seg.wav` is `a/b` and `seg.wav`."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return folder + slash + stem, suffix.lower()


def read_groups(path: Path, skip: int = 0, split: Callable[[str], tuple[str, str]] = split_at_first_dot) -> Iterator[Group]:
    """Read an archive from front to back, in the memory of one group.

    Args:
        path: tar, plain or compressed with gzip, bzip2 or xz.
        skip: groups of which only the headers are read; they are given too, without members.
        split: key and suffix of a member's name.

    Raises:
        DataError: it is no archive, or breaks off; the groups that are whole were given before.
    """
    try:
        with tarfile.open(path, "r:*") as archive:
            n_groups = 0
            group: Group | None = None
            for member in tar_members(archive):
                if member.isdir():
                    continue
                key, suffix = split(member.name.removeprefix("./"))
                if group is None or group.key != key:
                    if group is not None:
                        yield group
                        n_groups += 1
                    group = Group(key)
                if n_groups >= skip:
                    _add(group, suffix, archive, member)
            if group is not None:
                yield group
    # gzip and bzip2 report damage as an OSError without a number.
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path}: can't be read ({error.strerror}): correct the path or its permissions") from error
        why = str(error).partition("\n")[0].rstrip(":")  # tarfile tells of each compression on a line of its own
        raise DataError(f"{path}: breaks off, or is no tar archive ({why}): get it again, then run this once more to go on") from error


def _add(group: Group, suffix: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    content = archive.extractfile(member) if member.isreg() else None
    if content is None:
        group.fault = f"{member.name!r} is a link or a device: put the file itself into the archive"
    elif suffix in group.members:
        group.fault = f"{member.name!r} comes twice: leave one out"
    elif member.size > MAX_MEMBER_BYTES:
        group.fault = f"{member.name!r} has {member.size} bytes, where {MAX_MEMBER_BYTES} are the most: cut it into clips"
    else:
        group.members[suffix] = content.read()
