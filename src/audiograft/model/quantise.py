"""NF4: the linear layers of the language model's decoder in 4 bits with double quantisation (QLoRA, Dettmers et al. 2023, arXiv:2305.14314).

transformers takes a list of what to leave alone, matches it by endings and regular expressions, and drops its own default for the head as soon as
a list is given. Here the list is made of full names, from the model itself, and what came of it is checked layer by layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from audiograft.model.lora import is_4bit, is_linear
from audiograft.types import AudiograftError, ConfigError

_BITS = "nf4"


def require_bitsandbytes() -> None:
    """Raise `ConfigError` where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise ConfigError("quantisation: nf4 needs bitsandbytes: pip install bitsandbytes")


def decoder(model: Any) -> Any:
    """The language model's decoder, without head and without eyes.

    Args:
        model: a graft, a stock audio language model, or a language model alone.
    """
    found: Any = getattr(model, "language_model", model)
    while (inner := found.get_decoder()) is not found:
        found = inner
    return found


def decoder_linears(model: Any) -> dict[str, nn.Linear]:
    """Linear layers of the language model's decoder by full name: neither its head nor a vision tower, whatever they are called.

    Args:
        model: a graft, a stock audio language model, or a language model alone.
    """
    head = model.get_output_embeddings()
    inside = set(decoder(model).modules())
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer in inside and layer is not head}


def nf4_keywords(empty_model: Any, compute_dtype: torch.dtype, device: torch.device | str) -> dict[str, Any]:
    """Keywords of `from_pretrained` that quantise each weight as it is read, so that the whole is never in memory in 16 bits.

    Args:
        empty_model: the model on the meta device, which says what there is.
        compute_dtype: that the products are computed in.
        device: where the weights go; they have to be quantised there.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    require_bitsandbytes()
    wanted = decoder_linears(empty_model)
    others = [name for name, module in empty_model.named_modules() if is_linear(module) and name not in wanted]
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=_BITS,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        # Regular expressions to transformers. An empty list would be taken for none given.
        llm_int8_skip_modules=[re.escape(name) for name in others] or ["nothing is left alone"],
    )
    return {"quantization_config": config, "device_map": {"": str(device)}}


def quantise_in_place(model: Any, compute_dtype: torch.dtype, device: torch.device | str) -> None:
    """Quantise a model that is in memory, layer by layer: the device holds the 4-bit weights and no more than one layer in 16 bits.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    require_bitsandbytes()
    import bitsandbytes

    modules: Any = bitsandbytes.nn
    for name, layer in decoder_linears(model).items():
        if is_4bit(layer):
            continue
        with torch.device("meta"):
            small = modules.Linear4bit(
                layer.in_features, layer.out_features, layer.bias is not None, compute_dtype, compress_statistics=True, quant_type=_BITS
            )
        weight = modules.Params4bit(layer.weight.data, requires_grad=False, compress_statistics=True, quant_type=_BITS, module=small)
        small.weight = weight.to(device)
        small.bias = None if layer.bias is None else nn.Parameter(layer.bias.data.to(device), requires_grad=False)
        model.set_submodule(name, small.train(layer.training))
        # The list still holds the layer.
        layer.weight.data = torch.empty(0)


def finish_nf4(model: Any) -> list[str]:
    """Make a freshly quantised model fit for training, and check what was quantised.

    transformers' own marks are taken off: they stand in the way of moving, training and saving a model whose trained parts are in 32 bits.

    Returns:
        Full names of the quantised layers.

    Raises:
        AudiograftError: a layer outside the language model's decoder is in 4 bits, or none is.
    """
    for module in model.modules():
        for mark in ("hf_quantizer", "quantization_method", "is_quantized", "is_loaded_in_4bit", "hf_device_map"):
            module.__dict__.pop(mark, None)
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "quantization_config"):
            del config.quantization_config
        if is_4bit(module):
            # On CPUs with AVX512-BF16, bitsandbytes packs the weights of a layer in evaluation mode for good, and can't train with them afterwards.
            module.support_avx512bf16_for_cpu = False
    allowed, found = decoder_linears(model), quantised_modules(model)
    outside = [name for name in found if name not in allowed]
    if outside:
        raise AudiograftError(f"{outside[0]} was quantised, which is outside the language model's decoder: report this with the model's name")
    if not found:
        raise AudiograftError("nothing was quantised: the language model's decoder has no plain linear layers; leave quantisation out")
    return found


def quantised_modules(model: nn.Module) -> list[str]:
    """Full names of the layers that are in 4 bits; of one with LoRA, without `.base_layer`."""
    return [name.removesuffix(".base_layer") for name, module in model.named_modules() if is_4bit(module)]


def left_alone(model: Any) -> dict[str, int]:
    """Numbers of linear layers that are not in 4 bits, by component."""
    head = model.get_output_embeddings()
    parts = {"the audio tower": set(model.audio_tower.modules()), "the projector": set(model.projector.modules())}
    parts |= {"the head": {head}, "the decoder": set(decoder(model).modules())}
    counts: dict[str, int] = {}
    for name, module in model.named_modules():
        if is_linear(module) and not is_4bit(module) and ".lora_" not in name:
            place = next((part for part, modules in parts.items() if module in modules), "the vision tower and other parts")
            counts[place] = counts.get(place, 0) + 1
    return counts


def summarise(names: Iterable[str]) -> str:
    """Names of layers in few words: `layers.0-27.self_attn.{k_proj, q_proj}`, and so on."""
    numbers: dict[str, set[int]] = {}
    for name in names:
        pattern = re.sub(r"(?<=\.)\d+(?=\.|$)", "#", name)
        found = re.search(r"(?<=\.)\d+(?=\.|$)", name)
        numbers.setdefault(pattern, set()).update([int(found.group())] if found else [])
    grouped: dict[tuple[str, str], list[str]] = {}
    for pattern, counted in numbers.items():
        parent, _, last = pattern.rpartition(".")
        grouped.setdefault((parent, _spans(sorted(counted))), []).append(last)
    parts = []
    for (parent, spans), lasts in grouped.items():
        own = lasts[0] if len(lasts) == 1 else "{" + ", ".join(lasts) + "}"
        parts.append(f"{parent}.{own}".lstrip(".").replace("#", spans, 1))
    return ", ".join(parts)


def _spans(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 5] -> 0-2+5."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return "+".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
