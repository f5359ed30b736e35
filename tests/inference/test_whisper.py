"""A stock Whisper writes what transformers' own class writes, with everything beside it that an engine gives."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AddedToken, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer

from audiograft.inference.engine import Engine
from audiograft.inference.whisper import WhisperEngine, open_engine
from audiograft.types import AudioError, ConfigError, Transcript

SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>")
END, START, ENGLISH, GERMAN, TRANSLATE, TRANSCRIBE, NO_TIMESTAMPS = range(256, 263)
CLIPS: list[Any] = [(builders.tone(seconds, hz), 16_000) for seconds, hz in ((0.4, 300), (2.0, 500), (1.1, 900), (1.2, 5000), (0.8, 1100))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, width 16; weights so large that clips differ, and one of them ends early."""
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    ids = {"decoder_start_token_id": START, "eos_token_id": END, "bos_token_id": END, "pad_token_id": END}
    size = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 80}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    suppressed = {"suppress_tokens": None, "begin_suppress_tokens": None}
    model = WhisperForConditionalGeneration(WhisperConfig(vocab_size=263, **size, **heads, **ids, **suppressed)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_proj" in name or ".fc" in name or "conv" in name:
                parameter.mul_(25)
            elif "decoder.embed_positions" in name:
                parameter.mul_(30)
            elif "embed_tokens" in name:
                parameter.mul_(60)
                parameter[END] = 2.5 * parameter[97]  # the row of a pad is zero, and nothing would ever end
    languages, tasks = {"<|en|>": ENGLISH, "<|de|>": GERMAN}, {"translate": TRANSLATE, "transcribe": TRANSCRIBE}
    for name, value in {
        "lang_to_id": languages, "task_to_id": tasks, "no_timestamps_token_id": NO_TIMESTAMPS, "is_multilingual": True,
        "begin_suppress_tokens": [32, END], "suppress_tokens": [START, ENGLISH, GERMAN, TRANSLATE, TRANSCRIBE, NO_TIMESTAMPS], "max_length": 24,
        "_from_model_config": False,
    }.items():  # fmt: skip
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    vocabulary = {letter: number for number, letter in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIAL])}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL], special_tokens=True)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == list(range(256, 263))
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def engine(folder: Path) -> WhisperEngine:
    opened = open_engine(folder, device="cpu")
    assert isinstance(opened, WhisperEngine)
    return opened


def done(engine: WhisperEngine, clips: Any = CLIPS, **options: Any) -> list[Transcript]:
    results = engine.transcribe_many(clips, **options)
    assert all(isinstance(result, Transcript) for result in results)
    return [result for result in results if isinstance(result, Transcript)]


def own_tokens(engine: WhisperEngine, waveform: Any, **options: Any) -> list[str]:
    """By the class's own `generate`, alone, to the end token and without it."""
    features = engine.processor.feature_extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_features
    ids = engine.model.generate(features, task="transcribe", **options)[0].tolist()
    ids = ids[: ids.index(END)] if END in ids else ids
    tokens: list[str] = engine.processor.tokenizer.convert_ids_to_tokens(ids)
    return tokens


