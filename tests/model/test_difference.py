"""inspect A B: what changed between two checkpoints, whatever their layout and precision; adapters as what they change."""

from __future__ import annotations

import json
import math
import weakref
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from safetensors.torch import load_file, save_file

from audiograft.cli import main
from audiograft.model import difference, load_model
from audiograft.model.adapters import save_adapter
from audiograft.model.checkpoint import save_graft
from audiograft.model.difference import ComponentChange, compare_models
from audiograft.model.graft import graft
from audiograft.model.lora import LoraSettings, inject_lora, lora_modules
from audiograft.model.merge import merge_adapter
from audiograft.model.tensors import TensorFiles
from audiograft.model.weights import open_weights
from audiograft.types import ConfigError

Q_PROJ = "language_model.model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    model, processor = builders.graft()
    save_graft(model, processor, tmp_path / "base")
    return tmp_path / "base"


def changed(base: Path, out: Path, change: Any = lambda tensors: None, dtype: torch.dtype | None = None) -> Path:
    """A copy of a model with other tensors."""
    out.mkdir()
    (out / "config.json").write_bytes((base / "config.json").read_bytes())
    tensors = load_file(base / "model.safetensors")
    change(tensors)
    save_file({name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}, out / "model.safetensors", {"format": "pt"})
    return out


def adapter(base: Path, out: Path, scale: float = 1.0, projector: bool = False, **settings: Any) -> Path:
    """An adapter with random LoRA in one layer of the language model and one of the tower."""
    model, processor = load_model(base)
    layers = ["language_model.model.layers.0.self_attn.q_proj", "audio_tower.layers.1.fc1"]
    model.requires_grad_(False)
    inject_lora(model, layers, LoraSettings(4, 8.0, **settings))
    model.projector.requires_grad_(projector)
    torch.manual_seed(1)
    for layer in lora_modules(model).values():
        layer.lora_B["default"].weight.data.normal_().mul_(scale)
    save_adapter(model, processor, out, {"model": str(base)}, {}, {})
    return out


def counts(found: difference.Difference) -> dict[str, tuple[int, int, int, int]]:
    return {name: (part.unchanged, part.changed, part.only_in_a, part.only_in_b) for name, part in found.components.items()}


def test_the_same_model_has_not_changed(base: Path, tmp_path: Path) -> None:
    found = compare_models(base, changed(base, tmp_path / "copy"))
    assert not found.changed
    assert found.unchanged == len(TensorFiles([base / "model.safetensors"]))
    assert found.verdict() == f"no tensor changed: {found.unchanged} are the same"
    assert {part.relative_change for part in found.components.values()} == {0.0}


def test_changes_are_counted_and_measured_by_component(base: Path, tmp_path: Path) -> None:
    before = load_file(base / "model.safetensors")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["projector.linear_1.weight"] *= 1.5
        tensors["audio_tower.conv1.weight"][0, 0, 0] += 0.25
        del tensors["language_model.model.norm.weight"]
        tensors["language_model.model.extra.weight"] = torch.ones(3)

    found = compare_models(base, changed(base, tmp_path / "other", change))
    parts = {part: sum(name.startswith(part) for name in before) for part in ("audio_tower", "language_model", "projector")}
    assert counts(found) == {
        "audio_tower": (parts["audio_tower"] - 1, 1, 0, 0),
        "language_model": (parts["language_model"] - 1, 0, 1, 1),
        "projector": (parts["projector"] - 1, 1, 0, 0),
    }
    assert found.only_in_a == ["language_model.model.norm.weight"]
    assert found.only_in_b == ["language_model.model.extra.weight"]
    first, second = found.changed
    assert (first.name, first.component) == ("projector.linear_1.weight", "projector")
    assert first.relative_change == pytest.approx(0.5, rel=1e-6)
    assert first.largest_difference == pytest.approx(float(before[first.name].abs().max()) / 2, rel=1e-6)
    assert second.largest_difference == pytest.approx(0.25)
    tower = math.sqrt(sum(float(tensor.double().square().sum()) for name, tensor in before.items() if name.startswith("audio_tower")))
    assert found.components["audio_tower"].relative_change == pytest.approx(0.25 / tower, rel=1e-6)
    assert found.verdict() == f"audio_tower and projector changed: 2 tensors, and {found.unchanged} are the same; 2 tensors in one of them alone"


