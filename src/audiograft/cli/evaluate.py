"""`audiograft evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from audiograft.cli.options import AllowOutsideOption, BatchSizeOption, DeviceOption, ModelOption, Normaliser
from audiograft.cli.terminal import print_error, progress, quiet_libraries

if TYPE_CHECKING:
    from audiograft.evaluate.options import EvaluateOptions

Media = Literal["true", "shuffled", "none"]
_SCORES = "What is measured"
_RUN = "The run"

DataOption = Annotated[Path, typer.Option(help="Manifest with references: a .jsonl file, or the folder of a manifest.jsonl.")]
OutOption = Annotated[Path, typer.Option(help="Run folder: predictions.jsonl, metrics.json, run.json, report.md, report.html.")]
PromptOption = Annotated[str | None, typer.Option(help="The instruction for all clips; each row's own by default.")]
TermsInPromptOption = Annotated[
    Path | None, typer.Option(help="Names and rare words, one a line, to put into the prompts; their recall is measured.")
]
AudioOption = Annotated[
    Media, typer.Option(help="Baselines: clips of other rows, or none. What is right without its own clips does not come from listening.")
]
PicturesOption = Annotated[Media, typer.Option(help="Baselines likewise: images and videos of other rows, or none.")]
NormaliserOption = Annotated[
    Normaliser, typer.Option(help="Of the headline: what is done to both texts before they are compared.", rich_help_panel=_SCORES)
]
TermsOption = Annotated[
    Path | None, typer.Option(help="Words whose recall is measured, one a line; those of --context by default.", rich_help_panel=_SCORES)
]
BaselineOption = Annotated[
    Path | None, typer.Option(help="Another run or predictions file of the same clips, for a column beside.", rich_help_panel=_SCORES)
]
SliceOption = Annotated[list[str] | None, typer.Option(help="A further key of the rows to cut the figures by; repeatable.", rich_help_panel=_SCORES)]
DeafnessOption = Annotated[
    int, typer.Option(min=0, help="Rows also tried with shuffled and silent audio, and with other pictures; 0 for none.", rich_help_panel=_SCORES)
]
ThresholdOption = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Of labels: SPEECH from this probability on, in place of the model's own.")
]
QuestionOption = Annotated[Path | None, typer.Option(help="Of labels: folder of a detection.json, in place of the model's own.")]
RetentionOption = Annotated[
    str | None,
    typer.Option(
        metavar="BASE", help="Hold the model against this one, from before grafting, on the rows without audio: answers and next-token probabilities."
    ),
]
LanguageOption = Annotated[str | None, typer.Option(help="Of a stock Whisper, as en; it finds out by itself otherwise.", rich_help_panel=_RUN)]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Give up what another run left in the folder.", rich_help_panel=_RUN)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print metrics.json, or retention.json, instead of the tables.", rich_help_panel=_RUN)]

_OF_RETENTION = ("data", "out", "model", "retention", "slice_by", "batch_size", "allow_outside", "device", "overwrite", "as_json")
"""The options that do something with --retention."""

app = typer.Typer(add_completion=False)


@app.command()
def evaluate(
    given: typer.Context,
    data: DataOption,
    out: OutOption,
    model: ModelOption = "tiny",
    prompt: PromptOption = None,
    context: TermsInPromptOption = None,
    audio: AudioOption = "true",
    pictures: PicturesOption = "true",
    threshold: ThresholdOption = None,
    question: QuestionOption = None,
    retention: RetentionOption = None,
    normaliser: NormaliserOption = "lower",
    terms: TermsOption = None,
    baseline: BaselineOption = None,
    slice_by: SliceOption = None,
    deafness_clips: DeafnessOption = 64,
    batch_size: BatchSizeOption = 8,
    allow_outside: AllowOutsideOption = False,
    device: DeviceOption = "auto",
    language: LanguageOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a model over a manifest and score what it writes.

    Rows with a response of their own want an answer, which is right or wrong; rows with a label and no text want the label, which silero-vad,
    webrtc-vad and energy-vad can tell too; all others want a transcript. Every figure is computed from the
    predictions file, with a 95 % interval clustered by speaker. The last lines say what the data shares with what the model was trained on, and
    whether it may have chosen the checkpoint. Interrupted, the same command goes on; repeated, it scores again without opening the model.
    With --retention it says instead what grafting and training changed where there is no audio; interrupted, it begins anew.

    Example: audiograft evaluate --model tiny --data corpus/test/manifest.jsonl --out runs/test
    """
    quiet_libraries()
    if retention is not None:
        return _retain(given, retention, model, data, out)
    from audiograft.inference.context import read_terms

    options: EvaluateOptions = {
        "batch_size": batch_size,
        "normaliser": normaliser,
        "prompt": prompt,
        "audio": audio,
        "pictures": pictures,
        "threshold": threshold,
        "question": question,
        "context": read_terms(context) if context else (),
        "terms": read_terms(terms) if terms else (),
        "slice_by": slice_by or (),
        "baseline": baseline,
        "deafness_clips": deafness_clips,
        "device": device,
        "language": language,
        "allow_outside": allow_outside,
        "overwrite": overwrite,
    }
    _score(model, data, out, as_json, options)


def _score(model: str, data: Path, out: Path, as_json: bool, options: EvaluateOptions) -> None:
    from audiograft.data.manifest import find_manifest, read_manifest
    from audiograft.evaluate.run import evaluate as run_evaluation

    # Before the model, so that a wrong path is told at once.
    n_clips = len(read_manifest(find_manifest(data), options.get("allow_outside", False)))
    with progress("evaluating", n_clips) as advance:
        metrics = run_evaluation(model, data, out, on_clip=advance, **options)
    _tell(metrics, out, as_json)


def _retain(given: typer.Context, base: str, model: str, data: Path, out: Path) -> None:
    """Run `--retention`."""
    for option in given.command.params:
        source = given.get_parameter_source(option.name or "")
        if option.name not in _OF_RETENTION and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"{option.opts[0]} does nothing with --retention: leave it out")
    from rich.console import Console

    from audiograft.data.manifest import find_manifest, read_manifest
    from audiograft.evaluate.retention import retain
    from audiograft.evaluate.retention_report import print_retention

    options = {name: given.params[name] for name in ("batch_size", "device", "allow_outside", "overwrite")}
    n_rows = sum(not sample.clips for sample in read_manifest(find_manifest(data), options["allow_outside"]))
    with progress("both models", 2 * n_rows) as advance:
        found = retain(model, base, data, out, slice_by=given.params["slice_by"] or (), on_row=advance, **options)
    for row in found["failed"]:
        print_error(row["error"])
    if given.params["as_json"]:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print_retention(found, Console(markup=False, highlight=False))
        typer.echo(f"written to {out}; to look at it: {out / 'report.html'}")
    if found["failed"]:
        raise typer.Exit(1)


def _tell(metrics: dict[str, Any], out: Path, as_json: bool) -> None:
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

    from audiograft.evaluate.printing import print_metrics

    print_metrics(metrics, Console(markup=False, highlight=False))
    typer.echo(f"written to {out}; to look at it: {out / 'report.html'}; to judge it: audiograft audit {out}")
