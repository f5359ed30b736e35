"""The source `lhotse`: cut sets as JSON lines, and Lhotse Shar folders.

What a cut means is said by the `lhotse` library. Its lines are read here, one at a time, since the library's own reader ends at the first broken
line, and would run a command or fetch an address that stands in place of a path.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, ClassVar, Literal

from audiograft.audio import AUDIO_SUFFIXES
from audiograft.data.sources.base import SourceRow, option
from audiograft.data.sources.rows import RowReader, allow_outside_option, audio_root_option, corpus_name, refusal
from audiograft.data.sources.tars import Group, read_groups
from audiograft.types import ConfigError, DataError, Rejection

_LINES = (".jsonl", ".jsonl.gz")
_SLACK_S = 0.05
"""By which a supervision may stand over the edge of its cut: times are rounded."""
_WHOLE_S = 0.001
"""A cut that leaves out no more than this is the whole recording."""


@dataclass(frozen=True)
class Lhotse:
    """A Lhotse cut set: .jsonl or .jsonl.gz, or a Shar folder (cuts.*.jsonl.gz and recording.*.tar).

    A row is a cut, with the texts of its supervisions in order, or a supervision (--per supervision), as a span of its recording. What is no plain
    file is rejected: commands, addresses, mixed and padded cuts, recordings with transforms, and one channel of several; write such cuts to files
    with cuts.save_audios first. Needs pip install 'audiograft[lhotse]'.

    Example: audiograft prepare lhotse cuts.jsonl.gz --audio-root /corpora --per supervision --out corpus
    """

    name: ClassVar[str] = "lhotse"
    path: Path = option("The cut set, or a folder with one, or a Shar folder.", argument=True)
    per: Literal["cut", "supervision"] = option("What a row is.", "cut")
    audio_root: Path | None = audio_root_option()
    allow_outside: bool = allow_outside_option()

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        try:
            from lhotse.serialization import deserialize_item  # noqa: F401: a missing library is to be told before a missing file
        except ImportError as error:
            raise ConfigError("the source lhotse needs its library: pip install 'audiograft[lhotse]'") from error
        return islice(self._rows(), skip, None)

    def _rows(self) -> Iterator[SourceRow | Rejection]:
        reader = RowReader(self.audio_root or (self.path if self.path.is_dir() else self.path.parent), self.allow_outside, corpus_name(self.path))
        for cuts, recordings in _find_cuts(self.path):
            lines = _lines(cuts)
            if recordings is None:
                for place, line in lines:
                    yield from self._cut_rows(line, place, None, reader)
                continue
            for entry, group in zip_longest(lines, read_groups(recordings, split=_split_at_last_dot)):
                if entry is None or group is None:
                    raise DataError(f"{recordings}: not as many recordings as {cuts} has cuts: get both again")
                yield from self._cut_rows(entry[1], entry[0], group, reader)

    def _cut_rows(self, line: bytes, place: str, group: Group | None, reader: RowReader) -> Iterator[SourceRow | Rejection]:
        row: dict[str, Any] = {}
        try:
            cut = _parse(line, place)
            row = {"id": cut.id}
            if group is not None:
                cut = _with_recording(cut, group, place)
            audio = _audio_path(cut, place)
        except DataError as error:
            yield refusal(place, error, row)
            return
        said = _supervisions(cut, place) if self.per == "supervision" else [_whole(cut, place)]
        if not said:
            yield refusal(place, DataError(f"{place}: the cut {cut.id} has no supervisions: take it as a whole with --per cut"), row, "text")
        for own, span in said:
            if isinstance(own, DataError):
                yield refusal(place, own, row)
                continue
            # Shar names no file: the clip is the member of its archive.
            read = reader.read(own | {"audio": audio}, 1, place, span) if group is None else _inside(reader).read(own | {"audio": cut.id}, 1, place, span)
            yield replace(read, audio=_sound(group)) if group is not None and isinstance(read, SourceRow) else read
