"""Opening stock audio language models."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GraniteSpeechConfig

from audiograft.model.checkpoint import check_keys, load_config, load_part, loading
from audiograft.model.stock.families import FAMILIES
from audiograft.model.stock.modeling import StockAudioModel
from audiograft.model.stock.processing import StockProcessor
from audiograft.types import ConfigError

_WITHOUT_ADAPTER = {"subfolder": "no-adapter"}
"""Where transformers is told to look for an adapter, so that it loads the base alone: its own way would forget which base tensors are missing."""


def is_stock(config: Any) -> bool:
    """Whether a configuration is that of a stock audio language model that can be opened as it is."""
    return getattr(config, "model_type", None) in FAMILIES


def load_stock(
    name: str, path: str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, **kwargs: Any
) -> tuple[StockAudioModel, StockProcessor]:
    """Open a stock audio language model and its processor.

    Args:
        name: as the user gave it, for messages.
        path: folder or hub id.
        device: where the weights go.
        dtype: of the weights in memory.
        **kwargs: for `from_pretrained`: quantization_config, attn_implementation and the like.

    Raises:
        ConfigError: another kind of model, damaged, or a tensor is missing, extra or of another shape.
    """
    config = load_config(name, path)
    if not is_stock(config):
        raise ConfigError(f"{name} is a {config.model_type} model: the audio language models that open as they are: {', '.join(FAMILIES)}")
    family = FAMILIES[config.model_type]
    with loading(f"the processor of {name}", path):
        processor = StockProcessor.from_pretrained(path)
    stock = load_part(family.model_class, name, path, dtype=dtype, adapter_kwargs=_WITHOUT_ADAPTER, **kwargs)
    if isinstance(config, GraniteSpeechConfig) and config.has_lora_adapter:
        with loading(f"the adapter of {name} (config.json says has_lora_adapter)", path):
            info = stock.load_adapter(path)
        check_keys(f"the adapter of {name}", info.to_dict())
    # Like a graft's: an answer ends where its turn does, whatever the checkpoint's own list has.
    ends = stock.generation_config.eos_token_id
    turn_end = processor.tokenizer.convert_tokens_to_ids(processor.end_of_turn)
    stock.generation_config.eos_token_id = sorted({*(ends if isinstance(ends, list) else [ends]), turn_end} - {None})
    if stock.generation_config.pad_token_id is None:
        stock.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return StockAudioModel(stock, family, processor.spec).to(device).eval(), processor
