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
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor, audio_messages, load_graft, resolve_model
from audiograft.types import SAMPLE_RATE_HZ, TRANSCRIBE_PROMPT, AudioError, ConfigError, Segment, Transcript

log = logging.getLogger(__name__)
Waveform = npt.NDArray[np.float32]

_BASE_TOKENS = 24
_TOKENS_PER_S = 12
"""Budget of new tokens: fast speech has some 5 words a second, and small vocabularies split words; a loop can't run for long."""
_BATCHES_IN_FLIGHT = 8
"""So many batches of chunks are collected before decoding, to be sorted by length."""


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
        note: what a user should know about this model, where its folder says so.
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
        note = Path(resolve_model(model)) / "NOTE.txt"
        return cls(loaded, processor, str(model), note.read_text(encoding="utf-8").strip() if note.exists() else None)

    @overload
    def transcribe(self, audio: AudioInput, *, prompt: str = ..., batch_size: int = ...) -> Transcript: ...
    @overload
    def transcribe(self, audio: list[AudioInput], *, prompt: str = ..., batch_size: int = ...) -> list[Transcript]: ...

    def transcribe(
        self, audio: AudioInput | list[AudioInput], *, prompt: str = TRANSCRIBE_PROMPT, batch_size: int = 8
    ) -> Transcript | list[Transcript]:
        """Transcribe one clip or a list of clips.

        Args:
            audio: a path, bytes of a file, a file object or (samples, rate); or a list of these.
            prompt: the instruction.
            batch_size: chunks decoded at once.

        Raises:
            AudioError: a clip can't be used.
        """
        results = []
        for result in self.transcribe_many(audio if isinstance(audio, list) else [audio], prompt=prompt, batch_size=batch_size):
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
        on_result: Callable[[int, Transcript | AudioError], None] = lambda index, result: None,
    ) -> list[Transcript | AudioError]:
        """Transcribe many clips; one that can't be used gives its error and the others go on.

        Args:
            sources: clips as `transcribe` takes them.
            batch_size: chunks decoded at once.
            prompt: the instruction.
            on_result: called with the index and result of each clip as it is done, which need not be in order.

        Returns:
            One result per source, in order.
        """
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
                self._run(waiting, batch_size, prompt, finish)
                waiting = []
        self._run(waiting, batch_size, prompt, finish)
        return [results[index] for index in range(len(sources))]

    def _job(self, index: int, clip: Clip) -> _Job:
        job = _Job(index, clip, split_into_chunks(clip.waveform))
        if is_silent(clip.waveform):
            log.warning("warning: %s: every sample is zero; transcribed as empty", clip.name)
        for number, chunk in enumerate(job.chunks):
            if is_silent(chunk.waveform):
                job.texts[number] = ""
        return job

    def _run(self, jobs: list[_Job], batch_size: int, prompt: str, finish: Callable[[int, Transcript | AudioError], None]) -> None:
        todo = [(job, number) for job in jobs for number in range(len(job.chunks)) if number not in job.texts]
        texts = self.transcribe_waveforms([job.chunks[number].waveform for job, number in todo], prompts=[prompt] * len(todo), batch_size=batch_size)
        for (job, number), text in zip(todo, texts, strict=True):
            job.texts[number] = text
        for job in jobs:
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
            **generation: for the language model's `generate`.

        Returns:
            One text a chunk, in order. The same as with batches of one.
        """
        order = sorted(range(len(waveforms)), key=lambda i: len(waveforms[i]))
        texts: dict[int, str] = {}
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            budgets = [max_new_tokens or _token_budget(len(waveforms[i])) for i in rows]
            batch = self.processor([self.processor.build_prompt(audio_messages(prompts[i])) for i in rows], audio=[waveforms[i] for i in rows]).to(
                self.model.device
            )
            output = self.model.generate(**batch, max_new_tokens=max(budgets), **{"do_sample": False, **generation})
            new_tokens = output[:, batch["input_ids"].shape[1] :]
            for i, budget, row in zip(rows, budgets, new_tokens, strict=True):
                # Its own budget, so that a clip's text does not depend on its neighbours in the batch.
                texts[i] = self.processor.tokenizer.decode(row[:budget], skip_special_tokens=True).strip()
        return [texts[i] for i in range(len(waveforms))]


def _token_budget(n_samples: int) -> int:
    return _BASE_TOKENS + math.ceil(_TOKENS_PER_S * n_samples / SAMPLE_RATE_HZ)
