"""Teacher forcing: how likely a model finds a given answer, token by token, each behind the true ones before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import BatchFeature

from audiograft.inference.batching import similar_batches
from audiograft.inference.decoding import Waveform, token_names, values_in
from audiograft.messages import Message
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor
from audiograft.model.outputs import IGNORE_INDEX

if TYPE_CHECKING:
    from PIL import Image

    from audiograft.images import Video


@dataclass(frozen=True)
class Referenced:
    """A conversation with the answer that it should get.

    Attributes:
        messages: up to the answer, an audio part a waveform, an image part an image, a video part a video.
        waveforms: (n_samples,) at 16 kHz each, at most 30 s, in order of their parts.
        target: the answer.
        images: decoded, in order of their parts.
        videos: likewise.
    """

    messages: Sequence[Message]
    waveforms: Sequence[Waveform]
    target: str
    images: Sequence[Image.Image] = ()
    videos: Sequence[Video] = ()


@dataclass(frozen=True)
class TokenScores:
    """What a model makes of each token of an answer, the end of turn being the last one: the tokens that carry loss in training.

    Attributes:
        tokens: as the vocabulary has them; the tokenizer's `convert_tokens_to_string` makes text of them.
        logprobs: natural logarithm of the probability of each.
        ranks: place of each among all of the vocabulary; 1 is the likeliest.
        best: the likeliest token at each place, which is the answer's own where its rank is 1.
    """

    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    ranks: tuple[int, ...]
    best: tuple[str, ...]

    @property
    def nats(self) -> float:
        """Negative log-likelihood of the answer: the sum over its tokens."""
        return -math.fsum(self.logprobs)

    @property
    def n_tokens(self) -> int:
        """Tokens that were scored."""
        return len(self.tokens)


@torch.no_grad()
def score_references(
    model: AudioGraftForConditionalGeneration, processor: AudioGraftProcessor, items: Sequence[Referenced], batch_size: int = 8
) -> list[TokenScores]:
    """Score answers that are known; the shortest clips with the shortest.

    Prompt and answer are tokenised as in training (`AudioGraftProcessor.training_inputs`), so that the sum of `nats` over the sum of `n_tokens` is
    the loss that training reports. No rule stands in front of the model: silence is heard as what it is.

    Args:
        model: in evaluation mode, or in the mode that is to be measured.
        processor: its processor.
        items: with audio and pictures or without, mixed as they come.
        batch_size: answers scored at once; what is found does not depend on it.

    Returns:
        One result an item, in order.

    Raises:
        ConfigError: pictures, and the model has no eyes for them.
        DataError: the chat template refuses a conversation, or a text holds a placeholder.
        ImageError: a picture that the model's processor refuses.
    """
    scores: dict[int, TokenScores] = {}
    n_samples = [sum(map(len, item.waveforms)) for item in items]
    sizes = [values_in(item.images, item.videos) for item in items]
    kinds = [(bool(item.waveforms), size > 0) for item, size in zip(items, sizes, strict=True)]
    for rows in similar_batches(kinds, n_samples, batch_size, sizes):
        scores.update(zip(rows, _score_batch(model, processor, [items[row] for row in rows]), strict=True))
    return [scores[row] for row in range(len(items))]


def _score_batch(model: AudioGraftForConditionalGeneration, processor: AudioGraftProcessor, items: Sequence[Referenced]) -> list[TokenScores]:
    features = [[processor.features(waveform) for waveform in item.waveforms] for item in items]
    rows = [
        processor.training_inputs(item.messages, item.target, [clip.shape[1] for clip in own], item.images, item.videos)
        for item, own in zip(items, features, strict=True)
    ]
    batch = processor.collate(rows, [clip for own in features for clip in own], padding_side="right")
    logits = model(**BatchFeature(batch).to(model.device)).logits
    answers = [[label for label in row["labels"] if label != IGNORE_INDEX] for row in rows]
    # Row by row, so that the vocabulary times all tokens of the batch is held once.
    return [_scores(own, answer, processor) for own, answer in zip(logits.split([len(answer) for answer in answers]), answers, strict=True)]


def _scores(logits: torch.Tensor, answer: Sequence[int], processor: AudioGraftProcessor) -> TokenScores:
    """From (tokens, vocabulary)."""
    logits = logits.float()
    targets = torch.tensor(answer, device=logits.device)
    logprobs = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    ranks = (logits > logits.gather(1, targets[:, None])).sum(1) + 1
    tokens, best = (token_names(processor.tokenizer, ids) for ids in (answer, logits.argmax(1).tolist()))
    return TokenScores(tokens, tuple(logprobs.tolist()), tuple(ranks.tolist()), best)
