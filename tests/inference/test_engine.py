"""The engine: batches equal single runs, long files lose nothing, one bad clip spoils no other."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import soundfile
import torch

from audiograft.inference.engine import Engine
from audiograft.types import AudioError, ConfigError, DataError, Transcript


def engine() -> Engine:
    model, processor = builders.graft()
    with torch.no_grad():
        # Larger weights: answers that differ from clip to clip.
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(6)
    model.language_model.generation_config.suppress_tokens = [0, 1, 2, *range(320, builders.VOCABULARY_ROWS)]
    return Engine(model, processor, "random")


CLIPS = [(builders.tone(seconds, hz), 16_000) for seconds, hz in ((0.4, 300), (2.0, 500), (0.1, 700), (1.2, 900), (0.8, 1100))]


def test_batches_give_the_texts_of_single_runs() -> None:
    listener = engine()
    together = listener.transcribe(CLIPS, batch_size=3)
    assert [t.text for t in together] == [listener.transcribe(clip).text for clip in CLIPS]
    assert len({t.text for t in together}) > 1


def test_one_source_gives_one_transcript_and_a_list_gives_a_list(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", CLIPS[0][0], 16_000)
    listener = engine()
    one = listener.transcribe(tmp_path / "a.wav")
    assert isinstance(one, Transcript)
    assert (one.audio, one.duration_s, one.model) == (str(tmp_path / "a.wav"), 0.4, "random")
    with (tmp_path / "a.wav").open("rb") as file:
        many = listener.transcribe([str(tmp_path / "a.wav"), (tmp_path / "a.wav").read_bytes(), file])
    assert [t.text for t in many] == [one.text] * 3


def test_a_bad_clip_is_reported_and_the_others_are_done() -> None:
    results = engine().transcribe_many([CLIPS[0], "missing.wav", CLIPS[1]])
    assert isinstance(results[1], AudioError)
    assert "missing.wav" in str(results[1])
    assert [isinstance(r, Transcript) for r in results] == [True, False, True]
    with pytest.raises(AudioError, match=r"missing\.wav"):
        engine().transcribe(["missing.wav"])


def test_a_silent_clip_is_empty_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = engine().transcribe((np.zeros(16_000, dtype=np.float32), 16_000))
    assert result.text == ""
    assert "every sample is zero" in caplog.text


def test_a_long_clip_is_chunked_without_a_gap() -> None:
    long = np.concatenate([CLIPS[1][0]] * 35)
    result = engine().transcribe((long, 16_000), batch_size=4)
    assert result.duration_s == 70
    assert len(result.segments) >= 3
    assert result.segments[0].start_s == 0
    assert result.segments[-1].end_s == 70
    assert all(a.end_s == b.start_s for a, b in zip(result.segments, result.segments[1:], strict=False))
    assert result.text == " ".join(s.text for s in result.segments if s.text)


@pytest.mark.parametrize("n_samples", [1, 2, 159, 200, 201])
def test_the_shortest_clips_work(n_samples: int) -> None:
    result = engine().transcribe((np.full(n_samples, 0.1, dtype=np.float32), 16_000))
    assert isinstance(result.text, str)


def test_results_arrive_as_they_are_done() -> None:
    seen: list[int] = []
    engine().transcribe_many(CLIPS, batch_size=1, on_result=lambda index, result: seen.append(index))
    assert sorted(seen) == list(range(len(CLIPS)))


def test_an_unknown_device_is_one_line() -> None:
    with pytest.raises(ConfigError, match="device 'abacus' can't be used here"):
        Engine.load("tiny", device="abacus")


@pytest.mark.parametrize("own", [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 1}, {"num_beams": 3}, {"do_sample": True, "temperature": 5.0}])
def test_decoding_is_greedy_whatever_the_language_model_prefers(own: dict[str, Any]) -> None:
    listener, other = engine(), engine()
    other.model.language_model.generation_config.update(**own)
    waveforms, prompts = [clip for clip, _ in CLIPS], ["x"] * len(CLIPS)
    greedy = listener.transcribe_waveforms(waveforms, prompts)
    assert other.transcribe_waveforms(waveforms, prompts) == greedy
    assert listener.transcribe_waveforms(waveforms, prompts, **own) != greedy


def test_a_clip_that_was_cut_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    listener = engine()
    long = np.concatenate([CLIPS[1][0]] * 20)
    with caplog.at_level(logging.WARNING):
        result = listener.transcribe((long, 16_000), max_new_tokens=3)
    assert len(result.segments) > 1
    assert [record.getMessage().count("was cut at 3 tokens; pass max_new_tokens") for record in caplog.records] == [1]


def test_an_answer_that_ends_by_itself_is_not_called_cut(caplog: pytest.LogCaptureFixture) -> None:
    listener = engine()
    # Every token ends the answer.
    listener.model.language_model.generation_config.eos_token_id = list(range(builders.VOCABULARY_ROWS))
    with caplog.at_level(logging.WARNING):
        listener.transcribe(CLIPS)
        listener.transcribe(CLIPS[0], max_new_tokens=1)
    assert not caplog.records


def test_more_tokens_on_request() -> None:
    listener = engine()
    by_default, more = listener.transcribe(CLIPS[0]), listener.transcribe_many([CLIPS[0]], max_new_tokens=60)[0]
    assert isinstance(more, Transcript)
    assert len(more.text) > len(by_default.text)


def test_a_placeholder_in_the_prompt_is_one_line() -> None:
    with pytest.raises(DataError, match=r"contains <\|audio\|>, which stands for a clip") as error:
        engine().transcribe(CLIPS[0], prompt="hear <|audio|> and write")
    assert "\n" not in str(error.value)


def test_a_prompt_that_leaves_no_room_is_one_line_a_clip() -> None:
    listener = engine()
    seen: list[int] = []
    words = "a " * 2020  # with 30 s of audio they are more than the model's 4096 positions, with 0.4 s they are not
    long = (np.concatenate([CLIPS[1][0]] * 15), 16_000)
    results = listener.transcribe_many([long, CLIPS[0]], prompt=words, max_new_tokens=2, on_result=lambda index, result: seen.append(index))
    assert isinstance(results[0], AudioError)
    assert re.fullmatch(
        r"<array>: the prompt and 30 s take 4\d\d\d positions, the transcript up to 2, and the language model has 4096: shorten the prompt, .*",
        str(results[0]),
    )
    assert isinstance(results[1], Transcript)
    assert sorted(seen) == [0, 1]


def test_a_long_prompt_shortens_the_default_budget() -> None:
    listener = engine()
    assert len(listener.transcribe(CLIPS[0], prompt="a").tokens) == 29
    # With the clip 4084 of 4096 positions.
    assert len(listener.transcribe(CLIPS[0], prompt="a " * 2030).tokens) == 12


def test_the_note_travels_with_the_model(tmp_path: Path) -> None:
    model, processor = builders.graft()
    model.config.note = "a miniature"
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert Engine.load(tmp_path, device="cpu").note == "a miniature"
