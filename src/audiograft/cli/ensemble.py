"""`audiograft ensemble`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from audiograft.cli.terminal import quiet_libraries

app = typer.Typer(add_completion=False)


@app.command()
def ensemble(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run folders or predictions files of detections of the same clips.")],
    out: Annotated[Path, typer.Option(help="Run folder: predictions.jsonl, metrics.json, run.json, report.md, report.html.")],
    threshold: Annotated[float | None, typer.Option(help="SPEECH from this probability on; else that of the runs, or 0.5 where they differ.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Give up what another run left in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json instead of the tables.")] = False,
) -> None:
    """Join runs on the same clips into one, by averaged log-odds.

    Each run's scores are divided by its own temperature first; of a run without scores, such as that of silero-vad, the log-odds of its
    probabilities are taken. What most of the runs chose is scored beside it. Runs of other clips are refused.

    Example: audiograft ensemble runs/seed-0 runs/seed-1 runs/seed-2 --out runs/together
    """
    quiet_libraries()
    from rich.console import Console

    from audiograft.evaluate.ensembles import ensemble as join_runs
    from audiograft.evaluate.printing import print_metrics

    metrics = join_runs(runs, out, threshold=threshold, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps(metrics, indent=2, ensure_ascii=False))
    else:
        print_metrics(metrics, Console(markup=False, highlight=False))
        typer.echo(f"written to {out}; to look at it: {out / 'report.html'}")
