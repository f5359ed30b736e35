"""Figures of detections from predictions files: ours, and those that come from elsewhere."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import detected
import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from audiograft.evaluate.predictions import read_predictions
from audiograft.evaluate.printing import print_metrics
from audiograft.evaluate.scoring import score
from audiograft.types import DataError

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def without_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves and the mixed model are tested with the metrics, and take longer than all else here."""
    for name in ("psychometric_curves", "fit_mixed_model"):
        monkeypatch.setattr(f"audiograft.evaluate.detection_scoring.{name}", lambda *columns: {})


def scored(folder: Path, rows: Sequence[Row]) -> dict[str, Any]:
    return score(detected.write_run(folder / "run", rows))


def plain(*labels: str, **changes: Any) -> list[Row]:
    return [{"id": str(i), "label": label, "predicted": label, **changes} for i, label in enumerate(labels)]


def test_a_perfect_detector(tmp_path: Path) -> None:
    sure = {True: {"SPEECH": -0.01, "NONSPEECH": -4.6}, False: {"SPEECH": -4.6, "NONSPEECH": -0.01}}
    rows = [row | {"predicted": row["label"], "scores": sure[row["label"] == "SPEECH"]} for row in detected.detections(4)]
    rows = [row | {"speech_prob": float(np.exp(row["scores"]["SPEECH"]))} for row in rows]
    found = scored(tmp_path, rows)
    detection = found["detection"]
    assert detection["accuracy"]["rate"] == detection["balanced_accuracy"]["rate"] == detection["roc_auc"]["value"] == 1
    assert detection["eer"]["value"] == 0
    assert detection["wilson"]["high"] == 1
    assert detection["confidence"]["wrong"] is None
    for key in ("wer", "cer", "utterance_mean_wer", "matches", "answers", "loss", "terms"):
        assert found[key] is None
    assert found["normalisers"] == found["detectors"] == found["slices"] == {}


def test_a_detector_at_chance(tmp_path: Path) -> None:
    rows = [row | {"label": ("SPEECH", "NONSPEECH")[i % 2]} for i, row in enumerate(detected.detections(4, skill=0))]
    detection = scored(tmp_path, rows)["detection"]
    interval = detection["accuracy"]["interval"]
    assert interval["low"] < 0.5 < interval["high"]
    assert interval["clusters"] == len({row["recording"] for row in rows})
    assert detection["roc_auc"]["interval"]["low"] < 0.5 < detection["roc_auc"]["interval"]["high"]
    assert sum(part["n"] for part in detection["reliability"]) == len(rows)


def test_conditions_and_cells_hold_all_clips(tmp_path: Path) -> None:
    rows = detected.detections(4)
    conditions = scored(tmp_path, rows)["detection"]["conditions"]
    assert list(conditions) == ["duration_ms", "target_snr_db", "noise", "band", "t60_s", "kind", "label", "duration_ms x target_snr_db"]
    cells = conditions["duration_ms x target_snr_db"]
    assert len(cells) == 25
    assert {cell["n"] for cell in cells} == {8}
    shortest = [row for row in rows if row["duration_ms"] == 200]
    assert conditions["duration_ms"][0]["right"] == sum(row["label"] == row["predicted"] for row in shortest)
    assert sum(row["n"] for row in conditions["kind"]) == len(rows) / 2


def test_files_from_elsewhere_need_a_label_and_what_was_detected(tmp_path: Path) -> None:
    found = scored(tmp_path, plain("SPEECH", "NONSPEECH", "SPEECH") + [{"id": "x", "label": "SPEECH", "predicted": "NONSPEECH", "duration_s": 0.2}])
    detection = found["detection"]
    assert detection["accuracy"]["rate"] == 0.75
    assert detection["roc_auc"] == {"value": None, "interval": None, "reason": "4 of 4 rows have no speech_prob"}
    assert detection["confusion"] == {"SPEECH": {"SPEECH": 2, "NONSPEECH": 1}, "NONSPEECH": {"SPEECH": 0, "NONSPEECH": 1}}
    assert [row["duration_ms"] for row in detection["conditions"]["duration_ms"]] == [200]
    probs = [{"id": str(i), "label": label, "speech_prob": prob} for i, (label, prob) in enumerate((("SPEECH", 0.5), ("NONSPEECH", 0.49)))]
    rows = read_predictions(detected.write_run(tmp_path / "probs", probs))
    assert [row.hypothesis for row in rows] == ["SPEECH", "NONSPEECH"]
    assert {row.task for row in rows} == {"detection"}


