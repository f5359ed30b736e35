"""Areas under curves, equal error rates, operating points, and how often their intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from audiograft.metrics import ranking
from audiograft.metrics.intervals import wilson
from audiograft.metrics.ranking import pr_points, ranking_figures, roc_points, threshold_table

CLIPS = st.lists(st.tuples(st.booleans(), st.integers(0, 12)), min_size=2, max_size=40).filter(lambda clips: len({label for label, _ in clips}) == 2)


def draw(n_recordings: int, each: int, distance: float, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores of recordings of one class each, some higher than others."""
    rng = np.random.default_rng(seed)
    recording = np.arange(n_recordings).repeat(each)
    positive = recording % 2 == 0
    own = rng.normal(0, spread, n_recordings)[recording]
    return positive, rng.normal(size=len(recording)) + own + distance * positive, recording.astype(str).tolist()


@settings(max_examples=25, deadline=None)
@given(CLIPS)
def test_figures_are_scikit_learns_and_stay_under_any_rising_function(clips: list[tuple[bool, int]]) -> None:
    positive, scores = (np.array(column) for column in zip(*clips, strict=True))
    found = ranking_figures(positive, scores, resamples=20)
    assert found["roc_auc"].value == pytest.approx(roc_auc_score(positive, scores))
    assert found["pr_auc"].value == pytest.approx(average_precision_score(positive, scores))
    bent = ranking_figures(positive, np.exp(scores / 3) - 7, resamples=20)
    assert [one.value for one in bent.values()] == pytest.approx([one.value for one in found.values()])
    for figure in found.values():
        assert (figure.interval is None) == (figure.reason is not None)
        assert figure.interval is None or 0 <= figure.interval.low <= figure.value + 1e-9 <= figure.interval.high + 2e-9 <= 1 + 3e-9


def test_a_recording_drawn_twice_counts_twice() -> None:
    """System C's cluster bootstrap asked whether a recording was among those drawn, and so lost how often."""
    rng = np.random.default_rng(1)
    positive, scores, weights = rng.random(200) < 0.4, np.round(rng.random(200), 1), rng.integers(0, 4, (5, 200)).astype(float)
    hits, alarms = ranking.weighted_points(positive, scores, weights)
    assert ranking._area(hits, alarms) == pytest.approx([roc_auc_score(positive, scores, sample_weight=row) for row in weights])
    assert ranking._average_precision(hits, alarms) == pytest.approx(
        [average_precision_score(positive, scores, sample_weight=row) for row in weights]
    )
    assert ranking._area(hits, alarms) != pytest.approx([roc_auc_score(positive[row > 0], scores[row > 0]) for row in weights], abs=1e-4)


def test_equal_error_rates_worked_by_hand() -> None:
    # One of two positive clips below one of two negative ones: at a threshold between, half of each are wrong.
    assert ranking_figures([True, True, False, False], [0.9, 0.3, 0.6, 0.1], resamples=20)["eer"].value == pytest.approx(0.5)
    # Four of each, one of each on the wrong side.
    found = ranking_figures([True] * 4 + [False] * 4, [0.9, 0.8, 0.7, 0.2, 0.6, 0.15, 0.1, 0.05], resamples=20)
    assert found["eer"].value == pytest.approx(0.25)
    # All scores alike: the line from (0, 0) to (1, 1).
    assert ranking_figures([True, False, False], [0.5] * 3, resamples=20)["eer"].value == pytest.approx(0.5)


def test_equal_error_rate_of_two_normal_distributions() -> None:
    positive, scores, _ = draw(2, 3000, 2.0, 0.0, 1)
    assert ranking_figures(positive, scores, resamples=2)["eer"].value == pytest.approx(stats.norm.cdf(-1), abs=0.012)


def test_intervals_over_recordings_hold_the_truth_where_those_over_clips_do_not() -> None:
    trials, distance, spread = 100, 2.0, 0.5
    truth = stats.norm.cdf(distance / np.sqrt(2 * (1 + spread**2)))
    held = of_clips = 0
    for trial in range(trials):
        positive, scores, recordings = draw(20, 8, distance, spread, trial)
        ours, plain = (ranking_figures(positive, scores, groups, resamples=100)["roc_auc"].interval for groups in (recordings, None))
        held += ours.low <= truth <= ours.high
        of_clips += plain.low <= truth <= plain.high
    assert held / trials >= 0.91
    assert of_clips / trials < 0.88


def test_recordings_widen_the_interval_and_few_carry_a_warning() -> None:
    positive, scores, recordings = draw(8, 30, 2.0, 1.0, 3)
    ours, plain = (ranking_figures(positive, scores, groups)["roc_auc"].interval for groups in (recordings, None))
    assert ours.high - ours.low > 1.5 * (plain.high - plain.low)
    assert (ours.method, ours.n_clusters, plain.method) == ("cluster-bootstrap-t", 8, "clip-bootstrap-t")
    assert ours.warning == "8 recordings only: the interval is wide and rough"


