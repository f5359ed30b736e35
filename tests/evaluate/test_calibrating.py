"""Temperature and threshold, chosen on dev clips and refused on those of a test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import builders
import detected
import numpy as np
import pytest
import soundfile

from audiograft.cli import main
from audiograft.data.manifest import write_manifest
from audiograft.evaluate.calibrating import ThresholdCosts, calibrate
from audiograft.evaluate.folder import model_fingerprint
from audiograft.inference.choices import DEFAULT_QUESTION, ClosedQuestion
from audiograft.types import ConfigError, DataError

Row = dict[str, Any]
TEMPERATURE = 3.0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that counts as a model's."""
    folder = tmp_path / "model"
    folder.mkdir()
    DEFAULT_QUESTION.write(folder)
    return folder


def dev_rows(n_clips: int = 2000, shift: float = 0.0, **changes: Any) -> list[Row]:
    """Log-odds that say three times what they know."""
    draw = np.random.default_rng(0)
    rows = []
    for i in range(n_clips):
        odds = float(draw.normal(0, 2))
        label = "SPEECH" if draw.random() < 1 / (1 + np.exp(-odds)) else "NONSPEECH"
        said = TEMPERATURE * (odds + shift)
        scores = {"SPEECH": -float(np.logaddexp(0, -said)), "NONSPEECH": -float(np.logaddexp(0, said))}
        predicted = "SPEECH" if said >= 0 else "NONSPEECH"
        rows.append({"id": str(i), "task": "detection", "label": label, "predicted": predicted, "scores": scores, "split": "dev", **changes})
    return rows


def dev_run(folder: Path, name: Path | str, rows: Sequence[Row], **changes: Any) -> Path:
    run = detected.write_run(folder / "dev", rows)
    told = {key: getattr(DEFAULT_QUESTION, key) for key in ("prompt", "answers", "system", "temperature", "threshold", "chosen_on")}
    about = {"model": str(name), "manifest": "dev.jsonl", "manifest_sha256": "5" * 64, "question": told, **changes}
    (run / "run.json").write_text(json.dumps(about))
    return run


def test_the_temperature_is_found_and_written_with_what_it_was_fitted_on(model: Path, tmp_path: Path) -> None:
    found = calibrate(model, predictions=dev_run(tmp_path, model, dev_rows()))
    assert found.question.temperature == pytest.approx(TEMPERATURE, rel=0.1)
    assert found.after["nll"] < found.before["nll"]
    assert found.after["ece"] < 0.03 < 0.1 < found.before["ece"]
    written = ClosedQuestion.read(model)
    assert written == found.question
    told = {"manifest": "dev.jsonl", "sha256": "5" * 64, "model": str(model), "clips": 2000, "criterion": "balanced_accuracy"}
    assert written.chosen_on == told
    assert written.prompt == DEFAULT_QUESTION.prompt


def test_where_no_clip_is_wrong_the_smoothed_targets_are_said(model: Path, tmp_path: Path) -> None:
    separable = [row | {"label": row["predicted"]} for row in dev_rows(60)]
    found = calibrate(model, predictions=dev_run(tmp_path, model, separable))
    assert found.smoothed
    assert found.as_dict()["notes"] == found.notes
    assert "the loss has no minimum" in found.notes[0]
    plain = calibrate(model, predictions=dev_run(tmp_path, model, dev_rows(60)))
    assert plain.notes == []
    assert plain.after["nll"] <= plain.before["nll"]


def test_the_threshold_mends_a_shift_unless_it_is_not_wanted(model: Path, tmp_path: Path) -> None:
    run = dev_run(tmp_path, model, dev_rows(shift=1.5))
    found = calibrate(model, predictions=run)
    assert found.question.threshold > 0.6
    assert found.after["balanced_accuracy"] > found.before["balanced_accuracy"] + 0.05
    kept = calibrate(model, predictions=run, with_threshold=False)
    assert kept.question.threshold == 0.5
    assert kept.question.chosen_on is not None
    assert kept.question.chosen_on["criterion"] is None


def test_failed_clips_are_counted_and_silence_does_not_tell_the_temperature(model: Path, tmp_path: Path) -> None:
    failed = {"id": "x", "task": "detection", "label": "SPEECH", "predicted": "", "error": "no such file", "split": "dev"}
    silent = [
        {"id": f"s{i}", "task": "detection", "label": "NONSPEECH", "predicted": "NONSPEECH", "scores": {"SPEECH": -100.0, "NONSPEECH": 0.0}}
        for i in range(500)
    ]
    found = calibrate(model, predictions=dev_run(tmp_path, model, [*dev_rows(), *silent, failed]))
    assert found.failed == 1
    assert found.question.chosen_on is not None
    assert found.question.chosen_on["clips"] == 2500
    assert found.question.temperature == pytest.approx(TEMPERATURE, rel=0.1)


def test_probabilities_of_other_detectors_have_log_odds_too(tmp_path: Path) -> None:
    rows = [row | {"speech_prob": float(np.exp(row.pop("scores")["SPEECH"]))} for row in dev_rows()]
    told = {"prompt": None, "answers": None, "system": None, "temperature": 1.0, "threshold": 0.5, "chosen_on": None}
    run = dev_run(tmp_path, Path("silero-vad"), rows, question=told)
    found = calibrate("silero-vad", predictions=run, folder=tmp_path / "question")
    assert found.question.temperature == pytest.approx(TEMPERATURE, rel=0.1)
    assert ClosedQuestion.read(tmp_path / "question").labels == ("SPEECH", "NONSPEECH")


