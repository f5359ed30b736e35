"""The engine: batches equal single runs, long files lose nothing, one bad clip spoils no other."""

from __future__ import annotations

import logging
from pathlib import Path

import builders
import numpy as np
import pytest
import soundfile
import torch

from audiograft.inference.engine import Engine
from audiograft.types import AudioError, ConfigError, Transcript


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
