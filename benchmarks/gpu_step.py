"""Training steps and transcription of systems A, B and C at their real size, the published recipe and ours, on one CUDA device.

    pip install . bitsandbytes
    python benchmarks/gpu_step.py                      # writes benchmarks/results/gpu-step-<device>.json
    python benchmarks/gpu_step.py --only "A finetune"  # one of its cases
    python benchmarks/gpu_step.py --tiny --device cpu  # the same code on miniature models, in seconds; its figures mean nothing

Weights are random and no network is needed: the dimensions ship with the package, recipes/ says the rest. Clips are synthetic, 10 s long on average
(A and B, as their corpora), 0.2 and 1 s (C). A training step is one optimiser step with the recipe's batches, accumulation, precision, quantisation
and checkpointing; features of A and B are made beforehand, as a data loader does. Transcription forces 3.3 new tokens a second of audio, in 16 bits
without LoRA, and includes the features. Both recipes run through audiograft: logits are computed where there is a label, which the published code of
A and B did not do, so the reference is flattered. Lengths are in tokens of the language model, pads left out.

MFU: FLOPs by audiograft.train.plan.flops, recomputation left out (HFU has it), over the step's time and the device's dense bf16 peak.
A case that does not fit into memory is reported as such, and the others go on; the file is written after each case.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import transformers
from transformers import WhisperFeatureExtractor

from audiograft import provenance
from audiograft.model import AudioGraftConfig, AudioGraftForConditionalGeneration
from audiograft.model.front_end import build_front_end
from audiograft.model.quantise import finish_nf4, quantise_in_place
from audiograft.model.stock.families import FAMILIES
from audiograft.model.stock.mel import MelSpec
from audiograft.model.stock.modeling import StockAudioModel
from audiograft.train.batching import partition
from audiograft.train.plan.anatomy import Anatomy, count
from audiograft.train.plan.backbones import find_config
from audiograft.train.plan.flops import Example, example_flops
from audiograft.train.plan.gpus import GPUS
from audiograft.train.recipe import Recipe, load_recipe
from audiograft.train.setup import checkpoint_options
from audiograft.train.stages import checkpointed_layers, frozen_parts, prepare_stage
from audiograft.types import SAMPLE_RATE_HZ, AudiograftError

ROOT = Path(__file__).resolve().parent.parent
TRAINING = {
    "A align": ("reference/system-a/align", "qwen2-vl-7b/align"),
    "A finetune": ("reference/system-a/finetune", "qwen2-vl-7b/finetune"),
    "B finetune": ("reference/system-b/finetune", "llama-3.2-3b/finetune"),
    "C finetune": ("reference/system-c/finetune", "qwen2-audio-7b-detect/finetune"),
}
TRANSCRIPTION = {
    "A transcribe": ("reference/system-a/finetune", "qwen2-vl-7b/finetune"),
    "B transcribe": ("reference/system-b/finetune", "llama-3.2-3b/finetune"),
    "C transcribe": ("reference/system-c/finetune",),
}
VARIANTS = ("reference", "ours")
CLIP_SECONDS = (4.0, 7.0, 9.0, 10.0, 11.0, 13.0, 16.0)
DETECTION_SECONDS = (0.2, 1.0)
PROMPT_TOKENS = 24
DETECTION_PROMPT_TOKENS = 70
TOKENS_PER_S = 3.3
POOL_CLIPS = 700
BATCH_SIZES = {1: 8, 16: 32, 64: 128}
"""Batch size of transcription, and how many clips are transcribed with it."""
TEXT_ID = 5
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "vocab_size": 420, "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_layers": 1,
    "depth": 1, "embed_dim": 32, "num_heads": 4, "mrope_section": [1, 1, 2], "audio_token_id": 419, "audio_token_index": 419,
}  # fmt: skip
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Setting:
    """What all cases of a run share."""

    device: torch.device
    tiny: bool
    steps: int

    def dtype(self, precision: str) -> torch.dtype:
        # On a CPU, where only the code path counts, fp16 has no loss scaling.
        return DTYPES["bf16" if precision == "fp16" and self.device.type == "cpu" else precision]

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

    def reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)


@dataclass(frozen=True)
class Clip:
    """One training row."""

    seconds: float
    example: Example


def shrink(config: Any) -> Any:
    """The same kind of model with two layers of width 32."""

    def small(tree: dict[str, Any]) -> dict[str, Any]:
        tree = {key: small(value) if isinstance(value, dict) else value for key, value in tree.items() if key != "layer_types"}
        if tree.get("model_type") == "qwen2_vl_text":
            tree["rope_parameters"] |= {"mrope_section": SMALL["mrope_section"]}
        return tree | {key: value for key, value in SMALL.items() if key in tree}

    return type(config)(**small(config.to_dict()))


def read_recipe(name: str, setting: Setting) -> Recipe:
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    if not setting.tiny:
        return recipe
    lora = replace(recipe.lora, rank=4)
    tokens = 1600 if recipe.graft else 200
    return replace(recipe, lora=lora, tokens_per_batch=tokens, gradient_accumulation_steps=min(2, recipe.gradient_accumulation_steps))


def read_config(recipe: Recipe, setting: Setting) -> tuple[Any, bool]:
    """Configuration of a recipe's model, and whether it is a stock model; its dimensions ship with audiograft."""
    parts = recipe.graft
    if parts is None:
        config = find_config(str(recipe.model), "model")
        return (shrink(config) if setting.tiny else config), True
    audio, text = find_config(parts.audio_encoder, "graft.audio_encoder"), find_config(parts.language_model, "graft.language_model")
    if setting.tiny:
        audio, text = shrink(audio), shrink(text)
    vocabulary = text.get_text_config().vocab_size
    # Behind the last row, as in a real graft: nothing is resized.
    return (
        AudioGraftConfig(
            audio, text, projector_type=parts.projector, frame_stack=parts.frame_stack, pad_to_window=parts.pad_to_window, audio_token_id=vocabulary
        ),
        False,
    )


