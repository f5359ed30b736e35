"""Runs over the same clips, joined."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import detected
import numpy as np
import pytest

from audiograft.cli import main
from audiograft.evaluate.ensembles import ensemble
from audiograft.evaluate.scoring import score_again
from audiograft.types import ConfigError, DataError

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def figures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves, the mixed model and reports are tested elsewhere, and take longer than all else here."""
    for name in ("psychometric_curves", "fit_mixed_model"):
        monkeypatch.setattr(f"audiograft.evaluate.detection_scoring.{name}", lambda *columns: {})
    monkeypatch.setattr("audiograft.evaluate.ensembles.write_reports", lambda run: [])


@pytest.fixture
def runs(tmp_path: Path) -> Callable[..., list[Path]]:
    def runs(*rows: Sequence[Row]) -> list[Path]:
        return [detected.write_run(tmp_path / name, some) for name, some in zip("abcdef", rows, strict=False)]

    return runs


def clip(odds: float, threshold: float = 0.5, *, scores: bool = True, **changes: Any) -> Row:
    """A clip of speech with these log-odds."""
    prob = 1 / (1 + np.exp(-odds))
    said = {"SPEECH": -float(np.logaddexp(0, -odds)), "NONSPEECH": -float(np.logaddexp(0, odds))}
    predicted = "SPEECH" if prob >= threshold else "NONSPEECH"
    row = {"id": "c", "task": "detection", "label": "SPEECH", "predicted": predicted, "speech_prob": float(prob), "recording": "r", "decode_s": 0.5}
    return row | ({"scores": said} if scores else {}) | changes


def joined(out: Path) -> list[Row]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def odds_of(row: Row) -> float:
    return float(row["scores"]["SPEECH"] - row["scores"]["NONSPEECH"])


def test_log_odds_are_averaged_and_the_vote_stands_beside(runs: Callable[..., list[Path]], tmp_path: Path) -> None:
    paths = runs([clip(4), clip(-1, id="d")], [clip(-1), clip(-1, id="d")], [clip(-1), clip(1, id="d")])
    found = ensemble(paths, tmp_path / "out")["detection"]
    first, second = joined(tmp_path / "out")
    assert odds_of(first) == pytest.approx(2 / 3, abs=1e-5)
    assert first["speech_prob"] == pytest.approx(1 / (1 + np.exp(-2 / 3)))
    assert (first["predicted"], first["majority_vote"], first["tied"]) == ("SPEECH", "NONSPEECH", False)
    assert odds_of(second) == pytest.approx(-1 / 3, abs=1e-5)
    assert first["decode_s"] == 1.5
    assert found["accuracy"]["rate"] == 0.5
    assert found["majority_vote"]["accuracy"]["rate"] == 0
    assert score_again(tmp_path / "out")["detection"] == found


def test_each_run_has_its_own_temperature(runs: Callable[..., list[Path]], tmp_path: Path) -> None:
    paths = runs([clip(6)], [clip(-1)])
    (paths[0] / "run.json").write_text(json.dumps({"question": {"temperature": 3.0, "threshold": 0.4}}))
    (paths[1] / "run.json").write_text(json.dumps({"question": {"temperature": 1.0, "threshold": 0.4}}))
    found = ensemble(paths, tmp_path / "out")["detection"]
    assert odds_of(joined(tmp_path / "out")[0]) == pytest.approx(0.5, abs=1e-5)
    assert (found["threshold"], found["threshold_from"], found["temperature"]) == (0.4, "the runs", 1.0)


def test_of_probabilities_alone_the_log_odds_are_taken_and_have_an_end(runs: Callable[..., list[Path]], tmp_path: Path) -> None:
    paths = runs([clip(2)], [clip(0, scores=False, speech_prob=0.0)])
    ensemble(paths, tmp_path / "out")
    assert odds_of(joined(tmp_path / "out")[0]) == pytest.approx((2 + np.log(1e-6 / (1 - 1e-6))) / 2, abs=1e-4)
    without = clip(1, scores=False)
    without.pop("speech_prob")
    detected.write_run(paths[1], [without])
    with pytest.raises(DataError, match="row 'c' has neither scores nor a probability of two choices: leave the run out"):
        ensemble(paths, tmp_path / "other")


def test_several_runs_of_one_detector_are_better_than_each(runs: Callable[..., list[Path]], tmp_path: Path) -> None:
    clips = detected.detections(4)
    draw = np.random.default_rng(0)
    members = []
    for _ in range(5):
        odds = [(1.2 if row["label"] == "SPEECH" else -1.2) + float(draw.normal(0, 2)) for row in clips]
        members.append(
            [row | clip(value, id=row["id"], label=row["label"], recording=row["recording"]) for row, value in zip(clips, odds, strict=True)]
        )
    found = ensemble(runs(*members), tmp_path / "out")["detection"]
    each = [sum(row["label"] == row["predicted"] for row in rows) / len(rows) for rows in members]
    assert found["accuracy"]["rate"] > max(each) + 0.05
    assert max(each) < found["majority_vote"]["accuracy"]["rate"] < found["accuracy"]["rate"] + 0.02
    assert found["majority_vote"]["tied"] == 0


