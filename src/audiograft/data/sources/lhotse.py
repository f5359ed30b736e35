"""The source `lhotse`: cut sets as JSON lines, and Lhotse Shar folders.

What a cut means is said by the `lhotse` library. Its lines are read here, one at a time, since the library's own reader ends at the first broken
line, and would run a command or fetch an address that stands in place of a path.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice, repeat
from pathlib import Path
from typing import Any, ClassVar, Literal

from audiograft.data.manifest import MANIFEST_KEYS, parse_line
from audiograft.data.sources.base import SourceRow, option
from audiograft.data.sources.rows import RowReader, allow_outside_option, audio_root_option, refusal
from audiograft.data.sources.tars import Group, read_groups
from audiograft.types import ConfigError, DataError, Rejection

_Part = tuple[dict[str, Any], tuple[float, float] | None]
"""A row in the keys of a manifest, but for its clip, and its span where it is not the whole recording."""

_LINES = (".jsonl", ".jsonl.gz")
_SHARD = re.compile(r"cuts\.(\d+)\.jsonl(?:\.gz)?")
_CUTS = ("MonoCut", "MultiCut")
_SAVE = "write it to a file with cuts.save_audios"
_MENDS = {"MixedCut": _SAVE, "PaddingCut": "leave it out", "Cut": "write the set again with Lhotse 0.8 or later"}
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
        if find_spec("lhotse") is None:
            raise ConfigError("the source lhotse needs the library: pip install 'audiograft[lhotse]'")
        # A cut is a line, which need not be understood to be passed over; how many supervisions it has is not seen before.
        skipped_cuts = skip if self.per == "cut" else 0
        yield from islice(self._rows(skipped_cuts), skip - skipped_cuts, None)

    def _rows(self, skip: int) -> Iterator[SourceRow | Rejection]:
        reader = RowReader(self.audio_root or (self.path if self.path.is_dir() else self.path.parent), self.allow_outside)
        n_cuts = 0
        for cuts, archive in _find_cuts(self.path):
            groups = read_groups(archive, skip - n_cuts, _split_at_last_dot) if archive else repeat(None)
            for place, line in _lines(cuts):
                group = next(groups, None)
                n_cuts += 1
                if n_cuts > skip:
                    yield from self._cut(line, place, group, reader) if archive is None or group else [_without_group(place, archive)]
            if archive is not None and (extra := next(groups, None)) is not None:
                raise DataError(f"{archive}: {extra.key} has no cut in {cuts}: get both again")

    def _cut(self, line: bytes, place: str, group: Group | None, reader: RowReader) -> Iterator[SourceRow | Rejection]:
        """The rows of one cut; in a Shar folder, with the group of its recording."""
        row: dict[str, Any] = {}
        try:
            with _sense(place):
                cut = _parse(line, place)
                row["id"] = cut.id
                audio, sound = (_path(cut, place), None) if group is None else _member(cut, group, place)
            if self.per == "supervision" and not cut.supervisions:
                raise DataError(f"{place}: the cut {cut.id} has no supervisions: take it as a whole with --per cut")
        except DataError as error:
            yield refusal(place, error, row)
            return
        # What lies in an archive leaves no folder.
        reader = reader if sound is None else replace(reader, folder=Path(), allow_outside=True)
        for part in cut.supervisions if self.per == "supervision" else [None]:
            try:
                with _sense(place):
                    own, span = _whole(cut, place) if part is None else _part(cut, part, place)
            except DataError as error:
                yield refusal(place, error, row if part is None else {"id": part.id})
                continue
            read = reader.read(own | {"audio": audio}, 1, place, span)
            yield replace(read, audio=sound) if isinstance(read, SourceRow) else read


@contextmanager
def _sense(place: str) -> Iterator[None]:
    """Name the line that the library makes no sense of; it says of none what is wrong with it."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError, AssertionError, IndexError, OverflowError) as error:
        raise DataError(f"{place}: no cut with a recording ({type(error).__name__}: {error}): write the set again with lhotse") from error


def _find_cuts(path: Path) -> list[tuple[Path, Path | None]]:
    """The files of cuts, each with the archive of its recordings, where it is a Shar shard."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder: correct the path")
    if path.is_file():
        found = [path]
    else:
        sets = sorted(file for file in path.iterdir() if "cuts" in file.name and file.name.endswith(_LINES))
        found = [file for file in sets if _SHARD.fullmatch(file.name)] or sets
        if not found or (len(found) > 1 and not _SHARD.fullmatch(found[0].name)):
            what = "several cut sets" if found else "no cut set"
            raise DataError(f"{path}: {what} in this folder: name a file such as cuts.jsonl.gz, or a Shar folder")
    shards: list[tuple[Path, Path | None]] = []
    for file in found:
        if not file.name.endswith(_LINES):
            raise DataError(f"{file}: cut sets are read as .jsonl or .jsonl.gz: run `lhotse copy {file} cuts.jsonl.gz`")
        number = _SHARD.fullmatch(file.name)
        archive = file.with_name(f"recording.{number[1]}.tar") if number else None
        if archive is not None and not archive.is_file():
            raise DataError(f"{file}: {archive.name} is not beside it: write the folder again, cuts.to_shar with fields={{'recording': 'flac'}}")
        shards.append((file, archive))
    return shards


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Place and bytes of each line that is not blank."""
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}:{number}", line
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path}: can't be read ({error.strerror}): correct its permissions") from error
        raise DataError(f"{path}: breaks off ({error}): get it again, then run this once more to go on") from error


