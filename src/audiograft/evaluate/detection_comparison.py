"""Several detection runs on one page: which is best, where, by how much, and how fast they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audiograft import __version__
from audiograft.evaluate import comparison_plots as plots
from audiograft.evaluate.clips import as_dict
from audiograft.evaluate.comparing import compare
from audiograft.evaluate.detection_errors import rate_share, value_name
from audiograft.evaluate.detection_report import HEADS, condition_shares, shortest_cell
from audiograft.evaluate.detection_scoring import describe_detections, right_by_group
from audiograft.evaluate.folder import write_json
from audiograft.evaluate.pairing import Run, pair_runs, read_runs
from audiograft.evaluate.plots import SERIES, Share, plain
from audiograft.evaluate.predictions import Prediction
from audiograft.evaluate.report import render_reports
from audiograft.evaluate.sections import Section, short
from audiograft.evaluate.tables import Table, counted, group_names, percent, rounded, span
from audiograft.metrics.groups import mean_over_groups
from audiograft.metrics.normalisers import get_normaliser
from audiograft.metrics.paired import holm
from audiograft.types import DataError

COMPARISON_NAME = "comparison.json"
_LEAST_P = 0.0001
_NORMALISER = "none"
"""Labels are compared as they are."""
Found = Mapping[str, Any]
Groups = dict[str, tuple[str, dict[str, list[bool]]]]


@dataclass(frozen=True)
class Compared:
    """A run on the clips that all runs did.

    Attributes:
        name: as short as tells it from the others.
        found: its figures, as metrics.json has them under `detection`, without curves.
        settings: of its run.json; empty where there is none.
        clips_per_s: clips decoded a second, of those that state their time; None where none does.
        groups: see `right_by_group`.
    """

    name: str
    found: dict[str, Any]
    settings: dict[str, Any]
    clips_per_s: float | None
    groups: Groups | None

    @property
    def accuracy(self) -> Share:
        """With the interval that draws recordings, or Wilson's where there is none."""
        return figure_share(
            self.name, self.found["accuracy"]["rate"], self.found["accuracy"]["interval"], self.found["wilson"], self.found["n_clips"]
        )


def figure_share(name: str, rate: float, interval: Found | None, otherwise: Found | None, n: int) -> Share:
    """A figure with the first of two intervals that has ends; with neither it has no length."""
    for ends in (interval, otherwise):
        if ends and ends["low"] is not None and ends["high"] is not None:
            return Share(name, rate, ends["low"], ends["high"], n)
    return Share(name, rate, rate, rate, n)


def write_comparison(paths: Sequence[Path], out: Path, *, common: bool = False) -> list[Path]:
    """Write `comparison.json`, `report.md` and `report.html` about several detection runs on the same clips.

    Args:
        paths: run folders or predictions files; the first is what all others are tested against.
        out: the folder, made where it is missing.
        common: compare the clips that all runs have, where they do not have the same.

    Returns:
        The files.

    Raises:
        DataError: fewer than two runs, more than can be told apart, runs of texts, or runs that do not fit together (see `compare`).
    """
    if not 2 <= len(paths) <= len(SERIES):
        raise DataError(f"a comparison is of 2 to {len(SERIES)} runs: {len(paths)} are named")
    runs = _compared(read_runs(paths), common)
    tested = compare(paths, _NORMALISER, common=common)
    # Each test of `compare` is adjusted with the most careful p-value of each pair: McNemar's alone are adjusted here.
    adjusted = holm([row["mcnemar"]["p_value"] for row in tested["comparisons"]])
    over_groups = [difference_over_groups(runs[0], run) for run in runs[1:]]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: can't be used as a folder ({error.strerror}): choose another --out") from error
    figures = {run.name: run.found | {"clips_per_s": run.clips_per_s} for run in runs}
    write_json(out / COMPARISON_NAME, {"runs": figures, "tests": tested, "mcnemar_holm_p": adjusted, "over_groups": over_groups})
    facts = {
        "title": f"{len(runs)} detectors on the same clips",
        "model": short(", ".join(run.name for run in runs)),
        "version": __version__,
        "tiles": [(short(run.name), percent(run.accuracy.rate), f"95 %: {span(run.found['accuracy']['interval'])}") for run in runs],
        "checks": [(_state(run.found), f"{short(run.name)}: {run.found['choice']}") for run in runs],
        "sections": list(build_comparison_sections(runs, tested, adjusted, over_groups)),
        "origin": f"the same numbers are in {COMPARISON_NAME}, and all of them come from the runs' predictions",
    }
    return [out / COMPARISON_NAME, *render_reports(out, facts)]


