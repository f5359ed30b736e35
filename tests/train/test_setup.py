"""What a run starts from: models of every kind, in the precision asked for, and what the recipe may not ask of them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from rich.console import Console
from transformers import WhisperFeatureExtractor, modeling_utils

from audiograft.model import audio_messages, load_model
from audiograft.model.lora import is_4bit, lora_modules
from audiograft.model.quantise import decoder_linears
from audiograft.train import setup
from audiograft.train.recipe import GraftRecipe, LoraRecipe
from audiograft.train.run import dry_run, train
from audiograft.types import ConfigError


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> GraftRecipe:
    folder = tmp_path_factory.mktemp("parts")
    builders.audio_tower().save_pretrained(folder / "encoder")
    WhisperFeatureExtractor().save_pretrained(folder / "encoder")
    return GraftRecipe(str(folder / "encoder"), str(builders.lm_checkpoint(folder / "lm")), projector="mlp", frame_stack=2)


@pytest.fixture(scope="session")
def stock_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.stock_checkpoint(tmp_path_factory.mktemp("stock"), "qwen2_audio")


@pytest.fixture
def finetune(recipe):
    return replace(recipe, stage="finetune", lora=LoraRecipe(rank=4), learning_rate=1e-2, tokens_per_batch=1000, save="adapter")


@torch.no_grad()
def logits(model, processor) -> torch.Tensor:
    inputs = processor([processor.build_prompt(audio_messages("Transcribe."))], audio=[builders.tone(0.5)])
    return model(**inputs).logits.float()


def losses(result: dict[str, Any]) -> list[float]:
    return [line["loss"] for line in result["log"] if "loss" in line]


def run_and_keep(recipe, monkeypatch) -> tuple[dict[str, Any], Any, str]:
    """train.json, the model as it was at the end, and what was printed."""
    from audiograft.train import run

    kept: list[Any] = []
    check = run.check_deafness
    monkeypatch.setattr(run, "check_deafness", lambda model, *args, **kwargs: [kept.append(model), check(model, *args, **kwargs)][1])
    page = io.StringIO()
    result = train(recipe, console=Console(file=page, width=200))
    return result, kept[0], page.getvalue()


def test_two_stages_from_parts_that_are_joined_in_memory(finetune, parts: GraftRecipe, monkeypatch) -> None:
    align = replace(finetune, stage="align", lora=LoraRecipe(), model=None, graft=parts, output_dir=f"{finetune.output_dir}-align")
    _, model, printed = run_and_keep(align, monkeypatch)
    assert "trained, in float32: projector " in printed
    assert "warning" not in printed
    again, processor = load_model(align.output_dir)
    assert again.config.projector_type == "mlp"
    assert torch.equal(logits(again, processor), logits(model, processor))
    # The second stage starts from the first one's adapter, and says what it is made of.
    result, model, printed = run_and_keep(replace(finetune, model=align.output_dir, graft=parts), monkeypatch)
    assert "warning" not in printed
    assert "LoRA in the language model's decoder" in printed
    loaded, processor = load_model(finetune.output_dir)
    assert len(lora_modules(loaded)) == 14
    assert torch.equal(logits(loaded, processor), logits(model, processor))
    assert result["quantised"] == []
    # A third one merges the second one's LoRA before it puts in its own.
    third = replace(finetune, model=finetune.output_dir, output_dir=f"{finetune.output_dir}-third")
    _, model, _ = run_and_keep(third, monkeypatch)
    torch.testing.assert_close(logits(*load_model(third.output_dir)), logits(model, processor), atol=1e-5, rtol=1e-4)


def test_dry_run_of_parts_loads_no_weights(finetune, parts: GraftRecipe, monkeypatch) -> None:
    monkeypatch.setattr(setup, "graft_in_memory", None)
    assert "<audio x 10>" in dry_run(replace(finetune, model=None, graft=parts, tokens_per_batch=80))


def test_finetune_without_align_warns_in_one_line(finetune, parts: GraftRecipe) -> None:
    for changes in ({"model": None, "graft": parts}, {}):
        page = io.StringIO()
        setup.open_model(replace(finetune, **changes), Console(file=page, width=60))
        assert page.getvalue().startswith("warning: the projector of ")
        assert page.getvalue().endswith("was never aligned: run a recipe with stage: align first\n")
        assert page.getvalue().count("\n") == 1
    page = io.StringIO()
    setup.open_model(replace(finetune, model="tiny"), Console(file=page))
    setup.open_model(replace(finetune, stage="align", lora=LoraRecipe()), Console(file=page))
    assert page.getvalue() == ""


@pytest.mark.parametrize(
    ("changes", "needle"),
    [
        (
            {"graft": GraftRecipe("e", "l", projector="mlp")},
            r"is a checkpoint of another projector: it has projector swiglu, and graft\.projector is mlp",
        ),
        ({"graft": GraftRecipe("e", "l", frame_stack=8)}, r"another projector: it has frame_stack 4, and graft\.frame_stack is 8"),
        ({"graft": GraftRecipe("e", "l", pad_to_window=True)}, r"another projector: it has pad_to_window False"),
        ({"attention": "flash_attention_2"}, "attention: flash_attention_2 needs a GPU"),
    ],
)
def test_what_does_not_fit_the_model_is_one_line(finetune, changes: dict[str, Any], needle: str) -> None:
    with pytest.raises(ConfigError, match=needle) as caught:
        setup.open_model(replace(finetune, **changes), Console(quiet=True))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["parts", "graft", "adapter", "stock"])
def test_weights_are_quantised_as_they_are_read(finetune, parts: GraftRecipe, stock_folder: Path, monkeypatch, kind: str) -> None:
    in_16_bits = []
    later = setup.quantise_in_place
    monkeypatch.setattr(
        setup, "quantise_in_place",
        lambda model, *args: [in_16_bits.extend(name for name, layer in decoder_linears(model).items() if not is_4bit(layer)), later(model, *args)],
    )  # fmt: skip
    changes: dict[str, dict[str, Any]] = {
        "parts": {"model": None, "graft": parts},
        "graft": {},
        "adapter": {"model": f"{finetune.output_dir}-align"},
        "stock": {"model": str(stock_folder)},
    }
    if kind == "adapter":
        align = replace(finetune, stage="align", lora=LoraRecipe(), model=None, graft=parts, output_dir=f"{finetune.output_dir}-align", max_steps=1)
        train(align, console=Console(quiet=True))
    start = setup.open_model(replace(finetune, quantisation="nf4", precision="bf16", **changes[kind]), Console(quiet=True))
    assert in_16_bits == []
    assert len(start.quantised) == 14
    assert not hasattr(start.model.config, "quantization_config")


@pytest.mark.parametrize("stage", ["align", "finetune"])
def test_gradient_checkpointing_changes_no_loss(finetune, run_quietly: Callable[..., dict[str, Any]], stage: str, monkeypatch) -> None:
    used = []
    plain = modeling_utils.checkpoint
    monkeypatch.setattr(modeling_utils, "checkpoint", lambda *args, **kwargs: [used.append(kwargs), plain(*args, **kwargs)][1])
    lora = LoraRecipe(rank=4) if stage == "finetune" else LoraRecipe()
    recipe = replace(finetune, stage=stage, lora=lora, max_steps=3)
    without = run_quietly(recipe, output_dir=f"{recipe.output_dir}-without")
    assert not used
    with_it = run_quietly(recipe, gradient_checkpointing=True)
    assert used
    assert all(kwargs["use_reentrant"] is False for kwargs in used)
    assert losses(with_it) == losses(without)


def test_frozen_weights_are_held_in_what_is_computed_in(finetune, monkeypatch) -> None:
    result, model, printed = run_and_keep(replace(finetune, precision="bf16", max_steps=3), monkeypatch)
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert "in bfloat16; attention: sdpa" in printed
    fp32, _, printed = run_and_keep(
        replace(finetune, precision="bf16", frozen_precision="fp32", max_steps=3, output_dir=f"{finetune.output_dir}-32"), monkeypatch
    )
    assert "in float32; attention" in printed
    assert losses(result) == pytest.approx(losses(fp32), rel=0.05)
    assert losses(result) != losses(fp32)


def test_a_projector_is_not_rounded_between_stages(finetune, run_quietly: Callable[..., dict[str, Any]], parts: GraftRecipe) -> None:
    merged = replace(finetune, stage="align", lora=LoraRecipe(), max_steps=2, save="merged")
    # Folders of the user may be called like ours.
    folders = [str(Path(finetune.output_dir).parent / "lora-x" / name) for name in ("merged", "adapter", "lora-y")]
    for changes in (
        {"output_dir": folders[0]},
        {"output_dir": folders[1], "model": None, "graft": parts, "save": "adapter"},
        {"output_dir": folders[2]},
    ):
        recipe = replace(merged, **changes)
        run_quietly(recipe)
        projector = load_model(recipe.output_dir)[0].projector.state_dict()
        assert any(not torch.equal(tensor, tensor.to(torch.bfloat16).float()) for tensor in projector.values())
        start = setup.open_model(replace(finetune, model=recipe.output_dir, precision="bf16"), Console(quiet=True))
        assert {name: tensor.tolist() for name, tensor in start.model.projector.state_dict().items()} == {
            name: tensor.tolist() for name, tensor in projector.items()
        }


def test_eager_attention_can_be_asked_for(finetune, run_quietly: Callable[..., dict[str, Any]]) -> None:
    result = run_quietly(finetune, attention="eager", max_steps=1)
    assert result["attention"] == "eager"


def test_what_one_kind_of_output_leaves_the_other_takes_away(finetune, run_quietly: Callable[..., dict[str, Any]]) -> None:
    folder = Path(finetune.output_dir)
    run_quietly(finetune, max_steps=1)
    run_quietly(finetune, max_steps=1, save="merged")
    assert not lora_modules(load_model(folder)[0])
    assert not (folder / "adapter.json").exists()
    run_quietly(finetune, max_steps=1)
    assert not (folder / "model.safetensors").exists()
    assert json.loads((folder / "train.json").read_text(encoding="utf-8"))["recipe"]["save"] == "adapter"


def test_no_run_writes_over_what_it_starts_from(finetune, parts: GraftRecipe, run_quietly: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    own = tmp_path / "own"
    for part in ("audio_encoder", "language_model"):
        shutil.copytree(getattr(parts, part), own / part)
    parts = replace(parts, audio_encoder=str(own / "audio_encoder"), language_model=str(own / "language_model"))
    align = replace(finetune, stage="align", lora=LoraRecipe(), model=None, graft=parts, output_dir=f"{finetune.output_dir}-align", max_steps=1)
    run_quietly(align)
    second = replace(finetune, model=align.output_dir, max_steps=1)
    run_quietly(second)
    third = replace(finetune, model=second.output_dir)
    cases = [(align, parts.audio_encoder), (align, parts.language_model), (second, align.output_dir), (second, parts.language_model)]
    cases += [(third, folder) for folder in (second.output_dir, align.output_dir, parts.language_model)]
    for recipe, folder in cases:
        with pytest.raises(ConfigError, match=r"output_dir: .* is the folder of .*, which the run starts from: choose another one") as caught:
            run_quietly(recipe, output_dir=folder)
        assert "\n" not in str(caught.value)
    assert (own / "language_model" / "model.safetensors").is_file()


@pytest.mark.parametrize(("save", "name"), [("adapter", "config.json"), ("adapter", "model-00001-of-00002.safetensors"), ("merged", "adapter.json")])
def test_a_model_that_no_run_wrote_stays(finetune, run_quietly: Callable[..., dict[str, Any]], save: str, name: str) -> None:
    foreign = Path(finetune.output_dir) / name
    foreign.parent.mkdir()
    foreign.write_text("mine")
    with pytest.raises(ConfigError, match="is there already, and is not of a run that ended: choose another folder") as caught:
        run_quietly(finetune, save=save)
    assert "\n" not in str(caught.value)
    # Nor is it taken away where it came while the run went on.
    foreign.unlink()
    run_quietly(finetune, lambda line: foreign.write_text("mine"), save=save, max_steps=1)
    assert foreign.read_text() == "mine"


def test_resumed_equals_uninterrupted_with_an_adapter(finetune, run_quietly: Callable[..., dict[str, Any]]) -> None:
    whole = run_quietly(finetune, output_dir=f"{finetune.output_dir}-whole", save_steps=2)

    def stop(line: dict[str, float]) -> None:
        if line["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_quietly(finetune, stop, save_steps=2)
    resumed = run_quietly(finetune, save_steps=2)
    assert losses(resumed) == losses(whole)
    for name in ("projector.safetensors", "lora-language_model/adapter_model.safetensors"):
        assert (Path(finetune.output_dir) / name).read_bytes() == (Path(f"{finetune.output_dir}-whole") / name).read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler has some of its own
def test_compiled_layers_give_the_same_losses(finetune, run_quietly: Callable[..., dict[str, Any]]) -> None:
    plain = run_quietly(finetune, max_steps=3, output_dir=f"{finetune.output_dir}-plain")
    compiled = run_quietly(finetune, max_steps=3, compile=True)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-5)
    assert len(lora_modules(load_model(finetune.output_dir)[0])) == 14
