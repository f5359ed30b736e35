"""How many clips of a second are told apart in a second: one prefill of the clip's own length against `generate` on clips padded to 30 s.

    python benchmarks/detect_speed.py                    # the shipped detector; writes benchmarks/results/detect_speed.json
    python benchmarks/detect_speed.py --model tiny       # the same for another graft on Whisper's encoder

Both ways hear the same clips with the same weights, question and threads, from waveforms in memory to labels. Ours is what `audiograft detect` runs:
each clip keeps its length, what stands in front of it in the prompt is run once for all, and the answer is read from the logits behind the prompt.
The published way (OPRO-Qwen, and Whisper's own front end) pads each clip to 30 s and lets `generate` write one token, where
`prefix_allowed_tokens_fn` allows the spellings of the answers alone; it is measured in batches of 64 and one by one. `generate` also gets the clips
at their own length, which shows what padding costs and what the rest.

The labels are compared too. Those of `generate` on the same input are ours but where two spellings of an answer count together; a padded clip is
another input to a model that was trained without pads, and can get another answer.

Rounds of all ways alternate and medians are compared: these machines are noisy, ratios less so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "detect_speed.json"
CLIPS = 64
CLIP_S = 1.0
RATE_HZ = 16_000
OURS = "ours, batch 64"
PADDED, SINGLE, TRIMMED = "padded to 30 s + generate, batch 64", "padded to 30 s + generate, one by one", "own length + generate, batch 64"
Waveforms = Sequence[npt.NDArray[np.float32]]
Way = Callable[[Waveforms], list[int]]


def make_clips(count: int, seconds: float) -> list[npt.NDArray[np.float32]]:
    """Stretches of the examples' voices in white noise, and noise alone, by turns; what is in them costs no time."""
    from audiograft.audio import find_audio, load_audio

    voices = np.concatenate([load_audio(path).waveform for path in find_audio([ROOT / "examples"])])
    draws = np.random.default_rng(0)
    clips = []
    for number in range(count):
        n_samples = round(seconds * RATE_HZ)
        start = draws.integers(len(voices) - n_samples)
        noise = draws.standard_normal(n_samples, dtype=np.float32) * np.float32(0.03)
        clips.append(noise if number % 2 else voices[start : start + n_samples] + noise)
    return clips


def ways(engine: Any, question: Any) -> dict[str, Way]:
    """Each takes clips and gives the columns of its answers."""
    from audiograft.inference.choices import score_choices, spellings

    by_label = list(spellings(engine.processor.tokenizer, question.answers).values())
    column = {token: number for number, ids in enumerate(by_label) for token in ids}
    prompt = engine.processor.build_prompt(question.messages())

    def generate(clips: Waveforms, batch_size: int, pad: bool) -> list[int]:
        engine.processor.pad_to_window, before = pad, engine.processor.pad_to_window
        answers = []
        for start in range(0, len(clips), batch_size):
            some = clips[start : start + batch_size]
            batch = engine.processor([prompt] * len(some), audio=some).to(engine.model.device)
            allowed = {"do_sample": False, "max_new_tokens": 1, "prefix_allowed_tokens_fn": lambda row, ids: list(column)}
            answers += [column[token] for token in engine.model.generate(**batch, **allowed)[:, -1].tolist()]
        engine.processor.pad_to_window = before
        return answers

    return {
        OURS: lambda clips: score_choices(engine.model, engine.processor, question, clips, batch_size=CLIPS).argmax(1).tolist(),
        PADDED: lambda clips: generate(clips, CLIPS, pad=True),
        SINGLE: lambda clips: generate(clips, 1, pad=True),
        TRIMMED: lambda clips: generate(clips, CLIPS, pad=False),
    }


def measure(model: str, device: str = "cpu", rounds: int = 5, count: int = CLIPS, prompt: str | None = None) -> dict[str, Any]:
    """Clips a second by way, ratios, and how often the labels are the same."""
    import torch

    from audiograft.inference.choices import question_for
    from audiograft.inference.engine import Engine

    engine = Engine.load(model, device)
    question = question_for(model)
    if prompt is not None:
        question = replace(question, prompt=prompt)
    clips = make_clips(count, CLIP_S)
    found = ways(engine, question)
    answers = {name: way(clips) for name, way in found.items()}  # also warms up
    taken_s: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, way in found.items():
            start_s = time.perf_counter()
            way(clips)
            taken_s[name].append(time.perf_counter() - start_s)
    clips_per_s = {name: count / median(times) for name, times in taken_s.items()}
    return {
        "model": model,
        "question": question.prompt,
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__} with {torch.get_num_threads()} threads",
        "clips": count,
        "clip_s": CLIP_S,
        "rounds": rounds,
        "clips_per_s": {name: round(rate, 2) for name, rate in clips_per_s.items()},
        "times_as_fast": {name: round(clips_per_s[OURS] / rate, 2) for name, rate in clips_per_s.items() if name != OURS},
        "same_label": {name: sum(map(int.__eq__, answers[OURS], own)) / count for name, own in answers.items() if name != OURS},
    }


def main() -> None:
    from audiograft.types import DEFAULT_DETECTOR

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_DETECTOR)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--prompt", help="in place of the model's own question, with an <audio> marker where the clip stands")
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    found = measure(chosen.model, chosen.device, chosen.rounds, chosen.clips, chosen.prompt)
    chosen.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, rate in found["clips_per_s"].items():
        ratio = found["times_as_fast"].get(name)
        print(f"{name:<40} {rate:>8.1f} clips/s" + (f"   ours: {ratio:.1f}x, {found['same_label'][name]:.0%} the same label" if ratio else ""))


if __name__ == "__main__":
    main()
