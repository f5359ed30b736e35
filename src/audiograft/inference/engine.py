"""The engine: clips in, transcripts out, in batches of similar length."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch

from audiograft.audio import AudioInput, Clip, is_silent, load_audio
from audiograft.inference.chunking import Chunk, split_into_chunks
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor, audio_messages, load_graft
from audiograft.types import SAMPLE_RATE_HZ, TRANSCRIBE_PROMPT, AudioError, ConfigError, Segment, Transcript

log = logging.getLogger(__name__)
Waveform = npt.NDArray[np.float32]

_BASE_TOKENS = 24
_TOKENS_PER_S = 12
"""Budget of new tokens: fast speech has some 5 words a second, and small vocabularies split words; a loop can't run for long."""
_BATCHES_IN_FLIGHT = 8
"""So many batches of chunks are collected before decoding, to be sorted by length."""
_GREEDY: dict[str, Any] = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
"""Against the language model's own generation config, whose penalties are made for chat: speech repeats words, and a transcript has to."""


@dataclass(frozen=True)
class _Options:
    """How the clips of one call are transcribed."""

    prompt: str
    batch_size: int
    max_new_tokens: int | None


@dataclass(frozen=True)
class _Answer:
    """What the model wrote about one chunk; `cut_at_tokens` where it was stopped by its budget and not by an end token."""

    text: str
    cut_at_tokens: int | None


@dataclass
class _Job:
    """A clip on its way: its chunks and the texts that are done."""

    index: int
    clip: Clip
    chunks: list[Chunk]
    texts: dict[int, str] = field(default_factory=dict)


