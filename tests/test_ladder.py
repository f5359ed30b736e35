"""System C's ladder: that steps differ in one thing each, and that its protocol is what the benchmark says it is."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from audiograft.audio import load_audio
from audiograft.data.manifest import read_rows, write_manifest
from audiograft.evaluate.predictions import Prediction

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def ladder(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("ladder", BENCHMARKS / "ladder.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ladder", module)
    spec.loader.exec_module(module)
    return module


def test_each_step_changes_one_thing(ladder: ModuleType) -> None:
    rungs = ladder.ladder()
    keys = [field.name for field in fields(rungs[0]) if field.name not in ("name", "change")]
    changed = [[key for key in keys if getattr(a, key) != getattr(b, key)] for a, b in zip(rungs, rungs[1:], strict=False)]
    assert changed == [["loss_on"], ["levels"], ["scopes"], ["scopes"], ["train_projector"]]


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """Sixty clips of ten speakers and as many sounds, a third of them for the test."""
    rng = np.random.default_rng(0)
    for split, speakers in (("train", range(20)), ("test", range(20, 30))):
        rows = []
        for speaker in speakers:
            for label in ("SPEECH", "NONSPEECH"):
                id_ = f"{label}-{speaker}"
                soundfile.write(tmp_path / f"{id_}.wav", 0.01 * rng.standard_normal(3200), 16_000)
                rows.append({"id": id_, "audio": f"{id_}.wav", "label": label, "duration_s": 0.2, "recording": id_, "kind": None})
        write_manifest(tmp_path / f"{split}.jsonl", rows)
    return tmp_path


def rows_of(manifest: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(manifest)]


def test_the_published_protocol_has_white_noise_and_random_rows(ladder: ModuleType, bench: Path) -> None:
    folder = ladder.protocol_bench(ladder.Protocol("published", "", True, True), bench, 0)
    train, test = (rows_of(folder / f"{split}.jsonl") for split in ("train", "test"))
    assert (len(train), len(test)) == (40, 20)
    assert {row["id"] for row in train} & {row["id"] for row in rows_of(bench / "test.jsonl")}  # what grouped splits keep apart
    for row in train + test:
        waveform = load_audio(folder / row["audio"]).waveform
        assert len(waveform) == 3200
        if row["label"] == "NONSPEECH":
            spectrum = np.abs(np.fft.rfft(waveform)) ** 2
            assert np.max(np.abs(waveform)) == pytest.approx(0.637, abs=0.01)
            assert spectrum[: len(spectrum) // 2].mean() == pytest.approx(spectrum[len(spectrum) // 2 :].mean(), rel=0.3)
        else:
            assert np.max(np.abs(waveform)) < 0.1  # as it was


def test_grouped_protocols_keep_the_parts(ladder: ModuleType, bench: Path) -> None:
    folder = ladder.protocol_bench(ladder.Protocol("white-noise", "", True, False), bench, 0)
    for split in ("train", "test"):
        assert [row["id"] for row in rows_of(folder / f"{split}.jsonl")] == [row["id"] for row in rows_of(bench / f"{split}.jsonl")]


def run_of(right: list[bool]) -> list[Prediction]:
    labels = ("SPEECH", "NONSPEECH")
    return [
        Prediction(f"c{number}", labels[number % 2], labels[(number + (not is_right)) % 2], task="detection", recording=f"r{number // 2}")
        for number, is_right in enumerate(right)
    ]


def test_figures_of_two_seeds_have_recordings_as_units(ladder: ModuleType) -> None:
    runs = [run_of([True] * 30 + [False] * 10), run_of([True] * 34 + [False] * 6)]
    found = ladder.accuracy(runs)
    assert found["rate"] == 0.8
    assert found["n_clips"] == 40
    assert found["interval"]["n_clusters"] == 20
    assert [seed["rate"] for seed in found["by_seed"]] == [0.75, 0.85]
    assert found["interval"]["high"] - found["interval"]["low"] > 0.2  # 80 rows are no more than 40 clips of 20 recordings
    assert json.loads(json.dumps(found)) == found


def test_neighbours_are_compared_seed_by_seed_and_corrected_together(ladder: ModuleType) -> None:
    worse, better = run_of([False] * 12 + [True] * 8), run_of([True] * 20)
    found = ladder.neighbours({"untuned": [worse], "tuned": [better, worse], "more": [better, better]})
    assert [(row["before"], row["after"], row["seed"], row["only_b"]) for row in found] == [
        ("untuned", "tuned", 0, 12), ("untuned", "tuned", 1, 0), ("tuned", "more", 0, 0), ("tuned", "more", 1, 12),
    ]  # fmt: skip
    assert found[0]["p_value"] == pytest.approx(2 / 2**12)
    assert found[0]["p_holm"] == pytest.approx(4 * found[0]["p_value"])


@pytest.mark.slow
@pytest.mark.needs_engines
def test_the_ladder_climbs_at_toy_size(ladder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "PROTOCOLS", ladder.PROTOCOLS[:1])
    design = ladder.Design(clips_per_cell=12, durations_ms=(400,), snrs_db=(5.0, 20.0), splits="train=0.5,test=0.5", seed=6)
    result = ladder.climb(tmp_path, ladder.Size(design, steps=2, seeds=(0,)))
    assert [step["name"] for step in result["ladder"]] == ["untuned", *(rung.name for rung in ladder.ladder())]
    assert {step["on rms-random"]["n_clips"] for step in result["ladder"]} == {24}
    assert len(result["neighbours"]["peak"]) == 6
    assert len(list((tmp_path / "runs").glob("*/predictions.jsonl"))) == 14 + 3
    ladder.draw({**result, "seeds": [0]}, tmp_path / "ladder.png")
    assert (tmp_path / "ladder.png").stat().st_size > 10_000
