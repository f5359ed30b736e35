"""The source `librispeech`: read books, from the folder that the archives of openslr.org/12 unpack to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

from audiograft.data.download import Download, download_option, fetch, mirror_option
from audiograft.data.sources.base import SourceRow, option
from audiograft.types import ConfigError, DataError, Rejection, Sample

_ADDRESS = "https://www.openslr.org/resources/12"
_CHECKSUMS = {
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fff3f4849a6",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
}
"""MD5, as published at the same address."""
ARCHIVES = {name: Download(f"{_ADDRESS}/{name}.tar.gz", f"{name}.tar.gz", f"md5:{checksum}") for name, checksum in _CHECKSUMS.items()}
SUBSETS = tuple(ARCHIVES)
_FOLDER = "LibriSpeech"
"""What all archives unpack to."""


@dataclass(frozen=True)
class LibriSpeech:
    """LibriSpeech: 1000 hours of English books read aloud, with texts in capitals and without punctuation.

    PATH is the folder LibriSpeech, or the one that holds it. What one speaker read of one book is a recording, so that its chapters never part in
    a split. --text-case sentence makes the texts legible, --prompts instructions gives each row one of 16 instructions.

    Example: audiograft prepare librispeech corpora --subsets dev-clean --download --text-case sentence --out dev-clean
    """

    name: ClassVar[str] = "librispeech"

    path: Path = option("The folder LibriSpeech, or the one that holds it.", argument=True)
    subsets: tuple[str, ...] = option("Which of its parts, such as train-clean-100; all that are there by default; repeatable.", ())
    download: bool = download_option()
    mirror: str | None = mirror_option()

    def __post_init__(self) -> None:
        for subset in self.subsets:
            if subset not in SUBSETS:
                raise ConfigError(f"librispeech: no subset {subset!r}: it has {', '.join(SUBSETS)}")
        if self.download and not self.subsets:
            raise ConfigError(f"librispeech: name what to download with --subsets: {', '.join(SUBSETS)}")

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """By subset, speaker and chapter; within a chapter the transcript's lines, then clips that it lacks."""
        return islice(self._rows(), skip, None)

    def _rows(self) -> Iterator[SourceRow | Rejection]:
        sexes, books = None, None
        for subset in self.subsets or self._found():
            if self.download:
                fetch(ARCHIVES[subset], self.path.parent if self.path.name == _FOLDER else self.path, self.mirror)
            root = self._root()
            if not (root / subset).is_dir():
                raise DataError(f"{root}: no folder {subset}: unpack {subset}.tar.gz there, or fetch it with --download")
            if sexes is None or books is None:
                sexes = {fields[0]: fields[1] for fields in _table(root / "SPEAKERS.TXT", 5)}
                books = _books(root)
            for speaker in _numbered_folders(root / subset):
                known = {"subset": subset} | ({"sex": sexes[speaker.name]} if speaker.name in sexes else {})
                for chapter in _numbered_folders(speaker):
                    book = books.get(chapter.name)
                    yield from _chapter(chapter, f"{speaker.name}-book-{book}" if book else speaker.name, known | {"chapter": chapter.name})

    def _root(self) -> Path:
        return self.path / _FOLDER if (self.path / _FOLDER).is_dir() else self.path

    def _found(self) -> list[str]:
        """The subsets that are there."""
        found = [subset for subset in SUBSETS if (self._root() / subset).is_dir()]
        if not found:
            raise DataError(f"{self._root()}: none of LibriSpeech's folders ({', '.join(SUBSETS)}): correct the path, or fetch some with --download")
        return found


def _books(root: Path) -> dict[str, str]:
    """Number of the book by that of the chapter."""
    books = {fields[0]: fields[5] or f"project-{fields[4]}" for fields in _table(root / "CHAPTERS.TXT", 8)}
    if not books:
        sys.stderr.write(f"{root}: no CHAPTERS.TXT to say which chapters are of one book: all that a speaker read counts as one recording\n")
    return books


def _table(path: Path, n_fields: int) -> Iterator[list[str]]:
    """Rows of a table with | between fields, of which the last may have some too; nothing where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}): correct its permissions") from error
    for line in lines:
        fields = [field.strip() for field in line.split("|", n_fields - 1)]
        if len(fields) == n_fields and not line.startswith(";"):
            yield fields


def _numbered_folders(folder: Path) -> list[Path]:
    """Those called by the number of a speaker or chapter, in order of the numbers."""
    try:
        return sorted((path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()), key=lambda path: int(path.name))
    except OSError as error:
        raise DataError(f"{folder}: can't be read ({error.strerror}): correct its permissions") from error


def _chapter(folder: Path, recording: str, known: Mapping[str, str]) -> Iterator[SourceRow | Rejection]:
    """The rows of a chapter: of each line of its transcript, and of each clip that has none."""
    transcript = folder / f"{folder.parent.name}-{folder.name}.trans.txt"
    clips = {name for name in os.listdir(folder) if name.endswith(".flac") and not name.startswith(".")}
    with_text = set()
    for number, line in _lines(transcript):
        place = f"{transcript}:{number}"
        try:
            row_id, _, text = line.decode("utf-8").strip().partition(" ")
        except UnicodeDecodeError:
            yield Rejection(place, place, f"{place}: not UTF-8 text: correct the line", "text")
            continue
        clip = f"{row_id}.flac"
        with_text.add(clip)
        if clip not in clips:
            yield Rejection(row_id, clip, f"{place}: its clip {folder / clip} is missing: unpack the archive again", "missing")
        elif not text:
            yield Rejection(row_id, str(folder / clip), f"{place}: has no text behind the id: correct the line", "text")
        else:
            yield SourceRow(
                Sample(
                    id=row_id,
                    clips=(str(folder / clip),),
                    text=text.strip(),
                    speaker=folder.parent.name,
                    recording=recording,
                    language="en",
                    source="librispeech",
                    extra=dict(known),
                )
            )
    for clip in sorted(clips - with_text):
        reason = f"{folder / clip}: no line of {transcript.name} has its text: unpack the archive again, or delete the clip"
        yield Rejection(clip.removesuffix(".flac"), str(folder / clip), reason, "text")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line numbers and lines that are not blank; none where there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}): correct its permissions") from error
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            yield number, line
