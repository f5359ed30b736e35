"""Training with `lora_gate: audio`: what was there before stays, to the bit; what the switch excludes is refused in one line."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import processes
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from audiograft.model import audio_messages, load_model
from audiograft.model.adapters import read_adapter
from audiograft.model.gating import gate_of
from audiograft.train.recipe import DataRecipe, LoraRecipe, load_recipe
from audiograft.train.run import train
from audiograft.train.setup import open_model
from audiograft.types import ConfigError, DataError

GIVEN_UP = "merging gives lora_gate: audio up"


@pytest.fixture
def gated(recipe):
    lora = LoraRecipe(rank=4, dropout=0.1)
    return replace(recipe, stage="finetune", lora=lora, lora_gate="audio", learning_rate=1e-2, tokens_per_batch=1000, save="adapter")


def printed(recipe) -> tuple[dict[str, Any], str]:
    """train.json and what was printed."""
    page = io.StringIO()
    return train(recipe, console=Console(file=page, width=240)), page.getvalue()


def losses(result: dict[str, Any]) -> list[float]:
    return [line["loss"] for line in result["log"] if "loss" in line]


@torch.no_grad()
def mixed(model, processor) -> Tensor:
    """Logits of a row of text and a row with audio."""
    texts = [processor.build_prompt(audio_messages("one two three", 0)), processor.build_prompt(audio_messages("hear", 1))]
    return model(**processor(texts, audio=[builders.tone(0.5)])).logits


def with_text(clips: Path, folder: Path) -> Path:
    """The clips, and a row of text alone."""
    lines = clips.read_text(encoding="utf-8").splitlines()
    manifest = clips.with_name(f"{folder.name}.jsonl")
    manifest.write_text("\n".join([*lines, json.dumps({"id": "only-text", "prompt": "say", "response": "six"})]) + "\n", encoding="utf-8")
    return manifest


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rows_without_audio_answer_as_before_training(gated, precision: str) -> None:
    result, page = printed(replace(gated, precision=precision))
    assert losses(result)[-1] < losses(result)[0]
    assert re.search(r"LoRA in the language model's decoder [\d,]+ \(on rows with audio alone\) parameters", page)
    assert GIVEN_UP not in page
    assert result["gate_given_up"] is False
    assert result["recipe"]["lora_gate"] == read_adapter(Path(gated.output_dir)).lora_gate == "audio"
    for dtype in (torch.float32, torch.bfloat16):
        before = mixed(*load_model(gated.model, dtype=dtype))
        after = mixed(*load_model(gated.output_dir, dtype=dtype, lora_dtype=torch.float32))
        assert torch.equal(after[0], before[0])
        assert not torch.allclose(after[1], before[1], atol=1e-2)


def test_on_rows_with_audio_it_trains_as_without_a_gate(gated, run_quietly: Callable[..., dict[str, Any]]) -> None:
    with_gate = run_quietly(gated)
    always = run_quietly(gated, lora_gate="always", output_dir=f"{gated.output_dir}-always")
    checkpointed = run_quietly(gated, gradient_checkpointing=True, output_dir=f"{gated.output_dir}-checkpointed")
    assert losses(with_gate) == losses(always)
    assert losses(checkpointed) == pytest.approx(losses(always), rel=1e-5)
    file = "lora-language_model/adapter_model.safetensors"
    one, two = (load_file(Path(folder) / file) for folder in (gated.output_dir, f"{gated.output_dir}-always"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert read_adapter(Path(f"{gated.output_dir}-always")).lora_gate == "always"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch's compiler has some of its own
@pytest.mark.parametrize("checkpointing", [False, True])
def test_compiled_layers_give_the_same_losses(gated, run_quietly: Callable[..., dict[str, Any]], checkpointing: bool) -> None:
    gated = replace(gated, max_steps=3, lora=LoraRecipe(rank=4))
    plain = run_quietly(gated, output_dir=f"{gated.output_dir}-plain")
    compiled = run_quietly(gated, compile=True, gradient_checkpointing=checkpointing)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-5)


def test_merging_at_the_end_gives_the_gate_up_and_says_so(gated) -> None:
    result, page = printed(replace(gated, save="merged"))
    assert page.count(GIVEN_UP) == 1
    assert "save: adapter keeps the gate" in page
    assert result["gate_given_up"] is True
    assert json.loads((Path(gated.output_dir) / "train.json").read_text(encoding="utf-8"))["gate_given_up"] is True
    merged = load_model(gated.output_dir)
    assert gate_of(merged[0]) == "always"
    assert not torch.allclose(mixed(*merged)[0], mixed(*load_model(gated.model))[0], atol=1e-3)


def test_4_bit_weights(gated) -> None:
    gated = replace(gated, quantisation="nf4", max_steps=3, save="merged")
    result, page = printed(gated)
    assert page.count(GIVEN_UP) == 1
    assert result["merge_failed"] is False
    assert json.loads((Path(gated.output_dir) / "merge.json").read_text(encoding="utf-8"))["gate_given_up"] is True


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return builders.vlm_graft(tmp_path_factory.mktemp("seeing"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_gate": "always"}, "lora_gate: always lets LoRA change .*: lora_gate: audio with save: adapter leaves that as it is"),
        (
            {"lora_gate": "always", "save": "merged"},
            "lora_gate: always lets LoRA change .*: lora_gate: audio with save: adapter leaves that as it is",
        ),
        ({"save": "merged"}, "save: merged gives lora_gate: audio up and changes .*: save: adapter leaves that as it is"),
        ({}, None),
        ({"lora_gate": "always", "lora": LoraRecipe(rank=4, language_model=(), audio_tower=("q_proj",))}, None),
        ({"lora_gate": "always", "lora": LoraRecipe(), "stage": "align"}, None),
    ],
)
def test_a_run_says_at_its_start_that_a_model_with_eyes_will_answer_differently(
    gated, seeing: Path, changes: dict[str, Any], said: str | None
) -> None:
    assert "text and pictures" not in opened(replace(gated, **changes))  # no eyes, and no warning
    page = opened(replace(gated, model=str(seeing), **changes))
    if said is None:
        assert "text and pictures" not in page
    else:
        (line,) = [line for line in page.splitlines() if "text and pictures" in line]
        assert re.fullmatch(f"warning: {said}; audiograft evaluate --retention BASE measures it", line)


def opened(recipe) -> str:
    """What is printed while the recipe's model is opened."""
    page = io.StringIO()
    open_model(recipe, Console(file=page, width=100))
    return page.getvalue()


