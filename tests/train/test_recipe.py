from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from audiograft.train.recipe import DataRecipe, Recipe, load_recipe
from audiograft.types import ConfigError

MINIMAL = {"stage": "align", "model": "tiny", "output_dir": "out", "data": {"train": "train.jsonl"}}


@pytest.fixture
def written(tmp_path: Path):
    def write(**keys: object) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(MINIMAL | keys), encoding="utf-8")
        return path

    return write


def test_minimal_recipe_takes_the_defaults(written) -> None:
    assert load_recipe(written()) == Recipe("align", "out", DataRecipe(train=("train.jsonl",)), model="tiny")


def test_overrides_win_and_are_yaml(written) -> None:
    overrides = ["data.train=[a.jsonl, b.jsonl]", "learning_rate=1e-3", "lora.language_model=q_proj", "max_steps=7", "feature_cache=cache"]
    recipe = load_recipe(written(stage="finetune", lora={"rank": 4}), [*overrides, "deafness.clips=9"])
    assert recipe.data.train == ("a.jsonl", "b.jsonl")
    assert recipe.learning_rate == 0.001
    assert (recipe.lora.rank, recipe.lora.language_model, recipe.lora.audio_tower) == (4, ("q_proj",), ())
    assert (recipe.max_steps, recipe.feature_cache, recipe.deafness.clips) == (7, "cache", 9)


def test_a_recipe_written_out_reads_back_the_same(written, tmp_path: Path) -> None:
    parts = {"audio_encoder": "tiny-encoder", "language_model": "tiny-lm", "projector": "mlp"}
    keys = {"stage": "finetune", "lora": {"dropout": 0.1}, "graft": parts, "expected_wer": [0, 0.1], "quantisation": "nf4", "loss": "kl"}
    recipe = load_recipe(written(learning_rate="2e-4", report_to=["tensorboard"], **keys))
    assert (recipe.graft.projector, recipe.graft.frame_stack, recipe.expected_wer) == ("mlp", 4, (0.0, 0.1))
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(yaml.safe_load(yaml.dump(_plain(recipe.as_dict())))), encoding="utf-8")
    assert load_recipe(again) == recipe


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize(
    ("keys", "needle"),
    [
        ({"learnig_rate": 1}, "unknown key learnig_rate: the closest valid one is learning_rate"),
        ({"data": {"trian": "x"}}, "unknown key data.trian: the closest valid one is data.train"),
        ({"lora": {"langage_model": ["x"]}}, "unknown key lora.langage_model: the closest valid one is lora.language_model"),
        ({"graft": {"audio_encoder": "x"}}, "the key graft.language_model is missing"),
        ({"graft": {"audio_encoder": "", "language_model": "x"}}, "graft.audio_encoder must be given, not ''"),
        ({"model": None}, "there is nothing to start from: give model, or graft with audio_encoder and language_model"),
        ({"model": ""}, "there is nothing to start from"),
        ({"quantisation": "int8"}, "quantisation must be one of nf4, not 'int8'"),
        ({"frozen_precision": "fp8"}, "frozen_precision must be one of fp32, bf16, fp16, not 'fp8'"),
        ({"kl_temperature": 0}, "kl_temperature must be above 0, not 0.0"),
        ({"expected_wer": [0.2, 0.1]}, "expected_wer must be a lowest and a highest rate"),
        ({"expected_wer": 0.1}, "expected_wer must be a lowest and a highest rate"),
        ({"lora": {"rank": 4}}, "lora is read by the stage finetune alone"),
        ({"train_projector": False}, "train_projector: false leaves the stage align nothing to train"),
        ({"stage": "finetune", "lora": {"projector": ["linear_1"]}}, "lora.projector adapts a frozen projector: set train_projector: false"),
        ({"stage": "finetune", "feature_cache": "c", "lora": {"audio_tower": ["fc1"]}}, "feature_cache needs a frozen encoder"),
        ({"compile": True, "quantisation": "nf4"}, "compile and quantisation exclude each other"),
        ({"parallel": "fsdp2", "quantisation": "nf4"}, "fsdp2 does not shard 4-bit weights"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, not 'fast'"),
        ({"learning_rate": True}, "learning_rate must be a number, not True"),
        ({"learning_rate": ".nan"}, "learning_rate must be a number, not '.nan'"),
        ({"max_steps": 2.5}, "max_steps must be a whole number, not 2.5"),
        ({"seed": True}, "seed must be a whole number, not True"),
        ({"feature_cache": 3}, "feature_cache must be text, not 3"),
        ({"stage": "algin"}, "stage must be one of align, finetune, not 'algin'"),
        ({"data": "train.jsonl"}, "data must be a section with keys of its own, not 'train.jsonl'"),
        ({"data": {"train": [1]}}, "data.train must be text, not 1"),
        ({"data": {"train": []}}, "data.train must be given, not ()"),
        ({"data": {}}, "the key data.train is missing"),
        ({"learning_rate": 10**400}, "learning_rate must be a number, not 1000"),
        ({"seed": -1}, "seed must be from 0 to 4294967295, not -1"),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295, not 4294967296"),
        ({"tokens_per_batch": 0}, "tokens_per_batch must be 1 or more, not 0"),
        ({"stage": "finetune", "lora": {"dropout": 1.0}}, "lora.dropout must be from 0 to below 1, not 1.0"),
        ({"deafness": {"clips": 5}}, "deafness.clips must be 8 or more"),
        ({"model": "out"}, "output_dir is the folder of the model it starts from"),
        ({"model": None, "graft": {"audio_encoder": "out", "language_model": "x"}}, "output_dir is the folder of the model it starts from"),
        ({"model": None, "graft": {"audio_encoder": "x", "language_model": "./out"}}, "output_dir is the folder of the model it starts from"),
        ({"model": str(Path.home() / "out"), "output_dir": "~/out"}, "output_dir is the folder of the model it starts from"),
    ],
)
def test_what_does_not_fit_is_one_line_with_file_and_key(written, keys: dict[str, object], needle: str) -> None:
    path = written(**keys)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert needle in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["learning_rate", "=3", "model.name=x", "epochs=[1", "epochs=2024-02-31"])
def test_bad_overrides_are_named(written, override: str) -> None:
    with pytest.raises(ConfigError, match="--set") as caught:
        load_recipe(written(), [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"stage: [align", b"- a list", b"", b"\xff\xfe\x00", b"stage: 2024-02-31"])
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        load_recipe(tmp_path / "none.yaml")
