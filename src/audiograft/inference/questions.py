"""Questions about clips, made ready for decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audiograft.audio import AudioInput, Clip, load_audio
from audiograft.inference.chunking import split_into_chunks
from audiograft.inference.decoding import Decoding, Request, Waveform
from audiograft.inference.teacher_forcing import Referenced
from audiograft.inference.transcribing import room_behind
from audiograft.messages import AUDIO_MARKER, Message, audio_messages, check_messages, place_clips, with_windows
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor
from audiograft.types import AudioError, DataError

ANSWER_TOKENS = 512
"""Budget of new tokens for an answer: a page of text."""


@dataclass(frozen=True)
class Question:
    """One question, about some clips or about none.

    Attributes:
        clips: as `load_audio` takes them.
        prompt: with an `<audio>` marker a clip, or none to put the clips first; empty where the clips themselves ask.
        messages: a whole conversation in place of the prompt, the user having the last word.
    """

    clips: Sequence[AudioInput] = ()
    prompt: str = ""
    messages: Sequence[Message] | None = None

    @property
    def words(self) -> str:
        """The question in writing; of a conversation its last turn, with markers where clips are."""
        if not self.messages:
            return self.prompt
        content = self.messages[-1]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", AUDIO_MARKER) for part in content)

    def placed(self) -> list[Message]:
        """The conversation with an audio part a clip.

        Raises:
            DataError: nothing is asked, or markers and clips differ in number.
        """
        if self.messages is None:
            if not self.prompt and not self.clips:
                raise DataError("there is no question: give a prompt, a clip, or both")
            return audio_messages(self.prompt, len(self.clips))
        if self.prompt:
            raise DataError("prompt and messages exclude each other: make the prompt the last of the messages")
        if check_messages(list(self.messages))[-1]["role"] != "user":
            raise DataError("the assistant has the last word in messages: end with the user's question")
        return place_clips(self.messages, len(self.clips))


@dataclass(frozen=True)
class Asked:
    """A question on its way, its clips decoded."""

    question: Question
    clips: Sequence[Clip]
    request: Request


def prepare(question: Question, model: AudioGraftForConditionalGeneration, processor: AudioGraftProcessor, options: Decoding) -> Asked:
    """Decode a question's clips. One of more than 30 s becomes several windows, one behind the other in its place.

    Raises:
        AudioError: a clip can't be used, or clips, prompt and answer are longer than the language model's context.
        DataError: nothing is asked, or markers and clips differ in number; without clips also what is too long.
    """
    clips, messages, waveforms = _heard(question)
    wanted = options.max_new_tokens or 1
    positions = _positions(messages, waveforms, processor)
    room = room_behind(model, positions)
    if room is None:
        room = max(ANSWER_TOKENS, wanted)
    elif room < wanted:
        raise _too_long(clips, positions, f"the answer up to {wanted}", room, "lower max_new_tokens")
    return Asked(question, clips, Request(messages, waveforms, options.max_new_tokens or min(ANSWER_TOKENS, room)))


def refer(question: Question, target: str, model: AudioGraftForConditionalGeneration, processor: AudioGraftProcessor) -> Referenced:
    """Decode a question's clips, as `prepare` does, to score an answer that is known.

    Args:
        question: what was asked.
        target: the right answer.
        model: the grafted model.
        processor: its processor.

    Raises:
        AudioError: as `prepare` does.
        DataError: likewise.
    """
    clips, messages, waveforms = _heard(question)
    positions = _positions(messages, waveforms, processor)
    wanted = len(processor.tokenizer(target, add_special_tokens=False)["input_ids"]) + 1
    room = room_behind(model, positions)
    if room is not None and room < wanted:
        raise _too_long(clips, positions, f"the reference {wanted}", room, "shorten the reference")
    return Referenced(messages, waveforms, target)


def _heard(question: Question) -> tuple[list[Clip], list[Message], list[Waveform]]:
    """Clips; conversation with a part a window; windows."""
    placed = question.placed()
    clips = [load_audio(clip) for clip in question.clips]
    windows = [[chunk.waveform for chunk in split_into_chunks(clip.waveform)] for clip in clips]
    return clips, with_windows(placed, [len(own) for own in windows]), [waveform for own in windows for waveform in own]


def _positions(messages: Sequence[Message], waveforms: Sequence[Waveform], processor: AudioGraftProcessor) -> int:
    """That a prompt takes in the language model."""
    frames = [processor.front_end.feature_frames(len(waveform), processor.pad_to_window) for waveform in waveforms]
    text = processor.expand_audio(processor.build_prompt(messages), frames)
    return len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _too_long(clips: Sequence[Clip], positions: int, behind: str, room: int, mend: str) -> AudioError | DataError:
    context = f"positions, {behind}, and the language model has {room + positions}"
    if not clips:
        return DataError(f"the question takes {positions} {context}: shorten it, or {mend}")
    names, duration_s = " and ".join(clip.name for clip in clips), sum(clip.duration_s for clip in clips)
    return AudioError(f"{names}: {duration_s:.0f} s and the question take {positions} {context}: ask about shorter parts, or {mend}")
