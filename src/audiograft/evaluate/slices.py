"""Parts of a run: its clips by speaker, duration, noise, source, language, or any key of their rows."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from audiograft.evaluate.clips import ScoredClip, as_dict, right_share, split_tasks, word_interval
from audiograft.metrics.word_errors import corpus
from audiograft.types import DataError

_DURATIONS_S = ((2, 5, 10, 20, 30), ("0-2", "2-5", "5-10", "10-20", "20-30", "30+"))
_NOISE_DB = ((0, 5, 10, 15, 20), ("<0", "0-5", "5-10", "10-15", "15-20", "20+"))
_SMALL_WORDS = 100
_SMALL_ANSWERS = 20
"""In fewer, one error more or less is a whole point (five points): such slices are marked, not hidden."""
_QUARTILES = (0.25, 0.5, 0.75)
_MOST_LEVELS, _CLIPS_OF_LEVEL = 12, 10
"""So few different numbers with so many clips each are levels that somebody chose, such as the durations of a bench, and are left as they are."""
Groups = dict[str, dict[str, list[ScoredClip]]]
"""By key and value: the clips."""


def _binned(name: str, bins: tuple[Sequence[float], Sequence[str]]) -> Callable[[ScoredClip], str | None]:
    edges, labels = bins

    def value(clip: ScoredClip) -> str | None:
        number = getattr(clip.prediction, name)
        return None if number is None else labels[bisect_right(edges, number)]

    return value


_FIXED: Mapping[str, Callable[[ScoredClip], str | None]] = {
    "speaker": lambda clip: clip.prediction.speaker,
    "duration": _binned("duration_s", _DURATIONS_S),
    "snr": _binned("snr_db", _NOISE_DB),
    "source": lambda clip: clip.prediction.source,
    "language": lambda clip: clip.prediction.language,
}
FIXED_SLICES = tuple(_FIXED)
"""The slices that every run has, where its rows state the key."""
_ORDER = {"duration": _DURATIONS_S[1], "snr": _NOISE_DB[1]}


def group_clips(clips: Sequence[ScoredClip], slice_by: Sequence[str] = ()) -> Groups:
    """Put clips into slices.

    Args:
        clips: of one run.
        slice_by: more keys of the rows; where all values are numbers, more than four of them and not levels of a bench, they are cut
            into quartiles.

    Returns:
        By key and value, in order; a key that no row states is left out, and so are, key by key, the clips that do not state it.

    Raises:
        DataError: no row has a key of `slice_by`.
    """
    groups: Groups = {}
    for key, value in _FIXED.items():
        found = _collect(clips, [value(clip) for clip in clips])
        order = _ORDER.get(key, sorted(found))
        if found:
            groups[key] = {name: found[name] for name in order if name in found}
    if more := [key for key in slice_by if key not in _FIXED]:
        groups |= {key: group_by(clips, key) for key in more}
    return groups


def group_by(clips: Sequence[ScoredClip], key: str) -> dict[str, list[ScoredClip]]:
    """Clips by the value of a key of their rows, as `slice_by` of `group_clips` has them.

    Raises:
        DataError: no row has it.
    """
    return _by_key(clips, [clip.prediction.as_row().get(key) for clip in clips], key)


def further_slices(metrics: Mapping[str, Any]) -> list[str]:
    """Keys that the figures of a metrics.json were cut by besides the usual ones."""
    slices = {**(metrics.get("slices") or {}), **((metrics.get("accuracy") or {}).get("slices") or {})}
    return [key for key in slices if key not in FIXED_SLICES]


def count_without(clips: Sequence[ScoredClip], groups: Groups) -> dict[str, int]:
    """How many clips each key of the slices does not cover."""
    return {key: len(clips) - sum(map(len, values.values())) for key, values in groups.items()}


def score_transcripts(groups: Groups) -> dict[str, dict[str, dict[str, Any]]]:
    """WER of each slice that has transcripts, with its interval where it has two at least."""
    return _score(groups, 0, _words)


def score_answers(groups: Groups) -> dict[str, dict[str, dict[str, Any]]]:
    """Share of right answers of each slice that has some, with its interval where it has two at least."""
    return _score(groups, 1, _answers)


def _score(groups: Groups, task: int, figure: Callable[[Sequence[ScoredClip]], dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    scored = {}
    for key, values in groups.items():
        found = {name: split_tasks(clips)[task] for name, clips in values.items()}
        if any(found.values()):
            scored[key] = {name: figure(clips) for name, clips in found.items() if clips}
    return scored


def _words(clips: Sequence[ScoredClip]) -> dict[str, Any]:
    total = corpus(clip.words for clip in clips)
    return {
        "wer": total.rate if total.reference_length else None,
        "n_clips": len(clips),
        "reference_length": total.reference_length,
        "interval": as_dict(word_interval(clips)) if len(clips) > 1 and total.reference_length else None,
        "small": total.reference_length < _SMALL_WORDS,
    }


def _answers(clips: Sequence[ScoredClip]) -> dict[str, Any]:
    right, interval = right_share(clips)
    return {
        "rate": right / len(clips),
        "answers": len(clips),
        "interval": as_dict(interval) if len(clips) > 1 else None,
        "small": len(clips) < _SMALL_ANSWERS,
    }


def _collect(clips: Sequence[ScoredClip], values: Sequence[str | None]) -> dict[str, list[ScoredClip]]:
    found = defaultdict(list)
    for clip, value in zip(clips, values, strict=True):
        if value is not None:
            found[value].append(clip)
    return found


def _by_key(clips: Sequence[ScoredClip], values: Sequence[Any], key: str) -> dict[str, list[ScoredClip]]:
    known = [value for value in values if value is not None]
    if not known:
        raise DataError(f"no row has the key {key!r} to slice by: correct the key, or add it to the manifest")
    numeric = all(map(_is_number, known))
    n_values = len({_name(value) for value in known})
    are_levels = n_values <= _MOST_LEVELS and len(known) >= n_values * _CLIPS_OF_LEVEL
    if numeric and n_values > len(_QUARTILES) + 1 and not are_levels:
        return _quartiles(clips, values)
    found = _collect(clips, [None if value is None else _name(value) for value in values])
    return {name: found[name] for name in sorted(found, key=float if numeric else None)}


def _quartiles(clips: Sequence[ScoredClip], values: Sequence[float | None]) -> dict[str, list[ScoredClip]]:
    """Equal values stay together, so that parts may differ in size."""
    edges = np.quantile([value for value in values if value is not None], _QUARTILES).tolist()
    parts: dict[int, list[tuple[float, ScoredClip]]] = defaultdict(list)
    for clip, value in zip(clips, values, strict=True):
        if value is not None:
            parts[bisect_right(edges, value)].append((value, clip))
    members = [parts[part] for part in sorted(parts)]
    ends = [(min(value for value, _ in part), max(value for value, _ in part)) for part in members]
    labels = [f"{low:g} to {high:g}" for low, high in ends]
    if len(set(labels)) < len(labels):  # six digits do not tell them apart
        labels = [f"{low!r} to {high!r}" for low, high in ends]
    return {label: [clip for _, clip in part] for label, part in zip(labels, members, strict=True)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _name(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
