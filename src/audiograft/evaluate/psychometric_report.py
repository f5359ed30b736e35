"""Psychometric curves and the mixed model in the report of a detection run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiograft.evaluate.detection_conditions import CELLS
from audiograft.evaluate.plots import Share
from audiograft.evaluate.psychometric_plots import Panel, draw_contour, draw_psychometric
from audiograft.evaluate.sections import Section
from audiograft.evaluate.tables import Table, percent
from audiograft.metrics.curves import PsychometricFit
from audiograft.metrics.mixed_model import PERFORMANCE, predict_accuracy

_NOTE_LETTERS = 30
"""Of a line within a small plot."""
_LEAST_CLIPS = 5
"""A level, for a curve to be drawn: fewer say next to nothing of its shape."""
Found = Mapping[str, Any]


@dataclass(frozen=True)
class _Family:
    """Curves that are drawn together.

    Attributes:
        title: of the section.
        all: the key of the curve of all clips.
        over: what its levels are.
        of: what its shares are of.
        mark: what the level is called that is looked for.
        unit: of the levels.
        where_unit: of what the clips of one curve have in common.
        xlabel: of the plot.
        about: what to know.
    """

    title: str
    all: str
    over: str
    of: str
    mark: str
    unit: str
    where_unit: str
    xlabel: str
    about: str


_FAMILIES = (
    _Family(
        "Accuracy by duration",
        "accuracy_by_duration",
        "duration_ms",
        "accuracy",
        "DT75",
        "ms",
        "dB",
        "duration (ms, logarithmic)",
        "DT75 is the duration at which 75 % of the clips are right; half of them are right by chance.",
    ),
    _Family(
        "Accuracy by signal-to-noise ratio",
        "accuracy_by_snr",
        "snr_db",
        "accuracy",
        "SNR-75",
        "dB",
        "ms",
        "signal-to-noise ratio (dB)",
        "SNR-75 is the ratio at which 75 % of the clips are right; half of them are right by chance.",
    ),
    _Family(
        "Hits by duration",
        "hit_rate_by_duration",
        "duration_ms",
        "hit_rate",
        "DT50",
        "ms",
        "dB",
        "duration (ms, logarithmic)",
        "DT50 is the duration at which half of the positive clips are found. The curve starts from the share of false alarms.",
    ),
)
_METHOD = (
    "Fitted by maximum likelihood with a lapse rate (Wichmann and Hill 2001); points have Wilson's intervals. No curve is followed beyond the "
    "levels that were measured."
)


def psychometric_sections(found: Found) -> Iterator[Section]:
    """Accuracy by duration and by SNR, and hits by duration, each with the curves that were fitted; and the mixed model of both."""
    curves = found["psychometric"]["curves"]
    for family in _FAMILIES:
        own = [curves[family.all]]
        own += [curve for key, curve in curves.items() if key != family.all and (curve["over"], curve["of"]) == (family.over, family.of)]
        yield _section(family, own)
    yield _mixed_model(found)


def _section(family: _Family, curves: Sequence[Found]) -> Section:
    fitted = [curve for curve in curves if "refused" not in curve]
    refused: dict[str, list[str]] = {}
    for curve in curves:
        if "refused" in curve:
            refused.setdefault(curve["refused"], []).append(_where(curve, family))
    notes = [f"No curve of {', '.join(names)}: {why}." for why, names in refused.items()]
    left_out = curves[0]["left_out"]
    notes += [f"{left_out:,} clips do not state the {'duration' if family.unit == 'ms' else 'ratio'} and are left out."] if left_out else []
    if not fitted:
        return Section(family.title, notes)
    unfit = [_where(curve, family) for curve in fitted if curve["goodness"]["unfit"]]
    notes = [f"{family.about} {_METHOD}", *notes]
    notes += [f"The points lie farther from the curve than chance allows in {', '.join(unfit)}."] if unfit else []
    notes += [] if unfit else _told_by_panel(fitted, family)
    panels = [_panel(curve, family) for curve in fitted]
    name = "clips right" if family.of == "accuracy" else "hits"
    drawing = draw_psychometric(panels, family.xlabel, name, f"psychometric-{family.all.replace('_', '-')}", logarithmic=family.unit == "ms")
    alt = f"{_where(fitted[0], family)}: {'; '.join(_mark_lines(fitted[0]['level'], family))}."
    return Section(family.title, notes, [_table(fitted, family), *_points(fitted, family)], drawing, alt)


def _told_by_panel(curves: Sequence[Found], family: _Family) -> list[str]:
    """What is to be known of single curves, with the names of their panels."""
    panels: dict[str, list[str]] = {}
    for curve in curves:
        for note in curve["notes"]:
            panels.setdefault(note, []).append(_where(curve, family))
    return [f"{', '.join(names)[:1].upper()}{', '.join(names)[1:]}: {note}." for note, names in panels.items()]


def _where(curve: Found, family: _Family) -> str:
    return ", ".join(f"{value:g} {family.where_unit}" for value in curve["where"].values()) or "all clips"


def _panel(curve: Found, family: _Family) -> Panel:
    fit, level = PsychometricFit(**curve["fit"]), curve["level"]
    points = [Share(f"{point['level']:.4g}", point["rate"], point["low"], point["high"], point["n"]) for point in curve["points"]]
    ends = (level["low"], level["high"])
    interval = None
    if level["value"] is not None:
        low, high = fit.lowest if ends[0] is None else ends[0], fit.highest if ends[1] is None else ends[1]
        interval = (low, high)
    notes = [line for told in _mark_lines(level, family) for line in wrap(told, _NOTE_LETTERS)]
    levels = [point["level"] for point in curve["points"]]
    is_told = fit.n >= _LEAST_CLIPS * len(levels) and (level["value"] is None or ends != (None, None))
    notes = [*notes, f"n {fit.n:,}"] if is_told else [f"n {fit.n:,}: too few for a curve"]
    drawn = fit.predict if is_told else None
    return Panel(_where(curve, family), levels, points, drawn, level["value"], interval, level["performance"], fit.guess, notes)


def _mark_lines(level: Found, family: _Family) -> list[str]:
    """Where the curve reaches the performance, with its interval, or why that is not known."""
    told = [] if level["value"] is None else [f"{family.mark} {_number(level['value'], family)} {family.unit} ({_interval(level, family)})"]
    return [*told, *([f"{family.mark}: {level['reason']}"] if level["reason"] else [])]


def _number(level: float, family: _Family) -> str:
    return f"{level:,.0f}" if family.unit == "ms" else f"{level:.1f}"


def _interval(level: Found, family: _Family) -> str:
    """The ends, where they lie within the levels that were measured."""
    low, high = (None if level[end] is None else _number(level[end], family) for end in ("low", "high"))
    if low is None or high is None:
        return f"up to {high}" if high else f"{low} or more" if low else "no interval"
    return f"{low} to {high}"


def _table(curves: Sequence[Found], family: _Family) -> Table:
    rows = []
    for curve in curves:
        fit, level, slope, goodness = curve["fit"], curve["level"], curve["slope"], curve["goodness"]
        value = level["reason"] if level["value"] is None else f"{_number(level['value'], family)} {family.unit}"
        ends = "-" if level["value"] is None else _interval(level, family)
        p_value = "-" if goodness["p_value"] is None else f"{goodness['p_value']:.3f}"
        numbers = (f"{slope['value']:.3g}", percent(fit["lapse"]), percent(fit["guess"]), f"{goodness['deviance']:.2f}", p_value, f"{fit['n']:,}")
        rows.append((_where(curve, family), value, ends, *numbers))
    return Table(("clips", family.mark, "95 %", "slope", "lapses", "guesses", "deviance", "p of the fit", "clips"), rows)


def _points(curves: Sequence[Found], family: _Family) -> list[Table]:
    rows = [
        (
            _where(curve, family),
            f"{point['level']:.4g}",
            percent(point["rate"]),
            f"{percent(point['low'])} to {percent(point['high'])}",
            f"{point['n']:,}",
        )
        for curve in curves
        for point in curve["points"]
    ]
    return [Table(("clips", family.unit, "right" if family.of == "accuracy" else "found", "95 % (Wilson)", "of"), rows)]


def cell_grid(found: Found, rate: str, size: str) -> tuple[list[Any], list[Any], NDArray[np.float64], NDArray[np.int64]]:
    """A rate and its clips by duration and SNR.

    Args:
        found: of metrics.json, with cells of both.
        rate: the key of the rate.
        size: the key of its clips.

    Returns:
        Durations and SNRs, rising; rates (durations, SNRs), nan where there is no clip; clips, likewise.
    """
    cells = found["conditions"][" x ".join(CELLS)]
    durations, snrs = (sorted({cell[key] for cell in cells}, key=lambda value: (isinstance(value, str), value)) for key in CELLS)
    rates, counts = np.full((len(durations), len(snrs)), np.nan), np.zeros((len(durations), len(snrs)), dtype=np.int64)
    for cell in cells:
        place = durations.index(cell[CELLS[0]]), snrs.index(cell[CELLS[1]])
        rates[place] = np.nan if cell[rate] is None else cell[rate]
        counts[place] = cell[size]
    return durations, snrs, rates, counts


def _mixed_model(found: Found) -> Section:
    """What SNR and duration do together, with recordings that are easy or hard."""
    model, title = found["mixed_model"], "Duration and SNR together"
    if "refused" in model:
        return Section(title, [f"No mixed model: {model['refused']}."])
    confidence = f"{100 * model['confidence']:g} %"
    rows = [(_TERMS[name], *(f"{term[key]:.3f}" for key in ("value", "low", "high"))) for name, term in model["coefficients"].items()]
    spread = model["recording_sd"]
    rows.append(("spread of recordings (sd)", *("-" if spread[key] is None else f"{spread[key]:.3f}" for key in ("value", "low", "high"))))
    contour = [(f"{row['duration_ms']:g}", row["reason"] or f"{row['snr_db']:.1f} dB") for row in model["contour"]]
    tables = [
        Table(("logit of being right, a standard deviation more", "", f"{confidence} from", "to"), rows),
        Table(("ms", f"SNR for {100 * PERFORMANCE:g} % right"), contour),
    ]
    left = f" {model['left_out']:,} clips that do not state both are left out." if model["left_out"] else ""
    note = (
        f"logit P(right) = SNR x log duration, with an intercept of each recording: {model['n']:,} clips of {model['n_recordings']:,} recordings. "
        f"The lines are of all recordings together; nothing is said beyond what was measured.{left}"
    )
    durations, snrs, rates, counts = cell_grid(found, "accuracy", "n")

    def predict(duration_ms: NDArray[np.float64], snr_db: NDArray[np.float64]) -> NDArray[np.float64]:
        return predict_accuracy(model, duration_ms, snr_db)

    drawing = draw_contour(predict, durations, snrs, rates, counts, PERFORMANCE)
    return Section(title, [note], tables, drawing, "Pairs of duration and SNR on one line are equally hard. The numbers are what was measured, in %.")


_TERMS = {"intercept": "intercept", "snr_db": "SNR", "log2_duration": "log duration", "product": "SNR x log duration"}