def as_graft(config: Any) -> AudioGraftConfig:
    """Qwen2-Audio as a graft of the same shapes, to count its FLOPs: Whisper's encoder, pooled two by two, one Linear."""
    audio = {key: value for key, value in config.audio_config.to_dict().items() if key != "model_type"}
    return AudioGraftConfig(audio, config.text_config, projector_type="pool-linear", frame_stack=2, audio_token_id=config.audio_token_id)


@contextmanager
def building(setting: Setting, dtype: torch.dtype) -> Iterator[None]:
    """New modules are made on the device and in the dtype."""
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with setting.device:
            yield
    finally:
        torch.set_default_dtype(before)


def build_model(config: Any, stock: bool, recipe: Recipe, setting: Setting) -> Any:
    """Random weights on the device, frozen ones in the recipe's frozen precision."""
    dtype = setting.dtype(recipe.frozen_precision or recipe.precision)
    with building(setting, dtype):
        if not stock:
            model: Any = AudioGraftForConditionalGeneration(config)
        else:
            family = FAMILIES[config.model_type]
            model = StockAudioModel(family.model_class(config), family, MelSpec(400, 400, config.audio_config.num_mel_bins, family.mel_scale))
    if recipe.attention in ("auto", "flash_attention_2") and find_spec("flash_attn") is not None and setting.device.type == "cuda":
        model.language_model.set_attn_implementation("flash_attention_2")
    return model


def clips_of(recipe: Recipe, anatomy: Anatomy, stock: bool) -> list[Clip]:
    """The pool that batches are made of; a share of its clips is padded to 30 s where the recipe says so."""
    seconds = DETECTION_SECONDS if stock else CLIP_SECONDS
    clips = []
    for number in range(POOL_CLIPS):
        length_s = seconds[number % len(seconds)]
        padded = anatomy.pad_to_window or math.floor((number + 1) * recipe.pad_to_window_share) > math.floor(number * recipe.pad_to_window_share)
        frames = anatomy.feature_frames(round(length_s * SAMPLE_RATE_HZ), padded)
        tokens = anatomy.front_end.audio_tokens(frames)
        # A stock Qwen2-Audio encodes 30 s whatever the clip, and gives the language model the clip's own tokens.
        encoded = anatomy.front_end.feature_frames(SAMPLE_RATE_HZ, True) if stock else frames
        prompt, answer = (DETECTION_PROMPT_TOKENS, 2) if stock else (PROMPT_TOKENS, math.ceil(length_s * TOKENS_PER_S) + 1)
        clips.append(Clip(length_s, Example((encoded,), tokens, prompt, answer, length_s)))
    return clips


