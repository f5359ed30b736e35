"""The deafness table of an evaluation: what a model says and expects with the sound of others, and without any."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest

from audiograft.evaluate.run import evaluate
from audiograft.inference.engine import Engine
from audiograft.inference.teacher_forcing import Referenced, score_references
from audiograft.messages import audio_messages
from audiograft.types import TRANSCRIBE_PROMPT

N_CLIPS = 9
TEXTS = [f"word {number}" for number in range(N_CLIPS)]
WAVEFORMS = [builders.tone(0.2 + 0.05 * number, 200 + 90 * number, number) for number in range(N_CLIPS)]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(*builders.graft(), "random")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return builders.write_clips(tmp_path / "clips", WAVEFORMS, TEXTS)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def nats(engine: Engine, waveform: np.ndarray, text: str) -> float:
    [score] = score_references(engine.model, engine.processor, [Referenced(audio_messages(TRANSCRIBE_PROMPT), [waveform], text)])
    return score.nats


def test_the_table_is_of_own_shuffled_and_silent_audio(engine: Engine, manifest: Path, tmp_path: Path) -> None:
    metrics = evaluate(engine, manifest, tmp_path / "run", batch_size=4)
    own = {row["id"]: row for row in rows(tmp_path / "run" / "predictions.jsonl")}
    heard = rows(tmp_path / "run" / "deafness.jsonl")
    assert [row["heard"] for row in heard] == ["shuffled"] * N_CLIPS + ["silence"] * N_CLIPS
    assert [row["id"] for row in heard] == list(own) * 2
    for row, waveform, text in zip(heard[N_CLIPS:], WAVEFORMS, TEXTS, strict=True):
        assert row["reference_nats"] == pytest.approx(nats(engine, np.zeros_like(waveform), text), abs=1e-3)
    for row in heard[:N_CLIPS]:
        others = [nats(engine, waveform, row["reference"]) for waveform in WAVEFORMS]
        number = int(row["id"].removeprefix("clip-"))
        assert own[row["id"]]["reference_nats"] == pytest.approx(others[number], abs=1e-3)
        nearest = int(np.argmin(np.abs(np.array(others) - row["reference_nats"])))
        assert nearest != number
    assert metrics["deafness"]["clips"] == N_CLIPS
    assert metrics["deafness"]["deaf"] is True  # it is random


def test_a_run_that_died_before_its_table_makes_it_when_it_is_repeated(engine: Engine, manifest: Path, tmp_path: Path) -> None:
    before = evaluate(engine, manifest, tmp_path / "run", batch_size=4)
    predictions = (tmp_path / "run" / "predictions.jsonl").read_bytes()
    (tmp_path / "run" / "deafness.jsonl").unlink()
    after = evaluate(engine, manifest, tmp_path / "run", batch_size=4)
    assert after["deafness"] == before["deafness"]
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes() == predictions


def test_a_table_of_more_rows_is_made_anew_and_of_as_many_it_is_not(
    engine: Engine, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(engine, manifest, tmp_path / "run", deafness_clips=8)["deafness"]["clips"] == 8
    assert evaluate(engine, manifest, tmp_path / "run", deafness_clips=9)["deafness"]["clips"] == 9
    monkeypatch.setattr("audiograft.evaluate.work.hear_differently", None)  # which would fail
    assert evaluate(engine, manifest, tmp_path / "run", deafness_clips=9)["deafness"]["clips"] == 9
    assert evaluate(engine, manifest, tmp_path / "run", deafness_clips=0)["deafness"] is None


def test_questions_without_clips_have_no_table(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text('{"id": "a", "prompt": "Capital of Norway?", "response": "Oslo"}\n')
    metrics = evaluate(engine, tmp_path, tmp_path / "run")
    assert metrics["deafness"] is None
    assert metrics["accuracy"]["answers"] == 1
    assert not (tmp_path / "run" / "deafness.jsonl").exists()


def test_fewer_clips_can_be_asked_for_and_none(engine: Engine, manifest: Path, tmp_path: Path) -> None:
    evaluate(engine, manifest, tmp_path / "some", deafness_clips=8)
    assert len(rows(tmp_path / "some" / "deafness.jsonl")) == 16
    assert evaluate(engine, manifest, tmp_path / "none", deafness_clips=0)["deafness"] is None
    assert not (tmp_path / "none" / "deafness.jsonl").exists()


def test_a_baseline_without_audio_has_no_table(engine: Engine, manifest: Path, tmp_path: Path) -> None:
    assert evaluate(engine, manifest, tmp_path / "run", audio="shuffled")["deafness"] is None
