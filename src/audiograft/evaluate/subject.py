"""What the self-test tests: a recipe's model or a model, opened, with what its language model says by itself."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor
from transformers import AutoConfig

from audiograft.messages import audio_messages
from audiograft.model import load_model, load_processor
from audiograft.model.adapters import read_adapter
from audiograft.model.checkpoint import load_part, resolve_model
from audiograft.model.load import Bases, find_adapter, locate_bases
from audiograft.model.modeling import language_model_class
from audiograft.model.published.system_b import find_system_b, system_b_sources
from audiograft.train.recipe import Recipe, load_recipe
from audiograft.train.setup import DTYPES, Start, open_model, open_processor, training_device
from audiograft.types import ConfigError

_TEXT = "Name three rivers of Europe."


@dataclass
class Subject:
    """What is tested.

    Attributes:
        model: opened, in evaluation mode.
        processor: its processor.
        name: what it was opened as.
        recipe: and its file, where a recipe was named.
        is_start: whether the model is the recipe's start, not trained by it yet.
        source_text: (positions, vocabulary) logits of the language model opened by itself from where it comes from, where that is known.
        source: where it comes from.
    """

    model: Any
    processor: Any
    name: str
    recipe: Recipe | None = None
    recipe_file: Path | None = None
    overrides: Sequence[str] = ()
    is_start: bool = False
    source_text: Tensor | None = None
    source: str | None = None


def open_subject(target: str, overrides: Sequence[str], device: torch.device, dtype: torch.dtype) -> Subject:
    """Open a recipe's model (what it trained, or else what it starts from), or a model.

    Raises:
        ConfigError: it can't be opened.
    """
    path = Path(target)
    if path.suffix not in (".yaml", ".yml"):
        if overrides:
            raise ConfigError(f"--set is for recipes, and {target} is none: leave it out")
        return _open_model(target, device, dtype)
    recipe = load_recipe(path, overrides)
    if (Path(recipe.output_dir) / "train.json").is_file():
        subject = _open_model(recipe.output_dir, device, dtype)
        return replace(subject, recipe=recipe, recipe_file=path, overrides=overrides)
    source = None
    if recipe.quantisation is None:
        source = _language_model_source(recipe.model) if recipe.model else getattr(recipe.graft, "language_model", None)
    # In the precision that the recipe trains in, not in the one that was asked for.
    logits = (
        None
        if source is None
        else _source_logits(source, open_processor(recipe), training_device(), DTYPES[recipe.frozen_precision or recipe.precision])
    )
    start: Start = open_model(recipe, Console(stderr=True, quiet=True))
    model = start.model.to(training_device()).eval()
    name = recipe.model or "the parts of its graft, with a fresh projector"
    return Subject(model, start.processor, name, recipe, path, overrides, True, logits, source)


def _open_model(name: str, device: torch.device, dtype: torch.dtype) -> Subject:
    source = _language_model_source(name)
    logits = None if source is None else _source_logits(source, load_processor(name), device, dtype)
    model, processor = load_model(name, device, dtype)
    return Subject(model, processor, name, source_text=logits, source=source)


def _language_model_source(name: str) -> str | None:
    """Where a model's language model comes from unchanged; None where that is not known, or LoRA was merged into it."""
    if find_system_b(name) is not None:
        return system_b_sources(name)["language_model"]
    folder = find_adapter(name)
    if folder is None:
        return None
    adapter = read_adapter(folder)
    base = locate_bases(folder, adapter, Bases())
    if "model" not in base:
        return base["language_model"]
    # LoRA of a base is merged when it is opened.
    inner = find_adapter(base["model"])
    merged = inner is None or any(".lora_" in name for name in read_adapter(inner).trained)
    return None if merged else _language_model_source(base["model"])


def text_ids(processor: Any) -> Tensor:
    """(1, positions) of a prompt without audio."""
    ids = processor.tokenizer(processor.build_prompt(audio_messages(_TEXT, 0)), add_special_tokens=False)["input_ids"]
    return torch.tensor([ids])


def _source_logits(source: str, processor: Any, device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """Logits of a language model opened by itself, which is let go before the graft is opened: both need not fit into memory together.

    The prompt is the graft's own, since systems differ in how they write one.
    """
    path = resolve_model(source)
    model = load_part(language_model_class(AutoConfig.from_pretrained(path)), source, path, dtype=dtype).to(device).eval()
    ids = text_ids(processor)
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids.to(device), attention_mask=torch.ones_like(ids).to(device)).logits.float().cpu()
    del model
    gc.collect()
    return logits
