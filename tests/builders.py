"""Tiny random models and tokenizers, made in memory: small enough that a test takes milliseconds."""

from __future__ import annotations

import base64
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from peft import LoraConfig
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    AddedToken,
    AutoConfig,
    AutoModel,
    AutoModelForCTC,
    Gemma2Config,
    Gemma2ForCausalLM,
    HubertConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor, assemble
from audiograft.model import graft as write_graft
from audiograft.model.audio_tower import AudioTower
from audiograft.model.stock.families import FAMILIES as STOCK_FAMILIES

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


def system_a(folder: Path, names: str = "old", seed: int = 0) -> Any:
    """A checkpoint in system A's published layout, in two shards, with an encoder of width 64; `names` as before or after transformers 4.52.

    Returns:
        The stock Qwen2-VL whose weights are in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = qwen2_vl(seed)
    with torch.no_grad():
        # A projector of the published initialisation: loud enough for audio to matter.
        projector = torch.randn(32, 64) * 0.02
    tower = audio_tower(seed, d_model=64, encoder_attention_heads=1, encoder_ffn_dim=96)
    tensors = dict(model.state_dict())
    if names == "old":
        tensors = {name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): value for name, value in tensors.items()}
    tensors |= {f"audio_encoder.{name}": value for name, value in tower.state_dict().items()} | {"audio_projector.weight": projector}
    shards = {"model-00001-of-00002.safetensors": list(tensors)[::2], "model-00002-of-00002.safetensors": list(tensors)[1::2]}
    for file, members in shards.items():
        save_file({name: tensors[name].contiguous() for name in members}, folder / file, {"format": "pt"})
    size = sum(value.numel() * value.element_size() for value in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": {name: file for file, members in shards.items() for name in members}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    tokens = tokenizer()
    tokens.add_tokens([AddedToken(f"<|audio_{kind}|>", special=True, normalized=False) for kind in ("pad", "start", "end")], special_tokens=True)
    tokens.save_pretrained(folder)
    config = {
        "architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", "transformers_version": "4.47.0", "torch_dtype": "float32",
        "vocab_size": VOCABULARY_ROWS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 32768, "max_window_layers": 2, "rms_norm_eps": model.config.text_config.rms_norm_eps,
        "rope_theta": 10000.0, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}, "tie_word_embeddings": False,
        "use_sliding_window": False,
        "sliding_window": 4096, "bos_token_id": 0, "eos_token_id": 2, "image_token_id": 416, "video_token_id": 417, "vision_start_token_id": 418,
        "vision_end_token_id": 419, "audio_token_id": 320, "audio_hidden_size": 64, "use_audio_encoder": True,
        "vision_config": {
            "depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14, "in_chans": 3, "model_type": "qwen2_vl",
            "spatial_patch_size": 14,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return model


ENCODERS = ("wavlm", "wavlm-base", "hubert", "hubert-base", "wav2vec2", "wav2vec2-base", "wav2vec2-bert", "wav2vec2-bert-rotary")
"""Other ears than Whisper's; `-base` normalises over time (feat_extract_norm: group) and has its layer norms behind the layers."""


def encoder_config(kind: str, **overrides: Any) -> Any:
    """An encoder of 2 layers and width 16 with the convolutions and the pretraining switches (masking, layer drop) of the published ones."""
    name, _, variant = kind.partition("-")
    size: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 12}
    pretraining = {"layerdrop": 0.5, "mask_time_prob": 0.5, "mask_time_length": 2, "mask_feature_prob": 0.5, "mask_feature_length": 2}
    if kind.startswith("wav2vec2-bert"):
        positions = "rotary" if kind.endswith("rotary") else "relative_key"
        return Wav2Vec2BertConfig(position_embeddings_type=positions, conv_depthwise_kernel_size=5, **(size | pretraining | overrides))
    norm = {"feat_extract_norm": "group"} if variant else {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
    convolutions = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    classes: dict[str, Any] = {"wavlm": WavLMConfig, "hubert": HubertConfig, "wav2vec2": Wav2Vec2Config}
    return classes[name](**(size | pretraining | norm | convolutions | overrides))


def encoder(kind: str, seed: int = 0, head: bool = False, **overrides: Any) -> Any:
    """A stock encoder, bare or with a CTC head. Its norms have weights of their own, as trained ones do."""
    torch.manual_seed(seed)
    config = encoder_config(kind, **overrides)
    model = (AutoModelForCTC if head else AutoModel).from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def encoder_checkpoint(folder: Path, kind: str, head: bool = False, **overrides: Any) -> Path:
    """An encoder with its feature extractor in a folder, as it lies on a hub."""
    encoder(kind, head=head, **overrides).save_pretrained(folder)
    extractor = SeamlessM4TFeatureExtractor(padding_value=1) if kind.startswith("wav2vec2-bert") else Wav2Vec2FeatureExtractor()
    extractor.save_pretrained(folder)
    return folder


def lm_checkpoint(folder: Path, family: str = "qwen2") -> Path:
    """A language model with its tokenizer in a folder."""
    language_model(family).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


VISION_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|im_end|>")
"""Special tokens of `vlm_checkpoint`, by their ids."""
VISION_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] in ('image', 'video') %}{{ '<|vision_start|><|' + part['type'] + '_pad|><|vision_end|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def vlm_checkpoint(folder: Path, seed: int = 0, initializer_range: float | None = None) -> Path:
    """A Qwen2-VL with its processor in a folder. Pictures keep their size, from 28 to 112 pixels a side: one token for each 28 x 28 of them.

    Args:
        folder: where it is written.
        seed: of its weights.
        initializer_range: spread of the language model's weights; None leaves them small.
    """
    model = qwen2_vl(seed, image_token_id=4, video_token_id=5, vision_start_token_id=2, vision_end_token_id=3)
    if initializer_range is not None:
        torch.manual_seed(seed)
        for parameter in model.model.language_model.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=initializer_range)
    model.generation_config.eos_token_id = model.config.text_config.eos_token_id = 6
    model.save_pretrained(folder)
    tokenizer(VISION_TEMPLATE, VISION_TOKENS).save_pretrained(folder)
    Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=112 * 112).save_pretrained(folder)
    return folder


