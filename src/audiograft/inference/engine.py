"""The engine: clips in; transcripts, or answers to questions about them, out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

import torch

from audiograft.audio import AudioInput, load_audio
from audiograft.inference.batching import in_flight, rows_worth
from audiograft.inference.choices import ClosedQuestion, question_for
from audiograft.inference.chunking import split_into_chunks
from audiograft.inference.decoding import GREEDY, Decoding, DecodingOptions, Request, Waveform, values_in, write_answers
from audiograft.inference.detection import Detector, HearingOptions
from audiograft.inference.questions import Asked, Question, prepare, refer
from audiograft.inference.teacher_forcing import TokenScores, score_references
from audiograft.inference.transcribing import Budgets, Job, a_second_of_noise, join_texts, transcript_tokens
from audiograft.messages import Message, audio_messages
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor, load_model
from audiograft.model.lora import can_merge, merge_lora
from audiograft.types import TRANSCRIBE_PROMPT, Answer, AudioError, ConfigError, Detection, MediaError, Transcript

if TYPE_CHECKING:
    from audiograft.images import ImageInput, VideoInput

log = logging.getLogger(__name__)
Heard = TypeVar("Heard", Transcript, Detection)
Item = TypeVar("Item")


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
        """Open `tiny`, a model folder, or a hub id. In float32 the LoRA of an adapter is merged in memory, which changes a logit by rounding alone.

        Args:
            model: which one.
            device: `auto` takes CUDA where there is one, else the CPU.
            dtype: of the weights in memory; float32 on a CPU and bfloat16 elsewhere by default.

        Raises:
            ConfigError: the model or the device can't be used.
        """
        target = find_device(device)
        loaded, processor = load_model(model, target, dtype or (torch.float32 if target.type == "cpu" else torch.bfloat16))
        # Each layer with LoRA runs two more: `tiny-detect` hears a quarter more clips a second without. In 16 bits merging would round each weight.
        if can_merge(loaded):
            merge_lora(loaded)
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
        budgets = Budgets(self.model, self.processor, prompt, options)
        return in_flight(
            len(sources),
            lambda index: Job.of(load_audio(sources[index]), budgets.request),
            lambda jobs: self._transcribe(jobs, batch_size, options),
            lambda job: len(job.chunks),
            batch_size,
            AudioError,
            on_result,
        )

    def _transcribe(self, jobs: list[Job[Request]], batch_size: int, options: Decoding) -> Iterator[Transcript]:
        todo = [(job, number) for job in jobs for number in job.requests]
        requests = [job.requests[number] for job, number in todo]
        answers = write_answers(self.model, self.processor, requests, batch_size=batch_size, generation=options.generation(), seed=options.seed)
        for (job, number), answer in zip(todo, answers, strict=True):
            job.written[number] = answer
        for job in jobs:
            yield job.transcript(self.name)

    def warm_up(self) -> None:
        """Hear a second of noise, so that no clip pays for what is set up at the first call."""
        self.transcribe_waveforms([a_second_of_noise()], [TRANSCRIBE_PROMPT], max_new_tokens=1)

    def transcribe_waveforms(
        self,
        waveforms: Sequence[Waveform],
        prompts: Sequence[str],
        batch_size: int = 8,
        max_new_tokens: int | None = None,
        **generation: Any,
    ) -> list[str]:
        """Greedy answers about waveforms that are in memory, each with its prompt, whatever is in them: silence too is given to the model.

        Args:
            waveforms: (n_samples,) at 16 kHz; those of more than 30 s are cut as `transcribe` cuts them.
            prompts: one instruction a waveform.
            batch_size: chunks decoded at once; the shortest with the shortest.
            max_new_tokens: length limit of a chunk's text; by default it follows from the chunk's duration.
            **generation: for the language model's `generate`, in place of greedy decoding.

        Returns:
            One text a waveform, in order. In float32 the same as with batches of one; in bfloat16 a batch can round differently.

        Raises:
            DataError: a prompt contains the audio placeholder.
        """
        chunks = [[chunk.waveform for chunk in split_into_chunks(waveform)] for waveform in waveforms]
        requests = [
            Request(audio_messages(prompt), [chunk], max_new_tokens or transcript_tokens(len(chunk)))
            for own, prompt in zip(chunks, prompts, strict=True)
            for chunk in own
        ]
        answers = iter(write_answers(self.model, self.processor, requests, batch_size=batch_size, generation={**GREEDY, **generation}))
        return [join_texts([next(answers).text for _ in own]) for own in chunks]

    def ask(
        self,
        audio: AudioInput | list[AudioInput] | None = None,
        prompt: str = "",
        *,
        images: ImageInput | list[ImageInput] | None = None,
        videos: VideoInput | list[VideoInput] | None = None,
        messages: Sequence[Message] | None = None,
        stream: Callable[[str], None] | None = None,
        **decoding: Unpack[DecodingOptions],
    ) -> Answer:
        """Answer one question about clips and pictures, about one of them, or about none.

        A clip of more than 30 s becomes several windows, one behind the other in its place, cut at pauses where there are some.

        Args:
            audio: a clip as `transcribe` takes it, a list of clips, or None for none.
            prompt: the question, with a marker for each item of a kind (`<audio>`, `<image>`, `<video>`), or none to put that kind first; empty where
                the clips themselves ask.
            images: likewise, as `audiograft.images.load_image` takes them.
            videos: likewise, as `load_video` takes them.
            messages: a whole conversation in place of the prompt, the user having the last word; see `audiograft.messages`.
            stream: called with each word as it comes; joined they are the answer's text.
            **decoding: see `Decoding`; an answer has at most 512 tokens by default.

        Raises:
            AudioError: a clip can't be used, or the clips are longer than the language model's context.
            ConfigError: options of decoding that are out of range or exclude each other, or pictures for a model without eyes.
            DataError: nothing is asked, markers differ in number from clips or pictures, or the chat template refuses the conversation.
            ImageError: a picture can't be used, or is longer than the context.
        """
        options = Decoding(**decoding)
        if stream is not None and options.num_beams > 1:
            raise ConfigError("words can't be streamed with beams, which change their minds: leave num_beams at 1")
        question = Question(_listed(audio), prompt, messages, _listed(images), _listed(videos))
        asked = prepare(question, self.model, self.processor, options)
        [answer] = self._answer([asked], 1, options, stream)
        return answer

    def ask_many(
        self,
        questions: Sequence[Question],
        *,
        batch_size: int = 8,
        on_result: Callable[[int, Answer | MediaError], None] = lambda index, result: None,
        **decoding: Unpack[DecodingOptions],
    ) -> list[Answer | MediaError]:
        """Answer many questions; one whose clips or pictures can't be used gives its error and the others go on.

        Args:
            questions: with clips and pictures or without, mixed as they come.
            batch_size: questions answered at once.
            on_result: called with the index and result of each question as it is done, which need not be in order.
            **decoding: as for `ask`.

        Returns:
            One result per question, in order.

        Raises:
            ConfigError: as for `ask`.
            DataError: likewise; before any clip is read where markers are to blame.
        """
        options = Decoding(**decoding)
        for question in questions:
            question.placed()
        return in_flight(
            len(questions),
            lambda index: prepare(questions[index], self.model, self.processor, options),
            lambda asked: self._answer(asked, batch_size, options),
            lambda asked: rows_worth(asked.request.n_values, batch_size),
            batch_size,
            MediaError,
            on_result,
        )

    def _answer(self, asked: Sequence[Asked], batch_size: int, options: Decoding, stream: Callable[[str], None] | None = None) -> Iterator[Answer]:
        """One answer a question, in order."""
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
                place = f"{' and '.join([*item.images, *item.videos, *names])}: " if names or item.images or item.videos else ""
                log.warning("warning: %sthe answer was cut at %d tokens; pass max_new_tokens for more", place, answer.cut_at_tokens)
            duration_s = round(sum(clip.duration_s for clip in item.clips), 4)
            yield Answer(
                answer.text,
                item.question.words,
                names,
                duration_s,
                self.name,
                *(answer.tokens, answer.token_logprobs, round(answer.decode_s, 6), item.images, item.videos),
            )

    @overload
    def detect(self, audio: AudioInput, question: ClosedQuestion | None = ..., **hearing: Unpack[HearingOptions]) -> Detection: ...
    @overload
    def detect(self, audio: list[AudioInput], question: ClosedQuestion | None = ..., **hearing: Unpack[HearingOptions]) -> list[Detection]: ...

    def detect(
        self, audio: AudioInput | list[AudioInput], question: ClosedQuestion | None = None, **hearing: Unpack[HearingOptions]
    ) -> Detection | list[Detection]:
        """Say whether there is speech in one clip or in each of a list, how sure that is, and in clips of more than a second where it is.

        Args:
            audio: a path, bytes of a file, a file object or (samples, rate); or a list of these.
            question: what is asked; the model's own by default, see `audiograft.inference.choices`.
            **hearing: as for `choose_many`; here clips of more than a second are cut by default.

        Raises:
            AudioError: a clip can't be used.
            ConfigError: the answers don't fit the model's vocabulary.
        """
        sources = audio if isinstance(audio, list) else [audio]
        options: HearingOptions = {"cut": None, **hearing}
        results = [_raised(result) for result in self.choose_many(sources, question or question_for(self.name), **options)]
        return results if isinstance(audio, list) else results[0]

    def choose_many(
        self,
        sources: Sequence[AudioInput],
        question: ClosedQuestion,
        *,
        on_result: Callable[[int, Detection | AudioError], None] = lambda index, result: None,
        **hearing: Unpack[HearingOptions],
    ) -> list[Detection | AudioError]:
        """Answer a closed question about many clips; one that can't be used gives its error and the others go on.

        Args:
            sources: clips as `detect` takes them.
            question: what is asked, and what may be answered.
            on_result: called with the index and result of each clip as it is done, which need not be in order.
            **hearing: see `HearingOptions`; by default each clip is heard whole.

        Returns:
            One result per source, in order.

        Raises:
            ConfigError: the answers don't fit the model's vocabulary.
            DataError: its chat template refuses the conversation.
        """
        batch_size = hearing.get("batch_size", 64)
        detector = Detector(self, question, hearing.get("cut", False), hearing.get("segmentation"))
        return in_flight(
            len(sources),
            lambda index: detector.hear(sources[index]),
            lambda heard: detector.answer(heard, batch_size),
            lambda heard: len(heard.windows),
            batch_size,
            AudioError,
            on_result,
        )

    def score_references(
        self,
        questions: Sequence[Question],
        targets: Sequence[str],
        *,
        batch_size: int = 8,
        on_result: Callable[[int, TokenScores | MediaError], None] = lambda index, result: None,
    ) -> list[TokenScores | MediaError]:
        """How likely the model finds the right answer to each question; one whose files can't be used gives its error and the others go on.

        Clips are heard as `ask_many` hears them, those of more than 30 s window by window, and silence like any other.

        Args:
            questions: with clips or without, mixed as they come; for a transcript the clip and its instruction.
            targets: the right answer to each.
            batch_size: answers scored at once.
            on_result: called with the index and result of each question as it is done, which need not be in order.

        Returns:
            One result per question, in order; see `audiograft.inference.teacher_forcing`.

        Raises:
            DataError: as for `ask`, or a target contains the audio placeholder.
        """
        for question in questions:
            question.placed()
        pairs = list(zip(questions, targets, strict=True))
        return in_flight(
            len(pairs),
            lambda index: refer(*pairs[index], self.model, self.processor),
            lambda items: score_references(self.model, self.processor, items, batch_size),
            lambda item: rows_worth(values_in(item.images, item.videos), batch_size),
            batch_size,
            MediaError,
            on_result,
        )


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


def _listed(given: Item | list[Item] | None) -> list[Item]:
    return given if isinstance(given, list) else [] if given is None else [given]


def _raised(result: Heard | AudioError) -> Heard:
    if isinstance(result, AudioError):
        raise result
    return result