def training_batch(model: Any, stock: bool, clips: list[Clip], setting: Setting) -> dict[str, Any]:
    """Inputs of one forward pass, on the device."""
    rows, labels = [], []
    for clip in clips:
        samples = round(clip.seconds * SAMPLE_RATE_HZ)
        tokens = FAMILIES[model.config.model_type].audio_tokens(model.config, _stock_frames(model, samples)) if stock else clip.example.audio_tokens
        before = [model.config.audio_token_id] * tokens + [TEXT_ID] * clip.example.prompt_tokens
        answer = [TEXT_ID + 1] * clip.example.response_tokens
        rows.append(before + answer)
        labels.append([-100] * len(before) + answer)
    longest = max(map(len, rows))
    lengths = [round(clip.seconds * SAMPLE_RATE_HZ) if stock else clip.example.feature_frames[0] for clip in clips]
    channels = 1 if stock else model.config.audio_config.num_mel_bins
    features = torch.randn(len(clips), channels, max(lengths), device=setting.device)
    for row, length in enumerate(lengths):
        features[row, :, length:] = 0
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=setting.device),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=setting.device),
        "labels": torch.tensor([row + [-100] * (longest - len(row)) for row in labels], device=setting.device),
        "input_features": features,
        "feature_lengths": torch.tensor(lengths),
    }


def _stock_frames(model: Any, samples: int) -> int:
    frames: int = FAMILIES[model.config.model_type].encoder_frames(samples)
    return frames


def optimiser_step(model: Any, recipe: Recipe, batches: list[dict[str, Any]], setting: Setting) -> Callable[[], None]:
    """What the Trainer does between two log lines: accumulated gradients, clipping, AdamW."""
    dtype = setting.dtype(recipe.precision)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, weight_decay=recipe.weight_decay, fused=setting.device.type == "cuda")
    scaler = torch.amp.GradScaler(setting.device.type, enabled=dtype is torch.float16)
    labelled = sum(int((batch["labels"] != -100).sum()) for batch in batches)

    def step() -> None:
        for batch in batches:
            with torch.autocast(setting.device.type, dtype, enabled=dtype is not torch.float32):
                loss = model(**batch, num_items_in_batch=labelled).loss
            scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()
        setting.synchronise()

    return step


def train_case(name: str, setting: Setting) -> dict[str, Any]:
    """Time, memory and FLOPs of one optimiser step of a recipe."""
    recipe = read_recipe(name, setting)
    config, stock = read_config(recipe, setting)
    anatomy = count(as_graft(config) if stock else config, recipe, recipe.graft is not None)
    started = time.perf_counter()
    setting.reset_peak()
    model = build_model(config, stock, recipe, setting)
    if recipe.quantisation == "nf4":
        quantise_in_place(model, setting.dtype(recipe.precision), setting.device)
        finish_nf4(model)
    counts = prepare_stage(model, recipe)
    model.train()
    for part in frozen_parts(model):
        part.eval()
    if recipe.gradient_checkpointing:
        model.language_model.activation_checkpointing_enable(checkpoint_options(model, recipe))
        for layer in checkpointed_layers(model):
            # They compute again in training mode alone, as GraftTrainer knows.
            layer.training = True
    built_s, build_peak = time.perf_counter() - started, setting.peak_bytes()
    clips = clips_of(recipe, anatomy, stock)
    cut = partition([clip.example.positions for clip in clips], recipe.tokens_per_batch, recipe.seed)
    # Batches are sorted by length: those of one step are spread over them.
    spread = np.linspace(0, len(cut) - 1, recipe.gradient_accumulation_steps + 2)[1:-1].round().astype(int)
    chosen = [[clips[row] for row in cut[batch]] for batch in spread.tolist()]
    step = optimiser_step(model, recipe, [training_batch(model, stock, batch, setting) for batch in chosen], setting)
    warm_ups = 1 if setting.tiny else 2
    for _ in range(warm_ups):
        step()
    setting.reset_peak()
    times = [seconds_of(step) for _ in range(setting.steps)]
    everything = [clip for batch in chosen for clip in batch]
    return _training_figures(recipe, anatomy, everything, median(times), setting) | {
        "step_s_all": times,
        "build_s": built_s,
        "peak_memory_build_bytes": build_peak,
        "trainable_params": counts.trainable,
        "projector_params": counts.projector,
        "lora_params": counts.lora,
        "total_params": anatomy.total_params,
        "attention": model.language_model.config._attn_implementation,
    }


def _training_figures(recipe: Recipe, anatomy: Anatomy, clips: list[Clip], step_s: float, setting: Setting) -> dict[str, Any]:
    def flops(counted: Recipe) -> float:
        return sum(sum(example_flops(anatomy, counted, clip.example).values()) for clip in clips)

    needed, done = flops(replace(recipe, gradient_checkpointing=False)), flops(recipe)
    peak = peak_flops(setting.device)
    return {
        "step_s": step_s,
        "clips": len(clips),
        "batches": recipe.gradient_accumulation_steps,
        "clips_per_s": len(clips) / step_s,
        "tokens_per_s": sum(clip.example.positions for clip in clips) / step_s,
        "audio_s_per_s": sum(clip.seconds for clip in clips) / step_s,
        "model_flops": needed,
        "mfu": None if peak is None else needed / step_s / peak,
        "hfu": None if peak is None else done / step_s / peak,
        "peak_memory_bytes": setting.peak_bytes(),
    }