def vlm_graft(folder: Path, initializer_range: float | None = None) -> Path:
    """A Whisper encoder grafted onto `vlm_checkpoint`, whole, in `folder`/graft; the parts are in `folder`/whisper and `folder`/lm."""
    audio_tower().save_pretrained(folder / "whisper")
    WhisperFeatureExtractor().save_pretrained(folder / "whisper")
    vlm_checkpoint(folder / "lm", initializer_range=initializer_range)
    write_graft(folder / "whisper", folder / "lm", folder / "graft")
    return folder / "graft"


def picture(level: int, width: int = 56, height: int = 56) -> Image.Image:
    """A grey picture with a dark corner, so that it is no constant."""
    pixels = np.full((height, width, 3), level, dtype=np.uint8)
    pixels[: height // 2, : width // 2] = level // 2
    return Image.fromarray(pixels)


STOCK = ("qwen2_audio", "voxtral", "audioflamingo3", "granite_speech")
"""Audio language models that transformers has itself."""
STOCK_TEMPLATE = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nHelp.<|im_end|>\n' }}{% endif %}" + CHATML
STOCK_TOKENS = {
    "qwen2_audio": ("<|endoftext|>", "<|im_start|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|im_end|>"),
    "audioflamingo3": ("<|endoftext|>", "<|im_start|>", "<sound>", "<|im_end|>"),
    "granite_speech": ("<|endoftext|>", "<|im_start|>", "<|audio|>", "<|im_end|>"),
}


def tekken() -> dict[str, Any]:
    """Content of a tekken.json as Voxtral has it: 40 special tokens at their published places, all bytes, a few merges."""
    named = {
        0: "<unk>", 1: "<s>", 2: "</s>", 3: "[INST]", 4: "[/INST]", 11: "<pad>", 17: "[SYSTEM_PROMPT]", 18: "[/SYSTEM_PROMPT]", 24: "[AUDIO]",
        25: "[BEGIN_AUDIO]", 34: "[TRANSCRIBE]",
    }  # fmt: skip
    vocab = [*(bytes([byte]) for byte in range(256)), b"th", b"the", b" the", b"er", b" a", b"an"]
    pattern = r"[^\r\n\p{L}\p{N}]?[\p{L}]+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    return {
        "config": {"pattern": pattern, "default_vocab_size": len(vocab) + 40, "default_num_special_tokens": 40, "version": "v7"},
        "vocab": [{"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None} for rank, token in enumerate(vocab)],
        "special_tokens": [{"rank": rank, "token_str": named.get(rank, f"<SPECIAL_{rank}>"), "is_control": True} for rank in range(40)],
    }


def stock_config(kind: str) -> Any:
    """Two layers and width 32 behind an encoder of two layers and width 16, in the names of the published configurations."""
    tokens = STOCK_TOKENS.get(kind)
    text: dict[str, Any] = {
        "vocab_size": VOCABULARY_ROWS, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 4096, "bos_token_id": None, "pad_token_id": 0,
        "eos_token_id": 2 if tokens is None else len(tokens) - 1,
    }  # fmt: skip
    size = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32, "num_mel_bins": 80}
    whisper = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "num_mel_bins": 80}
    special: dict[str, dict[str, Any]] = {
        "qwen2_audio": {"audio_config": {"model_type": "qwen2_audio_encoder", **size}, "text_config": {"model_type": "qwen2", **text}},
        "voxtral": {"audio_config": {"model_type": "voxtral_encoder", **whisper}, "text_config": {"model_type": "llama", "head_dim": 8, **text}},
        "audioflamingo3": {"audio_config": {"model_type": "audioflamingo3_encoder", **whisper}, "text_config": {"model_type": "qwen2", **text}},
        "granite_speech": {
            "text_config": {"model_type": "granite", "tie_word_embeddings": True, **text},
            "encoder_config": {
                "input_dim": 160, "num_layers": 2, "hidden_dim": 16, "num_heads": 2, "output_dim": 12, "context_size": 20, "max_pos_emb": 32,
                "feedforward_mult": 2,
            },
            "projector_config": {
                "model_type": "blip_2_qformer", "vocab_size": 10, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                "intermediate_size": 32, "encoder_hidden_size": 16, "cross_attention_frequency": 1,
            },
        },
    }  # fmt: skip
    audio_token_id = 24 if tokens is None else tokens.index(STOCK_FAMILIES[kind].audio_token)
    return AutoConfig.for_model(kind, audio_token_id=audio_token_id, **special[kind])


