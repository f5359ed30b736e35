"""The source `common-voice`: sentences read by volunteers, a language's folder as its archive unpacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

from audiograft.data.languages import language_code
from audiograft.data.paths import OutsideError, clip_path
from audiograft.data.sources.base import SourceRow, option
from audiograft.types import DataError, Rejection, Sample

_NEEDED = ("client_id", "path", "sentence")
_COUNTS = ("up_votes", "down_votes")
_NO_TABLES = frozenset(("clip_durations", "reported", "validated_sentences", "unvalidated_sentences"))
"""What lies beside the tables of clips."""


@dataclass(frozen=True)
class CommonVoice:
    """Common Voice: sentences read by volunteers, in one language.

    PATH is a language's folder as unpacked, with clips/ and train.tsv, dev.tsv, test.tsv, validated.tsv and others. It has to be fetched by hand,
    since Mozilla asks for consent to its terms first.

    Example: audiograft prepare common-voice cv-corpus/cy --split test --out welsh-test
    """

    name: ClassVar[str] = "common-voice"

    path: Path = option("A language's folder.", argument=True)
    split: str = option("Which table: train, dev, test, validated, invalidated or other.", "train")

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """In the order of the table."""
        return islice(self._rows(), skip, None)

    def _rows(self) -> Iterator[SourceRow | Rejection]:
        table = self.path / f"{self.split}.tsv"
        if not table.is_file():
            there = sorted(path.stem for path in self.path.glob("*.tsv") if path.stem not in _NO_TABLES)
            mend = f"it has {', '.join(there)}" if there else "name the folder of one language, which has train.tsv and clips"
            raise DataError(f"{table}: no such table: {mend}")
        try:
            with table.open("rb") as file:
                header = _fields(file.readline())
                missing = [column for column in _NEEDED if column not in (header or ())]
                if missing or header is None:
                    raise DataError(f"{table}: no column {' and no column '.join(missing)} in its first line: take the table as it was unpacked")
                for number, line in enumerate(file, start=2):
                    if line.strip():
                        yield self._row(header, line, f"{table}:{number}")
        except OSError as error:
            raise DataError(f"{table}: can't be read ({error.strerror}): correct its permissions") from error

    def _row(self, header: list[str], line: bytes, place: str) -> SourceRow | Rejection:
        fields = _fields(line)
        if fields is None:
            return Rejection(place, place, f"{place}: not UTF-8 text: correct the line", "text")
        if len(fields) != len(header):
            return Rejection(place, place, f"{place}: has {len(fields)} fields, and {len(header)} columns: correct the line", "row")
        row = dict(zip(header, fields, strict=True))
        clip = row["path"]
        row_id = Path(clip).stem
        if not row_id:
            return Rejection(place, place, f"{place}: names no clip: correct the line", "row")
        if not row["sentence"].strip():
            return Rejection(row_id, clip, f"{place}: has no sentence: correct the line", "text")
        try:
            path = clip_path(clip, self.path / "clips", place)
        except OutsideError:
            return Rejection(row_id, clip, f"{place}: the clip {clip} leaves the folder {self.path / 'clips'}: correct the line", "outside")
        except DataError as error:
            return Rejection(row_id, clip, str(error), "row")
        return SourceRow(_sample(row, row_id, path))


def _sample(row: Mapping[str, str], row_id: str, clip: str) -> Sample:
    locale = row.get("locale", "")
    extra: dict[str, str | int] = {key: value for key, value in row.items() if key not in _NEEDED and value and key != "locale"}
    extra |= {key: int(row[key]) for key in _COUNTS if row.get(key, "").isdecimal()}
    if locale and locale != language_code(locale):
        extra["locale"] = locale
    return Sample(
        id=row_id,
        clips=(clip,),
        text=row["sentence"].strip(),
        speaker=row["client_id"] or None,
        language=language_code(locale) if locale else None,
        source="common-voice",
        extra=extra,
    )


def _fields(line: bytes) -> list[str] | None:
    """The fields of a line; None where it is not UTF-8. Quotation marks in sentences are nothing but themselves."""
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return text.rstrip("\r\n").split("\t")