def _split_at_last_dot(name: str) -> tuple[str, str]:
    """Key and suffix of a Shar member; the ids of cuts may have dots."""
    key, _, suffix = name.rpartition(".")
    return key, suffix.lower()


def _parse(line: bytes, place: str) -> Any:
    """The `lhotse` cut that a line describes: a MonoCut or MultiCut of a recording as it was recorded."""
    from lhotse import MonoCut, MultiCut

    row = parse_line(line, place)
    if isinstance(row, DataError):
        raise row
    if row.get("type") not in _CUTS:
        what = row.get("type") or "no cut"
        raise DataError(f"{place}: {what}: {_MENDS.get(what, 'make cuts of recordings and supervisions with `lhotse cut simple`')}")
    cut = (MultiCut if row["type"] == "MultiCut" else MonoCut).from_dict(row)
    times = [cut.start, cut.duration, cut.recording.duration, *(time for part in cut.supervisions for time in (part.start, part.duration))]
    if not isinstance(cut.id, str) or not all(map(math.isfinite, times)):
        raise ValueError("its id must be text, and its times numbers")
    if cut.recording.transforms:
        raise DataError(f"{place}: the recording of {cut.id} has transforms, which are not done here: {_SAVE}")
    return cut


def _path(cut: Any, place: str) -> str:
    """The file of a cut's channels."""
    wanted = set(cut.channel if isinstance(cut.channel, list) else [cut.channel])
    # A mono file may be called channel 1 of a pair of files, and a cut of one channel of a stereo file is not what the file sounds like.
    source = next((source for source in cut.recording.sources if set(source.channels) == wanted), None)
    if source is None:
        raise DataError(f"{place}: {cut.id} takes channel {cut.channel} of a file with others: {_SAVE}")
    if source.type != "file" or not isinstance(source.source, str):
        raise DataError(f"{place}: the audio of {cut.id} is no file but of the type {source.type!r}, which is not run or fetched: {_SAVE}")
    return source.source


def _member(cut: Any, group: Group, place: str) -> tuple[str, bytes]:
    """Name and bytes of a cut's audio in a Shar archive."""
    if group.key != cut.id:
        raise DataError(f"{place}: the archive has {group.key} where {cut.id} should be: write the Shar folder again")
    name = next((suffix for suffix in group.members if suffix not in ("json", "nodata", "nometa")), None)
    if group.fault or name is None:
        raise DataError(f"{place}: {group.fault or f'{cut.id} has no audio in its archive: leave it out'}")
    if len(cut.recording.channel_ids or [0]) > len(cut.channel if isinstance(cut.channel, list) else [cut.channel]):
        raise DataError(f"{place}: {cut.id} takes channel {cut.channel} of a file with others: {_SAVE}")
    return f"{cut.id}.{name}", group.members[name]


def _without_group(place: str, archive: Path) -> Rejection:
    return refusal(place, DataError(f"{place}: {archive} ends before it: get both again"), kind="missing")


def _whole(cut: Any, place: str) -> _Part:
    """A cut with the texts of all its supervisions, in order of time."""
    supervisions = sorted(cut.supervisions, key=lambda part: part.start)
    for part in supervisions:
        if part.start < -_SLACK_S or part.start + part.duration > cut.duration + _SLACK_S:
            raise DataError(f"{place}: the supervision {part.id} goes over the edge of its cut, where not all is said: use --per supervision")
    row: dict[str, Any] = {}
    for part in supervisions:
        row |= _extra(part)
    texts = [part.text for part in supervisions if part.text is not None]
    for key in ("speaker", "language"):
        values = {getattr(part, key) for part in supervisions}
        row[key] = values.pop() if len(values) == 1 else None
    row |= {"id": cut.id, "text": " ".join(texts) if texts else None}
    return _placed(row, cut, cut.start, cut.start + cut.duration, place)


def _part(cut: Any, part: Any, place: str) -> _Part:
    """One supervision. Its times count from the start of the cut."""
    row = _extra(part) | {"id": part.id, "text": part.text, "speaker": part.speaker, "language": part.language}
    start_s = max(0.0, cut.start + part.start)
    return _placed(row, cut, start_s, min(cut.start + part.start + part.duration, cut.recording.duration), place)


def _placed(row: dict[str, Any], cut: Any, start_s: float, end_s: float, place: str) -> _Part:
    if end_s <= start_s:
        raise DataError(f"{place}: {row['id']} lasts from {start_s:g} to {end_s:g} s of {cut.recording.id}: correct its times")
    row |= {"recording": cut.recording.id, "duration_s": end_s - start_s}
    is_all = start_s < _WHOLE_S and end_s > cut.recording.duration - _WHOLE_S
    return row, None if is_all else (start_s, end_s)


def _extra(part: Any) -> dict[str, Any]:
    """What else is known of a supervision and can be written as JSON."""
    plain = {key: value for key, value in (part.custom or {}).items() if isinstance(value, str | int | float | bool) and key not in MANIFEST_KEYS}
    return plain | ({"gender": part.gender} if part.gender else {})
