"""What `merge` and `inspect` print, write and end with, and that every layout can be listened with."""

from __future__ import annotations

import json
from pathlib import Path

import builders
import pytest
import soundfile
import torch

from audiograft.cli import main
from audiograft.model import load_model
from audiograft.model import merge as merging
from audiograft.model.adapters import save_adapter
from audiograft.model.checkpoint import save_graft
from audiograft.model.lora import LoraSettings, inject_lora, lora_modules


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    model, processor = builders.graft()
    save_graft(model, processor, tmp_path / "base")
    model.requires_grad_(False)
    inject_lora(model.language_model, ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"], LoraSettings(4, 8.0))
    for layer in lora_modules(model).values():
        layer.lora_B["default"].weight.data.normal_(std=0.1)
    with torch.no_grad():
        model.projector.last.weight.mul_(1.5)
    model.projector.requires_grad_(True)
    save_adapter(model, processor, tmp_path / "adapter", {"model": str(tmp_path / "base")}, {"stage": "finetune"}, {})
    return tmp_path / "adapter"


def test_merge_prints_its_comparison_and_writes_a_whole_model(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "whole"
    assert main(["merge", str(adapter), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    stored = json.loads((out / "merge.json").read_text())
    assert f"2 layers merged, saved in {out} as fp32" in printed
    assert f"max abs logit difference {stored['max_abs_logit_difference']:.2e}" in printed
    assert "top-1 agreement          100.0%" in printed
    load_model(out)
    assert main(["merge", str(adapter), "--out", str(tmp_path / "half"), "--dtype", "bf16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dtype"] == "bf16"


def test_a_merge_that_changes_the_model_exits_with_1(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(merging.TOLERANCE, "fp32", 0.0)
    assert main(["merge", str(adapter), "--out", str(tmp_path / "whole")]) == 1
    assert "do not use" in capsys.readouterr().err


def test_merge_refuses_in_one_line(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", str(tmp_path / "base"), "--out", str(tmp_path / "whole")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "base").rename(tmp_path / "moved")
    assert main(["merge", str(adapter), "--out", str(tmp_path / "whole")]) == 2
    assert "--base DIR" in capsys.readouterr().err
    assert main(["merge", str(adapter), "--out", str(tmp_path / "whole"), "--base", str(tmp_path / "moved")]) == 0


def test_inspect_prints_what_there_is(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "base")]) == 0
    printed = capsys.readouterr().out
    assert "the projector looks random" in printed
    assert "projector.linear_1.weight" in printed
    assert "whole: nothing is missing" in printed
    assert main(["inspect", str(adapter), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "adapter"
    assert found["broken"] is False
    assert found["adapter"]["base"] == {"model": str(tmp_path / "base")}


def test_inspect_exits_with_1_for_a_broken_model_and_2_for_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, processor = builders.graft()
    model.projector.last.weight.data.fill_(float("nan"))
    save_graft(model, processor, tmp_path / "model")
    assert main(["inspect", str(tmp_path / "model")]) == 1
    assert "broken: tensor projector.linear_2.weight holds NaN" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("layout", ["adapter", "system-a"])
def test_every_layout_transcribes(adapter: Path, tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    builders.system_a(tmp_path / "system-a")
    soundfile.write(tmp_path / "clip.wav", builders.tone(0.3), 16_000)
    words = ["transcribe", str(tmp_path / "clip.wav"), "--model", str(tmp_path / layout), "--format", "json", "--device", "cpu"]
    assert main([*words, "--max-new-tokens", "2"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out)[0]["text"], str)
