"""Which column of a table is what, and a row of a table as a row of a corpus."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

from audiograft.data.languages import language_code
from audiograft.data.paths import OutsideError, clip_path
from audiograft.data.sources.base import SourceRow
from audiograft.types import TRANSCRIBE_PROMPT, ConfigError, DataError, Rejection, Sample

KNOWN_COLUMNS = {
    "audio": ("audio", "wav", "flac", "mp3", "speech", "audio_path", "path", "file", "file_name"),
    "id": ("id", "ID", "utt_id", "utterance_id", "segment_id", "audio_id", "key", "__key__"),
    "text": ("text", "sentence", "transcription", "transcript", "normalized_text", "raw_text"),
    "prompt": ("prompt",),
    "response": ("response",),
    "speaker": ("speaker", "speaker_id", "spk_id", "client_id"),
    "recording": ("recording", "recording_id", "session_id", "meeting_id", "video_id"),
    "language": ("language", "locale", "lang"),
    "label": ("label",),
    "duration_s": ("duration_s", "duration", "audio_duration"),
}
"""What a column is taken for where no mapping says otherwise; the first that is there. This reads, as they are on the hub: `librispeech_asr` (audio,
text, speaker_id, chapter_id, id), Common Voice (audio, sentence, client_id, locale, path), `LargeScaleASR` (wav, text, spk_id, duration, ID),
FLEURS (transcription), Multilingual LibriSpeech (transcript, audio_duration), VoxPopuli (normalized_text, audio_id) and AMI (meeting_id)."""
_RESERVED = frozenset({*KNOWN_COLUMNS, "messages", "source"})
"""Keys of a manifest, which a column of another meaning must not take."""
_UNKNOWN = frozenset({"", "none", "nan", "null"})
"""What tables that were once CSV files have where a speaker is not known."""


def name_columns(columns: Sequence[str], given: Sequence[str], place: str) -> dict[str, str]:
    """What each column of a table is.

    Args:
        columns: all that the table has.
        given: `theirs=ours` pairs, which win over `KNOWN_COLUMNS`; what is no key of ours goes to `extra` under that name.
        place: the corpus, for errors.

    Returns:
        Theirs to ours, for every column. Those that are nothing known keep their name, or take `original_` before it where it is one of our keys.

    Raises:
        ConfigError: a pair that is none.
        DataError: a column that isn't there, or none that has audio.
    """
    there = f"it has {', '.join(columns)}"
    names: dict[str, str] = {}
    for pair in given:
        theirs, found, ours = pair.partition("=")
        if not found or not theirs or not ours or ours in ("messages", "source"):
            raise ConfigError(f"--columns {pair}: write theirs=ours, where ours is one of {', '.join(KNOWN_COLUMNS)}, or a name of your own")
        if theirs not in columns:
            raise DataError(f"{place}: no column {theirs!r}: {there}")
        if ours in names.values():
            raise ConfigError(f"--columns {pair}: {ours} is taken by another column: give each its own")
        names[theirs] = ours
    for ours, known in KNOWN_COLUMNS.items():
        found_column = next((column for column in known if column in columns and column not in names), None)
        if ours not in names.values() and found_column is not None:
            names[found_column] = ours
    if "audio" not in names.values():
        raise DataError(f"{place}: no column that is known to have audio: name it with --columns theirs=audio ({there})")
    for column in columns:
        if column not in names:
            names[column] = f"original_{column}" if column in _RESERVED or column in names.values() else column
    return names


@dataclass(frozen=True)
class RowReader:
    """Makes rows of a table into rows of a corpus.

    Attributes:
        source: name of the corpus.
        id_stem: with the row's place behind it, the id of a row that has none.
        names: from `name_columns`.
        classes: names of classes by column, for columns which hold their numbers.
        folder: where relative paths of clips begin, and what clips must not leave; None where no path can be opened.
        fetch: bytes of a clip from its address; it refuses addresses outside the corpus with a `DataError`.
        recording: from (id, speaker, row of the table), where no column has it.
    """

    source: str
    id_stem: str
    names: Mapping[str, str]
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    folder: Path | None = None
    fetch: Callable[[str], bytes] | None = None
    recording: Callable[[str, str | None, Mapping[str, Any]], str | None] = lambda row_id, speaker, row: None

    def read(self, row: Mapping[str, Any], place: int) -> SourceRow | Rejection:
        """One row.

        Args:
            row: column to value. Audio is the bytes of a file, its path, or a mapping of `bytes` and `path`.
            place: in the corpus, counted from 0.
        """
        values = {ours: self._value(theirs, row.get(theirs)) for theirs, ours in self.names.items()}
        row_id = _name(values.get("id")) or f"{self.id_stem}-{place:08d}"
        audio, path = _audio_parts(values.pop("audio", None))
        try:
            for key in ("text", "prompt", "response"):
                _check_text(key, values, row_id)
            audio, clip = self._clip(audio, path, row_id)
            sample = self._sample(row_id, clip, values, row)
        except _UnusableError as error:
            return Rejection(row_id, path or row_id, str(error), error.kind)
        return SourceRow(sample, audio)

    def _value(self, column: str, value: Any) -> Any:
        names = self.classes.get(column)
        if not names or not isinstance(value, int):
            return value
        return names[value] if 0 <= value < len(names) else None  # -1 is an unknown class

    def _sample(self, row_id: str, clip: str, values: Mapping[str, Any], row: Mapping[str, Any]) -> Sample:
        speaker, language = _name(values.get("speaker")), _name(values.get("language"))
        return Sample(
            id=row_id,
            clips=(clip,),
            text=values.get("text"),
            prompt=values.get("prompt") or TRANSCRIBE_PROMPT,
            response=values.get("response"),
            speaker=speaker,
            recording=_name(values.get("recording")) or self.recording(row_id, speaker, row),
            language=language and language_code(language),
            label=_name(values.get("label")),
            source=self.source,
            duration_s=_duration_s(values.get("duration_s"), row_id),
            extra={key: _plain(value) for key, value in values.items() if key not in KNOWN_COLUMNS and _is_plain(value)},
        )

    def _clip(self, audio: bytes | None, path: str | None, row_id: str) -> tuple[bytes | None, str]:
        """The clip's bytes where it is no file, and its name."""
        if audio is not None:
            if not audio:
                raise _UnusableError(f"{row_id}: its audio is empty (0 bytes): leave the row out, or correct it", "empty")
            return audio, path or row_id
        if not path:
            raise _UnusableError(f"{row_id}: its audio is null: leave the row out, or correct it", "missing")
        try:
            if "://" in path and self.fetch is not None:
                return self.fetch(path), path
            if self.folder is None or "://" in path:
                raise _UnusableError(f"{row_id}: its clip {path} is not in the data set: name the folder that has it with --audio-folder", "missing")
            return None, clip_path(path, self.folder, row_id)
        except OutsideError:
            raise _UnusableError(
                f"{row_id}: its clip {path} lies outside of the data set: name the folder that has it with --audio-folder", "outside"
            ) from None
        except DataError as error:
            raise _UnusableError(str(error), "unreadable") from error


