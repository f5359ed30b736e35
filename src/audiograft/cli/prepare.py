"""`audiograft prepare`: one sub-verb a source."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from audiograft.cli.declared import command, made_of, parameters, unmarked
from audiograft.cli.prepare_detection import detection
from audiograft.cli.terminal import print_error, progress, quiet_libraries, row_progress
from audiograft.data.filters import Filters
from audiograft.data.options import PrepareOptions
from audiograft.data.sources import SOURCES

if TYPE_CHECKING:
    from audiograft.data.prepare import Summary
    from audiograft.data.sources.base import Source

_AS_JSON = inspect.Parameter(
    "as_json",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--json", help="Print card.json on stdout at the end.")],
)


class _SourceVerbs(TyperGroup):
    """Lists sources by their summaries, and builds the command of the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, source in SOURCES.items():
            self.commands[name] = TyperCommand(name, help=unmarked(_paragraphs(source)[0]))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        return name, _source_command(SOURCES[name]) if name is not None and name in SOURCES else found, rest


app = typer.Typer(cls=_SourceVerbs, add_completion=False)


@app.callback()
def prepare() -> None:
    """Make a corpus: clips and their manifest.

    Rows that can't be used are listed with their reasons in rejected.jsonl, and a data card sums up what was kept.
    The same command again goes on where it was interrupted.

    Example: audiograft prepare librispeech LibriSpeech --subsets dev-clean --out corpora/librispeech-dev
    """


@app.command()
def synthetic(
    out: Annotated[Path, typer.Option(help="Folder for manifest.jsonl and audio/.")],
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="Which sentences; no sentence is in two splits.")],
    rows: Annotated[int, typer.Option(min=1, help="Number of clips.")],
    voices: Annotated[
        Literal["training", "held-out", "languages"],
        typer.Option(help="held-out is for the test split alone; languages, other tongues reading English, for training detectors."),
    ] = "training",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes; another seed, other sentences.")] = 0,
    augmented: Annotated[bool, typer.Option("--augmented", help="Add noise, gain, band limits, reverberation, voice shifts.")] = False,
    questions: Annotated[float, typer.Option(min=0, max=1, help="Share of rows that ask who, where, when, how many, which colour.")] = 0.0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core by default.")] = None,
) -> None:
    """Speak sentences of a grammar with espeak-ng and flite.

    Example: audiograft prepare synthetic --out corpus/train --split train --voices training --rows 1000 --seed 1
    """
    from audiograft.data.card import write_card
    from audiograft.data.synthetic.generate import prepare_synthetic

    drawn = {"split": split, "voices": voices, "rows": rows, "seed": seed, "augmented": augmented, "questions": questions}
    with progress("speaking", rows) as advance:
        manifest = prepare_synthetic(
            out, split=split, voices=voices, rows=rows, seed=seed, augmented=augmented, questions=questions, workers=workers, on_row=advance
        )
    write_card(out, {"manifest": manifest}, None, n_read=rows, made_by={"source": "synthetic", **drawn})
    typer.echo(f"{rows} clips in {manifest}")


@app.command()
def scenes(
    out: Annotated[Path, typer.Option(help="Folder for manifest.jsonl, images/ and audio/.")],
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="Which scenes; no scene is in two splits.")],
    rows: Annotated[int, typer.Option(min=1, help="Number of scenes, with one question each.")],
    spoken: Annotated[float, typer.Option(min=0, max=1, help="Share of questions that are spoken; the others are written.")] = 0.0,
    voices: Annotated[Literal["training", "held-out"], typer.Option(help="held-out is for the test split alone.")] = "training",
    most_shapes: Annotated[int, typer.Option(min=1, max=5, help="In a scene; tiny-vl was made for three.")] = 3,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes; another seed, other scenes.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core by default.")] = None,
) -> None:
    """Draw scenes of coloured shapes and ask about them, written or spoken.

    Example: audiograft prepare scenes --out corpus/scenes --split train --rows 1000 --spoken 0.5
    """
    from audiograft.data.card import write_card
    from audiograft.data.scenes.generate import prepare_scenes

    drawn: dict[str, Any] = {"split": split, "rows": rows, "spoken": spoken, "voices": voices, "most_shapes": most_shapes, "seed": seed}
    with progress("drawing", rows) as advance:
        manifest = prepare_scenes(out, **drawn, workers=workers, on_row=advance)
    write_card(out, {"manifest": manifest}, None, n_read=rows, made_by={"source": "scenes", **drawn})
    typer.echo(f"{rows} scenes in {manifest}")


app.command()(detection)


def _source_command(source: type[Source]) -> Any:
    """The command that prepares a source."""
    options = [*parameters(source), _AS_JSON, *parameters(PrepareOptions, "Corpus"), *parameters(Filters, "Filters")]
    verb = typer.Typer(add_completion=False)
    verb.command(source.name)(command(lambda values: _prepare(source, values), options, "\n\n".join(_paragraphs(source))))
    return get_command(verb)


def _paragraphs(source: type[Source]) -> list[str]:
    """Of its docstring; the lines of a paragraph are joined, since a terminal breaks them elsewhere."""
    return [" ".join(paragraph.split()) for paragraph in inspect.cleandoc(source.__doc__ or "").split("\n\n")]


def _prepare(source_class: type[Source], values: dict[str, Any]) -> None:
    source = made_of(source_class, values)
    options = made_of(PrepareOptions, values, filters=made_of(Filters, values))
    quiet_libraries()
    from audiograft.data.prepare import TooManyRejectedError
    from audiograft.data.prepare import prepare as run

    try:
        with row_progress("preparing", options.limit) as advance:
            summary = run(source, options, lambda rejection: advance(rejection is not None))
    except TooManyRejectedError as error:
        print_error(error.headline, 1)
        for reason in error.reasons:
            typer.echo(f"  {reason}", err=True)
        raise typer.Exit(1) from error
    if values["as_json"]:
        typer.echo(json.dumps(summary.card, indent=1, ensure_ascii=False))
    else:
        _print_summary(summary, options.out)
    if not summary.kept:
        mend = "look into rejected.jsonl, mend the rows or the options, and start anew with --overwrite"
        raise typer.Exit(print_error(f"{options.out}: none of {summary.rows} rows was kept: {mend}", 1))


def _print_summary(summary: Summary, out: Path) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary.rejected.items())
    length = f"{summary.duration_s / 3600:.2f} hours" if summary.duration_s >= 360 else f"{summary.duration_s:.1f} s"
    typer.echo(f"read      {summary.rows} rows")
    typer.echo(f"kept      {summary.kept} rows, {length}: {', '.join(map(str, summary.manifests.values()))}")
    typer.echo(f"rejected  {sum(summary.rejected.values())} rows{f' ({kinds})' if kinds else ''}: {out / 'rejected.jsonl'}")
    typer.echo(f"card      {out / 'card.html'}")
    from audiograft.data.gate import COUNTS_OF

    for splits, leakage in (summary.card["leakage"] or {}).items():
        if leakage["touches"]:
            counts = {kind: sum(leakage["shared"][name]["shared"] for name in COUNTS_OF[kind]) for kind in leakage["touches"]}
            shared = ", ".join(f"{count} {'clips' if kind == 'audio' else kind}" for kind, count in counts.items())
            typer.echo(f"touching  {splits} share {shared}: card.html has more")
