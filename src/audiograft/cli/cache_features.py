"""`audiograft cache-features`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from audiograft.cli.options import AddressOption, AllowOutsideOption, DeviceOption, EngineOption, WorkersOption
from audiograft.cli.terminal import print_error, progress, quiet_libraries

if TYPE_CHECKING:
    from audiograft.inference.caching import ClipToCache, Filled
    from audiograft.inference.feature_cache import FeatureCache
    from audiograft.train.recipe import Recipe

_MAX_SHOWN = 10
"""Clips that can't be used are named up to this many."""

app = typer.Typer(add_completion=False)


@app.command()
def cache_features(
    recipe: Annotated[Path | None, typer.Argument(metavar="[RECIPE]", help="Cache what this recipe trains on, into its feature_cache.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="In place of a recipe: tiny, a model folder, or a hub id;")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="and its manifest: a .jsonl file or a folder; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the cache; the recipe's feature_cache by default.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Wins over the recipe; repeatable.")] = None,
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"] | None, typer.Option(help="What the encoder computes in; the recipe's, or fp32. Training has to use the same.")
    ] = None,
    dtype: Annotated[
        Literal["float16", "bfloat16", "float32"] | None, typer.Option(help="What is kept: float16, or what the folder holds already.")
    ] = None,
    device: DeviceOption = "auto",
    allow_outside: AllowOutsideOption = False,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print counts and sizes as JSON.")] = False,
) -> None:
    """Run the frozen encoder over a corpus once, so that training need not.

    A recipe with feature_cache: DIR finds there what is made here, and makes what is missing by itself. The same command again goes on where
    it was interrupted, and computes only clips that are new or have changed. Exit code 1 where some clips can't be used.

    Example: audiograft cache-features recipes/tiny/align.yaml
    """
    if (recipe is None) == (model is None):
        raise typer.BadParameter("give either a RECIPE, or --model with --data and --out")
    if recipe is None and not (data and out):
        raise typer.BadParameter("--model needs --data and --out")
    if recipe is not None and (data or allow_outside):
        raise typer.BadParameter("the recipe names its data itself: change them with --set data.train=PATH")
    if recipe is None and overrides:
        raise typer.BadParameter("--set changes a recipe: name one")
    quiet_libraries()
    started = time.perf_counter()
    if recipe is not None:
        from audiograft.train.recipe import load_recipe

        work = _of_recipe(load_recipe(recipe, overrides or []), out, precision)
    else:
        assert model is not None and data and out
        work = _of_model(model, data, out, precision or "fp32", device, allow_outside)
    cache, done = _run(*work, dtype=dtype, engine=engine, address=address, workers=workers, on_gpus=device != "cpu")
    for _, reason in done.unusable[:_MAX_SHOWN]:
        print_error(reason)
    if len(done.unusable) > _MAX_SHOWN:
        print_error(f"{len(done.unusable) - _MAX_SHOWN} more clips can't be used")
    _report(cache, done, time.perf_counter() - started, as_json)
    if done.unusable:
        raise typer.Exit(1)
