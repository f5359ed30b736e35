"""The ratios that audiograft promises, each against the published way of doing the same, in one run.

    python benchmarks/bench.py            # prints a table, writes benchmarks/results/latest.json

Training: one optimiser step on the same eight clips of 2 to 8 s with the same dimensions. The published recipe (systems A and B) pads every clip
to 30 s, gives each encoder frame a position (1500 a clip) and computes logits at every position. Ours keeps the clip's length, stacks four frames
into a position and computes logits where there is a label. The steps between are measured too, so that each saving shows by itself.

Steps: what `align` (projector), LoRA and LoRA on a language model in 4 bits cost on those clips, all of them ours: seconds, and memory of weights and
step together. On a CPU 4 bits save memory and cost time, since bitsandbytes unpacks the weights at each use.

Transcription: the shipped `tiny` on the same clips, in batches at their own length, against one clip at a time padded to 30 s.

Decoding: files to samples at 16 kHz in two workers, against `datasets` and `librosa`; see decoding.py.

Cache: a pass of training from the cache of encoder features against one that listens, what filling it takes, and its size; see caching.py.

Rows: memory and time that it takes to know the rows of a run, 1k to 100k of them, against a list of rows; see memory.py.

Rounds of both alternate and medians are compared: these machines are noisy, ratios less so. Peak memory is read from /proc, so this runs on
Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DIMENSIONS: dict[str, dict[str, int]] = {
    "encoder": {"d_model": 256, "encoder_layers": 4, "encoder_attention_heads": 4, "encoder_ffn_dim": 1024, "num_mel_bins": 80},
    "language_model": {
        "vocab_size": 32_000,
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
}
CLIP_SECONDS = (2.0, 2.8, 3.6, 4.4, 5.2, 6.0, 7.0, 8.0)
PROMPT_TOKENS = 16
TOKENS_PER_S = 3.3
VARIANTS = {
    "published": {"pad": True, "projector": "linear", "frame_stack": 1, "label_logits": False},
    "+ trimmed to the clip": {"pad": False, "projector": "linear", "frame_stack": 1, "label_logits": False},
    "+ four frames a token": {"pad": False, "projector": "swiglu", "frame_stack": 4, "label_logits": False},
    "+ logits at labels (ours)": {"pad": False, "projector": "swiglu", "frame_stack": 4, "label_logits": True},
}
PUBLISHED, OURS = next(iter(VARIANTS)), list(VARIANTS)[-1]
STEPS = {
    "align": VARIANTS[OURS],
    "LoRA": {**VARIANTS[OURS], "lora": True},
    "4-bit + LoRA": {**VARIANTS[OURS], "lora": True, "nf4": True},
}
LORA_RANK = 16


def training_step(
    pad: bool, projector: str, frame_stack: int, label_logits: bool, lora: bool = False, nf4: bool = False
) -> tuple[Callable[[], float], int]:
    """A function that runs one step and returns the loss, and the bytes of the model's weights.

    Args:
        pad: every clip to 30 s.
        projector: its type.
        frame_stack: encoder frames in a position.
        label_logits: compute logits where there is a label, and nowhere else.
        lora: train adapters on the language model's linear layers beside the projector.
        nf4: hold those layers in 4 bits.
    """
    import torch
    from transformers import Qwen2Config, WhisperConfig

    from audiograft.model.audio_tower import AudioTower
    from audiograft.model.configuration import AudioGraftConfig
    from audiograft.model.lengths import audio_tokens
    from audiograft.model.modeling import AudioGraftForConditionalGeneration
    from audiograft.model.quantise import finish_nf4, quantise_in_place
    from audiograft.train.recipe import DataRecipe, LoraRecipe, Recipe
    from audiograft.train.stages import prepare_stage

    torch.manual_seed(0)
    config = AudioGraftConfig(
        audio_config=WhisperConfig(dropout=0.0, **DIMENSIONS["encoder"]), text_config=Qwen2Config(**DIMENSIONS["language_model"]),
        projector_type=projector, frame_stack=frame_stack, audio_token_id=DIMENSIONS["language_model"]["vocab_size"] - 1,
    )  # fmt: skip
    model = AudioGraftForConditionalGeneration(config).train()
    assert isinstance(model.audio_tower, AudioTower)
    if nf4:
        quantise_in_place(model, torch.float32, "cpu")
        finish_nf4(model)
    data = DataRecipe(train=("none",))
    prepare_stage(model, Recipe("finetune" if lora else "align", "none", data, lora=LoraRecipe(rank=LORA_RANK)))
    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    optimiser = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-4)
    lengths = [3000 if pad else round(seconds * 100) for seconds in CLIP_SECONDS]
    mel = torch.randn(len(lengths), DIMENSIONS["encoder"]["num_mel_bins"], max(lengths))
    rows, labels = [], []
    for seconds, frames in zip(CLIP_SECONDS, lengths, strict=True):
        answer = [7] * round(seconds * TOKENS_PER_S)
        before = [config.audio_token_id] * audio_tokens(frames, frame_stack) + [5] * PROMPT_TOKENS
        rows.append(before + answer)
        labels.append([-100] * len(before) + answer)
    longest = max(map(len, rows))
    input_ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    targets = torch.tensor([row + [-100] * (longest - len(row)) for row in labels])

    def step() -> float:
        inputs: dict[str, Any] = {"input_features": mel, "feature_lengths": torch.tensor(lengths)}
        if label_logits:
            loss = model(input_ids, mask, labels=targets, **inputs).loss
        else:
            logits = model(input_ids, mask, **inputs).logits
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets[:, 1:].flatten())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.detach())

    return step, weight_bytes


def peak_memory_bytes(variant: str) -> tuple[int, int]:
    """Peak memory of one step above what the process held before it, in a process of its own; and bytes of the weights."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import bench; bench.print_peak({variant!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peak, weights = done.stdout.split()[-2:]
    return int(peak), int(weights)