def stock_checkpoint(folder: Path, kind: str, seed: int = 0) -> Path:
    """A stock audio language model as it lies on the hub: config, weights, tokenizer, preprocessor_config.json, and Granite Speech's LoRA.

    Its weights are larger than fresh ones, so that answers differ from clip to clip.
    """
    torch.manual_seed(seed)
    model = STOCK_FAMILIES[kind].model_class(stock_config(kind)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "projector" in name and parameter.dim() == 2:
                parameter.mul_(20)
            elif "_proj" in name or "lm_head" in name:
                # Sharp attention, so that a clip is heard among the silence of its 30 s.
                parameter.mul_(18 if "language_model" in name and ("q_proj" in name or "k_proj" in name) else 6)
    model.save_pretrained(folder)
    if kind == "granite_speech":
        model.add_adapter(LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
        # The adapter alone: the class's own method would write the base once more, under names that it can't read.
        PreTrainedModel.save_pretrained(model, folder)
        mel = {"sample_rate": 16_000, "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 80}
        extractor = {"feature_extractor_type": "GraniteSpeechFeatureExtractor", "melspec_kwargs": mel, "sampling_rate": 16_000}
        (folder / "preprocessor_config.json").write_text(json.dumps(extractor), encoding="utf-8")
    else:
        WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    if kind == "voxtral":
        (folder / "tekken.json").write_text(json.dumps(tekken()), encoding="utf-8")
    else:
        tokenizer(STOCK_TEMPLATE, STOCK_TOKENS[kind]).save_pretrained(folder)
    return folder


def system_b(folder: Path, hidden: int = 32, rank: int = 4, namespace: bool = False, sequential: bool = True, **args: str) -> Path:
    """A checkpoint.pt as system B's training writes it, and the bases beside it."""
    audio_tower().save_pretrained(folder / "whisper")
    WhisperFeatureExtractor().save_pretrained(folder / "whisper")
    language_model("llama").save_pretrained(folder / "llama")
    tokens = tokenizer(special=("<|begin_of_text|>", "<|eot_id|>"))
    tokens.bos_token = "<|begin_of_text|>"
    tokens.save_pretrained(folder / "llama")
    torch.manual_seed(3)
    projector = nn.Sequential(
        nn.Linear(16, (16 + hidden) // 2), torch.nn.GELU(), torch.nn.Linear((16 + hidden) // 2, hidden), torch.nn.LayerNorm(hidden)
    )
    state = projector.state_dict() if sequential else {f"layers.{name}": tensor for name, tensor in projector.state_dict().items()}
    names = [f"model.layers.{layer}.{linear}" for layer in range(2) for linear in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")]
    sizes = {"q_proj": (32, 32), "v_proj": (32, 16), "down_proj": (64, 32)}
    lora = {}
    for name in names:
        inputs, outputs = sizes[name.rpartition(".")[2]]
        lora[name] = {"lora_A": torch.randn(rank, inputs) * 0.1, "lora_B": torch.randn(outputs, rank) * 0.1}
    arguments = {"llama_path": str(folder / "llama"), "whisper_path": str(folder / "whisper"), "lora_rank": 32, **args}
    checkpoint = {
        "model": {"projector": state, "lora_layers": lora},
        "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 2e-5}]},
        "step": 5,
        "args": Namespace(**arguments) if namespace else arguments,
        "dataset_config": {"audio_key": "audio_paths"},
    }
    (folder / "checkpoint-5").mkdir()
    torch.save(checkpoint, folder / "checkpoint-5" / "checkpoint.pt")
    return folder / "checkpoint-5"