class Engine:
    """A loaded model that listens.

    Attributes:
        model: the grafted model.
        processor: its processor.
        name: as it was asked for; stands in every transcript.
        note: what a user should know about this model, where its configuration says so.
    """

    def __init__(
        self, model: AudioGraftForConditionalGeneration, processor: AudioGraftProcessor, name: str = "model", note: str | None = None
    ) -> None:
        self.model = model
        self.processor = processor
        self.name = name
        self.note = note

    @classmethod
    def load(cls, model: str | Path = "tiny", device: str = "auto", dtype: torch.dtype | None = None) -> Engine:
        """Open `tiny`, a model folder, or a hub id.

        Args:
            model: which one.
            device: `auto` takes CUDA where there is one, else the CPU.
            dtype: of the weights in memory; float32 on a CPU and bfloat16 elsewhere by default.

        Raises:
            ConfigError: the model or the device can't be used.
        """
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        try:
            target = torch.device(name)
            torch.empty(0, device=target)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device {device!r} can't be used here: use auto or cpu") from error
        loaded, processor = load_graft(model, target, dtype or (torch.float32 if target.type == "cpu" else torch.bfloat16))
        return cls(loaded, processor, str(model), loaded.config.note)

    @overload
    def transcribe(self, audio: AudioInput, *, prompt: str = ..., batch_size: int = ..., max_new_tokens: int | None = ...) -> Transcript: ...
    @overload
    def transcribe(
        self, audio: list[AudioInput], *, prompt: str = ..., batch_size: int = ..., max_new_tokens: int | None = ...
    ) -> list[Transcript]: ...

    def transcribe(
        self,
        audio: AudioInput | list[AudioInput],
        *,
        prompt: str = TRANSCRIBE_PROMPT,
        batch_size: int = 8,
        max_new_tokens: int | None = None,
    ) -> Transcript | list[Transcript]:
        """Transcribe one clip or a list of clips.

        Args:
            audio: a path, bytes of a file, a file object or (samples, rate); or a list of these.
            prompt: the instruction.
            batch_size: chunks decoded at once.
            max_new_tokens: length limit of a chunk's text; by default it follows from its duration.

        Raises:
            AudioError: a clip can't be used.
            DataError: the prompt contains the audio placeholder.
        """
        results = []
        sources = audio if isinstance(audio, list) else [audio]
        for result in self.transcribe_many(sources, prompt=prompt, batch_size=batch_size, max_new_tokens=max_new_tokens):
            if isinstance(result, AudioError):
                raise result
            results.append(result)
        return results if isinstance(audio, list) else results[0]

    def transcribe_many(
        self,
        sources: Sequence[AudioInput],
        *,
        batch_size: int = 8,
        prompt: str = TRANSCRIBE_PROMPT,
        max_new_tokens: int | None = None,
        on_result: Callable[[int, Transcript | AudioError], None] = lambda index, result: None,
    ) -> list[Transcript | AudioError]:
        """Transcribe many clips; one that can't be used gives its error and the others go on.

        Args:
            sources: clips as `transcribe` takes them.
            batch_size: chunks decoded at once.
            prompt: the instruction.
            max_new_tokens: length limit of a chunk's text; by default it follows from its duration.
            on_result: called with the index and result of each clip as it is done, which need not be in order.

        Returns:
            One result per source, in order.

        Raises:
            DataError: the prompt contains the audio placeholder.
        """
        options = _Options(prompt, batch_size, max_new_tokens)
        results: dict[int, Transcript | AudioError] = {}

        def finish(index: int, result: Transcript | AudioError) -> None:
            results[index] = result
            on_result(index, result)

        waiting: list[_Job] = []
        for index, source in enumerate(sources):
            try:
                clip = load_audio(source)
            except AudioError as error:
                finish(index, error)
                continue
            waiting.append(self._job(index, clip))
            if sum(len(job.chunks) for job in waiting) >= batch_size * _BATCHES_IN_FLIGHT:
                self._run(waiting, options, finish)
                waiting = []
        self._run(waiting, options, finish)
        return [results[index] for index in range(len(sources))]

    def _job(self, index: int, clip: Clip) -> _Job:
        job = _Job(index, clip, split_into_chunks(clip.waveform))
        if is_silent(clip.waveform):
            log.warning("warning: %s: every sample is zero; transcribed as empty", clip.name)
        for number, chunk in enumerate(job.chunks):
            if is_silent(chunk.waveform):
                job.texts[number] = ""
        return job

    def _run(self, jobs: list[_Job], options: _Options, finish: Callable[[int, Transcript | AudioError], None]) -> None:
        todo = [(job, number) for job in jobs for number in range(len(job.chunks)) if number not in job.texts]
        waveforms = [job.chunks[number].waveform for job, number in todo]
        answers = self._answers(waveforms, [options.prompt] * len(todo), options.batch_size, options.max_new_tokens, {})
        cut: dict[int, int] = {}
        for (job, number), answer in zip(todo, answers, strict=True):
            job.texts[number] = answer.text
            if answer.cut_at_tokens is not None:
                cut.setdefault(job.index, answer.cut_at_tokens)
        for job in jobs:
            if job.index in cut:
                log.warning("warning: %s: the text was cut at %d tokens; pass max_new_tokens for more", job.clip.name, cut[job.index])
            finish(job.index, self._transcript(job))

    def _transcript(self, job: _Job) -> Transcript:
        segments = tuple(
            Segment(
                round(chunk.start_sample / SAMPLE_RATE_HZ, 3),
                round((chunk.start_sample + len(chunk.waveform)) / SAMPLE_RATE_HZ, 3),
                job.texts[number],
            )
            for number, chunk in enumerate(job.chunks)
        )
        text = " ".join(segment.text for segment in segments if segment.text)
        return Transcript(job.clip.name, text, round(job.clip.duration_s, 4), self.name, segments)

    def transcribe_waveforms(
        self,
        waveforms: Sequence[Waveform],
        prompts: Sequence[str],
        batch_size: int = 8,
        max_new_tokens: int | None = None,
        **generation: Any,
    ) -> list[str]:
        """Greedy answers for chunks that are in memory, each with its prompt.

        Args:
            waveforms: (n_samples,) at 16 kHz, at most 30 s each.
            prompts: one instruction a chunk.
            batch_size: chunks decoded at once; the shortest with the shortest.
            max_new_tokens: length limit; by default it follows from each chunk's duration.
            **generation: for the language model's `generate`, in place of greedy decoding.

        Returns:
            One text a chunk, in order. In float32 the same as with batches of one; in bfloat16 a batch can round differently.

        Raises:
            DataError: a prompt contains the audio placeholder.
        """
        return [answer.text for answer in self._answers(waveforms, prompts, batch_size, max_new_tokens, generation)]

    def _answers(
        self, waveforms: Sequence[Waveform], prompts: Sequence[str], batch_size: int, max_new_tokens: int | None, generation: dict[str, Any]
    ) -> list[_Answer]:
        eos = generation.get("eos_token_id", self.model.language_model.generation_config.eos_token_id)
        ends = set(eos if isinstance(eos, list) else [eos])
        order = sorted(range(len(waveforms)), key=lambda i: len(waveforms[i]))
        rendered = {prompt: self.processor.build_prompt(audio_messages(prompt)) for prompt in set(prompts)}
        answers: dict[int, _Answer] = {}
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            budgets = [_token_budget(len(waveforms[i])) if max_new_tokens is None else max_new_tokens for i in rows]
            batch = self.processor([rendered[prompts[i]] for i in rows], audio=[waveforms[i] for i in rows]).to(self.model.device)
            output = self.model.generate(**batch, max_new_tokens=max(budgets), **{**_GREEDY, **generation})
            new_tokens = output[:, batch["input_ids"].shape[1] :]
            for i, budget, row in zip(rows, budgets, new_tokens, strict=True):
                # Its own budget, so that a clip's text does not depend on its neighbours in the batch.
                tokens = row[:budget].tolist()
                text = self.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
                answers[i] = _Answer(text, budget if len(tokens) == budget and ends.isdisjoint(tokens) else None)
        return [answers[i] for i in range(len(waveforms))]


def _token_budget(n_samples: int) -> int:
    return _BASE_TOKENS + math.ceil(_TOKENS_PER_S * n_samples / SAMPLE_RATE_HZ)
