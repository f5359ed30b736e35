"""The plan of a recipe, or of a folder of recipes, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audiograft.model import AudioGraftConfig
from audiograft.model.adapters import ADAPTER_FILE, read_adapter
from audiograft.model.checkpoint import SHIPPED
from audiograft.model.stock import is_stock
from audiograft.train.gated import gate_in, gives_gate_up
from audiograft.train.plan import memory
from audiograft.train.plan.anatomy import PLACEHOLDER, Anatomy, count
from audiograft.train.plan.backbones import find_config
from audiograft.train.plan.eyes import find_eyes
from audiograft.train.plan.flops import example_flops
from audiograft.train.plan.gpus import Gpu
from audiograft.train.plan.workload import ASSUMED_PROMPT_TOKENS, Workload, assume, read
from audiograft.train.recipe import GraftRecipe, Recipe, finetunes_alone, load_recipe
from audiograft.types import WINDOW_S, ConfigError

STAGES = ("align", "finetune")
_HOUR_S = 3600
_AUDIO_H = 1000
_USABLE = 0.93
"""Of a GPU's memory: error correction and the driver take the rest (an L4 of 24 GiB shows 22.5)."""


@dataclass(frozen=True)
class Options:
    """How a plan is made.

    Attributes:
        gpus: for which times are given.
        mfu: model FLOPs utilisation: the share of a GPU's dense bf16 products that training gets out of it.
        manifests: that are trained on; the recipe's own, where they exist, if empty.
        clip_s: length of the assumed clips, where there is no manifest.
        on_row: called after each row of a manifest.
    """

    gpus: Sequence[Gpu]
    mfu: float = 0.4
    manifests: Sequence[str] = ()
    clip_s: float | None = None
    on_row: Callable[[], None] = lambda: None


def plan_recipe(path: Path, overrides: Sequence[str], options: Options) -> dict[str, Any]:
    """Everything about one stage, by the keys that `audiograft plan --json` prints.

    Raises:
        ConfigError: the recipe, or a backbone whose dimensions are not known here.
        DataError: a manifest that can't be used.
    """
    recipe = load_recipe(path, overrides)
    config, source, is_new = _find_model(recipe, str(path))
    anatomy = count(config, recipe, is_new)
    manifests = [(name, 1.0) for name in options.manifests] or [
        (corpus.manifest, corpus.weight) for corpus in recipe.data.corpora if corpus.manifest is not None and Path(corpus.manifest).exists()
    ]
    # Some of a recipe's manifests would be the cost of another run.
    complete = bool(options.manifests) or len(manifests) == len(recipe.data.train)
    eyes = find_eyes(config, source)
    workload = read(anatomy, recipe, manifests, eyes, options.on_row) if complete else assume(anatomy, recipe, options.clip_s)
    plan = {"recipe": str(path), "stage": recipe.stage, "model": source, "has_eyes": eyes is not None}
    plan |= {"lora_gate": gate_in(recipe), "gate_given_up": gives_gate_up(recipe)}
    return plan | _sizes(anatomy) | _memory(anatomy, recipe, workload) | _cost(anatomy, recipe, workload, options)


def plan_folder(folder: Path, overrides: Sequence[str], options: Options) -> dict[str, Any]:
    """All stages of a folder, in order: the last one's keys, with `stages` and their `total`.

    An override that the stage finetune alone reads is for that stage, where the folder has it.

    Raises:
        ConfigError: no recipe in the folder, or as in `plan_recipe`.
        DataError: as in `plan_recipe`.
    """
    paths = sorted((path for path in folder.glob("*.yaml") if path.stem in STAGES), key=lambda path: STAGES.index(path.stem))
    if not paths:
        raise ConfigError(f"{folder}: no recipe here: name a folder with align.yaml or finetune.yaml, or a recipe")
    for_all = [override for override in overrides if not finetunes_alone(override)]
    stages = [plan_recipe(path, for_all if path.stem == "align" and len(paths) > 1 else overrides, options) for path in paths]
    total: dict[str, Any] = {"train_memory_bytes": max(stage["train_memory_bytes"] for stage in stages)}
    for key in ("run_flops", "flops_per_1000_h"):
        known = [stage[key] for stage in stages if stage[key] is not None]
        total[key] = sum(known) if len(known) == len(stages) else None
    total["gpus"] = [
        _time(gpu, options.mfu, None, total["flops_per_1000_h"], total["run_flops"]) | {"fits": _fits(gpu, total["train_memory_bytes"])}
        for gpu in options.gpus
    ]
    return stages[-1] | {"recipe": str(folder), "stages": stages, "total": total}


def _find_model(recipe: Recipe, source: str) -> tuple[Any, dict[str, Any], bool]:
    """Configuration of the recipe's model, what it is made of, and whether the recipe makes its projector."""
    if recipe.model is not None and (recipe.graft is None or _is_here(recipe.model)):
        if recipe.graft is None and not _is_here(recipe.model) and recipe.model.count("/") != 1:
            raise ConfigError(f"{source}: model: {recipe.model} is not there yet: run the stage before it, or say in graft what it is made of")
        return *_open(recipe.model), False
    assert recipe.graft is not None  # load_recipe asks for one of the two
    return _graft_config(recipe.graft), _named(recipe.graft), recipe.model is None


def _is_here(name: str) -> bool:
    return name in SHIPPED or Path(name).expanduser().exists()