def transcribe_case(name: str, batch_size: int, model: Any, stock: bool, setting: Setting) -> dict[str, Any]:
    """Real-time factor of features, encoder, prompt and 3.3 forced tokens a second."""
    n_clips = batch_size if setting.tiny else BATCH_SIZES[batch_size]
    seconds = [CLIP_SECONDS[number % len(CLIP_SECONDS)] / (10 if setting.tiny else 1) for number in range(n_clips)]
    rng = np.random.default_rng(0)
    waveforms = [0.1 * rng.standard_normal(round(length_s * SAMPLE_RATE_HZ), dtype=np.float32) for length_s in sorted(seconds)]
    groups = [waveforms[start : start + batch_size] for start in range(0, n_clips, batch_size)]

    def all_groups() -> None:
        for group in groups:
            generate(model, stock, group, setting)
        setting.synchronise()

    generate(model, stock, groups[0], setting)
    setting.synchronise()
    setting.reset_peak()
    wall_s = median(seconds_of(all_groups) for _ in range(1 if setting.tiny else 3))
    audio_s = sum(seconds)
    return {"batch_size": batch_size, "clips": n_clips, "wall_s": wall_s, "rtfx": audio_s / wall_s, "peak_memory_bytes": setting.peak_bytes()}


def generate(model: Any, stock: bool, waveforms: list[Any], setting: Setting) -> Any:
    """Features of a batch, and its forced answer."""
    config = model.config
    if stock:
        features = [waveform[None] for waveform in waveforms]
        family = FAMILIES[config.model_type]
        tokens = [family.audio_tokens(config, family.encoder_frames(len(waveform))) for waveform in waveforms]
    else:
        front_end = build_front_end(WhisperFeatureExtractor(feature_size=config.audio_config.num_mel_bins), config.frame_stack)
        features = [front_end.features(waveform, config.pad_to_window) for waveform in waveforms]
        tokens = [front_end.audio_tokens(feature.shape[1]) for feature in features]
    lengths = [feature.shape[1] for feature in features]
    padded = np.zeros((len(features), features[0].shape[0], max(lengths)), dtype=np.float32)
    for row, feature in enumerate(features):
        padded[row, :, : feature.shape[1]] = feature
    rows = [[config.audio_token_id] * n + [TEXT_ID] * PROMPT_TOKENS for n in tokens]
    longest = max(map(len, rows))
    new_tokens = math.ceil(max(map(len, waveforms)) / SAMPLE_RATE_HZ * TOKENS_PER_S)
    return model.generate(
        torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=setting.device),
        attention_mask=torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=setting.device),
        input_features=torch.from_numpy(padded).to(setting.device),
        feature_lengths=torch.tensor(lengths),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=0,
    )


def seconds_of(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def peak_flops(device: torch.device) -> float | None:
    """The device's dense bf16 peak; None where audiograft.train.plan.gpus does not have it."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device).lower()
    words = [(gpu, re.findall(r"[a-z]*\d+[a-z]*", gpu.name.lower())) for gpu in GPUS]
    return next(
        (gpu.bf16_flops for gpu, parts in words if all(re.search(rf"(?<![a-z0-9]){part}(?![a-z0-9]|\d)|{part}gb", name) for part in parts)), None
    )


def attempt(case: Callable[[], dict[str, Any]], setting: Setting) -> dict[str, Any]:
    """A case's figures, or why there are none; its memory is given back."""
    try:
        return {"status": "ok", **case()}
    except torch.OutOfMemoryError:
        return {"status": "out of memory"}
    except AudiograftError as error:
        return {"status": "left out", "reason": str(error)}
    except Exception as error:  # a case must not take the others with it
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"status": "out of memory" if "out of memory" in reason.lower() else "failed", "reason": reason}
    finally:
        gc.collect()
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()


