from __future__ import annotations

from dataclasses import replace

import builders
import pytest
import torch

from audiograft.train.recipe import LoraRecipe
from audiograft.train.stages import merge_stage, prepare_stage
from audiograft.types import ConfigError


def trainable(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def inputs_for(processor) -> dict[str, torch.Tensor]:
    from audiograft.model import audio_messages

    return dict(processor([processor.build_prompt(audio_messages("Transcribe."))], audio=[builders.tone(0.5)]))


def test_align_trains_the_projector_alone(recipe) -> None:
    model, _ = builders.graft()
    counts = prepare_stage(model, recipe)
    assert trainable(model) == {f"projector.{name}" for name, _ in model.projector.named_parameters()}
    assert counts.trainable == counts.projector == sum(p.numel() for p in model.projector.parameters())
    assert counts.frozen == model.num_parameters() - counts.trainable


def test_finetune_adds_lora_to_the_language_model(recipe) -> None:
    model, _ = builders.graft()
    total = model.num_parameters()
    counts = prepare_stage(model, replace(recipe, stage="finetune", lora=LoraRecipe(rank=3, targets=("q_proj", "down_proj"))))
    adapters = trainable(model) - {f"projector.{name}" for name, _ in model.projector.named_parameters()}
    # Two matrices for each of two targets in each of two layers.
    assert len(adapters) == 8
    assert all(".lora_" in name and name.startswith("language_model.") for name in adapters)
    # q_proj is 32 -> 32, down_proj 64 -> 32.
    assert counts.lora == 2 * 3 * (32 + 32 + 64 + 32)
    assert counts.frozen == total - counts.projector


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_trained_is_in_fp32(recipe, dtype: torch.dtype) -> None:
    model, _ = builders.graft()
    prepare_stage(model.to(dtype), replace(recipe, stage="finetune"))
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}


def test_a_target_that_matches_nothing_is_an_error(recipe) -> None:
    model, _ = builders.graft()
    with pytest.raises(ConfigError, match=r"lora\.targets: qproj matches no linear layer .*, which has down_proj, .*q_proj"):
        prepare_stage(model, replace(recipe, stage="finetune", lora=LoraRecipe(targets=("v_proj", "qproj"))))


def test_lora_stays_out_of_a_vision_tower(recipe) -> None:
    model, _ = builders.graft("qwen2_vl")
    # The vision tower of this family calls its output layer `proj` and its first feed-forward layer `fc1`.
    for name in ("proj", "fc1"):
        with pytest.raises(ConfigError, match=f"{name} matches no linear layer"):
            prepare_stage(model, replace(recipe, stage="finetune", lora=LoraRecipe(targets=(name,))))
    prepare_stage(model, replace(recipe, stage="finetune"))
    assert not [name for name in trainable(model) if "visual" in name]


def test_merged_equals_unmerged(recipe) -> None:
    model, processor = builders.graft()
    kind = type(model.language_model)
    names = set(model.state_dict())
    prepare_stage(model, replace(recipe, stage="finetune"))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        inputs = inputs_for(processor)
        before = model(**inputs).logits
        merge_stage(model)
        after = model(**inputs).logits
        plain = builders.graft()[0](**inputs).logits
    assert type(model.language_model) is kind
    assert set(model.state_dict()) == names
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    assert (after - plain).abs().max() > 1e-2