def _compared(runs: Sequence[Run], common: bool) -> list[Compared]:
    paired = pair_runs(runs, get_normaliser(_NORMALISER), common)
    found = []
    kinds = [clip.prediction.extra.get("kind") for clip in paired.answers[0]]
    for run, clips in zip(paired.runs, paired.answers, strict=True):
        rows = [clip.prediction for clip in clips]
        if not rows or any(row.task != "detection" for row in rows):
            raise DataError(f"{run.file}: its rows are no detections: audiograft compare tells runs of texts apart")
        settings = run.settings
        told = describe_detections(rows, settings.get("question"), settings.get("manifest_sha256"))
        found.append(Compared(run.name, told, settings, _speed(rows), right_by_group(_of_kinds(rows, kinds))))
    return found


def _of_kinds(rows: Sequence[Prediction], kinds: Sequence[Any]) -> list[Prediction]:
    """With the kinds that the base names: another system's file need not name them."""
    return [replace(row, extra=row.extra | {"kind": kind}) for row, kind in zip(rows, kinds, strict=True)]


def _speed(rows: Sequence[Prediction]) -> float | None:
    times_s = [row.decode_s for row in rows if row.decode_s is not None]
    total_s = math.fsum(times_s)
    return len(times_s) / total_s if total_s else None


def _state(found: Found) -> str:
    if found["chosen_on_this_data"]:
        return "bad"
    return "good" if found["chosen_on"] and found["chosen_on_this_data"] is False else "unknown"


def difference_over_groups(base: Compared, run: Compared) -> dict[str, Any] | None:
    """How much more a run has right than the base, speakers and kinds of sound each being one observation; None where they are not named."""
    if base.groups is None or run.groups is None:
        return None
    gains = [
        [float(np.mean(run.groups[label][1][name])) - float(np.mean(hits)) for name, hits in groups.items()]
        for label, (_, groups) in base.groups.items()
    ]
    difference, interval = mean_over_groups(gains, lowest=-1.0)
    return {"difference": difference, "interval": as_dict(interval), "groups": base.found["over_groups"]["groups"]}


def build_comparison_sections(
    runs: Sequence[Compared], tested: Found, adjusted: Sequence[float], over_groups: Sequence[Found | None]
) -> Iterator[Section]:
    """The parts of the page.

    Args:
        runs: the base first.
        tested: what `compare` says of them.
        adjusted: McNemar's p-value of each comparison, by Holm's method.
        over_groups: of each comparison, see `difference_over_groups`.
    """
    yield _models(runs, tested)
    yield _tests(tested, adjusted, over_groups)
    yield from _errors(runs)
    yield from _conditions(runs)
    yield _efficiency(runs)


def _models(runs: Sequence[Compared], tested: Found) -> Section:
    columns: dict[str, list[Share | None]] = {"accuracy": [run.accuracy for run in runs]}
    cells = [shortest_cell(run.found["conditions"]) for run in runs]
    if any(cells):
        shortest = min(cell["duration_ms"] for cell in cells if cell)
        head = f"{value_name(shortest)} ms alone"
        columns[head] = [rate_share(run.name, cell["accuracy"], cell["n"]) if cell else None for run, cell in zip(runs, cells, strict=True)]
    areas = [run.found["roc_auc"] for run in runs]
    columns["ROC AUC"] = [
        None if area["value"] is None else figure_share(run.name, area["value"], area["interval"], None, run.found["n_clips"])
        for run, area in zip(runs, areas, strict=True)
    ]
    errors = [run.found["ece"] for run in runs]
    columns["ECE"] = [
        None if error is None else Share(run.name, error, error, error, run.found["n_clips"]) for run, error in zip(runs, errors, strict=True)
    ]
    rows = [[run.name, *(_told(shares[place]) for shares in columns.values()), f"{run.found['n_clips']:,}"] for place, run in enumerate(runs)]
    notes = (
        [f"{counted(tested['n_clips'], 'clip')} that all runs did. Intervals of accuracy and AUC draw recordings; of {head} it is Wilson's."]
        if any(cells)
        else [f"{counted(tested['n_clips'], 'clip')} that all runs did. Intervals draw recordings."]
    )
    notes += [f"{note[:1].upper()}{note[1:]}." for note in tested["notes"]]
    best = max(runs, key=lambda run: run.accuracy.rate)
    alt = f"The highest accuracy is that of {short(best.name)}: {percent(best.accuracy.rate)}."
    drawing = plots.draw_models(columns, [run.name for run in runs], downwards=["ECE"])
    return Section("Models side by side", notes, [Table(("run", *columns, "clips"), rows)], drawing, alt)


