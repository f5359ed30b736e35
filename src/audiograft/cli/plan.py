"""`audiograft plan`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from audiograft.cli.options import AllowOutsideOption
from audiograft.cli.terminal import progress, quiet_libraries

app = typer.Typer(add_completion=False)


@app.command()
def plan(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE|FOLDER", help="YAML file, or a folder with align.yaml and finetune.yaml.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Wins over the recipe; repeatable.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="MANIFEST", help="What is trained on; by default the recipe's own, where they exist; repeatable."),
    ] = None,
    allow_outside: AllowOutsideOption = False,
    clip_s: Annotated[float | None, typer.Option(min=0.01, max=30, help="Length of the clips, where there is no manifest; 10 s by default.")] = None,
    gpu: Annotated[str | None, typer.Option(help="One GPU alone, such as rtx4090, l4, a100-80 or h200.")] = None,
    mfu: Annotated[float, typer.Option(min=0.001, max=1, help="Share of a GPU's arithmetic that training gets out of it.")] = 0.4,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a recipe costs: parameters, memory, FLOPs, hours.

    Loads no weights and needs no network: the model is built of the real classes without its numbers. For a folder, all stages and their sum;
    --set of a key that finetune alone reads, such as lora.rank, is for that stage.
    Backbones that audiograft does not know by name are given as a folder that holds their config.json.

    Example: audiograft plan recipes/qwen2-vl-7b --data data/train.jsonl --gpu rtx4090
    """
    quiet_libraries()
    from audiograft.train.plan.gpus import find_gpus

    gpus = find_gpus(gpu)
    from audiograft.train.plan.report import Options, plan_folder, plan_recipe

    with progress("reading rows", _count_rows(data or [])) as advance:
        options = Options(gpus, mfu, data or (), clip_s, advance)
        settings = [*(overrides or []), *(["data.allow_outside=true"] if allow_outside else [])]
        result = (plan_folder if recipe.is_dir() else plan_recipe)(recipe, settings, options)
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from audiograft.train.plan.tables import draw

    Console(soft_wrap=False, highlight=False).print(draw(result))


def _count_rows(manifests: list[str]) -> int:
    from audiograft.data.manifest import find_manifest, iterate_rows

    return sum(1 for manifest in manifests for _ in iterate_rows(find_manifest(manifest)))
