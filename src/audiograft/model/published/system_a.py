"""System A as it was published: Qwen2-VL's own layout with `audio_encoder.*` and `audio_projector.weight` beside it, 1500 tokens a clip.

Its fork of transformers is not needed: the language model is stock Qwen2-VL, and the encoder is Whisper's, whose size follows from its tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    Qwen2VLForConditionalGeneration,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from audiograft.model.checkpoint import check_keys, load_config, loading, resolve_model, snapshot
from audiograft.model.configuration import AudioGraftConfig
from audiograft.model.modeling import AudioGraftForConditionalGeneration
from audiograft.model.processing import AudioGraftProcessor
from audiograft.model.tensors import StoredTensor, TensorFiles, weight_files
from audiograft.model.vision import load_vision
from audiograft.types import ConfigError

AUDIO_TOKEN = "<|audio_pad|>"
ENCODER, PROJECTOR = "audio_encoder.", "audio_projector.weight"
CONFIG_KEYS = ("audio_token_id", "audio_hidden_size", "use_audio_encoder")
"""What system A adds to Qwen2-VL's configuration. None of them decides anything here: sizes follow from tensors, ids from names."""
_HEAD_WIDTH = 64
"""Of every Whisper; the number of heads can't be read off the tensors."""
_FRAMES_PER_S = 50

