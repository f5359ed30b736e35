"""Which clips a detector has wrong: by class, condition and kind, and the most confident of them one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from audiograft.evaluate.detection_plots import draw_errors
from audiograft.evaluate.plots import Share, plain
from audiograft.evaluate.predictions import Prediction
from audiograft.evaluate.sections import Section, short
from audiograft.evaluate.tables import Table, counted, percent
from audiograft.metrics.intervals import wilson

N_SHOWN = 20
_PARTS = {
    "duration_ms": "duration (ms)",
    "target_snr_db": "SNR (dB)",
    "noise": "noise added",
    "band": "band",
    "t60_s": "T60 (s)",
}
_FACTS = {"duration_ms": "ms", "target_snr_db": "dB", "noise": "noise", "band": "band", "t60_s": "T60 (s)", "kind": "kind", "speaker": "speaker"}
Found = Mapping[str, Any]


def rate_share(label: str, rate: float | None, n: int) -> Share:
    """A rate of n clips with Wilson's interval; of none, zeros."""
    if rate is None or not n:
        return Share(label, 0.0, 0.0, 0.0, 0)
    interval = wilson(round(rate * n), n)
    return Share(label, rate, interval.low or 0.0, 1.0 if interval.high is None else interval.high, n)


def error_breakdown(found: Found) -> Iterator[Section]:
    """Misses and false alarms by condition; nothing where all clips are right."""
    n_wrong = found["accuracy"]["n"] - found["accuracy"]["right"]
    title = "Where the errors are"
    if not n_wrong:
        yield Section(title, [f"All {counted(found['n_clips'], 'clip')} are right: there is no error to break down."])
        return
    pairs = [(label, said, n) for label, row in found["confusion"].items() for said, n in row.items() if label != said and n]
    notes = [f"{counted(n_wrong, 'clip')} of {found['n_clips']:,} wrong: {', '.join(f'{n:,} {label} called {said}' for label, said, n in pairs)}."]
    conditions = found["conditions"]
    tables = [
        Table((*([head]), "misses", "of", "false alarms", "of"), [_counts(row, key) for row in conditions[key]])
        for key, head in (*_PARTS.items(), ("kind", "kind of negative"))
        if conditions.get(key)
    ]
    drawn = {head: [_both(row, key) for row in conditions[key]] for key, head in _PARTS.items() if len(conditions.get(key, ())) > 1}
    if not drawn or len(found["classes"]) != 2:
        yield Section(title, notes, tables)
        return
    alt = f"Misses of {found['positive']} and false alarms, as shares of the clips that could be missed or falsely found, with Wilson's intervals."
    yield Section(title, notes, tables, draw_errors(drawn, plain(found["positive"])), alt)


def _counts(row: Found, key: str) -> tuple[str, ...]:
    misses = round((1 - row["hit_rate"]) * row["n_positive"]) if row["n_positive"] else 0
    alarms = round(row["false_alarm_rate"] * row["n_negative"]) if row["n_negative"] else 0
    return value_name(row[key]), f"{misses:,}", f"{row['n_positive']:,}", f"{alarms:,}", f"{row['n_negative']:,}"


def _both(row: Found, key: str) -> tuple[str, Share, Share]:
    miss = None if row["hit_rate"] is None else 1 - row["hit_rate"]
    name = value_name(row[key])
    return name, rate_share(name, miss, row["n_positive"]), rate_share(name, row["false_alarm_rate"], row["n_negative"])


def value_name(value: Any) -> str:
    """A condition's value for people."""
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def confident_errors(found: Found, rows: Sequence[Prediction]) -> Iterator[Section]:
    """The errors of which the model was surest."""
    wrong = [row for row in rows if row.reference != row.hypothesis]
    if not wrong:
        return
    ordered = sorted(wrong, key=lambda row: -(_sure(row, found["positive"]) or 0.0))[:N_SHOWN]
    known = any(_sure(row, found["positive"]) is not None for row in wrong)
    facts = [key for key in _FACTS if any(row.as_row().get(key) is not None for row in ordered)]
    told = []
    for row in ordered:
        stated, sure = row.as_row(), _sure(row, found["positive"])
        place = row.audio if isinstance(row.audio, str) else ""
        cells = (
            row.id,
            row.reference,
            row.hypothesis,
            "-" if sure is None else percent(sure),
            *("-" if stated.get(key) is None else value_name(stated[key]) for key in facts),
            place,
        )
        told.append(tuple(map(short, cells)))
    shown = "all of them" if len(wrong) <= N_SHOWN else f"{N_SHOWN} of {len(wrong):,}"
    order = ", the surest first" if known else "; how sure the model was is not known"
    note = f"Here {shown}{order}. To hear them: audiograft audit and the run folder."
    heads = ("clip", "is", "called", "confidence", *(_FACTS[key] for key in facts), "file")
    yield Section("The most confident errors" if known else "Errors", [note], [Table(heads, told)])


def _sure(row: Prediction, positive: str) -> float | None:
    """The probability that the model gave to what it said; None where it is not known."""
    if row.scores and len(row.scores) > 2 and row.hypothesis in row.scores:
        return math.exp(row.scores[row.hypothesis])
    if row.speech_prob is None:
        return None
    return row.speech_prob if row.hypothesis == positive else 1 - row.speech_prob
