"""Questions about clips and pictures, made ready for decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audiograft.audio import AudioInput, Clip, load_audio
from audiograft.images import Video, load_image, load_video, media_name
from audiograft.inference.chunking import split_into_chunks
from audiograft.inference.decoding import Decoding, Request, Waveform, frames_of
from audiograft.inference.teacher_forcing import Referenced
from audiograft.inference.transcribing import room_behind
from audiograft.messages import Message, check_messages, media_messages, place_media, with_windows
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor
from audiograft.types import AudioError, DataError, ImageError

if TYPE_CHECKING:
    from PIL import Image

    from audiograft.images import ImageInput, VideoInput

ANSWER_TOKENS = 512
"""Budget of new tokens for an answer: a page of text."""


@dataclass(frozen=True)
class Question:
    """One question, about some clips and pictures or about none.

    Attributes:
        clips: as `load_audio` takes them.
        prompt: with a marker for each item of a kind (`<audio>`, `<image>`, `<video>`), or none to put that kind first; empty where the clips ask.
        messages: a whole conversation in place of the prompt, the user having the last word.
        images: as `audiograft.images.load_image` takes them.
        videos: as `load_video` takes them.
    """

    clips: Sequence[AudioInput] = ()
    prompt: str = ""
    messages: Sequence[Message] | None = None
    images: Sequence[ImageInput] = ()
    videos: Sequence[VideoInput] = ()

    @property
    def words(self) -> str:
        """The question in writing; of a conversation its last turn, with markers where clips and pictures are."""
        if not self.messages:
            return self.prompt
        content = self.messages[-1]["content"]
        return content if isinstance(content, str) else "".join(part.get("text", f"<{part['type']}>") for part in content)

    def placed(self) -> list[Message]:
        """The conversation with a part for each clip, image and video.

        Raises:
            DataError: nothing is asked, or markers differ in number from clips, images or videos.
        """
        counts = {"clips": len(self.clips), "images": len(self.images), "videos": len(self.videos)}
        if self.messages is None:
            if not self.prompt and not self.clips:
                mend = "give a prompt, a clip, or both" if not self.images and not self.videos else "give a prompt, or a clip that asks"
                raise DataError(f"there is no question: {mend}")
            return media_messages(self.prompt, **counts)
        if self.prompt:
            raise DataError("prompt and messages exclude each other: make the prompt the last of the messages")
        if check_messages(list(self.messages))[-1]["role"] != "user":
            raise DataError("the assistant has the last word in messages: end with the user's question")
        return place_media(self.messages, **counts)


@dataclass(frozen=True)
class Asked:
    """A question on its way, its clips and pictures decoded."""

    question: Question
    clips: Sequence[Clip]
    request: Request

    @property
    def images(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(map(media_name, self.question.images))

    @property
    def videos(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(map(media_name, self.question.videos))


@dataclass(frozen=True)
class _Perceived:
    """A question's conversation, with a part for each window of its clips, and all that is in it, decoded."""

    question: Question
    messages: list[Message]
    clips: list[Clip]
    waveforms: list[Waveform]
    images: list[Image.Image]
    videos: list[Video]

    def inputs(self, processor: AudioGraftProcessor) -> dict[str, Any]:
        """Of the prompt, see `AudioGraftProcessor.prompt_inputs`."""
        try:
            return processor.prompt_inputs(self.messages, frames_of(self.waveforms, processor), self.images, self.videos)
        except ImageError as error:
            names = [media_name(source) for source in (*self.question.images, *self.question.videos)]
            raise ImageError(f"{' and '.join(names)}: {error}", error.kind) from error


def prepare(question: Question, model: AudioGraftForConditionalGeneration, processor: AudioGraftProcessor, options: Decoding) -> Asked:
    """Decode a question's clips and pictures. A clip of more than 30 s becomes several windows, one behind the other in its place.

    Raises:
        AudioError: a clip can't be used, or clips, prompt and answer are longer than the language model's context.
        ConfigError: pictures, and the model has no eyes for them.
        DataError: nothing is asked, or markers differ in number from clips or pictures; without clips and pictures also what is too long.
        ImageError: a picture can't be used, or pictures, prompt and answer are longer than the context.
    """
    perceived = _perceived(question, processor)
    inputs = perceived.inputs(processor)
    wanted = options.max_new_tokens or 1
    positions = len(inputs["input_ids"])
    room = room_behind(model, positions)
    if room is None:
        room = max(ANSWER_TOKENS, wanted)
    elif room < wanted:
        raise _too_long(perceived, positions, f"the answer up to {wanted}", room, "lower max_new_tokens")
    budget = options.max_new_tokens or min(ANSWER_TOKENS, room)
    return Asked(question, perceived.clips, Request(perceived.messages, perceived.waveforms, budget, inputs=inputs))


def refer(question: Question, target: str, model: AudioGraftForConditionalGeneration, processor: AudioGraftProcessor) -> Referenced:
    """Decode a question's clips and pictures, as `prepare` does, to score an answer that is known.

    Args:
        question: what was asked.
        target: the right answer.
        model: the grafted model.
        processor: its processor.

    Raises:
        AudioError: as `prepare` does.
        ConfigError: likewise.
        DataError: likewise.
        ImageError: likewise.
    """
    perceived = _perceived(question, processor)
    positions = len(perceived.inputs(processor)["input_ids"])
    wanted = len(processor.tokenizer(target, add_special_tokens=False)["input_ids"]) + 1
    room = room_behind(model, positions)
    if room is not None and room < wanted:
        raise _too_long(perceived, positions, f"the reference {wanted}", room, "shorten the reference")
    return Referenced(perceived.messages, perceived.waveforms, target, perceived.images, perceived.videos)


def _perceived(question: Question, processor: AudioGraftProcessor) -> _Perceived:
    placed = question.placed()
    processor.check_eyes(placed)
    images, videos = [load_image(image) for image in question.images], [load_video(video) for video in question.videos]
    clips = [load_audio(clip) for clip in question.clips]
    windows = [[chunk.waveform for chunk in split_into_chunks(clip.waveform)] for clip in clips]
    messages = with_windows(placed, [len(own) for own in windows])
    return _Perceived(question, messages, clips, [waveform for own in windows for waveform in own], images, videos)


def _too_long(perceived: _Perceived, positions: int, behind: str, room: int, mend: str) -> AudioError | DataError | ImageError:
    context = f"positions, {behind}, and the language model has {room + positions}"
    clips, question = perceived.clips, perceived.question
    pictures = [media_name(source) for source in (*question.images, *question.videos)]
    if not clips and not pictures:
        return DataError(f"the question takes {positions} {context}: shorten it, or {mend}")
    names, duration_s = " and ".join([*pictures, *(clip.name for clip in clips)]), sum(clip.duration_s for clip in clips)
    if pictures:
        return ImageError(f"{names}: they and the question take {positions} {context}: give smaller or fewer pictures, or {mend}")
    return AudioError(f"{names}: {duration_s:.0f} s and the question take {positions} {context}: ask about shorter parts, or {mend}")
