"""Tiny random models and tokenizers, made in memory: small enough that a test takes milliseconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor, assemble
from audiograft.model.audio_tower import AudioTower

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VOCABULARY_ROWS = 420
FAMILIES = ("qwen2", "qwen3", "llama", "gemma2", "smollm")


def tokenizer(chat_template: str = CHATML, special: tuple[str, ...] = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")) -> Any:
    """Byte-level BPE with a chat template; the last special token ends a turn, the first one pads."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=list(special), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    core.train_from_iterator(["transcribe the audio", "one two three four five six seven eight", "hello world"] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=special[-1], pad_token=special[0], chat_template=chat_template)


def language_model(family: str = "qwen2", seed: int = 0, **overrides: Any) -> Any:
    """A causal language model of 2 layers and width 32."""
    torch.manual_seed(seed)
    size: dict[str, Any] = {
        "vocab_size": VOCABULARY_ROWS,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **overrides,
    }
    models_by_family = {
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(tie_word_embeddings=True, **size)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(head_dim=8, **size)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**size)),
        "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(head_dim=8, **size)),
        # SmolLM is Llama with tied embeddings.
        "smollm": lambda: LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, **size)),
    }
    return models_by_family[family]().eval()


def audio_tower(seed: int = 0, **overrides: Any) -> AudioTower:
    """Whisper's encoder with 2 layers and width 16."""
    torch.manual_seed(seed)
    size = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 80, **overrides}
    return AudioTower(WhisperConfig(dropout=0.0, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=4, **size)).eval()


def graft(
    family: str = "qwen2", projector: str = "swiglu", frame_stack: int = 4, pad_to_window: bool = False, seed: int = 0
) -> tuple[AudioGraftForConditionalGeneration, AudioGraftProcessor]:
    """A grafted model and its processor."""
    processor = AudioGraftProcessor(WhisperFeatureExtractor(), tokenizer(), frame_stack=frame_stack, pad_to_window=pad_to_window)
    model = qwen2_vl(seed) if family == "qwen2_vl" else language_model(family, seed)
    return assemble(audio_tower(seed), model, processor, projector, seed), processor


def qwen2_vl(seed: int = 0, **token_ids: int) -> Any:
    """A Qwen2-VL of 2 layers, whose image, video and vision tokens are the last ids of the vocabulary, or as given."""
    torch.manual_seed(seed)
    text = {
        "vocab_size": VOCABULARY_ROWS,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    ids = {"image_token_id": 416, "video_token_id": 417, "vision_start_token_id": 418, "vision_end_token_id": 419, **token_ids}
    config = Qwen2VLConfig(text_config=text, vision_config=vision, **ids)
    return Qwen2VLForConditionalGeneration(config).eval()


def tone(seconds: float, frequency_hz: float = 440.0, seed: int = 0) -> np.ndarray:
    """A tone with a little noise, (n_samples,) at 16 kHz."""
    times = np.arange(int(seconds * 16_000)) / 16_000
    noise = np.random.default_rng(seed).standard_normal(len(times)) * 0.01
    return (0.3 * np.sin(2 * np.pi * frequency_hz * times) + noise).astype(np.float32)


def write_clips(folder: Path, waveforms: Sequence[np.ndarray], texts: Sequence[str]) -> Path:
    """A manifest of clips named clip-0, clip-1 and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number, (waveform, text) in enumerate(zip(waveforms, texts, strict=True)):
        soundfile.write(folder / f"{number}.wav", waveform, 16_000, subtype="FLOAT")
        rows.append({"id": f"clip-{number}", "audio": f"{number}.wav", "text": text})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return manifest
