"""What each stage trains: `align` the projector, `finetune` projector and LoRA. Everything else is frozen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from audiograft.model.gating import gate_lora
from audiograft.model.lora import LoraSettings, inject_lora, is_4bit, is_linear, lora_parameters
from audiograft.model.quantise import decoder, decoder_linears
from audiograft.train.recipe import LoraRecipe, Recipe
from audiograft.types import ConfigError

SCOPES = {"language_model": "the language model's decoder", "audio_tower": "the audio tower", "projector": "the projector"}
"""Scopes of LoRA, with how an error calls them."""
ALL = "all"
"""In a scope: every linear layer of the component."""
GROUPS = {
    "attention": (
        "q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "qkv_proj", "query_key_value", "linear_q", "linear_k", "linear_v", "linear_out", "to_q",
        "to_kv", "to_out", "query", "key", "value",
    ),
    "mlp": ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "intermediate_dense", "output_dense"),
}  # fmt: skip
"""In a scope: those of these layers that the component has. They are named as in Qwen, Llama, Phi, Whisper, WavLM, Wav2Vec2-BERT, Granite Speech."""


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters in a stage; those in 4 bits count as what they stand for."""

    projector: int
    lora: int
    frozen: int
    lora_by_component: dict[str, int] = field(default_factory=dict)

    @property
    def trainable(self) -> int:
        return self.projector + self.lora

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"trainable": self.trainable}


def prepare_stage(model: Any, recipe: Recipe) -> ParameterCounts:
    """Freeze what the stage leaves alone and attach LoRA where it trains it. Trainable parameters are put in fp32.

    Raises:
        ConfigError: a LoRA scope that matches nothing or reaches another component, or a rank that exceeds a dimension.
    """
    total = sum(parameter.numel() for parameter in model.parameters()) + sum(_hidden(module) for module in model.modules())
    model.requires_grad_(False)
    if recipe.stage == "finetune":
        lora = recipe.lora
        inject_lora(model, lora_targets(model, lora), LoraSettings(lora.rank, lora.alpha, lora.dropout, lora.rslora, lora.dora))
        if recipe.lora_gate == "audio":
            gate_lora(model)
    projector = 0
    if recipe.train_projector:
        model.projector.requires_grad_(True)
        projector = sum(parameter.numel() for parameter in model.projector.parameters())
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    adapters = {scope: sum(parameter.numel() for parameter in lora_parameters(getattr(model, scope))) for scope in SCOPES}
    return ParameterCounts(projector, sum(adapters.values()), total - projector, {scope: n for scope, n in adapters.items() if n})


def _hidden(module: nn.Module) -> int:
    """Weights that a 4-bit layer stands for beyond the bytes that it holds."""
    return module.in_features * module.out_features - module.weight.numel() if isinstance(module, nn.Linear) and is_4bit(module) else 0


def component_linears(model: Any) -> dict[str, list[str]]:
    """Full names of the linear layers in each of `SCOPES`."""

    def inside(component: nn.Module) -> list[str]:
        modules = set(component.modules())
        return [name for name, module in model.named_modules() if is_linear(module) and module in modules]

    return {"language_model": list(decoder_linears(model)), "audio_tower": inside(model.audio_tower), "projector": inside(model.projector)}


def lora_targets(model: Any, lora: LoraRecipe) -> list[str]:
    """Full names of the linear layers that the scopes mean, each looked up in its own component alone.

    Raises:
        ConfigError: a name that matches nothing there, with what there is, or one that reaches another component.
    """
    linears = component_linears(model)
    everywhere = {name: scope for scope, names in linears.items() for name in names}
    everywhere |= {name: "" for name, module in model.named_modules() if is_linear(module) and name not in everywhere}
    targets: dict[str, None] = {}
    for scope, own in linears.items():
        for wanted in getattr(lora, scope):
            matched = own if wanted == ALL else [name for name in own if any(_ends(name, member) for member in GROUPS.get(wanted, (wanted,)))]
            if not matched:
                raise _no_match(scope, wanted, own, {name: place for name, place in everywhere.items() if _ends(name, wanted)})
            targets |= dict.fromkeys(matched)
    if not targets:
        raise ConfigError("lora: no scope names a layer: give lora.language_model, lora.audio_tower or lora.projector, or use the stage align")
    return list(targets)


def _ends(name: str, wanted: str) -> bool:
    """Whether a dotted name is `wanted`, or ends in it at a dot."""
    return name == wanted or name.endswith(f".{wanted}")


def _no_match(scope: str, wanted: str, own: list[str], elsewhere: dict[str, str]) -> ConfigError:
    endings = ", ".join(sorted({name.rpartition(".")[2] for name in own})) or "none"
    if wanted in GROUPS:
        return ConfigError(f"lora.{scope}: {SCOPES[scope]} has no linear layer of the group {wanted}, but {endings}: name layers, or {ALL}")
    if elsewhere:
        name, place = next(iter(elsewhere.items()))
        mend = f"list it under lora.{place}" if place else "the head and a vision tower are never adapted; leave it out"
        where = SCOPES.get(place, "another part of the model")
        return ConfigError(f"lora.{scope}: {wanted} reaches {where} ({name}), not {SCOPES[scope]}: {mend}")
    return ConfigError(f"lora.{scope}: {wanted} matches no linear layer of {SCOPES[scope]}, which has {endings}")


def frozen_parts(model: Any) -> list[nn.Module]:
    """Parts that stay in evaluation mode during training, so that their dropout is off: those in which nothing is trained."""
    parts: list[nn.Module] = [model.audio_tower, model.language_model, model.projector]
    return [part for part in parts if not any(parameter.requires_grad for parameter in part.parameters())]


def checkpointed_layers(model: Any) -> list[nn.Module]:
    """The layers of the language model's decoder, whose activations gradient checkpointing computes again."""
    return [module for module in decoder(model).modules() if isinstance(module, GradientCheckpointingLayer)]
