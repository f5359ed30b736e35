"""Decoding: conversations with waveforms in, texts out, in batches of similar length."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from transformers import BatchFeature, LogitsProcessor
from transformers.generation.streamers import BaseStreamer

from audiograft.inference.batching import similar_batches
from audiograft.messages import Message
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor
from audiograft.types import ConfigError

if TYPE_CHECKING:
    from PIL import Image

    from audiograft.images import Video

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
        messages: the conversation, an audio part a waveform, an image part an image, a video part a video.
        waveforms: (n_samples,) at 16 kHz each, at most 30 s, in order of their parts.
        max_new_tokens: budget of the answer.
        images: decoded, in order of their parts.
        videos: likewise.
        inputs: what the processor makes of all this (`prompt_inputs`), where that is known already; the pictures are then in it alone.
    """

    messages: Sequence[Message]
    waveforms: Sequence[Waveform]
    max_new_tokens: int
    images: Sequence[Image.Image] = ()
    videos: Sequence[Video] = ()
    inputs: Mapping[str, Any] | None = None

    @property
    def n_samples(self) -> int:
        """Of all waveforms together."""
        return sum(map(len, self.waveforms))

    @property
    def n_values(self) -> int:
        """Numbers that the pictures are for the model; an estimate where that is not known yet, and 0 without pictures."""
        if self.inputs is not None:
            return sum(value.numel() for value in self.inputs["vision"].values() if isinstance(value, torch.Tensor))
        return values_in(self.images, self.videos)

    def made_ready(self, processor: AudioGraftProcessor) -> Request:
        """The same with `inputs`."""
        if self.inputs is not None:
            return self
        inputs = processor.prompt_inputs(self.messages, frames_of(self.waveforms, processor), self.images, self.videos)
        return replace(self, images=(), videos=(), inputs=inputs)


def frames_of(waveforms: Sequence[Waveform], processor: AudioGraftProcessor) -> list[int]:
    """Feature frames of each waveform."""
    return [processor.front_end.feature_frames(len(waveform), processor.pad_to_window) for waveform in waveforms]


def values_in(images: Sequence[Image.Image], videos: Sequence[Video]) -> int:
    """Numbers that decoded pictures are: three a pixel."""
    return sum(3 * image.width * image.height for image in images) + sum(video.frames.size for video in videos)


@dataclass(frozen=True)
class Written:
    """What the model wrote.

    Attributes:
        text: without special tokens.
        cut_at_tokens: where it was stopped by its budget and not by an end token.
        tokens: as the vocabulary has them, to the end token or the budget; empty with beams.
        token_logprobs: natural logarithm of the probability of each token, see `TokenRecorder`.
        decode_s: wall time of its batch over the rows of the batch: features, encoder, decoding, text.
    """

    text: str
    cut_at_tokens: int | None
    tokens: tuple[str, ...] = ()
    token_logprobs: tuple[float, ...] = ()
    decode_s: float = 0.0


class TokenRecorder(LogitsProcessor):
    """Notes how likely each token was that a language model's `generate` chose, and keeps the scores of one step alone.

    It stands behind the model's own processors (suppressed tokens, penalties) and in front of temperature and top-p. So greedy decoding's choice is
    the likeliest of what is noted; of a token that was drawn it is the probability that the model itself gives, at temperature 1.

    Attributes:
        prompt_positions: that were there before the first token was chosen.
    """

    def __init__(self) -> None:
        self.prompt_positions = 0
        self._scores: torch.Tensor | None = None
        self._steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Keep the scores of this step, now that the choice of the one before is known.

        Args:
            input_ids: (rows, positions) so far.
            scores: (rows, vocabulary); handed on as they are.
        """
        if self._scores is None:
            self.prompt_positions = input_ids.shape[1]
        self._note(input_ids[:, -1])
        self._scores = scores
        return scores

    def logprobs(self, new_tokens: torch.Tensor) -> torch.Tensor:
        """(rows, new tokens) of what `generate` gave behind the prompt, called once it is done."""
        # Where the check for the end runs behind, `generate` takes steps back.
        if len(self._steps) < new_tokens.shape[1]:
            self._note(new_tokens[:, -1])
        return torch.stack(self._steps[: new_tokens.shape[1]], dim=1)

    def _note(self, chosen: torch.Tensor) -> None:
        if self._scores is not None:
            # Fused: half the time of a log-sum-exp.
            self._steps.append(-torch.nn.functional.cross_entropy(self._scores, chosen, reduction="none"))


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
        requests: with audio and pictures or without, mixed as they come.
        batch_size: requests decoded at once, fewer where their pictures are large.
        generation: for the language model's `generate`.
        seed: of what is drawn.
        stream: called with each word of the answer as it comes; for a single request, without beams.

    Raises:
        ConfigError: pictures, and the model has no eyes for them.
        DataError: a conversation that the chat template refuses, or a text that holds a placeholder.
        ImageError: a picture that the model's processor refuses.
    """
    writer = _Writer(model, processor, generation, stream)
    # What can't be asked is told before anything is computed; pictures wait until it is their turn, since they take memory.
    requests = [request if request.images or request.videos else request.made_ready(processor) for request in requests]
    # With beams budgets must be equal, since where they are stopped decides which of them wins.
    sizes = [request.n_values for request in requests]
    kinds = [
        (request.max_new_tokens if writer.beams else 0, bool(request.waveforms), size > 0) for request, size in zip(requests, sizes, strict=True)
    ]
    answers: dict[int, Written] = {}
    with seeded(seed, model.device):
        for rows in similar_batches(kinds, [request.n_samples for request in requests], batch_size, sizes):
            answers.update(zip(rows, writer.write([requests[i] for i in rows]), strict=True))
    return [answers[i] for i in range(len(requests))]


