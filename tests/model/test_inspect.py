"""inspect: it finds what is there, what is wrong, and tells a trained projector from a random one by its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from audiograft.model import load_model
from audiograft.model.adapters import save_adapter
from audiograft.model.checkpoint import save_graft
from audiograft.model.configuration import PROJECTORS
from audiograft.model.inspect import inspect_model
from audiograft.model.lora import LoraSettings, inject_lora, lora_modules
from audiograft.model.spectrum import edge_threshold, judge, spectral_edge
from audiograft.types import ConfigError


def whole(folder: Path, **kwargs: Any) -> Path:
    model, processor = builders.graft(**kwargs)
    save_graft(model, processor, folder)
    return folder


def test_the_shipped_model_is_whole_and_trained() -> None:
    found = inspect_model("tiny")
    assert found.problems == []
    assert found.kind == "graft"
    model, _ = load_model("tiny")
    for name in ("audio_tower", "projector", "language_model"):
        assert found.components[name].parameters == sum(parameter.numel() for parameter in getattr(model, name).parameters())
        assert found.components[name].dtypes == {"F16": found.components[name].parameters}
    assert found.components["audio_tower"].tensors["audio_tower.layers.#.fc1.weight"] == {"count": 4, "shape": [1024, 256], "dtype": "F16"}
    assert found.config["projector_type"] == "swiglu"
    assert found.config["audio_config.d_model"] == 256
    assert found.files["model.safetensors"] == 14_442_544
    assert found.processor["ms_per_token"] == 80
    assert found.processor["channels"] == 80
    assert found.processor["audio_token"] == "<|audio|>"
    assert found.tied_head
    assert found.projector is not None
    assert found.projector.trained
    assert min(found.projector.edge.values()) > 1.5


@pytest.mark.parametrize("projector", PROJECTORS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_fresh_projector_looks_random(projector: str, seed: int) -> None:
    model, _ = builders.graft(projector=projector, frame_stack=2, seed=seed)
    verdict = judge(model.projector.state_dict().items())
    assert not verdict.trained
    assert verdict.edge


@pytest.mark.parametrize("shape", [(32, 16), (64, 64), (256, 768), (400, 100)])
def test_random_entries_of_any_distribution_stay_below_the_threshold(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    for matrix in (torch.randn(shape) * 0.02, torch.rand(shape) - 0.5, torch.randn(shape).sign() * 3):
        assert 0.85 < spectral_edge(matrix) < edge_threshold(*shape)


def test_the_edge_is_the_largest_singular_value_in_units_of_a_random_one() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(60, 90) + torch.outer(torch.randn(60), torch.randn(90))
    exact = float(torch.linalg.svdvals(matrix)[0] / (matrix.pow(2).mean().sqrt() * (60**0.5 + 90**0.5)))
    assert spectral_edge(matrix) == pytest.approx(exact, rel=1e-3)
    assert spectral_edge(torch.zeros(4, 4)) == 0.0


@pytest.mark.parametrize("projector", PROJECTORS)
def test_a_few_steps_of_training_show(projector: str) -> None:
    model, _ = builders.graft(projector=projector, frame_stack=2)
    torch.manual_seed(0)
    part = model.projector
    # What an encoder says and a language model is to hear has few directions, and not as many as there are dimensions.
    meaning = torch.randn(1, 256, 3)
    inputs, targets = meaning @ torch.randn(3, part.input_size), meaning @ torch.randn(3, part.output_size)
    optimiser = torch.optim.AdamW(part.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        (part(inputs) - targets).pow(2).mean().backward()
        optimiser.step()
    assert judge((name, tensor.detach()) for name, tensor in part.state_dict().items()).trained


def test_a_norm_that_moved_is_a_sign_by_itself() -> None:
    norm = nn.LayerNorm(8)
    names = [("layer_norm.weight", norm.weight.data * 0.3), ("layer_norm.bias", norm.bias.data)]
    assert not judge(names).trained
    names[0][1][2] += 1e-3
    assert judge(names).norms == {"layer_norm.weight": True, "layer_norm.bias": False}


def rewrite(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def put(name: str, value: float) -> Any:
    return lambda tensors: tensors[name].view(-1)[:1].fill_(value)


BROKEN: dict[str, tuple[Any, str]] = {
    "NaN": (lambda f: rewrite(f, put("projector.linear_1.weight", float("nan"))), "tensor projector.linear_1.weight holds NaN or infinite"),
    "infinite": (lambda f: rewrite(f, put("language_model.model.norm.weight", float("inf"))), "model.norm.weight holds NaN or infinite"),
    "zero": (lambda f: rewrite(f, lambda t: t["audio_tower.conv1.weight"].zero_()), "tensor audio_tower.conv1.weight is zero throughout"),
    "missing": (lambda f: rewrite(f, lambda t: t.pop("audio_tower.conv1.weight")), "lacks tensor audio_tower.conv1.weight"),
    "extra": (lambda f: rewrite(f, lambda t: t.update(surprise=torch.ones(2))), "extra tensor surprise"),
    "shape": (
        lambda f: rewrite(f, lambda t: t.update({"projector.linear_2.weight": torch.ones(3, 3)})),
        "another shape for tensor projector.linear_2",
    ),
    "truncated": (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5000]), "can't be read as safetensors"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no model.safetensors"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "lacks tokenizer.json"),
    "config": (lambda f: (f / "config.json").write_text("{"), "can't load"),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_what_is_broken_is_named(tmp_path: Path, damage: str) -> None:
    whole(tmp_path)
    assert inspect_model(tmp_path).problems == []
    spoil, message = BROKEN[damage]
    spoil(tmp_path)
    found = inspect_model(tmp_path)
    assert any(message in problem for problem in found.problems), found.problems
    assert not any("\n" in problem for problem in found.problems)


def test_system_a_is_described_and_its_missing_shard_is_named(tmp_path: Path) -> None:
    builders.system_a(tmp_path)
    found = inspect_model(tmp_path)
    assert found.problems == []
    assert found.kind == "system-a"
    assert found.components["projector"].tensors == {"audio_projector.weight": {"count": 1, "shape": [32, 64], "dtype": "F32"}}
    assert set(found.components) == {"audio_tower", "projector", "vision_tower", "language_model"}
    assert found.config["audio_token_id"] == 320
    assert found.processor["ms_per_token"] == 20
    assert found.projector is not None
    assert not found.projector.trained
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert any("lacks model-00002-of-00002.safetensors, which its index names" in problem for problem in inspect_model(tmp_path).problems)


def test_a_stock_model_is_described(tmp_path: Path) -> None:
    found = inspect_model(builders.stock_checkpoint(tmp_path, "qwen2_audio"))
    assert found.problems == []
    assert found.kind == "stock"
    assert set(found.components) == {"audio_tower", "projector", "language_model"}


def lora_adapter(folder: Path, trained: bool = True) -> Path:
    base = whole(folder / "base")
    model, processor = load_model(base)
    model.requires_grad_(False)
    model.projector.requires_grad_(True)
    inject_lora(model.language_model, ["model.layers.0.self_attn.q_proj"], LoraSettings(4, 8.0))
    model.projector.requires_grad_(True)
    if trained:
        for layer in lora_modules(model).values():
            layer.lora_B["default"].weight.data.normal_()
    save_adapter(model, processor, folder / "adapter", {"model": str(base)}, {"stage": "finetune"}, {"commit": "c"}, ["language_model.q"])
    return folder / "adapter"


def test_an_adapter_is_described(tmp_path: Path) -> None:
    found = inspect_model(lora_adapter(tmp_path))
    assert found.problems == []
    assert found.kind == "adapter"
    assert found.components["language_model"].parameters == 4 * 32 + 32 * 4
    assert found.adapter["lora"] == {"language_model": {"r": 4, "lora_alpha": 8.0, "use_rslora": False, "use_dora": False, "layers": 1}}
    assert found.adapter["recipe"] == {"stage": "finetune"}
    assert found.quantised == ["language_model.q"]
    assert found.projector is not None
    assert not found.projector.trained
    assert "lora-language_model/adapter_model.safetensors" in found.files


def test_an_untrained_or_orphaned_adapter_is_broken(tmp_path: Path) -> None:
    folder = lora_adapter(tmp_path, trained=False)
    assert any("lora_B.weight is zero throughout: this adapter does nothing" in problem for problem in inspect_model(folder).problems)
    fields = json.loads((folder / "adapter.json").read_text())
    fields["trained"].append("projector.more")
    (folder / "adapter.json").write_text(json.dumps(fields))
    assert "lacks tensor projector.more, which adapter.json names" in inspect_model(folder).problems
    (tmp_path / "base").rename(tmp_path / "gone")
    assert any("which is gone" in problem for problem in inspect_model(folder).problems)


def test_no_model_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown model"):
        inspect_model(tmp_path / "nowhere")
