"""`audiograft push`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from audiograft.cli.terminal import quiet_libraries

Task = Literal["automatic-speech-recognition", "audio-text-to-text"]

app = typer.Typer(add_completion=False)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A model or adapter folder, such as the output_dir of a training run.")],
    repo: Annotated[str, typer.Option(metavar="OWNER/NAME", help="The repository on the hub; made where there is none.")],
    runs: Annotated[
        list[Path] | None, typer.Option("--run", metavar="DIR", help="Evaluation run of this model, whose figures the card shows; repeatable.")
    ] = None,
    task: Annotated[Task, typer.Option(help="What the hub lists it under.")] = "automatic-speech-recognition",
    licence: Annotated[str | None, typer.Option("--license", help="Identifier as the hub knows it: apache-2.0, cc-by-4.0 and so on.")] = None,
    base_models: Annotated[
        list[str] | None, typer.Option("--base-model", metavar="ID", help="Hub id of what it was made of, if its files don't say; repeatable.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the new repository private.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit on the hub.")] = None,
    overwrite_card: Annotated[bool, typer.Option("--overwrite-card", help="Write a new README.md over one that is your own.")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="Print the files and the card; upload and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was uploaded as JSON.")] = False,
) -> None:
    """Upload a model to the Hugging Face hub, with a card.

    Only the files that loading needs go up: no checkpoints, no logs, no audio. The card is made from train.json and from the evaluation runs
    you name; it shows no figure without its file. The token comes from HF_TOKEN or from `hf auth login`.

    Example: audiograft push runs/finetune --repo anna/listener-3b --run runs/test --license apache-2.0 --private
    """
    if sys.stderr.isatty():
        # An upload of many gigabytes has to be seen to move.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0")
    quiet_libraries()
    from audiograft.model.card import CardOptions
    from audiograft.model.push import CARD_NAME
    from audiograft.model.push import push as push_folder

    report = push_folder(
        folder,
        repo,
        runs or (),
        CardOptions(task, licence, tuple(base_models or ())),
        private=private,
        message=message,
        overwrite_card=overwrite_card,
        dry_run=dry,
    )
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
        return
    for name, size_bytes in report.files.items():
        typer.echo(f"{size_bytes:>18,} bytes  {name}")
    if report.own_card:
        typer.echo(f"{folder / CARD_NAME} is your own and goes up as it is; --overwrite-card makes a new one")
    if dry:
        typer.echo(f"\n{report.card}\nnothing was uploaded to {repo}")
    else:
        gone = f"; removed there: {', '.join(report.removed)}" if report.removed else ""
        typer.echo(f"uploaded to {report.url}, commit {report.commit}{gone}")
