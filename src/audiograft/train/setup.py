"""What a run starts from: the model of the recipe, opened or made, in the precision that it is trained in, and what that takes."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.utils.import_utils import is_flash_attn_2_available

from audiograft.model import AudioGraftConfig, AudioGraftForConditionalGeneration, graft_in_memory, load_model, load_processor
from audiograft.model.adapters import ADAPTER_FILE, COMPONENTS, PROJECTOR_FILE, read_adapter, weight_paths
from audiograft.model.checkpoint import SHIPPED, load_config, one_line, resolve_model
from audiograft.model.gating import for_checkpoint, gate_of
from audiograft.model.graft import graft_processor
from audiograft.model.load import find_adapter
from audiograft.model.lora import lora_modules, merge_lora
from audiograft.model.merge import bases_beneath
from audiograft.model.modeling import language_model_class
from audiograft.model.quantise import finish_nf4, left_alone, nf4_keywords, quantise_in_place, require_bitsandbytes, summarise
from audiograft.model.stock import is_stock
from audiograft.model.stock.families import FAMILIES
from audiograft.model.tensors import TensorFiles
from audiograft.train.gated import require_no_gate, warning_of_change
from audiograft.train.parallel import is_main_process
from audiograft.train.recipe import Recipe
from audiograft.train.stages import SCOPES, ParameterCounts, checkpointed_layers, prepare_stage
from audiograft.types import ConfigError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_TRAINED = ("train.json", "merge.json")
"""Files by which a graft's folder shows that its projector was trained."""


@dataclass(frozen=True)
class Start:
    """A model that is ready to be trained.

    Attributes:
        model: on the CPU, or where its 4-bit weights are.
        processor: its processor.
        base: what adapter.json says about where to find what is not trained.
        attention: implementation that the language model uses.
        quantised: full names of layers in 4 bits.
    """

    model: Any
    processor: Any
    base: dict[str, Any]
    attention: str
    quantised: list[str] = field(default_factory=list)


def open_processor(recipe: Recipe) -> Any:
    """The processor of the recipe's model, without any weights."""
    if recipe.model:
        return load_processor(recipe.model)
    assert recipe.graft is not None
    return graft_processor(recipe.graft.audio_encoder, recipe.graft.language_model, recipe.graft.frame_stack, recipe.graft.pad_to_window)


def open_model(recipe: Recipe, console: Console) -> Start:
    """Open the recipe's model, or make it of its parts.

    Raises:
        ConfigError: it can't be opened or trained as the recipe says, or the output would take the place of another model.
    """
    check_output(recipe)
    require_no_gate(recipe)
    if recipe.quantisation is not None:
        require_bitsandbytes()
        _require_no_lora(recipe)
    dtype = DTYPES[recipe.frozen_precision or recipe.precision]
    model, processor = _load(recipe, dtype)
    _check_start(recipe, model, console)
    if lora_modules(model):
        merge_lora(model)
    quantised: list[str] = []
    if recipe.quantisation is not None:
        quantise_in_place(model, DTYPES[recipe.precision], training_device())
        quantised = finish_nf4(model)
        model.to(training_device())
    _keep_projector(model, recipe, dtype)
    return Start(model, processor, base_of(recipe), _set_attention(model, recipe, dtype), quantised)


def base_of(recipe: Recipe) -> dict[str, Any]:
    """{"model": ...} or {"graft": {...}}, as adapter.json has it."""
    if recipe.model:
        return {"model": recipe.model}
    assert recipe.graft is not None
    return {"graft": asdict(recipe.graft)}


def other_kind(recipe: Recipe) -> list[Path]:
    """What lies in the output folder of a whole model, where the recipe saves an adapter, and the other way round."""
    folder = Path(recipe.output_dir)
    if recipe.save == "adapter":
        found = [*sorted(folder.glob("model*.safetensors*")), folder / "config.json"]
    else:
        found = [folder / name for name in (ADAPTER_FILE, PROJECTOR_FILE, *(f"lora-{component}" for component in COMPONENTS))]
    return [path for path in found if path.exists()]


def training_device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if accelerator is None else torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))


