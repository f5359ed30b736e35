"""What the sources share that read tables and manifests: their keys as ours, and a row as a `SourceRow` or a `Rejection`."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audiograft.data.languages import language_code
from audiograft.data.manifest import MANIFEST_KEYS, row_to_sample, span_keys
from audiograft.data.paths import OutsideError
from audiograft.data.sources.base import SourceRow, option
from audiograft.types import ConfigError, DataError, Rejection

OUR_KEYS = MANIFEST_KEYS | {"wer_percent"}
"""What a key of a corpus can stand for. All its other keys are kept under their own names."""
ALIASES = {
    "audio": ("audio", "path", "file", "wav", "filename", "file_name", "audio_path", "audio_filepath", "audio_file", "wav_filename", "clip"),
    "text": ("text", "sentence", "transcript", "transcription", "wrd", "normalized_text", "raw_text", "ground_truth"),
    "id": ("id", "utt_id", "utterance_id", "uttid", "segment_id", "audio_id"),
    "speaker": ("speaker", "speaker_id", "client_id", "spk_id", "spk", "speaker_name"),
    "recording": ("recording", "recording_id", "session_id", "meeting_id", "video_id"),
    "language": ("language", "lang", "locale"),
    "label": ("label", "category", "class"),
    "prompt": ("prompt", "instruction"),
    "response": ("response", "answer"),
    "duration_s": ("duration_s", "duration", "audio_duration"),
    "source": ("source",),
    "wer_percent": ("wer_percent",),
}
"""The names under which our keys are found where nobody says which is which, the likeliest first."""
_UNDECODED = re.compile("[\0\ud800-\udfff]")
_NAME_KEYS = ("id", "speaker", "recording", "language", "label", "source")


def keys_option() -> Any:
    return option("Which of its keys is which of ours, as theirs=ours, such as transcript=text; repeatable.", ())


def audio_root_option() -> Any:
    return option("The folder to which clips are relative, and below which they lie; that of the file by default.", None)


def allow_outside_option() -> Any:
    return option("Also take clips that do not lie below that folder.", False)


@dataclass(frozen=True)
class RowReader:
    """Makes source rows of rows in our keys.

    Attributes:
        folder: to which clips are relative.
        allow_outside: also take clips that do not lie below it.
        corpus: the name of the corpus, for rows that do not state one. What a file is called is none: speakers of two corpora count as two people,
            and train.csv and test.csv may well be of one corpus.
    """

    folder: Path
    allow_outside: bool
    corpus: str | None = None

    def read(self, row: Mapping[str, Any], number: int, place: str, span: tuple[float, float] | None = None) -> SourceRow | Rejection:
        """One row.

        Args:
            row: in the keys of a manifest. Numbers that are names, as ids and speakers often are, become text.
            number: its line.
            place: its file and line.
            span: its part of the clip, in seconds.
        """
        # What is left of such keys tells where the clip was cut from, and would read as a part of it.
        asked = span_keys(row)
        named = {f"original_{key}" if key in asked else key: value for key, value in row.items()}
        for key in _NAME_KEYS:
            if isinstance(named.get(key), int | float) and not isinstance(named[key], bool):
                named[key] = str(named[key])
            elif isinstance(named.get(key), str):
                named[key] = named[key].strip()
        if isinstance(language := named.get("language"), str):
            named["language"] = language_code(language) or None
        try:
            sample = row_to_sample(named, number, self.folder, place, self.allow_outside)
        except DataError as error:
            return refusal(place, error, named)
        return SourceRow(replace(sample, source=sample.source or self.corpus), span=span)


def refusal(place: str, error: DataError, row: Mapping[str, Any] | None = None, kind: str = "row") -> Rejection:
    """A row that can't be used: a line without meaning, or what was made of it.

    Args:
        place: its file and line, which stand for its id where it has none.
        error: why; names the place.
        row: in our keys, as far as it could be read.
        kind: that under which it is counted, where its error does not say.
    """
    row = row or {}
    given = row.get("audio")
    clip = given[0] if isinstance(given, list) and given else given
    row_id = row["id"] if isinstance(row.get("id"), str) and row["id"] else clip if isinstance(clip, str) and clip else place
    reason = str(error)
    if isinstance(error, OutsideError):
        reason, kind = f"{reason}, or name the folder that it lies in with --audio-root", "outside"
    elif isinstance(error.__cause__, UnicodeDecodeError):
        kind = "text"
    return Rejection(row_id, clip if isinstance(clip, str) and clip else row_id, reason, kind)


def is_undecoded(text: str) -> bool:
    """Whether text holds a NUL, or what `surrogateescape` makes of bytes in another encoding."""
    return _UNDECODED.search(text) is not None


def number_in(text: str) -> float:
    """The number that a field holds; NaN where it holds none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def key_pairs(keys: Sequence[str]) -> dict[str, str]:
    """`theirs=ours` pairs as a mapping of theirs to ours.

    Raises:
        ConfigError: not a pair, none of our keys, or two for one of ours.
    """
    pairs: dict[str, str] = {}
    for pair in keys:
        theirs, equals, ours = pair.rpartition("=")
        if not equals or not theirs:
            raise ConfigError(f"--keys {pair}: write theirs=ours, such as transcript=text")
        if ours not in OUR_KEYS:
            close = difflib.get_close_matches(ours, OUR_KEYS, n=1, cutoff=0.0)[0]
            raise ConfigError(f"--keys {pair}: {ours} is none of our keys: the closest is {close}; all others are kept under their own names")
        if ours in pairs.values():
            raise ConfigError(f"--keys {pair}: {ours} is given twice: leave one out")
        pairs[theirs] = ours
    return pairs


def value_at(row: Mapping[str, Any], key: str) -> Any:
    """The value of a key, or of `a.b` that of b within a; None where there is none."""
    if key in row:
        return row[key]
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def rename(row: Mapping[str, Any], pairs: Mapping[str, str]) -> dict[str, Any]:
    """A row with their keys as ours. Those which are not named keep their names, with `original_` before it where it is taken now."""
    values = {ours: value_at(row, theirs) for theirs, ours in pairs.items()}
    found = {ours: value for ours, value in values.items() if value is not None}
    return {f"original_{key}" if key in found else key: value for key, value in row.items() if key not in pairs} | found


def guess_keys(names: Iterable[str], pairs: Mapping[str, str]) -> dict[str, str]:
    """Which names stand for our keys: those that were given, then for each other key of ours the likeliest, in capitals or not."""
    names = list(names)
    found = dict(pairs)
    for ours, aliases in ALIASES.items():
        if ours in found.values():
            continue
        # A name is likelier as it is than in other letters: `id` before `ID`.
        free = [name for name in names if name not in found and name.casefold() in aliases]
        if free:
            found[min(free, key=lambda name: (aliases.index(name.casefold()), name != name.casefold()))] = ours
    return found
