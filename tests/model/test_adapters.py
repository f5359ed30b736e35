"""Adapter folders: what was trained comes back bit for bit on its base, other tools can read it, and nothing else is taken for it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BatchFeature, BitsAndBytesConfig, WhisperFeatureExtractor

from audiograft.cli import main
from audiograft.inference.engine import Engine
from audiograft.messages import audio_messages
from audiograft.model import graft_in_memory, load_model, load_processor
from audiograft.model.adapters import Adapter, read_adapter, save_adapter, weights_sha256
from audiograft.model.checkpoint import save_graft
from audiograft.model.load import Bases
from audiograft.model.lora import LoraSettings, inject_lora, is_4bit, lora_modules, merge_lora
from audiograft.model.merge import merge_adapter, probe
from audiograft.model.quantise import finish_nf4, quantise_in_place, quantised_modules
from audiograft.types import AudiograftError, ConfigError

LORA = {
    "language_model": ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"),
    "audio_tower": ("layers.0.self_attn.v_proj",),
    "projector": ("linear_1",),
}
STOCK_LORA = ("layers.0.self_attn.q_proj", "layers.1.self_attn.v_proj")
VISION_LORA = ("model.language_model.layers.0.self_attn.q_proj", "model.language_model.layers.1.mlp.up_proj")


def parts(folder: Path, family: str = "qwen2") -> dict[str, str]:
    """An encoder and a language model on the disk, as a recipe names them."""
    encoder, lm = folder / "encoder", folder / "lm"
    builders.audio_tower().save_pretrained(encoder)
    WhisperFeatureExtractor().save_pretrained(encoder)
    builders.language_model(family).save_pretrained(lm)
    builders.tokenizer().save_pretrained(lm)
    return {"audio_encoder": str(encoder), "language_model": str(lm)}


def whole(folder: Path, **kwargs: Any) -> Path:
    """A whole graft on the disk."""
    model, processor = builders.graft(**kwargs)
    save_graft(model, processor, folder)
    return folder


def train(model: Any, components: tuple[str, ...] = (), projector: bool = True, targets: tuple[str, ...] = (), **settings: Any) -> None:
    """What a stage leaves behind: adapters that are not zero, and a projector that moved."""
    torch.manual_seed(7)
    model.requires_grad_(False)
    with torch.no_grad():
        if projector:
            for parameter in model.projector.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        for component in components:
            inject_lora(getattr(model, component), targets or LORA[component], LoraSettings(**{"rank": 4, "alpha": 8.0, **settings}))
            for layer in lora_modules(getattr(model, component)).values():
                layer.lora_B["default"].weight.normal_(std=0.2)
    model.projector.requires_grad_(projector)
    model.eval()


def save(model: Any, processor: Any, folder: Path, base: dict[str, Any]) -> Path:
    save_adapter(model, processor, folder, base, recipe={"stage": "finetune"}, provenance={"commit": "abc"}, quantised=["language_model.x"])
    return folder


def batch(processor: Any) -> BatchFeature:
    encoded: BatchFeature = processor([processor.build_prompt(audio_messages("x"))], audio=[builders.tone(0.5)])
    return encoded


@torch.no_grad()
def logits(model: Any, processor: Any) -> torch.Tensor:
    result: torch.Tensor = model(**batch(processor)).logits
    return result


SCOPES = [(), ("language_model",), ("language_model", "audio_tower"), ("audio_tower",)]


@pytest.mark.parametrize("components", SCOPES)
def test_an_adapter_on_a_whole_model_comes_back(tmp_path: Path, components: tuple[str, ...]) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    untrained = logits(model, processor)
    train(model, components)
    folder = save(model, processor, tmp_path / "adapter", {"model": str(base)})
    again, its_processor = load_model(folder)
    assert torch.equal(logits(again, its_processor), logits(model, processor))
    assert not torch.allclose(logits(model, processor), untrained, atol=1e-3)
    assert {path.name for path in folder.glob("lora-*")} == {f"lora-{component}" for component in components}
    assert not any(parameter.is_meta for parameter in again.parameters())
    adapter = read_adapter(folder)
    assert adapter.base == {"model": str(base)}
    assert adapter.base_sha256 == {"model": weights_sha256(base)}
    assert adapter.recipe == {"stage": "finetune"}
    assert adapter.provenance == {"commit": "abc"}
    assert adapter.quantised == ["language_model.x"]
    assert sum("lora_A" in name for name in adapter.trained) == sum(len(LORA[component]) for component in components)


def test_an_adapter_holds_only_what_was_trained(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    train(model, ("language_model",))
    folder = save(model, processor, tmp_path / "adapter", {"model": str(base)})
    assert set(load_file(folder / "projector.safetensors")) == set(builders.graft()[0].projector.state_dict())
    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) < 0.3 * (base / "model.safetensors").stat().st_size


def test_lora_alone_leaves_the_frozen_projector_to_the_base(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    train(model, ("language_model",), projector=False)
    folder = save(model, processor, tmp_path / "adapter", {"model": str(base)})
    assert not (folder / "projector.safetensors").exists()
    assert torch.equal(logits(*load_model(folder)), logits(model, processor))


def test_lora_in_a_frozen_projector_comes_back(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    train(model, ("projector",), projector=False)
    folder = save(model, processor, tmp_path / "adapter", {"model": str(base)})
    assert [path.name for path in folder.glob("*.safetensors")] == []
    assert torch.equal(logits(*load_model(folder)), logits(model, processor))


def test_a_projector_that_is_trained_beneath_its_lora_is_saved(tmp_path: Path) -> None:
    folder = whole(tmp_path / "base", projector="linear")
    model, processor = load_model(folder)
    # Its one layer carries LoRA, so that nothing is left of it outside.
    train(model, ("projector",), projector=True, targets=("linear",))
    adapter = save(model, processor, tmp_path / "adapter", {"model": str(folder)})
    assert torch.equal(probe(*load_model(adapter)), probe(model, processor))


@pytest.mark.parametrize("settings", [{}, {"rslora": True}, {"dora": True}])
def test_an_adapter_on_parts_comes_back(tmp_path: Path, settings: dict[str, bool]) -> None:
    graft = {**parts(tmp_path), "projector": "mlp", "frame_stack": 2, "pad_to_window": False, "match_rms": True}
    model, processor = graft_in_memory(**graft)
    train(model, ("language_model",), **settings)
    folder = save(model, processor, tmp_path / "adapter", {"graft": graft})
    again, its_processor = load_model(folder)
    assert again.config.frame_stack == its_processor.frame_stack == 2
    torch.testing.assert_close(logits(again, its_processor), logits(model, processor), atol=1e-6, rtol=1e-6)
    assert set(read_adapter(folder).base_sha256) == {"audio_encoder", "language_model"}


def test_a_new_projector_is_saved_even_where_it_did_not_train(tmp_path: Path) -> None:
    graft = {**parts(tmp_path), "projector": "swiglu", "frame_stack": 4, "pad_to_window": False, "match_rms": True}
    model, processor = graft_in_memory(**graft, seed=3)
    train(model, ("language_model",), projector=False)
    folder = save(model, processor, tmp_path / "adapter", {"graft": graft})
    assert torch.equal(logits(*load_model(folder)), logits(model, processor))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # which PEFT still asks for
@pytest.mark.parametrize("settings", [{}, {"rslora": True}, {"dora": True}])
def test_peft_reads_the_language_models_part_onto_the_plain_language_model(tmp_path: Path, settings: dict[str, bool]) -> None:
    graft = {**parts(tmp_path), "projector": "swiglu", "frame_stack": 4, "pad_to_window": False, "match_rms": True}
    model, processor = graft_in_memory(**graft)
    train(model, ("language_model",), **settings)
    folder = save(model, processor, tmp_path / "adapter", {"graft": graft})
    plain = AutoModelForCausalLM.from_pretrained(graft["language_model"]).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        without = plain(ids).logits
        theirs = PeftModel.from_pretrained(plain, str(folder / "lora-language_model")).eval()(ids).logits
        ours = model.language_model(ids).logits
    torch.testing.assert_close(theirs, ours, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(theirs, without, atol=1e-3)
    config = json.loads((folder / "lora-language_model" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == graft["language_model"]
    assert config["target_modules"] == list(LORA["language_model"])


def test_a_base_that_is_an_adapter_is_opened_with_its_own_base(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    train(model)
    aligned = save(model, processor, tmp_path / "align", {"model": str(base)})
    model, processor = load_model(aligned)
    train(model, ("language_model",))
    finetuned = save(model, processor, tmp_path / "finetune", {"model": str(aligned)})
    assert torch.equal(logits(*load_model(finetuned)), logits(model, processor))
    # A third stage starts from merged weights.
    model, processor = load_model(finetuned)
    merge_lora(model)
    train(model, ("language_model",), projector=False)
    third = save(model, processor, tmp_path / "third", {"model": str(finetuned)})
    assert torch.equal(logits(*load_model(third)), logits(model, processor))


def test_the_processor_opens_without_the_base(tmp_path: Path) -> None:
    base = whole(tmp_path / "base", frame_stack=8)
    model, processor = load_model(base)
    train(model)
    folder = save(model, processor, tmp_path / "adapter", {"model": str(base)})
    shutil.rmtree(base)
    assert load_processor(folder).frame_stack == 8


def test_adapter_and_base_can_move_together(tmp_path: Path) -> None:
    base = whole(tmp_path / "here" / "base")
    model, processor = load_model(base)
    train(model)
    save(model, processor, tmp_path / "here" / "adapter", {"model": os.path.relpath(base)})
    (tmp_path / "here").rename(tmp_path / "there")
    assert torch.equal(logits(*load_model(tmp_path / "there" / "adapter")), logits(model, processor))


def test_a_base_that_is_gone_is_named_and_can_be_given(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    train(model)
    folder = save(model, processor, tmp_path / "adapter", {"model": str(base)})
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=rf"was trained on {base}, which is gone: .*--base DIR") as error:
        load_model(folder)
    assert "\n" not in str(error.value)
    assert torch.equal(logits(*load_model(folder, bases=Bases(tmp_path / "elsewhere"))), logits(model, processor))


def test_parts_that_are_gone_are_named(tmp_path: Path) -> None:
    graft = {**parts(tmp_path), "projector": "swiglu", "frame_stack": 4, "pad_to_window": False, "match_rms": True}
    model, processor = graft_in_memory(**graft)
    train(model)
    folder = save(model, processor, tmp_path / "adapter", {"graft": graft})
    (tmp_path / "lm").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"lm, which is gone: .*--language-model DIR"):
        load_model(folder)
    again = load_model(folder, bases=Bases(language_model=tmp_path / "moved"))
    assert torch.equal(logits(*again), logits(model, processor))


def test_a_changed_base_is_refused(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    train(model)
    folder = save(model, processor, tmp_path / "adapter", {"model": str(base)})
    whole(base, seed=1)
    with pytest.raises(ConfigError, match="was trained on other weights than those that are in") as error:
        load_model(folder)
    assert str(base) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("other", [{"projector": "mlp"}, {"frame_stack": 2}])
def test_a_checkpoint_of_another_projector_names_both(tmp_path: Path, other: dict[str, Any]) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    train(model)
    folder = save(model, processor, tmp_path / "adapter", {"model": str(base)})
    save_file(dict(builders.graft(**other)[0].projector.state_dict()), folder / "projector.safetensors")
    with pytest.raises(ConfigError, match="is a checkpoint of another projector: it holds .*; this model's has .*linear_1.weight 32 x 64") as error:
        load_model(folder)
    assert "\n" not in str(error.value)


def spoil(folder: Path, file: str, change: Any) -> None:
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file, {"format": "pt"})


PEFT = "lora-language_model/adapter_model.safetensors"
QUERY = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("projector.safetensors", lambda t: t.pop("ln_mid.weight"), "lacks tensor projector.ln_mid.weight"),
        ("projector.safetensors", lambda t: t.update(extra=torch.ones(1)), "extra tensor projector.extra"),
        (PEFT, lambda t: t.pop(f"{QUERY}.lora_B.weight"), "lacks tensor model.layers.0.self_attn.q_proj.lora_B.weight"),
        (PEFT, lambda t: [t.pop(key) for key in list(t) if QUERY in key], "lacks tensor language_model.model.layers.0.self_attn.q_proj.lora_A"),
        (PEFT, lambda t: t.update({f"{QUERY}.lora_B.weight": torch.ones(3, 4)}), "another shape for tensor model.layers.0.self_attn.q_proj.lora_B"),
        (PEFT, lambda t: t.update({f"{QUERY}.lora_A.weight": torch.ones(4, 5)}), "with 5 inputs, and this language_model's has 32"),
        (PEFT, lambda t: t.update({"base_model.model.model.layers.7.x.lora_A.weight": torch.ones(4, 5)}), "adapts model.layers.7.x, which is no"),
    ],
)
def test_tensors_are_accounted_for(tmp_path: Path, file: str, change: Any, message: str) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    train(model, ("language_model",))
    folder = save(model, processor, tmp_path / "adapter", {"model": str(base)})
    spoil(folder, file, change)
    with pytest.raises(ConfigError, match=message) as error:
        load_model(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["adapter.json", "projector.safetensors", PEFT, "lora-language_model/adapter_config.json"])
def test_a_truncated_file_is_one_line(tmp_path: Path, file: str) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    train(model, ("language_model",))
    folder = save(model, processor, tmp_path / "adapter", {"model": str(base)})
    (folder / file).write_bytes((folder / file).read_bytes()[:100])
    with pytest.raises(ConfigError, match=f"{folder / file} can't be read") as error:
        load_model(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fields", [{"format": 2}, {"base": {}}, {"base": {"model": 3}}, {"surprise": 1}, {"note": 3}])
def test_an_adapter_json_of_another_kind_is_one_line(tmp_path: Path, fields: dict[str, Any]) -> None:
    (tmp_path / "adapter.json").write_text(json.dumps({"format": 1, "base": {"model": "tiny"}, "trained": [], **fields}))
    with pytest.raises(ConfigError, match="adapter.json") as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


def with_note(folder: Path, note: object) -> None:
    """Written into adapter.json, as whoever ships an adapter does."""
    file = folder / "adapter.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"note": note}))


def test_the_note_of_an_adapter_takes_the_place_of_its_bases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, processor = builders.graft()
    model.config.note = "the base is a miniature"
    save_graft(model, processor, tmp_path / "base")
    train(model, ("language_model",))
    folder = save(model, processor, tmp_path / "adapter", {"model": str(tmp_path / "base")})
    assert "note" not in json.loads((folder / "adapter.json").read_text())
    assert Engine.load(folder, "cpu").note == "the base is a miniature"
    with_note(folder, "the adapter hears better")
    assert Engine.load(folder, "cpu").note == "the adapter hears better"
    assert json.loads(json.dumps(read_adapter(folder).as_dict()))["note"] == "the adapter hears better"
    merge_adapter(folder, tmp_path / "merged")
    assert Engine.load(tmp_path / "merged", "cpu").note == "the adapter hears better"
    assert Engine.load(tmp_path / "base", "cpu").note == "the base is a miniature"
    builders.write_clips(tmp_path / "clips", [builders.tone(0.3)], ["one"])
    clip = next((tmp_path / "clips").rglob("*.wav"))
    for command in (["transcribe", "--model", str(folder), str(clip)], ["ask", "--model", str(folder), "--prompt", "what", str(clip)]):
        assert main(command) == 0
        assert capsys.readouterr().err.count("note: the adapter hears better\n") == 1


def test_an_adapter_on_parts_has_a_note(tmp_path: Path) -> None:
    base = parts(tmp_path)
    model, processor = graft_in_memory(**base)
    folder = save(model, processor, tmp_path / "adapter", {"graft": base})
    assert Engine.load(folder, "cpu").note is None
    with_note(folder, "hears")
    assert Engine.load(folder, "cpu").note == "hears"


def test_saving_again_leaves_nothing_of_the_adapter_before(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    train(model, ("language_model", "audio_tower"))
    folder = save(model, processor, tmp_path / "adapter", {"model": str(base)})
    model, processor = load_model(base)
    train(model, ("language_model",), projector=False)
    save(model, processor, folder, {"model": str(base)})
    assert not (folder / "lora-audio_tower").exists()
    assert not (folder / "projector.safetensors").exists()
    assert torch.equal(logits(*load_model(folder)), logits(model, processor))
    assert [path.name for path in folder.glob("incomplete*")] == []


def test_nothing_trained_is_nothing_to_save(tmp_path: Path) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    model.requires_grad_(False)
    with pytest.raises(AudiograftError, match="nothing was trained"):
        save(model, processor, tmp_path / "adapter", {"model": str(base)})


def test_shipped_bases_stay_names(tmp_path: Path) -> None:
    model, processor = builders.graft()
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    folder = save(model, processor, tmp_path / "adapter", {"model": "tiny"})
    adapter = read_adapter(folder)
    assert adapter.base == {"model": "tiny"}
    assert adapter.relative == {}
    assert adapter.base_sha256 == {"model": weights_sha256("tiny")}
    assert Adapter(**json.loads((folder / "adapter.json").read_text())) == adapter


def on_the_hub(cache: Path, name: str, commit: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in the local cache where revision `commit` of a hub id lies, which is its main one."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    repo = cache / f"models--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True, exist_ok=True)
    (repo / "refs" / "main").write_text(commit)
    return repo / "snapshots" / commit


def test_a_base_on_the_hub_is_pinned_to_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = "a" * 40, "b" * 40
    whole(on_the_hub(tmp_path / "hub", "me/base", old, monkeypatch))
    model, processor = load_model("me/base")
    train(model, ("language_model",))
    folder = save(model, processor, tmp_path / "adapter", {"model": "me/base"})
    adapter = read_adapter(folder)
    assert adapter.base == {"model": "me/base"}
    assert adapter.revision == {"model": old}
    assert adapter.base_sha256 == {}
    # Its author uploads another model under the same name.
    whole(on_the_hub(tmp_path / "hub", "me/base", new, monkeypatch), seed=1)
    assert torch.equal(logits(*load_model(folder)), logits(model, processor))


def test_an_adapter_on_the_hub_is_opened_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = whole(tmp_path / "base")
    model, processor = load_model(base)
    train(model, ("language_model",))
    save(model, processor, on_the_hub(tmp_path / "hub", "me/adapter", "c" * 40, monkeypatch), {"model": str(base)})
    assert torch.equal(logits(*load_model("me/adapter")), logits(model, processor))
    assert load_processor("me/adapter").audio_token == processor.audio_token


@pytest.mark.parametrize("name", ["runs/graft", "nowhere", "./nowhere"])
def test_an_unknown_name_is_one_line(name: str) -> None:
    for load in (load_model, load_processor):
        with pytest.raises(ConfigError) as error:
            load(name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_lora_on_a_stock_model_leaves_its_projector_alone(tmp_path: Path) -> None:
    base = builders.stock_checkpoint(tmp_path / "stock", "qwen2_audio")
    model, processor = load_model(base)
    train(model, ("language_model",), projector=False, targets=STOCK_LORA)
    folder = save(model, processor, tmp_path / "adapter", {"model": str(base)})
    assert not (folder / "projector.safetensors").exists()
    again, its_processor = load_model(folder)
    assert torch.equal(probe(again, its_processor), probe(model, processor))
    assert not torch.allclose(probe(*load_model(base)), probe(model, processor), atol=1e-3)


def test_an_adapter_on_system_a_comes_back(tmp_path: Path) -> None:
    builders.system_a(tmp_path / "a")
    model, processor = load_model(tmp_path / "a")
    train(model, ("language_model",), targets=VISION_LORA)
    folder = save(model, processor, tmp_path / "adapter", {"model": str(tmp_path / "a")})
    again, its_processor = load_model(folder)
    assert its_processor.response_prefix == " "
    assert torch.equal(probe(again, its_processor), probe(model, processor))


def test_an_adapter_of_a_quantised_base_opens_on_it_and_without(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    graft = {**parts(tmp_path), "projector": "swiglu", "frame_stack": 4, "pad_to_window": False, "match_rms": True}
    model, processor = graft_in_memory(**graft)
    quantise_in_place(model, torch.float32, "cpu")
    quantised = finish_nf4(model)
    train(model, ("language_model",))
    save_adapter(model, processor, tmp_path / "adapter", {"graft": graft}, {}, {}, quantised)
    assert read_adapter(tmp_path / "adapter").quantised == quantised
    assert f"language_model.{LORA['language_model'][0]}" in quantised
    whole_precision, its_processor = load_model(tmp_path / "adapter")
    assert quantised_modules(whole_precision) == []
    difference = logits(whole_precision, its_processor) - logits(model, processor)
    assert 0 < difference.abs().max() < 0.5
    skipped = [f"^{name}$" for name in ("lm_head",)]
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=skipped,
    )  # fmt: skip
    in_4_bits, _ = load_model(tmp_path / "adapter", quantization_config=config)
    assert sorted(quantised_modules(in_4_bits)) == sorted(quantised)
    for module in in_4_bits.modules():
        if is_4bit(module):
            # As finish_nf4 has it: the packed form that bitsandbytes makes on some CPUs can't hold layers as small as these.
            module.support_avx512bf16_for_cpu = False
    torch.testing.assert_close(logits(in_4_bits, its_processor), logits(model, processor), atol=1e-5, rtol=1e-4)
    report = merge_adapter(tmp_path / "adapter", tmp_path / "whole")
    assert report.passed
    assert report.dtype == "fp32"
    assert quantised_modules(load_model(tmp_path / "whole")[0]) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_engine_merges_lora_where_nothing_is_lost_by_that(tmp_path: Path, dtype: torch.dtype) -> None:
    model, processor = load_model(whole(tmp_path / "base"))
    train(model, ("language_model", "audio_tower"))
    folder = save(model, processor, tmp_path / "adapter", {"model": str(tmp_path / "base")})
    engine = Engine.load(folder, "cpu", dtype)
    assert bool(lora_modules(engine.model)) == (dtype == torch.bfloat16)
    if dtype == torch.float32:
        torch.testing.assert_close(logits(engine.model, processor), logits(model, processor), atol=1e-5, rtol=1e-5)
