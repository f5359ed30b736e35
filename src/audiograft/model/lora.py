"""Low-rank adapters put into a model in place, by PEFT, under full names: the components keep their names, and no wrapper stands around them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from audiograft.types import AudiograftError, ConfigError

if TYPE_CHECKING:  # PEFT takes a second to import where bitsandbytes is installed, so only what has to do with LoRA waits for it
    from peft.tuners.lora import LoraLayer

ADAPTER = "default"
"""PEFT's name of the one adapter that a model has."""


@dataclass(frozen=True)
class LoraSettings:
    """Shape and scale of adapters (Hu et al. 2021, arXiv:2106.09685).

    Attributes:
        rank: of the two matrices.
        alpha: the update is scaled by alpha / rank, or by alpha / sqrt(rank) with rslora.
        dropout: share of the adapter's inputs dropped in training.
        rslora: rank-stabilised scale (Kalajdzievski 2023, arXiv:2312.03732).
        dora: weight-decomposed adapters (Liu et al. 2024, arXiv:2402.09353).
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer that can carry LoRA, in 16, 32 or 4 bits; bitsandbytes' layers are nn.Linear too."""
    return isinstance(module, nn.Linear)


def is_4bit(module: nn.Module) -> bool:
    """Whether a module is bitsandbytes' 4-bit linear layer; needs no bitsandbytes to say no."""
    return isinstance(module, nn.Linear) and type(module).__module__.startswith("bitsandbytes.") and type(module).__name__ == "Linear4bit"


def inject_lora(model: nn.Module, targets: Sequence[str], settings: LoraSettings) -> None:
    """Put adapters, which change nothing yet, into linear layers. All other parameters are frozen, adapters of an earlier call excepted.

    Args:
        model: a graft, a stock model, or a component of one; changed in place.
        targets: full dotted names of its linear layers.
        settings: shape and scale.

    Raises:
        ConfigError: the rank exceeds a dimension of a target.
    """
    for name in targets:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        smallest = min(layer.in_features, layer.out_features)
        if settings.rank > smallest:
            shape = f"{layer.in_features} -> {layer.out_features}"
            raise ConfigError(f"lora.rank {settings.rank} exceeds a dimension of {name}, which is {shape}: use {smallest} or less, or leave it out")
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # PEFT divides by the rank; any number will do
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        target_modules=list(targets),
    )
    before, training = set(lora_modules(model)), {name: model.get_submodule(name).training for name in targets}
    with warnings.catch_warnings():
        # PEFT still asks for a flag by the name that transformers gave up.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        inject_adapter_in_model(config, model, ADAPTER)
    # PEFT leaves its configuration behind, and would take a next component's adapters for a second set.
    del model.peft_config
    reached = set(lora_modules(model)) - before
    if reached != set(targets):
        # PEFT matches ends of names; with full names of one model that can't reach further, and must not.
        raise AudiograftError(f"LoRA reached {sorted(reached ^ set(targets))[0]} against its list of targets: report this with the model's name")
    for name in targets:
        # New modules are in training mode, whose dropout an opened model must not have.
        model.get_submodule(name).train(training[name])


def lora_modules(model: nn.Module) -> dict[str, LoraLayer]:
    """Layers that carry LoRA, by full name."""
    if "peft" not in sys.modules:
        return {}  # whoever put LoRA into a model has imported PEFT
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def lora_settings(layer: LoraLayer) -> LoraSettings:
    """What a layer's adapter was made with, read from the layer itself."""
    dropout = getattr(layer.lora_dropout[ADAPTER], "p", 0.0)
    return LoraSettings(
        layer.r[ADAPTER], float(layer.lora_alpha[ADAPTER]), float(dropout), layer.use_rslora[ADAPTER], ADAPTER in layer.lora_magnitude_vector
    )


def can_merge(model: Any) -> bool:
    """Whether LoRA can be merged in memory without a trace: weights of 32 bits beneath, which nothing else shares and nothing switches off."""
    layers = list(lora_modules(model).values())
    switched = getattr(model, "has_own_adapter", False) or getattr(model, "lora_gate", "always") != "always"
    if not layers or switched or model.get_output_embeddings() in layers:
        return False
    return all(layer.get_base_layer().weight.dtype == torch.float32 for layer in layers)


def merge_lora(model: nn.Module) -> int:
    """Merge all adapters into the weights beneath them, in place, and leave plain layers. A gate is given up: they then act on all rows.

    Returns:
        How many layers had one.

    Raises:
        AudiograftError: a layer's own weights are in 4 bits, which an update would be lost in, or the result is not finite.
    """
    layers = lora_modules(model)
    for name, layer in layers.items():
        if is_4bit(layer.get_base_layer()):
            raise AudiograftError(f"LoRA can't be merged into the 4-bit weights of {name}: open the model without quantisation first")
    for name, layer in layers.items():
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise AudiograftError(f"the adapter of {name} holds a number that is not finite: nothing can be merged") from error
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.get_base_layer())
    vars(model).pop("lora_gate", None)
    return len(layers)


@contextmanager
def lora_disabled(model: nn.Module) -> Iterator[None]:
    """The model without its adapters, inside the block. What is on, and what is trained, is as before afterwards, so that blocks can nest."""
    layers = list(lora_modules(model).values())
    on = [not layer.disable_adapters for layer in layers]
    trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer, was_on in zip(layers, on, strict=True):
            layer.enable_adapters(was_on)
        for parameter, requires_grad in trained.items():
            parameter.requires_grad_(requires_grad)


def lora_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The adapters' own parameters, those of the layers beneath them left out."""
    found: dict[int, nn.Parameter] = {}
    for layer in lora_modules(model).values():
        assert isinstance(layer, nn.Module)
        beneath = {id(parameter) for parameter in layer.get_base_layer().parameters()}
        found |= {id(parameter): parameter for parameter in layer.parameters() if id(parameter) not in beneath}
    return list(found.values())
