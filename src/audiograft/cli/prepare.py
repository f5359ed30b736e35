"""`audiograft prepare`: one sub-verb a source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from audiograft.cli.terminal import progress

app = typer.Typer(add_completion=False)


@app.callback()
def prepare() -> None:
    """Make a corpus: clips and their manifest."""


@app.command()
def synthetic(
    out: Annotated[Path, typer.Option(help="Folder for manifest.jsonl and audio/.")],
    split: Annotated[Literal["train", "dev", "test"], typer.Option(help="Which sentences; no sentence is in two splits.")],
    rows: Annotated[int, typer.Option(min=1, help="Number of clips.")],
    voices: Annotated[Literal["training", "held-out"], typer.Option(help="held-out is for the test split alone.")] = "training",
    seed: Annotated[int, typer.Option(help="Same seed, same bytes; another seed, other sentences.")] = 0,
    augmented: Annotated[bool, typer.Option("--augmented", help="Add noise, gain, band limits, reverberation, voice shifts.")] = False,
    questions: Annotated[float, typer.Option(min=0, max=1, help="Share of rows that ask who, where, when, how many, which colour.")] = 0.0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core by default.")] = None,
) -> None:
    """Speak sentences of a grammar with espeak-ng and flite.

    Example: audiograft prepare synthetic --out corpus/train --split train --voices training --rows 1000 --seed 1
    """
    from audiograft.data.synthetic.generate import prepare_synthetic

    with progress("speaking", rows) as advance:
        manifest = prepare_synthetic(
            out, split=split, voices=voices, rows=rows, seed=seed, augmented=augmented, questions=questions, workers=workers, on_row=advance
        )
    typer.echo(f"{rows} clips in {manifest}")