def run(setting: Setting, only: str, out: Path) -> dict[str, Any]:
    """All cases whose name has `only` in it; the file is written after each."""
    report: dict[str, Any] = {**about(setting), "training": [], "transcription": []}

    def keep(kind: str, row: dict[str, Any]) -> None:
        report[kind].append(row)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(line_of(row), flush=True)

    for case, recipes in TRAINING.items():
        for variant, name in zip(VARIANTS, recipes, strict=True):
            if only in case:
                figures = attempt(lambda name=name: train_case(name, setting), setting)  # type: ignore[misc]
                keep("training", {"case": case, "variant": variant, "recipe": f"recipes/{name}.yaml", **figures})
    for case, recipes in TRANSCRIPTION.items():
        for variant, name in zip(VARIANTS, recipes, strict=False):
            if only in case:
                for figures in transcriptions(name, setting):
                    keep("transcription", {"case": case, "variant": variant, "recipe": f"recipes/{name}.yaml", **figures})
    return report


def transcriptions(name: str, setting: Setting) -> Iterator[dict[str, Any]]:
    """One row a batch size, all with one model."""
    built: dict[str, Any] = {}

    def build() -> dict[str, Any]:
        recipe = replace(read_recipe(name, setting), precision="bf16", frozen_precision=None)
        config, built["stock"] = read_config(recipe, setting)
        built["model"] = build_model(config, built["stock"], recipe, setting).eval()
        return {}

    start = attempt(build, setting)
    for batch_size in (1, 2) if setting.tiny else BATCH_SIZES:
        if start["status"] != "ok":
            yield {"batch_size": batch_size, **start}
            continue
        case = attempt(lambda size=batch_size: transcribe_case(name, size, built["model"], built["stock"], setting), setting)  # type: ignore[misc]
        yield {"batch_size": batch_size, **case}


def about(setting: Setting) -> dict[str, Any]:
    """The device and what the figures were made with."""
    cuda = setting.device.type == "cuda"
    versions = provenance.versions()
    for library in ("bitsandbytes", "flash_attn"):
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = "not installed"
    return {
        "device": torch.cuda.get_device_name(setting.device) if cuda else platform.processor() or platform.machine(),
        "device_memory_bytes": torch.cuda.get_device_properties(setting.device).total_memory if cuda else None,
        "peak_bf16_flops": peak_flops(setting.device),
        "cuda": torch.version.cuda,
        "versions": versions,
        "commit": provenance.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "tiny": setting.tiny,
        "timed_steps": setting.steps,
        "clip_seconds": {"A, B": CLIP_SECONDS, "C": DETECTION_SECONDS},
    }


def line_of(row: dict[str, Any]) -> str:
    """One row for the terminal."""
    head = f"{row['case']:<13}{row['variant']:<11}"
    if "batch_size" in row:
        head += f"batch {row['batch_size']:<4}"
    if row["status"] != "ok":
        return f"{head}{row['status']} {row.get('reason', '')}".rstrip()
    memory = f"{row['peak_memory_bytes'] / 1e9:.1f} GB" if row["peak_memory_bytes"] is not None else "memory not measured"
    if "rtfx" in row:
        return f"{head}{row['rtfx']:.1f} s of audio a second, {memory}"
    mfu = "" if row["mfu"] is None else f", MFU {100 * row['mfu']:.1f} %"
    return f"{head}{row['step_s']:.3f} s a step, {row['tokens_per_s']:,.0f} tokens/s, {row['audio_s_per_s']:,.1f} s of audio/s, {memory}{mfu}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu with --tiny")
    parser.add_argument("--tiny", action="store_true", help="two layers of width 32: shows that the code runs, and nothing else")
    parser.add_argument("--only", default="", help="run the cases whose name has this in it")
    parser.add_argument("--steps", type=int, default=None, help="timed steps of each training case; 5 by default")
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    # In mixed precision the projector's norms are fed bf16 or fp16 and hold fp32, which is as it should be.
    warnings.filterwarnings("ignore", "Mismatch dtype between input and weight", UserWarning)
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("error: there is no CUDA device here: run this where there is one, or with --tiny --device cpu", file=sys.stderr)
        return 2
    if device.type != "cuda" and not args.tiny:
        print(f"error: real sizes are not for {device.type}: add --tiny", file=sys.stderr)
        return 2
    setting = Setting(device, args.tiny, args.steps or (1 if args.tiny else 5))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    slug = re.sub(r"[^a-z0-9]+", "-", f"{name}{'-tiny' if args.tiny else ''}".lower()).strip("-")
    out = args.out or ROOT / "benchmarks" / "results" / f"gpu-step-{slug}.json"
    report = run(setting, args.only, out)
    print(f"written to {out}")
    rows = report["training"] + report["transcription"]
    return 1 if any(row["status"] == "failed" for row in rows) or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