def test_clips_of_one_class_are_told_of_first(tmp_path: Path) -> None:
    def printed(*labels: str) -> str:
        page = io.StringIO()
        print_metrics(scored(tmp_path / "-".join(labels), plain(*labels)), Console(file=page, width=160))
        return page.getvalue()

    first = printed("NONSPEECH", "NONSPEECH").splitlines()[0]
    assert first.startswith("all 2 clips are labelled NONSPEECH: a model that always says NONSPEECH would be right on all of them")
    assert "are labelled" not in printed("SPEECH", "NONSPEECH")


def test_a_row_is_written_as_it_was_read(tmp_path: Path) -> None:
    rows = [
        *detected.detections(1)[:3],
        {"id": "x", "audio": "x.wav", "task": "detection", "label": "SPEECH", "predicted": "", "error": "no such file"},
    ]
    read = read_predictions(detected.write_run(tmp_path, rows))
    assert [row.as_row() for row in read] == [{"speaker": None, "audio": None, "duration_s": None} | row for row in rows]
    assert read[0].reference_nats == -rows[0]["scores"][rows[0]["label"]]


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"id": "a", "task": "detection", "predicted": "SPEECH"}, '"label" is missing: write what the clip is, such as SPEECH or NONSPEECH'),
        ({"id": "a", "label": "SPEECH"}, '"predicted" is missing: write what was detected, or the probability of speech as speech_prob'),
        ({"id": "a", "label": "dog", "speech_prob": 0.2}, '"predicted" is missing: only of SPEECH and NONSPEECH it follows from speech_prob'),
        ({"id": "a", "label": "SPEECH", "speech_prob": 1.2}, '"speech_prob" must be from 0 to 1: correct it or leave the key out'),
        (
            {"id": "a", "label": "SPEECH", "speech_prob": float("nan")},
            '"speech_prob" must be a number from 0 to 1: correct it, or write what was detected as predicted',
        ),
        ({"id": "a", "label": 3, "predicted": "SPEECH"}, '"label" must be a string: write what the clip is, such as SPEECH or NONSPEECH'),
        (
            {"id": "a", "label": "SPEECH", "predicted": "SPEECH", "scores": {"SPEECH": "high"}},
            '"scores" must be an object of log-probabilities by label, or null: correct it or leave the key out',
        ),
        (
            {"id": "a", "label": "dog", "predicted": "SPEECH", "scores": {"SPEECH": -1, "NONSPEECH": -1}},
            "\"label\" 'dog' has no score among SPEECH, NONSPEECH: correct it",
        ),
    ],
)
def test_a_row_that_does_not_fit_names_its_line_and_key(row: Row, error: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        scored(tmp_path, [row])
    assert str(told.value) == f"{tmp_path / 'run' / 'predictions.jsonl'}:1: {error}"


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    text = {"id": "t", "reference": "hello", "hypothesis": "hello"}
    with pytest.raises(DataError, match="1 rows are detections, and others such as 't' texts: keep them in two files"):
        scored(tmp_path, [*plain("SPEECH"), text])
    one, other = ({"scores": dict.fromkeys(labels, -1.0)} for labels in (("dog", "car"), ("dog", "rain")))
    with pytest.raises(DataError, match="some rows have scores of dog, car and others of dog, rain: keep to one question"):
        scored(tmp_path, [plain("dog")[0] | one, plain("dog", "dog")[1] | other])
    with pytest.raises(DataError, match="row '0' has a speech_prob, and of car, dog it is not known which it is of: add scores"):
        scored(tmp_path, plain("dog", "car", speech_prob=0.5))


def test_many_levels_are_put_together_and_it_is_said(tmp_path: Path) -> None:
    rows = [row | {"duration_ms": 100 + number, "kind": f"kind {number}"} for number, row in enumerate(detected.detections(4))]
    found = scored(tmp_path, rows)["detection"]
    durations = found["conditions"]["duration_ms"]
    assert [row["n"] for row in durations] == [25] * 8
    assert durations[0]["duration_ms"] == 112
    assert len(found["conditions"]["duration_ms x target_snr_db"]) <= 8 * 5
    assert len(found["conditions"]["kind"]) == 200
    assert found["notes"] == ["duration_ms takes 200 values: tables and grids put them together in 8 groups, each told by its median"]


def test_few_speakers_and_kinds_have_an_interval_of_their_own(tmp_path: Path) -> None:
    rates = {"SPEECH": (1.0, 0.9, 0.8), "NONSPEECH": (0.6, 1.0)}
    rows: list[Row] = []
    for label, by in (("SPEECH", "speaker"), ("NONSPEECH", "kind")):
        other = "NONSPEECH" if label == "SPEECH" else "SPEECH"
        for group, rate in enumerate(rates[label]):
            said = [label] * round(20 * rate) + [other] * round(20 * (1 - rate))
            rows += [{"id": f"{len(rows)}-{i}", "label": label, "predicted": one, by: f"g{group}", "recording": str(i)} for i, one in enumerate(said)]
    found = scored(tmp_path, rows)["detection"]["over_groups"]
    assert found["rate"] == pytest.approx((0.9 + 0.8) / 2)
    assert found["groups"] == {"SPEECH": {"by": "speaker", "n": 3}, "NONSPEECH": {"by": "kind", "n": 2}}
    # Welch's interval of the sum of two means, by scipy, is twice as wide as that of their mean.
    welch = stats.ttest_ind(rates["SPEECH"], [-rate for rate in rates["NONSPEECH"]], equal_var=False).confidence_interval()
    assert found["interval"]["low"] == pytest.approx(max(welch.low / 2, 0))
    assert found["interval"]["high"] == pytest.approx(min(welch.high / 2, 1))
    assert "balanced accuracy, over 3 speakers and 2 kinds" in shown(tmp_path, rows)
    assert "intervals that draw recordings say nothing of other speakers or kinds" in shown(tmp_path, rows)
    assert scored(tmp_path, plain("SPEECH", "NONSPEECH"))["detection"]["over_groups"] is None


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"predicted": "speech"}, "row 'x' is called 'speech', and the label of the clips is 'SPEECH': spell them alike"),
        ({"duration_ms": 0}, "row 'x': duration_ms must be a number above 0, not 0: correct it or leave the key out"),
        ({"target_snr_db": "5"}, "row 'x': target_snr_db must be a number, not '5': correct it or leave the key out"),
        ({"kind": ["rain"]}, "row 'x': kind must be a text or a number, not ['rain']: correct it or leave the key out"),
    ],
)
def test_values_that_nothing_can_be_made_of_are_told_with_their_file(row: Row, error: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        scored(tmp_path, [*plain("SPEECH", "NONSPEECH"), plain("SPEECH")[0] | {"id": "x"} | row])
    assert str(told.value) == f"{tmp_path / 'run' / 'predictions.jsonl'}: {error}"


def test_labels_are_compared_as_they_are(tmp_path: Path) -> None:
    found = scored(tmp_path, [{"id": "a", "label": "Dog", "predicted": "dog"}, {"id": "b", "label": "dog", "predicted": "dog"}])
    assert found["accuracy"]["rate"] == found["detection"]["accuracy"]["rate"] == 0.5


def shown(folder: Path, rows: Sequence[Row]) -> str:
    """What the terminal shows."""
    console = Console(record=True, width=150, markup=False, highlight=False)
    print_metrics(scored(folder, rows), console)
    return console.export_text()


def test_the_terminal_shows_the_figures_of_detections_and_none_of_words(tmp_path: Path) -> None:
    text = shown(tmp_path, detected.detections(4))
    for expected in ("balanced accuracy", "ROC AUC", "called NONSPEECH", "duration (ms)", "signal to noise (dB)", "ECE (10 bins)"):
        assert expected in text
    assert "whether the threshold was chosen on these clips is not known" in text
    assert not any(word in text for word in ("WER", "normaliser", "answers"))


def test_scoring_imports_no_torch() -> None:
    told = "import sys, audiograft.evaluate.scoring, audiograft.evaluate.ensembles; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
