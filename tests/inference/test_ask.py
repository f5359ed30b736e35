"""Questions about clips: every way of decoding hears them, and a batch answers as its questions would alone."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import builders
import numpy as np
import pytest
import torch

from audiograft.inference.decoding import Decoding, WordStreamer, Written
from audiograft.inference.engine import Engine
from audiograft.inference.questions import Question
from audiograft.messages import audio_messages
from audiograft.types import Answer, AudioError, ConfigError, DataError

RATE_HZ = 16_000
CLIPS: list[Any] = [(builders.tone(seconds, hz), RATE_HZ) for seconds, hz in ((0.4, 300), (1.1, 900), (0.7, 500))]
SAMPLING = {"temperature": 0.1, "top_p": 0.95, "seed": 3}


@pytest.fixture(scope="module")
def engine() -> Engine:
    """Weights large enough that answers differ from clip to clip, and never ends by itself: 12 tokens is what a test asks for."""
    model, processor = builders.graft()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(6)
    model.language_model.generation_config.suppress_tokens = [0, 1, 2, *range(320, builders.VOCABULARY_ROWS)]
    return Engine(model, processor, "random")


def ask(engine: Engine, *arguments: Any, **options: Any) -> str:
    return engine.ask(*arguments, **{"max_new_tokens": 12, **options}).text


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, SAMPLING, {**SAMPLING, "num_beams": 2}])
def test_each_way_of_decoding_hears_the_clip_and_repeats_itself(engine: Engine, options: dict[str, Any]) -> None:
    answers = [ask(engine, clip, "What is said?", **options) for clip in CLIPS]
    assert len(set(answers)) == len(CLIPS)
    assert answers == [ask(engine, clip, "What is said?", **options) for clip in CLIPS]


def test_beams_and_draws_are_not_the_greedy_answer(engine: Engine) -> None:
    answers = {ask(engine, CLIPS[0], "What is said?", **options) for options in ({}, {"num_beams": 4}, SAMPLING, {**SAMPLING, "seed": 4})}
    assert len(answers) == 4
    assert ask(engine, CLIPS[0], "What is said?", temperature=0.0) == ask(engine, CLIPS[0], "What is said?")


def test_drawing_leaves_the_callers_draws_alone(engine: Engine) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    ask(engine, CLIPS[0], "x", **SAMPLING)
    assert torch.equal(torch.rand(1), expected)


def test_a_static_cache_gives_the_same_words(engine: Engine) -> None:
    waveforms, prompts = [waveform for waveform, _ in CLIPS], ["What is said?"] * len(CLIPS)
    usual = engine.transcribe_waveforms(waveforms, prompts, max_new_tokens=12)
    assert engine.transcribe_waveforms(waveforms, prompts, max_new_tokens=12, cache_implementation="static") == usual
    assert len(set(usual)) == len(CLIPS)


@pytest.mark.parametrize("options", [{}, SAMPLING])
def test_streamed_words_are_the_answer(engine: Engine, options: dict[str, Any]) -> None:
    for clip in CLIPS:
        words: list[str] = []
        text = ask(engine, clip, "What is said?", stream=words.append, max_new_tokens=40, **options)
        assert "".join(words) == text == ask(engine, clip, "What is said?", max_new_tokens=40, **options)
        assert all(words)


def test_words_come_when_they_are_whole() -> None:
    tokenizer = builders.tokenizer()
    words: list[str] = []
    streamer = WordStreamer(tokenizer, words.append)
    streamer.put(torch.tensor([[5, 6, 7]]))  # the prompt
    for token in tokenizer("  hello  wide\nworld ")["input_ids"]:
        streamer.put(torch.tensor([token]))
    streamer.put(torch.tensor([tokenizer.eos_token_id]))
    assert words == ["hello", "  wide", "\nworld"]
    streamer.end()
    assert words == ["hello", "  wide", "\nworld"]


QUESTIONS = [
    Question([CLIPS[0]], "What is said?"),
    Question([], "Two and two?"),
    Question([CLIPS[1], CLIPS[2]], "Is <audio> louder than <audio></audio>?"),
    Question([CLIPS[1]]),
    Question(
        [CLIPS[2], CLIPS[0]],
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Who? <audio>"},
            {"role": "assistant", "content": "Ann."},
            {"role": "user", "content": [{"type": "audio"}]},
        ],
    ),
]


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}])
def test_a_batch_answers_as_its_questions_alone(engine: Engine, options: dict[str, Any]) -> None:
    together = engine.ask_many(QUESTIONS, batch_size=3, max_new_tokens=12, **options)
    alone = [ask(engine, list(q.clips), q.prompt, messages=q.messages, **options) for q in QUESTIONS]
    assert [answer.text for answer in together if isinstance(answer, Answer)] == alone
    assert len(set(alone)) == len(QUESTIONS)


def test_an_answer_says_what_it_answers(engine: Engine) -> None:
    answer = engine.ask(CLIPS[:2], "Same?", max_new_tokens=1)
    assert replace(answer, tokens=(), token_logprobs=()) == Answer(
        ask(engine, CLIPS[:2], "Same?", max_new_tokens=1), "Same?", ("<array>",) * 2, 1.5, "random"
    )
    assert engine.ask(prompt="Two and two?", max_new_tokens=1).clips == ()


def test_the_order_and_the_place_of_clips_count(engine: Engine) -> None:
    first, second = CLIPS[0], CLIPS[1]
    asked = "Is <audio> louder than <audio>?"
    answers = [
        ask(engine, [first, second], asked),
        ask(engine, [second, first], asked),
        ask(engine, [first, second], "Is louder than ? <audio><audio>"),
        ask(engine, [first, second], "Is louder than ?"),
    ]
    assert len(set(answers)) == len(answers)


def test_a_conversation_remembers_its_clips(engine: Engine) -> None:
    def second_answer(clip: Any) -> str:
        turns = [
            {"role": "user", "content": "Who? <audio>"},
            {"role": "assistant", "content": "Ann."},
            {"role": "user", "content": "And where?"},
        ]
        return ask(engine, [clip], messages=turns)

    assert second_answer(CLIPS[0]) != second_answer(CLIPS[1])


def test_the_windows_of_a_long_clip_stand_one_behind_the_other_in_its_place(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[int]]] = []
    collate = type(engine.processor).collate

    def spy(self: Any, rows: list[Any], clips: list[Any], *options: Any) -> Any:
        seen.append((self.tokenizer.decode(rows[0]["input_ids"]), [clip.shape[1] for clip in clips]))
        return collate(self, rows, clips, *options)

    monkeypatch.setattr(type(engine.processor), "collate", spy)
    long = np.concatenate([CLIPS[1][0]] * 60)
    result = engine.ask([(long, RATE_HZ), CLIPS[0]], "Is <audio> like <audio>?", max_new_tokens=2)
    [(text, lengths)] = seen
    token, tokens = engine.processor.audio_token, engine.processor.front_end.audio_tokens
    assert len(lengths) == 4
    assert f"Is {token * sum(map(tokens, lengths[:3]))} like {token * tokens(lengths[3])}?" in text
    # 10 ms a frame.
    assert sum(lengths[:3]) == pytest.approx(len(long) / 160, abs=3)
    assert lengths[3] == len(CLIPS[0][0]) / 160
    assert result.duration_s == round(len(long) / RATE_HZ + 0.4, 4)


def test_clips_longer_than_the_context_are_refused_in_one_line(engine: Engine) -> None:
    hour = (np.full(400 * RATE_HZ, 0.1, dtype=np.float32), RATE_HZ)
    with pytest.raises(AudioError, match=r"<array>: 400 s and the question take 5\d\d\d positions, .* has 4096: ask about shorter"):
        engine.ask(hour, "x")


def test_prompt_and_answer_count_against_the_context(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[int] = []

    def answer(model: Any, processor: Any, requests: Any, **options: Any) -> list[Written]:
        budgets.extend(request.max_new_tokens for request in requests)
        return [Written("x", None) for _ in requests]

    monkeypatch.setattr("audiograft.inference.engine.write_answers", answer)
    processor = engine.processor

    def prompt_tokens(words: int) -> int:
        texts = [processor.build_prompt(audio_messages("a " * n, 1)) for n in (0, words)]
        empty, long = (len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
        return long - empty

    engine.ask(CLIPS[0], "")
    words = 3900 * 1000 // prompt_tokens(1000)
    engine.ask(CLIPS[0], "a " * words)
    # The default budget gives way to a long prompt; one that was asked for does not.
    assert budgets[0] == 512
    assert 0 < budgets[1] < 4096 - prompt_tokens(words) < 512
    engine.ask(CLIPS[0], "a " * words, max_new_tokens=budgets[1])
    for budget in (budgets[1] + 1, 512):
        with pytest.raises(AudioError, match=rf"<array>: 0 s and the question take \d+ positions, the answer up to {budget}, .*lower max_new_tokens"):
            engine.ask(CLIPS[0], "a " * words, max_new_tokens=budget)
    with pytest.raises(DataError, match=r"^the question takes \d+ positions, the answer up to 1, .* has 4096: shorten it"):
        engine.ask(None, "a " * 2 * words)


def test_a_bad_clip_is_reported_and_the_other_questions_are_answered(engine: Engine) -> None:
    seen: list[int] = []
    questions = [QUESTIONS[0], Question([CLIPS[0], "missing.wav"], "Same?"), QUESTIONS[1]]
    results = engine.ask_many(questions, max_new_tokens=1, batch_size=1, on_result=lambda index, result: seen.append(index))
    assert [type(result) for result in results] == [Answer, AudioError, Answer]
    assert "missing.wav" in str(results[1])
    assert sorted(seen) == [0, 1, 2]
    with pytest.raises(AudioError, match=r"missing\.wav"):
        engine.ask("missing.wav", "x")


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        ((), {}, "there is no question: give a prompt, a clip, or both"),
        (([CLIPS[0]], "<audio> and <audio>"), {}, "2 <audio> markers in the prompt but 1 clip"),
        ((None, "what is <audio>?"), {}, "1 <audio> marker in the prompt but 0 clips"),
        ((CLIPS[0], "hear <|audio|>"), {}, r"contains <\|audio\|>, which stands for a clip"),
        ((CLIPS[0], "x"), {"messages": [{"role": "user", "content": "y"}]}, "prompt and messages exclude each other"),
        ((CLIPS[0],), {"messages": []}, "a conversation is a list such as"),
        ((CLIPS[0],), {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}, "the assistant has the last word"),
    ],
)
def test_questions_that_are_none_are_one_line(engine: Engine, arguments: Any, options: Any, expected: str) -> None:
    with pytest.raises(DataError, match=expected) as error:
        engine.ask(*arguments, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_beams": 0}, "num_beams must be 1 or more, not 0"),
        ({"temperature": -1.0}, "temperature must be 0 or more, not -1.0"),
        ({"temperature": float("nan")}, "temperature must be 0 or more"),
        ({"top_p": 0.0, "temperature": 1.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 0.9}, "top_p does nothing at temperature 0, .* set a temperature too"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more, not 0"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
    ],
)
def test_options_that_mean_nothing_are_one_line(options: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Decoding(**options)


def test_beams_can_not_be_streamed(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="words can't be streamed with beams"):
        engine.ask(CLIPS[0], "x", num_beams=2, stream=print)


def test_an_answer_that_was_cut_is_named(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        engine.ask(CLIPS[0], "x", max_new_tokens=2)
    assert "<array>: the answer was cut at 2 tokens; pass max_new_tokens for more" in caplog.text


def test_transcripts_take_the_same_options(engine: Engine) -> None:
    greedy, beams, drawn = (
        [t.text for t in engine.transcribe(CLIPS, max_new_tokens=12, batch_size=2, **options)] for options in ({}, {"num_beams": 3}, SAMPLING)
    )
    assert greedy != beams
    assert greedy != drawn
    assert beams == [engine.transcribe(clip, max_new_tokens=12, num_beams=3).text for clip in CLIPS]
    with pytest.raises(ConfigError, match="top_p does nothing"):
        engine.transcribe(CLIPS[0], top_p=0.5)


def test_beams_of_clips_of_several_lengths_share_a_batch(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    generate = engine.model.generate

    def spy(*arguments: Any, max_new_tokens: int, **options: Any) -> Any:
        calls.append(max_new_tokens)
        return generate(*arguments, max_new_tokens=2, **options)

    monkeypatch.setattr(engine.model, "generate", spy)
    engine.transcribe(CLIPS, num_beams=2)
    assert calls == [384]
