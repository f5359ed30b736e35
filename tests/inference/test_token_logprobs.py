"""What is noted beside a text: its tokens, how likely each was, and what it cost."""

from __future__ import annotations

import itertools
import logging
import math
import weakref
from types import SimpleNamespace
from typing import Any

import builders
import numpy as np
import pytest
import torch

from audiograft.inference.decoding import Request, TokenRecorder, Written, write_answers
from audiograft.inference.engine import Engine
from audiograft.inference.questions import Question
from audiograft.messages import audio_messages
from audiograft.types import Answer, Transcript

CLIPS: list[Any] = [(builders.tone(seconds, hz), 16_000) for seconds, hz in ((0.4, 300), (2.0, 500), (0.1, 700), (1.2, 900), (0.8, 1100))]
SUPPRESSED = [0, 1, *range(len(builders.tokenizer()), builders.VOCABULARY_ROWS)]
ENDS = list(range(2, SUPPRESSED[2], 25))
"""So many tokens end an answer that rows of a batch end at different steps."""


@pytest.fixture(scope="module")
def engine() -> Engine:
    model, processor = builders.graft()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(6)
    model.language_model.generation_config.update(suppress_tokens=SUPPRESSED, eos_token_id=ENDS)
    return Engine(model, processor, "random")


def requests(budget: int = 12) -> list[Request]:
    return [Request(audio_messages("Write."), [waveform], budget) for waveform, _ in CLIPS]


def true_logprobs(engine: Engine, request: Request, written: Written) -> list[float]:
    """Of each token by a forward pass over prompt and answer, with what `generate` is told to suppress."""
    model, processor = engine.model, engine.processor
    prompt = processor([processor.build_prompt(request.messages)], audio=request.waveforms)
    ids = torch.tensor([processor.tokenizer.convert_tokens_to_ids(list(written.tokens))])
    prompt["input_ids"] = torch.cat([prompt["input_ids"], ids], dim=1)
    prompt["attention_mask"] = torch.ones_like(prompt["input_ids"])
    with torch.no_grad():
        logits = model(**prompt).logits[0, -ids.shape[1] - 1 : -1].clone()
    logits[:, SUPPRESSED] = -math.inf
    found: list[float] = logits.log_softmax(-1).gather(1, ids.T)[:, 0].tolist()
    return found


@pytest.mark.parametrize("generation", [{}, {"do_sample": True, "temperature": 0.5, "top_p": 0.9, "top_k": 0}, {"repetition_penalty": 1.0}])
def test_they_are_those_of_a_forward_pass(engine: Engine, generation: dict[str, Any]) -> None:
    # Before temperature and top-p: how likely the model finds what was drawn.
    written = write_answers(engine.model, engine.processor, requests(), generation=generation)
    for request, answer in zip(requests(), written, strict=True):
        assert answer.token_logprobs == pytest.approx(true_logprobs(engine, request, answer), abs=1e-4)
    assert len({len(answer.tokens) for answer in written}) > 1


@pytest.mark.parametrize("budget", [1, 2, 12])
def test_a_batch_notes_what_single_runs_note(engine: Engine, budget: int) -> None:
    together = write_answers(engine.model, engine.processor, requests(budget), batch_size=5)
    for request, answer in zip(requests(budget), together, strict=True):
        [alone] = write_answers(engine.model, engine.processor, [request])
        assert answer.tokens == alone.tokens
        assert answer.token_logprobs == pytest.approx(alone.token_logprobs, abs=1e-5)
        assert len(answer.tokens) == len(answer.token_logprobs) <= budget
        assert answer.text == engine.processor.tokenizer.convert_tokens_to_string(list(answer.tokens)).strip()


def test_each_row_ends_with_its_own_end_token_or_budget(engine: Engine) -> None:
    budgets = [3, 12, 1, 12, 12]
    mixed = [Request(audio_messages("Write."), [clip], budget) for (clip, _), budget in zip(CLIPS, budgets, strict=True)]
    ends = set(engine.processor.tokenizer.convert_ids_to_tokens(ENDS))
    for answer, budget in zip(write_answers(engine.model, engine.processor, mixed), budgets, strict=True):
        assert not ends & set(answer.tokens[:-1])
        assert (answer.tokens[-1] in ends) == (answer.cut_at_tokens is None)
        assert len(answer.tokens) == budget or answer.tokens[-1] in ends


