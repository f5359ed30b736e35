"""Messages and clips -> inputs of a stock audio language model, in the prompt format that it was trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, FeatureExtractionMixin

from audiograft.messages import Message
from audiograft.model.front_end import Features, FrontEnd, Waveform
from audiograft.model.lengths import check_samples
from audiograft.model.processing import AudioGraftProcessor
from audiograft.model.stock.families import FAMILIES, Family
from audiograft.model.stock.mel import MelSpec
from audiograft.types import ConfigError


class StockFrontEnd(FrontEnd):
    """The samples themselves, (1, samples): the model computes its spectrogram on its own device, since what lies around a clip's end is part of it.

    A clip shorter than the family's shortest is followed by zeros, so that each clip has an audio token.
    """

    channels = 1

    def __init__(self, family: Family, config: Any, preprocessor: dict[str, Any]) -> None:
        super().__init__(preprocessor, frame_stack=1, convolutions=())
        self.family = family
        self.config = config

    def features(self, waveform: Waveform, pad_to_window: bool = False) -> Features:
        features = np.zeros((1, self.feature_frames(len(waveform), pad_to_window)), dtype=np.float32)
        features[0, : len(waveform)] = waveform
        return features

    def feature_frames(self, n_samples: int, pad_to_window: bool = False) -> int:
        check_samples(n_samples)
        if pad_to_window:
            raise ConfigError("pad_to_window: a stock model pads its clips by itself: leave it off, and pad_to_window_share at 0")
        return max(n_samples, self.family.min_samples)

    def encoder_frames(self, feature_frames: int) -> int:
        return self.family.encoder_frames(feature_frames)

    def audio_tokens(self, feature_frames: int) -> int:
        return self.family.audio_tokens(self.config, self.encoder_frames(feature_frames))


class StockProcessor(AudioGraftProcessor):
    """The interface of a graft's processor for a stock model: its own tokenizer, chat template, placeholder and token counts.

    Each clip is written into the text in the family's format before the chat template sees it, so that no template can drop one.

    Attributes:
        family: what is particular to the model.
        config: the model's configuration.
        preprocessor: content of its preprocessor_config.json.
        spec: the spectrogram that it asks for.
    """

    # Not ProcessorMixin's constructor: there is no feature extractor object (Granite Speech's would need torchaudio), only its settings.
    def __init__(self, tokenizer: Any, family: Family, config: Any, preprocessor: dict[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.family = family
        self.config = config
        self.preprocessor = preprocessor
        self.spec = MelSpec.read(preprocessor, family.mel_scale)
        self.audio_token = family.audio_token
        self.frame_stack = 1
        self.pad_to_window = False
        self.response_prefix = ""
        self.vision_class = None
        self.vision_processor = None
        if tokenizer.chat_template is None:
            tokenizer.chat_template = family.chat_template
        if tokenizer.chat_template is None:
            raise ConfigError(f"{config.model_type}: the tokenizer has no chat template: chat_template.jinja is missing; download the model again")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        token_id = tokenizer.get_vocab().get(family.audio_token)
        if token_id != config.audio_token_id:
            has = f"has it at {token_id}" if token_id is not None else "lacks it"
            raise ConfigError(
                f"config.json says that {family.audio_token} is token {config.audio_token_id}, but the tokenizer {has}: use the files of one model"
            )

    @property
    def front_end(self) -> FrontEnd:
        return StockFrontEnd(self.family, self.config, self.preprocessor)

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        self.check_eyes(messages)
        n_clips = 0
        written: list[Message] = []
        for message in messages:
            content = message["content"]
            if not isinstance(content, str):
                parts: list[Message] = []
                for part in content:
                    if part["type"] == "audio":
                        n_clips += 1
                        before, after = self.family.before_clip.format(number=n_clips), self.family.after_clip
                        parts += [{"type": "text", "text": before}, part, {"type": "text", "text": after}]
                    elif parts and parts[-1]["type"] == "text" and len(parts) >= 2 and parts[-2]["type"] == "audio":
                        # A graft's prompt begins on a new line; these models know their own distance.
                        parts.append({**part, "text": part["text"].removeprefix("\n")})
                    else:
                        parts.append(part)
                content = parts
            written.append({**message, "content": content})
        return super()._render(written, add_generation_prompt)

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Write the tokenizer, its chat template, and preprocessor_config.json."""
        folder = Path(save_directory)
        self.tokenizer.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(self.preprocessor, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> StockProcessor:  # type: ignore[override]
        """From the files of a stock checkpoint.

        Args:
            pretrained_model_name_or_path: folder or hub id.
            **kwargs: where the files come from (revision, token and the like).
        """
        path = str(pretrained_model_name_or_path)
        config = AutoConfig.from_pretrained(path, **kwargs)
        family = FAMILIES[config.model_type]
        preprocessor, _ = FeatureExtractionMixin.get_feature_extractor_dict(path, **kwargs)
        return cls(family.tokenizer_class.from_pretrained(path, **family.tokenizer_options, **kwargs), family, config, preprocessor)
