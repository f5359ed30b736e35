"""Grafting: an encoder and a language model become one model with a fresh projector."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoFeatureExtractor, AutoTokenizer, PreTrainedModel

from audiograft.model.checkpoint import load_config, load_part, loading, resolve_model, save_graft
from audiograft.model.configuration import AudioGraftConfig, check_choices, check_encoder, check_window, tower_config
from audiograft.model.modeling import AudioGraftForConditionalGeneration, has_eyes, language_model_class
from audiograft.model.processing import AudioGraftProcessor
from audiograft.model.projector import Projector, build_projector, match_output_rms
from audiograft.model.towers import TOWERS, waveform_convolutions
from audiograft.model.vision import load_vision, vision_class
from audiograft.types import ConfigError


def assemble(
    audio_tower: Any,
    language_model: PreTrainedModel,
    processor: AudioGraftProcessor,
    projector: str = "swiglu",
    seed: int = 0,
    match_rms: bool = True,
) -> AudioGraftForConditionalGeneration:
    """Join parts that are already in memory; the projector is new.

    Args:
        audio_tower: the encoder, one of `audiograft.model.towers`.
        language_model: the whole language model, with its head.
        processor: gives frame_stack, padding and the placeholder.
        projector: one of `audiograft.model.configuration.PROJECTORS`.
        seed: of the projector's weights.
        match_rms: scale the projector so that its output is as loud as the text embeddings; False leaves the published start, see `initialise`.

    Raises:
        ConfigError: parts that don't fit.
    """
    config = AudioGraftConfig(
        audio_config=audio_tower.config,
        text_config=copy.deepcopy(language_model.config),
        projector_type=projector,
        frame_stack=processor.frame_stack,
        pad_to_window=processor.pad_to_window,
        audio_token_id=processor.audio_token_id,
    )
    if getattr(config.get_text_config(), "hidden_size_per_layer_input", None):
        raise ConfigError(f"{language_model.config.model_type} feeds token ids into every layer: audio can't be grafted onto it")
    _check_front_end(audio_tower, processor)
    with torch.device("meta"):
        model = AudioGraftForConditionalGeneration(config)
    new_projector = _new_projector(config, audio_tower, language_model, seed, match_rms)
    model.audio_tower, model.language_model = audio_tower, language_model
    # The skeleton chose an attention implementation for its own parts; these keep the one they were loaded with.
    config.audio_config, config.text_config = audio_tower.config, language_model.config
    model.projector = new_projector.to(language_model.device, language_model.dtype)
    ends = language_model.generation_config.eos_token_id
    stops = {*(ends if isinstance(ends, list) else [ends]), processor.tokenizer.convert_tokens_to_ids(processor.end_of_turn)}
    language_model.generation_config.eos_token_id = sorted(stops - {None})
    if language_model.generation_config.pad_token_id is None:
        language_model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.eval()
    return model


def _check_front_end(audio_tower: Any, processor: AudioGraftProcessor) -> None:
    """Raise `ConfigError` where the encoder takes other features than the processor gives."""
    front_end, mend = processor.front_end, "use the preprocessor_config.json of the encoder's own checkpoint"
    if front_end.channels != audio_tower.channels:
        unit = "mel bins" if audio_tower.config.model_type == "whisper" else "values a frame"
        raise ConfigError(f"the feature extractor gives {front_end.channels} {unit}, the encoder takes {audio_tower.channels}: {mend}")
    if tuple(front_end.convolutions) != tuple(audio_tower.convolutions):
        raise ConfigError(f"the feature extractor counts other frames than the {audio_tower.config.model_type} encoder gives: {mend}")


def _new_projector(config: AudioGraftConfig, audio_tower: Any, language_model: PreTrainedModel, seed: int, match_rms: bool) -> Projector:
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    projector = build_projector(config)
    if not match_rms:
        initialise(projector, config)
    torch.random.set_rng_state(generator_state)
    if match_rms:
        embeddings = language_model.get_input_embeddings()
        sample_ids = torch.arange(min(4096, int(config.get_text_config().vocab_size)), device=language_model.device)
        with torch.no_grad():
            # Through the module and not from its table: some models scale what they look up.
            rms = float(embeddings(sample_ids).float().pow(2).mean().sqrt())
        match_output_rms(projector, audio_tower.output_norm, rms, seed)
    return projector


def initialise(projector: Projector, config: AudioGraftConfig) -> None:
    """The start that was published with a projector: `linear` N(0, initializer_range), as system A; the others PyTorch's own, as they were built."""
    if config.projector_type == "linear":
        std = getattr(config.get_text_config(), "initializer_range", 0.02)
        nn.init.normal_(projector.last.weight, std=std)


