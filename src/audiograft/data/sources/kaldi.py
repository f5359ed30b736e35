"""The source `kaldi`: a data folder with wav.scp and text.

The small tables (wav.scp, segments, utt2spk and so on) are held in memory, about 450 bytes an utterance altogether; transcripts are read one at a
time. The files need not be sorted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from audiograft.data.sources.base import SourceRow, option
from audiograft.data.sources.rows import RowReader, allow_outside_option, audio_root_option, is_undecoded, number_in, refusal
from audiograft.types import DataError, Rejection

_OTHERS = {"utt2spk": "speaker", "utt2lang": "language", "spk2gender": "gender", "utt2dur": "duration_s"}
"""Tables that a folder may have, and what they say."""
_TO_THE_END = -1.0


@dataclass(frozen=True)
class _Tables:
    """What is known of utterances besides their text.

    Attributes:
        wavs: entry of wav.scp by recording, or by utterance where there are no segments.
        segments: entry of `segments` by utterance; None where the folder has no such file.
        others: those of `_OTHERS` that are there.
        left: utterances that no transcript was found for yet, in order, with the line of each.
        doubles: what stands in a table for the second time.
    """

    wavs: Mapping[str, str]
    segments: Mapping[str, str] | None
    others: Mapping[str, Mapping[str, str]]
    left: dict[str, int]
    doubles: list[Rejection]


@dataclass(frozen=True)
class Kaldi:
    """A Kaldi data folder: wav.scp, text, and utt2spk, segments, utt2lang and spk2gender where it has them.

    With `segments`, a row is a span of its recording. An entry of wav.scp that is a command is never run: such rows are rejected. Kaldi's paths
    are absolute, or relative to where its recipe ran, so name the folder of the audio with --audio-root.

    Example: audiograft prepare kaldi data/train --audio-root /corpora/swbd --out corpus
    """

    name: ClassVar[str] = "kaldi"
    path: Path = option("The folder.", argument=True)
    audio_root: Path | None = audio_root_option()
    allow_outside: bool = allow_outside_option()

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        for name in ("wav.scp", "text"):
            if not (self.path / name).is_file():
                raise DataError(f"{self.path}: no Kaldi folder, since it has no {name}: name one such as data/train")
        yield from islice(self._rows(), skip, None)

    def _rows(self) -> Iterator[SourceRow | Rejection]:
        tables = _read_tables(self.path)
        yield from tables.doubles
        reader = RowReader(self.audio_root or self.path, self.allow_outside)
        for number, utterance, text in _entries(self.path / "text"):
            place = f"{self.path / 'text'}:{number}"
            if tables.left.pop(utterance, None) is None:
                named, known = ("wav.scp", tables.wavs) if tables.segments is None else ("segments", tables.segments)
                why, kind = f"is not in {named}: add its audio or take the line out", "missing"
                if utterance in known:
                    why, kind = "stands here for the second time: take one of its lines out", "duplicate"
                yield refusal(place, DataError(f"{place}: {utterance} {why}"), {"id": utterance}, kind)
            elif is_undecoded(text):
                yield refusal(place, DataError(f"{place}: no UTF-8: write the line again as UTF-8"), {"id": utterance}, "text")
            else:
                yield _row(utterance, text, number, place, tables, reader)
        table = self.path / ("segments" if tables.segments is not None else "wav.scp")
        for utterance, number in tables.left.items():
            place = f"{table}:{number}"
            yield refusal(place, DataError(f"{place}: {utterance} has no transcript in {self.path / 'text'}: add it"), {"id": utterance}, "text")


def _row(utterance: str, text: str, number: int, place: str, tables: _Tables, reader: RowReader) -> SourceRow | Rejection:
    row: dict[str, Any] = {"id": utterance, "text": text}
    for name, key in _OTHERS.items():
        of = row.get("speaker", utterance) if name == "spk2gender" else utterance
        if (said := tables.others.get(name, {}).get(of)) is not None:
            row[key] = said
    span = None
    recording = utterance
    if tables.segments is not None:
        try:
            recording, span = _segment(tables.segments[utterance], utterance)
        except DataError as error:
            return refusal(place, error, row)
        row |= {"recording": recording, "duration_s": span[1] - span[0]}
    elif "duration_s" in row:
        row["duration_s"] = number_in(row["duration_s"])
        if not 0 <= row["duration_s"] < math.inf:
            return refusal(place, DataError(f"{place}: utt2dur has no number of seconds for {utterance}: correct it"), row)
    entry = tables.wavs.get(recording)
    if not entry:
        return refusal(place, DataError(f"{place}: wav.scp names no file for {recording}: add it"), row, "missing")
    row["audio"] = entry
    if entry.endswith("|") or entry.startswith("|"):
        why = f"wav.scp has a command for {recording}, which is not run: run it yourself, and name the file that it writes"
        return refusal(place, DataError(f"{place}: {why}"), row)
    if ".ark:" in entry:
        why = f"wav.scp has a place in an archive for {recording}: write its files with wav-copy, and name them"
        return refusal(place, DataError(f"{place}: {why}"), row)
    return reader.read(row, number, place, span)


def _segment(entry: str, utterance: str) -> tuple[str, tuple[float, float]]:
    """Recording, and (start, end) in seconds."""
    fields = entry.split()
    place = f"segments: {utterance}"
    if len(fields) not in (3, 4):
        raise DataError(f"{place}: needs recording, start and end, not {entry!r}: correct the line")
    start_s, end_s = map(number_in, fields[1:3])
    if end_s == _TO_THE_END:
        raise DataError(f"{place}: lasts to the end of {fields[0]}: state its end in seconds")
    if not 0 <= start_s < end_s < math.inf:
        raise DataError(f"{place}: {fields[1]} to {fields[2]} is no span in seconds: correct the line")
    if len(fields) == 4:
        raise DataError(f"{place}: takes one channel of {fields[0]}: write its channels as files of their own")
    return fields[0], (start_s, end_s)


def _read_tables(folder: Path) -> _Tables:
    doubles: list[Rejection] = []
    wavs, wav_lines = _table(folder / "wav.scp", doubles)
    segments, lines = _table(folder / "segments", doubles) if (folder / "segments").is_file() else (None, wav_lines)
    # The second line about a speaker loses nothing.
    others = {name: _table(folder / name, [])[0] for name in _OTHERS if (folder / name).is_file()}
    return _Tables(wavs, segments, others, lines, doubles)


def _table(path: Path, doubles: list[Rejection]) -> tuple[dict[str, str], dict[str, int]]:
    """What a file says of each key, and the line that says it; what it says for the second time goes to `doubles`."""
    said: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, key, value in _entries(path):
        if key in said:
            place = f"{path}:{number}"
            doubles.append(refusal(place, DataError(f"{place}: {key} stands in line {lines[key]} already: take one out"), {"id": key}, "duplicate"))
        else:
            said[key], lines[key] = value, number
    return said, lines


def _entries(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line number, key and the rest of each line that is not blank. Bytes that are no UTF-8 become halves of surrogate pairs, as in file names."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if fields := line.split(maxsplit=1):
                    yield number, fields[0], fields[1].strip() if len(fields) == 2 else ""
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}): correct its permissions") from error
