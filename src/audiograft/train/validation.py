"""Loss, WER and accuracy on clips, during a run and at its end."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from audiograft.inference.choices import ClosedQuestion, score_choices
from audiograft.inference.decoding import Request, write_answers
from audiograft.inference.teacher_forcing import Referenced, TokenScores, score_references
from audiograft.inference.transcribing import transcript_tokens
from audiograft.messages import conversation
from audiograft.metrics.word_errors import corpus, word_errors
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor
from audiograft.train.pictures import Pictures, has_pictures, load_pictures
from audiograft.train.rows import Row, Waveform, load_clips

_BATCH_CLIPS = 8
_ROWS_SEEN = 32


@dataclass(frozen=True)
class Score:
    """How a model does on some clips.

    Attributes:
        losses: mean loss per answer token of each clip, in nats.
        answer_tokens: that carried loss, of each clip.
        wer: corpus word error rate of greedy answers, on words as they are written, without a normaliser; None where all rows are to be classified.
        hypotheses: the answers.
        accuracy: share of the rows that are to be classified whose own answer is the likeliest one; None where there are none.
    """

    losses: list[float]
    answer_tokens: list[int]
    wer: float | None
    hypotheses: list[str]
    accuracy: float | None = None

    @property
    def loss(self) -> float:
        """Mean over all answer tokens of all clips."""
        return float(np.average(self.losses, weights=self.answer_tokens))

    def __str__(self) -> str:
        shares = {"WER": self.wer, "accuracy": self.accuracy}
        return ", ".join([f"loss {self.loss:.4f}", *(f"{name} {share:.1%}" for name, share in shares.items() if share is not None)])


def draw(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """So many rows, or all where there are fewer, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [rows[index] for index in sorted(chosen)]


def score(
    model: AudioGraftForConditionalGeneration,
    processor: AudioGraftProcessor,
    rows: Sequence[Row],
    clips: Sequence[Sequence[Waveform]],
    question: ClosedQuestion | None = None,
) -> Score:
    """Loss of each row's answer, given as many clips as it has, which may be its own or not; and what the model answers.

    Args:
        model: in any mode.
        processor: its processor.
        rows: what should be answered.
        clips: of each row; its pictures are its own in any case.
        question: that rows with a class are answers to. They are answered by their log-odds, all others by greedy decoding.
    """
    # Decoded pictures are large, so that not all of them are held at once.
    block = _ROWS_SEEN if any(has_pictures(row.sample) for row in rows) else max(len(rows), 1)
    scored: list[TokenScores] = []
    hypotheses: list[str] = []
    with evaluating(model):
        for start in range(0, len(rows), block):
            part, heard = rows[start : start + block], clips[start : start + block]
            seen = [load_pictures(row.sample) for row in part]
            scored += score_references(model, processor, [_referenced(*asked) for asked in zip(part, heard, seen, strict=True)], _BATCH_CLIPS)
            hypotheses += _answers(model, processor, part, heard, seen, question)
    classed = [asks(row, question) for row in rows]
    pairs = list(zip(rows, hypotheses, classed, strict=True))
    errors = [word_errors(row.target, text) for row, text, is_classed in pairs if not is_classed]
    right = [text == row.target for row, text, is_classed in pairs if is_classed]
    kept = [item.logprobs[: -1 if row.answer_only else None] for row, item in zip(rows, scored, strict=True)]
    losses = [-math.fsum(logprobs) / len(logprobs) for logprobs in kept]
    return Score(losses, list(map(len, kept)), corpus(errors).rate if errors else None, hypotheses, float(np.mean(right)) if right else None)


def _referenced(row: Row, clips: Sequence[Waveform], seen: Pictures) -> Referenced:
    return Referenced(conversation(row.sample), clips, row.target, images=seen.images, videos=seen.videos)


def _answers(
    model: Any, processor: Any, rows: Sequence[Row], clips: Sequence[Sequence[Waveform]], seen: Sequence[Pictures], question: ClosedQuestion | None
) -> list[str]:
    """What the model answers to each row."""
    classed = [number for number, row in enumerate(rows) if asks(row, question)]
    written = sorted(set(range(len(rows))) - set(classed))
    answers: dict[int, str] = {}
    requests = [_request(rows[number], clips[number], seen[number], processor) for number in written]
    for number, answer in zip(written, write_answers(model, processor, requests, batch_size=_BATCH_CLIPS), strict=True):
        answers[number] = answer.text
    if question is not None and classed:
        answers.update(zip(classed, _choose(model, processor, question, [clips[number][0] for number in classed]), strict=True))
    return [answers[number] for number in range(len(rows))]


def _request(row: Row, clips: Sequence[Waveform], seen: Pictures, processor: Any) -> Request:
    return Request(conversation(row.sample), clips, _budget(row, clips, processor), images=seen.images, videos=seen.videos)


def asks(row: Row, question: ClosedQuestion | None) -> bool:
    """Whether a row is the question about one clip, answered by the label of the clip."""
    if question is None or row.label is None or question.answers.get(row.label) != row.target:
        return False
    return len(row.n_samples) == 1 and conversation(row.sample) == question.messages()


def _choose(model: Any, processor: Any, question: ClosedQuestion, waveforms: Sequence[Waveform]) -> list[str]:
    """The likeliest answer about each clip."""
    answers = list(question.answers.values())
    return [answers[column] for column in score_choices(model, processor, question, waveforms).argmax(axis=1)]


def _budget(row: Row, clips: Sequence[Waveform], processor: AudioGraftProcessor) -> int:
    """New tokens for a row's answer: what a transcript of its clips may have, and no less than twice what is expected."""
    expected = len(processor.tokenizer(row.target, add_special_tokens=False)["input_ids"])
    return max(transcript_tokens(sum(map(len, clips))), 2 * expected)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the former mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


class Validator:
    """Scores a fixed set of clips again and again."""

    def __init__(self, processor: AudioGraftProcessor, rows: Sequence[Row], question: ClosedQuestion | None = None) -> None:
        self.processor = processor
        self.rows = rows
        self.question = question

    def __call__(self, model: AudioGraftForConditionalGeneration) -> Score:
        return score(model, self.processor, self.rows, [load_clips(row) for row in self.rows], self.question)
