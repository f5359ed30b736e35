"""The processor: messages and clips -> input_ids, labels, input_features, lengths."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AddedToken, BatchFeature, ProcessorMixin

from audiograft.messages import MEDIA, Message, count_parts
from audiograft.model.front_end import FrontEnd, build_front_end
from audiograft.model.modeling import HUB_KEYWORDS
from audiograft.model.outputs import IGNORE_INDEX
from audiograft.model.vision import PICTURES, behind, check_takes_videos, collate_vision, load_vision, look, placeholders, save_vision
from audiograft.types import ConfigError, DataError

if TYPE_CHECKING:
    from PIL import Image

    from audiograft.images import Video

AUDIO_TOKEN = "<|audio|>"
_VISION_FOLDER = "vision_processor"
_SENTINEL = "audiograft-response"
_BLIND = "this model has no eyes: it takes no images or videos; leave them out, or graft onto a vision-language model"
_DERIVED = ("_placeholders", "_template_takes_text", "end_of_turn")
_A = {"audio": "a clip", "image": "an image", "video": "a video"}

Waveform = npt.NDArray[np.float32]


class AudioGraftProcessor(ProcessorMixin):
    """Turns conversations and clips into model inputs, with the language model's own tokenizer and chat template.

    Attributes:
        feature_extractor: the encoder's own.
        tokenizer: the language model's, with one placeholder token added.
        frame_stack: encoder frames in one audio token.
        pad_to_window: pad every clip to 30 s.
        audio_token: the placeholder; its id is looked up by this name.
        encoder_convolutions: (kernel, stride) of those at the entrance of a raw-waveform encoder; None for other encoders.
        vision_class: class of the vision-language model's processor; None for a text-only language model.
        vision_processor: that processor, for images and videos; None likewise.
        response_prefix: stands before each response in training; system A learnt with a space.
    """

    def __init__(
        self,
        feature_extractor: Any,
        tokenizer: Any,
        frame_stack: int = 4,
        pad_to_window: bool = False,
        audio_token: str = AUDIO_TOKEN,
        encoder_convolutions: Sequence[Sequence[int]] | None = None,
        vision_class: str | None = None,
        chat_template: Any = None,
        response_prefix: str = "",
    ) -> None:
        self.frame_stack = frame_stack
        self.pad_to_window = pad_to_window
        self.audio_token = audio_token
        self.encoder_convolutions = encoder_convolutions
        self.vision_class = vision_class
        self.response_prefix = response_prefix
        self.vision_processor: Any = None
        if tokenizer.chat_template is None:
            raise ConfigError(f"the tokenizer {tokenizer.name_or_path} has no chat template: use the language model's instruct variant")
        if audio_token not in tokenizer.get_vocab():
            tokenizer.add_tokens([AddedToken(audio_token, special=True, normalized=False)], special_tokens=True)
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template or tokenizer.chat_template)
        build_front_end(feature_extractor, frame_stack, encoder_convolutions)  # refuses what it can't serve, before any audio is read

    @property
    def audio_token_id(self) -> int:
        token_id: int = self.tokenizer.convert_tokens_to_ids(self.audio_token)
        return token_id

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "input_features", "feature_lengths"]

    @property
    def front_end(self) -> FrontEnd:
        """What turns clips into features and counts their lengths."""
        return build_front_end(self.feature_extractor, self.frame_stack, self.encoder_convolutions)

    def features(self, waveform: Waveform, pad_to_window: bool | None = None) -> npt.NDArray[np.float32]:
        """(n_samples,) at 16 kHz -> (channels, feature frames), see `audiograft.model.front_end`."""
        return self.front_end.features(waveform, self.pad_to_window if pad_to_window is None else pad_to_window)

    @cached_property
    def _placeholders(self) -> dict[str, str]:
        """Kind of part -> the token that stands for one in a prompt."""
        return {"audio": self.audio_token, **placeholders(self.vision_processor)}

    @cached_property
    def _template_takes_text(self) -> bool:
        """Whether the chat template takes a message's text as it is; some of those with eyes pass over all that is no list of parts."""
        return self.vision_processor is None or _SENTINEL in self._apply_template(
            [{"role": "user", "content": _SENTINEL}], add_generation_prompt=True
        )

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        self.check_eyes(messages)
        rendered = []
        for message in messages:
            parts = message["content"]
            for text in [parts] if isinstance(parts, str) else [part["text"] for part in parts if part["type"] == "text"]:
                self._refuse_placeholder(text)
            if not isinstance(parts, str):
                parts = [_text(self.audio_token) if part["type"] == "audio" else part for part in parts]
                if self.vision_processor is None:
                    parts = "".join(part["text"] for part in parts)
            elif not self._template_takes_text:
                parts = [_text(parts)]
            rendered.append({**message, "content": parts})
        prompt = self._apply_template(rendered, add_generation_prompt)
        for kind, token in self._placeholders.items():
            if (kept := prompt.count(token)) != (there := count_parts(messages, kind)):
                raise DataError(f"the model's chat template kept {kept} of {there} {MEDIA[kind]}s: put {MEDIA[kind]}s into user turns alone")
        return prompt

    def _apply_template(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        try:
            prompt: str = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=False,
                chat_template=getattr(self.vision_processor, "chat_template", None),
            )
        except jinja2.TemplateError as error:
            raise DataError(f"the model's chat template refuses this conversation: {' '.join(str(error).split())}") from error
        return prompt

    def check_eyes(self, messages: Sequence[Message]) -> None:
        """Raises ConfigError where a conversation has pictures that the model can't see, or not with what is installed."""
        for kind in PICTURES:
            if count_parts(messages, kind) and kind not in self._placeholders:
                raise ConfigError(_BLIND if self.vision_processor is None else f"this model takes no {kind}s: leave them out")
        if count_parts(messages, "video"):
            check_takes_videos(self.vision_processor)

    def _refuse_placeholder(self, text: str) -> None:
        for kind, token in self._placeholders.items():
            if token in text:
                raise DataError(f"the text contains {token}, which stands for {_A[kind]}: take it out")

    def build_prompt(self, messages: Sequence[Message]) -> str:
        """The conversation in the chat template, up to where the answer begins; one placeholder a clip, an image or a video, thinking mode off.

        Args:
            messages: with parts where clips and pictures are, as `audiograft.messages` makes them.

        Raises:
            ConfigError: pictures, and the model has no eyes for them.
            DataError: a text contains a placeholder, or the chat template refuses the conversation.
        """
        return self._render(messages, add_generation_prompt=True)

    @cached_property
    def end_of_turn(self) -> str:
        """The special token that the chat template puts behind an answer; the end-of-sequence token where it puts none."""
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _SENTINEL}]
        behind = self._render(messages, add_generation_prompt=False).rpartition(_SENTINEL)[2]
        ids = self.tokenizer(behind, add_special_tokens=False)["input_ids"]
        added = self.tokenizer.added_tokens_decoder
        special = [i for i in ids if i in added and added[i].special]
        token: str = self.tokenizer.convert_ids_to_tokens(special[0]) if special else self.tokenizer.eos_token
        return token

    def expand_audio(self, text: str, feature_lengths: Sequence[int]) -> str:
        """Repeat each placeholder once per audio token of its clip.

        Raises:
            ValueError: as many placeholders as clips are needed; the message has both counts.
        """
        pieces = text.split(self.audio_token)
        if len(pieces) - 1 != len(feature_lengths):
            raise ValueError(f"{len(pieces) - 1} audio placeholders in the text but {len(feature_lengths)} clips")
        spans = [self.audio_token * self.front_end.audio_tokens(n) for n in feature_lengths]
        return pieces[0] + "".join(span + piece for span, piece in zip(spans, pieces[1:], strict=True))

    def prompt_inputs(
        self, messages: Sequence[Message], feature_lengths: Sequence[int], images: Sequence[Image.Image] = (), videos: Sequence[Video] = ()
    ) -> dict[str, Any]:
        """One row for generation, by the vision-language model's own processor where there are pictures.

        Args:
            messages: the conversation, with a part for each clip, image and video.
            feature_lengths: feature frames of each clip, in order.
            images: as `audiograft.images.load_image` gives them, in order of their parts.
            videos: as `load_video` gives them, likewise.

        Returns:
            `input_ids`, a list; `vision`, what belongs to the pictures (`pixel_values`, `mm_token_type_ids` and so on), empty where there are none.

        Raises:
            ConfigError: pictures, and the model has no eyes for them, or torchvision is not installed.
            DataError: a text contains a placeholder, or the chat template refuses the conversation.
            ImageError: a picture that the model's processor refuses.
            ValueError: parts and clips or pictures differ in number; the message has both counts.
        """
        return self._inputs(self.build_prompt(messages), feature_lengths, images, videos)

    def training_inputs(
        self,
        prompt_messages: Sequence[Message],
        response: str,
        feature_lengths: Sequence[int],
        images: Sequence[Image.Image] = (),
        videos: Sequence[Video] = (),
    ) -> dict[str, Any]:
        """The one place that decides the loss mask: the response and the end of turn carry loss, nothing else does.

        The prompt is tokenised by itself, exactly as it will be for generation.

        Args:
            prompt_messages: the conversation before the answer.
            response: what the model should answer.
            feature_lengths: feature frames of each clip, in order.
            images: as in `prompt_inputs`.
            videos: likewise.

        Returns:
            What `prompt_inputs` gives, with the answer behind, and `labels`, as many, -100 in the prompt.

        Raises:
            ConfigError: as in `prompt_inputs`.
            DataError: likewise, or the response contains a placeholder.
            ImageError: likewise.
            ValueError: likewise.
        """
        self._refuse_placeholder(response)
        row = self.prompt_inputs(prompt_messages, feature_lengths, images, videos)
        answer_ids = self._tokenise(self.response_prefix + response + self.end_of_turn)
        labels = [IGNORE_INDEX] * len(row["input_ids"]) + answer_ids
        return {"input_ids": row["input_ids"] + answer_ids, "labels": labels, "vision": behind(row["vision"], len(answer_ids))}

    def _inputs(
        self, text: str, feature_lengths: Sequence[int], images: Sequence[Image.Image], videos: Sequence[Video], **options: Any
    ) -> dict[str, Any]:
        """One row, from its prompt; `options` are for the vision-language model's processor."""
        text = self.expand_audio(text, feature_lengths)
        for kind, given in zip(PICTURES, (images, videos), strict=True):
            if given and self.vision_processor is None:
                raise ConfigError(_BLIND)
            wanted = text.count(self._placeholders[kind]) if kind in self._placeholders else 0
            if wanted != len(given):
                raise ValueError(f"{wanted} {kind} placeholders in the text but {len(given)} {kind}s")
        if not images and not videos:
            return {"input_ids": self._tokenise(text), "vision": {}}
        ids, vision = look(self.vision_processor, text, images, videos, **options)
        return {"input_ids": ids, "vision": vision}

    def _tokenise(self, text: str) -> list[int]:
        # The chat template writes the beginning-of-sequence token itself.
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def pad_tokens(
        self, input_ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]] | None = None, padding_side: str = "right"
    ) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and, where there are some, `labels` (rows, longest), padded on the right or on the left."""

        def pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
            return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value, padding_side=padding_side)

        # Where a tokenizer has no pad token, any id will do: attention masks it and it carries no label.
        padded = {"input_ids": pad(input_ids, self.tokenizer.pad_token_id or 0), "attention_mask": pad([[1] * len(row) for row in input_ids], 0)}
        return padded if labels is None else {**padded, "labels": pad(labels, IGNORE_INDEX)}

    def collate_vision(self, rows: Sequence[Mapping[str, Any]], positions: int, padding_side: str = "right") -> dict[str, Any]:
        """The `vision` of each row of a batch of so many positions, put together; see `audiograft.model.vision.collate_vision`."""
        return collate_vision(rows, positions, padding_side)

    def collate(self, rows: Sequence[Mapping[str, Any]], clips: Sequence[npt.NDArray[np.float32]], padding_side: str = "left") -> dict[str, Any]:
        """A batch of the rows that `prompt_inputs` or `training_inputs` gave.

        Args:
            rows: all of one kind.
            clips: the features of all clips of all rows, in order.
            padding_side: left for generation, right for training.
        """
        labels = [row["labels"] for row in rows] if "labels" in rows[0] else None
        batch: dict[str, Any] = self.pad_tokens([row["input_ids"] for row in rows], labels, padding_side)
        batch |= self.collate_vision([row["vision"] for row in rows], batch["input_ids"].shape[1], padding_side)
        return batch | (self.pad_features(clips) if clips else {})

    def pad_features(self, clips: Sequence[npt.NDArray[np.float32]]) -> dict[str, torch.Tensor]:
        """`input_features` (clips, channels, longest), zero behind each clip's end, and `feature_lengths` (clips,)."""
        lengths = [clip.shape[1] for clip in clips]
        features = np.zeros((len(clips), clips[0].shape[0], max(lengths)), dtype=np.float32)
        for row, clip in enumerate(clips):
            features[row, :, : clip.shape[1]] = clip
        return {"input_features": torch.from_numpy(features), "feature_lengths": torch.tensor(lengths)}

    def __call__(
        self,
        text: str | Sequence[str],
        audio: Sequence[Waveform] | None = None,
        images: Sequence[Image.Image] | None = None,
        videos: Sequence[Video] | None = None,
        padding_side: str = "left",
        **kwargs: Any,
    ) -> BatchFeature:
        """A padded batch.

        Args:
            text: prompts from `build_prompt`, one placeholder a clip, an image or a video.
            audio: clips of at most 30 s at 16 kHz, in order of their placeholders over the whole batch.
            images: as `audiograft.images.load_image` gives them, in order likewise.
            videos: as `load_video` gives them, likewise.
            padding_side: left for generation, right for training.
            **kwargs: for the vision-language model's own processor, which sees each row by itself.

        Returns:
            input_ids, attention_mask, input_features, feature_lengths, and what the vision processor adds.

        Raises:
            ConfigError: pictures, and the model has no eyes for them, or torchvision is not installed.
            ImageError: a picture that the model's processor refuses.
            ValueError: placeholders and clips or pictures differ in number; the message has both counts.
        """
        prompts = [text] if isinstance(text, str) else list(text)
        clips = [self.features(waveform) for waveform in audio or ()]
        given = {"audio": [clip.shape[1] for clip in clips], "image": list(images or ()), "video": list(videos or ())}
        if self.vision_processor is None and (images or videos):
            raise ConfigError(_BLIND)
        shares = {kind: self._shared_out(kind, items, prompts) for kind, items in given.items()}
        rows = [self._inputs(*row, **kwargs) for row in zip(prompts, *shares.values(), strict=True)]
        return BatchFeature(self.collate(rows, clips, padding_side))

    def _shared_out(self, kind: str, items: Sequence[Any], prompts: Sequence[str]) -> list[list[Any]]:
        """To each prompt as many as it has placeholders for."""
        token = self._placeholders.get(kind)
        wanted = [prompt.count(token) if token else 0 for prompt in prompts]
        if sum(wanted) != len(items):
            raise ValueError(f"{sum(wanted)} {kind} placeholders in the text but {len(items)} {MEDIA[kind]}s")
        left = iter(items)
        return [[next(left) for _ in range(count)] for count in wanted]

    def to_dict(self) -> dict[str, Any]:
        # The vision processor has a folder of its own.
        return {key: value for key, value in super().to_dict().items() if key not in ("vision_processor", *_DERIVED)}

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Save the processor, with the vision processor in a folder of its own."""
        if self.vision_processor is not None:
            save_vision(self.vision_processor, Path(save_directory) / _VISION_FOLDER)
        return super().save_pretrained(save_directory, push_to_hub, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> AudioGraftProcessor:  # type: ignore[override]
        """Load what `save_pretrained` wrote, from a folder or a hub id."""
        processor: AudioGraftProcessor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        if processor.vision_class is not None:
            where = {key: kwargs[key] for key in HUB_KEYWORDS if key in kwargs}
            vision = load_vision(processor.vision_class, str(pretrained_model_name_or_path), subfolder=_VISION_FOLDER, **where)
            processor.attach_vision(vision)
        return processor

    def attach_vision(self, vision_processor: Any) -> None:
        """Take over a vision-language model's processor, with this processor's tokenizer in it."""
        vision_processor.tokenizer = self.tokenizer
        self.vision_processor = vision_processor
        for derived in _DERIVED:
            self.__dict__.pop(derived, None)
        self.vision_class = type(vision_processor).__name__


def _text(text: str) -> Message:
    return {"type": "text", "text": text}
