"""The engine says whether there is speech in a clip, and where: clips without sound, clips that are too short, long clips, batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import soundfile
import torch

from audiograft.inference.choices import ClosedQuestion, choice_question, score_choices, speech_probs
from audiograft.inference.detection import is_constant
from audiograft.inference.engine import Engine
from audiograft.inference.segmentation import Segmentation
from audiograft.inference.segments import segments, weakest_windows, window_starts
from audiograft.types import NONSPEECH, SPEECH, AudioError, ConfigError, Detection

QUESTION = ClosedQuestion("Speech?\n<audio>", {SPEECH: "A", NONSPEECH: "B"}, threshold=0.5)
MATERIAL = ClosedQuestion("Which?", {"wood": "A", "metal": "B"})
CLIPS: list[Any] = [(builders.tone(seconds, hz), 16_000) for seconds, hz in ((0.5, 300), (0.9, 900), (0.2, 500), (0.021, 800))]


@pytest.fixture(scope="module")
def engine() -> Engine:
    model, processor = builders.graft()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(6)
    return Engine(model, processor, "random")


def detections(results: list[Detection | AudioError]) -> list[Detection]:
    assert all(isinstance(result, Detection) for result in results), results
    return [result for result in results if isinstance(result, Detection)]


def test_a_batch_gives_what_single_clips_give_and_says_all_of_it(engine: Engine) -> None:
    together = detections(engine.choose_many(CLIPS, QUESTION, batch_size=3))
    scores = score_choices(engine.model, engine.processor, QUESTION, [clip for clip, _ in CLIPS])
    for clip, found, row in zip(CLIPS, together, scores, strict=True):
        alone = engine.detect(clip, QUESTION)
        assert alone.predicted == found.predicted == (SPEECH if found.speech_prob >= 0.5 else NONSPEECH)
        assert alone.speech_prob == pytest.approx(found.speech_prob, abs=1e-5)
        assert list(found.scores.values()) == pytest.approx(row.tolist(), abs=1e-5)
        assert sum(found.probabilities.values()) == pytest.approx(1)
        assert found.probabilities[SPEECH] == found.speech_prob
        assert found.duration_s == pytest.approx(len(clip[0]) / 16_000, abs=1e-4)
        assert (found.audio, found.model, found.segments) == ("<array>", "random", None)
        assert found.decode_s is not None
        assert found.decode_s > 0
    assert [found.predicted for found in engine.detect(CLIPS, QUESTION)] == [found.predicted for found in together]


def test_temperature_and_threshold_of_the_question_count(engine: Engine) -> None:
    [plain] = detections(engine.choose_many(CLIPS[:1], MATERIAL))
    odds = plain.scores["wood"] - plain.scores["metal"]
    for threshold, label in ((0.0, "wood"), (1.0, "metal")):
        question = ClosedQuestion(MATERIAL.prompt, MATERIAL.answers, temperature=3.0, threshold=threshold)
        [found] = detections(engine.choose_many(CLIPS[:1], question))
        assert found.predicted == label
        assert found.speech_prob == pytest.approx(1 / (1 + math.exp(-odds / 3)))
        assert found.scores == pytest.approx(plain.scores, abs=1e-6)


def test_more_than_two_choices(engine: Engine) -> None:
    question = choice_question(["dog", "car", "rain"], engine.processor.tokenizer)
    for found in detections(engine.choose_many(CLIPS, question)):
        assert found.predicted == max(found.probabilities, key=lambda label: found.probabilities[label])
        assert sum(found.probabilities.values()) == pytest.approx(1)
    with pytest.raises(ConfigError, match="the question has 3: hear the clips whole"):
        engine.choose_many(CLIPS, question, cut=True)


@pytest.mark.parametrize("value", [0.0, 0.5, -1.0])
@pytest.mark.parametrize(("rate_hz", "seconds"), [(8_000, 0.2), (8_000, 1.0), (16_000, 0.02), (16_000, 1.0), (44_100, 0.1), (44_100, 0.6)])
def test_one_value_from_end_to_end_is_no_speech_without_the_model(engine: Engine, rate_hz: int, value: float, seconds: float) -> None:
    clip = (np.full(round(rate_hz * seconds), value, np.float32), rate_hz)
    found = engine.detect(clip, QUESTION)
    assert (found.predicted, found.scores) == (NONSPEECH, {SPEECH: -100.0, NONSPEECH: 0.0})
    assert found.speech_prob == pytest.approx(0, abs=1e-30)


def test_another_question_is_put_about_silence_too(engine: Engine) -> None:
    silence: Any = (np.zeros(8_000, np.float32), 16_000)
    [found] = detections(engine.choose_many([silence], MATERIAL))
    assert 0.001 < found.speech_prob < 0.999


def test_a_quiet_clip_is_not_constant() -> None:
    rng = np.random.default_rng(0)
    assert not is_constant(rng.integers(-2, 3, 4_000).astype(np.float32) / 32_768)
    assert is_constant(np.full(400, 0.1, np.float32))


def test_clips_that_cannot_be_used_are_named_and_the_others_go_on(engine: Engine, tmp_path: Path) -> None:
    short, broken = (np.zeros(319, np.float32), 16_000), tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    nan: Any = (np.full(8_000, np.nan, np.float32), 16_000)
    seen: dict[int, Any] = {}
    results = engine.choose_many([CLIPS[0], short, broken, nan, CLIPS[1]], QUESTION, on_result=seen.__setitem__)
    kinds = [result.kind if isinstance(result, AudioError) else result.predicted for result in results]
    assert kinds[1:4] == ["short", "unreadable", "unreadable"]
    assert str(results[1]) == "<array>: 19.9 ms is too short: give at least 20 ms"
    assert [seen[number] for number in range(5)] == results
    assert {kinds[0], kinds[4]} <= {SPEECH, NONSPEECH}
    with pytest.raises(AudioError, match="too short"):
        engine.detect(short, QUESTION)


def test_a_clip_beyond_the_context_is_an_error_of_its_own(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.model.config.get_text_config(), "max_position_embeddings", 60)
    [fits, too_long] = engine.choose_many([CLIPS[2], (builders.tone(8.0), 16_000)], QUESTION)
    assert isinstance(fits, Detection)
    assert isinstance(too_long, AudioError)
    assert too_long.kind == "long"


def test_long_clips_are_heard_window_by_window(engine: Engine) -> None:
    waveform = np.concatenate([builders.tone(1.3, 300), np.zeros(16_000, np.float32), builders.tone(0.85, 900)])
    starts_s = window_starts(len(waveform) / 16_000, 0.4, 0.1)
    windows = [waveform[round(start * 16_000) :][:6400] for start in starts_s]
    probs = speech_probs(score_choices(engine.model, engine.processor, QUESTION, windows))
    probs[[is_constant(window) for window in windows]] = 0
    moments = probs[weakest_windows(probs, 0.1, 0.4, len(waveform) / 16_000)[0]]
    threshold = float(np.median(moments))
    question = ClosedQuestion(QUESTION.prompt, QUESTION.answers, threshold=threshold)
    options = Segmentation(window_ms=400, min_speech_ms=100)
    found = engine.detect((waveform, 16_000), question, segmentation=options)
    wanted = segments(probs, 0.1, 0.4, len(waveform) / 16_000, threshold, options)
    assert found.segments is not None
    assert len(wanted) > 1
    for one, other in zip(found.segments, wanted, strict=True):
        assert vars(one) == pytest.approx(vars(other), abs=1.1e-4)
    assert found.predicted == SPEECH
    assert found.speech_prob == pytest.approx(moments.max(), abs=1e-5)
    assert moments.max() < probs.max()
    never = ClosedQuestion(QUESTION.prompt, QUESTION.answers, threshold=1.0)
    assert (engine.detect((waveform, 16_000), never).predicted, engine.detect((waveform, 16_000), never).segments) == (NONSPEECH, ())


def test_whole_or_cut_is_the_caller_s_choice(engine: Engine) -> None:
    short, long = CLIPS[1], (builders.tone(1.5), 16_000)
    assert [found.segments is None for found in engine.detect([short, long], QUESTION)] == [True, False]
    assert [found.segments is None for found in engine.detect([short, long], QUESTION, cut=False)] == [True, True]
    assert [found.segments is None for found in engine.detect([short, long], QUESTION, cut=True)] == [False, False]
    assert [found.segments is None for found in detections(engine.choose_many([short, long], QUESTION))] == [True, True]


def test_the_question_is_the_model_s_own_by_default(tmp_path: Path) -> None:
    builders_engine = Engine(*builders.graft(), str(tmp_path))
    builders_engine.model.save_pretrained(tmp_path)
    builders_engine.processor.save_pretrained(tmp_path)
    ClosedQuestion("Which?", {"loud": "x", "quiet": "y"}, temperature=2.0).write(tmp_path)
    engine = Engine.load(tmp_path, device="cpu")
    soundfile.write(tmp_path / "a.wav", builders.tone(0.4), 16_000)
    found = engine.detect(tmp_path / "a.wav")
    assert set(found.scores) == {"loud", "quiet"}
    assert found.audio == str(tmp_path / "a.wav")