def _load(recipe: Recipe, dtype: torch.dtype) -> tuple[Any, Any]:
    """Weights are quantised as they are read where transformers can do so; what is left in 16 bits here is quantised later, on the CPU."""
    options: dict[str, Any] = {}
    empty = None if recipe.quantisation is None else _empty(recipe)
    if empty is not None:
        options = nf4_keywords(empty, DTYPES[recipe.precision], training_device())
    device = training_device() if options else torch.device("cpu")
    if recipe.model:
        return load_model(recipe.model, device, dtype, lora_dtype=torch.float32, **options)
    assert recipe.graft is not None
    return graft_in_memory(**asdict(recipe.graft), seed=recipe.seed, dtype=dtype, device=device, language_model_options=options)


def check_output(recipe: Recipe) -> None:
    """The run may write over nothing that it starts from, nor beside a model of the other kind that no run wrote.

    Raises:
        ConfigError: it would.
    """
    base, output_dir = base_of(recipe), Path(recipe.output_dir)
    parts = ("model",) if "model" in base else ("audio_encoder", "language_model")
    sources = [str(base.get("graft", base)[part]) for part in parts]
    for source in (*sources, *(bases_beneath(sources[0]) if "model" in base else ())):
        if Path(source).expanduser().resolve() == output_dir.expanduser().resolve():
            raise ConfigError(f"output_dir: {output_dir} is the folder of {source}, which the run starts from: choose another one")
    others = other_kind(recipe)
    if others and not (output_dir / "train.json").is_file():
        raise ConfigError(f"output_dir: {others[0]} is there already, and is not of a run that ended: choose another folder, or remove it")


def _empty(recipe: Recipe) -> Any:
    """What `from_pretrained` will be called on for the recipe's base, without weights; None where that is not known before."""
    base = base_of(recipe)
    while "model" in base and (folder := find_adapter(base["model"])) is not None:
        base = read_adapter(folder).base
    name = base["model"] if "model" in base else base["graft"]["language_model"]
    try:
        config = load_config(name, resolve_model(name))
    except ConfigError:
        return None  # a base that was moved, or a checkpoint of another layout; whoever opens it knows
    with torch.device("meta"):
        if "graft" in base:
            return language_model_class(config).from_config(config)
        if isinstance(config, AudioGraftConfig):
            return AudioGraftForConditionalGeneration(config)
        return FAMILIES[config.model_type].model_class(config) if is_stock(config) else None


def _require_no_lora(recipe: Recipe) -> None:
    """LoRA of an earlier stage would have to be merged into 4-bit weights, which swallow it."""
    folder = find_adapter(recipe.model) if recipe.model else None
    if folder is not None and any(".lora_" in name for name in read_adapter(folder).trained):
        raise ConfigError(
            f"{recipe.model} has LoRA, which can't be merged into 4-bit weights: start from the output of `audiograft merge {recipe.model} --out DIR`"
        )


def _check_start(recipe: Recipe, model: Any, console: Console) -> None:
    """What model and recipe have to agree on."""
    config, stock = model.config, not isinstance(model.config, AudioGraftConfig)
    if stock and recipe.stage == "align":
        raise ConfigError(f"stage: {recipe.model} is a stock {config.model_type} model, whose projector is trained: use stage: finetune")
    if getattr(model, "has_own_adapter", False):
        raise ConfigError(f"model: {recipe.model} comes with LoRA of its own, beside which no other can be trained: choose another model")
    if recipe.feature_cache is not None and not getattr(model, "can_cache", True):
        raise ConfigError(f"feature_cache: the encoder of a stock {config.model_type} model can't be cached: take it out")
    if recipe.model and recipe.graft is not None:
        for key, own in (("projector", "projector_type"), ("frame_stack", "frame_stack"), ("pad_to_window", "pad_to_window")):
            wanted, found = getattr(recipe.graft, key), getattr(config, own, "none")
            if wanted != found:
                raise ConfigError(
                    f"model: {recipe.model} is a checkpoint of another projector: it has {key} {found}, and graft.{key} is {wanted}: correct one"
                )
    if recipe.stage == "finetune" and not stock and is_main_process() and _is_fresh(recipe):
        console.print(f"warning: the projector of {recipe.model or 'graft'} was never aligned: run a recipe with stage: align first", soft_wrap=True)
    if getattr(model, "has_eyes", False) and is_main_process() and (warning := warning_of_change(recipe)):
        console.print(warning, soft_wrap=True, markup=False)


def _is_fresh(recipe: Recipe) -> bool:
    """Whether the projector is as `audiograft graft` made it. Of hub ids and shipped models it is taken for trained."""
    if not recipe.model:
        return True
    folder = Path(recipe.model).expanduser()
    if recipe.model in SHIPPED or not folder.is_dir() or find_adapter(folder) is not None:
        return False
    return not any((folder / name).is_file() for name in _TRAINED) and _is_graft(folder)