class _UnusableError(DataError):
    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


def _audio_parts(value: Any) -> tuple[bytes | None, str | None]:
    """(bytes, path) of the forms in which tables hold audio."""
    if isinstance(value, Mapping):
        audio, path = value.get("bytes"), value.get("path")
        return audio if isinstance(audio, bytes) else None, path if isinstance(path, str) else None
    return value if isinstance(value, bytes) else None, value if isinstance(value, str) else None


def _check_text(key: str, values: Mapping[str, Any], row_id: str) -> None:
    value = values.get(key)
    if isinstance(value, bytes):
        raise _UnusableError(f"{row_id}: its {key} is binary or not UTF-8: correct it, or map another column with --columns", "text")
    if key in values and value is not None and not isinstance(value, str):
        raise _UnusableError(f"{row_id}: its {key} is {str(value)[:40]!r}, no text: correct it, or map another column with --columns", "text")
    if key == "text" and key in values and value is None and values.get("response") is None and values.get("label") is None:
        raise _UnusableError(f"{row_id}: its text is null: leave the row out, or correct it", "text")


def _duration_s(value: Any, row_id: str) -> float | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise _UnusableError(f"{row_id}: its duration is {str(value)[:40]!r}: give seconds, or map the column to another name with --columns", "row")
    return float(value)


def _name(value: Any) -> str | None:
    """An id or name, where there is one; numbers are common."""
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return None if text.lower() in _UNKNOWN else text


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
