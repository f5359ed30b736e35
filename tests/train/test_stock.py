"""System C's way: LoRA on a stock audio language model, its projector left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import pytest
import torch

from audiograft.inference.engine import Engine
from audiograft.model import load_model
from audiograft.train.recipe import DataRecipe, DeafnessRecipe, LoraRecipe, Recipe
from audiograft.types import ConfigError

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@pytest.fixture
def finetune(clips: Path, tmp_path: Path) -> Callable[[str], Recipe]:
    """A few steps on a stock model of this kind."""

    def recipe(kind: str) -> Recipe:
        return Recipe(
            stage="finetune",
            model=str(builders.stock_checkpoint(tmp_path / kind, kind)),
            output_dir=str(tmp_path / "run"),
            data=DataRecipe(train=(str(clips),)),
            learning_rate=3e-3,
            max_steps=4,
            tokens_per_batch=900,
            logging_steps=1,
            save_steps=4,
            gradient_checkpointing=True,
            save="adapter",
            train_projector=False,
            lora=LoraRecipe(rank=4, language_model=ATTENTION, audio_tower=("q_proj", "k_proj", "v_proj")),
            deafness=DeafnessRecipe(clips=8, permutations=50),
        )

    return recipe


CLIP = (builders.tone(0.4, 300), 16_000)


def test_only_adapters_are_trained_and_they_open_again(
    finetune: Callable[[str], Recipe], run_quietly: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = finetune("qwen2_audio")
    result = run_quietly(recipe)
    # Two layers of q (32 -> 32), k and v (32 -> 16) and o in the decoder; of q, k and v (16 -> 16) in the encoder; rank 4.
    assert result["parameters"]["lora_by_component"] == {"language_model": 2 * 4 * (64 + 48 + 48 + 64), "audio_tower": 2 * 4 * 3 * 32}
    assert result["parameters"]["projector"] == 0
    losses = [line["loss"] for line in result["log"] if "loss" in line]
    assert losses[-1] < losses[0]
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"adapter.json", "lora-language_model", "lora-audio_tower"} <= files
    assert not {"model.safetensors", "projector.safetensors"} & files
    assert recipe.model is not None
    base, processor = load_model(recipe.model)
    tuned, _ = load_model(tmp_path / "run")
    batch = processor([processor.build_prompt([{"role": "user", "content": [{"type": "audio"}]}])], audio=[CLIP[0]])
    with torch.no_grad():
        assert (base(**batch).logits - tuned(**batch).logits).abs().max() > 1e-3
    assert isinstance(Engine.load(tmp_path / "run", device="cpu").transcribe(CLIP, max_new_tokens=3).text, str)


def test_a_merged_run_is_a_stock_checkpoint(finetune: Callable[[str], Recipe], run_quietly: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    run_quietly(finetune("voxtral"), save="merged")
    merged, _ = load_model(tmp_path / "run")
    base, _ = load_model(tmp_path / "voxtral")
    own, former = dict(merged.named_parameters()), dict(base.named_parameters())
    changed = {name for name, parameter in former.items() if not torch.equal(parameter, own[name])}
    assert own.keys() == former.keys()
    assert changed == {name for name in own if name.endswith(tuple(f"{target}.weight" for target in ATTENTION))}


def test_nf4_is_trained_and_merged_into_the_base(
    finetune: Callable[[str], Recipe], run_quietly: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    result = run_quietly(finetune("audioflamingo3"), quantisation="nf4", save="merged")
    # q, k, v, o, gate, up and down of two layers: nothing of the encoder, the projector or the head.
    assert len(result["quantised"]) == 14
    assert all(".language_model." in name for name in result["quantised"])
    merged, _ = load_model(tmp_path / "run")
    assert {parameter.dtype for parameter in merged.parameters()} <= {torch.float32, torch.bfloat16}


def test_a_model_with_lora_of_its_own_is_not_trained(finetune: Callable[[str], Recipe], run_quietly: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match="comes with LoRA of its own"):
        run_quietly(finetune("granite_speech"))


def test_a_stock_model_is_not_aligned_and_has_no_feature_cache(
    finetune: Callable[[str], Recipe], run_quietly: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = finetune("qwen2_audio")
    with pytest.raises(ConfigError, match="use stage: finetune"):
        run_quietly(replace(recipe, stage="align", train_projector=True))
    with pytest.raises(ConfigError, match="can't be cached"):
        run_quietly(recipe, feature_cache=str(tmp_path / "cache"))