def test_with_beams_nothing_is_noted(engine: Engine) -> None:
    result = engine.transcribe(CLIPS[0], num_beams=2, max_new_tokens=4)
    assert (result.tokens, result.token_logprobs, result.confidence) == ((), (), None)
    assert result.text


def test_tokens_of_all_chunks_are_put_together(engine: Engine) -> None:
    long = np.concatenate([CLIPS[1][0]] * 35)
    result = engine.transcribe((long, 16_000), max_new_tokens=3)
    assert len(result.segments) >= 3
    assert len(result.segments) < len(result.tokens) == len(result.token_logprobs)
    assert result.confidence == pytest.approx(math.exp(np.mean(result.token_logprobs)))


def test_answers_have_them_too_with_words_streamed_or_not(engine: Engine) -> None:
    words: list[str] = []
    streamed = engine.ask(CLIPS[0], "Who?", stream=words.append)
    [asked] = engine.ask_many([Question([CLIPS[0]], "Who?")])
    assert isinstance(asked, Answer)
    assert streamed == asked
    assert asked.tokens
    assert 0 < (asked.confidence or 0) < 1


def test_what_is_silent_cost_nothing_and_has_no_confidence(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        silent = engine.transcribe((np.zeros(16_000, np.float32), 16_000))
    assert (silent.tokens, silent.confidence, silent.decode_s) == ((), None, 0.0)


@pytest.mark.parametrize(("batch_size", "share_s"), [(1, 1.0), (2, 0.5), (4, 0.25)])
def test_the_time_of_a_batch_is_shared_and_that_of_chunks_added(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, batch_size: int, share_s: float
) -> None:
    ticks = itertools.count()
    # A batch takes a second by this clock.
    monkeypatch.setattr("audiograft.inference.decoding.time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    long = np.concatenate([CLIPS[1][0]] * 55)  # four chunks
    results = [engine.transcribe((long, 16_000), max_new_tokens=1, batch_size=batch_size)]
    results += engine.transcribe([CLIPS[0]] * 4, max_new_tokens=1, batch_size=batch_size)
    assert len(results[0].segments) == 4
    assert [result.decode_s for result in results] == [4 * share_s, *[share_s] * 4]
    answers = engine.ask_many([Question([CLIPS[0]], "Who?")] * 4, max_new_tokens=1, batch_size=batch_size)
    assert [answer.decode_s for answer in answers if isinstance(answer, Answer)] == [share_s] * 4


def test_the_cost_is_no_part_of_what_was_said() -> None:
    assert Transcript("a.wav", "one", 1.0, "tiny", decode_s=0.1) == Transcript("a.wav", "one", 1.0, "tiny", decode_s=0.2)
    assert Transcript("a.wav", "one", 1.0, "tiny") == Transcript("a.wav", "one", 1.0, "tiny", (), (), (), None)


def test_the_recorder_keeps_the_scores_of_one_step() -> None:
    recorder, alive = TokenRecorder(), []
    ids = torch.tensor([[7], [7]])
    for step in range(4):
        scores = torch.randn(2, 50, generator=torch.Generator().manual_seed(step))
        alive.append(weakref.ref(scores))
        recorder(ids, scores)
        ids = torch.cat([ids, torch.full((2, 1), step)], dim=1)
        del scores
        assert [ref() is not None for ref in alive] == [False] * step + [True]
    expected = [torch.randn(2, 50, generator=torch.Generator().manual_seed(step)).log_softmax(1)[:, step] for step in range(4)]
    assert torch.allclose(recorder.logprobs(ids[:, 1:]), torch.stack(expected, dim=1))


def test_the_recorder_leaves_out_steps_that_generate_takes_back() -> None:
    recorder, ids = TokenRecorder(), torch.tensor([[7]])
    for step in range(3):
        recorder(ids, torch.randn(1, 50, generator=torch.Generator().manual_seed(step)))
        ids = torch.cat([ids, torch.tensor([[step]])], dim=1)
    kept = recorder.logprobs(ids[:, 1:-1])
    first = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)).log_softmax(1)[:, 0]
    assert kept.shape == (1, 2)
    assert torch.allclose(kept[:, 0], first)


def test_a_row_beyond_the_vocabulary_goes_by_its_number(engine: Engine) -> None:
    model, processor = builders.graft()
    model.language_model.generation_config.update(suppress_tokens=list(range(400)))
    [written] = write_answers(model, processor, requests(2)[:1])
    assert len(written.tokens) == 2
    assert all(token.startswith("<4") for token in written.tokens)
