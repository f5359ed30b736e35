"""The self-test: it passes on every layout that can be opened, and finds what is wrong where something is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
import yaml

from audiograft.cli import main
from audiograft.evaluate import selftest as module
from audiograft.evaluate import subject
from audiograft.evaluate.selftest import selftest
from audiograft.model import load_model
from audiograft.model.adapters import save_adapter
from audiograft.model.lora import LoraSettings, inject_lora, lora_modules
from audiograft.model.quantise import decoder_linears, quantise_in_place
from audiograft.types import ConfigError, DataError

CLIPS = Path(__file__).resolve().parents[1] / "data" / "clips"


def outcomes(report: Any) -> dict[str, str]:
    return {check.name: check.outcome for check in report.checks}


def measured(report: Any, name: str) -> str:
    [text] = [check.measured for check in report.checks if check.name == name]
    return text


def save_halves(folder: Path) -> dict[str, Any]:
    encoder, language_model = builders.encoder_checkpoint(folder / "encoder", "wavlm"), builders.lm_checkpoint(folder / "lm", "llama")
    return {"audio_encoder": str(encoder), "language_model": str(language_model), "projector": "swiglu", "frame_stack": 4}


def graft_folder(folder: Path) -> Path:
    model, processor = builders.graft("qwen3")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def adapter_folder(folder: Path) -> Path:
    """A projector, and LoRA in the language model, on a base of two parts."""
    from audiograft.model import graft_in_memory

    parts = {**save_halves(folder), "pad_to_window": False, "match_rms": True}
    model, processor = graft_in_memory(**parts)
    inject_lora(model, list(decoder_linears(model)), LoraSettings(rank=2, alpha=4))
    for layer in lora_modules(model).values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.05)
    save_adapter(model, processor, folder / "adapter", {"graft": parts}, {}, {})
    return folder / "adapter"


def test_tiny_passes_and_the_report_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest", "tiny", "--data", str(CLIPS), "--clips", "12", "--device", "cpu"]) == 0
    report = capsys.readouterr().out
    assert report.startswith("### audiograft selftest: tiny\n")
    assert "it listens: 12 given clips" in report
    assert report.count("| passed |") == 7
    assert "7 passed" in report


@pytest.mark.parametrize("layout", ["graft", "adapter", "system_a", "system_b", *builders.STOCK])
def test_small_checkpoints_of_each_layout_pass(tmp_path: Path, layout: str) -> None:
    if layout in builders.STOCK:
        folder = builders.stock_checkpoint(tmp_path / "stock", layout)
    elif layout == "system_a":
        builders.system_a(tmp_path)
        folder = tmp_path
    elif layout == "system_b":
        folder = builders.system_b(tmp_path)
    else:
        folder = (graft_folder if layout == "graft" else adapter_folder)(tmp_path)
    report = selftest(str(folder))
    found = outcomes(report)
    assert report.passed, report.markdown()
    assert {found[name] for name in ("parameters", "logits without audio", "quantised")} == {"passed"}
    # Granite Speech's own LoRA is switched by whether there is audio, and so never merged.
    assert found["merge parity"] == ("skipped" if layout == "granite_speech" else "passed")
    assert found["tower parity"] == ("skipped" if layout in builders.STOCK else "passed")
    # Nobody named clips.
    assert found["deafness"] == found["word error rate"] == "skipped"
    if layout == "graft":
        assert "its language model called by itself" in measured(report, "logits without audio")
    if layout == "adapter":
        assert "opened by itself, LoRA off" in measured(report, "logits without audio")
        assert "its own LoRA" in measured(report, "merge parity")


def recipe_file(folder: Path, **keys: Any) -> Path:
    recipe = {
        "stage": "finetune", "output_dir": str(folder / "run"), "graft": save_halves(folder), "data": {"train": str(CLIPS)},
        "precision": "fp32", "lora": {"rank": 2}, **keys,
    }  # fmt: skip
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def test_a_recipe_that_was_not_run_has_its_start_tested(tmp_path: Path) -> None:
    report = selftest(str(recipe_file(tmp_path)))
    assert report.passed, report.markdown()
    assert "against `plan`: equal" in measured(report, "parameters")
    assert f"{tmp_path / 'lm'} opened by itself" in measured(report, "logits without audio")
    assert "not trained yet" in measured(report, "deafness")


def test_a_recipe_in_4_bits_says_what_is_quantised(tmp_path: Path) -> None:
    report = selftest(str(recipe_file(tmp_path, quantisation="nf4")))
    assert report.passed, report.markdown()
    assert "14 layers" in measured(report, "quantised")
    assert "against `plan`: equal" in measured(report, "parameters")
    assert outcomes(report)["merge parity"] == "skipped"


def broken(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let the self-test open a model that something was done to."""

    def load(*arguments: Any, **options: Any) -> Any:
        model, processor = load_model(*arguments, **options)
        change(model)
        return model, processor

    monkeypatch.setattr(subject, "load_model", load)