def test_without_an_error_the_eer_has_wilsons_of_the_rarer_class_and_areas_none() -> None:
    found = ranking_figures([True] * 12 + [False] * 20, [0.9] * 12 + [0.1] * 20)
    assert (found["roc_auc"].value, found["eer"].value) == (1.0, 0.0)
    assert (found["eer"].interval.method, found["eer"].interval.n_clusters) == ("wilson", 12)
    expected = wilson(0, 12)
    assert (found["eer"].interval.low, found["eer"].interval.high) == pytest.approx((expected.low, expected.high))
    for name in ("roc_auc", "pr_auc"):
        assert (found[name].value, found[name].interval) == (1.0, None)
        assert found[name].reason == "too few errors for an interval of the areas: about 0 of 32 clips"


@pytest.mark.parametrize("n_bad", [1, 2])
def test_few_errors_make_no_impossible_interval(n_bad: int) -> None:
    """Draws that have no error at all stood for an endless logit, and its spread for nearly everything."""
    positive = [clip % 2 == 0 for clip in range(100)]
    scores = [float(is_positive) + clip / 1000 for clip, is_positive in enumerate(positive)]
    for clip in range(2 * n_bad):
        scores[clip] = 1 - scores[clip]
    found = ranking_figures(positive, scores, [f"r{clip // 4}" for clip in range(100)])
    eer = found["eer"]
    assert eer.value == pytest.approx(0.02 * n_bad, abs=0.011)
    assert (eer.interval.method, eer.interval.n_clusters) == ("wilson", 25)
    assert eer.interval.low <= eer.value <= eer.interval.high < 0.25
    assert found["roc_auc"].interval is None
    assert "too few errors" in found["roc_auc"].reason


def test_errors_of_one_recording_are_too_few_however_many() -> None:
    positive = [clip % 2 == 0 for clip in range(200)]
    scores = [float(is_positive is not (clip < 20)) + clip / 1000 for clip, is_positive in enumerate(positive)]
    found = ranking_figures(positive, scores, [f"r{clip // 20}" for clip in range(200)])
    assert found["eer"].interval.method == "wilson"
    assert found["roc_auc"].interval is None


@pytest.mark.parametrize("positive", [True, False])
def test_one_class_has_no_figures_and_says_so(positive: bool) -> None:
    for figure in ranking_figures([positive] * 3, [0.1, 0.2, 0.3]).values():
        assert (figure.value, figure.interval) == (None, None)
        assert figure.reason == f"all 3 clips are {'positive' if positive else 'negative'}: there is nothing to tell apart"
    for curve in (roc_points, pr_points, threshold_table):
        with pytest.raises(ValueError, match="nothing to tell apart"):
            curve([positive] * 3, [0.1, 0.2, 0.3])


def test_blocks_of_draws_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    positive, scores, recordings = draw(20, 5, 1.0, 0.5, 2)
    whole = ranking_figures(positive, scores, recordings, resamples=50)
    monkeypatch.setattr(ranking, "_BLOCK_CLIPS", 700)
    for name, figure in ranking_figures(positive, scores, recordings, resamples=50).items():
        assert (figure.interval.low, figure.interval.high) == pytest.approx((whole[name].interval.low, whole[name].interval.high))


def test_curves_end_where_they_must() -> None:
    positive, scores, _ = draw(20, 5, 1.0, 0.5, 2)
    roc, precision = roc_points(positive, scores), pr_points(positive, scores)
    assert (roc.hit_rates[0], roc.false_alarm_rates[0], roc.hit_rates[-1], roc.false_alarm_rates[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(roc.hit_rates, roc.false_alarm_rates) == pytest.approx(roc_auc_score(positive, scores))
    assert len(precision.thresholds) == len(precision.recalls) == len(precision.precisions)
    assert (np.diff(precision.thresholds) < 0).all()
    assert (precision.recalls[-1], precision.precisions[-1]) == (1.0, 0.5)


def test_the_table_of_thresholds_counts_what_each_would_say() -> None:
    positive, probs = np.array([True, True, False, False, False]), np.array([0.9, 0.5, 0.5, 0.2, 0.0])
    rows = {round(row["threshold"], 2): row for row in threshold_table(positive, probs)}
    assert len(rows) == 101
    assert rows[0.0] == {**rows[0.0], "hit_rate": 1, "false_alarm_rate": 1, "accuracy": 0.4, "balanced_accuracy": 0.5, "precision": 0.4}
    assert (rows[0.5]["hit_rate"], rows[0.5]["false_alarm_rate"], rows[0.51]["false_alarm_rate"]) == (1, pytest.approx(1 / 3), 0)
    assert rows[0.6]["f1"] == pytest.approx(2 / 3)
    assert (rows[1.0]["precision"], rows[1.0]["f1"], rows[1.0]["accuracy"]) == (None, None, 0.6)


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="one clip at least"):
        ranking_figures([True], [0.1, 0.2])
    with pytest.raises(ValueError, match="one clip at least"):
        ranking_figures([True, False], [0.1, 0.2], ["a"])