def test_a_tie_goes_to_the_averaged_log_odds(runs: Callable[..., list[Path]], tmp_path: Path) -> None:
    found = ensemble(runs([clip(1)], [clip(-3)]), tmp_path / "out")["detection"]
    row = joined(tmp_path / "out")[0]
    assert (row["predicted"], row["majority_vote"], row["tied"]) == ("NONSPEECH", "NONSPEECH", True)
    assert found["majority_vote"]["tied"] == 1


def test_a_clip_that_one_run_failed_on_is_counted_as_failed(runs: Callable[..., list[Path]], tmp_path: Path) -> None:
    failed = {"id": "d", "task": "detection", "label": "SPEECH", "predicted": "", "error": "no such file"}
    found = ensemble(runs([clip(1), clip(1, id="d")], [clip(1), failed]), tmp_path / "out")
    assert found["failed"] == [{"id": "d", "error": "b: no such file"}]
    assert found["detection"]["n_clips"] == 1


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([clip(1, id="d"), clip(1, id="e")], "lacks 1 id ('c') of"),
        ([clip(1, label="NONSPEECH")], "id 'c' is NONSPEECH, and in"),
        ([{"id": "c", "reference": "SPEECH", "hypothesis": "SPEECH"}], "row 'c' is no detection: an ensemble is of detections alone"),
        ([clip(1) | {"scores": {"SPEECH": -1, "MUSIC": -1}}], "chooses among SPEECH, MUSIC, and"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(rows: list[Row], error: str, runs: Callable[..., list[Path]], tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        ensemble(runs([clip(1)], rows), tmp_path / "out")
    assert error in str(told.value)


def test_what_is_known_of_the_runs_is_known_of_the_ensemble(runs: Callable[..., list[Path]], tmp_path: Path) -> None:
    paths = runs([clip(1)], [clip(1)])
    chosen_on = {"manifest": "dev.jsonl", "sha256": "5" * 64, "clips": 9}
    for path, told in zip(paths, (None, chosen_on), strict=True):
        about = {"question": {"temperature": 1.0, "threshold": 0.5, "chosen_on": told}, "manifest_sha256": "5" * 64}
        (path / "run.json").write_text(json.dumps(about))
    (paths[0] / "metrics.json").write_text(json.dumps({"leakage": {"checked": False}, "checkpoint": None}))
    (paths[1] / "metrics.json").write_text(json.dumps({"leakage": {"checked": True, "touches": ["speakers"]}}))
    found = ensemble(paths, tmp_path / "out", threshold=0.3)
    assert found["detection"]["chosen_on_this_data"] is True
    assert found["detection"]["threshold"] == 0.3
    assert found["leakage"]["touches"] == ["speakers"]
    told = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [member["name"] for member in told["members"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("thresholds", "digests", "by_hand", "expected"),
    [
        ((0.3, 0.7), ("6", "6"), None, "not fitted: 1 and 0.5"),  # its own threshold is the default
        ((0.5, 0.5), (None, "6"), None, "not fitted: 1 and 0.5"),
        ((0.3, 0.3), ("6", "6"), None, "chosen on other clips: 9 of dev.jsonl"),
        ((0.3, 0.3), ("6", "6"), 0.4, "0.4, was given by hand"),
    ],
)
def test_nothing_was_chosen_for_the_ensemble_unless_the_runs_share_it(
    thresholds: tuple[float, float],
    digests: tuple[str | None, str | None],
    by_hand: float | None,
    expected: str,
    runs: Callable[..., list[Path]],
    tmp_path: Path,
) -> None:
    paths = runs([clip(1)], [clip(1)])
    fits = [digest and {"manifest": "dev.jsonl", "sha256": digest * 64, "clips": 9} for digest in digests]
    for path, threshold, told in zip(paths, thresholds, fits, strict=True):
        about = {"question": {"temperature": 1.0, "threshold": threshold, "chosen_on": told}, "manifest_sha256": "5" * 64}
        (path / "run.json").write_text(json.dumps(about))
    assert expected in ensemble(paths, tmp_path / "out", threshold=by_hand)["detection"]["choice"]
    told = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [member["chosen_on"] for member in told["members"]] == fits


def test_the_command_and_its_folder(runs: Callable[..., list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(path) for path in runs([clip(1)], [clip(2)], [clip(3)])]
    out = str(tmp_path / "out")
    assert main(["ensemble", *paths[:2], "--out", out]) == 0
    assert "majority vote" in capsys.readouterr().out
    assert main(["ensemble", *paths[:2], "--out", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["detection"]["n_clips"] == 1
    assert main(["ensemble", *paths, "--out", out]) == 2
    assert "holds another run" in capsys.readouterr().err
    assert main(["ensemble", paths[0], "--out", out]) == 2
    assert "an ensemble has two runs or more: name another one" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="threshold must be a probability from 0 to 1, not 2"):
        ensemble([Path(path) for path in paths], tmp_path / "other", threshold=2)
