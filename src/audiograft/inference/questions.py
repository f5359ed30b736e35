"""Questions about clips, made ready for decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audiograft.audio import AudioInput, Clip, load_audio
from audiograft.inference.chunking import split_into_chunks
from audiograft.inference.decoding import Decoding, Request
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

    index: int
    question: Question
    clips: Sequence[Clip]
    request: Request


def prepare(index: int, question: Question, model: AudioGraftForConditionalGeneration, processor: AudioGraftProcessor, options: Decoding) -> Asked:
    """Decode a question's clips. One of more than 30 s becomes several windows, one behind the other in its place.

    Raises:
        AudioError: a clip can't be used, or clips, prompt and answer are longer than the language model's context.
        DataError: nothing is asked, or markers and clips differ in number; without clips also what is too long.
    """
    placed = question.placed()
    clips = [load_audio(clip) for clip in question.clips]
    windows = [[chunk.waveform for chunk in split_into_chunks(clip.waveform)] for clip in clips]
    waveforms = [waveform for own in windows for waveform in own]
    messages = with_windows(placed, [len(own) for own in windows])
    frames = [processor.front_end.feature_frames(len(waveform), processor.pad_to_window) for waveform in waveforms]
    text = processor.expand_audio(processor.build_prompt(messages), frames)
    room = _room(model, len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]), clips, options.max_new_tokens or 1)
    return Asked(index, question, clips, Request(messages, waveforms, options.max_new_tokens or min(ANSWER_TOKENS, room)))


def _room(model: AudioGraftForConditionalGeneration, positions: int, clips: Sequence[Clip], answer_tokens: int) -> int:
    """Tokens that an answer can have behind a prompt of so many positions; raises where `answer_tokens` are more."""
    limit: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is None:
        return max(ANSWER_TOKENS, answer_tokens)
    if positions + answer_tokens <= limit:
        return limit - positions
    context = f"positions, the answer up to {answer_tokens}, and the language model has {limit}"
    if not clips:
        raise DataError(f"the question takes {positions} {context}: shorten it, or lower max_new_tokens")
    names, duration_s = " and ".join(clip.name for clip in clips), sum(clip.duration_s for clip in clips)
    raise AudioError(f"{names}: {duration_s:.0f} s and the question take {positions} {context}: ask about shorter parts, or lower max_new_tokens")
