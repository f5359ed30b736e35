"""Rows of tables whose cells have audio, or its path, as rows of a corpus."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, time
from pathlib import Path
from typing import Any

from audiograft.data.manifest import MANIFEST_KEYS, PICTURE_KEYS
from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.rows import RowReader, guess_keys, key_pairs, refusal
from audiograft.types import DataError, Rejection, Sample

_UNKNOWN = frozenset({"", "none", "nan", "null"})
"""What tables that once were CSV files have where a speaker is not known."""
_PICTURES = frozenset({*PICTURE_KEYS, *PICTURE_KEYS.values()})
_NAMES = ("id", "speaker", "recording", "language", "label")
_EMBEDDED = "embedded"
"""Stands for a clip that is no file where rows are read as those of a manifest."""


def name_columns(columns: Sequence[str], keys: Sequence[str], place: str) -> dict[str, str]:
    """What each column of a table is.

    Args:
        columns: all that the table has.
        keys: `theirs=ours` pairs; others are found by their usual names, see `ALIASES`.
        place: the corpus, for errors.

    Returns:
        Theirs to ours, of all. A column that is nothing known keeps its name, with `original_` before it where it is one of ours.

    Raises:
        ConfigError: a pair that is none.
        DataError: a column that isn't there, or none that has audio.
    """
    there = f"it has {', '.join(columns)}"
    pairs = key_pairs(keys)
    for theirs in pairs:
        if theirs not in columns:
            raise DataError(f"{place}: no column {theirs!r}: {there}")
    names = guess_keys(columns, pairs)
    if "audio" not in names.values():
        raise DataError(f"{place}: no column whose name says audio: say which it is, --keys theirs=audio ({there})")
    taken = set(names.values())
    for column in columns:
        names.setdefault(column, f"original_{column}" if column in taken else column)
    return names


@dataclass(frozen=True)
class TableReader:
    """Makes rows of a table into rows of a corpus.

    Attributes:
        place: what the corpus is called in reasons.
        id_stem: with the row's place behind it, the id of a row that has none.
        names: from `name_columns`.
        classes: names of classes by column, for columns which hold their numbers.
        folder: to which paths are relative; None where the table is not on this machine.
        allow_outside: also take clips that do not lie below it.
        fetch: bytes of a clip from its address; a `DataError` where they can't be had.
        corpus: see `RowReader`.
        add: what a corpus knows beyond its columns; called with a sample and its row of the table.
    """

    place: str
    id_stem: str
    names: Mapping[str, str]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    folder: Path | None = None
    allow_outside: bool = False
    fetch: Callable[[str], bytes] | None = None
    corpus: str | None = None
    add: Callable[[Sample, Mapping[str, Any]], Sample] = lambda sample, row: sample

    def read(self, row: Mapping[str, Any], number: int) -> SourceRow | Rejection:
        """One row.

        Args:
            row: column to value. Audio is the bytes of a file, its path, or a mapping of `bytes` and `path`.
            number: its place in the corpus, counted from 0.
        """
        place = f"{self.place}, {self.id_stem}, row {number + 1}"
        ours = {self.names[theirs]: self._value(theirs, value) for theirs, value in row.items() if theirs in self.names}
        audio, path = _audio_parts(ours.pop("audio", None))
        # Pictures that are no files are left out.
        ours = {key: value for key, value in ours.items() if key not in _PICTURES or (self.folder is not None and _are_paths(value))}
        ours = {key: _plain(value) for key, value in ours.items() if key in MANIFEST_KEYS or _is_plain(value)}
        for key in _NAMES:
            if isinstance(ours.get(key), str) and ours[key].strip().lower() in _UNKNOWN:
                ours[key] = None
        if isinstance(ours.get("id"), int):
            ours["id"] = str(ours["id"])
        row_id = ours["id"] = ours.get("id") or f"{self.id_stem}-{number:08d}"
        try:
            if audio is None and path and "://" in path and self.fetch is not None:
                audio = self.fetch(path)
        except DataError as error:
            return refusal(place, error, ours | {"audio": path}, kind="unreadable")
        wrong = _wrong(ours, audio, path, self.folder)
        if wrong:
            return Rejection(row_id if isinstance(row_id, str) else place, path or str(row_id), f"{place}: {wrong[1]}", wrong[0])
        reader = RowReader(self.folder or Path(), self.allow_outside, self.corpus)
        made = reader.read(ours | {"audio": path if audio is None else _EMBEDDED}, number, place)
        if isinstance(made, Rejection):
            return made if audio is None else replace(made, audio=path or made.id)
        sample = self.add(made.sample, row)
        return SourceRow(sample if audio is None else replace(sample, clips=(path or sample.id,)), audio)

    def _value(self, column: str, value: Any) -> Any:
        names = self.classes.get(column)
        if not names or not isinstance(value, int):
            return value
        return names[value] if 0 <= value < len(names) else None  # -1 is an unknown class


def _wrong(ours: Mapping[str, Any], audio: bytes | None, path: str | None, folder: Path | None) -> tuple[str, str] | None:
    """(kind, reason) of what a manifest can't have."""
    if audio == b"":
        return "empty", "its audio has 0 bytes: correct it or leave the row out"
    if audio is None and not path:
        return "missing", "its audio is null: correct it or leave the row out"
    if audio is None and (folder is None or "://" in str(path)):
        return "missing", f"its clip {path} is not in the data set: name the folder that has it with --audio-root"
    for key, value in ours.items():
        if isinstance(value, bytes) and key in MANIFEST_KEYS:
            return "text", f"its {key} is binary or not UTF-8: correct it, or name another column, --keys theirs={key}"
    text = ours.get("text", "")
    if text is not None and not isinstance(text, str):
        return "text", f"its text is {str(text)[:40]!r}: correct it, or name another column, --keys theirs=text"
    if text is None and ours.get("response") is None and ours.get("label") is None:
        return "text", "its text is null: correct it or leave the row out"
    return None


def _audio_parts(value: Any) -> tuple[bytes | None, str | None]:
    """(bytes, path) of the forms in which tables hold audio."""
    if isinstance(value, Mapping):
        audio, path = value.get("bytes"), value.get("path")
        return audio if isinstance(audio, bytes) else None, path if isinstance(path, str) else None
    return value if isinstance(value, bytes) else None, value if isinstance(value, str) else None


def _are_paths(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold it; pictures and other bytes are left out."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list) else value is None or isinstance(value, str | int | float | date | time)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    return value.isoformat() if isinstance(value, date | time) else value
