"""Verdicts: what can be said of a clip, and the rows that say it."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from audiograft.types import DataError


@dataclass(frozen=True)
class Described:
    """Something that a rater can choose.

    Attributes:
        label: its name on the page.
        hint: when to choose it.
    """

    label: str
    hint: str


CATEGORIES: Mapping[str, Described] = {
    "label_noise": Described("Label noise", "the model is right, the label is wrong"),
    "model_error": Described("Model error", "the label is right, the model is wrong"),
    "ambiguous": Described("Ambiguous", "it can't be told, or both are wrong"),
    "normalisation": Described("Normalisation only", "they differ in spelling, case, punctuation or how numbers are written"),
    "perfect": Described("Perfect", "both are right and the same"),
}
"""System A's five categories, by their key."""
CHOICES: Mapping[str, Described] = {
    "x": Described("X is right", "Y is wrong"),
    "y": Described("Y is right", "X is wrong"),
    "neither": Described("Both wrong or ambiguous", "neither is what is said, or it can't be told"),
    "normalisation": Described("Only spelling or format differs", "case, punctuation, variants, how numbers are written"),
    "same": Described("The same", "both are right"),
}
"""What is chosen where a rater does not know which text is which, by its key."""
TAGS = ("missing word", "wrong word", "name", "grammar", "disfluency", "rewritten from context")
MAX_RATER_CHARACTERS = 64
MAX_TEXT_CHARACTERS = 20_000
"""Of a corrected text or a note."""
_MAX_EVENT_ID_CHARACTERS = 64
_MEND = "correct or remove the line"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Verdict:
    """What a rater says of a clip. A later one of the same rater on the same clip stands in its place.

    Attributes:
        id: of the clip.
        verdict: a key of `CATEGORIES`.
        rater: who says so.
        blind: the rater was not told which text is the label.
        choice: a key of `CHOICES`, where it was blind.
        corrected: what is said in the clip, as the rater typed it: empty where nothing is said, None where the rater typed nothing.
        tags: some of `TAGS`.
        note: in the rater's own words.
        time: when, in ISO format.
        event_id: drawn where it was given, so that it is written once however often it is sent; None where it came with none.
    """

    id: str
    verdict: str
    rater: str
    blind: bool = False
    choice: str | None = None
    corrected: str | None = None
    tags: tuple[str, ...] = ()
    note: str | None = None
    time: str = field(default_factory=_now)
    event_id: str | None = None

    def as_row(self, fingerprint: str) -> dict[str, Any]:
        """For the log of the run with this fingerprint."""
        return {
            "event": "verdict",
            "event_id": self.event_id,
            "run": fingerprint,
            "time": self.time,
            "rater": self.rater,
            "id": self.id,
            "verdict": self.verdict,
            "blind": self.blind,
            "choice": self.choice,
            "corrected": self.corrected,
            "tags": list(self.tags),
            "note": self.note,
        }


@dataclass(frozen=True)
class Undo:
    """A rater takes back the last verdict that stands. `event_id` as in `Verdict`."""

    rater: str
    time: str = field(default_factory=_now)
    event_id: str | None = None

    def as_row(self, fingerprint: str) -> dict[str, Any]:
        """For the log of the run with this fingerprint."""
        return {"event": "undo", "event_id": self.event_id, "run": fingerprint, "time": self.time, "rater": self.rater}


Event = Verdict | Undo


def check_rater(name: Any, place: str = "rater") -> str:
    """A rater's name without blanks at its ends, its accents composed (NFC): however a keyboard writes them, it is one person.

    Raises:
        DataError: empty, too long, or with characters that can't be seen.
    """
    if not isinstance(name, str) or not (stripped := unicodedata.normalize("NFC", name.strip())):
        raise DataError(f"{place}: give the rater a name")
    if len(stripped) > MAX_RATER_CHARACTERS or not stripped.isprintable():
        raise DataError(f"{place}: a rater's name has at most {MAX_RATER_CHARACTERS} characters, and no control characters: shorten or correct it")
    return stripped


