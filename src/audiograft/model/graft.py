"""`graft`: an encoder and a language model become one model with a fresh projector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoFeatureExtractor, AutoTokenizer, PreTrainedModel, WhisperConfig

from audiograft.model.audio_tower import AudioTower
from audiograft.model.checkpoint import load_config, load_part, loading, resolve_model, save_graft
from audiograft.model.configuration import AudioGraftConfig, check_choices
from audiograft.model.modeling import AudioGraftForConditionalGeneration, has_eyes, language_model_class
from audiograft.model.processing import AudioGraftProcessor
from audiograft.model.projector import build_projector, match_output_rms
from audiograft.model.vision import load_vision, vision_class
from audiograft.types import ConfigError


def assemble(
    audio_tower: AudioTower, language_model: PreTrainedModel, processor: AudioGraftProcessor, projector: str = "swiglu", seed: int = 0
) -> AudioGraftForConditionalGeneration:
    """Join parts that are already in memory; the projector is new, its output as loud as the text embeddings.

    Args:
        audio_tower: the encoder.
        language_model: the whole language model, with its head.
        processor: gives frame_stack, padding and the placeholder.
        projector: one of `audiograft.model.configuration.PROJECTORS`.
        seed: of the projector's weights.

    Raises:
        ConfigError: parts that don't fit.
    """
    config = AudioGraftConfig(
        audio_config=audio_tower.config,
        text_config=language_model.config,
        projector_type=projector,
        frame_stack=processor.frame_stack,
        pad_to_window=processor.pad_to_window,
        audio_token_id=processor.audio_token_id,
    )
    if getattr(config.get_text_config(), "hidden_size_per_layer_input", None):
        raise ConfigError(f"{language_model.config.model_type} feeds token ids into every layer: audio can't be grafted onto it")
    if processor.feature_extractor.feature_size != audio_tower.config.num_mel_bins:
        raise ConfigError(
            f"the feature extractor gives {processor.feature_extractor.feature_size} mel bins, the encoder takes "
            f"{audio_tower.config.num_mel_bins}: use the preprocessor_config.json of the encoder's own checkpoint"
        )
    with torch.device("meta"):
        model = AudioGraftForConditionalGeneration(config)
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    new_projector = build_projector(config)
    torch.random.set_rng_state(generator_state)
    embeddings = language_model.get_input_embeddings()
    sample_ids = torch.arange(min(4096, int(config.get_text_config().vocab_size)), device=language_model.device)
    with torch.no_grad():
        # Through the module and not from its table: some models scale what they look up.
        rms = float(embeddings(sample_ids).float().pow(2).mean().sqrt())
    match_output_rms(new_projector, audio_tower.layer_norm, rms, seed)
    model.audio_tower, model.language_model = audio_tower, language_model
    model.projector = new_projector.to(language_model.device, language_model.dtype)
    ends = language_model.generation_config.eos_token_id
    stops = {*(ends if isinstance(ends, list) else [ends]), processor.tokenizer.convert_tokens_to_ids(processor.end_of_turn)}
    language_model.generation_config.eos_token_id = sorted(stops - {None})
    if language_model.generation_config.pad_token_id is None:
        language_model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.eval()
    return model


def _load_processor(encoder: tuple[str, str], language_model: tuple[str, str], text_config: Any, **options: Any) -> AudioGraftProcessor:
    with loading(f"preprocessor_config.json of {encoder[0]}", encoder[1]):
        extractor = AutoFeatureExtractor.from_pretrained(encoder[1])
    with loading(f"the tokenizer of {language_model[0]}", language_model[1]):
        tokenizer = AutoTokenizer.from_pretrained(language_model[1])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    processor = AudioGraftProcessor(extractor, tokenizer, **options)
    vision = vision_class(text_config) if has_eyes(text_config) else None
    if vision is not None:
        with loading(f"the image processor of {language_model[0]}", language_model[1]):
            processor.attach_vision(load_vision(vision, language_model[1]))
    return processor


def graft(
    audio_encoder: str | Path,
    language_model: str | Path,
    out: Path,
    projector: str = "swiglu",
    frame_stack: int = 4,
    pad_to_window: bool = False,
    seed: int = 0,
    dtype: torch.dtype | str = "auto",
) -> dict[str, int]:
    """Load an encoder and a language model, join them, and save the graft.

    Args:
        audio_encoder: any Whisper checkpoint (its decoder is left behind), `tiny-encoder`, or a hub id.
        language_model: any causal language model or Qwen2-VL-like model, `tiny-lm`, or a hub id.
        out: the folder to write.
        projector: one of `audiograft.model.configuration.PROJECTORS`.
        frame_stack: encoder frames in one audio token.
        pad_to_window: pad every clip to 30 s.
        seed: of the projector's weights.
        dtype: of the saved weights; as the language model's checkpoint by default.

    Returns:
        Parameters of each part.

    Raises:
        ConfigError: a part that can't be loaded or does not fit.
        AudiograftError: the folder can't be written.
    """
    check_choices(projector, frame_stack)
    encoder_path, lm_path = resolve_model(audio_encoder), resolve_model(language_model)
    audio_config, text_config = load_config(str(audio_encoder), encoder_path), load_config(str(language_model), lm_path)
    if not isinstance(audio_config, WhisperConfig):
        raise ConfigError(f"{audio_encoder} is a {audio_config.model_type} model, not Whisper: give a Whisper checkpoint as --audio-encoder")
    loader = language_model_class(text_config)
    lm = load_part(loader, str(language_model), lm_path, dtype=dtype)
    tower = load_part(_TowerLoader, str(audio_encoder), encoder_path, dtype=lm.dtype)
    processor = _load_processor(
        (str(audio_encoder), encoder_path), (str(language_model), lm_path), text_config,
        frame_stack=frame_stack, pad_to_window=pad_to_window,
    )  # fmt: skip
    model = assemble(tower, lm, processor, projector, seed)
    save_graft(model, processor, Path(out))
    parts = {"audio_tower": model.audio_tower, "projector": model.projector, "language_model": model.language_model}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


class _TowerLoader:
    """Loads the encoder out of any Whisper checkpoint, whole or encoder alone."""

    @staticmethod
    def from_pretrained(path: str, **kwargs: Any) -> tuple[AudioTower, dict[str, Any]]:
        loader: Any = AudioTower
        tower, info = loader.from_pretrained(path, key_mapping={r"^(model\.)?encoder\.": ""}, **kwargs)
        # A whole Whisper has a decoder too, which is left behind on purpose.
        left_behind = ("decoder.", "model.decoder.", "proj_out.")
        info["unexpected_keys"] = [key for key in info["unexpected_keys"] if not key.startswith(left_behind)]
        return tower, info
