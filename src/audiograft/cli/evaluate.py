"""`audiograft evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from audiograft.cli.options import AllowOutsideOption, BatchSizeOption, DeviceOption, ModelOption
from audiograft.cli.terminal import print_error, progress, quiet_libraries

Normaliser = Literal["none", "lower", "whisper-basic", "whisper-english"]
Audio = Literal["true", "shuffled", "none"]

_MAX_SPEAKERS_SHOWN = 12
"""More are left to metrics.json."""

app = typer.Typer(add_completion=False)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Manifest with references: a .jsonl file, or the folder of a manifest.jsonl.")],
    out: Annotated[Path, typer.Option(help="Run folder: predictions.jsonl, metrics.json, run.json.")],
    model: ModelOption = "tiny",
    batch_size: BatchSizeOption = 8,
    normaliser: Annotated[Normaliser, typer.Option(help="Done to references and hypotheses before they are compared.")] = "lower",
    prompt: Annotated[str | None, typer.Option(help="The instruction for all clips; each row's own by default.")] = None,
    audio: Annotated[
        Audio, typer.Option(help="Baselines: clips of other rows, or none. What is right without its own clips does not come from listening.")
    ] = "true",
    allow_outside: AllowOutsideOption = False,
    device: DeviceOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json instead of the table.")] = False,
) -> None:
    """Run a model over a manifest and score what it writes.

    Rows with a response of their own want an answer, which is right or wrong; all others want a transcript. Every figure is computed from the
    predictions file, with a 95 % interval clustered by speaker. The last line says what the data shares with what the model was trained on.

    Example: audiograft evaluate --model tiny --data corpus/test/manifest.jsonl --out runs/test
    """
    quiet_libraries()
    from audiograft.data.manifest import find_manifest, read_manifest
    from audiograft.evaluate.run import evaluate as run_evaluation
    from audiograft.inference.engine import Engine

    # Before the model, so that a wrong path is told at once.
    n_clips = len(read_manifest(find_manifest(data), allow_outside))
    engine = Engine.load(model, device)
    with progress("evaluating", n_clips) as advance:
        metrics = run_evaluation(
            engine,
            data,
            out,
            batch_size=batch_size,
            normaliser=normaliser,
            prompt=prompt,
            audio=audio,
            allow_outside=allow_outside,
            on_clip=advance,
        )
    for row in metrics["failed"]:
        print_error(row["error"])
    if as_json:
        typer.echo(json.dumps(metrics, indent=2, ensure_ascii=False))
    else:
        _print_tables(metrics, out)
    if metrics["failed"]:
        raise typer.Exit(1)


def _print_tables(metrics: dict[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from audiograft.data.leakage import summary_line

    console = Console(markup=False, highlight=False)
    if metrics["wer"]:
        both = (metrics["wer"], metrics["cer"])
        rates = Table("", "WER (words)", "CER (characters)")
        rates.add_row("rate", *(_percent(rate["rate"]) for rate in both))
        rates.add_row("95 % interval", *map(_span, both))
        for count in ("hits", "substitutions", "insertions", "deletions"):
            rates.add_row(count, *(str(rate[count]) for rate in both))
        console.print(rates)
    if accuracy := metrics["accuracy"]:
        answers = Table("answers", "right", "of", "95 % interval")
        answers.add_row("all", _percent(accuracy["rate"]), str(accuracy["answers"]), _span(accuracy))
        for kind, row in accuracy["by_question"].items():
            answers.add_row(kind, _percent(row["rate"]), str(row["answers"]), "")
        console.print(answers)
    speakers = metrics["by_speaker"]
    if 1 < len(speakers) <= _MAX_SPEAKERS_SHOWN:
        table = Table("speaker", "WER", "clips")
        for speaker, row in speakers.items():
            table.add_row(speaker, _percent(row["wer"]), str(row["n_clips"]))
        console.print(table)
    failed = f", {len(metrics['failed'])} failed" if metrics["failed"] else ""
    typer.echo(f"{metrics['n_clips']} rows{failed}; {metrics['rtfx']:.1f} s of audio a second; written to {out}")
    typer.echo(summary_line(metrics["leakage"]))


def _span(rate: dict[str, Any]) -> str:
    return f"{_percent(rate['interval']['low'])} to {_percent(rate['interval']['high'])}"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f} %"
