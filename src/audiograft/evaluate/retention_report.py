"""The figures of a retention run as tables, for the terminal, and as a page."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiograft import __version__
from audiograft.data.manifest import read_rows
from audiograft.data.pages import printable
from audiograft.evaluate.plots import Bar, draw_histogram
from audiograft.evaluate.predictions import find_predictions
from audiograft.evaluate.report import render_reports
from audiograft.evaluate.sections import Section, short
from audiograft.evaluate.tables import Table, counted, percent, span

if TYPE_CHECKING:
    from rich.console import Console

_N_WORST = 20
_MAX_VALUES = 40
"""Of a key of the rows, that are shown; all of them stand in retention.json."""
_DECADES = range(-7, 1)
"""Of the histogram: below the first, rounding is all there is."""
_METHOD = (
    "Both models had the same tensors in the same batches at the same precision. Agreement and KL(before || now) are of the next-token "
    "distributions at each token of the right answer and its end of turn, each behind the true tokens before it. An answer is right that equals the "
    "reference without case, punctuation and articles. Differences are in points, KL is in nats a token; intervals are of 95 %."
)
_WHY_EQUAL = (
    "Bit-equal: all logits are the same numbers. Rounding depends on the batch, so that a model differs from itself in batches of another size; here "
    "both had the same ones."
)
_RIGHT_BEFORE, _RIGHT_NOW, _SAME_ANSWER, _KL, _EQUAL = "right before (%)", "right now (%)", "same answer (%)", "KL, mean", "bit-equal rows"
Found = Mapping[str, Any]


def print_retention(found: Found, console: Console) -> None:
    """Print the figures of retention.json.

    Args:
        found: of `retain`.
        console: without markup, since names are printed as they are.
    """
    from rich.table import Table as RichTable

    for table in (_by_kind(found), *_slices(found)):
        # What controls a terminal must not come from a name or a text.
        shown = RichTable(*map(printable, table.columns))
        for row in table.rows:
            shown.add_row(*map(printable, row))
        console.print(shown)
    for _, line in _checks(found):
        console.print(printable(line), soft_wrap=True)


def write_retention_reports(run: Path, found: Found) -> list[Path]:
    """Write `report.md` and `report.html`.

    Args:
        run: the run folder, with its predictions.
        found: of `retain`.

    Returns:
        The files.
    """
    rows = [row for _, row in read_rows(find_predictions(run)) if row.get("error") is None]
    facts = {
        "title": short(run.resolve().name),
        "model": short(f"{found['model']} held against {found['base']}, before grafting"),
        "version": __version__,
        "tiles": _tiles(found),
        "checks": _checks(found),
        "sections": list(_sections(found, rows, run)),
        "origin": "the same numbers are in retention.json, and all of them come from predictions.jsonl",
    }
    return render_reports(run, facts)


def _tiles(found: Found) -> list[tuple[str, str, str]]:
    all_ = found["all"]
    accuracy = all_["accuracy"]
    return [
        ("answers as before", percent(all_["same_answers"]["rate"]), f"95 %: {span(all_['same_answers']['interval'])}"),
        ("right before", percent(accuracy["base"]["rate"]), f"95 %: {span(accuracy['base']['interval'])}"),
        ("right now", percent(accuracy["model"]["rate"]), f"95 %: {span(accuracy['model']['interval'])}"),
        ("KL (before || now)", _nats(all_["kl"]["mean"]), "nats a token, mean"),
        ("top-1 agreement", percent(all_["top1"]["rate"]), f"of {counted(all_['tokens'], 'token')}"),
        ("bit-equal", f"{all_['bit_equal']:,} of {all_['rows']:,}", "rows"),
    ]


def _checks(found: Found) -> list[tuple[str, str]]:
    """What one has to know beside the numbers: `good`, `bad` or `unknown`, and a line."""
    all_, base, differing = found["all"], found["base"], found["prompts_differ"]["rows"]
    changed = all_["rows"] - all_["bit_equal"]
    of_all = f"of {counted(all_['rows'], 'row')}"
    lines = [
        ("bad", f"retention: the logits of {changed:,} {of_all} are not those of {base}")
        if changed
        else ("good", f"retention: nothing changed: the logits of each {of_all} are bit-equal to those of {base}")
    ]
    if differing:
        ids = ", ".join(found["prompts_differ"]["ids"][:3])
        lines.append(("bad", f"prompts: the two models' own processors write {differing:,} {of_all} differently ({ids}): none of these is bit-equal"))
    else:
        lines.append(("good", "prompts: both models' own processors write the same ones, token by token and pixel by pixel"))
    if found["lora"] is not None:
        where = "on rows with audio alone, so not here" if found["lora"] == "audio" else "on all rows"
        lines.append(("good" if found["lora"] == "audio" else "unknown", f"LoRA: unmerged, and acts {where}"))
    if found["left_out"]:
        lines.append(("unknown", f"left out: {counted(found['left_out'], 'row')} with audio, which the model before grafting can't hear"))
    if found["failed"]:
        first = found["failed"][0]["error"]
        lines.append(("bad", f"failed: {counted(len(found['failed']), 'row')}, tried again with --overwrite; the first one: {first}"))
    return lines


def _sections(found: Found, rows: Sequence[Mapping[str, Any]], run: Path) -> Iterator[Section]:
    yield Section("Before and now", [_METHOD, _WHY_EQUAL, *_warnings(found)], [_by_kind(found)])
    yield _histogram(rows)
    for key, table in zip(found["slices"], _slices(found), strict=True):
        yield Section(f"By {key}", [], [table])
    worst = sorted((row for row in rows if max(row["kl"]) > 0 or row["hypothesis"] != row["base_hypothesis"]), key=_changed)[:_N_WORST]
    if worst:
        head = ("row", "largest KL (nats)", "right answer", "before", "now")
        cells = [
            (short(row["id"]), _nats(max(row["kl"])), short(row["reference"]), short(row["base_hypothesis"]), short(row["hypothesis"]))
            for row in worst
        ]
        yield Section("What changed most", ["Rows whose answers differ stand first."], [Table(head, cells)])
    if found["failed"]:
        yield Section("Failed", [], [Table(("row", "why"), [(short(row["id"]), short(row["error"])) for row in found["failed"][:_MAX_VALUES]])])
    keys = ("model", "base", "manifest", "manifest_sha256", "batch_size", "device", "precision", "commit", "date")
    made = Table(("", ""), [(key.replace("_", " "), str(found[key])) for key in keys if found[key] is not None])
    yield Section("How it was made", [], [made], code=_command(found, run))


def _changed(row: Mapping[str, Any]) -> tuple[bool, float]:
    return row["hypothesis"] == row["base_hypothesis"], -max(row["kl"])


def _warnings(found: Found) -> list[str]:
    """What the intervals of all rows do not tell."""
    all_ = found["all"]
    intervals = {
        "right now": all_["accuracy"]["model"]["interval"],
        "now less before": all_["accuracy"]["interval"],
        "top-1 same": all_["top1"]["interval"],
        "KL": all_["kl"]["interval"],
    }
    return [f"Interval of {name}: {interval['warning']}." for name, interval in intervals.items() if interval["warning"]]


def _by_kind(found: Found) -> Table:
    """The figures of each kind of rows beside each other, and those of all where there are several kinds."""
    parts: dict[str, Found] = dict(found["kinds"])
    if len(parts) > 1:
        parts["all"] = found["all"]
    lines = [_cells(part) for part in parts.values()]
    rows = [(name, *(line[name] for line in lines)) for name in lines[0]]
    return Table(("retention", *parts), rows)


def _cells(part: Found) -> dict[str, str]:
    """The figures of some rows in words, by what they are."""
    accuracy, test, kl = part["accuracy"], part["accuracy"]["mcnemar"], part["kl"]
    return {
        "rows": f"{part['rows']:,}",
        "tokens": f"{part['tokens']:,}",
        _RIGHT_BEFORE: _share(accuracy["base"]),
        _RIGHT_NOW: _share(accuracy["model"]),
        "now less before": f"{100 * accuracy['difference']:+.1f}{_ends(accuracy['interval'], 100, '+.1f')}",
        "right by one": f"{test['only_a']:,} before, {test['only_b']:,} now",
        "p (McNemar)": f"{test['p_value']:.3g}",
        _SAME_ANSWER: _share(part["same_answers"]),
        "top-1 same (%)": _share(part["top1"]),
        _KL: f"{_nats(kl['mean'])}{_ends(kl['interval'], 1, '.2g', '-')}",
        "KL, largest": _nats(kl["largest"]),
        _EQUAL: f"{part['bit_equal']:,}",
    }


def _share(share: Found) -> str:
    """In percent, with its interval."""
    return f"{100 * share['rate']:.1f}{_ends(share['interval'], 100, '.1f', '-')}"


def _ends(interval: Found, scale: float, form: str, to: str = " to ") -> str:
    return "" if interval["low"] is None else f" ({scale * interval['low']:{form}}{to}{scale * interval['high']:{form}})"


def _nats(value: float) -> str:
    return f"{value:.3g}"


def _slices(found: Found) -> list[Table]:
    """A table for each key, its values below each other, without intervals."""
    tables = []
    for key, values in found["slices"].items():
        rows = []
        for value, part in list(values.items())[:_MAX_VALUES]:
            shares = (part["accuracy"]["base"], part["accuracy"]["model"], part["same_answers"])
            cells = (*(f"{100 * share['rate']:.1f}" for share in shares), _nats(part["kl"]["mean"]), f"{part['bit_equal']:,}")
            rows.append((value, f"{part['rows']:,}", *cells))
        tables.append(Table((key, "rows", _RIGHT_BEFORE, _RIGHT_NOW, _SAME_ANSWER, _KL, _EQUAL), rows))
    return tables


def _histogram(rows: Sequence[Mapping[str, Any]]) -> Section:
    """How many rows differ by how much: by the decade of their largest divergence."""
    largest = [max(row["kl"]) for row in rows]
    bounds = [10.0**decade for decade in _DECADES]
    labels = ["0", f"<1e{_DECADES[0]}", *(f"1e{decade}" for decade in _DECADES)]
    counts = [sum(value == 0 for value in largest), sum(0 < value < bounds[0] for value in largest)]
    for low, high in zip(bounds, [*bounds[1:], float("inf")], strict=True):
        counts.append(sum(low <= value < high for value in largest))
    bars = [Bar(label, count) for label, count in zip(labels, counts, strict=True)]
    name = "largest KL within a row (nats, from)"
    return Section(
        "How far apart",
        [],
        [Table((name, "rows"), [(bar.label, f"{bar.n_clips:,}") for bar in bars])],
        draw_histogram(bars, name),
        f"Rows by their largest KL: {counts[0]:,} of {counted(len(rows), 'row')} have none at all",
    )


def _command(found: Found, run: Path) -> str:
    """What makes the run again."""
    options = {"--model": found["model"], "--data": found["manifest"], "--retention": found["base"], "--out": str(run)}
    options |= {"--batch-size": str(found["batch_size"]), "--device": found["device"]}
    slices = [word for key in found["slices"] for word in ("--slice-by", key)]
    return shlex.join(["audiograft", "evaluate", *(word for pair in options.items() for word in pair), *slices])
