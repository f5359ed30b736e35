"""`audiograft train`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from audiograft.cli.terminal import quiet_libraries

app = typer.Typer(add_completion=False)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file; see recipes/.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Wins over the recipe; repeatable.")] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Draw the first batch (tokens, audio spans, loss) and train nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print train.json on stdout at the end.")] = False,
) -> None:
    """Run one training stage from a recipe.

    The same command again resumes a run that was interrupted. It ends with the deafness check: a model that does not listen is saved, and
    the exit code is 1. So it is where save: merged could not be merged after training on 4-bit weights; the adapter is kept then.

    Example: audiograft train recipes/tiny/align.yaml --set learning_rate=5e-4 --set output_dir=runs/align
    """
    if dry and as_json:
        raise typer.BadParameter("--dry-run trains nothing to report as --json: leave one out")
    from audiograft.train.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    quiet_libraries()
    from audiograft.train import run

    if dry:
        typer.echo(run.dry_run(loaded, colour=sys.stdout.isatty()).removesuffix("\n"))
        return
    result = run.train(loaded)
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    if result["deaf"] or result["merge_failed"]:
        raise typer.Exit(1)
