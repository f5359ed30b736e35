"""Trivial detectors as runs beside others: they find what is trivial and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiograft.data.manifest import write_manifest
from audiograft.evaluate.predictions import read_predictions
from audiograft.evaluate.trivial import TrivialDetector, write_trivial_run
from audiograft.types import ConfigError, DataError


def bench(folder: Path, name: str, n_clips: int, seed: int) -> Path:
    """Noise of both classes, 10 dB louder where it is called speech."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for number in range(n_clips):
        label = ("SPEECH", "NONSPEECH")[number % 2]
        level = 10 ** ((-20 if label == "SPEECH" else -30) / 20)
        soundfile.write(folder / f"{name}-{number}.wav", level * rng.standard_normal(3200), 16_000)
        rows.append({"id": f"{name}-{number}", "audio": f"{name}-{number}.wav", "label": label, "duration_ms": 200, "recording": f"r{number}"})
    write_manifest(folder / f"{name}.jsonl", rows)
    return folder / f"{name}.jsonl"


def test_a_cue_becomes_a_run_as_any_other(tmp_path: Path) -> None:
    train, test = bench(tmp_path, "train", 60, 0), bench(tmp_path, "test", 30, 1)
    metrics = write_trivial_run("rms", train, test, tmp_path / "rms")
    assert metrics["detection"]["accuracy"]["rate"] == 1.0
    predictions = read_predictions(tmp_path / "rms")
    assert [row.id for row in predictions] == [f"test-{number}" for number in range(30)]
    assert all(row.speech_prob is not None and row.extra["duration_ms"] == 200 for row in predictions)
    about = json.loads((tmp_path / "rms" / "run.json").read_text())
    assert about["model"] == "rms-cue"
    assert about["prompt"] is None
    assert write_trivial_run("duration", train, test, tmp_path / "duration")["detection"]["accuracy"]["rate"] == 0.5
    # The name of a cue does not say what it learnt from, so what was there is never gone on with.
    assert write_trivial_run("rms", test, test, tmp_path / "rms")["n_clips"] == 30


def test_what_can_not_be_learnt_is_refused(tmp_path: Path) -> None:
    train = bench(tmp_path, "train", 4, 0)
    with pytest.raises(ConfigError, match="no trivial cue 'pitch': take duration, rms"):
        TrivialDetector("pitch", train)
    write_manifest(tmp_path / "dogs.jsonl", [{"audio": "train-0.wav", "label": "dog"}, {"audio": "train-1.wav", "label": "car"}])
    with pytest.raises(DataError, match=r"dogs.jsonl: a trivial detector learns .* here is car, dog"):
        TrivialDetector("rms", tmp_path / "dogs.jsonl")