def test_blocks_do_not_change_what_is_measured(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = changed(base, tmp_path / "other", lambda tensors: tensors.update({Q_PROJ: tensors[Q_PROJ] + torch.randn(32, 32)}))
    [whole] = compare_models(base, other).changed
    monkeypatch.setattr(difference, "_BLOCK", 100)
    [blocked] = compare_models(base, other).changed
    assert blocked.relative_change == pytest.approx(whole.relative_change, rel=1e-12)
    assert blocked.largest_difference == whole.largest_difference


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_copy_in_another_precision_has_not_changed(base: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    copy = changed(base, tmp_path / "copy", dtype=dtype)
    for pair in ((base, copy), (copy, base)):
        found = compare_models(*pair)
        assert not found.changed
        assert list(found.other_dtypes.values()) == [found.unchanged]
    other = changed(base, tmp_path / "other", lambda tensors: tensors["projector.linear_1.weight"].mul_(2), dtype)
    found = compare_models(base, other)
    assert [change.name for change in found.changed] == ["projector.linear_1.weight"]
    # At the coarser precision, rounding takes no part in the change.
    assert found.changed[0].relative_change == pytest.approx(1, rel=1e-5)


def test_half_precisions_are_compared_with_each_other(base: Path, tmp_path: Path) -> None:
    brain = changed(base, tmp_path / "bf16", dtype=torch.bfloat16)
    half = changed(base, tmp_path / "fp16", dtype=torch.float16)
    rounded_twice = changed(half, tmp_path / "both", dtype=torch.bfloat16)
    assert not compare_models(half, rounded_twice).changed
    # Small numbers that float16 can't hold are gone in a copy, which is still that copy.
    assert not compare_models(changed(brain, tmp_path / "again", lambda t: t[Q_PROJ].mul_(1e-6)), changed(
        brain, tmp_path / "half", lambda t: t[Q_PROJ].mul_(1e-6), torch.float16)).changed  # fmt: skip


def test_numbers_that_are_none_are_told(base: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["projector.linear_1.weight"][0, 0] = float("nan")
        tensors["audio_tower.conv1.weight"][0, 0, 0] = float("inf")

    broken = changed(base, tmp_path / "broken", spoil)
    found = compare_models(base, broken)
    assert {change.name: (change.relative_change, change.largest_difference) for change in found.changed} == {
        "projector.linear_1.weight": (None, None),
        "audio_tower.conv1.weight": (None, None),
    }
    assert found.components["projector"].relative_change is None
    json.dumps(found.as_dict(), allow_nan=False)
    assert not compare_models(broken, changed(broken, tmp_path / "copy")).changed


def test_a_table_that_grew_is_compared_by_the_rows_that_both_have(base: Path, tmp_path: Path) -> None:
    table = "language_model.model.embed_tokens.weight"
    longer = changed(base, tmp_path / "longer", lambda t: t.update({table: torch.cat([t[table], torch.ones(4, 32)])}))
    [change] = compare_models(base, longer).changed
    assert (change.relative_change, change.shape_a, change.shape_b) == (0.0, (420, 32), (424, 32))
    turned = changed(base, tmp_path / "turned", lambda t: t.update({table: t[table].T.contiguous()}))
    [change] = compare_models(base, turned).changed
    assert (change.relative_change, change.shape_b) == (None, (32, 420))


@pytest.mark.parametrize("settings", [{}, {"rslora": True}, {"dora": True}])
def test_an_adapter_is_what_it_changes(base: Path, tmp_path: Path, settings: dict[str, bool]) -> None:
    folder = adapter(base, tmp_path / "adapter", **settings)
    found = compare_models(base, folder)
    kind = "dora" if "dora" in settings else "lora"
    assert {(change.name, change.adapter) for change in found.changed} == {(Q_PROJ, kind), ("audio_tower.layers.1.fc1.weight", kind)}
    merge_adapter(folder, tmp_path / "merged")
    merged = load_file(tmp_path / "merged" / "model.safetensors")[Q_PROJ]
    before = load_file(base / "model.safetensors")[Q_PROJ]
    expected = float((merged - before).norm() / before.norm())
    assert next(change for change in found.changed if change.name == Q_PROJ).relative_change == pytest.approx(expected, rel=1e-5)
    # What merging wrote is what the adapter says, but for the order in which floats are added.
    assert all(change.relative_change < 1e-6 for change in compare_models(folder, tmp_path / "merged").changed)
    assert not compare_models(folder, folder).changed


def test_an_update_that_half_precision_would_lose_is_seen(base: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    model, processor = load_model(base)
    save_graft(model.to(torch.bfloat16), processor, half)
    found = compare_models(half, adapter(half, tmp_path / "adapter", scale=1e-6))
    assert {change.name for change in found.changed} == {Q_PROJ, "audio_tower.layers.1.fc1.weight"}
    assert all(0 < change.relative_change < 1e-3 for change in found.changed)
    assert not found.other_dtypes


def test_what_an_adapter_brings_and_shares_is_not_read_twice(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapter(base, tmp_path / "adapter", projector=True)
    read: list[str] = []
    own = TensorFiles.read
    monkeypatch.setattr(TensorFiles, "read", lambda self, name: read.append(name) or own(self, name))
    found = compare_models(base, folder)
    assert counts(found)["projector"] == (4, 0, 0, 0)
    # A tensor of the base that the adapter leaves alone is read once, for its norm.
    assert read.count("language_model.model.norm.weight") == 1


def test_an_adapter_on_parts_is_compared_with_their_graft(tmp_path: Path) -> None:
    encoder = builders.encoder_checkpoint(tmp_path / "encoder", "wavlm", head=True)
    language_model = builders.lm_checkpoint(tmp_path / "lm")
    graft(encoder, language_model, tmp_path / "graft")
    model, processor = load_model(tmp_path / "graft")
    model.projector.requires_grad_(True)
    base = {"graft": {
        "audio_encoder": str(encoder), "language_model": str(language_model), "projector": "swiglu", "frame_stack": 4, "pad_to_window": False,
        "match_rms": True,
    }}  # fmt: skip
    with torch.no_grad():
        model.projector.linear_1.weight.mul_(2)
    save_adapter(model, processor, tmp_path / "adapter", base, {}, {})
    found = compare_models(tmp_path / "graft", tmp_path / "adapter")
    assert [(change.name, change.adapter) for change in found.changed] == [("projector.linear_1.weight", "replaced")]
    assert not found.only_in_a
    assert not found.only_in_b
    assert found.unchanged == len(TensorFiles([tmp_path / "graft" / "model.safetensors"])) - 1


@pytest.mark.parametrize("kind", ["wavlm", "wavlm-base", "hubert", "wav2vec2", "wav2vec2-bert"])
@pytest.mark.parametrize("head", [False, True])
def test_a_graft_is_compared_with_the_parts_that_it_was_made_of(tmp_path: Path, kind: str, head: bool) -> None:
    encoder = builders.encoder_checkpoint(tmp_path / "encoder", kind, head=head)
    graft(encoder, builders.lm_checkpoint(tmp_path / "lm"), tmp_path / "graft")
    found = compare_models(encoder, tmp_path / "graft")
    assert not found.changed
    assert found.components["audio_tower"].only_in_a == found.components["audio_tower"].only_in_b == 0
    assert found.components["audio_tower"].unchanged > 0
    if head:
        assert found.components["left behind"] == ComponentChange(only_in_a=3)
    found = compare_models(tmp_path / "lm", tmp_path / "graft")
    assert not found.changed
    assert counts(found)["language_model"][1:] == (0, 0, 0)


def test_the_shipped_halves_are_found_in_the_shipped_model() -> None:
    found = compare_models("tiny-encoder", "tiny")
    assert counts(found)["audio_tower"] == (67, 0, 0, 0)
    found = compare_models("tiny-lm", "tiny")
    # Fine-tuning changed every linear layer of the four; norms, biases and embeddings are as they were.
    assert counts(found)["language_model"] == (22, 28, 0, 0)
    assert {change.name.split(".")[-1] for change in found.changed} == {"weight"}


@pytest.mark.parametrize("names", ["old", "new"])
def test_system_a_is_compared_with_what_was_trained_from_it(tmp_path: Path, names: str) -> None:
    """Its own audit of two checkpoints: all unchanged, and the projector changed."""
    builders.system_a(tmp_path / "a", names)
    total = len(open_weights(tmp_path / "a").tensors)
    model, processor = load_model(tmp_path / "a")
    with torch.no_grad():
        model.projector.last.weight.add_(0.01)
    save_graft(model, processor, tmp_path / "b")
    found = compare_models(tmp_path / "a", tmp_path / "b")
    assert [change.name for change in found.changed] == ["audio_projector.weight"]
    assert found.unchanged == total - 1
    assert found.verdict() == f"only projector changed: 1 tensor, and {total - 1} are the same"
    assert {"vision_tower", "audio_tower", "language_model", "projector"} == set(found.components)


def test_a_checkpoint_of_system_b_is_compared_with_its_language_model(tmp_path: Path) -> None:
    found = compare_models(tmp_path / "llama", builders.system_b(tmp_path))
    names = {"model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"}
    assert names <= {change.name for change in found.changed}
    assert len(found.changed) == 6
    assert counts(found)["projector"][3] > 0
    [change] = [change for change in found.changed if change.name == "model.layers.0.self_attn.q_proj.weight"]
    stored = torch.load(tmp_path / "checkpoint-5" / "checkpoint.pt", weights_only=True)["model"]["lora_layers"]["model.layers.0.self_attn.q_proj"]
    update = 16 / 4 * stored["lora_B"] @ stored["lora_A"]
    assert change.largest_difference == pytest.approx(float(update.abs().max()), rel=1e-4)


@pytest.mark.parametrize("kind", ["qwen2_audio", "voxtral"])
def test_an_adapter_of_a_stock_model_is_what_it_changes(tmp_path: Path, kind: str) -> None:
    folder = builders.stock_checkpoint(tmp_path / "stock", kind)
    model, processor = load_model(folder)
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    inject_lora(model.language_model, ["layers.0.self_attn.q_proj"], LoraSettings(4, 8.0))
    for layer in lora_modules(model.language_model).values():
        layer.lora_B["default"].weight.data.normal_()
    save_adapter(model, processor, tmp_path / "adapter", {"model": str(folder)}, {}, {})
    found = compare_models(folder, tmp_path / "adapter")
    assert [(change.name, change.adapter) for change in found.changed] == [(Q_PROJ, "lora")]
    assert not found.only_in_b


def test_two_checkpoints_of_a_run_are_compared_by_what_is_trained(tmp_path: Path) -> None:
    for step, factor in ((200, 1.0), (318, 1.5)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        lora = "language_model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
        tensors = {"projector.linear_1.weight": torch.ones(3, 4) * factor, lora: torch.ones(2, 4)}
        save_file(tensors, tmp_path / f"checkpoint-{step}" / "trained.safetensors")
    found = compare_models(tmp_path / "checkpoint-200", tmp_path / "checkpoint-318")
    assert found.kind_a == found.kind_b == "training-checkpoint"
    assert counts(found) == {"language_model": (1, 0, 0, 0), "projector": (0, 1, 0, 0)}
    assert found.changed[0].relative_change == pytest.approx(0.5)


def test_an_adapter_without_its_base_is_one_line(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = adapter(base, tmp_path / "adapter")
    base.rename(tmp_path / "gone")
    with pytest.raises(ConfigError, match="which is gone: put it back"):
        compare_models(folder, folder)
    capsys.readouterr()
    assert main(["inspect", str(folder), "tiny"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_shows_what_align_changed(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = changed(base, tmp_path / "other", lambda tensors: tensors["projector.linear_1.weight"].mul_(2), torch.bfloat16)
    assert main(["inspect", str(base), str(other)]) == 0
    shown = capsys.readouterr().out
    assert "only projector changed: 1 tensor" in shown
    assert "(F32 in A, BF16 in B): a copy counts as unchanged" in shown
    row = next(line for line in shown.splitlines() if line.strip().startswith("projector.linear_1.weight"))
    assert row.split()[1] == "100.000%"
    assert main(["inspect", str(base), str(other), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["components"]["projector"]["changed"] == 1
    assert facts["changed"][0]["shape_a"] == [32, 64]


def test_of_many_changes_the_greatest_are_shown(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for number, tensor in enumerate(tensors.values()):
            tensor *= 1 + (number + 1) / 100

    assert main(["inspect", str(base), str(changed(base, tmp_path / "other", change))]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [float(line.split()[1].rstrip("%")) for line in lines if line.startswith("  ") and "%" in line]
    assert len(shown) == 20
    assert shown == sorted(shown, reverse=True)
    assert any("more: --json lists them all" in line for line in lines)


def test_two_tensors_are_in_memory_at_a_time(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0
    own = TensorFiles.read

    def read(self: TensorFiles, name: str) -> torch.Tensor:
        nonlocal most
        tensor = own(self, name)
        alive.append(weakref.ref(tensor))
        most = max(most, sum(reference() is not None for reference in alive))
        return tensor

    other = changed(base, tmp_path / "other", lambda tensors: tensors["projector.linear_1.weight"].mul_(2))
    monkeypatch.setattr(TensorFiles, "read", read)
    compare_models(base, other)
    assert most == 2
    assert len(alive) == 2 * len(TensorFiles([base / "model.safetensors"]))
