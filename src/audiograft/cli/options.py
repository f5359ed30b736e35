"""Options that several verbs have, written down once."""

from __future__ import annotations

from typing import Annotated

import typer

ModelOption = Annotated[str, typer.Option("--model", "-m", help="tiny (ships in the package), a model folder, or a hub id.")]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Chunks decoded at once. More is faster and takes more memory.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; auto takes a GPU where there is one.")]
