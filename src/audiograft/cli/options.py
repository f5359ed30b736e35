"""Options that several verbs have, written down once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from audiograft.bulk import EngineName

Normaliser = Literal["none", "lower", "whisper-basic", "whisper-english", "leaderboard"]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="tiny (ships in the package), a model folder, or a hub id.")]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Chunks decoded at once. More is faster and takes more memory.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; auto takes a GPU where there is one.")]
NumBeamsOption = Annotated[int, typer.Option(min=1, help="Candidates that beam search follows; 1 takes the likeliest token each time.")]
TemperatureOption = Annotated[float, typer.Option(min=0.0, help="Above 0 tokens are drawn, the more freely the higher it is; 0 takes the likeliest.")]
TopPOption = Annotated[
    float | None, typer.Option(min=0.0, max=1.0, help="Draw among the likeliest tokens of this probability together; needs --temperature.")
]
MaxNewTokensOption = Annotated[
    int | None, typer.Option(min=1, help="Longest answer, in tokens; by default a transcript's follows from its duration, and others end at 512.")
]
ContextOption = Annotated[
    Path | None, typer.Option("--context", help="Text file of names and rare words, one a line: the instruction then tells their spelling.")
]
AllowOutsideOption = Annotated[bool, typer.Option("--allow-outside", help="Also take clips that do not lie below the folder of their manifest.")]
EngineOption = Annotated[EngineName, typer.Option(help="local, or ray: Ray Data, on this machine or a cluster; needs audiograft\\[ray].")]
AddressOption = Annotated[str | None, typer.Option(help="Of a Ray cluster that runs already; by default one is started here.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Of --engine ray: one a GPU by default, or one a core where there are none.")]
ConfidenceOption = Annotated[float, typer.Option(min=0.5, max=0.999, help="Of the intervals; a claim wants a p-value below one less this.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of what is drawn: the same seed, the same answers.")]
