"""Decoding: conversations with waveforms in, texts out, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from transformers.generation.streamers import BaseStreamer

from audiograft.messages import Message
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor
from audiograft.types import ConfigError

Waveform = npt.NDArray[np.float32]

GREEDY: Mapping[str, Any] = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
"""Against the language model's own generation config, whose penalties are made for chat: speech repeats words, and a transcript has to."""


class DecodingOptions(TypedDict, total=False):
    """The keywords of `Decoding`, for functions that pass them on."""

    num_beams: int
    temperature: float
    top_p: float | None
    max_new_tokens: int | None
    seed: int


@dataclass(frozen=True)
class Decoding:
    """How answers are written; by default the likeliest next token, again and again.

    Attributes:
        num_beams: candidates that beam search follows; 1 is none.
        temperature: 0 takes the likeliest; above it tokens are drawn, and the higher it is the more freely.
        top_p: draw among the likeliest tokens that together have this probability (nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751).
        max_new_tokens: length limit of an answer; None leaves it to the caller.
        seed: of the draws. They depend on the batch too: the same call gives the same answers.

    Raises:
        ConfigError: a value out of its range, or `top_p` where nothing is drawn.
    """

    num_beams: int = 1
    temperature: float = 0.0
    top_p: float | None = None
    max_new_tokens: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, holds, expected in (
            ("num_beams", self.num_beams, self.num_beams >= 1, "1 or more"),
            ("temperature", self.temperature, 0 <= self.temperature < float("inf"), "0 or more"),
            ("top_p", self.top_p, self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("max_new_tokens", self.max_new_tokens, self.max_new_tokens is None or self.max_new_tokens >= 1, "1 or more"),
            ("seed", self.seed, 0 <= self.seed < 2**63, "0 or more"),
        ):
            if not holds:
                raise ConfigError(f"{name} must be {expected}, not {value}")
        if self.top_p is not None and self.temperature == 0:
            raise ConfigError("top_p does nothing at temperature 0, where the likeliest token is taken: set a temperature too, such as 0.7")

    def generation(self) -> dict[str, Any]:
        """Keywords for the language model's `generate`."""
        if self.temperature == 0:
            return {**GREEDY, "num_beams": self.num_beams}
        # Without top_k, which would be 50 unless it is named.
        drawn = {"do_sample": True, "temperature": self.temperature, "top_p": 1.0 if self.top_p is None else self.top_p, "top_k": 0}
        return {**GREEDY, "num_beams": self.num_beams, **drawn}


@dataclass(frozen=True)
class Request:
    """One thing to be answered.

    Attributes:
        messages: the conversation, an audio part a waveform.
        waveforms: (n_samples,) at 16 kHz each, at most 30 s, in order of their parts.
        max_new_tokens: budget of the answer.
    """

    messages: Sequence[Message]
    waveforms: Sequence[Waveform]
    max_new_tokens: int

    @property
    def n_samples(self) -> int:
        """Of all waveforms together."""
        return sum(map(len, self.waveforms))


@dataclass(frozen=True)
class Written:
    """What the model wrote; `cut_at_tokens` where it was stopped by its budget and not by an end token."""

    text: str
    cut_at_tokens: int | None


def write_answers(
    model: AudioGraftForConditionalGeneration,
    processor: AudioGraftProcessor,
    requests: Sequence[Request],
    *,
    batch_size: int = 8,
    generation: Mapping[str, Any] = GREEDY,
    seed: int = 0,
    stream: Callable[[str], None] | None = None,
) -> list[Written]:
    """Answer requests, the shortest with the shortest.

    In float32 the answers are those of batches of one, unless they are drawn; in bfloat16 a batch can round differently.

    Args:
        model: anything with this package's `generate`.
        processor: its processor.
        requests: with audio or without, mixed as they come.
        batch_size: requests decoded at once.
        generation: for the language model's `generate`.
        seed: of what is drawn.
        stream: called with each word of the answer as it comes; for a single request, without beams.

    Raises:
        DataError: a conversation that the chat template refuses, or a text that holds the audio placeholder.
    """
    ends = _end_tokens(model, generation)
    prompts = [processor.build_prompt(request.messages) for request in requests]
    streamer: dict[str, Any] = {} if stream is None else {"streamer": WordStreamer(processor.tokenizer, stream)}
    answers: dict[int, Written] = {}
    with _seeded(seed, model.device):
        for rows in _batches(requests, batch_size, equal_budgets=generation.get("num_beams", 1) > 1):
            waveforms = [waveform for i in rows for waveform in requests[i].waveforms]
            batch = processor([prompts[i] for i in rows], audio=waveforms or None).to(model.device)
            longest = max(requests[i].max_new_tokens for i in rows)
            output = model.generate(**batch, max_new_tokens=longest, **generation, **streamer)
            new_tokens = output[:, batch["input_ids"].shape[1] :]
            for i, row in zip(rows, new_tokens, strict=True):
                # Its own budget, so that an answer does not depend on its neighbours in the batch.
                budget = requests[i].max_new_tokens
                tokens = row[:budget].tolist()
                text = processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
                answers[i] = Written(text, budget if len(tokens) == budget and ends.isdisjoint(tokens) else None)
    return [answers[i] for i in range(len(requests))]


def _end_tokens(model: Any, generation: Mapping[str, Any]) -> set[int]:
    # A graft leaves generation to its language model; a model that generates by itself has a configuration of its own.
    own = getattr(model, "generation_config", None) or model.language_model.generation_config
    ends = generation.get("eos_token_id", own.eos_token_id)
    return set(ends if isinstance(ends, list) else [ends])


def _batches(requests: Sequence[Request], batch_size: int, equal_budgets: bool) -> Iterator[list[int]]:
    """Numbers of requests of similar length. With equal budgets, since where beams are stopped decides which of them wins.

    Text alone is never mixed with audio: a model whose own LoRA works on audio alone (Granite Speech) has it on or off for a whole batch.
    """

    def key(i: int) -> tuple[int, bool, int]:
        return (requests[i].max_new_tokens if equal_budgets else 0, bool(requests[i].waveforms), requests[i].n_samples)

    batch: list[int] = []
    for i in sorted(range(len(requests)), key=key):
        if batch and (len(batch) == batch_size or key(i)[:2] != key(batch[0])[:2]):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draws by this seed, and the caller's draws afterwards as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class WordStreamer(BaseStreamer):
    """Hands on the words of one answer, each once it is whole; joined they are the answer's text."""

    def __init__(self, tokenizer: Any, emit: Callable[[str], None]) -> None:
        self._tokenizer = tokenizer
        self._emit = emit
        self._tokens: list[int] | None = None
        self._told = 0

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt first, then a token a step."""
        if self._tokens is None:
            self._tokens = []
            return
        self._tokens += value.flatten().tolist()
        text = self._text()
        # What stands behind the last white space can still grow.
        self._tell(text.rstrip() if text[-1:].isspace() else text[: len(text) - len((text.split() or [""])[-1])].rstrip())

    def end(self) -> None:
        """Hand on what is left."""
        self._tell(self._text().rstrip())

    def _text(self) -> str:
        text: str = self._tokenizer.decode(self._tokens, skip_special_tokens=True)
        return text.lstrip()

    def _tell(self, text: str) -> None:
        if len(text) > self._told:
            self._emit(text[self._told :])
            self._told = len(text)