@pytest.mark.parametrize("language", [None, "en", "de"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_tokens_are_those_of_transformers(engine: WhisperEngine, language: str | None, batch_size: int) -> None:
    asked = WhisperEngine(engine.model, engine.processor, "w", language)
    results = done(asked, batch_size=batch_size)
    for (waveform, _), result in zip(CLIPS, results, strict=True):
        assert [token for token in result.tokens if token != "<|endoftext|>"] == own_tokens(engine, waveform, language=language)
        assert result.text == engine.processor.tokenizer.convert_tokens_to_string([t for t in result.tokens if t != "<|endoftext|>"]).strip()
    assert len({result.text for result in results}) == len(CLIPS)
    assert len({len(result.tokens) for result in results}) > 1


def test_the_probabilities_are_those_of_a_forward_pass(engine: WhisperEngine) -> None:
    settings = engine.model.generation_config
    for (waveform, _), result in zip(CLIPS, done(WhisperEngine(engine.model, engine.processor, "w", "de"), batch_size=3), strict=True):
        answer = engine.processor.tokenizer.convert_tokens_to_ids(list(result.tokens))
        prompt = [START, GERMAN, TRANSCRIBE, NO_TIMESTAMPS]
        features = engine.processor.feature_extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_features
        with torch.no_grad():
            logits = engine.model(features, decoder_input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].clone()
        logits[:, settings.suppress_tokens] = -torch.inf
        logits[0, settings.begin_suppress_tokens] = -torch.inf
        expected = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0].tolist()
        assert result.token_logprobs == pytest.approx(expected, abs=1e-3)


def test_a_long_clip_is_cut_as_an_engine_cuts_it(engine: WhisperEngine) -> None:
    long = np.concatenate([CLIPS[1][0]] * 35)
    [result] = done(engine, [(long, 16_000)], max_new_tokens=4)
    [grafted] = Engine(*builders.graft(), "g").transcribe([(long, 16_000)], max_new_tokens=1)
    assert [(part.start_s, part.end_s) for part in result.segments] == [(part.start_s, part.end_s) for part in grafted.segments]
    assert len(result.segments) >= 3
    assert (result.decode_s or 0) > 0


def test_beams_and_draws_are_taken(engine: WhisperEngine) -> None:
    [greedy], [beams], [drawn] = (done(engine, CLIPS[1:2], **options) for options in ({}, {"num_beams": 3}, {"temperature": 2.0, "seed": 3}))
    assert beams.tokens == ()
    assert beams.text
    assert drawn.text != greedy.text
    assert drawn == done(engine, CLIPS[1:2], temperature=2.0, seed=3)[0]


def test_bad_clips_and_silence_are_told_as_by_an_engine(engine: WhisperEngine, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    silence = (np.zeros(16_000, np.float32), 16_000)
    with caplog.at_level(logging.WARNING):
        results = engine.transcribe_many([CLIPS[0], "missing.wav", silence], on_result=lambda index, result: seen.append(index))
    assert [type(result) for result in results] == [Transcript, AudioError, Transcript]
    assert isinstance(results[2], Transcript)
    assert results[2].text == ""
    assert sorted(seen) == [0, 1, 2]
    assert "every sample is zero" in caplog.text


def test_an_unknown_language_is_one_line(engine: WhisperEngine, folder: Path) -> None:
    with pytest.raises(ConfigError, match="knows no language 'english': give an ISO 639-1 code such as en"):
        WhisperEngine.load(folder, "cpu", language="english")
    with pytest.raises(ConfigError, match="tiny is no stock Whisper: name the language in the prompt"):
        open_engine("tiny", "cpu", language="en")


def test_a_whisper_of_english_alone(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((folder / "generation_config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps(settings | {"is_multilingual": False}))
    with pytest.raises(ConfigError, match="knows English alone, not 'de': leave the language out"):
        open_engine(tmp_path, "cpu", language="de")
    english = open_engine(tmp_path, "cpu", language="en")
    assert isinstance(english, WhisperEngine)
    assert done(english, CLIPS[:1])[0].text
    del settings["no_timestamps_token_id"]
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"generation_config\.json is missing or outdated: download the model again"):
        open_engine(tmp_path, "cpu")


def test_whatever_is_no_whisper_is_opened_as_before(tmp_path: Path) -> None:
    assert isinstance(open_engine("tiny", "cpu"), Engine)
    for content in ("{", "[]", '{"architectures": null}'):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ConfigError):
            open_engine(tmp_path, "cpu")
    with pytest.raises(ConfigError, match="without a graft"):
        open_engine("tiny-encoder", "cpu")
    with pytest.raises(ConfigError, match="unknown model nowhere"):
        open_engine("nowhere", "cpu")
