"""The engine: clips in; transcripts, or answers to questions about them, out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
import numpy.typing as npt
import torch

from audiograft.audio import AudioInput, Clip, is_silent, load_audio
from audiograft.inference.chunking import Chunk, split_into_chunks
from audiograft.inference.decoding import GREEDY, Decoding, DecodingOptions, Request, write_answers
from audiograft.inference.questions import Asked, Question, prepare
from audiograft.messages import Message, audio_messages
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor, load_model
from audiograft.types import SAMPLE_RATE_HZ, TRANSCRIBE_PROMPT, WINDOW_SAMPLES, Answer, AudioError, ConfigError, Segment, Transcript

log = logging.getLogger(__name__)
Waveform = npt.NDArray[np.float32]

_BASE_TOKENS = 24
_TOKENS_PER_S = 12
"""Budget of new tokens for a transcript: fast speech has some 5 words a second, and small vocabularies split words; a loop can't run for long."""
BATCHES_IN_FLIGHT = 8
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
        model: the grafted model, or any other that has its interface.
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
        target = find_device(device)
        loaded, processor = load_model(model, target, dtype or (torch.float32 if target.type == "cpu" else torch.bfloat16))
        return cls(loaded, processor, str(model), loaded.config.note)

    @overload
    def transcribe(self, audio: AudioInput, *, prompt: str = ..., batch_size: int = ..., **decoding: Unpack[DecodingOptions]) -> Transcript: ...
    @overload
    def transcribe(
        self, audio: list[AudioInput], *, prompt: str = ..., batch_size: int = ..., **decoding: Unpack[DecodingOptions]
    ) -> list[Transcript]: ...

    def transcribe(
        self, audio: AudioInput | list[AudioInput], *, prompt: str = TRANSCRIBE_PROMPT, batch_size: int = 8, **decoding: Unpack[DecodingOptions]
    ) -> Transcript | list[Transcript]:
        """Transcribe one clip or a list of clips.

        Args:
            audio: a path, bytes of a file, a file object or (samples, rate); or a list of these.
            prompt: the instruction.
            batch_size: chunks decoded at once.
            **decoding: see `Decoding`; the length limit of a chunk's text follows from its duration by default.

        Raises:
            AudioError: a clip can't be used.
            ConfigError: options of decoding that are out of range or exclude each other.
            DataError: the prompt contains the audio placeholder.
        """
        sources = audio if isinstance(audio, list) else [audio]
        results = [_raised(result) for result in self.transcribe_many(sources, prompt=prompt, batch_size=batch_size, **decoding)]
        return results if isinstance(audio, list) else results[0]

    def transcribe_many(
        self,
        sources: Sequence[AudioInput],
        *,
        batch_size: int = 8,
        prompt: str = TRANSCRIBE_PROMPT,
        on_result: Callable[[int, Transcript | AudioError], None] = lambda index, result: None,
        **decoding: Unpack[DecodingOptions],
    ) -> list[Transcript | AudioError]:
        """Transcribe many clips; one that can't be used gives its error and the others go on.

        Args:
            sources: clips as `transcribe` takes them.
            batch_size: chunks decoded at once.
            prompt: the instruction.
            on_result: called with the index and result of each clip as it is done, which need not be in order.
            **decoding: as for `transcribe`.

        Returns:
            One result per source, in order.

        Raises:
            ConfigError: options of decoding that are out of range or exclude each other.
            DataError: the prompt contains the audio placeholder.
        """
        options = Decoding(**decoding)
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
            if sum(len(job.chunks) for job in waiting) >= batch_size * BATCHES_IN_FLIGHT:
                self._run(waiting, prompt, batch_size, options, finish)
                waiting = []
        self._run(waiting, prompt, batch_size, options, finish)
        return [results[index] for index in range(len(sources))]

    def _job(self, index: int, clip: Clip) -> _Job:
        job = _Job(index, clip, split_into_chunks(clip.waveform))
        if is_silent(clip.waveform):
            log.warning("warning: %s: every sample is zero; transcribed as empty", clip.name)
        for number, chunk in enumerate(job.chunks):
            if is_silent(chunk.waveform):
                job.texts[number] = ""
        return job

    def _run(
        self,
        jobs: list[_Job],
        prompt: str,
        batch_size: int,
        options: Decoding,
        finish: Callable[[int, Transcript | AudioError], None],
    ) -> None:
        todo = [(job, number) for job in jobs for number in range(len(job.chunks)) if number not in job.texts]
        messages = audio_messages(prompt)
        waveforms = [job.chunks[number].waveform for job, number in todo]
        requests = [Request(messages, [waveform], options.max_new_tokens or transcript_tokens(len(waveform))) for waveform in waveforms]
        if options.num_beams > 1 and options.max_new_tokens is None:
            # Beams are stopped alike, whatever the length, so that chunks of all lengths can share a batch.
            requests = [replace(request, max_new_tokens=transcript_tokens(WINDOW_SAMPLES)) for request in requests]
        answers = write_answers(self.model, self.processor, requests, batch_size=batch_size, generation=options.generation(), seed=options.seed)
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
        requests = [
            Request(audio_messages(prompt), [waveform], max_new_tokens or transcript_tokens(len(waveform)))
            for waveform, prompt in zip(waveforms, prompts, strict=True)
        ]
        answers = write_answers(self.model, self.processor, requests, batch_size=batch_size, generation={**GREEDY, **generation})
        return [answer.text for answer in answers]

    def ask(
        self,
        audio: AudioInput | list[AudioInput] | None = None,
        prompt: str = "",
        *,
        messages: Sequence[Message] | None = None,
        stream: Callable[[str], None] | None = None,
        **decoding: Unpack[DecodingOptions],
    ) -> Answer:
        """Answer one question about a clip, about several clips, or about none.

        A clip of more than 30 s becomes several windows, one behind the other in its place, cut at pauses where there are some.

        Args:
            audio: a clip as `transcribe` takes it, a list of clips, or None.
            prompt: the question, with an `<audio>` marker a clip, or none to put the clips first; empty where the clips themselves ask.
            messages: a whole conversation in place of the prompt, the user having the last word; see `audiograft.messages`.
            stream: called with each word as it comes; joined they are the answer's text.
            **decoding: see `Decoding`; an answer has at most 512 tokens by default.

        Raises:
            AudioError: a clip can't be used, or the clips are longer than the language model's context.
            ConfigError: options of decoding that are out of range or exclude each other.
            DataError: nothing is asked, markers and clips differ in number, or the chat template refuses the conversation.
        """
        options = Decoding(**decoding)
        if stream is not None and options.num_beams > 1:
            raise ConfigError("words can't be streamed with beams, which change their minds: leave num_beams at 1")
        clips = audio if isinstance(audio, list) else [] if audio is None else [audio]
        asked = prepare(0, Question(clips, prompt, messages), self.model, self.processor, options)
        [(_, answer)] = self._answer([asked], 1, options, stream)
        return answer

    def ask_many(
        self,
        questions: Sequence[Question],
        *,
        batch_size: int = 8,
        on_result: Callable[[int, Answer | AudioError], None] = lambda index, result: None,
        **decoding: Unpack[DecodingOptions],
    ) -> list[Answer | AudioError]:
        """Answer many questions; one whose clips can't be used gives its error and the others go on.

        Args:
            questions: with clips or without, mixed as they come.
            batch_size: questions answered at once.
            on_result: called with the index and result of each question as it is done, which need not be in order.
            **decoding: as for `ask`.

        Returns:
            One result per question, in order.

        Raises:
            ConfigError: options of decoding that are out of range or exclude each other.
            DataError: as for `ask`; before any clip is read where markers are to blame.
        """
        options = Decoding(**decoding)
        for question in questions:
            question.placed()
        results: dict[int, Answer | AudioError] = {}

        def finish(index: int, result: Answer | AudioError) -> None:
            results[index] = result
            on_result(index, result)

        waiting: list[Asked] = []
        for index, question in enumerate(questions):
            try:
                waiting.append(prepare(index, question, self.model, self.processor, options))
            except AudioError as error:
                finish(index, error)
            if len(waiting) == batch_size * BATCHES_IN_FLIGHT:
                for done, answer in self._answer(waiting, batch_size, options):
                    finish(done, answer)
                waiting = []
        for done, answer in self._answer(waiting, batch_size, options):
            finish(done, answer)
        return [results[index] for index in range(len(questions))]

    def _answer(
        self, asked: Sequence[Asked], batch_size: int, options: Decoding, stream: Callable[[str], None] | None = None
    ) -> Iterator[tuple[int, Answer]]:
        """Index and answer of each question."""
        written = write_answers(
            self.model,
            self.processor,
            [item.request for item in asked],
            batch_size=batch_size,
            generation=options.generation(),
            seed=options.seed,
            stream=stream,
        )
        for item, answer in zip(asked, written, strict=True):
            names = tuple(clip.name for clip in item.clips)
            if answer.cut_at_tokens is not None:
                place = f"{' and '.join(names)}: " if names else ""
                log.warning("warning: %sthe answer was cut at %d tokens; pass max_new_tokens for more", place, answer.cut_at_tokens)
            duration_s = round(sum(clip.duration_s for clip in item.clips), 4)
            yield item.index, Answer(answer.text, item.question.words, names, duration_s, self.name)


def find_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes CUDA where there is one, else the CPU.

    Raises:
        ConfigError: it can't be used here.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} can't be used here: use auto or cpu") from error
    return device


def _raised(result: Transcript | AudioError) -> Transcript:
    if isinstance(result, AudioError):
        raise result
    return result


def transcript_tokens(n_samples: int) -> int:
    """Budget of new tokens for the transcript of so many samples at 16 kHz."""
    return _BASE_TOKENS + math.ceil(_TOKENS_PER_S * n_samples / SAMPLE_RATE_HZ)
