"""What each stage trains: `align` the projector, `finetune` projector and LoRA. Everything else is frozen."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from audiograft.model import AudioGraftForConditionalGeneration
from audiograft.train.recipe import LoraRecipe, Recipe
from audiograft.types import ConfigError


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters in a stage."""

    projector: int
    lora: int
    frozen: int

    @property
    def trainable(self) -> int:
        return self.projector + self.lora

    def as_dict(self) -> dict[str, int]:
        return asdict(self) | {"trainable": self.trainable}


def prepare_stage(model: AudioGraftForConditionalGeneration, recipe: Recipe) -> ParameterCounts:
    """Freeze what the stage leaves alone and attach LoRA where it trains it. Trainable parameters are put in fp32.

    Raises:
        ConfigError: a LoRA target that no linear layer of the language model has.
    """
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    if recipe.stage == "finetune":
        config = LoraConfig(
            r=recipe.lora.rank,
            lora_alpha=recipe.lora.alpha,  # type: ignore[arg-type]  # PEFT divides by the rank; any number will do
            lora_dropout=recipe.lora.dropout,
            target_modules=_lora_targets(model.language_model, recipe.lora),
        )
        with warnings.catch_warnings():
            # PEFT still asks for a flag by the name that transformers gave up.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
            model.language_model = get_peft_model(model.language_model, config)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for parameter in trained.values():
        parameter.data = parameter.data.to(torch.float32)
    projector = sum(parameter.numel() for parameter in model.projector.parameters())
    trainable = sum(parameter.numel() for parameter in trained.values())
    return ParameterCounts(projector, trainable - projector, model.num_parameters() - trainable)


def _lora_targets(language_model: Any, lora: LoraRecipe) -> list[str]:
    """Full names of the decoder's linear layers that the recipe means; never those of a vision tower that has layers of the same name."""
    decoder = set(language_model.get_decoder().modules())
    linears = [name for name, module in language_model.named_modules() if isinstance(module, nn.Linear) and module in decoder]
    endings = {name.rpartition(".")[2] for name in linears}
    for target in lora.targets:
        if target not in endings:
            raise ConfigError(f"lora.targets: {target} matches no linear layer of the language model, which has {', '.join(sorted(endings))}")
    return [name for name in linears if name.rpartition(".")[2] in lora.targets]


def frozen_parts(model: AudioGraftForConditionalGeneration, recipe: Recipe) -> list[nn.Module]:
    """Parts that stay in evaluation mode during training, so that their dropout is off."""
    return [model.audio_tower] if recipe.stage == "finetune" else [model.audio_tower, model.language_model]


def merge_stage(model: AudioGraftForConditionalGeneration) -> None:
    """Merge LoRA, where there is any, into the language model's weights and leave a plain language model."""
    if isinstance(model.language_model, PeftModel):
        model.language_model = model.language_model.merge_and_unload()
