"""A clip on its way to its transcript: its windows, their budgets, and what becomes of what was written."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import numpy as np

from audiograft.audio import Clip, is_silent
from audiograft.inference.chunking import Chunk, split_into_chunks
from audiograft.inference.decoding import Decoding, Request, Waveform, Written
from audiograft.messages import audio_messages
from audiograft.types import SAMPLE_RATE_HZ, WINDOW_SAMPLES, AudioError, Segment, Transcript

log = logging.getLogger(__name__)
Asking = TypeVar("Asking")

_BASE_TOKENS = 24
_TOKENS_PER_S = 12
"""Budget of new tokens for a transcript: fast speech has some 5 words a second, and small vocabularies split words; a loop can't run for long."""


def transcript_tokens(n_samples: int) -> int:
    """Budget of new tokens for the transcript of so many samples at 16 kHz."""
    return _BASE_TOKENS + math.ceil(_TOKENS_PER_S * n_samples / SAMPLE_RATE_HZ)


def room_behind(model: Any, positions: int) -> int | None:
    """Tokens that an answer can have behind a prompt of so many positions, which may be negative; None where the language model states no limit."""
    limit: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return None if limit is None else limit - positions


class Budgets:
    """Requests for transcripts, as long as the language model's context lets them be."""

    def __init__(self, model: Any, processor: Any, prompt: str, options: Decoding) -> None:
        """Raises DataError where the prompt contains the audio placeholder."""
        self._model = model
        self._processor = processor
        self._messages = audio_messages(prompt)
        self._options = options
        # One of them is the placeholder, in whose place the clip's tokens come.
        self._prompt_tokens = len(processor.tokenizer(processor.build_prompt(self._messages), add_special_tokens=False)["input_ids"]) - 1

    def request(self, clip: Clip, waveform: Waveform) -> Request:
        """What is asked about a chunk of a clip.

        Raises:
            AudioError: prompt and chunk leave no room for a transcript.
        """
        frames = self._processor.front_end.feature_frames(len(waveform), self._processor.pad_to_window)
        positions = self._prompt_tokens + self._processor.front_end.audio_tokens(frames)
        room = room_behind(self._model, positions)
        if room is not None and room < (wanted := self._options.max_new_tokens or 1):
            raise AudioError(
                f"{clip.name}: the prompt and {len(waveform) / SAMPLE_RATE_HZ:.0f} s take {positions} positions, the transcript up to {wanted}, "
                f"and the language model has {room + positions}: shorten the prompt, or lower max_new_tokens"
            )
        # Beams are stopped alike, whatever the length, so that chunks of all lengths can share a batch.
        expected = transcript_tokens(WINDOW_SAMPLES if self._options.num_beams > 1 else len(waveform))
        return Request(self._messages, [waveform], self._options.max_new_tokens or (expected if room is None else min(expected, room)))


@dataclass
class Job(Generic[Asking]):
    """A clip, its chunks, and what was written about them so far.

    Attributes:
        clip: decoded.
        chunks: at most 30 s each.
        requests: by number of the chunk. A chunk in which every sample is zero has none: it is empty without the model being asked.
        written: likewise, once it is there.
    """

    clip: Clip
    chunks: list[Chunk]
    requests: dict[int, Asking]
    written: dict[int, Written]

    @classmethod
    def of(cls, clip: Clip, request: Callable[[Clip, Waveform], Asking]) -> Self:
        """The clip, cut up; `request` says what is asked about a chunk, and what it raises is raised."""
        if is_silent(clip.waveform):
            log.warning("warning: %s: every sample is zero; transcribed as empty", clip.name)
        chunks = split_into_chunks(clip.waveform)
        heard = {number: chunk for number, chunk in enumerate(chunks) if not is_silent(chunk.waveform)}
        requests = {number: request(clip, chunk.waveform) for number, chunk in heard.items()}
        return cls(clip, chunks, requests, {number: Written("", None) for number in range(len(chunks)) if number not in heard})

    def transcript(self, model: str) -> Transcript:
        """All chunks are written."""
        written = [self.written[number] for number in range(len(self.chunks))]
        if cut := [part.cut_at_tokens for part in written if part.cut_at_tokens is not None]:
            log.warning("warning: %s: the text was cut at %d tokens; pass max_new_tokens for more", self.clip.name, cut[0])
        segments = tuple(
            Segment(
                round(chunk.start_sample / SAMPLE_RATE_HZ, 3),
                round((chunk.start_sample + len(chunk.waveform)) / SAMPLE_RATE_HZ, 3),
                part.text,
            )
            for chunk, part in zip(self.chunks, written, strict=True)
        )
        return Transcript(
            self.clip.name,
            join_texts([part.text for part in written]),
            round(self.clip.duration_s, 4),
            model,
            segments,
            tuple(token for part in written for token in part.tokens),
            tuple(logprob for part in written for logprob in part.token_logprobs),
            round(sum(part.decode_s for part in written), 6),
        )


def join_texts(texts: Sequence[str]) -> str:
    """The text of a clip from those of its chunks."""
    return " ".join(text for text in texts if text)


def a_second_of_noise() -> Waveform:
    """Quiet white noise, (16000,): what an engine warms up with."""
    return np.random.default_rng(0).standard_normal(SAMPLE_RATE_HZ, dtype=np.float32) * np.float32(0.01)