def _is_graft(folder: Path) -> bool:
    return (folder / "config.json").is_file() and isinstance(load_config(str(folder), str(folder)), AudioGraftConfig)


def _keep_projector(model: Any, recipe: Recipe, dtype: torch.dtype) -> None:
    """The projector as it is on the disk, where the rest is opened in 16 bits: rounding it between stages would lose what was learnt last."""
    if not recipe.model or not recipe.train_projector or dtype == torch.float32:
        return
    folder = find_adapter(recipe.model)
    paths = weight_paths(recipe.model) if folder is None else [folder / PROJECTOR_FILE]
    paths = [path for path in paths if path.suffix == ".safetensors" and path.is_file()]
    stored = TensorFiles(paths).read_all("projector." if folder is None else "")
    own = model.projector.state_dict()
    if stored.keys() == own.keys():
        model.projector.to(torch.float32).load_state_dict(stored)


def _set_attention(model: Any, recipe: Recipe, dtype: torch.dtype) -> str:
    """Set what the language model's attention is computed by, and say which that is."""
    device = training_device()
    half = dtype != torch.float32 or recipe.precision != "fp32"
    wanted = recipe.attention
    if wanted == "auto":
        wanted = "flash_attention_2" if device.type == "cuda" and half and is_flash_attn_2_available() else "auto"
    elif wanted == "flash_attention_2" and not (device.type == "cuda" and half and is_flash_attn_2_available()):
        raise ConfigError("attention: flash_attention_2 needs a GPU, precision bf16 or fp16, and pip install flash-attn: use auto")
    if wanted != "auto":
        try:
            model.language_model.set_attn_implementation(wanted)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"attention: {wanted} is not possible here ({one_line(error)}): use auto") from error
    implementation: str = model.language_model.config._attn_implementation
    return implementation


def prepare(start: Start, recipe: Recipe, console: Console) -> ParameterCounts:
    """Freeze, adapt, and set up what saves memory and time; prints what trains, what is frozen, and in which precision.

    Raises:
        ConfigError: the recipe's scopes don't fit the model, or it has no layers that can be checkpointed.
    """
    model = start.model
    counts = prepare_stage(model, recipe)
    layers = checkpointed_layers(model)
    if (recipe.gradient_checkpointing or recipe.compile) and not layers:
        key = "gradient_checkpointing" if recipe.gradient_checkpointing else "compile"
        raise ConfigError(f"{key}: {type(model.language_model).__name__} has no decoder layers that support it: take it out")
    if recipe.gradient_checkpointing:
        model.language_model.activation_checkpointing_enable(checkpoint_options(model, recipe))
    if recipe.compile:
        for layer in layers:
            layer.compile()
    for line in describe(start, counts) if is_main_process() else ():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return counts


def checkpoint_options(model: Any, recipe: Recipe) -> dict[str, Any]:
    """For `torch.utils.checkpoint`; compiled layers take the rows of a gate as an input of theirs, and their compiler takes no functions."""
    options: dict[str, Any] = {"use_reentrant": False}
    if gate_of(model) == "audio" and not recipe.compile:
        options["context_fn"] = for_checkpoint
    return options


def describe(start: Start, counts: ParameterCounts) -> list[str]:
    """What trains, what is frozen, and what is in 4 bits, a line each."""
    trained = [f"projector {counts.projector:,}"] if counts.projector else []
    trained += [f"LoRA in {SCOPES[scope]} {number:,}" for scope, number in counts.lora_by_component.items()]
    frozen = sorted({str(p.dtype).removeprefix("torch.") for p in start.model.parameters() if not p.requires_grad and p.is_floating_point()})
    if gate_of(start.model) == "audio":
        trained = [f"{part} (on rows with audio alone)" if SCOPES["language_model"] in part else part for part in trained]
    lines = [
        f"trained, in float32: {', '.join(trained)} parameters",
        f"frozen: {counts.frozen:,} parameters in {' and '.join(frozen)}{' and nf4' if start.quantised else ''}; attention: {start.attention}",
    ]
    if start.quantised:
        others = left_alone(start.model)
        lines.append(
            f"{len(start.quantised)} linear layers of the language model in NF4: {summarise(start.quantised)}; "
            f"not quantised: {', '.join(f'{count} of {place}' for place, count in others.items())}"
        )
    return lines
