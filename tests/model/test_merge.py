"""Merging: the whole model that is written says what the unmerged one says, in 16 and 32 bits, and it is compared as it lies on the disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from safetensors.torch import load_file
from transformers import WhisperFeatureExtractor

import audiograft.model.merge as merging
from audiograft.model import graft_in_memory, load_graft, load_model
from audiograft.model.adapters import save_adapter
from audiograft.model.checkpoint import save_graft
from audiograft.model.load import Bases
from audiograft.model.lora import LoraSettings, inject_lora, lora_modules, merge_lora
from audiograft.model.merge import merge_adapter, probe
from audiograft.model.records import training_record
from audiograft.types import ConfigError


def adapter(folder: Path, family: str = "qwen2", dtype: torch.dtype = torch.float32, targets: tuple[str, ...] = ("q_proj", "down_proj")) -> Path:
    """An adapter with LoRA on a whole graft of `family`, whose weights are saved in `dtype`."""
    model, processor = builders.graft(family)
    save_graft(torch.nn.Module.to(model, dtype), processor, folder / "base")
    model, processor = load_model(folder / "base")
    model.requires_grad_(False)
    torch.manual_seed(5)
    names = [name for name, module in model.language_model.named_modules() if isinstance(module, torch.nn.Linear) and name.endswith(targets)]
    if names:
        inject_lora(model.language_model, names, LoraSettings(4, 8.0))
        for layer in lora_modules(model).values():
            layer.lora_B["default"].weight.data.normal_(std=0.1)
    with torch.no_grad():
        model.projector.last.weight.mul_(1.5)
    model.projector.requires_grad_(True)
    quantised = ["language_model.model.layers.0.self_attn.q_proj"]
    save_adapter(model, processor, folder / "adapter", {"model": str(folder / "base")}, recipe={}, provenance={}, quantised=quantised)
    return folder / "adapter"


@pytest.mark.parametrize("family", ["qwen2", "llama", "qwen2_vl"])
def test_the_merged_model_says_what_the_adapter_says(tmp_path: Path, family: str) -> None:
    folder = adapter(tmp_path, family)
    report = merge_adapter(folder, tmp_path / "whole")
    assert report.passed
    assert report.dtype == "fp32"
    assert report.merged_layers == 4
    assert report.max_abs_logit_difference < 1e-4
    assert report.top1_agreement == 1.0
    merged, processor = load_graft(tmp_path / "whole")
    torch.testing.assert_close(probe(merged, processor), probe(*load_model(folder)), atol=1e-4, rtol=1e-4)
    assert (probe(merged, processor) - probe(*load_model(tmp_path / "base"))).abs().max() > 0.02
    stored = json.loads((tmp_path / "whole" / "merge.json").read_text())
    assert stored["max_abs_logit_difference"] == report.max_abs_logit_difference
    assert stored["versions"]["torch"]


def test_the_record_of_the_training_goes_along(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    (folder / "training.traces").write_bytes(b"audiograft traces 1\n")
    merge_adapter(folder, tmp_path / "whole")
    assert (tmp_path / "whole" / "training.traces").read_bytes() == b"audiograft traces 1\n"
    (folder / "training.traces").unlink()
    merge_adapter(folder, tmp_path / "whole")
    assert not (tmp_path / "whole" / "training.traces").exists()  # that was of another model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_forgotten_merge_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    folder = adapter(tmp_path, dtype=dtype)

    def forget(model: Any) -> int:
        for layer in lora_modules(model).values():
            layer.scaling["default"] = 0.0
        return merge_lora(model)

    monkeypatch.setattr(merging, "merge_lora", forget)
    report = merge_adapter(folder, tmp_path / "whole")
    assert not report.passed
    assert report.rms_logit_difference > 0.8 * report.lora_rms_effect


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_merging_keeps_the_precision_of_the_base(tmp_path: Path, name: str) -> None:
    folder = adapter(tmp_path, dtype=merging.DTYPES[name])
    report = merge_adapter(folder, tmp_path / "whole")
    assert report.dtype == name
    assert report.passed
    assert 0 < report.max_abs_logit_difference < report.tolerance * report.logit_std
    assert {tensor.dtype for tensor in load_file(tmp_path / "whole" / "model.safetensors").values()} == {merging.DTYPES[name]}
    # What merging 16-bit weights loses, by the exact update.
    exact, processor = load_model(folder)
    merged, _ = load_model(tmp_path / "whole")
    assert (probe(exact, processor) - probe(merged, processor)).abs().max() < 0.05 * probe(exact, processor).std()


def test_another_precision_can_be_asked_for(tmp_path: Path) -> None:
    assert merge_adapter(adapter(tmp_path), tmp_path / "whole", "bf16").dtype == "bf16"
    assert load_file(tmp_path / "whole" / "model.safetensors")["projector.linear_1.weight"].dtype is torch.bfloat16


def test_tied_heads_stay_tied(tmp_path: Path) -> None:
    merge_adapter(adapter(tmp_path, "qwen2"), tmp_path / "whole")
    merged, _ = load_graft(tmp_path / "whole")
    assert merged.get_input_embeddings().weight is merged.get_output_embeddings().weight
    assert "language_model.lm_head.weight" not in load_file(tmp_path / "whole" / "model.safetensors")


def test_an_adapter_without_lora_becomes_a_whole_model_too(tmp_path: Path) -> None:
    report = merge_adapter(adapter(tmp_path, targets=("nothing",)), tmp_path / "whole")
    assert report.merged_layers == 0
    assert report.max_abs_logit_difference == 0.0
    shutil.rmtree(tmp_path / "base")
    load_graft(tmp_path / "whole")


def test_a_merge_that_changes_the_model_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapter(tmp_path)

    def scaled_wrongly(model: Any) -> int:
        for layer in lora_modules(model).values():
            layer.scaling["default"] *= 1.2
        return merge_lora(model)

    monkeypatch.setattr(merging, "merge_lora", scaled_wrongly)
    report = merge_adapter(folder, tmp_path / "whole")
    assert not report.passed
    assert json.loads((tmp_path / "whole" / "merge.json").read_text())["passed"] is False


def test_what_is_compared_is_what_lies_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapter(tmp_path)

    def save_something_else(model: Any, processor: Any, out: Path) -> None:
        with torch.no_grad():
            model.projector.last.weight.mul_(2)
        save_graft(model, processor, out)

    monkeypatch.setattr(merging, "save_graft", save_something_else)
    assert not merge_adapter(folder, tmp_path / "whole").passed


def test_a_whole_model_has_nothing_to_merge(tmp_path: Path) -> None:
    adapter(tmp_path)
    with pytest.raises(ConfigError, match="is a whole model, in which nothing is left to merge"):
        merge_adapter(tmp_path / "base", tmp_path / "whole")
    with pytest.raises(ConfigError, match="unknown model"):
        merge_adapter(tmp_path / "nowhere", tmp_path / "whole")


def test_an_adapter_is_not_overwritten_by_its_own_merge(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    with pytest.raises(ConfigError, match="is the folder of the adapter"):
        merge_adapter(folder, folder)


def test_no_base_is_overwritten(tmp_path: Path) -> None:
    folder, base = adapter(tmp_path), tmp_path / "base"
    model, processor = load_model(folder)
    merge_lora(model)
    model.projector.requires_grad_(True)
    save_adapter(model, processor, tmp_path / "second", {"model": str(folder)}, recipe={}, provenance={})
    before = (base / "model.safetensors").read_bytes()
    for name, out in ((folder, base), (tmp_path / "second", base), (tmp_path / "second", folder)):
        with pytest.raises(ConfigError, match=f"{out} is the folder of {out}, which {name} was trained on") as caught:
            merge_adapter(name, out)
        assert "\n" not in str(caught.value)
    (tmp_path / "moved").symlink_to(base)
    with pytest.raises(ConfigError, match="was trained on"):
        merge_adapter(folder, base, bases=Bases(tmp_path / "moved"))
    assert (base / "model.safetensors").read_bytes() == before


def test_a_merge_is_not_written_beside_another_adapter(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    shutil.copytree(folder, tmp_path / "other")
    with pytest.raises(ConfigError, match="other holds another adapter, which would be opened in place of the whole model"):
        merge_adapter(folder, tmp_path / "other")
    assert not (tmp_path / "other" / "model.safetensors").exists()


def test_the_whole_model_keeps_how_it_was_trained(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    stored = json.loads((folder / "adapter.json").read_text())
    recipe, provenance = {"stage": "finetune", "model": "tiny"}, {"commit": "ab12", "data_fingerprint": "fee1"}
    (folder / "adapter.json").write_text(json.dumps(stored | {"recipe": recipe, "provenance": provenance}))
    merge_adapter(folder, tmp_path / "whole")
    assert training_record(tmp_path / "whole") == ("merge.json", {"recipe": recipe, **provenance})
    assert json.loads((tmp_path / "whole" / "merge.json").read_text())["commit"] != "ab12"


def test_a_base_that_moved_can_be_given(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    (tmp_path / "base").rename(tmp_path / "moved")
    assert merge_adapter(folder, tmp_path / "whole", bases=Bases(tmp_path / "moved")).passed


def test_parts_are_merged_in_the_language_models_precision(tmp_path: Path) -> None:
    builders.audio_tower().save_pretrained(tmp_path / "encoder")
    WhisperFeatureExtractor().save_pretrained(tmp_path / "encoder")
    builders.language_model("llama").to(torch.bfloat16).save_pretrained(tmp_path / "lm")
    builders.tokenizer().save_pretrained(tmp_path / "lm")
    base = {"audio_encoder": str(tmp_path / "encoder"), "language_model": str(tmp_path / "lm"), "projector": "mlp", "frame_stack": 1}
    model, processor = graft_in_memory(**base)
    inject_lora(model.language_model, ["model.layers.0.self_attn.q_proj"], LoraSettings(4, 8.0))
    save_adapter(model, processor, tmp_path / "adapter", {"graft": base}, recipe={}, provenance={})
    report = merge_adapter(tmp_path / "adapter", tmp_path / "whole")
    assert report.dtype == "bf16"
    assert report.passed


@pytest.mark.parametrize("kind", ["qwen2_audio", "voxtral"])
def test_an_adapter_of_a_stock_model_becomes_a_stock_checkpoint(tmp_path: Path, kind: str) -> None:
    base = builders.stock_checkpoint(tmp_path / "stock", kind)
    model, processor = load_model(base)
    model.requires_grad_(False)
    inject_lora(model.language_model, ["layers.0.self_attn.q_proj"], LoraSettings(4, 8.0))
    for layer in lora_modules(model).values():
        layer.lora_B["default"].weight.data.normal_(std=0.5)
    save_adapter(model, processor, tmp_path / "adapter", {"model": str(base)}, recipe={}, provenance={})
    report = merge_adapter(tmp_path / "adapter", tmp_path / "whole")
    assert report.passed
    assert report.lora_rms_effect > 0
    merged, its_processor = load_model(tmp_path / "whole")
    assert type(merged) is type(model)
    torch.testing.assert_close(probe(merged, its_processor), probe(model, processor), atol=1e-3, rtol=1e-3)
