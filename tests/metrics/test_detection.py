"""Figures of a detection."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from audiograft.metrics.detection import condition_table, score_detection
from audiograft.metrics.intervals import wilson

TWO = ("SPEECH", "NONSPEECH")


def draw(n: int = 400, spread: float = 0.8, seed: int = 0) -> tuple[list[str], list[str], np.ndarray, list[str]]:
    """Labels, predictions, P(SPEECH), and 40 recordings of one class each, some harder than others."""
    rng = np.random.default_rng(seed)
    recording = np.arange(n) * 40 // n
    positive = recording % 2 == 0
    odds = np.where(positive, 1.5, -1.5) + rng.normal(0, spread, 40)[recording] + rng.normal(size=n)
    names = [np.where(flags, *TWO).tolist() for flags in (positive, odds >= 0)]
    return names[0], names[1], special.expit(odds), [f"r{i}" for i in recording]


def test_figures_worked_by_hand() -> None:
    labels = ["SPEECH", "SPEECH", "SPEECH", "NONSPEECH"]
    found = score_detection(labels, ["SPEECH", "SPEECH", "NONSPEECH", "NONSPEECH"], TWO, [0.9, 0.8, 0.4, 0.3])
    assert (found.n, found.accuracy.right, found.accuracy.rate) == (4, 3, 0.75)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert found.confusion == {"SPEECH": {"SPEECH": 2, "NONSPEECH": 1}, "NONSPEECH": {"SPEECH": 0, "NONSPEECH": 1}}
    assert {name: (rate.n, rate.right) for name, rate in found.per_class.items()} == {"SPEECH": (3, 2), "NONSPEECH": (1, 1)}
    sure = found.probabilities.confidence
    assert (sure.overall, sure.right, sure.wrong, sure.n_wrong) == (pytest.approx(0.75), pytest.approx(0.8), pytest.approx(0.6), 1)
    assert sure.gap == pytest.approx(0.2)


def test_confidence_is_of_what_was_said_whatever_the_threshold() -> None:
    """System C took the probability of the generated answer, of whichever class, for that of SPEECH."""
    found = score_detection(["SPEECH", "NONSPEECH"], ["NONSPEECH", "NONSPEECH"], TWO, [0.6, 0.1])
    assert (found.probabilities.confidence.wrong, found.probabilities.confidence.right) == (pytest.approx(0.4), pytest.approx(0.9))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30))
def test_any_number_of_classes_is_counted_as_scikit_learn_counts(rows: list[tuple[str, str]]) -> None:
    labels, predicted = (list(column) for column in zip(*rows, strict=True))
    found = score_detection(labels, predicted, "abc", resamples=20)
    assert [list(row.values()) for row in found.confusion.values()] == confusion_matrix(labels, predicted, labels=list("abc")).tolist()
    assert found.probabilities is None
    if len(set(labels)) == 1:
        assert (found.balanced_accuracy, found.balanced_accuracy_interval) == (None, None)
    else:
        present = [found.per_class[name].rate for name in sorted(set(labels))]
        assert found.balanced_accuracy == pytest.approx(np.mean(present))
        if set(predicted) <= set(labels):
            assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
        interval = found.balanced_accuracy_interval
        assert interval.low is None or interval.low - 1e-9 <= found.balanced_accuracy <= interval.high + 1e-9


def test_intervals_draw_recordings() -> None:
    labels, predicted, probs, recordings = draw()
    ours, plain = (score_detection(labels, predicted, TWO, probs, groups, resamples=500) for groups in (recordings, None))
    for name in ("accuracy_interval", "balanced_accuracy_interval"):
        wide, narrow = getattr(ours, name), getattr(plain, name)
        assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)
        assert wide.n_clusters == 40
    assert (ours.accuracy.wilson, plain.accuracy_interval) == (wilson(ours.accuracy.right, 400), wilson(plain.accuracy.right, 400))
    assert ours.probabilities.roc_auc.interval.n_clusters == 40


def test_balanced_accuracy_is_held_by_its_interval() -> None:
    truth = special.ndtr(1.5 / np.sqrt(1 + 0.8**2))
    found = [score_detection(*draw(seed=i)[:2], TWO, None, draw(seed=i)[3], resamples=200).balanced_accuracy_interval for i in range(80)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.9


def test_recordings_that_are_few_are_called_recordings() -> None:
    found = score_detection(["SPEECH", "NONSPEECH"] * 4, ["SPEECH"] * 4 + ["NONSPEECH", "SPEECH"] * 2, TWO, clusters=["a"] * 4 + ["b"] * 4)
    assert found.accuracy_interval.warning == found.balanced_accuracy_interval.warning == "2 recordings only: the interval is wide and rough"


@pytest.mark.parametrize("right", [True, False])
def test_all_right_or_all_wrong_is_wilsons_of_the_recordings(right: bool) -> None:
    labels, _, _, recordings = draw()
    found = score_detection(labels, labels if right else [TWO[label == TWO[0]] for label in labels], TWO, clusters=recordings)
    assert found.balanced_accuracy == (1.0 if right else 0.0)
    assert (found.balanced_accuracy_interval.low, found.balanced_accuracy_interval.high) == pytest.approx(
        (wilson(40, 40).low, 1.0) if right else (0.0, wilson(0, 40).high)
    )


def test_one_class_has_an_accuracy_and_nothing_to_tell_apart() -> None:
    found = score_detection(["SPEECH"] * 3, ["SPEECH", "SPEECH", "NONSPEECH"], TWO, [0.9, 0.8, 0.1])
    assert (found.accuracy.right, found.balanced_accuracy, found.per_class["NONSPEECH"].rate) == (2, None, None)
    assert found.probabilities.roc_auc.value is None
    assert found.probabilities.roc_auc.reason == "all 3 clips are positive: there is nothing to tell apart"
    assert found.probabilities.brier == pytest.approx((0.01 + 0.04 + 0.81) / 3)


@pytest.mark.parametrize(
    ("labels", "predicted", "probs", "error"),
    [
        ([], [], None, "one clip at least"),
        (["SPEECH"], ["SPEECH"] * 2, None, "columns of one length"),
        (["SPEECH"], ["maybe"], None, "got 'maybe'"),
        (["SPEECH"], ["SPEECH"], [1.5], "between 0 and 1"),
        (["SPEECH"], ["SPEECH"], [0.5, 0.5], "columns of one length"),
    ],
)
def test_what_is_no_detection_is_refused(labels: list[str], predicted: list[str], probs: list[float] | None, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        score_detection(labels, predicted, TWO, probs)


def test_probabilities_of_three_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="there are 3 classes"):
        score_detection(["a"], ["a"], "abc", [0.5])


def test_cells_of_conditions() -> None:
    labels, predicted = ["SPEECH", "SPEECH", "NONSPEECH", "NONSPEECH", "SPEECH"], ["SPEECH", "NONSPEECH", "SPEECH", "NONSPEECH", "SPEECH"]
    rows = condition_table(labels, predicted, {"duration_ms": [200, 200, 200, 1000, 1000], "target_snr_db": [0, 0, 0, 20, None]}, "SPEECH")
    assert [(row["duration_ms"], row["target_snr_db"], row["n"], row["right"]) for row in rows] == [(200, 0, 3, 1), (1000, 20, 1, 1)]
    assert (rows[0]["hit_rate"], rows[0]["false_alarm_rate"], rows[0]["accuracy"]) == (0.5, 1.0, pytest.approx(1 / 3))
    assert (rows[1]["hit_rate"], rows[1]["false_alarm_rate"], rows[1]["n_positive"], rows[1]["n_negative"]) == (None, 0.0, 0, 1)
    assert rows[0]["wilson"] == {"low": wilson(1, 3).low, "high": wilson(1, 3).high}


def test_cells_come_in_order_of_numbers_and_words() -> None:
    labels = ["SPEECH"] * 4
    numbers, words = (
        condition_table(labels, labels, {"key": values}, "SPEECH") for values in ([1000, 200, 5, 40], ["pink", "babble", "white", "pink"])
    )
    assert [row["key"] for row in numbers] == [5, 40, 200, 1000]
    assert [(row["key"], row["n"]) for row in words] == [("babble", 1), ("pink", 2), ("white", 1)]


def test_neither_torch_nor_plots_are_imported() -> None:
    code = """
import sys
from audiograft.metrics.detection import score_detection
from audiograft.metrics import calibration, mixed_model, psychometric, variance
score_detection(["a", "b"], ["a", "b"], ["a", "b"], [0.9, 0.1])
print(sorted({"torch", "matplotlib", "statsmodels"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