def _open(name: str) -> tuple[Any, dict[str, Any]]:
    """Configuration of a model that is a folder, ships, or is named by a hub id; an adapter leads to its base."""
    folder = Path(name).expanduser()
    if (folder / ADAPTER_FILE).is_file():
        base = read_adapter(folder).base
        if "model" in base:
            return _open(base["model"])
        graft = GraftRecipe(**base["graft"])
        return _graft_config(graft), _named(graft)
    config = find_config(name, "model")
    if not (isinstance(config, AudioGraftConfig) or is_stock(config)):
        raise ConfigError(f"model: {name} is a {config.model_type} model without ears: give a graft section with an audio_encoder in place of model")
    return config, {"model": name}


def _named(graft: GraftRecipe) -> dict[str, Any]:
    keys = ("audio_encoder", "language_model", "projector", "frame_stack", "pad_to_window")
    return {key: getattr(graft, key) for key in keys}


def _graft_config(graft: GraftRecipe) -> AudioGraftConfig:
    return AudioGraftConfig(
        audio_config=find_config(graft.audio_encoder, "graft.audio_encoder"),
        text_config=find_config(graft.language_model, "graft.language_model"),
        projector_type=graft.projector,
        frame_stack=graft.frame_stack,
        pad_to_window=graft.pad_to_window,
        audio_token_id=PLACEHOLDER,
    )


def _sizes(anatomy: Anatomy) -> dict[str, Any]:
    return {
        "components": anatomy.params,
        "total_params": anatomy.total_params,
        "projector_params": anatomy.params["projector"],
        "lora_params": anatomy.lora_params,
        "lora_params_by_scope": {scope: lora.params for scope, lora in anatomy.lora.items()},
        "lora_targets_by_scope": {scope: lora.targets for scope, lora in anatomy.lora.items()},
        "trainable_params": anatomy.trainable_params,
        "checkpoint_tensors": anatomy.tensors,
        "audio_tokens_per_30s": anatomy.tokens_per_window,
        "ms_per_audio_token": WINDOW_S * 1000 / anatomy.tokens_per_window,
    }


def _memory(anatomy: Anatomy, recipe: Recipe, workload: Workload) -> dict[str, Any]:
    train = memory.train_memory(anatomy, recipe, workload.batch)
    infer = memory.infer_memory(anatomy, ASSUMED_PROMPT_TOKENS)
    infer_nf4 = memory.infer_memory(anatomy, ASSUMED_PROMPT_TOKENS, nf4=True)
    return {
        "adapter_bytes": memory.adapter_bytes(anatomy),
        "checkpoint_bytes": 2 * anatomy.total_params,
        "train_memory_bytes": memory.total(train),
        "train_memory": _rounded(train),
        "infer_memory_bytes": memory.total(infer),
        "infer_memory": _rounded(infer),
        "infer_memory_nf4_bytes": memory.total(infer_nf4),
        "infer_memory_nf4": _rounded(infer_nf4),
    }


def _rounded(terms: dict[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in terms.items()}


def _cost(anatomy: Anatomy, recipe: Recipe, workload: Workload, options: Options) -> dict[str, Any]:
    examples = workload.examples
    all_terms = [example_flops(anatomy, recipe, example) for example in examples]
    mean = {name: sum(terms[name] for terms in all_terms) / len(examples) for name in all_terms[0]}
    per_example = sum(mean.values())
    audio_s = sum(example.audio_s for example in examples) / len(examples)
    per_step = per_example * workload.rows_per_step
    run = None if workload.steps is None else per_step * workload.steps
    per_1000_h = per_example / audio_s * _AUDIO_H * _HOUR_S if audio_s else None
    train_bytes = memory.total(memory.train_memory(anatomy, recipe, workload.batch))
    return {
        "workload": workload.source,
        "rows_left_out": workload.n_left_out,
        "positions_per_example": round(sum(example.positions for example in examples) / len(examples), 1),
        "picture_tokens_per_example": round(sum(example.picture_tokens for example in examples) / len(examples), 1),
        "longest_example_positions": max(example.positions for example in examples),
        "audio_s_per_example": round(audio_s, 3),
        "rows_per_step": round(workload.rows_per_step, 2),
        "positions_per_batch": workload.batch.positions,
        "steps": workload.steps,
        "flops_per_example": _rounded(mean),
        "flops_per_step": round(per_step),
        "flops_per_1000_h": per_1000_h,
        "run_flops": run,
        "mfu": options.mfu,
        "gpus": [_time(gpu, options.mfu, per_step, per_1000_h, run) | {"fits": _fits(gpu, train_bytes)} for gpu in options.gpus],
    }


def _fits(gpu: Gpu, n_bytes: int) -> bool:
    return n_bytes <= _USABLE * gpu.memory_bytes


def _time(gpu: Gpu, mfu: float, per_step: float | None, per_1000_h: float | None, run: float | None) -> dict[str, Any]:
    """Times on a GPU; wall time is that of one of them, of n it is an n-th at best."""
    speed = gpu.bf16_flops * mfu

    def hours(flops: float | None) -> float | None:
        return None if flops is None else flops / speed / _HOUR_S

    return {
        "name": gpu.name,
        "memory_bytes": gpu.memory_bytes,
        "bf16_flops_per_s": gpu.bf16_flops,
        "step_s": None if per_step is None else per_step / speed,
        "gpu_hours": hours(run),
        "wall_time_h": hours(run),
        "wall_time_8_gpus_h": None if run is None else run / speed / _HOUR_S / 8,
        "gpu_hours_per_1000_h": hours(per_1000_h),
    }