def quantise_the_tower(model: Any) -> None:
    import bitsandbytes

    layer = model.audio_tower.layers[0].fc1
    small = bitsandbytes.nn.Linear4bit(layer.in_features, layer.out_features, True, torch.float32, True, "nf4")
    small.weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=small)
    small.weight = small.weight.to("cpu")
    small.bias = layer.bias
    model.audio_tower.layers[0].fc1 = small


def test_a_language_model_that_is_not_the_one_on_the_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(model: Any) -> None:
        model.language_model.model.layers[0].mlp.up_proj.base_layer.weight.data.mul_(1.01)

    folder = adapter_folder(tmp_path)
    broken(monkeypatch, change)
    assert outcomes(selftest(str(folder)))["logits without audio"] == "failed"


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("tower parity", lambda model: model.audio_tower.register_forward_hook(lambda tower, arguments, states: states * 1.01)),
        ("quantised", quantise_the_tower),
        ("deafness", lambda model: torch.nn.init.zeros_(model.projector.linear_2.weight)),
    ],
)
def test_what_is_broken_is_found(monkeypatch: pytest.MonkeyPatch, check: str, change: Any) -> None:
    broken(monkeypatch, change)
    report = selftest("tiny", data=str(CLIPS), clips=8)
    assert not report.passed
    assert outcomes(report)[check] == "failed", report.markdown()


def test_a_forgotten_merge_is_found_in_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(model: Any) -> int:
        layers = lora_modules(model)
        for name, layer in layers.items():
            model.set_submodule(name, layer.get_base_layer())
        return len(layers)

    monkeypatch.setattr(module, "merge_lora", forget)
    assert outcomes(selftest("tiny", data=str(CLIPS), clips=8, dtype=torch.bfloat16))["merge parity"] == "failed"


def test_a_word_error_rate_outside_the_expected_range_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "train.json").write_text("{}", encoding="utf-8")
    path = recipe_file(tmp_path, expected_wer=[0.5, 0.9])
    monkeypatch.setattr(subject, "load_model", lambda *arguments, **options: load_model("tiny"))
    monkeypatch.setattr(module, "plan_recipe", lambda *arguments: {"components": module._counts(load_model("tiny")[0])})
    report = selftest(str(path), data=str(CLIPS), clips=8)
    assert outcomes(report) | {"word error rate": "passed"} == dict.fromkeys(outcomes(report), "passed")
    assert "expected 50.0% to 90.0%" in measured(report, "word error rate")
    assert outcomes(report)["word error rate"] == "failed"


def test_json_and_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = graft_folder(tmp_path / "graft")
    # A random model hears nothing.
    assert main(["selftest", str(folder), "--data", str(CLIPS), "--clips", "8", "--json", "--device", "cpu"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    assert {check["name"]: check["outcome"] for check in report["checks"]}["deafness"] == "failed"


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--set is for recipes"):
        selftest("tiny", overrides=["seed=1"])
    few = builders.write_clips(tmp_path, [builders.tone(1.0)] * 2, ["one", "two"])
    with pytest.raises(ConfigError, match="2 usable clips"):
        selftest("tiny", data=str(few))
    (tmp_path / "deep").mkdir()
    outside = tmp_path / "deep" / "manifest.jsonl"
    outside.write_text(few.read_text(encoding="utf-8").replace('"audio": "', '"audio": "../'), encoding="utf-8")
    with pytest.raises(DataError, match="allow it with --allow-outside"):
        selftest("tiny", data=str(outside))
    with pytest.raises(ConfigError, match="2 usable clips"):
        selftest("tiny", data=str(outside), allow_outside=True)


def test_quantising_in_place_keeps_the_count(tmp_path: Path) -> None:
    model, _ = builders.graft("llama")
    before = module._counts(model)
    quantise_in_place(model, torch.float32, "cpu")
    assert module._counts(model) == before