def _load_processor(
    encoder: tuple[str, str], language_model: tuple[str, str], audio_config: Any, text_config: Any, **options: Any
) -> AudioGraftProcessor:
    with loading(f"preprocessor_config.json of {encoder[0]}", encoder[1]):
        extractor = AutoFeatureExtractor.from_pretrained(encoder[1])
    with loading(f"the tokenizer of {language_model[0]}", language_model[1]):
        tokenizer = AutoTokenizer.from_pretrained(language_model[1])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Of raw waveforms alone: the others' frames are counted without.
    convolutions = [[c.kernel, c.stride] for c in waveform_convolutions(audio_config)] if hasattr(audio_config, "conv_kernel") else None
    processor = AudioGraftProcessor(extractor, tokenizer, encoder_convolutions=convolutions, **options)
    vision = vision_class(text_config) if has_eyes(text_config) else None
    if vision is not None:
        with loading(f"the image processor of {language_model[0]}", language_model[1]):
            processor.attach_vision(load_vision(vision, language_model[1]))
    return processor


def graft_processor(audio_encoder: str | Path, language_model: str | Path, frame_stack: int = 4, pad_to_window: bool = False) -> AudioGraftProcessor:
    """The processor of what `graft_in_memory` makes of the same parts, without their weights."""
    encoder, lm = (str(audio_encoder), resolve_model(audio_encoder)), (str(language_model), resolve_model(language_model))
    return _load_processor(encoder, lm, load_config(*encoder), _text_config(*lm), frame_stack=frame_stack, pad_to_window=pad_to_window)


def _text_config(name: str, path: str) -> Any:
    """The configuration of a language model, or a `ConfigError` where it hears already."""
    config = load_config(name, path)
    if isinstance(config, AudioGraftConfig):
        raise ConfigError(f"{name} is a graft, which has ears already: name the language model that it was made of in its place")
    return config


def graft_in_memory(
    audio_encoder: str | Path,
    language_model: str | Path,
    projector: str = "swiglu",
    frame_stack: int = 4,
    pad_to_window: bool = False,
    match_rms: bool = True,
    seed: int = 0,
    dtype: torch.dtype | str = "auto",
    device: str | torch.device | None = None,
    language_model_options: Mapping[str, Any] | None = None,
) -> tuple[AudioGraftForConditionalGeneration, AudioGraftProcessor]:
    """Load an encoder and a language model and join them.

    Args:
        audio_encoder: a checkpoint of Whisper (its decoder is left behind), WavLM, HuBERT, wav2vec 2.0 or Wav2Vec2-BERT (with or without a head,
            which is left behind), `tiny-encoder`, or a hub id.
        language_model: any causal language model or Qwen2-VL-like model, `tiny-lm`, or a hub id.
        projector: one of `audiograft.model.configuration.PROJECTORS`.
        frame_stack: encoder frames in one audio token.
        pad_to_window: pad every clip to 30 s; Whisper alone.
        match_rms: as in `assemble`.
        seed: of the projector's weights.
        dtype: of the weights; as the language model's checkpoint by default.
        device: where all parts go; None leaves the language model where its options put it, and the other parts go there too.
        language_model_options: more keywords of `from_pretrained` for the language model, such as quantization_config or attn_implementation.

    Raises:
        ConfigError: a part that can't be loaded or does not fit.
    """
    check_choices(projector, frame_stack)
    encoder_path, lm_path = resolve_model(audio_encoder), resolve_model(language_model)
    audio_config, text_config = load_config(str(audio_encoder), encoder_path), _text_config(str(language_model), lm_path)
    try:
        check_encoder(audio_config)
    except ConfigError as error:
        raise ConfigError(f"{audio_encoder}: {error}") from error
    check_window(audio_config, pad_to_window)
    # The processor first: what is wrong with small files should show before large ones are read.
    processor = _load_processor(
        (str(audio_encoder), encoder_path), (str(language_model), lm_path), audio_config, text_config,
        frame_stack=frame_stack, pad_to_window=pad_to_window,
    )  # fmt: skip
    lm = load_part(language_model_class(text_config), str(language_model), lm_path, dtype=dtype, **(language_model_options or {}))
    if device is not None:
        lm.to(device)
    tower = load_part(_TowerLoader, str(audio_encoder), encoder_path, dtype=lm.dtype, config=tower_config(audio_config)).to(lm.device)
    return assemble(tower, lm, processor, projector, seed, match_rms), processor