def read_event(row: Mapping[str, Any], place: str, fingerprint: str, ids: Collection[str] | None = None) -> Event:
    """A row of a log as an event.

    Args:
        row: as `json` reads it.
        place: file and line, for errors.
        fingerprint: of the run to which it must belong.
        ids: those that a verdict can be about; any where None.

    Raises:
        DataError: it belongs to another run, is about an unknown clip, or has a value that does not fit.
    """
    if not isinstance(run := row.get("run"), str):
        raise DataError(f'{place}: "run" is missing: {_MEND}')
    if run != fingerprint:
        raise DataError(f"{place}: belongs to another run ({run[:16]!r}; this one is {fingerprint!r}): name that run, or move this file away")
    time = row.get("time")
    try:
        datetime.fromisoformat(time if isinstance(time, str) else "")
    except ValueError as error:
        raise DataError(f'{place}: "time" must be a date and time in ISO format: {_MEND}') from error
    rater = check_rater(row.get("rater"), place)
    if row.get("event") == "undo":
        return Undo(rater, str(time), read_event_id(row, place))
    if row.get("event") != "verdict":
        raise DataError(f'{place}: "event" must be verdict or undo, not {row.get("event")!r}: {_MEND}')
    if not isinstance(blind := row.get("blind", False), bool):
        raise DataError(f'{place}: "blind" must be true or false: {_MEND}')
    return read_verdict(row, place, rater, ids, blind, str(time))


def read_verdict(row: Mapping[str, Any], place: str, rater: str, ids: Collection[str] | None, blind: bool, time: str | None = None) -> Verdict:
    """A verdict from a row of a log, or from what a page sends.

    Args:
        row: `id`, `verdict`, and optionally `choice`, `corrected`, `tags` and `note`.
        place: where it comes from, for errors.
        rater: a checked name.
        ids: those that a verdict can be about; any where None.
        blind: whether it was given blind.
        time: when; now, where None.

    Raises:
        DataError: it is about an unknown clip, or a value does not fit; names the key.
    """
    if not isinstance(id_ := row.get("id"), str) or (ids is not None and id_ not in ids):
        raise DataError(f'{place}: "id" must be that of a clip of the run, not {_shown(id_)}')
    category = _one_of(row.get("verdict"), CATEGORIES, f'{place}: "verdict"')
    choice = None if row.get("choice") is None else _one_of(row["choice"], CHOICES, f'{place}: "choice"')
    tags = row.get("tags") or ()
    if not isinstance(tags, list | tuple):
        raise DataError(f'{place}: "tags" must be a list')
    chosen = tuple(dict.fromkeys(_one_of(tag, TAGS, f'{place}: "tags"') for tag in tags))
    corrected, note = (_text(row.get(key), f'{place}: "{key}"') for key in ("corrected", "note"))
    return Verdict(id_, category, rater, blind, choice, corrected, chosen, note or None, time or _now(), read_event_id(row, place))


def read_event_id(row: Mapping[str, Any], place: str) -> str | None:
    """The `event_id` of a row of a log, or of what a page sends; None where it has none.

    Raises:
        DataError: it is no text, or too long.
    """
    value = row.get("event_id")
    if value is not None and (not isinstance(value, str) or not 0 < len(value) <= _MAX_EVENT_ID_CHARACTERS):
        raise DataError(f'{place}: "event_id" must be a text of at most {_MAX_EVENT_ID_CHARACTERS} characters, or null')
    return value


def _one_of(value: Any, known: Collection[str], what: str) -> str:
    if not isinstance(value, str) or value not in known:
        raise DataError(f"{what} must be one of {', '.join(known)}, not {_shown(value)}")
    return value


def _text(value: Any, what: str) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS):
        raise DataError(f"{what} must be a text of at most {MAX_TEXT_CHARACTERS} characters, or null")
    return value if value is None or value.strip() else ""


def _shown(value: Any) -> str:
    """A value from outside in one short line."""
    shown = json.dumps(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
