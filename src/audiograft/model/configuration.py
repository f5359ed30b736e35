"""Configuration of a grafted model: an audio tower, a projector, and a language model that is left as it is."""

from __future__ import annotations

import copy
from typing import Any

from transformers import AutoConfig, PretrainedConfig, WhisperConfig

from audiograft.types import ConfigError

PROJECTORS = ("swiglu", "linear", "mlp", "pool-mlp", "pool-linear")
FRAME_STACKS = (1, 2, 4, 8)
ENCODERS = {"whisper": "Whisper", "wavlm": "WavLM", "hubert": "HuBERT", "wav2vec2": "wav2vec 2.0", "wav2vec2-bert": "Wav2Vec2-BERT"}
"""`model_type` of each encoder that can be a tower, and its name."""
_OFF: dict[str, Any] = {
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "apply_spec_augment": False,
    "add_adapter": False,
    "use_intermediate_ffn_before_adapter": False,
}
"""Raw-waveform models: no layer drop, no masking, and no adapter behind the encoder, in whose place the projector stands."""


def check_choices(projector_type: str, frame_stack: int) -> None:
    """Raise `ConfigError` for a projector or frame_stack that there is not."""
    if projector_type not in PROJECTORS:
        raise ConfigError(f"unknown projector {projector_type!r}: use one of {', '.join(PROJECTORS)}")
    if frame_stack not in FRAME_STACKS:
        raise ConfigError(f"frame_stack {frame_stack} is not supported: use one of {', '.join(map(str, FRAME_STACKS))}")


def check_encoder(audio_config: Any) -> None:
    """Raise `ConfigError` for an encoder that can't be a tower."""
    kind = audio_config.model_type
    if kind not in ENCODERS:
        raise ConfigError(f"{kind} is no audio encoder that can be grafted: use one of {', '.join(ENCODERS.values())}")
    # Its norm would turn the zeros behind a clip into something that the convolution reads.
    if getattr(audio_config, "conv_pos_batch_norm", False):
        raise ConfigError(f"a {kind} encoder with conv_pos_batch_norm can't be grafted: use one without")


def check_window(audio_config: Any, pad_to_window: bool) -> None:
    """Raise `ConfigError` where clips are to be padded to 30 s for another encoder than Whisper's."""
    if pad_to_window and audio_config.model_type != "whisper":
        name = ENCODERS[audio_config.model_type]
        raise ConfigError(f"pad_to_window: {name} takes clips of any length, only Whisper was trained on 30 s: leave it off")


def tower_config(audio_config: Any) -> Any:
    """An encoder's configuration as its tower needs it: a copy without what only its own pretraining used.

    Raises:
        ConfigError: an encoder that can't be a tower.
    """
    check_encoder(audio_config)
    config = copy.deepcopy(audio_config)
    for key, value in _OFF.items():
        if hasattr(config, key) and not isinstance(config, WhisperConfig):
            setattr(config, key, value)
    return config


class AudioGraftConfig(PretrainedConfig):
    """What `AudioGraftForConditionalGeneration` is built from.

    Attributes:
        audio_config: the encoder's configuration: of Whisper, WavLM, HuBERT, wav2vec 2.0 or Wav2Vec2-BERT.
        text_config: the language model's own configuration, of any causal language model or vision-language model.
        projector_type: one of `PROJECTORS`.
        projector_hidden_size: width between the projector's two layers; the language model's hidden size by default.
        frame_stack: encoder frames (20 ms) in one audio token: 1, 2, 4 or 8, that is 20 to 160 ms.
        pad_to_window: pad every clip to 30 s, for checkpoints that were trained so; Whisper alone can.
        audio_token_id: id of the placeholder that the processor repeats once per audio token.
        note: what a user of this model should know, shown before its first transcript.
    """

    model_type = "audiograft"
    sub_configs = {"audio_config": AutoConfig, "text_config": AutoConfig}

    def __init__(
        self,
        audio_config: dict[str, Any] | PretrainedConfig | None = None,
        text_config: dict[str, Any] | PretrainedConfig | None = None,
        projector_type: str = "swiglu",
        projector_hidden_size: int | None = None,
        frame_stack: int = 4,
        pad_to_window: bool = False,
        audio_token_id: int | None = None,
        note: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_choices(projector_type, frame_stack)
        self.audio_config = tower_config(_as_config(audio_config, "whisper"))
        check_window(self.audio_config, pad_to_window)
        self.text_config = _as_config(text_config, "qwen2")
        self.projector_type = projector_type
        self.frame_stack = frame_stack
        self.pad_to_window = pad_to_window
        self.audio_token_id = audio_token_id
        self.note = note
        self.projector_hidden_size = projector_hidden_size or self.get_text_config().hidden_size
        # The head belongs to the language model, which ties it or not by its own configuration.
        kwargs["tie_word_embeddings"] = getattr(self.text_config, "tie_word_embeddings", False)
        super().__init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """As transformers writes it, without the folders that the parts were opened from: they say more of a machine than of a model."""
        fields: dict[str, Any] = _without_paths(super().to_dict())
        return fields

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Any:
        """The configuration of the text decoder itself, also inside a vision-language model."""
        return self.text_config.get_text_config()


def _without_paths(fields: Any) -> Any:
    """A configuration as nested dicts, without the folders that its parts were opened from."""
    if not isinstance(fields, dict):
        return fields
    return {key: _without_paths(value) for key, value in fields.items() if key != "_name_or_path"}


def _as_config(value: dict[str, Any] | PretrainedConfig | None, default_type: str) -> Any:
    if isinstance(value, PretrainedConfig):
        return value
    fields = dict(value or {})
    return AutoConfig.for_model(fields.pop("model_type", default_type), **fields)