@pytest.mark.parametrize("where", ["train", "streaming"])
def test_rows_without_audio_are_an_error_that_names_them_and_the_switch(gated, clips: Path, tmp_path: Path, where: str) -> None:
    text, heard = str(with_text(clips, tmp_path)), str(clips)
    data = {
        "train": DataRecipe(train=(heard, text)),
        "streaming": DataRecipe(train=(text,), validation=heard, streaming=True),
    }[where]
    mend = "take the rows without audio out, or set lora_gate: always, which changes what the model answers without audio"
    place = f"{text}:{len(Path(text).read_text().splitlines())}" if where == "train" else text
    with pytest.raises(DataError, match=f"^{place}: row only-text: has no audio, and lora_gate: audio keeps LoRA from such rows: {mend}$"):
        printed(replace(gated, data=data))
    # Under `always` it is learnt.
    if where == "train":
        printed(replace(gated, data=data, lora_gate="always", max_steps=1, output_dir=f"{gated.output_dir}-always"))


@pytest.mark.parametrize("streaming", [False, True])
def test_validation_data_may_have_rows_without_audio(gated, clips: Path, tmp_path: Path, streaming: bool) -> None:
    text = str(with_text(clips, tmp_path))
    n_heard = len(clips.read_text(encoding="utf-8").splitlines())
    data = DataRecipe(train=(str(clips),), validation=text, validation_clips=n_heard + 1, streaming=streaming)
    result, _ = printed(replace(gated, data=data, max_steps=2, eval_steps=1))
    assert result["rows"]["validation"] == n_heard + 1
    # What is learnt moves the rows with audio alone.
    assert len({line["eval_loss"] for line in result["log"] if "eval_loss" in line}) > 1


@pytest.mark.parametrize("stage", ["align", "finetune"])
def test_an_adapter_with_a_gate_is_not_trained_on(gated, stage: str) -> None:
    printed(replace(gated, max_steps=1))
    lora = LoraRecipe() if stage == "align" else gated.lora
    again = replace(gated, stage=stage, lora=lora, lora_gate="always", model=gated.output_dir, output_dir=f"{gated.output_dir}-again")
    with pytest.raises(ConfigError, match="has lora_gate: audio, and to train on merges its LoRA: .*audiograft merge"):
        printed(again)


@pytest.mark.parametrize(
    ("keys", "needle"),
    [
        ({"lora": {"dora": True}}, "lora.dora and lora_gate: audio exclude each other"),
        ({"lora": {"language_model": [], "audio_tower": "all"}}, "lora_gate: audio without LoRA in the language model has nothing to gate"),
        ({"stage": "align"}, "lora_gate is read by the stage finetune alone"),
        ({"lora_gate": "sometimes"}, "lora_gate must be one of audio, always, not 'sometimes'"),
    ],
)
def test_what_the_recipe_excludes(tmp_path: Path, keys: dict[str, Any], needle: str) -> None:
    path = tmp_path / "recipe.yaml"
    tree = {"stage": "finetune", "model": "tiny", "output_dir": str(tmp_path / "out"), "data": {"train": "x.jsonl"}, "lora_gate": "audio"}
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert load_recipe(path).lora_gate == "audio"
    path.write_text(yaml.safe_dump(tree | keys), encoding="utf-8")
    with pytest.raises(ConfigError, match=needle):
        load_recipe(path)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_processes_do_what_one_does(gated, run_quietly: Callable[..., dict[str, Any]], tmp_path: Path, parallel: str) -> None:
    gated = replace(gated, lora=LoraRecipe(rank=2), tokens_per_batch=90, gradient_accumulation_steps=2, gradient_checkpointing=True, max_steps=4)
    folder = tmp_path / "two"
    folder.mkdir()
    halved = replace(gated, output_dir=str(folder / "out"), gradient_accumulation_steps=1, parallel=parallel)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(halved.as_dict()))), encoding="utf-8")
    pair = processes.start_pair(["train", str(folder / "recipe.yaml")], folder)
    one = run_quietly(gated)
    for running in pair:
        assert running.wait() in (0, 1), running.log.read_text(encoding="utf-8")[-3000:]
    two = json.loads((folder / "out" / "train.json").read_text(encoding="utf-8"))
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert gate_of(load_model(folder / "out")[0]) == "audio"
    assert torch.equal(mixed(*load_model(folder / "out"))[0], mixed(*load_model(gated.model))[0])
