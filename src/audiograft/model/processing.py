"""The processor: messages and clips -> input_ids, labels, input_features, lengths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AddedToken, BatchFeature, ProcessorMixin

from audiograft.messages import Message
from audiograft.model.front_end import FrontEnd, build_front_end
from audiograft.model.modeling import HUB_KEYWORDS
from audiograft.model.outputs import IGNORE_INDEX
from audiograft.model.vision import load_vision
from audiograft.types import ConfigError, DataError

AUDIO_TOKEN = "<|audio|>"
_VISION_FOLDER = "vision_processor"
_SENTINEL = "audiograft-response"

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

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        rendered = []
        for message in messages:
            parts = message["content"]
            for text in [parts] if isinstance(parts, str) else [part["text"] for part in parts if part["type"] == "text"]:
                self._refuse_placeholder(text)
            if not isinstance(parts, str):
                parts = [{"type": "text", "text": self.audio_token} if part["type"] == "audio" else part for part in parts]
                if self.vision_processor is None:
                    parts = "".join(part["text"] for part in parts)
            rendered.append({**message, "content": parts})
        try:
            prompt: str = self.tokenizer.apply_chat_template(
                rendered,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                enable_thinking=False,
                chat_template=getattr(self.vision_processor, "chat_template", None),
            )
        except jinja2.TemplateError as error:
            raise DataError(f"the model's chat template refuses this conversation: {' '.join(str(error).split())}") from error
        return prompt

    def _refuse_placeholder(self, text: str) -> None:
        if self.audio_token in text:
            raise DataError(f"the text contains {self.audio_token}, which stands for a clip: take it out")

    def build_prompt(self, messages: Sequence[Message]) -> str:
        """The conversation in the chat template, up to where the answer begins; one `audio_token` a clip, thinking mode off.

        Args:
            messages: with audio parts where the clips are, as `audiograft.messages` makes them.

        Raises:
            DataError: a text contains `audio_token`, or the chat template refuses the conversation.
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

    def training_ids(self, prompt_messages: Sequence[Message], response: str, feature_lengths: Sequence[int]) -> tuple[list[int], list[int]]:
        """The one place that decides the loss mask: the response and the end of turn carry loss, nothing else does.

        The prompt is tokenised by itself, exactly as it will be for generation.

        Args:
            prompt_messages: the conversation before the answer.
            response: what the model should answer.
            feature_lengths: feature frames of each clip, in order.

        Returns:
            input_ids and labels of equal length; labels are -100 in the prompt.

        Raises:
            DataError: the response or a text of the prompt contains `audio_token`.
        """
        self._refuse_placeholder(response)
        prompt_ids = self._tokenise(self.expand_audio(self.build_prompt(prompt_messages), feature_lengths))
        answer_ids = self._tokenise(self.response_prefix + response + self.end_of_turn)
        return prompt_ids + answer_ids, [IGNORE_INDEX] * len(prompt_ids) + answer_ids

    def _tokenise(self, text: str) -> list[int]:
        # The chat template writes the beginning-of-sequence token itself.
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def pad_tokens(self, input_ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and `labels` (rows, longest) from those of `training_ids`, padded on the right."""

        def pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
            return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)

        # Where a tokenizer has no pad token, any id will do: attention masks it and it carries no label.
        return {
            "input_ids": pad(input_ids, self.tokenizer.pad_token_id or 0),
            "attention_mask": pad([[1] * len(row) for row in input_ids], 0),
            "labels": pad(labels, IGNORE_INDEX),
        }

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
        images: Any = None,
        videos: Any = None,
        padding_side: str = "left",
        **kwargs: Any,
    ) -> BatchFeature:
        """A padded batch.

        Args:
            text: prompts from `build_prompt`, one `audio_token` a clip.
            audio: clips of at most 30 s at 16 kHz, in order of their placeholders over the whole batch.
            images: for the vision-language model's own processor.
            videos: likewise.
            padding_side: left for generation, right for training.
            **kwargs: for the vision-language model's own processor.

        Returns:
            input_ids, attention_mask, input_features, feature_lengths, and what the vision processor adds.

        Raises:
            ValueError: placeholders and clips differ in number; images without eyes.
            ConfigError: videos, and torchvision is not installed.
        """
        prompts = [text] if isinstance(text, str) else list(text)
        clips = [self.features(waveform) for waveform in audio or ()]
        needed = [prompt.count(self.audio_token) for prompt in prompts]
        if sum(needed) != len(clips):
            raise ValueError(f"{sum(needed)} audio placeholders in the text but {len(clips)} clips")
        lengths = iter([clip.shape[1] for clip in clips])
        prompts = [self.expand_audio(prompt, [next(lengths) for _ in range(n)]) for prompt, n in zip(prompts, needed, strict=True)]
        if images is None and videos is None:
            batch = self.tokenizer(prompts, add_special_tokens=False, padding=True, padding_side=padding_side, return_tensors="pt")
        elif self.vision_processor is None:
            raise ValueError("this model has no eyes: it takes no images or videos")
        elif videos is not None and not hasattr(self.vision_processor, "video_processor"):
            raise ConfigError("videos need torchvision: pip install torchvision")
        else:
            options = {"add_special_tokens": False, "padding": True, "padding_side": padding_side, "return_tensors": "pt", **kwargs}
            batch = self.vision_processor(text=prompts, images=images, videos=videos, **options)
        return BatchFeature({**batch, **(self.pad_features(clips) if clips else {})})

    def to_dict(self) -> dict[str, Any]:
        # The vision processor has a folder of its own, and the end of turn is derived.
        return {key: value for key, value in super().to_dict().items() if key not in ("vision_processor", "end_of_turn")}

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Save the processor, with the vision processor in a folder of its own."""
        if self.vision_processor is not None:
            self.vision_processor.save_pretrained(Path(save_directory) / _VISION_FOLDER)
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
        self.vision_class = type(vision_processor).__name__
