"""Scoring known answers: the loss of training, token by token, however they are batched."""

from __future__ import annotations

from typing import Any

import builders
import numpy as np
import pytest
import torch

from audiograft.inference.chunking import split_into_chunks
from audiograft.inference.engine import Engine
from audiograft.inference.questions import Question
from audiograft.inference.teacher_forcing import Referenced, TokenScores, score_references
from audiograft.messages import audio_messages, conversation
from audiograft.train.collator import Collator
from audiograft.train.dataset import example
from audiograft.train.rows import Row
from audiograft.types import AudioError, DataError, Sample

CLIPS = [builders.tone(seconds, hz) for seconds, hz in ((0.4, 300), (1.3, 900), (0.7, 500))]
ITEMS = [
    Referenced(audio_messages("Write."), [CLIPS[0]], "one two three"),
    Referenced(audio_messages("Two and two?", 0), [], "four, of course"),
    Referenced(audio_messages("Is <audio> like <audio>?", 2), [CLIPS[1], CLIPS[2]], "no"),
    Referenced(audio_messages("Write."), [CLIPS[1]], ""),
    Referenced(audio_messages("Write."), [CLIPS[2]], "grüße 東京"),
]


def grafted(family: str = "qwen2", **options: Any) -> tuple[Any, Any]:
    model, processor = builders.graft(family, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(6)
    return model, processor


def assert_close(found: TokenScores, expected: TokenScores) -> None:
    assert (found.tokens, found.best) == (expected.tokens, expected.best)
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    assert found.ranks == expected.ranks


@pytest.mark.parametrize("family", builders.FAMILIES)
def test_a_batch_scores_as_its_items_alone(family: str) -> None:
    model, processor = grafted(family)
    together = score_references(model, processor, ITEMS, batch_size=4)
    for item, found in zip(ITEMS, together, strict=True):
        [alone] = score_references(model, processor, [item])
        assert_close(found, alone)


def test_each_token_is_scored_behind_the_true_ones() -> None:
    model, processor = grafted()
    [found] = score_references(model, processor, ITEMS[2:3])
    answer = processor.tokenizer("no<|im_end|>", add_special_tokens=False)["input_ids"]
    inputs = processor([processor.build_prompt(ITEMS[2].messages)], audio=ITEMS[2].waveforms)
    for place, token in enumerate(answer):
        ids = torch.cat([inputs["input_ids"], torch.tensor([answer[:place]], dtype=torch.long)], dim=1)
        with torch.no_grad():
            logits = model(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits[0, -1]
        order = logits.argsort(descending=True).tolist()
        assert found.logprobs[place] == pytest.approx(float(logits.log_softmax(0)[token]), abs=1e-4)
        assert found.ranks[place] == order.index(token) + 1
        assert found.best[place] in (processor.tokenizer.convert_ids_to_tokens(order[0]), f"<{order[0]}>")
    assert found.tokens == (*processor.tokenizer.tokenize("no"), "<|im_end|>")


@pytest.mark.parametrize(("family", "options"), [("qwen2", {}), ("llama", {"pad_to_window": True}), ("qwen2_vl", {})])
def test_the_nats_are_the_loss_of_training(family: str, options: dict[str, Any]) -> None:
    model, processor = grafted(family, **options)
    rows = [
        Row(Sample(str(number), ("x",) * len(clips), text, prompt), (), 0, processor.pad_to_window, (), 0)
        for number, (clips, text, prompt) in enumerate(
            [([CLIPS[0]], "one two", "Write."), ([CLIPS[1], CLIPS[2]], "no", "Is <audio> like <audio>?"), ([CLIPS[1]], "hello world", "Hear.")]
        )
    ]
    clips = [[CLIPS[0]], [CLIPS[1], CLIPS[2]], [CLIPS[1]]]
    batch = Collator(processor)([example(row, own, processor.pad_to_window, processor) for row, own in zip(rows, clips, strict=True)])
    with torch.no_grad():
        loss = float(model(**{name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}).loss)
    items = [Referenced(conversation(row.sample), own, row.target) for row, own in zip(rows, clips, strict=True)]
    scores = score_references(model, processor, items, batch_size=2)
    assert sum(item.nats for item in scores) / sum(item.n_tokens for item in scores) == pytest.approx(loss, rel=1e-5)


def test_the_words_before_a_response_are_those_of_training() -> None:
    model, processor = grafted()
    processor.response_prefix = " "
    [found] = score_references(model, processor, ITEMS[:1])
    assert found.tokens == (*processor.tokenizer.tokenize(" one two three"), "<|im_end|>")


def test_an_empty_answer_is_its_end_alone() -> None:
    model, processor = grafted()
    [found] = score_references(model, processor, ITEMS[3:4])
    assert found.tokens == ("<|im_end|>",)
    assert found.nats == -found.logprobs[0] > 0


def test_a_placeholder_in_the_answer_is_one_line() -> None:
    model, processor = grafted()
    with pytest.raises(DataError, match=r"contains <\|audio\|>, which stands for a clip"):
        score_references(model, processor, [Referenced(audio_messages("x", 0), [], "see <|audio|>")])


@pytest.mark.parametrize("kind", builders.STOCK)
def test_stock_models_are_scored_too(kind: str, tmp_path: Any) -> None:
    engine = Engine.load(builders.stock_checkpoint(tmp_path, kind), device="cpu")
    questions = [Question([(clip, 16_000)], "Write.") for clip in CLIPS[:2]] + [Question([], "Two and two?")]
    together = engine.score_references(questions, ["one two", "no", "four"], batch_size=3)
    for question, target, found in zip(questions, ["one two", "no", "four"], together, strict=True):
        [alone] = engine.score_references([question], [target])
        assert isinstance(found, TokenScores)
        assert isinstance(alone, TokenScores)
        assert_close(found, alone)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(*grafted(), "random")


def test_a_long_clip_is_heard_window_by_window_as_it_is_asked_about(engine: Engine) -> None:
    long = np.concatenate([CLIPS[1]] * 40)
    [found] = engine.score_references([Question([(long, 16_000)], "Write.")], ["one"])
    windows = [chunk.waveform for chunk in split_into_chunks(long)]
    assert len(windows) > 1
    [expected] = score_references(engine.model, engine.processor, [Referenced(audio_messages("Write.", len(windows)), windows, "one")])
    assert isinstance(found, TokenScores)
    assert_close(found, expected)


def test_silence_is_heard_like_any_clip(engine: Engine) -> None:
    silence = np.zeros_like(CLIPS[0])
    scores = engine.score_references([Question([(clip, 16_000)], "Write.") for clip in (CLIPS[0], silence)], ["one", "one"])
    nats = [item.nats for item in scores if isinstance(item, TokenScores)]
    assert len(nats) == 2
    assert nats[0] != pytest.approx(nats[1], abs=1e-4)
    assert engine.transcribe_waveforms([silence], ["Write."], max_new_tokens=5) != [""]


def test_a_bad_clip_is_reported_and_the_others_are_scored(engine: Engine) -> None:
    seen: list[int] = []
    questions = [Question([(CLIPS[0], 16_000)], "x"), Question(["missing.wav"], "x"), Question([], "y")]
    results = engine.score_references(questions, ["a", "b", "c"], batch_size=1, on_result=lambda index, result: seen.append(index))
    assert [type(result) for result in results] == [TokenScores, AudioError, TokenScores]
    assert sorted(seen) == [0, 1, 2]


def test_what_is_longer_than_the_context_is_one_line(engine: Engine) -> None:
    [error] = engine.score_references([Question([(CLIPS[0], 16_000)], "x")], ["a " * 5000])
    assert isinstance(error, AudioError)
    assert "<array>: 0 s and the question take" in str(error)
    assert "shorten the reference" in str(error)
    with pytest.raises(DataError, match="the question takes .* shorten the reference"):
        engine.score_references([Question([], "x")], ["a " * 5000])


def test_waveforms_of_any_length_are_transcribed_as_clips_are(engine: Engine) -> None:
    waveforms = [np.concatenate([CLIPS[1]] * 40), CLIPS[0]]
    expected = [result.text for result in engine.transcribe([(waveform, 16_000) for waveform in waveforms], prompt="x", max_new_tokens=6)]
    assert engine.transcribe_waveforms(waveforms, ["x", "x"], max_new_tokens=6) == expected
