"""Who speaks when: RTTM files, and the stretches of speech, of one voice, and of none that follow from them.

Format: Rich Transcription 2009 evaluation plan of NIST, appendix A. One turn a line: `SPEAKER abjxc 1 0.40 6.64 <NA> <NA> spk00 <NA> <NA>`.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from audiograft.data.sources.cutting import Span
from audiograft.types import Rejection

_OTHER_TYPES = frozenset(
    ("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "SU", "IP", "CB", "A/P", "SPKR-INFO")
)
"""Lines which say something else than who speaks."""
_FIELDS = 8
"""What is read ends with the speaker; the last two fields are often left out."""


@dataclass(frozen=True)
class Turn:
    """One speaker's uninterrupted speech, in seconds."""

    start_s: float
    end_s: float
    speaker: str


@dataclass(frozen=True)
class Stretch:
    """A part of a recording in which the same thing holds, in seconds; who is heard in it."""

    start_s: float
    end_s: float
    speakers: frozenset[str]


def parse_rttm(content: bytes, recording: str, place: str) -> tuple[list[Turn], list[Rejection]]:
    """Read the turns of one recording.

    Args:
        content: of the file. Comments, empty lines and other types of lines than SPEAKER are passed over.
        recording: the name that its lines must have.
        place: the file, for messages.

    Returns:
        Turns in order of time, and lines that can't be used, by their number.
    """
    turns, rejections = [], []
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";") or fields[0] in _OTHER_TYPES:
            continue
        turn = _turn(fields, recording)
        if isinstance(turn, Turn):
            turns.append(turn)
        else:
            rejections.append(Rejection(f"{place}:{number}", recording, f"{place}:{number}: {turn}: correct the line", "row"))
    return sorted(turns, key=lambda turn: (turn.start_s, turn.end_s, turn.speaker)), rejections


def _turn(fields: Sequence[str], recording: str) -> Turn | str:
    """A turn, or what is wrong with it."""
    if fields[0] != "SPEAKER" or len(fields) < _FIELDS:
        return f"no line of RTTM, which begins with SPEAKER and has {_FIELDS} fields or more"
    if fields[1] != recording:
        return f"names the recording {fields[1]!r} in the file of {recording!r}"
    try:
        start_s, length_s = float(fields[3]), float(fields[4])
    except ValueError:
        return f"{fields[3]!r} and {fields[4]!r} are not both seconds"
    if not (0 <= start_s < math.inf and 0 < length_s < math.inf):
        return f"a turn that begins at {start_s:g} s and lasts {length_s:g} s can't be"
    if fields[7] == "<NA>":
        return "names no speaker"
    return Turn(start_s, start_s + length_s, fields[7])


def stretches(turns: Iterable[Turn]) -> Iterator[Stretch]:
    """From the first turn's start to the last one's end, without holes: a new stretch wherever anyone begins or ends."""
    changes: dict[float, Counter[str]] = {}
    for turn in turns:
        changes.setdefault(turn.start_s, Counter())[turn.speaker] += 1
        changes.setdefault(turn.end_s, Counter())[turn.speaker] -= 1
    heard: Counter[str] = Counter()  # twice, where two turns of one speaker overlap
    for start_s, end_s in itertools.pairwise(sorted(changes)):
        for speaker, change in changes[start_s].items():
            heard[speaker] += change
        heard = +heard
        yield Stretch(start_s, end_s, frozenset(heard))


def speech(turns: Iterable[Turn], overlap: bool) -> list[Stretch]:
    """Where anyone speaks, joined over changes of speaker; without `overlap`, where exactly one does."""
    joined: list[Stretch] = []
    for part in stretches(turns):
        if not part.speakers or (len(part.speakers) > 1 and not overlap):
            continue
        if joined and joined[-1].end_s == part.start_s:
            part = Stretch(joined[-1].start_s, part.end_s, joined.pop().speakers | part.speakers)
        joined.append(part)
    return joined


def single_turns(turns: Sequence[Turn], overlap: bool) -> list[Stretch]:
    """Each turn by itself; without `overlap`, only the parts of it during which nobody else speaks."""
    if overlap:
        return [Stretch(turn.start_s, turn.end_s, frozenset((turn.speaker,))) for turn in turns]
    found: list[Stretch] = []
    alone = [part for part in stretches(turns) if len(part.speakers) == 1]
    for turn in turns:
        others = [Turn(part.start_s, part.end_s, turn.speaker) for part in alone if turn.speaker in part.speakers]
        inside = [part for part in others if turn.start_s <= part.start_s and part.end_s <= turn.end_s]
        found += speech(inside, overlap=True)
    return list(dict.fromkeys(found))  # two turns of one speaker that overlap share a part


def gaps(turns: Iterable[Turn], duration_s: float) -> Iterator[Span]:
    """Where nobody speaks, from the start of the recording to its end."""
    end_s = 0.0
    for part in speech(turns, overlap=True):
        if part.start_s > end_s:
            yield end_s, part.start_s
        end_s = part.end_s
    if duration_s > end_s:
        yield end_s, duration_s