PROMPT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | replace('<|audio_pad|>', '<|audio_bos|><|audio_pad|><|audio_eos|>') }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% else %}{{ part['text'] | replace('<|audio_pad|>', '<|audio_bos|><|audio_pad|><|audio_eos|>') }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The prompt that system A was trained with, as a chat template: no system turn, and around the clip two marks that its tokenizer does not know,
so that they are read as ordinary text."""


def is_system_a(config: Any) -> bool:
    """Whether a configuration is that of system A: Qwen2-VL's with keys for audio."""
    return config.model_type == "qwen2_vl" and any(hasattr(config, key) for key in CONFIG_KEYS[1:])


def encoder_config(tensors: dict[str, StoredTensor], source: str) -> WhisperConfig:
    """Whisper's configuration, from the shapes of an encoder's tensors.

    Args:
        tensors: by their names in the encoder.
        source: stands in the error.

    Raises:
        ConfigError: a tensor that decides a size is missing, or the width is no multiple of 64.
    """
    try:
        width, n_mels, _ = tensors["conv1.weight"].shape
        positions, _ = tensors["embed_positions.weight"].shape
        inner, _ = tensors["layers.0.fc1.weight"].shape
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{source} has no whole {ENCODER}* beside its language model ({error}): download it again") from error
    layers = len({name.split(".")[1] for name in tensors if name.startswith("layers.")})
    if width % _HEAD_WIDTH:
        raise ConfigError(f"{source}: an encoder of width {width} is no Whisper: its heads are {_HEAD_WIDTH} wide")
    return WhisperConfig(
        d_model=width,
        num_mel_bins=n_mels,
        max_source_positions=positions,
        encoder_layers=layers,
        encoder_ffn_dim=inner,
        encoder_attention_heads=width // _HEAD_WIDTH,
        decoder_layers=0,
        dropout=0.0,
    )


def load_system_a_processor(name: str, path: str, tensors: TensorFiles) -> AudioGraftProcessor:
    """System A's prompt and features.

    Raises:
        ConfigError: the tokenizer can't be loaded, or lacks the placeholder.
    """
    config = encoder_config(_encoder(tensors), name)
    with loading(f"the tokenizer of {name}", path):
        tokenizer = AutoTokenizer.from_pretrained(path)
    if AUDIO_TOKEN not in tokenizer.get_vocab():
        raise ConfigError(f"{name}: its tokenizer lacks {AUDIO_TOKEN}, which stands for a clip: download the folder's tokenizer files again")
    tokenizer.chat_template = PROMPT
    # The folder's preprocessor_config.json can be the image processor's, which overwrote this one; all Whispers differ in the mel count alone.
    extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=config.max_source_positions // _FRAMES_PER_S)
    processor = AudioGraftProcessor(extractor, tokenizer, frame_stack=1, pad_to_window=True, audio_token=AUDIO_TOKEN, response_prefix=" ")
    if _has_image_processor(Path(path)):
        with loading(f"the image processor of {name}", path):
            vision = load_vision("Qwen2VLProcessor", path)
        vision.chat_template = PROMPT
        processor.attach_vision(vision)
    return processor


def _has_image_processor(folder: Path) -> bool:
    file = folder / "preprocessor_config.json"
    return file.is_file() and "image_processor_type" in file.read_text(encoding="utf-8", errors="replace")


def _encoder(tensors: TensorFiles) -> dict[str, StoredTensor]:
    return {name.removeprefix(ENCODER): tensor for name, tensor in tensors.items() if name.startswith(ENCODER)}


def stored_tensors(name: str | Path) -> tuple[str, TensorFiles]:
    """The local folder of a checkpoint in system A's layout, and its tensors; those of a hub id are downloaded."""
    path = resolve_model(name)
    if not Path(path).is_dir():
        path = snapshot(path)
    return path, TensorFiles(weight_files(Path(path)))


def load_system_a(
    name: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, **kwargs: Any
) -> tuple[AudioGraftForConditionalGeneration, AudioGraftProcessor]:
    """Open a checkpoint in system A's layout, whether its Qwen2-VL has the names of transformers before or after 4.52.

    Args:
        name: folder or hub id.
        device: where the weights go.
        dtype: of the weights in memory.
        **kwargs: for Qwen2-VL's `from_pretrained`.

    Raises:
        ConfigError: damaged, or a tensor is missing, extra or of another shape.
    """
    path, tensors = stored_tensors(name)
    config = load_config(str(name), path)
    for key in CONFIG_KEYS:
        config.__dict__.pop(key, None)
    audio_config = encoder_config(_encoder(tensors), str(name))
    processor = load_system_a_processor(str(name), path, tensors)
    language_model = _load_qwen2_vl(str(name), path, config, dtype=dtype, **kwargs)
    # A configuration of its own: what it says of quantisation is Qwen2-VL's business.
    graft_config = AudioGraftConfig(
        audio_config=audio_config, text_config=language_model.config, projector_type="linear", frame_stack=1, pad_to_window=True,
        audio_token_id=processor.audio_token_id,
    )  # fmt: skip
    with torch.device("meta"):
        model: Any = AudioGraftForConditionalGeneration(graft_config)
    fill(model.audio_tower, tensors.read_all(ENCODER), dtype, str(name), ENCODER)
    projector = {"weight": tensors.read(PROJECTOR)} if PROJECTOR in tensors else {}
    fill(model.projector.last, projector, dtype, str(name), PROJECTOR.removesuffix("weight"))
    model.language_model = language_model
    _stop_at_end_of_turn(language_model, processor)
    return model.to(device).eval(), processor


def _load_qwen2_vl(name: str, path: str, config: Any, **kwargs: Any) -> PreTrainedModel:
    loader: Any = Qwen2VLForConditionalGeneration
    with loading(name, path):
        model, info = loader.from_pretrained(path, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs)
    info["unexpected_keys"] = [key for key in info["unexpected_keys"] if key != PROJECTOR and not key.startswith(ENCODER)]
    check_keys(name, info)
    language_model: PreTrainedModel = model
    return language_model


def fill(module: torch.nn.Module, tensors: dict[str, Tensor], dtype: torch.dtype, source: str, prefix: str) -> None:
    """Put tensors into a component that stands on the meta device.

    Args:
        module: the component.
        tensors: by their names in it.
        dtype: of the weights in memory.
        source: stands in the error.
        prefix: of the tensors' names in the checkpoint; stands in the error.

    Raises:
        ConfigError: a tensor is missing, extra or of another shape.
    """
    wanted = module.state_dict()
    check_keys(
        source,
        {
            "missing_keys": [prefix + name for name in wanted.keys() - tensors.keys()],
            "unexpected_keys": [prefix + name for name in tensors.keys() - wanted.keys()],
            "mismatched_keys": [prefix + name for name in wanted.keys() & tensors.keys() if wanted[name].shape != tensors[name].shape],
        },
    )
    module.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)


def _stop_at_end_of_turn(language_model: Any, processor: AudioGraftProcessor) -> None:
    """Add the end of a turn to the tokens at which generation stops, where the checkpoint's own file does not say so."""
    generation: GenerationConfig = language_model.generation_config
    ends = generation.eos_token_id
    stops = {*(ends if isinstance(ends, list) else [ends]), processor.tokenizer.convert_tokens_to_ids(processor.end_of_turn)}
    generation.eos_token_id = sorted(stops - {None})
    if generation.pad_token_id is None:
        generation.pad_token_id = processor.tokenizer.pad_token_id
