"""Unpack the archives in which corpora come: whole or not at all, in blocks, and never outside the folder that was named.

An archive is somebody else's file, and its members say where they want to be written. Everything is unpacked into a hidden folder beside the goal
first, and moved there at the end, so that neither a broken archive nor a dangerous one leaves anything behind.
"""

from __future__ import annotations

import errno
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, cast

from audiograft.types import DataError

_BLOCK_BYTES = 1 << 20
_ZERO_BLOCK = bytes(tarfile.BLOCKSIZE)


class ArchiveError(DataError):
    """An archive that is damaged, or has a member that must not be unpacked."""


@dataclass
class _Stage:
    """Where an archive's members are written at first.

    Symbolic links are made at the very end, so that no member is ever written through one.
    """

    archive: Path
    folder: Path
    links: dict[Path, str] = field(default_factory=dict)

    def place(self, name: str) -> Path:
        """Where a member is to be written. Names in the manner of Windows are held to the same rules."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not name or "\0" in name or ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
            raise self.unsafe(name, "would be written outside the folder")
        return self.folder.joinpath(*PurePosixPath(name).parts)

    def add_folder(self, name: str) -> None:
        self.place(name).mkdir(parents=True, exist_ok=True)

    def add_file(self, name: str, content: IO[bytes]) -> None:
        path = self.place(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            shutil.copyfileobj(content, file, _BLOCK_BYTES)

    def add_copy(self, name: str, of: str) -> None:
        """A hard link, which always means a member that came before."""
        source, path = self.place(of), self.place(name)
        if not source.is_file():
            raise self.unsafe(name, f"links to {of!r}, which the archive does not hold before it")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)

    def add_link(self, name: str, target: str) -> None:
        self.links[self.place(name)] = target

    def make_links(self) -> None:
        """Make the symbolic links, then look where they really lead, since a link may lead through another."""
        for path, target in self.links.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(target)
        root = self.folder.resolve()
        for path, target in self.links.items():
            if not Path(os.path.realpath(path)).is_relative_to(root):
                raise self.unsafe(str(path.relative_to(self.folder)), f"links to {target!r} outside the folder")

    def unsafe(self, name: str, why: str) -> ArchiveError:
        return ArchiveError(f"{self.archive}: member {name!r} {why}: nothing was unpacked, get the archive from its publisher")


def unpack(archive: str | Path, folder: str | Path) -> None:
    """Unpack a zip or tar archive into a folder, among what is there already. Files of the same name are replaced.

    It may be broken off at any time and run again. Owners, times and permissions are not taken over.

    Args:
        archive: zip, or tar as it is or compressed with gzip, bzip2 or xz; what it is, is seen from its content.
        folder: made where it is missing.

    Raises:
        ArchiveError: no archive, damaged, or with a member that would land outside the folder (an absolute name, `..`, a link that leads outside)
            or is no file (a device, a pipe); nothing is unpacked then.
        DataError: the folder can't be written, or the disk is full.
    """
    archive, folder = Path(archive), Path(folder)
    staged = folder / f".{archive.name}.unpacking"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if staged.exists():
            shutil.rmtree(staged)
        staged.mkdir()
        _fill(_Stage(archive, staged))
        _merge(staged, folder)
    except OSError as error:
        raise DataError(f"{archive}: can't be unpacked into {folder} ({error.strerror or error}): free space, or correct the permissions") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _fill(stage: _Stage) -> None:
    try:
        if zipfile.is_zipfile(stage.archive):
            _unzip(stage)
        else:
            _untar(stage)
        stage.make_links()
    # gzip and bzip2 report damage as an OSError without a number; one with a number is the disk's.
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = " ".join(str(error).split())
        raise ArchiveError(f"{stage.archive}: damaged, or no zip or tar archive ({why}): delete it and fetch it again") from error
    except (RuntimeError, NotImplementedError) as error:  # zipfile's words for a password, and for a compression that it doesn't know
        raise ArchiveError(f"{stage.archive}: can't be read ({error}): unpack it by hand") from error


def _unzip(stage: _Stage) -> None:
    with zipfile.ZipFile(stage.archive) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir():
                stage.add_folder(member.filename)
            elif kind == stat.S_IFLNK:
                stage.add_link(member.filename, archive.read(member).decode(errors="surrogateescape"))
            elif kind in (0, stat.S_IFREG):
                with archive.open(member) as content:
                    stage.add_file(member.filename, content)
            else:
                raise stage.unsafe(member.filename, "is no file")


def _untar(stage: _Stage) -> None:
    with tarfile.open(stage.archive) as archive:
        for member in tar_members(archive):
            if member.isdir():
                stage.add_folder(member.name)
            elif member.issym():
                stage.add_link(member.name, member.linkname)
            elif member.islnk():
                stage.add_copy(member.name, member.linkname)
            elif member.isreg() and (content := archive.extractfile(member)) is not None:
                stage.add_file(member.name, content)
            else:
                raise stage.unsafe(member.name, "is no file")


def tar_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members one after the other, forgotten when they are done with; then a look at what follows the last.

    `tarfile` takes a broken header for the end of the archive and says nothing.
    """
    while (member := archive.next()) is not None:
        yield member
        cast(Any, archive).members = []  # else a million members stay in memory
    content = archive.fileobj
    assert content is not None
    content.seek(archive.offset)
    if content.read(tarfile.BLOCKSIZE) != _ZERO_BLOCK:
        raise tarfile.ReadError("it ends before its end mark")
    while content.read(_BLOCK_BYTES):  # to the end of the compressed stream, where its checksum is
        pass


def _merge(staged: Path, folder: Path) -> None:
    """Move everything into the folder. What can be moved by one renaming, is, so that little can go wrong on the way."""
    for path in sorted(staged.iterdir()):
        goal = folder / path.name
        if path.is_dir() and not path.is_symlink():
            if goal.is_dir():
                _merge(path, goal)
                continue
        elif goal.is_dir() and not goal.is_symlink():
            raise IsADirectoryError(errno.EISDIR, f"{goal} is a folder")  # where shutil.move would put the file into it
        if os.path.lexists(goal):
            goal.unlink()
        shutil.move(path, goal)
