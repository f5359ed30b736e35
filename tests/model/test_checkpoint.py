"""Saving, loading, grafting from checkpoints, and what is refused."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMultimodalLM,
    AutoProcessor,
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor, assemble, audio_messages, graft, load_graft
from audiograft.model.checkpoint import load_graft_processor
from audiograft.model.configuration import PROJECTORS
from audiograft.model.graft import graft_in_memory, graft_processor
from audiograft.model.load import load_model, load_processor
from audiograft.model.merge import merge_adapter
from audiograft.types import AudiograftError, ConfigError


def save(folder: Path, family: str = "qwen2", **kwargs: Any) -> AudioGraftForConditionalGeneration:
    model, processor = builders.graft(family, **kwargs)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


@pytest.mark.parametrize("family", [*builders.FAMILIES, "qwen2_vl"])
def test_round_trip_is_bit_equal(tmp_path: Path, family: str) -> None:
    model = save(tmp_path, family)
    loaded, processor = load_graft(tmp_path)
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    batch = processor([processor.build_prompt(audio_messages("x"))], audio=[builders.tone(0.5)])
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, loaded(**batch).logits)
    tied = loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
    assert tied == (family in ("qwen2", "smollm", "gemma2"))


@pytest.mark.parametrize("projector", PROJECTORS)
def test_auto_classes_open_every_projector(tmp_path: Path, projector: str) -> None:
    model = save(tmp_path, projector=projector, frame_stack=2)
    assert AutoConfig.from_pretrained(tmp_path).projector_type == projector
    for auto in (AutoModel, AutoModelForMultimodalLM):
        opened = auto.from_pretrained(tmp_path)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), opened.parameters(), strict=True))
    assert isinstance(AutoProcessor.from_pretrained(tmp_path), AudioGraftProcessor)


def test_all_ends_stop_generation_after_loading(tmp_path: Path) -> None:
    language_model = builders.language_model()
    language_model.generation_config.eos_token_id = 0
    processor = AudioGraftProcessor(WhisperFeatureExtractor(), builders.tokenizer())
    assemble(builders.audio_tower(), language_model, processor).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    end_of_turn = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    opened = AutoModelForMultimodalLM.from_pretrained(tmp_path)
    with_info, _ = AudioGraftForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    for model in (load_graft(tmp_path)[0], opened, with_info):
        assert model.language_model.generation_config.eos_token_id == [0, end_of_turn]


@pytest.mark.parametrize("half", ["audio_tower.conv1.weight", "projector.linear_2.weight", "language_model.model.norm.weight"])
def test_a_missing_tensor_is_named(tmp_path: Path, half: str) -> None:
    save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[half]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=f"lacks tensor {half}"):
        load_graft(tmp_path)


def test_an_extra_tensor_is_named(tmp_path: Path) -> None:
    save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({**tensors, "audio_encoder.conv1.weight": torch.ones(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"extra tensor audio_encoder\.conv1\.weight"):
        load_graft(tmp_path)


def test_a_tensor_of_another_shape_is_one_line(tmp_path: Path) -> None:
    save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["projector.linear_2.weight"] = torch.ones(3, 3)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="projector") as error:
        load_graft(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["no-such-model", "./nowhere", "a/b/c"])
def test_an_unknown_model_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown model {name}") as error:
        load_graft(name)
    assert "\n" not in str(error.value)


def test_a_broken_config_is_one_line(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(ConfigError) as error:
        load_graft(tmp_path)
    assert "\n" not in str(error.value)


def test_a_mistyped_folder_is_not_only_taken_for_a_hub_id() -> None:
    with pytest.raises(ConfigError, match=r"can't load runs/graft: .* and there is no such folder here") as error:
        load_graft("runs/graft")
    assert "\n" not in str(error.value)


def test_an_unfinished_training_run_is_called_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "training.traces").touch()
    for opened in (
        load_model,
        load_processor,
        lambda name: merge_adapter(name, tmp_path / "out"),
        lambda name: graft("tiny-encoder", name, tmp_path),
    ):
        with pytest.raises(
            ConfigError, match=f"^{run} is an unfinished training run, and holds no model yet: start the same `audiograft train` again$"
        ):
            opened(run)
    (run / "checkpoint-5").mkdir()
    with pytest.raises(ConfigError, match="again, which goes on from its last checkpoint$"):
        load_model(run)
    (run / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="can't load"):
        load_model(run)


def test_what_hears_already_is_not_grafted_again(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for base in ({"graft": {"audio_encoder": "tiny-encoder", "language_model": "tiny-vl-lm"}}, {"model": "tiny-vl"}):
        (adapter / "adapter.json").write_text(json.dumps({"base": base}))
        mend = "name the language model tiny-vl-lm or the audio encoder tiny-encoder in its place"
        with pytest.raises(ConfigError, match=f"^{adapter} is an audiograft adapter, which has ears already: {mend}$"):
            graft("tiny-encoder", adapter, tmp_path / "out")
    for damaged in ("{", "[]", "{}", '{"base": {"model": "nowhere"}}'):
        (adapter / "adapter.json").write_text(damaged)
        with pytest.raises(ConfigError, match="which has ears already: name what it was made of in its place$"):
            graft(adapter, "tiny-lm", tmp_path / "out")
    for opened in (graft_processor, graft_in_memory):
        with pytest.raises(ConfigError, match="^tiny is a graft, which has ears already: name the language model that it was made of in its place$"):
            opened("tiny-encoder", "tiny")


def spoil_audio_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"audio_config": 3}))


def truncate(path: Path, n_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:n_bytes])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated weights": lambda folder: truncate(folder / "model.safetensors", 5000),
    "cut in the header": lambda folder: truncate(folder / "model.safetensors", 20),
    "empty weights": lambda folder: truncate(folder / "model.safetensors", 0),
    "garbage weights": lambda folder: (folder / "model.safetensors").write_bytes(b"garbage" * 100),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "a number for a configuration": spoil_audio_config,
    "a list for a configuration": lambda folder: (folder / "config.json").write_text("[]"),
    "a list for the processor": lambda folder: (folder / "processor_config.json").write_text("[]"),
    "a broken tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_one_line(tmp_path: Path, damage: str) -> None:
    save(tmp_path)
    DAMAGES[damage](tmp_path)
    with pytest.raises(ConfigError, match=f"can't load (the processor of )?{tmp_path}: ") as error:
        load_graft(tmp_path)
    assert "\n" not in str(error.value)


def test_the_processor_loads_without_the_weights(tmp_path: Path) -> None:
    save(tmp_path, frame_stack=8)
    (tmp_path / "model.safetensors").unlink()
    assert load_graft_processor(tmp_path).frame_stack == 8
    builders.language_model().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="without a graft"):
        load_graft_processor(tmp_path)


def parts(tmp_path: Path, family: str = "qwen2", whole_whisper: bool = True) -> tuple[Path, Path]:
    """A Whisper checkpoint with its decoder (or the encoder alone) and a language model, as they lie on a hub."""
    encoder, lm = tmp_path / "whisper", tmp_path / "lm"
    if whole_whisper:
        torch.manual_seed(0)
        config = WhisperConfig(
            d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
            decoder_ffn_dim=32, vocab_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        WhisperForConditionalGeneration(config).save_pretrained(encoder)
    else:
        builders.audio_tower().save_pretrained(encoder)
    WhisperFeatureExtractor().save_pretrained(encoder)
    builders.language_model(family).save_pretrained(lm)
    builders.tokenizer().save_pretrained(lm)
    return encoder, lm


@pytest.mark.parametrize("whole_whisper", [True, False])
@pytest.mark.parametrize("family", builders.FAMILIES)
def test_graft_takes_both_halves_as_they_are(tmp_path: Path, family: str, whole_whisper: bool) -> None:
    encoder, lm = parts(tmp_path, family, whole_whisper)
    counts = graft(encoder, lm, tmp_path / "out", projector="swiglu", frame_stack=4)
    model, _ = load_graft(tmp_path / "out")
    assert counts["projector"] == 64 + 64 * 32 + 16 + 16 * 32
    saved = load_file(encoder / "model.safetensors")
    prefix = "model.encoder." if whole_whisper else ""
    for key, value in model.audio_tower.state_dict().items():
        assert torch.equal(value, saved[prefix + key])
    original = builders.language_model(family)
    assert all(torch.equal(a, b) for a, b in zip(model.language_model.parameters(), original.parameters(), strict=True))


def test_same_seed_same_projector(tmp_path: Path) -> None:
    encoder, lm = parts(tmp_path)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        graft(encoder, lm, tmp_path / name, seed=seed)
    a, b, c = (load_file(tmp_path / name / "model.safetensors")["projector.linear_1.weight"] for name in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_projector_output_is_as_loud_as_text() -> None:
    for projector in PROJECTORS:
        model, processor = builders.graft(projector=projector, frame_stack=2)
        features = processor.pad_features([processor.features(builders.tone(2))])
        with torch.no_grad():
            audio = model.project_audio(model.encode_audio(features["input_features"]), features["feature_lengths"])
        text = model.get_input_embeddings().weight.detach()
        ratio = float(audio.pow(2).mean().sqrt() / text.pow(2).mean().sqrt())
        assert 0.3 < ratio < 3, projector


def test_graft_refuses_what_does_not_fit(tmp_path: Path) -> None:
    encoder, lm = parts(tmp_path)
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="lm: qwen2 is no audio encoder that can be grafted: use one of Whisper, WavLM, "):
        graft(lm, lm, out)
    WhisperFeatureExtractor(feature_size=128).save_pretrained(encoder)
    with pytest.raises(ConfigError, match="128 mel bins, the encoder takes 80"):
        graft(encoder, lm, out)
    (encoder / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"can't load preprocessor_config\.json of"):
        graft(encoder, lm, out)


def test_a_language_model_with_per_layer_inputs_is_refused(tmp_path: Path) -> None:
    encoder, lm = parts(tmp_path)
    config = Gemma3nTextConfig(
        vocab_size=420, vocab_size_per_layer_input=420, hidden_size=32, hidden_size_per_layer_input=8, intermediate_size=64,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, laurel_rank=4, num_kv_shared_layers=0,
        layer_types=["full_attention", "full_attention"], activation_sparsity_pattern=[0.0, 0.0],
    )  # fmt: skip
    Gemma3nForCausalLM(config).save_pretrained(lm)
    with pytest.raises(ConfigError, match="can't be grafted onto it"):
        graft(encoder, lm, tmp_path / "out")


def test_loading_something_that_is_no_graft_says_so(tmp_path: Path) -> None:
    _, lm = parts(tmp_path)
    with pytest.raises(ConfigError, match="without a graft"):
        load_graft(lm)
    config = json.loads((lm / "config.json").read_text())
    assert config["model_type"] == "qwen2"


def test_options_are_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown projector 'q-former'"):
        graft("no-such-encoder", "no-such-model", tmp_path, projector="q-former")
    with pytest.raises(ConfigError, match="frame_stack 3"):
        graft("no-such-encoder", "no-such-model", tmp_path, frame_stack=3)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("failing", [AudioGraftForConditionalGeneration, AudioGraftProcessor])
def test_a_write_that_fails_leaves_the_model_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Any) -> None:
    encoder, lm = parts(tmp_path)
    out = tmp_path / "out"
    graft(encoder, lm, out, seed=1)
    before = contents(out)
    save_pretrained = failing.save_pretrained

    def full_disk(self: Any, folder: Path, *args: Any, **kwargs: Any) -> None:
        save_pretrained(self, folder, *args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(failing, "save_pretrained", full_disk)
    with pytest.raises(AudiograftError, match=f"{out}: the model can't be written .No space left on device.") as error:
        graft(encoder, lm, out, seed=2)
    assert "\n" not in str(error.value)
    assert contents(out) == before
    monkeypatch.undo()
    graft(encoder, lm, out, seed=2)
    assert contents(out).keys() == before.keys()
    assert contents(out) != before


def test_a_file_in_the_folders_place_is_one_line(tmp_path: Path) -> None:
    encoder, lm = parts(tmp_path)
    (tmp_path / "out").write_text("")
    with pytest.raises(AudiograftError, match="out: the model can't be written"):
        graft(encoder, lm, tmp_path / "out")


def test_shards_of_an_older_model_do_not_stay(tmp_path: Path) -> None:
    encoder, lm = parts(tmp_path)
    out = tmp_path / "out"
    graft(encoder, lm, out)
    (out / "model-00001-of-00002.safetensors").write_bytes(b"old")
    (out / "model.safetensors.index.json").write_text("{}")
    graft(encoder, lm, out)
    assert [path.name for path in out.glob("model*")] == ["model.safetensors"]
