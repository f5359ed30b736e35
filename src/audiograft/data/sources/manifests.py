"""The source `manifest`: ours, and those of two published systems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from audiograft.data.foreign import is_foreign
from audiograft.data.manifest import find_manifest, scan_rows
from audiograft.data.sources.base import SourceRow, option
from audiograft.data.sources.rows import (
    RowReader,
    allow_outside_option,
    audio_root_option,
    guess_keys,
    key_pairs,
    keys_option,
    refusal,
    rename,
    value_at,
)
from audiograft.data.sources.spans import take_span
from audiograft.types import DataError, Rejection

_LOOKED_AT = 100
"""So many rows are looked at for a key that was named."""


@dataclass(frozen=True)
class Manifest:
    """A manifest: JSON lines, or a JSON array, of audiograft or of another system.

    Rows of Qwen2-VL-Audio-Adapter (`conversations`) and of AudioLLM (`audio_paths`) are read as they are; for others, say with --keys which key
    is which; names that csv knows, such as wav and transcript, are found where ours are missing. With start and end, or offset and duration, in
    seconds, a row is a part of its clip. Several clips a row, conversations and rows of text alone are kept. A line that is broken is rejected by
    its number, and the reading goes on.

    Example: audiograft prepare manifest rows.json --keys transcript=text --keys meta.reader=speaker --out corpus
    """

    name: ClassVar[str] = "manifest"
    path: Path = option("The file, or a folder with manifest.jsonl.", argument=True)
    keys: tuple[str, ...] = keys_option()
    audio_root: Path | None = audio_root_option()
    allow_outside: bool = allow_outside_option()

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        manifest = find_manifest(self.path)
        pairs = key_pairs(self.keys)
        _check_keys(manifest, pairs)
        reader = RowReader(self.audio_root or manifest.parent, self.allow_outside)
        for number, _, row in scan_rows(manifest, skip):
            place = f"{manifest}:{number}"
            yield refusal(place, row) if isinstance(row, DataError) else _row(row, pairs, number, place, reader)


def _row(row: Mapping[str, Any], pairs: Mapping[str, str], number: int, place: str, reader: RowReader) -> SourceRow | Rejection:
    own = rename(row, pairs)
    if not is_foreign(own) and "messages" not in own:
        answered = own.keys() & {"text", "response", "label"}
        if ("audio" not in own and "response" not in own) or not answered:
            own = rename(row, guess_keys(row, pairs))
    try:
        own, span = take_span(own, place)
    except DataError as error:
        return refusal(place, error, own)
    return reader.read(own, number, place, span)


def _check_keys(manifest: Path, pairs: Mapping[str, str]) -> None:
    """A misspelt key would leave all rows without what it stands for."""
    if not pairs:
        return
    rows = [row for _, _, row in islice(scan_rows(manifest), _LOOKED_AT) if not isinstance(row, DataError)]
    for theirs in pairs:
        if rows and all(value_at(row, theirs) is None for row in rows):
            raise DataError(f"{manifest}: no row has the key {theirs!r}: name one of {', '.join(map(repr, rows[0]))}")
