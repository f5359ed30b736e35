"""`audiograft report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from audiograft.cli.options import Normaliser
from audiograft.cli.terminal import quiet_libraries

app = typer.Typer(add_completion=False)


@app.command()
def report(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders of evaluate, or of train.")],
    normaliser: Annotated[Normaliser | None, typer.Option(help="Of the headline; the one that the run has by default.")] = None,
    slice_by: Annotated[list[str] | None, typer.Option(help="A further key of the rows to cut the figures by; repeatable.")] = None,
    terms: Annotated[Path | None, typer.Option(help="Words whose recall is measured, one a line.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="Another run or predictions file of the same clips, for a column beside.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for one page about several detection runs, in place of a report of each.")] = None,
    common: Annotated[bool, typer.Option("--common", help="With --out: the clips that all runs have, where they do not have the same.")] = False,
) -> None:
    """Write a run's report again; draw a training run's curves.

    A run of evaluate is scored again from its predictions, without the model: metrics.json, report.md and report.html are written anew. What no
    option changes stays as it was. Another system's predictions need a folder of their own, as predictions.jsonl. A run of evaluate --retention
    stays one: retention.json takes the place of metrics.json. Of a training run the curves of its log are drawn.

    With --out, runs of detectors on the same clips are put side by side on one page: accuracy, errors, conditions and speed, with exact tests
    against the first.

    Example: audiograft report runs/test --normaliser whisper-english
    """
    quiet_libraries()
    if out is not None:
        if normaliser or slice_by or terms or baseline:
            raise typer.BadParameter("--out compares detections, which have no words: leave --normaliser, --slice-by, --terms and --baseline out")
        from audiograft.evaluate.detection_comparison import write_comparison

        for file in write_comparison(paths, out, common=common):
            typer.echo(str(file))
        return
    if common:
        raise typer.BadParameter("--common is for a page about several runs: name its folder with --out")
    from audiograft.inference.context import read_terms

    listed = read_terms(terms) if terms else None
    for path in paths:
        for file in _write_again(path, normaliser, listed, slice_by or (), baseline):
            typer.echo(str(file))


def _write_again(path: Path, normaliser: str | None, terms: Sequence[str] | None, slice_by: Sequence[str], baseline: Path | None) -> list[Path]:
    """The files of one folder."""
    from audiograft.evaluate.folder import METRICS_NAME, REPORT_NAMES, RETENTION_NAME
    from audiograft.evaluate.predictions import PREDICTIONS_NAME
    from audiograft.evaluate.report import write_reports
    from audiograft.evaluate.retention_folder import is_retention, tell_again
    from audiograft.evaluate.scoring import score_again
    from audiograft.types import DataError

    if path.is_file():
        mend = "name the folder" if path.name == PREDICTIONS_NAME else f"put this file into one as {PREDICTIONS_NAME}, and name the folder"
        raise DataError(f"{path}: a report is of a folder: {mend}")
    if is_retention(path):
        given = {"--normaliser": normaliser, "--terms": terms, "--baseline": baseline}
        if useless := [option for option, value in given.items() if value is not None]:
            raise DataError(f"{path}: a run of evaluate --retention, on which {useless[0]} does nothing: leave it out")
        tell_again(path, further=slice_by)
        return [path / name for name in (RETENTION_NAME, *REPORT_NAMES)]
    if any(path.glob(f"{PREDICTIONS_NAME}*")):  # also of a run that was interrupted, which is told how it goes on
        score_again(path, normaliser, terms=terms, slice_by=slice_by, baseline=baseline)
        return [path / METRICS_NAME, *write_reports(path)]
    from audiograft.train.curves import draw_curves, is_training_run

    if not is_training_run(path):
        raise DataError(f"{path}: neither a run of evaluate ({PREDICTIONS_NAME}) nor of train (train.json): name the folder of one")
    return [draw_curves(path)]
