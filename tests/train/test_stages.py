from __future__ import annotations

from dataclasses import replace

import builders
import pytest
import torch

from audiograft.model import audio_messages
from audiograft.model.lora import lora_modules, merge_lora
from audiograft.train.recipe import LoraRecipe
from audiograft.train.stages import component_linears, frozen_parts, lora_targets, prepare_stage
from audiograft.types import ConfigError


def trainable(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def inputs_for(processor) -> dict[str, torch.Tensor]:
    return dict(processor([processor.build_prompt(audio_messages("Transcribe."))], audio=[builders.tone(0.5)]))


def test_align_trains_the_projector_alone(recipe) -> None:
    model, _ = builders.graft()
    counts = prepare_stage(model, recipe)
    assert trainable(model) == {f"projector.{name}" for name, _ in model.projector.named_parameters()}
    assert counts.trainable == counts.projector == sum(p.numel() for p in model.projector.parameters())
    assert counts.frozen == model.num_parameters() - counts.trainable
    assert frozen_parts(model) == [model.audio_tower, model.language_model]


def test_finetune_adds_lora_to_the_language_model(recipe) -> None:
    model, _ = builders.graft()
    total = model.num_parameters()
    counts = prepare_stage(model, replace(recipe, stage="finetune", lora=LoraRecipe(rank=3, language_model=("q_proj", "down_proj"))))
    adapters = trainable(model) - {f"projector.{name}" for name, _ in model.projector.named_parameters()}
    # Two matrices for each of two targets in each of two layers.
    assert len(adapters) == 8
    assert all(".lora_" in name and name.startswith("language_model.") for name in adapters)
    # q_proj is 32 -> 32, down_proj 64 -> 32.
    assert counts.lora == 2 * 3 * (32 + 32 + 64 + 32)
    assert counts.lora_by_component == {"language_model": counts.lora}
    assert counts.frozen == total - counts.projector
    assert frozen_parts(model) == [model.audio_tower]


def test_each_scope_stays_in_its_component(recipe) -> None:
    model, _ = builders.graft()
    lora = LoraRecipe(rank=2, language_model=("self_attn.q_proj",), audio_tower=("q_proj", "layers.0.fc1"), projector=("linear_2",))
    counts = prepare_stage(model, replace(recipe, stage="finetune", train_projector=False, lora=lora))
    assert set(lora_modules(model)) == {
        *(f"language_model.model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)),
        *(f"audio_tower.layers.{layer}.self_attn.q_proj" for layer in (0, 1)),
        "audio_tower.layers.0.fc1",
        "projector.linear_2",
    }
    # 32 -> 32 twice; 16 -> 16 twice and 16 -> 32; 16 -> 32.
    assert counts.lora_by_component == {"language_model": 2 * 2 * 64, "audio_tower": 2 * (2 * 32 + 48), "projector": 2 * 48}
    assert counts.projector == 0
    assert all(".lora_" in name for name in trainable(model))
    assert frozen_parts(model) == []


def lora_names(lora: LoraRecipe, model=None) -> set[str]:
    return {name.rpartition(".")[2] for name in lora_targets(model or builders.graft()[0], lora)}


def test_groups_name_layers_of_their_component_alone() -> None:
    model, _ = builders.graft()
    attention = lora_targets(model, LoraRecipe(language_model=("attention",)))
    assert set(attention) == set(lora_targets(model, LoraRecipe(language_model=("q_proj", "k_proj", "v_proj", "o_proj"))))
    assert lora_names(LoraRecipe(language_model=("mlp",))) == {"gate_proj", "up_proj", "down_proj"}
    assert lora_names(LoraRecipe(language_model=(), audio_tower=("attention",))) == {"q_proj", "k_proj", "v_proj", "out_proj"}
    assert lora_names(LoraRecipe(language_model=(), audio_tower=("mlp", "q_proj"))) == {"fc1", "fc2", "q_proj"}
    everything = lora_targets(model, LoraRecipe(language_model=("all",), audio_tower=("all",), projector=("all",)))
    assert sorted(everything) == sorted(name for names in component_linears(model).values() for name in names)
    both = LoraRecipe(language_model=("all", "attention"))
    assert lora_targets(model, both) == lora_targets(model, LoraRecipe(language_model=("all",)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_trained_is_in_fp32_and_the_rest_as_it_was(recipe, dtype: torch.dtype) -> None:
    model, _ = builders.graft()
    prepare_stage(model.to(dtype), replace(recipe, stage="finetune"))
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters() if not parameter.requires_grad} == {dtype}


@pytest.mark.parametrize(
    ("lora", "needle"),
    [
        (
            {"language_model": ("v_proj", "qproj")},
            r"lora\.language_model: qproj matches no linear layer of the language model's decoder, which has down_proj, ",
        ),
        ({"language_model": ("proj",)}, r"lora\.language_model: proj matches no linear layer"),
        ({"projector": ("attention",)}, r"lora\.projector: the projector has no linear layer of the group attention, but linear_1, linear_2: "),
        ({"language_model": ("layers.7.self_attn.q_proj",)}, r"layers\.7\.self_attn\.q_proj matches no linear layer"),
        ({"language_model": ("fc1",)}, r"fc1 reaches the audio tower \(audio_tower\.layers\.0\.fc1\), not the .*: list it under lora\.audio_tower"),
        ({"language_model": ("audio_tower.layers.1.self_attn.q_proj",)}, r"q_proj reaches the audio tower"),
        ({"language_model": ("lm_head",)}, r"lm_head reaches another part of the model \(language_model\.lm_head\), not"),
        (
            {"audio_tower": ("down_proj",)},
            r"lora\.audio_tower: down_proj reaches the language model's decoder \(.*list it under lora\.language_model",
        ),
        ({"projector": ("linear",)}, r"lora\.projector: linear matches no linear layer of the projector, which has linear_1, linear_2"),
        ({"language_model": ()}, r"lora: no scope names a layer"),
        ({"rank": 20}, r"lora\.rank 20 exceeds a dimension of language_model\.model\.layers\.0\.self_attn\.k_proj, which is 32 -> 16"),
    ],
)
def test_scopes_that_reach_nothing_or_too_far_are_one_line(recipe, lora: dict[str, object], needle: str) -> None:
    model, _ = builders.graft()
    with pytest.raises(ConfigError, match=needle) as caught:
        prepare_stage(model, replace(recipe, stage="finetune", lora=LoraRecipe(**lora)))
    assert "\n" not in str(caught.value)


def test_lora_stays_out_of_a_vision_tower(recipe) -> None:
    model, _ = builders.graft("qwen2_vl")
    # The vision tower of this family calls its output layer `proj`, and its first feed-forward layer `fc1` as the audio tower does.
    with pytest.raises(ConfigError, match=r"proj reaches another part of the model \(.*visual.*\), not the language model's decoder"):
        lora_targets(model, LoraRecipe(language_model=("proj",)))
    assert len(lora_targets(model, LoraRecipe())) == 2 * 7
    assert not [name for names in component_linears(model).values() for name in names if "visual" in name or name.endswith("lm_head")]
    prepare_stage(model, replace(recipe, stage="finetune"))
    assert not [name for name in trainable(model) if "visual" in name]


@pytest.mark.parametrize("changes", [{}, {"rslora": True}, {"dora": True}])
def test_merged_equals_unmerged(recipe, changes: dict[str, bool]) -> None:
    model, processor = builders.graft()
    names = set(model.state_dict())
    prepare_stage(model, replace(recipe, stage="finetune", lora=LoraRecipe(**changes)))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        inputs = inputs_for(processor)
        before = model(**inputs).logits
        merge_lora(model)
        after = model(**inputs).logits
        plain = builders.graft()[0](**inputs).logits
    assert set(model.state_dict()) == names
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    assert (after - plain).abs().max() > 1e-2
