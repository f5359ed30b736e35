"""Prompts are scored as `score_choices` scores them; what does not depend on the prompt is worked out once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest

from audiograft.inference.choices import DEFAULT_QUESTION, score_choices
from audiograft.inference.engine import Engine
from audiograft.model import load_model
from audiograft.prompt_search import scorer as scorer_module
from audiograft.prompt_search.scorer import ModelScorer

PROMPTS = [DEFAULT_QUESTION.prompt, "A) SPEECH or B) NONSPEECH?", "Is <audio> A) SPEECH or B) NONSPEECH?"]
WAVEFORMS = [builders.tone(seconds, seed=number) for number, seconds in enumerate((0.2, 0.5, 0.4, 0.2, 1.0))]


def open_graft(folder: Path) -> Engine:
    return Engine(*builders.graft(), "graft")


def open_stock(folder: Path) -> Engine:
    model, processor = load_model(builders.stock_checkpoint(folder, "qwen2_audio"))
    return Engine(model, processor, "stock")


def encoder_calls(engine: Engine) -> list[int]:
    """Clips that each call of the encoder got, from now on."""
    calls: list[int] = []
    engine.model.audio_tower.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    return calls


@pytest.mark.parametrize("open_model", [open_graft, open_stock])
def test_scores_are_the_same_and_the_encoder_runs_once(tmp_path: Path, open_model: Any) -> None:
    engine = open_model(tmp_path)
    expected = [score_choices(engine.model, engine.processor, replace(DEFAULT_QUESTION, prompt=prompt), WAVEFORMS, 2) for prompt in PROMPTS]
    attributes = set(vars(engine.model)), set(vars(engine.processor))
    family = getattr(engine.model, "family", None)
    calls = encoder_calls(engine)
    score = ModelScorer(lambda: engine, DEFAULT_QUESTION, lambda: WAVEFORMS, 2)
    for prompt, scores in zip(PROMPTS, expected, strict=True):
        np.testing.assert_array_equal(score(prompt), scores)
    assert sum(calls) == len(WAVEFORMS)
    assert (set(vars(engine.model)), set(vars(engine.processor))) == attributes
    assert getattr(engine.model, "family", None) is family


def test_what_does_not_fit_is_worked_out_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scorer_module, "_MAX_BYTES", 1)
    engine = open_graft(tmp_path)
    calls = encoder_calls(engine)
    score = ModelScorer(lambda: engine, DEFAULT_QUESTION, lambda: WAVEFORMS)
    np.testing.assert_array_equal(score(PROMPTS[0]), score(PROMPTS[0]))
    assert sum(calls) == 2 * len(WAVEFORMS)


def test_nothing_is_opened_before_the_first_prompt() -> None:
    opened: list[str] = []
    ModelScorer(lambda: opened.append("model"), DEFAULT_QUESTION, lambda: opened.append("clips") or [])  # type: ignore[arg-type, func-returns-value, return-value]
    assert opened == []
