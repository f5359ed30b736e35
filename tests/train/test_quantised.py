"""NF4 on the CPU: what is in 4 bits, that it trains, and what is left on the disk."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import builders
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from audiograft.model import audio_messages, load_model
from audiograft.model import merge as merging
from audiograft.model import quantise as quantise_module
from audiograft.model.lora import is_4bit, lora_modules
from audiograft.model.quantise import finish_nf4, quantise_in_place, quantised_modules, summarise
from audiograft.train.recipe import LoraRecipe
from audiograft.train.run import train
from audiograft.types import AudiograftError, ConfigError

LAYERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
DECODER = {f"language_model.model.layers.{layer}.{name}" for layer in (0, 1) for name in LAYERS}


@pytest.fixture
def quantised(recipe):
    changes = {"learning_rate": 1e-2, "max_steps": 30, "tokens_per_batch": 400, "save_steps": 1000, "save": "adapter"}
    return replace(recipe, stage="finetune", quantisation="nf4", lora=LoraRecipe(rank=4), **changes)


@torch.no_grad()
def logits(model, processor) -> torch.Tensor:
    inputs = processor([processor.build_prompt(audio_messages("Transcribe."))], audio=[builders.tone(0.5)])
    return model(**inputs).logits.float()


def test_trains_and_what_is_saved_is_what_was_trained(quantised) -> None:
    page = io.StringIO()
    result = train(quantised, console=Console(file=page, width=140))
    losses = [line["loss"] for line in result["log"] if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    assert set(result["quantised"]) == DECODER
    # 4-bit weights count as what they stand for.
    whole, _ = load_model(quantised.model)
    assert result["parameters"]["frozen"] == whole.num_parameters() - result["parameters"]["projector"]
    printed = page.getvalue()
    assert "14 linear layers of the language model in NF4: language_model.model.layers.0-1.self_attn.{q_proj, k_proj, v_proj, o_proj}, " in printed
    assert "not quantised: 12 of the audio tower, 2 of the projector, 1 of the head" in printed
    folder = Path(quantised.output_dir)
    stored = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    assert set(stored["quantised"]) == DECODER
    assert not (folder / "model.safetensors").exists()
    model, _ = load_model(folder)
    assert set(lora_modules(model)) == DECODER
    assert not quantised_modules(model)


def test_merged_goes_into_the_base_as_it_was(quantised) -> None:
    adapter = replace(quantised, max_steps=3, output_dir=f"{quantised.output_dir}-adapter")
    train(adapter, console=Console(quiet=True))
    page = io.StringIO()
    train(replace(adapter, save="merged", output_dir=quantised.output_dir), console=Console(file=page, width=140))
    assert "merged 14 layers" in page.getvalue()
    whole, unmerged = load_model(quantised.output_dir), load_model(adapter.output_dir)
    assert not lora_modules(whole[0])
    torch.testing.assert_close(logits(*whole), logits(*unmerged), atol=1e-4, rtol=1e-4)
    base, merged = (load_file(Path(folder) / "model.safetensors") for folder in (quantised.model, quantised.output_dir))
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {f"{name}.weight" for name in DECODER} | {name for name in base if name.startswith("projector.")}


def test_what_was_merged_is_compared_and_not_an_adapter_of_an_earlier_run(quantised) -> None:
    folder = Path(quantised.output_dir)
    train(replace(quantised, max_steps=2), console=Console(quiet=True))
    result = train(replace(quantised, max_steps=2, save="merged", save_dtype="fp16"), console=Console(quiet=True))
    assert not result["merge_failed"]
    assert not [path.name for path in folder.iterdir() if path.name.startswith(("adapter", "lora-", "projector"))]
    # Weights in 16 bits can't say quite the same as an adapter on the base; the adapter of before would, compared with itself.
    assert json.loads((folder / "merge.json").read_text(encoding="utf-8"))["max_abs_logit_difference"] > 0


def test_an_adapter_that_can_not_be_merged_is_kept(quantised, monkeypatch) -> None:
    monkeypatch.setitem(merging.TOLERANCE, "fp32", 0.0)
    recipe = replace(quantised, max_steps=2, save="merged", output_dir=f"{quantised.output_dir}-merged")
    page = io.StringIO()
    result = train(recipe, console=Console(file=page, width=140))
    kept = Path(recipe.output_dir) / "adapter"
    assert f"merging changed what the model says, or lost what LoRA had learnt: use {kept}, not " in page.getvalue()
    assert result["merge_failed"] is True
    assert json.loads((Path(recipe.output_dir) / "train.json").read_text(encoding="utf-8"))["merge_failed"] is True
    train(replace(quantised, max_steps=2), console=Console(quiet=True))
    assert torch.equal(logits(*load_model(kept)), logits(*load_model(quantised.output_dir)))
    # Once more: what is called so already may be of another run, and stays.
    before = (kept / "adapter.json").read_bytes()
    train(recipe, console=Console(quiet=True))
    assert (kept / "adapter.json").read_bytes() == before
    [other] = Path(recipe.output_dir).glob("adapter-*")
    assert lora_modules(load_model(other)[0])


@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma2", "qwen2_vl"])
def test_only_linear_layers_of_the_decoder(family: str) -> None:
    model, processor = builders.graft(family)
    before = logits(model, processor)
    linears = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    kept = {name for name in linears if ".layers." not in name or "visual" in name or name.startswith("audio_tower")}
    quantise_in_place(model, torch.float32, "cpu")
    found = finish_nf4(model)
    assert set(found) == linears.keys() - kept
    assert len(found) == 14
    assert {name for name, module in model.named_modules() if is_4bit(module)} == set(found)
    after = logits(model, processor)
    assert 0 < (after - before).norm() < 0.7 * before.norm()


def test_evaluating_does_not_spoil_training() -> None:
    # On some CPUs bitsandbytes packs weights for good as soon as a layer runs in evaluation mode.
    model, processor = builders.graft("llama")
    quantise_in_place(model, torch.float32, "cpu")
    finish_nf4(model)
    first = logits(model.eval(), processor)
    assert torch.equal(logits(model.train(), processor), first)
    assert torch.equal(logits(model.eval(), processor), first)


def test_a_layer_outside_the_decoder_is_an_error(monkeypatch) -> None:
    model, _ = builders.graft()
    everything = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    right = quantise_module.decoder_linears
    monkeypatch.setattr(quantise_module, "decoder_linears", lambda model: everything)
    quantise_in_place(model, torch.float32, "cpu")
    monkeypatch.setattr(quantise_module, "decoder_linears", right)
    with pytest.raises(AudiograftError, match="was quantised, which is outside the language model's decoder"):
        finish_nf4(model)


def test_nothing_in_4_bits_is_an_error() -> None:
    with pytest.raises(AudiograftError, match="nothing was quantised"):
        finish_nf4(builders.graft()[0])


def test_without_bitsandbytes_it_is_one_line(quantised, monkeypatch) -> None:
    monkeypatch.setattr(quantise_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="quantisation: nf4 needs bitsandbytes: pip install bitsandbytes") as caught:
        train(quantised, console=Console(quiet=True))
    assert "\n" not in str(caught.value)


def test_lora_of_an_earlier_stage_is_not_merged_into_4_bits(quantised) -> None:
    train(replace(quantised, quantisation=None, max_steps=1), console=Console(quiet=True))
    again = replace(quantised, model=quantised.output_dir, output_dir=f"{quantised.output_dir}-again")
    with pytest.raises(ConfigError, match="has LoRA, which can't be merged into 4-bit weights: start from the output of `audiograft merge") as caught:
        train(again, console=Console(quiet=True))
    assert "\n" not in str(caught.value)


def test_names_in_few_words() -> None:
    assert summarise(sorted(DECODER)) == (
        "language_model.model.layers.0-1.mlp.{down_proj, gate_proj, up_proj}, "
        "language_model.model.layers.0-1.self_attn.{k_proj, o_proj, q_proj, v_proj}"
    )
    assert summarise(["a.layers.0.x", "a.layers.1.x", "a.layers.5.x", "a.layers.5.y", "head"]) == "a.layers.0-1+5.x, a.layers.5.y, head"
