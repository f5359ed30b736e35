"""The source `csv`: tables as text, with a header, separated by commas, tabs, semicolons or bars."""

from __future__ import annotations

import codecs
import csv
import json
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TextIO

from audiograft.data.manifest import span_keys
from audiograft.data.sources.base import SourceRow, option
from audiograft.data.sources.rows import (
    RowReader,
    allow_outside_option,
    audio_root_option,
    guess_keys,
    is_undecoded,
    key_pairs,
    keys_option,
    number_in,
    refusal,
    rename,
)
from audiograft.data.sources.spans import take_span
from audiograft.types import ConfigError, DataError, Rejection

_DELIMITERS = ",\t;|"
_MAX_LINES = 64
"""Of one record. A quotation mark that is opened and never closed would swallow the rest of the file."""


@dataclass(frozen=True)
class CsvFile:
    """A table with a header: CSV, TSV, or separated by ; or |.

    Columns called audio, path, file, wav or filename, text, sentence, transcript or transcription, speaker or client_id and the like are
    recognised; for others, say with --keys which is which. All the rest is kept. With start and end, or offset and duration, in seconds, a row is
    a part of its clip. A line with too many or too few fields, in another encoding or
    with a quotation mark that is never closed is rejected by its number, and the reading goes on.

    Example: audiograft prepare csv train.csv --keys wav_path=audio --out corpus
    """

    name: ClassVar[str] = "csv"
    path: Path = option("The file.", argument=True)
    keys: tuple[str, ...] = keys_option()
    delimiter: str | None = option("What separates fields; by default what its header has most of.", None)
    encoding: str = option("Of the file, such as utf-8, utf-16 or latin-1.", "utf-8")
    plain_quotes: bool = option("Quotation marks are ordinary characters, as in many TSV files.", False)
    audio_root: Path | None = audio_root_option()
    allow_outside: bool = allow_outside_option()

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        given = key_pairs(self.keys)
        reader = RowReader(self.audio_root or self.path.parent, self.allow_outside)
        n_rows = 0
        try:
            with self._open() as file:
                table = _Table(file, str(self.path), self.delimiter, csv.QUOTE_NONE if self.plain_quotes else csv.QUOTE_MINIMAL)
                pairs = _find_columns(self.path, table.header, given)
                for number, fields in table.records():
                    n_rows += 1
                    if n_rows > skip:
                        yield self._row(f"{self.path}:{number}", number, table.header, fields, pairs, reader)
        except OSError as error:
            raise DataError(f"{self.path}: can't be read ({error.strerror}): correct the path or its permissions") from error
        except UnicodeError as error:
            raise DataError(f"{self.path}: not {self.encoding} text: name its encoding with --encoding") from error
        if not n_rows:
            raise DataError(f"{self.path}: no rows behind the header: name another file")

    def _row(
        self, place: str, number: int, header: list[str], fields: list[str] | DataError, pairs: dict[str, str], reader: RowReader
    ) -> SourceRow | Rejection:
        if isinstance(fields, DataError):
            return refusal(place, fields)
        # What is no text in this encoding was read as half of a surrogate pair.
        wrong = next(filter(is_undecoded, fields), None)
        if wrong is not None:
            what = "a NUL byte" if "\0" in wrong else f"no {self.encoding}"
            return refusal(place, DataError(f"{place}: {what}: correct the line, or name the encoding of the file with --encoding"), kind="text")
        if len(fields) != len(header):
            return refusal(place, DataError(f"{place}: {len(fields)} fields, but the header has {len(header)}: quote or correct the line"))
        # An empty cell says nothing, but an empty transcript may be meant.
        stripped = {key: cell.strip() for key, cell in zip(header, fields, strict=True)}
        row: dict[str, Any] = rename({key: cell for key, cell in stripped.items() if cell or pairs.get(key) == "text"}, pairs)
        for key in ("duration_s", "wer_percent", *span_keys(row)):
            if key in row:
                row[key] = number_in(row[key])
                if not math.isfinite(row[key]):
                    return refusal(place, DataError(f"{place}: {key} must be a number: correct the line"), row)
        try:
            row, span = take_span(row, place)
        except DataError as error:
            return refusal(place, error, row)
        return reader.read(row, number, place, span)

    def _open(self) -> TextIO:
        encoding = self.encoding
        with self.path.open("rb") as binary:
            head = binary.read(4)
        try:
            if codecs.lookup(encoding).name == "utf-8":
                encoding = "utf-8-sig"
                if (seen := json.detect_encoding(head)).startswith(("utf-16", "utf-32")):
                    raise DataError(f"{self.path}: its text is {seen.upper()}: add --encoding {seen}")
            # Where a line is in another encoding, its bytes become halves of surrogate pairs, and the lines around it can still be read.
            return self.path.open(encoding=encoding, errors="surrogateescape", newline="\n")
        except LookupError as error:
            raise ConfigError(f"--encoding {encoding}: unknown: give one such as utf-8, utf-16, latin-1 or cp1252") from error


