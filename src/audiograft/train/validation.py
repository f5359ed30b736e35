"""Loss and WER on clips, during a run and at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from audiograft.inference.decoding import Request, write_answers
from audiograft.inference.teacher_forcing import Referenced, score_references
from audiograft.inference.transcribing import transcript_tokens
from audiograft.messages import conversation
from audiograft.metrics.word_errors import corpus, word_errors
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor
from audiograft.train.rows import Row, Waveform, load_clips

_BATCH_CLIPS = 8


@dataclass(frozen=True)
class Score:
    """How a model does on some clips.

    Attributes:
        losses: mean loss per answer token of each clip, in nats.
        answer_tokens: that carried loss, of each clip.
        wer: corpus word error rate of greedy answers, on words as they are written, without a normaliser.
        hypotheses: the answers.
    """

    losses: list[float]
    answer_tokens: list[int]
    wer: float
    hypotheses: list[str]

    @property
    def loss(self) -> float:
        """Mean over all answer tokens of all clips."""
        return float(np.average(self.losses, weights=self.answer_tokens))


def draw(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """So many rows, or all where there are fewer, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [rows[index] for index in sorted(chosen)]


def score(
    model: AudioGraftForConditionalGeneration, processor: AudioGraftProcessor, rows: Sequence[Row], clips: Sequence[Sequence[Waveform]]
) -> Score:
    """Loss and WER of each row's answer, given as many clips as it has, which may be its own or not."""
    with evaluating(model):
        pairs = list(zip(rows, clips, strict=True))
        items = [Referenced(conversation(row.sample), own, row.target) for row, own in pairs]
        scored = score_references(model, processor, items, _BATCH_CLIPS)
        requests = [Request(conversation(row.sample), own, _budget(row, own, processor)) for row, own in pairs]
        hypotheses = [answer.text for answer in write_answers(model, processor, requests, batch_size=_BATCH_CLIPS)]
    errors = corpus(word_errors(row.target, hypothesis) for row, hypothesis in zip(rows, hypotheses, strict=True))
    counts = [item.n_tokens for item in scored]
    return Score([item.nats / item.n_tokens for item in scored], counts, errors.rate, hypotheses)


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

    def __init__(self, processor: AudioGraftProcessor, rows: Sequence[Row]) -> None:
        self.processor = processor
        self.rows = rows

    def __call__(self, model: AudioGraftForConditionalGeneration) -> Score:
        return score(model, self.processor, self.rows, [load_clips(row) for row in self.rows])