class _Writer:
    """Answers one batch after the other."""

    def __init__(self, model: Any, processor: AudioGraftProcessor, generation: Mapping[str, Any], stream: Callable[[str], None] | None) -> None:
        self._model = model
        self._processor = processor
        self._generation = generation
        self._stream = stream
        self._ends = _end_tokens(model, generation)
        self.beams = generation.get("num_beams", 1) > 1

    def write(self, requests: Sequence[Request]) -> list[Written]:
        """Answers to requests that share a batch, in order."""
        start_s = time.perf_counter()
        clips = [self._processor.features(waveform) for request in requests for waveform in request.waveforms]
        rows = [request.made_ready(self._processor).inputs or {} for request in requests]
        batch = BatchFeature(self._processor.collate(rows, clips)).to(self._model.device)
        recorder = None if self.beams else TokenRecorder()
        options: dict[str, Any] = {} if recorder is None else {"logits_processor": [recorder]}
        if self._stream is not None:
            options["streamer"] = WordStreamer(self._processor.tokenizer, self._stream)
        longest = max(request.max_new_tokens for request in requests)
        output = self._model.generate(**batch, max_new_tokens=longest, **self._generation, **options)
        new_tokens = output[:, batch["input_ids"].shape[1] :]
        logprobs = recorder.logprobs(new_tokens).tolist() if recorder else []
        written = []
        for number, (request, row) in enumerate(zip(requests, new_tokens.tolist(), strict=True)):
            # Its own budget, so that an answer does not depend on its neighbours in the batch.
            tokens, ended = up_to_the_end(row[: request.max_new_tokens], self._ends)
            text = self._processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
            cut_at_tokens = None if ended or len(tokens) < request.max_new_tokens else request.max_new_tokens
            noted = (token_names(self._processor.tokenizer, tokens), tuple(logprobs[number][: len(tokens)])) if logprobs else ((), ())
            written.append((text, cut_at_tokens, *noted))
        decode_s = (time.perf_counter() - start_s) / len(requests)
        return [Written(*parts, decode_s) for parts in written]


def up_to_the_end(row: list[int], ends: Collection[int]) -> tuple[list[int], bool]:
    """A row's own tokens, its end token the last of them, and whether it has one; behind it come pads."""
    end = next((place for place, token in enumerate(row) if token in ends), None)
    return (row, False) if end is None else (row[: end + 1], True)


def token_names(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """Tokens as the vocabulary has them; one of the rows that language models have beyond their vocabulary goes by its number, as <151700>."""
    return tuple(f"<{i}>" if name is None else name for i, name in zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True))


def _end_tokens(model: Any, generation: Mapping[str, Any]) -> set[int]:
    # A graft leaves generation to its language model; a model that generates by itself has a configuration of its own.
    own = getattr(model, "generation_config", None) or model.language_model.generation_config
    ends = generation.get("eos_token_id", own.eos_token_id)
    return set(ends if isinstance(ends, list) else [ends])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
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