@pytest.mark.parametrize(
    ("rows", "changes", "error"),
    [
        (dev_rows(20, split="test"), {}, "20 of 20 rows are of the test split, such as '0': temperature and threshold are chosen on dev alone"),
        (dev_rows(20, label="SPEECH"), {}, "all 20 rows are SPEECH: temperature and threshold are chosen on clips of both classes"),
        (dev_rows(20), {"model": "other"}, "is a run of other, not of"),
        (dev_rows(20), {"question": None}, "does not say what was asked of whom: name the run folder of an evaluation of detections"),
        (dev_rows(20), {"audio": "shuffled"}, "heard each clip as shuffled: name a run that heard the clips themselves"),
        (dev_rows(20), {"model_fingerprint": "0" * 64}, "has changed since: evaluate it on the dev clips again"),
        (dev_rows(20, scores=None), {}, "row '0' has neither scores nor speech_prob, so there is nothing to calibrate"),
    ],
)
def test_what_tells_nothing_is_refused_and_nothing_written(rows: list[Row], changes: Row, error: str, model: Path, tmp_path: Path) -> None:
    before = (model / "detection.json").read_text()
    with pytest.raises(DataError) as told:
        calibrate(model, predictions=dev_run(tmp_path, model, rows, **changes))
    assert error in str(told.value)
    assert (model / "detection.json").read_text() == before


def test_a_run_of_the_same_folder_by_another_path_is_a_run_of_the_model(model: Path, tmp_path: Path) -> None:
    run = dev_run(tmp_path, f"{tmp_path}/./model/", dev_rows(), model_fingerprint=model_fingerprint(str(model)))
    first = calibrate(model, predictions=run)
    assert calibrate(model, predictions=run).question == first.question  # a new detection.json makes no new model


def test_thresholds_by_cost_and_by_false_alarms(model: Path, tmp_path: Path) -> None:
    run = dev_run(tmp_path, model, dev_rows())
    few = calibrate(model, predictions=run, criterion="max_false_alarm_rate", costs=ThresholdCosts(max_false_alarm_rate=0.01))
    dear = calibrate(model, predictions=run, criterion="cost", costs=ThresholdCosts(miss_cost=9))
    # Probabilities that are calibrated are called speech where the expected cost of a miss is the higher one.
    assert dear.question.threshold == pytest.approx(0.1, abs=0.05)
    assert few.question.threshold > 0.8
    assert few.question.chosen_on is not None
    assert few.question.chosen_on["max_false_alarm_rate"] == 0.01


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--miss-cost", "5"], "--miss-cost is for --criterion cost: name it, or leave this out"),
        (["--no-threshold", "--max-false-alarm-rate", "0.1"], "--max-false-alarm-rate is for --criterion max_false_alarm_rate"),
        (["--criterion", "cost", "--miss-cost", "-1"], "miss_cost must be 0 or more, not -1"),
        (["--criterion", "cost", "--miss-cost", "0", "--false-alarm-cost", "0"], "both 0, so any threshold would do"),
        (["--criterion", "max_false_alarm_rate", "--max-false-alarm-rate", "2"], "max_false_alarm_rate must be a share from 0 to 1, not 2"),
    ],
)
def test_costs_that_do_nothing_are_refused(options: list[str], error: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(model), "--predictions", str(dev_run(tmp_path, model, dev_rows(20))), *options]) == 2
    assert error in " ".join(capsys.readouterr().err.split())


def test_a_model_without_a_folder_needs_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tiny has no folder of its own to write detection.json into: name one with --question"):
        calibrate("tiny", tmp_path / "dev.jsonl")
    with pytest.raises(ConfigError, match="name either a manifest of dev clips or, with --predictions, a run on them"):
        calibrate("tiny", folder=tmp_path)


def test_the_command_hears_the_dev_clips_and_evaluate_knows_them_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audiograft.evaluate.run.write_reports", lambda run: [])
    bench = tmp_path / "bench"
    bench.mkdir()
    swell = 1 + np.sin(2 * np.pi * 5 * np.arange(9600) / 16_000)
    for i in range(20):
        noise = np.random.default_rng(i).normal(0, 0.05, 9600)
        soundfile.write(bench / f"{i}.wav", builders.tone(0.6, 300 + 10 * i) * swell if i % 2 else noise, 16_000, subtype="FLOAT")
    rows = [{"id": f"c{i}", "audio": f"{i}.wav", "label": "SPEECH" if i % 2 else "NONSPEECH", "recording": f"r{i}"} for i in range(20)]
    write_manifest(bench / "dev.jsonl", [row | {"split": "dev"} for row in rows])
    write_manifest(bench / "test.jsonl", [row | {"split": "test"} for row in rows])
    question = tmp_path / "question"
    assert main(["calibrate", "energy-vad", str(bench / "test.jsonl"), "--question", str(question)]) == 2
    assert "20 of 20 rows are of the test split" in capsys.readouterr().err
    assert not question.exists()
    command = ["calibrate", "energy-vad", str(bench / "dev.jsonl"), "--question", str(question), "--out", str(tmp_path / "dev"), "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["chosen_on"]["clips"] == 20
    for name, expected in (("dev", True), ("test", False)):
        out = tmp_path / f"again-{name}"
        options = ["--out", str(out), "--question", str(question), "--json"]
        assert main(["evaluate", "--model", "energy-vad", "--data", str(bench / f"{name}.jsonl"), *options]) == 0
        assert json.loads(capsys.readouterr().out)["detection"]["chosen_on_this_data"] is expected
