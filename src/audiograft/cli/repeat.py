"""`audiograft repeat`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from audiograft.cli.terminal import quiet_libraries

app = typer.Typer(add_completion=False)


@app.command()
def repeat(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file with a section detection; see recipes/tiny/detect.yaml.")],
    seeds: Annotated[str, typer.Option(help="Seeds of the runs, with commas between.")] = "0,1,2",
    splits: Annotated[int, typer.Option(min=1, help="How many times the rows are split anew, by speaker and recording.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Folder of all runs; by default output_dir of the recipe with -repeat.")] = None,
    test: Annotated[Path | None, typer.Option(metavar="MANIFEST", help="Test all runs on these rows, not on a part of each split.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Wins over the recipe; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print repeat.json instead of the tables.")] = False,
) -> None:
    """Train over seeds and splits, and say how far results vary.

    The rows of data.train and data.validation are split anew for each split, 80 : 10 : 10, so that no speaker and no recording is on two sides; each
    run is tested on its split's own test part. The variance is taken apart: so much by the seed, so much by the split. The same command goes on
    where it was interrupted, and more seeds or splits come to those that are there.

    Example: audiograft repeat recipes/tiny/detect.yaml --seeds 0,1,2 --splits 3
    """
    quiet_libraries()
    from audiograft.evaluate.repeating import repeat as repeat_runs

    found = repeat_runs(recipe, _numbers(seeds), splits, out, overrides=overrides or (), test=test)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print(found)


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--seeds {text}: write whole numbers with commas between, such as 0,1,2") from error


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    runs = Table("split", "seed", "clips", "errors", "accuracy (95 %, Wilson)", "balanced (95 %, by recordings)")
    for row in found["runs"]:
        counts = (str(row[key]) for key in ("split", "seed", "n_clips", "errors"))
        runs.add_row(*counts, _rate(row["accuracy"], row["wilson"]), _rate(row["balanced_accuracy"], row["balanced_interval"]))
    console.print(runs)
    parts = Table(
        "", "mean (95 %)", "sd by seed", "by split", "left over", "of one run", caption="standard deviations (sd) in points", caption_justify="left"
    )
    for rate, told in found["variance"].items():
        if told is not None:
            deviations = (_points(told[key]) for key in ("seed_sd", "split_sd", "residual_sd", "total_sd"))
            parts.add_row(rate.replace("_", " "), _rate(told["mean"], told["interval"]), *deviations)
    console.print(parts)
    differing = found["disagreement"]
    if differing["clips"]:
        typer.echo(f"of {differing['clips']} clips that several runs heard, {differing['differing']} were not called the same by all, ", nl=False)
        typer.echo(f"and {differing['always_wrong']} were called wrong by all")
    notes = dict.fromkeys([*found["notes"], *(note for told in found["variance"].values() if told for note in told["notes"])])
    for note in notes:
        typer.echo(f"note: {note}")


def _rate(rate: float | None, interval: dict[str, Any] | None) -> str:
    """In percent, with its interval."""
    if rate is None:
        return "-"
    ends = "" if interval is None or interval["low"] is None else f" ({100 * interval['low']:.1f}-{100 * interval['high']:.1f})"
    return f"{100 * rate:.1f}{ends}"


def _points(deviation: float | None) -> str:
    return "-" if deviation is None else f"{100 * deviation:.2f}"
