"""`audiograft calibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from audiograft.cli.options import AllowOutsideOption, BatchSizeOption, DeviceOption
from audiograft.cli.terminal import progress, quiet_libraries

if TYPE_CHECKING:
    from audiograft.evaluate.calibrating import Calibrated

Criterion = Literal["balanced_accuracy", "accuracy", "cost", "max_false_alarm_rate"]
_CRITERION_OF = {"max_false_alarm_rate": "--criterion max_false_alarm_rate"}
_HEADS = {
    "temperature": "temperature",
    "threshold": "threshold",
    "nll": "loss (nats a clip)",
    "ece": "ECE (10 bins)",
    "brier": "Brier score",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
}

app = typer.Typer(add_completion=False)


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="The detector: a model's folder; with --question also a shipped model, a hub id or silero-vad.")],
    dev: Annotated[Path | None, typer.Argument(metavar="[DEV_MANIFEST]", help="Clips with labels that no test is made of.")] = None,
    predictions: Annotated[Path | None, typer.Option(help="A run of the model on the dev clips, instead of hearing them again.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder that keeps the predictions on the dev clips.")] = None,
    question: Annotated[Path | None, typer.Option(help="Folder for detection.json, in place of the model's own; for evaluate --question.")] = None,
    criterion: Annotated[
        Criterion, typer.Option(help="What the threshold is to make highest; or cost, to be lowest; or most hits at so many false alarms.")
    ] = "balanced_accuracy",
    max_false_alarm_rate: Annotated[float | None, typer.Option(help="For the criterion of this name; 0.05 by default.")] = None,
    miss_cost: Annotated[float | None, typer.Option(help="For the criterion cost: of a clip of speech that is missed; 1 by default.")] = None,
    false_alarm_cost: Annotated[float | None, typer.Option(help="For the criterion cost: of another clip called speech; 1 by default.")] = None,
    threshold: Annotated[bool, typer.Option("--threshold/--no-threshold", help="Whether to choose a threshold besides the temperature.")] = True,
    batch_size: BatchSizeOption = 64,
    allow_outside: AllowOutsideOption = False,
    device: DeviceOption = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Give up what another run left in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON instead of the table.")] = False,
) -> None:
    """Fit a detector's temperature and threshold on a dev set.

    The temperature is that of the least loss, the threshold that of the highest balanced accuracy, or of another --criterion; both are written into
    detection.json of the model, with the clips that they were chosen on. Rows of a test split are refused, and evaluate says so where it meets the
    same clips again.

    Example: audiograft calibrate runs/detector bench/dev.jsonl
    """
    quiet_libraries()
    from audiograft.data.manifest import find_manifest, read_manifest
    from audiograft.evaluate.calibrating import ThresholdCosts
    from audiograft.evaluate.calibrating import calibrate as run_calibration

    given = {"max_false_alarm_rate": max_false_alarm_rate, "miss_cost": miss_cost, "false_alarm_cost": false_alarm_cost}
    costs = ThresholdCosts(**{name: value for name, value in given.items() if value is not None})
    if idle := [name for name, value in given.items() if value is not None and not (threshold and name in costs.of(criterion))]:
        raise typer.BadParameter(f"--{idle[0].replace('_', '-')} is for {_CRITERION_OF.get(idle[0], '--criterion cost')}: name it, or leave this out")
    n_clips = 0 if dev is None else len(read_manifest(find_manifest(dev), allow_outside))
    with progress("calibrating", n_clips) as advance:
        found = run_calibration(
            model,
            dev,
            predictions=predictions,
            out=out,
            folder=question,
            criterion=criterion,
            with_threshold=threshold,
            costs=costs,
            on_clip=advance,
            batch_size=batch_size,
            allow_outside=allow_outside,
            device=device,
            overwrite=overwrite,
        )
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
    else:
        _print(found)


def _print(found: Calibrated) -> None:
    from rich.console import Console
    from rich.table import Table

    about: dict[str, Any] = dict(found.question.chosen_on or {})
    table = Table("", "before", "after", title=f"on the {about['clips']:,} clips that they were chosen on", title_justify="left")
    for key, head in _HEADS.items():
        table.add_row(head, *(f"{side[key]:.4f}" for side in (found.before, found.after)))
    console = Console(markup=False, highlight=False)
    console.print(table)
    if found.failed:
        typer.echo(f"{found.failed} clips could not be heard and are in no figure")
    for note in found.notes:
        typer.echo(f"note: {note}")
    typer.echo(f"written to {found.file}; on these clips the figures are too good: a test needs others")
