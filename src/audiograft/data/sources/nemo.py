"""The source `nemo`: manifests of NVIDIA NeMo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from audiograft.data.manifest import scan_rows
from audiograft.data.sources.base import SourceRow, option
from audiograft.data.sources.rows import RowReader, allow_outside_option, audio_root_option, refusal
from audiograft.data.sources.spans import take_span
from audiograft.types import DataError, Rejection

_KEYS = {
    "audio": ("audio_filepath",),
    "text": ("text",),
    "prompt": ("context", "question"),
    "response": ("answer",),
    "speaker": ("speaker", "speaker_id"),
    "language": ("lang", "language", "source_lang"),
    "label": ("label", "command"),
    "duration_s": ("duration",),
    "id": ("id", "utt_id"),
}
"""Of each of ours those that NeMo's manifests have for it; the first that a row has counts."""


@dataclass(frozen=True)
class Nemo:
    """A NeMo manifest: audio_filepath, duration, text, and offset, speaker, lang, label, context and answer where it has them.

    With `offset`, a row is a span of its file. Manifests of tarred data sets are refused, since their clips are in archives.

    Example: audiograft prepare nemo train_manifest.json --out corpus
    """

    name: ClassVar[str] = "nemo"
    path: Path = option("The manifest, one object a line.", argument=True)
    audio_root: Path | None = audio_root_option()
    allow_outside: bool = allow_outside_option()

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        if not self.path.is_file():
            raise DataError(f"{self.path}: no such manifest: correct the path")
        reader = RowReader(self.audio_root or self.path.parent, self.allow_outside)
        for number, _, row in scan_rows(self.path, skip):
            place = f"{self.path}:{number}"
            if isinstance(row, DataError):
                yield refusal(place, row)
            elif "shard_id" in row:
                raise DataError(
                    f"{place}: a manifest of tarred audio: unpack the tars and name their folder with --audio-root, leaving shard_id out; "
                    "tars that hold their texts too are read by `audiograft prepare webdataset`"
                )
            else:
                yield _row(row, number, place, reader)


def _row(row: Mapping[str, Any], number: int, place: str, reader: RowReader) -> SourceRow | Rejection:
    own = _own(row)
    why = _complaint(own) or _complaint_about_translation(row, own)
    if why:
        return refusal(place, DataError(f"{place}: {why}"), own)
    try:
        own, span = take_span(own, place)
    except DataError as error:
        return refusal(place, error, own)
    return reader.read(own, number, place, span)


def _own(row: Mapping[str, Any]) -> dict[str, Any]:
    used = {theirs for names in _KEYS.values() for theirs in names}
    own = {key: value for key, value in row.items() if key not in used}
    for ours, names in _KEYS.items():
        value = next((row[name] for name in names if row.get(name) is not None), None)
        if value is not None:
            own[ours] = value
    return own


def _complaint(own: Mapping[str, Any]) -> str | None:
    """What is wrong with a row's clip; None where nothing is."""
    audio = own.get("audio")
    if not isinstance(audio, str) or not audio:
        return "audio_filepath is a list, one file a channel: mix it down" if isinstance(audio, list) else "audio_filepath must be a path: correct it"
    return None


def _complaint_about_translation(row: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    source, target = row.get("source_lang"), row.get("target_lang")
    if source and target and source != target and not own.get("prompt"):
        return f"a translation from {source} to {target} without a question: add context, such as 'Translate the audio.'"
    return None