def _told(share: Share | None) -> str:
    if share is None:
        return "-"
    ends = f" ({100 * share.low:.1f}-{100 * share.high:.1f})" if share.high > share.low else ""
    return f"{100 * share.rate:.2f} %{ends}"


def _tests(tested: Found, adjusted: Sequence[float], over_groups: Sequence[Found | None]) -> Section:
    differences, tests = [], []
    for row, p_adjusted, groups in zip(tested["comparisons"], adjusted, over_groups, strict=True):
        exact = row["mcnemar"]
        ends = (_points(row["accuracy_interval"]), _points(groups["interval"]) if groups else "-")
        differences.append((row["run"], f"{100 * row['accuracy_difference']:+.2f}", *ends))
        counts = (f"{exact['only_a']:,}", f"{exact['only_b']:,}")
        tests.append((row["run"], *counts, _p(exact["p_value"]), _p(p_adjusted), _p(row["adjusted_p"])))
    tables = [
        Table(("run", "points", "95 % over recordings", "95 % over groups"), differences),
        Table(("run", "only base right", "only run right", "McNemar p", "Holm", "careful p, Holm"), tests),
    ]
    about = (
        f"Each run less the base, {tested['base']}, on the same clips. McNemar's test is exact and takes clips for independent; the last column is "
        "the largest p of it and of two tests that draw or swap whole recordings, adjusted likewise. Claims rest on that."
    )
    notes = [about]
    if found := over_groups[0]:
        notes.append(
            f"The interval over groups takes each of {group_names(found)} for one observation: it is for speakers and kinds that were not heard here."
        )
    claims = [f"{row['claim']}." for row in tested["comparisons"]]
    return Section("Do they differ?", [*notes, *claims], tables)


def _points(interval: Found) -> str:
    return "-" if interval["low"] is None else f"{100 * interval['low']:+.2f} to {100 * interval['high']:+.2f}"


def _p(value: float) -> str:
    return f"< {_LEAST_P:g}" if value < _LEAST_P else f"{value:.4f}"


def _errors(runs: Sequence[Compared]) -> Iterator[Section]:
    names = [run.name for run in runs]
    labels = [_label_row(run) for run in runs]
    misses = [
        rate_share(run.name, None if row["hit_rate"] is None else 1 - row["hit_rate"], row["n_positive"])
        for run, row in zip(runs, labels, strict=True)
    ]
    alarms = [rate_share(run.name, row["false_alarm_rate"], row["n_negative"]) for run, row in zip(runs, labels, strict=True)]
    rows = [
        (
            run.name,
            *(f"{round(share.rate * share.n):,} of {share.n:,}" for share in (miss, alarm)),
            *(percent(share.rate) if share.n else "-" for share in (miss, alarm)),
        )
        for run, miss, alarm in zip(runs, misses, alarms, strict=True)
    ]
    positive = runs[0].found["positive"]
    drawing = plots.draw_error_rates(
        [share if share.n else None for share in misses], [share if share.n else None for share in alarms], names, plain(positive)
    )
    yield Section(
        "Errors side by side",
        [],
        [Table(("run", "missed", "false alarms", "miss rate", "false-alarm rate"), rows)],
        drawing,
        f"{positive} missed, and {positive} said where it is not, with Wilson's intervals.",
    )
    kinds = {run.name: {value_name(row["kind"]): row for row in run.found["conditions"].get("kind", ())} for run in runs}
    listed = list(dict.fromkeys(kind for by_kind in kinds.values() for kind in by_kind))
    if not listed:
        return
    rates, counts = np.full((len(listed), len(runs)), np.nan), np.zeros((len(listed), len(runs)), dtype=np.int64)
    for place, kind in enumerate(listed):
        for column, name in enumerate(names):
            if row := kinds[name].get(kind):
                rates[place, column], counts[place, column] = 1 - row["accuracy"], row["n"]
    order = np.argsort(-np.nanmax(rates, axis=1), kind="stable")
    rates, counts, listed = rates[order], counts[order], [listed[place] for place in order]
    cells = [
        (kind, *(f"{percent(rates[place, column])} of {counts[place, column]:,}" if counts[place, column] else "-" for column in range(len(runs))))
        for place, kind in enumerate(listed)
    ]
    drawing = plots.draw_error_table(rates, counts, listed, names)
    alt = f"Share of wrong clips by kind of negative and run; the kind that some run has most trouble with comes first: {short(listed[0])}."
    yield Section("False alarms by kind", [], [Table(("kind of negative", *names), cells)], drawing, alt)