def graft(
    audio_encoder: str | Path,
    language_model: str | Path,
    out: Path,
    projector: str = "swiglu",
    frame_stack: int = 4,
    pad_to_window: bool = False,
    seed: int = 0,
    dtype: torch.dtype | str = "auto",
    match_rms: bool = True,
) -> dict[str, int]:
    """`graft_in_memory`, and save the graft.

    Args:
        audio_encoder: as in `graft_in_memory`, and so are the others.
        language_model: likewise.
        out: the folder to write.
        projector: one of `audiograft.model.configuration.PROJECTORS`.
        frame_stack: encoder frames in one audio token.
        pad_to_window: pad every clip to 30 s; Whisper alone.
        seed: of the projector's weights.
        dtype: of the saved weights; as the language model's checkpoint by default.
        match_rms: as in `assemble`.

    Returns:
        Parameters of each part.

    Raises:
        ConfigError: a part that can't be loaded or does not fit.
        AudiograftError: the folder can't be written.
    """
    model, processor = graft_in_memory(audio_encoder, language_model, projector, frame_stack, pad_to_window, match_rms, seed, dtype)
    save_graft(model, processor, Path(out))
    parts = {"audio_tower": model.audio_tower, "projector": model.projector, "language_model": model.language_model}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


_WHISPER_DECODER = re.compile(r"(model\.)?decoder\.|proj_out\.")
_HEADS = re.compile(
    r"(\w+\.)?(masked_spec_embed$|adapter\.|intermediate_ffn\.)"
    r"|(lm_head|quantizer|project_q|project_hid|projector|classifier)\.|layer_weights$"
)
"""Tensors that an encoder is left without on purpose: heads, adapters in front of them, and what only pretraining used."""


def is_left_behind(name: str, encoder_type: str) -> bool:
    """Whether a tensor of an encoder's checkpoint has no place in a graft.

    Args:
        name: as it is stored.
        encoder_type: `model_type` of the checkpoint.
    """
    return bool((_WHISPER_DECODER if encoder_type == "whisper" else _HEADS).match(name))


class _TowerLoader:
    """Loads the encoder out of any checkpoint of its kind, with a head or a decoder or without."""

    @staticmethod
    def from_pretrained(path: str, config: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        loader: Any = TOWERS[config.model_type]
        whisper = config.model_type == "whisper"
        if whisper:
            kwargs["key_mapping"] = {r"^(model\.)?encoder\.": ""}
        tower, info = loader.from_pretrained(path, config=config, **kwargs)
        info["unexpected_keys"] = [key for key in info["unexpected_keys"] if not is_left_behind(key, config.model_type)]
        return tower, info
