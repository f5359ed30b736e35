"""The whole road through the command line with tiny random halves: graft, align, finetune, evaluate, transcribe; and a clip of hours."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import builders
import numpy as np
import pytest
import soundfile
from transformers import WhisperFeatureExtractor

from audiograft.cli import main

ROOT = Path(__file__).resolve().parent.parent
CLIPS = ROOT / "tests" / "data" / "clips"


def save_halves(folder: Path, family: str) -> tuple[Path, Path]:
    """An encoder with its feature extractor and a language model with its tokenizer, as they lie on a hub."""
    encoder, language_model = folder / "encoder", folder / "language-model"
    builders.audio_tower().save_pretrained(encoder)
    WhisperFeatureExtractor().save_pretrained(encoder)
    builders.language_model(family).save_pretrained(language_model)
    builders.tokenizer().save_pretrained(language_model)
    return encoder, language_model


def train(stage: str, model: Path, out: Path, cache: Path, clips: Path) -> int:
    keys = {
        "model": model, "output_dir": out, "data.train": clips, "data.validation": clips, "feature_cache": cache, "tokens_per_batch": 512,
        "max_steps": 2, "save_steps": 2, "eval_steps": 2, "deafness.clips": 8, "deafness.permutations": 100,
    }  # fmt: skip
    if stage == "finetune":
        keys["lora.rank"] = 2  # no more than these halves are wide
    overrides = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    return main(["train", str(ROOT / "recipes" / "tiny" / f"{stage}.yaml"), *overrides])


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_from_two_halves_to_transcripts(tmp_path: Path, family: str, capsys: pytest.CaptureFixture[str]) -> None:
    encoder, language_model = save_halves(tmp_path, family)
    graft, align, finetune, results = (tmp_path / name for name in ("graft", "align", "finetune", "results"))
    clips = shutil.copytree(CLIPS, tmp_path / "clips")  # `evaluate` leaves traces beside the manifest
    assert main(["graft", "--audio-encoder", str(encoder), "--language-model", str(language_model), "--out", str(graft)]) == 0

    for stage, start, out in (("align", graft, align), ("finetune", align, finetune)):
        # After two steps it can't listen: the check has to say so, and the weights have to be there all the same.
        assert train(stage, start, out, tmp_path / "cache", clips) == 1
        assert (out / "model.safetensors").exists()
        summary = json.loads((out / "train.json").read_text())
        assert summary["deaf"] is True
        assert {row["audio"] for row in summary["deafness"]["conditions"]} == {"true", "shuffled", "silence"}
    capsys.readouterr()

    assert main(["evaluate", "--model", str(finetune), "--data", str(clips), "--out", str(results), "--batch-size", "20", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics == json.loads((results / "metrics.json").read_text())
    assert metrics["n_clips"] == len((results / "predictions.jsonl").read_text().splitlines()) == 20

    assert main(["transcribe", str(ROOT / "examples"), "--model", str(finetune), "--max-new-tokens", "5", "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(row["audio"]) for row in rows] == sorted((ROOT / "examples").rglob("*.wav"))
    assert {row["model"] for row in rows} == {str(finetune)}


RATE_HZ = 8_000
HOURS_S = 3 * 3600
TONES_S = ((0, 3), (1795, 1805), (5000, 5040), (HOURS_S - 2, HOURS_S))
"""Start and end of each: at the beginning, across half an hour, longer than a window, and up to the last sample."""


@pytest.mark.slow
def test_a_clip_of_three_hours_is_transcribed_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, processor = builders.graft("llama", seed=2)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    clip = tmp_path / "clip.wav"
    with soundfile.SoundFile(clip, "w", RATE_HZ, 1, "PCM_U8") as file:
        for start_s in range(0, HOURS_S, 60):
            times = start_s + np.arange(60 * RATE_HZ) / RATE_HZ
            heard = np.any([(start <= times) & (times < end) for start, end in TONES_S], axis=0)
            file.write(np.where(heard, 0.5 * np.sin(2 * np.pi * 440 * times), 0.0))

    assert main(["transcribe", str(clip), "--model", str(tmp_path / "model"), "--format", "json", "--max-new-tokens", "8"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    segments = row["segments"]
    assert row["duration_s"] == HOURS_S
    assert (segments[0]["start_s"], segments[-1]["end_s"]) == (0, HOURS_S)
    assert all(before["end_s"] == after["start_s"] for before, after in pairwise(segments))
    assert all(0 < round(segment["end_s"] - segment["start_s"], 3) <= 30 for segment in segments)
    # This random model says something to any sound, and is not asked about silence.
    with_tone = [any(start < segment["end_s"] and segment["start_s"] < end for start, end in TONES_S) for segment in segments]
    assert [bool(segment["text"]) for segment in segments] == with_tone
    assert row["text"] == " ".join(segment["text"] for segment in segments if segment["text"])
