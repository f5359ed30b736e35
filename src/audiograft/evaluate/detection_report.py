"""The report of a detection run, part by part: figures of metrics.json, and plots of its predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from audiograft.evaluate import detection_plots as plots
from audiograft.evaluate.clips import ScoredClip
from audiograft.evaluate.detection_conditions import CELLS
from audiograft.evaluate.detection_errors import confident_errors, error_breakdown, value_name
from audiograft.evaluate.plots import Share, plain
from audiograft.evaluate.predictions import Prediction
from audiograft.evaluate.psychometric_report import cell_grid, psychometric_sections
from audiograft.evaluate.sections import Section, controls, failures, settings, slice_sections
from audiograft.evaluate.tables import Metrics, Table, counted, detection_tables, groups_lines, percent, rounded, span
from audiograft.metrics.curve_bands import curve_bands
from audiograft.metrics.intervals import wilson
from audiograft.metrics.ranking import pr_points, roc_points, threshold_table

HEADS = {
    "duration_ms": "duration (ms)",
    "target_snr_db": "signal-to-noise ratio (dB)",
    "noise": "noise added",
    "band": "band",
    "t60_s": "reverberation time T60 (s)",
    "kind": "kind of negative",
    "label": "class",
}
"""Of the conditions of the bench, with their units."""
_IN_ORDER = ("duration_ms", "target_snr_db")
"""Conditions that stand in their own order; all others begin with the worst."""
_BINNED_ELSEWHERE = ("duration", "snr", *HEADS)
_N_BARS = 20
_N_THRESHOLDS = 21
_LEAST_PROB = 1e-12
Found = Mapping[str, Any]


def build_detection_sections(metrics: Metrics, about: Mapping[str, Any], clips: Sequence[ScoredClip], out: str) -> Iterator[Section]:
    """The parts of the report of a detection run that have something to say, in their order.

    Args:
        metrics: of metrics.json.
        about: of run.json; empty where there is none.
        clips: that did not fail.
        out: the run folder, for the command that repeats it.
    """
    found, rows = metrics["detection"], [clip.prediction for clip in clips]
    yield _headline(found, about, rows)
    yield from _probability_sections(found, rows)
    yield from _grid(found)
    yield from _conditions(found)
    yield from psychometric_sections(found)
    yield from error_breakdown(found)
    yield from confident_errors(found, rows)
    yield from slice_sections(metrics, _BINNED_ELSEWHERE)
    yield from controls(metrics)
    yield from failures(metrics)
    yield settings(metrics, about, out)


def detection_tiles(metrics: Metrics) -> list[tuple[str, str, str]]:
    """The figures that stand first: name, value, and what belongs to it."""
    found = metrics["detection"]
    tiles = [("accuracy", percent(found["accuracy"]["rate"]), f"95 %: {span(found['accuracy']['interval'])}")]
    if shortest := shortest_cell(found["conditions"]):
        interval = f"95 %: {span(shortest['wilson'])}, n {shortest['n']:,}"
        tiles.append((f"{value_name(shortest['duration_ms'])} ms alone", percent(shortest["accuracy"]), interval))
    if (area := found["roc_auc"]) and area["value"] is not None:
        tiles.append(("ROC AUC", f"{area['value']:.3f}", f"95 %: {_ends(area['interval'])}"))
    if found["ece"] is not None:
        tiles.append(("ECE", percent(found["ece"]), "calibration error"))
    n_failed = len(metrics["failed"])
    tiles.append(("clips", f"{found['n_clips']:,}", f"{n_failed:,} failed" if n_failed else "none failed"))
    if metrics["decode_s"]:
        tiles.append(("clips a second", rounded(metrics["n_clips"] / metrics["decode_s"]), "decoding alone, one run on one machine"))
    return tiles


def shortest_cell(conditions: Found) -> dict[str, Any] | None:
    """The figures of the shortest clips, where there are several durations."""
    rows: list[dict[str, Any]] = conditions.get("duration_ms", [])
    return rows[0] if len(rows) > 1 else None


def condition_shares(rows: Sequence[Found], key: str) -> list[Share]:
    """Accuracy by a condition: durations and SNRs in their order, all others from the worst on."""
    shares = [Share(value_name(row[key]), row["accuracy"], row["wilson"]["low"], row["wilson"]["high"], row["n"]) for row in rows]
    return shares if key in _IN_ORDER else sorted(shares, key=lambda share: (share.rate, share.label))


def _headline(found: Found, about: Mapping[str, Any], rows: Sequence[Prediction]) -> Section:
    sources = sorted({row.source for row in rows if row.source})
    classes = ", ".join(f"{found['per_class'][label]['n']:,} {label}" for label in found["classes"])
    data = f"{counted(found['n_clips'], 'clip')}: {classes}"
    data += f"; of {about['manifest']}" if about.get("manifest") else ""
    data += f"; sources: {', '.join(sources[:5])}{' ...' if len(sources) > 5 else ''}" if sources else ""
    n_recordings = len({row.cluster for row in rows if row.cluster is not None})
    data += f"; {counted(n_recordings, 'recording')}, which are what the intervals draw" if n_recordings else "; no recordings named"
    notes = [f"{data}.", f"{_sentence(found['choice'])}."]
    notes += [f"{_sentence(note)}." for note in found["notes"]]
    warning = found["accuracy"]["interval"]["warning"]
    notes += [f"{_sentence(warning)}."] if warning else []
    notes += [f"{_sentence(line)}." for line in groups_lines(found)]
    return Section("Detection", notes, detection_tables(found)[:2])


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _ends(interval: Found | None) -> str:
    """An interval of a figure that is no percentage."""
    return "-" if not interval or interval["low"] is None else f"{interval['low']:.3f} to {interval['high']:.3f}"


def _probability_sections(found: Found, rows: Sequence[Prediction]) -> Iterator[Section]:
    """What the probabilities are worth; nothing where they are not known, or not of two classes."""
    if found["reliability"] is None:
        yield Section("Probabilities", [f"No curves and no calibration: {found['roc_auc']['reason']}."])
        return
    positive, others = found["positive"], found["classes"][1]
    truth = np.array([row.reference == positive for row in rows])
    probs = np.array([row.speech_prob for row in rows], dtype=float)
    yield _reliability(found, probs)
    yield _curves(found, truth, probs, [row.cluster for row in rows])
    kept = np.clip(probs, _LEAST_PROB, 1 - _LEAST_PROB)
    odds = np.log(kept) - np.log1p(-kept)
    threshold = 0.5 if found["threshold"] is None else found["threshold"]
    told = [
        (name, f"{part.mean():.2f}", f"{np.median(part):.2f}", f"{len(part):,}")
        for name, part in ((positive, odds[truth]), (others, odds[~truth]))
        if len(part)
    ]
    yield Section(
        "Log-odds by class",
        [
            "The line is the threshold that the run had."
            if found["threshold"] is not None
            else "The line is 0.5: the run's own threshold is not known."
        ],
        [Table(("class", "mean log-odds", "median", "clips"), told)],
        plots.draw_log_odds(odds.tolist(), truth.tolist(), (plain(positive), plain(others)), threshold),
        f"Log-odds of {positive} by class: the further apart, the easier the choice of a threshold.",
    )
    yield _confidence(found, rows)


def _reliability(found: Found, probs: np.ndarray) -> Section:
    bins = [part for part in found["reliability"] if part["n"]]
    shares = []
    for part in bins:
        interval = wilson(round(part["share"] * part["n"]), part["n"])
        shares.append(Share("", part["share"], interval.low or 0.0, 1.0 if interval.high is None else interval.high, part["n"]))
    rows = [
        (
            f"{part['low']:.1f} to {part['high']:.1f}",
            f"{part['n']:,}",
            percent(part["mean_prob"]),
            percent(share.rate),
            f"{percent(share.low)} to {percent(share.high)}",
        )
        for part, share in zip(bins, shares, strict=True)
    ]
    counts = np.histogram(probs, _N_BARS, (0, 1))[0].tolist()
    positive = found["positive"]
    return Section(
        "Reliability",
        [f"ECE {percent(found['ece'])}: the mean distance of the points from the diagonal, each with its clips as weight. Intervals are Wilson's."],
        [Table((f"P({positive})", "clips", "mean", f"are {positive}", "95 %"), rows)],
        plots.draw_reliability(shares, [part["mean_prob"] for part in bins], counts, plain(positive)),
        f"How many clips are {positive} where the model gives that a certain probability; the numbers are clips.",
    )


def _curves(found: Found, truth: np.ndarray, probs: np.ndarray, recordings: Sequence[str | None]) -> Section:
    title, share = "ROC and precision-recall", float(truth.mean())
    if truth.all() or not truth.any():
        return Section(title, [f"No curves: {found['roc_auc']['reason']}."])
    bands = curve_bands(truth, probs, recordings)
    areas = [
        f"{name} {found[key]['value']:.3f} ({_ends(found[key]['interval'])})" for key, name in (("roc_auc", "area"), ("pr_auc", "average precision"))
    ]
    roc, precision = roc_points(truth, probs), pr_points(truth, probs)
    curves = [
        plots.Curve(x, y, band, told, is_step)
        for x, y, band, told, is_step in (
            (roc.false_alarm_rates, roc.hit_rates, bands[0] if bands else None, areas[0], False),
            (precision.recalls, precision.precisions, bands[1] if bands else None, areas[1], True),
        )
    ]
    note = (
        "Bands hold 95 % of the curves of 1,000 draws of whole recordings, point by point."
        if bands
        else "There is no band: recordings of one class are too few to be drawn from."
    )
    rows = [
        (name, f"{found[key]['value']:.4f}", _ends(found[key]["interval"])) for key, name in (("roc_auc", "ROC AUC"), ("pr_auc", "average precision"))
    ]
    alt = f"Hits against false alarms, and precision against recall: {areas[0]}; {areas[1]}."
    tables = [Table(("", "area", "95 % interval"), rows), _thresholds(truth, probs)]
    return Section(title, [note], tables, plots.draw_curves(curves[0], curves[1], share), alt)


def _thresholds(truth: np.ndarray, probs: np.ndarray) -> Table:
    """What other thresholds would give on these clips, to be looked at: whoever takes the best of them has no test any more."""
    keys = ("hit_rate", "false_alarm_rate", "accuracy", "balanced_accuracy", "precision", "f1")
    rows = [(f"{row['threshold']:.2f}", *(percent(row[key]) for key in keys)) for row in threshold_table(truth, probs, _N_THRESHOLDS)]
    return Table(("threshold (to look at; choose on dev)", "hits", "false alarms", "right", "balanced", "precision", "F1"), rows)


def _confidence(found: Found, rows: Sequence[Prediction]) -> Section:
    told = found["confidence"]
    sure = [(row.speech_prob or 0.0) if row.hypothesis == found["positive"] else 1 - (row.speech_prob or 0.0) for row in rows]
    parts: dict[bool, list[float]] = {True: [], False: []}
    for value, row in zip(sure, rows, strict=True):
        parts[row.reference == row.hypothesis].append(value)
    figures = [(name, percent(told[key]), f"{n:,}") for key, name, n in (
        ("overall", "all clips", len(rows)), ("right", "right", len(parts[True])), ("wrong", "wrong", told["n_wrong"]))]  # fmt: skip
    side = "lower" if (told["gap"] or 0) < 0 else "higher"
    gap = "" if told["gap"] is None else f" It is {100 * abs(told['gap']):.1f} points {side} where the model is right."
    few = f" Only {counted(told['n_wrong'], 'clip')} wrong: the mean of so few says little." if 0 < told["n_wrong"] < 10 else ""
    return Section(
        "Confidence, right and wrong",
        [f"The probability of what the model said.{gap}{few}"],
        [Table(("clips", "mean confidence", "n"), figures)],
        plots.draw_confidences(parts[True], parts[False]),
        f"Confidence of {len(parts[True]):,} right and {len(parts[False]):,} wrong decisions.",
    )


def _grid(found: Found) -> Iterator[Section]:
    """Duration x SNR, where the rows state both."""
    cells = found["conditions"].get(" x ".join(CELLS))
    if not cells:
        return
    rates = {"accuracy": ("n", "clips right")}
    if len(found["classes"]) == 2:
        rates |= {"hit_rate": ("n_positive", f"hits: {plain(found['positive'], 16)} found"), "false_alarm_rate": ("n_negative", "false alarms")}
    grids = {name: cell_grid(found, name, size) for name, (size, _) in rates.items()}
    drawn = [plots.Grid(rates[name][1], grid[2], grid[3], name != "false_alarm_rate") for name, grid in grids.items()]
    durations, snrs, *_ = grids["accuracy"]
    rows = [
        (value_name(cell["duration_ms"]), value_name(cell["target_snr_db"]), percent(cell["accuracy"]), span(cell["wilson"]), f"{cell['n']:,}",
         percent(cell["hit_rate"]), f"{cell['n_positive']:,}", percent(cell["false_alarm_rate"]), f"{cell['n_negative']:,}")
        for cell in cells
    ]  # fmt: skip
    heads = ("ms", "dB", "right", "95 % (Wilson)", "clips", "hits", "of", "false alarms", "of")
    worst = min(cells, key=lambda cell: cell["accuracy"])
    where = f"{value_name(worst['duration_ms'])} ms at {value_name(worst['target_snr_db'])} dB"
    alt = f"By duration and SNR; the worst cell is {where}: {percent(worst['accuracy'])} of {worst['n']:,} right."
    yield Section(
        "Duration by SNR",
        [],
        [Table(heads, rows)],
        plots.draw_grids(
            drawn, [value_name(value) for value in durations], [value_name(value) for value in snrs], (HEADS["duration_ms"], HEADS["target_snr_db"])
        ),
        alt,
    )


def _conditions(found: Found) -> Iterator[Section]:
    conditions, overall = found["conditions"], found["accuracy"]["rate"]
    parts = {key: condition_shares(conditions[key], key) for key in ("noise", "band", "t60_s", "kind") if len(conditions.get(key, ())) > 1}
    if not parts:
        return
    tables = [
        Table(
            (HEADS[key], "right", "95 % (Wilson)", "clips"),
            [(share.label, percent(share.rate), f"{percent(share.low)} to {percent(share.high)}", f"{share.n:,}") for share in shares],
        )
        for key, shares in parts.items()
    ]
    worst = {HEADS[key]: shares[0] for key, shares in parts.items()}
    alt = f"The worst: {'; '.join(f'{head} {share.label} {percent(share.rate)}' for head, share in worst.items())}."
    yield Section(
        "By condition",
        ["The worst first. Intervals are Wilson's, which take clips for independent. Kinds are of negatives: what is wrong there is a false alarm."],
        tables,
        plots.draw_shares({HEADS[key]: shares for key, shares in parts.items()}, "clips right", overall, "conditions"),
        alt,
    )
