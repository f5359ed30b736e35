"""`audiograft cache-features`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from audiograft.bulk import EngineName, check_engine
from audiograft.cli.options import AddressOption, AllowOutsideOption, DeviceOption, EngineOption, WorkersOption
from audiograft.cli.terminal import print_error, progress, quiet_libraries

if TYPE_CHECKING:
    import torch

    from audiograft.inference.caching import ClipToCache, Filled, OpenModel
    from audiograft.inference.feature_cache import FeatureCache
    from audiograft.train.recipe import Recipe
    from audiograft.types import Sample

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
        Literal["fp32", "bf16", "fp16"] | None,
        typer.Option(help="With --model: what the encoder computes in, which has to be the training's; fp32."),
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
    """Run the frozen encoder over a corpus, once for all training.

    A recipe with feature_cache: DIR finds there what is made here, and makes what is missing by itself. The same command again goes on where
    it was interrupted, and computes only clips that are new or have changed. Exit code 1 where some clips can't be used.

    Example: audiograft cache-features recipes/tiny/align.yaml
    """
    if (recipe is None) == (model is None):
        raise typer.BadParameter("give either a RECIPE, or --model with --data and --out")
    if recipe is None and not (data and out):
        raise typer.BadParameter("--model needs --data and --out")
    if recipe is not None and (data or allow_outside or precision):
        raise typer.BadParameter("the recipe names its data and its precision itself: change them with --set, as in --set data.train=PATH")
    if recipe is None and overrides:
        raise typer.BadParameter("--set changes a recipe: name one")
    check_engine(engine, address)
    quiet_libraries()
    started = time.perf_counter()
    if recipe is not None:
        work = _of_recipe(recipe, [*(overrides or []), *([f"feature_cache={out}"] if out else [])], device)
    else:
        assert model is not None
        assert data
        assert out is not None
        work = _of_model(model, data, out, precision or "fp32", device, allow_outside)
    cache, done = _fill(work, dtype, engine, address, workers, on_gpus=device != "cpu")
    for _, reason in done.unusable[:_MAX_SHOWN]:
        print_error(reason)
    if len(done.unusable) > _MAX_SHOWN:
        print_error(f"{len(done.unusable) - _MAX_SHOWN} more clips can't be used")
    _report(cache, done, time.perf_counter() - started, as_json)
    if done.unusable:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Work:
    """What is to be cached.

    Attributes:
        out: folder of the cache.
        precision: what the encoder computes in.
        open_model: opens the model on a device, given by its name.
        device: where it is to be.
        clips: for a processor, a lazy list of the clips and their number.
    """

    out: Path
    precision: torch.dtype
    open_model: Callable[[str], tuple[Any, Any]]
    device: str
    clips: Callable[[Any], tuple[Iterable[ClipToCache], int]]


def _of_recipe(path: Path, overrides: list[str], device: str) -> _Work:
    from audiograft.train.recipe import load_recipe
    from audiograft.train.setup import DTYPES
    from audiograft.types import ConfigError

    recipe = load_recipe(path, overrides)
    if recipe.feature_cache is None:
        raise ConfigError(f"{path}: has no feature_cache: add it, so that training finds what is cached, or give --out DIR")
    return _Work(Path(recipe.feature_cache), DTYPES[recipe.precision], partial(_open_recipe, recipe), device, partial(_recipe_clips, recipe))


def _of_model(model: str, data: list[Path], out: Path, precision: str, device: str, allow_outside: bool) -> _Work:
    from audiograft.data.manifest import find_manifest
    from audiograft.train.setup import DTYPES

    computed = DTYPES[precision]
    data = list(map(find_manifest, data))
    return _Work(out, computed, partial(_open_named, model, computed), device, partial(_manifest_clips, data, allow_outside))


def _open_recipe(recipe: Recipe, device: str) -> tuple[Any, Any]:
    """As training opens it, but for 4-bit weights, which are none of the encoder's."""
    from dataclasses import replace

    from rich.console import Console

    from audiograft.inference.engine import find_device
    from audiograft.train.setup import open_model

    start = open_model(replace(recipe, quantisation=None), Console(quiet=True))
    start.model.audio_tower.to(find_device(device))
    return start.model, start.processor


def _open_named(model: str, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    from audiograft.inference.engine import find_device
    from audiograft.model import load_model

    return load_model(model, find_device(device), dtype)


def _recipe_clips(recipe: Recipe, processor: Any) -> tuple[Iterable[ClipToCache], int]:
    """Of the rows that training will use."""
    from rich.console import Console

    from audiograft.train.sources import index_training_rows, training_manifests

    console = Console(stderr=True)
    rows = index_training_rows(recipe, processor, training_manifests(recipe, console), console)
    return ((clip, row.padded) for row in rows for clip in row.sample.clips), int(rows.n_clips.sum())


def _manifest_clips(data: list[Path], allow_outside: bool, processor: Any) -> tuple[Iterable[ClipToCache], int]:
    from audiograft.data.manifest import iterate_rows, row_to_sample

    def samples() -> Iterator[Sample]:
        for manifest in data:
            for number, _, row in iterate_rows(manifest):
                yield row_to_sample(row, number, manifest.parent, f"{manifest}:{number}", allow_outside)

    # Read twice rather than kept; so a broken row is told before anything is computed.
    n_clips = sum(len(sample.clips) for sample in samples())
    return ((clip, processor.pad_to_window) for sample in samples() for clip in sample.clips), n_clips


def _fill(work: _Work, dtype: str | None, engine: EngineName, address: str | None, workers: int | None, on_gpus: bool) -> tuple[FeatureCache, Filled]:
    from audiograft.inference.caching import fill_cache, open_cache

    here = engine == "local"
    # The cluster's GPUs are for its workers; here the model only says which tower it has.
    opened = work.open_model(work.device if here else "cpu")
    cache = open_cache(work.out, *opened, work.precision, dtype)
    open_model: OpenModel = (lambda: opened) if here else partial(work.open_model, work.device)
    clips, n_clips = work.clips(opened[1])
    options: dict[str, Any] = {"engine": engine, "address": address, "workers": workers, "on_gpus": on_gpus}
    with progress("caching features", n_clips) as advance:
        return cache, fill_cache(cache, clips, open_model, work.precision, on_clip=advance, **options)


def _report(cache: FeatureCache, done: Filled, wall_s: float, as_json: bool) -> None:
    if as_json:
        report = {
            "folder": str(cache.folder),
            "fingerprint": cache.fingerprint,
            "dtype": cache.dtype,
            "width": cache.width,
            "computed": done.n_computed,
            "known": done.n_known,
            "unusable": [{"audio": path, "reason": reason} for path, reason in done.unusable],
            "computed_audio_s": round(done.duration_s, 3),
            "clips": len(cache),
            "size_bytes": cache.size_bytes,
            "wall_time_s": round(wall_s, 1),
        }
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    typer.echo(f"computed  {done.n_computed} clips, {done.duration_s:.1f} s of audio, in {wall_s:.1f} s")
    typer.echo(f"known     {done.n_known} clips")
    typer.echo(f"unusable  {len(done.unusable)} clips")
    typer.echo(f"cache     {cache.folder}: {len(cache)} clips of this encoder in {cache.dtype}, {cache.size_bytes / 1e6:.1f} MB")