class _Table:
    """The records of a file, of which a broken one spoils no other."""

    def __init__(self, file: TextIO, name: str, delimiter: str | None, quoting: Literal[0, 3]):
        self._file, self._name, self._quoting = file, name, quoting
        self._waiting: deque[str] = deque()
        self._number = 0
        first = next((line for line in iter(self._line, "") if line.strip()), "")
        self._delimiter = _delimiter(delimiter) or max(_DELIMITERS, key=first.count)
        try:
            self.header = [name.strip() for name in self._split([first])]
        except csv.Error:
            self.header = []
        if not self.header or len(set(self.header)) < len(self.header):
            raise DataError(f"{name}:{self._number}: no header: its first line must name the columns, each once")

    def records(self) -> Iterator[tuple[int, list[str] | DataError]]:
        """Line number and fields of each record behind the header; blank lines are passed over."""
        for line in iter(self._line, ""):
            if line.strip("\r\n "):
                number = self._number
                yield (
                    number,
                    self._record(line)
                    or DataError(f"{self._name}:{number}: a quotation mark does not end its field: double it, or read with --plain-quotes"),
                )

    def _record(self, line: str) -> list[str] | None:
        """The fields of the record that begins with a line; None where its quotation marks make no sense."""
        lines = [line]
        while True:
            try:
                fields = self._split(lines)
            except csv.Error as error:
                if "unexpected end" in str(error) and len(lines) < _MAX_LINES and (more := self._line()):
                    lines.append(more)
                    continue
                fields = []
            if len(lines) == 1 or len(fields) == len(self.header):
                return fields or None
            # One stray mark has not made one record of these: only the first line is lost.
            self._waiting.extendleft(reversed(lines[1:]))
            self._number -= len(lines) - 1
            return None

    def _split(self, lines: list[str]) -> list[str]:
        return next(csv.reader([line.rstrip("\r\n") + "\n" for line in lines], delimiter=self._delimiter, quoting=self._quoting, strict=True), [])

    def _line(self) -> str:
        """The next line; empty at the end."""
        line = self._waiting.popleft() if self._waiting else self._file.readline()
        self._number += 1
        return line


def _delimiter(given: str | None) -> str | None:
    if given is None:
        return None
    named = {"tab": "\t", "\\t": "\t"}.get(given, given)
    if len(named) != 1:
        raise ConfigError(f"--delimiter {given}: give one character, or tab")
    return named


def _find_columns(path: Path, header: list[str], given: dict[str, str]) -> dict[str, str]:
    shown = ", ".join(map(repr, header))
    for theirs in given:
        if theirs not in header:
            raise DataError(f"{path}: no column is called {theirs!r}: name one of {shown}")
    pairs = guess_keys(header, given)
    ours = set(pairs.values())
    if not ours & {"audio", "response"}:
        raise DataError(f"{path}: none of the columns {shown} is known to name clips: say which does, as --keys COLUMN=audio")
    if not ours & {"text", "response", "label"} and len(header) > len(pairs):
        raise DataError(
            f"{path}: none of the columns {shown} is known to hold transcripts: say which does, as --keys COLUMN=text (or response, or label)"
        )
    return pairs
