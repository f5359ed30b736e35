from __future__ import annotations

import builders
import pytest
import torch

from audiograft.model import audio_messages
from audiograft.model.lora import LoraSettings, can_merge, inject_lora, lora_disabled, lora_modules, lora_parameters, lora_settings, merge_lora
from audiograft.types import AudiograftError, ConfigError

DECODER = [f"language_model.model.layers.{layer}.{name}" for layer in (0, 1) for name in ("self_attn.q_proj", "mlp.down_proj")]


def disturb(model) -> None:
    """Adapters that change something: a fresh one has a second matrix of zeros."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


@torch.no_grad()
def logits(model, processor) -> torch.Tensor:
    inputs = processor([processor.build_prompt(audio_messages("Transcribe."))], audio=[builders.tone(0.5)])
    return model(**inputs).logits


@pytest.mark.parametrize("settings", [LoraSettings(3, 6.0), LoraSettings(3, 6.0, rslora=True), LoraSettings(2, 5.0, 0.1, dora=True)])
def test_put_in_disabled_and_merged(settings: LoraSettings) -> None:
    model, processor = builders.graft()
    plain, names = logits(model, processor), set(model.state_dict())
    kind = type(model.language_model)
    inject_lora(model, [*DECODER, "audio_tower.layers.0.self_attn.k_proj", "projector.linear_1"], settings)
    assert set(lora_modules(model)) == {*DECODER, "audio_tower.layers.0.self_attn.k_proj", "projector.linear_1"}
    assert type(model.language_model) is kind
    assert {lora_settings(layer) for layer in lora_modules(model).values()} == {settings}
    torch.testing.assert_close(logits(model, processor), plain, atol=1e-5, rtol=1e-4)
    disturb(model)
    changed = logits(model, processor)
    assert (changed - plain).abs().max() > 1e-3
    with lora_disabled(model):
        assert torch.equal(logits(model, processor), plain)
    assert torch.equal(logits(model, processor), changed)
    assert merge_lora(model) == len(DECODER) + 2
    assert set(model.state_dict()) == names
    assert not lora_modules(model)
    torch.testing.assert_close(logits(model, processor), changed, atol=1e-5, rtol=1e-4)


def test_components_can_have_adapters_of_their_own() -> None:
    model, _ = builders.graft()
    inject_lora(model, DECODER, LoraSettings(2, 4.0))
    inject_lora(model, ["audio_tower.layers.1.fc1"], LoraSettings(3, 9.0, rslora=True))
    made_with = {name: lora_settings(layer) for name, layer in lora_modules(model).items()}
    assert made_with == dict.fromkeys(DECODER, LoraSettings(2, 4.0)) | {"audio_tower.layers.1.fc1": LoraSettings(3, 9.0, rslora=True)}
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        f"{name}.lora_{matrix}.default.weight" for name in made_with for matrix in "AB"
    }


def test_what_is_trained_is_as_before_after_disabling() -> None:
    model, _ = builders.graft()
    inject_lora(model, DECODER, LoraSettings(2, 4.0))
    frozen, *trained = lora_parameters(model)
    frozen.requires_grad_(False)
    with lora_disabled(model):
        pass
    assert not frozen.requires_grad
    assert all(parameter.requires_grad for parameter in trained)


def test_a_rank_above_a_dimension_is_refused() -> None:
    model, _ = builders.graft()
    with pytest.raises(ConfigError, match=r"lora\.rank 17 exceeds a dimension of audio_tower\.layers\.0\.fc1, which is 16 -> 32: use 16 or less"):
        inject_lora(model, ["audio_tower.layers.0.fc1"], LoraSettings(17, 1.0))
    assert not lora_modules(model)


def test_adapters_that_are_not_finite_are_not_merged() -> None:
    model, _ = builders.graft()
    inject_lora(model, DECODER, LoraSettings(2, 4.0))
    lora_parameters(model)[0].data.fill_(torch.nan)
    with pytest.raises(AudiograftError, match=r"the adapter of language_model\.model\.layers\.0.*not finite") as caught:
        merge_lora(model)
    assert "\n" not in str(caught.value)


def test_blocks_without_adapters_can_nest() -> None:
    model, _ = builders.graft("qwen2")
    inject_lora(model, DECODER, LoraSettings(2, 4.0))
    disturb(model)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        adapted = model(ids).logits
        with lora_disabled(model):
            plain = model(ids).logits
            with lora_disabled(model):
                pass
            assert torch.equal(model(ids).logits, plain)
        assert torch.equal(model(ids).logits, adapted)
    assert not torch.equal(plain, adapted)


def test_what_can_be_merged_in_memory_without_a_trace() -> None:
    model, _ = builders.graft()
    assert not can_merge(model)  # nothing to merge
    inject_lora(model, DECODER, LoraSettings(2, 4.0))
    assert can_merge(model)
    model.has_own_adapter = True  # switched off where there is no audio
    assert not can_merge(model)
    model.has_own_adapter = False
    assert not can_merge(model.to(torch.bfloat16))  # each merged weight would be rounded
    tied, _ = builders.graft()
    inject_lora(tied, ["language_model.lm_head"], LoraSettings(2, 4.0))
    assert not can_merge(tied)  # the embedding may be the same tensor
