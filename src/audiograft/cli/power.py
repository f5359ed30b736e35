"""`audiograft power`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from audiograft.cli.options import ConfidenceOption, Normaliser

_EXPECTED = "What is expected"
_NAMES = {
    "wer": "WER", "words": "words a clip", "accuracy": "accuracy", "dispersion": "dispersion of errors", "correlation": "correlation of the systems",
    "variance": "variance of a clip's difference", "discordance": "clips that only one has right", "intraclass": "correlation within a speaker",
    "clips_each": "clips a speaker",
}  # fmt: skip
_READ = {
    "wer": ("words", "dispersion", "correlation", "intraclass"),
    "accuracy": ("correlation", "discordance", "intraclass"),
    "1 pilot": ("correlation",),
    "2 pilot": (),
}
"""Which guesses count, by what is known."""
_RATES = ("wer", "accuracy", "discordance")

app = typer.Typer(add_completion=False)


def _rate(value: float | None) -> float | None:
    """Most who give more than 1 mean percent; a word error rate above it is no expectation to plan with."""
    if value is not None and value > 1:
        raise typer.BadParameter(f"{value:g} is above 1, and this is a rate: give 0.05 for 5 %")
    return value


@app.command()
def power(
    difference: Annotated[float, typer.Option(min=1e-6, callback=_rate, help="To be found between two systems, as a rate: 0.01 is a point.")] = 0.01,
    wer: Annotated[float | None, typer.Option(min=1e-6, callback=_rate, help="Of the two on average, as a rate.", rich_help_panel=_EXPECTED)] = None,
    accuracy: Annotated[
        float | None, typer.Option(min=0.0, callback=_rate, help="Of the weaker system: for answers, in place of --wer.", rich_help_panel=_EXPECTED)
    ] = None,
    pilot: Annotated[
        list[Path] | None,
        typer.Option(help="A run to measure all this; given twice, also how alike two systems' errors are.", rich_help_panel=_EXPECTED),
    ] = None,
    words: Annotated[float | None, typer.Option(min=0.1, help="Reference words of a clip; 15 by default.", rich_help_panel=_EXPECTED)] = None,
    dispersion: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Variance of a clip's errors over their mean, 1 where words err one by one; 2 by default.", rich_help_panel=_EXPECTED
        ),
    ] = None,
    correlation: Annotated[
        float | None, typer.Option(min=0.0, max=0.99, help="Of the two systems' errors in the same clip; 0.5 by default.", rich_help_panel=_EXPECTED)
    ] = None,
    discordance: Annotated[
        float | None,
        typer.Option(
            min=0.0, callback=_rate, help="Share of answers that one system alone has right; follows from --correlation.", rich_help_panel=_EXPECTED
        ),
    ] = None,
    speakers: Annotated[
        int | None, typer.Option(min=2, help="Over whom the clips are spread; by default each clip has another, or a pilot tells.")
    ] = None,
    intraclass: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Correlation of the differences of one speaker's clips; 0.05 by default.", rich_help_panel=_EXPECTED),
    ] = None,
    clips: Annotated[int | None, typer.Option(min=2, help="What so many clips can show, in place of how many it takes.")] = None,
    wanted: Annotated[float, typer.Option("--power", min=0.5, max=0.999, help="Chance to find the difference where it is there.")] = 0.8,
    confidence: ConfidenceOption = 0.95,
    normaliser: Annotated[Normaliser, typer.Option(help="Of the pilot's texts.", rich_help_panel=_EXPECTED)] = "lower",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON instead of the table.")] = False,
) -> None:
    """Say how many clips a comparison needs, before a run.

    Two systems over the same clips: for word error rates by the matched-pairs test, for accuracies by McNemar's exact test. Clips of one speaker
    are worth less than clips of many. Without a pilot run the figures rest on guesses, which the table shows: they give the order of magnitude.

    Example: audiograft power --wer 0.05 --difference 0.01 --words 15
    """
    from audiograft.evaluate.planning import Expectation, plan, read_pilot

    guesses = {"words": words, "dispersion": dispersion, "correlation": correlation, "discordance": discordance, "intraclass": intraclass}
    given: dict[str, Any] = {name: value for name, value in guesses.items() if value is not None}
    _check(wer, accuracy, pilot or [], given, speakers)
    expected = Expectation(wer, accuracy, **given)
    if pilot:
        expected = read_pilot(pilot, expected, normaliser)
    found = plan(expected, difference, clips=clips, speakers=speakers, power=wanted, confidence=confidence)
    if as_json:
        typer.echo(json.dumps(found, indent=2, allow_nan=False))
    else:
        _print_plan(found)


def _check(wer: float | None, accuracy: float | None, pilot: Sequence[Path], given: dict[str, Any], speakers: int | None) -> None:
    """One basis, and no guess that it leaves unread."""
    if sum((wer is not None, accuracy is not None, bool(pilot))) != 1:
        raise typer.BadParameter("say what is expected: one of --wer, --accuracy or --pilot")
    if len(pilot) > 2:
        raise typer.BadParameter("--pilot takes one run, or two over the same clips")
    basis = f"{len(pilot)} pilot" if pilot else "wer" if accuracy is None else "accuracy"
    for name in given:
        if name not in _READ[basis]:
            raise typer.BadParameter(f"--{name}: {'a pilot measures it' if pilot else f'not for --{basis}'}: leave it out")
    if "intraclass" in given and not speakers:
        raise typer.BadParameter("--intraclass needs --speakers")


def _print_plan(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("what the figures rest on", "", "")
    for name, row in found["expected"].items():
        value = f"{100 * row['value']:.3g} %" if name in _RATES else f"{row['value']:.3g}"
        table.add_row(_NAMES[name], value, "measured" if row["measured"] else "expected" if name in ("wer", "accuracy") else "assumed")
    Console(markup=False, highlight=False).print(table)
    typer.echo(_sentence(found))


def _sentence(found: dict[str, Any]) -> str:
    difference = f"a difference of {_points(found['difference'])} of {'WER' if found['measure'] == 'wer' else 'accuracy'}"
    over = f" of {found['speakers']:,} speakers" if found["speakers"] else ""
    wanted = f"with {_percent(found['wanted_power'])} power"
    need = f": at least {found['speakers_needed']:,} speakers are needed" if found["speakers_needed"] else ""
    if found["asked_for"] == "power":
        least = found["smallest_difference"]
        smallest = f"no difference is found{need}" if least is None else f"the smallest that they find is {_points(least)}"
        return f"{found['clips']:,} clips{over} find {difference} with {_percent(found['power'])} power; {wanted} {smallest}"
    if found["clips"] is None:
        return f"no number of clips{over} finds {difference} {wanted}{need}"
    return f"about {found['clips']:,} clips{over} find {difference} {wanted}"


def _points(rate: float) -> str:
    shown = f"{100 * rate:.2g}"
    return f"{shown} point{'' if shown == '1' else 's'}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