def print_peak(variant: str) -> None:
    """Run one step and print by how many bytes the peak rose over what was resident before, and the bytes of the weights."""
    step, weight_bytes = training_step(**(VARIANTS | STEPS)[variant])  # type: ignore[arg-type]
    # Sets the peak back to what is resident now (proc(5)): building the model may have taken more than the step does.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_peak_bytes()
    step()
    print(resident_peak_bytes() - before, weight_bytes)


def resident_peak_bytes() -> int:
    """The most that this process has had in memory since the peak was last reset."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def seconds_of(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def alternate(variants: dict[str, Any], rounds: int) -> dict[str, float]:
    """Median seconds of a step of each variant, a round of all after a round of all."""
    steps = {name: training_step(**variant)[0] for name, variant in variants.items()}
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(seconds_of(step))
    return {name: median(values) for name, values in times.items()}


def bench_steps(rounds: int) -> list[dict[str, Any]]:
    """What each step costs in units of the one before it, and 4-bit + LoRA in units of `align` too. Here more is worse."""
    step_s = alternate(STEPS, rounds)
    memory_mb = {name: sum(peak_memory_bytes(name)) / 1e6 for name in STEPS}
    rows = []
    for name, reference in (("LoRA", "align"), ("4-bit + LoRA", "LoRA"), ("4-bit + LoRA", "align")):
        rows.append(row(f"step_cost: {name} over {reference}", step_s[name], step_s[reference], step_s[name] / step_s[reference], "s a step"))
        ratio = memory_mb[name] / memory_mb[reference]
        rows.append(row(f"step_memory: {name} over {reference}", memory_mb[name], memory_mb[reference], ratio, "MB of weights and step"))
    return rows


def bench_training(rounds: int) -> list[dict[str, Any]]:
    per_s = {name: len(CLIP_SECONDS) / step_s for name, step_s in alternate(VARIANTS, rounds).items()}
    peaks = {name: peak_memory_bytes(name)[0] for name in VARIANTS}
    rows = [
        row("train_samples_per_s", per_s[OURS], per_s[PUBLISHED], per_s[OURS] / per_s[PUBLISHED], "clips/s"),
        row("train_peak_memory", peaks[OURS] / 1e6, peaks[PUBLISHED] / 1e6, peaks[PUBLISHED] / peaks[OURS], "MB"),
    ]
    for before, name in zip(VARIANTS, list(VARIANTS)[1:], strict=False):
        rows.append(row(f"train_samples_per_s: {name}", per_s[name], per_s[before], per_s[name] / per_s[before], "clips/s"))
        rows.append(row(f"train_peak_memory: {name}", peaks[name] / 1e6, peaks[before] / 1e6, peaks[before] / peaks[name], "MB"))
    return rows


def bench_transcription(rounds: int, batch_size: int) -> list[dict[str, Any]]:
    from audiograft import load
    from audiograft.audio import load_audio

    waveforms = [load_audio(path).waveform for path in sorted((ROOT / "tests" / "data" / "clips" / "audio").glob("*.wav"))] * 4
    prompts = ["Transcribe the audio."] * len(waveforms)
    ours, published = load("tiny"), load("tiny")
    published.processor.pad_to_window = True
    ours.transcribe_waveforms(waveforms[:2], prompts[:2])
    published.transcribe_waveforms(waveforms[:1], prompts[:1], batch_size=1)
    fast, slow = [], []
    for _ in range(rounds):
        fast.append(seconds_of(lambda: ours.transcribe_waveforms(waveforms, prompts, batch_size=batch_size)))
        slow.append(seconds_of(lambda: published.transcribe_waveforms(waveforms, prompts, batch_size=1)))
    audio_s = sum(map(len, waveforms)) / 16_000
    values = audio_s / median(fast), audio_s / median(slow)
    return [row("transcribe_audio_s_per_s", *values, values[0] / values[1], "audio s/s")]


def bench_decoding(rounds: int) -> list[dict[str, Any]]:
    """Seconds of audio that two workers decode in a second: all formats, and each of them, against each other way."""
    import decoding

    found = decoding.rates(rounds)
    ours, *others = found
    return [
        row(f"decode {name}: {way}", found[ours][name], found[way][name], found[ours][name] / found[way][name], "audio s/s")
        for way in others
        for name in found[ours]
    ]


def row(name: str, ours: float, reference: float, ratio: float, unit: str) -> dict[str, Any]:
    return {"name": name, "ours": round(ours, 3), "reference": round(reference, 3), "ratio": round(ratio, 2), "unit": unit}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=40)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "latest.json")
    args = parser.parse_args()
    import caching
    import memory
    import torch

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, float32")
    print(f"dimensions: {json.dumps(DIMENSIONS)}\nclips: {', '.join(map(str, CLIP_SECONDS))} s\n")
    rows = bench_training(args.rounds) + bench_steps(args.rounds) + bench_transcription(args.rounds, args.batch_size) + bench_decoding(args.rounds)
    rows += caching.bench_caching(args.rounds) + memory.bench_memory()
    print(f"{'figure':<52}{'ours':>12}{'reference':>12}{'ratio':>9}  unit")
    for item in rows:
        print(f"{item['name']:<52}{item['ours']:>12.2f}{item['reference']:>12.2f}{item['ratio']:>8.1f}x  {item['unit']}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\nwritten to {args.out.relative_to(ROOT) if args.out.is_relative_to(ROOT) else args.out}")


if __name__ == "__main__":
    main()