def _label_row(run: Compared) -> dict[str, Any]:
    """Hits and false alarms of all clips."""
    rows = run.found["conditions"]["label"]
    hits = [row for row in rows if row["n_positive"]]
    others = [row for row in rows if row["n_negative"]]
    n_negative = sum(row["n_negative"] for row in others)
    alarms = math.fsum(row["false_alarm_rate"] * row["n_negative"] for row in others)
    return {
        "hit_rate": hits[0]["hit_rate"] if hits else None,
        "n_positive": sum(row["n_positive"] for row in hits),
        "false_alarm_rate": alarms / n_negative if n_negative else None,
        "n_negative": n_negative,
    }


def _conditions(runs: Sequence[Compared]) -> Iterator[Section]:
    panels: dict[str, dict[str, list[Share]]] = {}
    tables = []
    for key, head in HEADS.items():
        by_run = {run.name: condition_shares(run.found["conditions"].get(key, ()), key) for run in runs}
        values = list(dict.fromkeys(share.label for shares in by_run.values() for share in shares))
        if key == "label" or len(values) < 2:
            continue
        known = {name: {share.label: share for share in shares} for name, shares in by_run.items()}
        # All in the order of the first run, so that panels and tables say the same.
        panels[head] = {name: [shares[value] for value in values if value in shares] for name, shares in known.items()}
        rows = [(value, *(_told(known[run.name].get(value)) for run in runs)) for value in values]
        tables.append(Table((head, *(run.name for run in runs)), rows))
    if panels:
        alt = "Accuracy of each run by condition, with Wilson's intervals. The counts are of clips."
        yield Section("Accuracy by condition", [], tables, plots.draw_conditions(panels, [run.name for run in runs]), alt)


def _efficiency(runs: Sequence[Compared]) -> Section:
    rows = []
    for run in runs:
        milliseconds = "-" if run.clips_per_s is None else rounded(1000 / run.clips_per_s)
        speed = "-" if run.clips_per_s is None else rounded(run.clips_per_s)
        n_parameters = run.settings.get("parameters")
        parameters = f"{n_parameters:,}" if isinstance(n_parameters, int) else "-"
        rows.append((run.name, milliseconds, speed, parameters, percent(run.accuracy.rate)))
    table = Table(("run", "ms a clip", "clips a second", "parameters", "accuracy"), rows)
    speeds = [plots.Speed(run.name, run.clips_per_s, run.accuracy) for run in runs if run.clips_per_s is not None]
    note = "Decoding alone, one run on one machine: a second run may say several times more or less."
    if not speeds:
        return Section("Efficiency", ["No run states its times."], [table])
    return Section("Efficiency", [note], [table], plots.draw_efficiency(speeds), "Accuracy against clips a second: up and to the right is better.")


def draw_evolution(runs: Sequence[tuple[str, Path]], out: Path) -> Path:
    """Draw how accuracy changed from run to run, such as up a ladder of one change at a time; from their predictions alone.

    Args:
        runs: name and run folder, or predictions file, in their order.
        out: the picture; its ending says which kind: .png, .svg or .pdf.

    Returns:
        The picture.

    Raises:
        DataError: no run, predictions that can't be used, or rows that are no detections.
    """
    if not runs:
        raise DataError("there is no run to draw: name one at least")
    steps, sizes = [], set()
    for (name, _), run in zip(runs, read_runs([path for _, path in runs]), strict=True):
        rows = [row for row in run.predictions.values() if row.error is None]
        if not rows or any(row.task != "detection" for row in rows):
            raise DataError(f"{run.file}: holds no detections to draw: evaluate a detector on rows with a label")
        told = describe_detections(rows, run.settings.get("question"), run.settings.get("manifest_sha256"))
        steps.append(figure_share(name, told["accuracy"]["rate"], told["accuracy"]["interval"], told["wilson"], told["n_clips"]))
        sizes.add(frozenset(run.predictions))
    clips = "all on the same clips" if len(sizes) == 1 else "not all on the same clips"
    return plots.draw_ladder(steps, f"95 % intervals by recording; {clips}").save(out)
