"""`audiograft compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from audiograft.cli.options import ConfidenceOption, Normaliser

_SHOWN_P = 0.001
_TESTS = {"bootstrap_p": "paired bootstrap", "permutation_p": "permutation", "mapsswe_p": "MAPSSWE", "mcnemar_p": "McNemar, exact"}

app = typer.Typer(add_completion=False)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_A RUN_B...", help="Run folders or predictions files; all others against the first.")],
    normaliser: Annotated[Normaliser, typer.Option(help="What is done to all texts before they are compared.")] = "lower",
    common: Annotated[bool, typer.Option("--common", help="Compare the clips that all runs have, where they do not have the same.")] = False,
    confidence: ConfidenceOption = 0.95,
    by: Annotated[str | None, typer.Option(help="A key of the rows, such as duration_ms: compare on the clips of each value alone too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON instead of the tables.")] = False,
) -> None:
    """Say whether runs differ, and what may be claimed.

    On the same clips, with speakers as the units that chance draws: the difference of the word error rates with its interval, three tests, of
    which the most careful one counts, and Holm's adjustment over several runs. For answers and labels it is accuracy, McNemar's exact test, and
    for labels recordings are drawn. What can't be claimed is said too, with the number of clips or speakers that it would take.

    Example: audiograft compare runs/before runs/after
    """
    from audiograft.evaluate.comparing import compare as compare_runs

    if len(runs) < 2:
        raise typer.BadParameter("name two runs at least: RUN_A RUN_B")
    found = compare_runs(runs, normaliser, common=common, confidence=confidence, by=by)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print_comparison(found)


def _print_comparison(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from audiograft.evaluate.tables import percent, span

    console = Console(markup=False, highlight=False)
    interval = f"{100 * found['confidence']:g} % interval"
    for key, rate in (("wer", "WER"), ("accuracy", "right answers")):
        if any(run[key] for run in found["runs"]):
            rates = Table("run", rate, interval)
            for run in found["runs"]:
                rates.add_row(run["name"], percent(run[key]["rate"]), span(run[key]["interval"]))
            console.print(rates)
    for row in found["comparisons"]:
        console.print(_comparison_table(row, found["base"], found["confidence"]))
    if found["parts"]:
        console.print(_parts_table(found))
    notes = dict.fromkeys([*found["notes"], *(note for row in found["comparisons"] for note in row["notes"]), *_parts_notes(found)])
    for note in notes:
        typer.echo(f"note: {note}")
    for row in found["comparisons"]:
        typer.echo(row["claim"])


def _comparison_table(row: dict[str, Any], base: str, confidence: float) -> Any:
    from rich.table import Table

    answers = row["task"] == "answers"
    what = row["mcnemar"]["of"] if answers else row["task"]
    difference, span = (row["accuracy_difference"], row["accuracy_interval"]) if answers else (row["wer_difference"], row["wer_interval"])
    table = Table(
        f"{row['run']} less {base}", "", title=f"{row['n_clips']} {what}, {row['clusters']} {row['clustered_by']}s drawn", title_justify="left"
    )
    table.add_row("difference of accuracy" if answers else "difference of WER", f"{100 * difference:+.2f} points")
    table.add_row(f"{100 * confidence:g} % interval", _interval(row, span, confidence))
    if not answers and row["relative_difference"] is not None:
        relative = row["relative_interval"]
        ends = f" ({100 * relative['low']:+.1f} to {100 * relative['high']:+.1f})" if relative and relative["low"] is not None else ""
        table.add_row("relative", f"{100 * row['relative_difference']:+.1f} %{ends}")
    exact = row["mcnemar"]
    right = "right" if answers else "without an error"
    table.add_row(f"{right} in one run only", f"{exact['only_a']} in {base}, {exact['only_b']} in {row['run']}")
    for key, name in _TESTS.items():
        if key in row:
            counts = " (the claim rests on it)" if key.removesuffix("_p") == row["p_from"] else ""
            table.add_row(f"p, {name}", f"{_p(row[key])}{counts}")
    if row["adjusted_p"] != row["p_value"]:
        table.add_row("p, adjusted (Holm)", _p(row["adjusted_p"]))
    if row["needed_clips"] is not None:
        speakers = "" if row["clustered_by"] == "clip" else f" clips of {row['needed_clusters']:,} {row['clustered_by']}s"
        table.add_row("clips to detect 1 point", f"about {row['needed_clips']:,}{speakers} (80 % power)")
    return table


def _parts_table(found: dict[str, Any]) -> Any:
    """The runs on the clips of each value of a key alone."""
    from rich.table import Table

    from audiograft.evaluate.tables import percent

    key = found["by"]
    table = Table(key, "run", "clips", found["base"], "run alone", "difference", f"{100 * found['confidence']:g} % interval", "p (Holm)")
    for row in found["parts"]:
        if "refused" in row:
            table.add_row(row["value"], "", str(row["n_clips"]), row["refused"])
            continue
        kind = "accuracy" if row["task"] == "answers" else "wer"
        difference, span = row[f"{kind}_difference"], row[f"{kind}_interval"]
        ends = "none" if span["low"] is None else f"{100 * span['low']:+.2f} to {100 * span['high']:+.2f}"
        rates = (percent(rate) for rate in row["rates"])
        table.add_row(row["value"], row["run"], f"{row['n_clips']:,}", *rates, f"{100 * difference:+.2f} points", ends, _p(row["adjusted_p"]))
    return table


def _parts_notes(found: dict[str, Any]) -> list[str]:
    """Why parts have no interval."""
    spans = [(row, row["accuracy_interval" if row["task"] == "answers" else "wer_interval"]) for row in found["parts"] or () if "refused" not in row]
    told = [(row, span["warning"]) for row, span in spans if span["low"] is None and span["warning"]]
    return [f"{found['by']} {row['value']}, {row['run']}: {why}" for row, why in told]


def _interval(row: dict[str, Any], span: dict[str, Any], confidence: float) -> str:
    """With why it is no basis for a claim, where it leaves 0 out and none is made."""
    if span["low"] is None:
        return "none, see below" if span["warning"] else "none: all differ alike"
    ends = f"{100 * span['low']:+.2f} to {100 * span['high']:+.2f} points"
    if row["better"] or span["low"] <= 0 <= span["high"]:
        return ends
    if row["lowest_p"] >= 1 - confidence:
        return f"{ends} (no basis for a claim: {row['clusters']} {row['clustered_by']}s are too few)"
    if row["p_value"] < 1 - confidence:
        return f"{ends} (not adjusted for several comparisons)"
    return f"{ends} (the claim rests on another test: {_TESTS[row['p_from'] + '_p']})"


def _p(value: float) -> str:
    return f"< {_SHOWN_P}" if value < _SHOWN_P else f"{value:.3f}"
