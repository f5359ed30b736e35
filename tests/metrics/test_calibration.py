"""Calibration: what probabilities are held against, temperatures, thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special
from sklearn.metrics import brier_score_loss, log_loss

from audiograft.metrics.calibration import (
    CRITERIA,
    brier_score,
    choose_threshold,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from audiograft.types import DataError

CLIPS = st.lists(st.tuples(st.booleans(), st.sampled_from([i / 20 for i in range(21)])), min_size=2, max_size=40)
BOTH_CLASSES = CLIPS.filter(lambda clips: len({label for label, _ in clips}) == 2)


def draw(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds that are too sure by a factor, and labels."""
    rng = np.random.default_rng(seed)
    true_odds = rng.normal(0, 2, n)
    return true_odds * temperature, rng.random(n) < special.expit(true_odds)


def test_brier_and_likelihood_are_scikit_learns() -> None:
    odds, positive = draw(500, 1.0)
    probs = special.expit(odds)
    assert brier_score(positive, probs) == pytest.approx(brier_score_loss(positive, probs))
    assert negative_log_likelihood(positive, probs) == pytest.approx(log_loss(positive, probs))


def test_a_wrong_certainty_costs_much_and_not_infinitely_much() -> None:
    assert negative_log_likelihood([True, False], [0.0, 0.0]) == pytest.approx(-math.log(1e-6) / 2, rel=1e-3)


def test_calibration_error_worked_by_hand() -> None:
    positive, probs = [True, False, True, True, False], [0.95, 0.05, 0.65, 0.62, 0.68]
    # Bins: 0.05 (none of 1 positive), 0.65 on average (2 of 3), 0.95 (1 of 1).
    assert expected_calibration_error(positive, probs) == pytest.approx((0.05 + 3 * (2 / 3 - 0.65) + 0.05) / 5)
    bins = {round(one.low, 1): one for one in reliability(positive, probs) if one.n}
    assert {low: (one.n, one.share) for low, one in bins.items()} == {0.0: (1, 0.0), 0.6: (3, pytest.approx(2 / 3)), 0.9: (1, 1.0)}


def test_probabilities_are_held_against_positives_and_not_against_being_right() -> None:
    """System C held P(SPEECH) against accuracy: a detector that is sure and right of a negative clip then looks badly calibrated."""
    positive = np.arange(1000) % 2 == 0
    probs = np.where(positive, 0.99, 0.01)
    assert expected_calibration_error(positive, probs) == pytest.approx(0.01)
    right = (probs >= 0.5) == positive
    assert abs(probs[~positive].mean() - right[~positive].mean()) > 0.9


def test_a_calibrated_detector_has_a_small_error_and_an_overconfident_one_a_large_one() -> None:
    odds, positive = draw(20_000, 1.0)
    assert expected_calibration_error(positive, special.expit(odds)) < 0.015
    assert expected_calibration_error(positive, special.expit(odds * 5)) > 0.08


def test_a_probability_of_1_is_in_the_last_bin() -> None:
    assert reliability([True], [1.0])[-1].n == 1
    assert reliability([True], [0.1])[1].n == 1


@given(CLIPS)
def test_calibration_error_is_between_0_and_1(clips: list[tuple[bool, float]]) -> None:
    positive, probs = zip(*clips, strict=True)
    assert 0 <= expected_calibration_error(positive, probs) <= 1
    assert sum(one.n for one in reliability(positive, probs)) == len(clips)


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_temperature_is_recovered_and_is_the_likeliest(true: float) -> None:
    odds, positive = draw(4000, true)
    fit = fit_temperature(odds, positive)
    found = fit.value
    assert found == pytest.approx(true, rel=0.07)
    assert not fit.smoothed
    plain = optimize.minimize_scalar(lambda log_t: negative_log_likelihood(positive, special.expit(odds / math.exp(log_t))), bounds=(-4, 4))
    assert found == pytest.approx(math.exp(plain.x), rel=1e-4)


def test_temperature_mends_calibration() -> None:
    odds, positive = draw(4000, 4.0)
    fresh_odds, fresh = draw(4000, 4.0, seed=1)
    before, after = (special.expit(fresh_odds / t) for t in (1.0, fit_temperature(odds, positive).value))
    assert expected_calibration_error(fresh, after) < 0.03 < expected_calibration_error(fresh, before)
    assert brier_score(fresh, after) < brier_score(fresh, before)


def test_classes_told_apart_without_an_error_do_not_make_the_temperature_0() -> None:
    found = fit_temperature([3.0, 2.5, -2.0, -4.0], [True, True, False, False])
    assert 0.3 < found.value < 5
    assert found.smoothed
    assert fit_temperature([30.0, 25.0, -20.0, -40.0], [True, True, False, False]).value == pytest.approx(10 * found.value, rel=1e-3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-52, 52)), min_size=4, max_size=30), st.floats(0.05, 20))
def test_with_an_error_the_loss_never_rises(clips: list[tuple[bool, int]], before: float) -> None:
    positive, odds = np.array([label for label, _ in clips]), np.array([value / 4 for _, value in clips])
    try:
        found = fit_temperature(odds, positive)
    except DataError:
        return
    wrong = bool((np.where(positive, odds, -odds) < 0).any())
    assert found.smoothed is not wrong
    if wrong:
        plain = [float(np.mean(np.logaddexp(0, np.where(positive, -odds, odds) / t))) for t in (found.value, before, 1.0)]
        assert plain[0] <= min(plain) + 1e-9
        assert negative_log_likelihood(positive, special.expit(odds / found.value)) <= negative_log_likelihood(positive, special.expit(odds)) + 1e-6


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-60, 60)), min_size=4, max_size=30))
def test_a_temperature_changes_no_decision_at_one_half(clips: list[tuple[bool, int]]) -> None:
    positive, odds = np.array([label for label, _ in clips]), np.array([value / 4 for _, value in clips])
    try:
        found = fit_temperature(odds, positive)
    except DataError:
        return
    assert ((special.expit(odds / found.value) >= 0.5) == (special.expit(odds) >= 0.5)).all()


@pytest.mark.parametrize("odds", [[0.0] * 4, [-2.0, -1.0, 1.0, 2.0]])
def test_log_odds_that_know_nothing_have_no_temperature(odds: list[float]) -> None:
    with pytest.raises(DataError, match="do not tell the classes apart"):
        fit_temperature(odds, [True, True, False, False])


@pytest.mark.parametrize("positive", [True, False])
def test_one_class_is_refused(positive: bool) -> None:
    with pytest.raises(DataError, match=f"all 3 clips are {'positive' if positive else 'negative'}"):
        fit_temperature([1.0, 2.0, 3.0], [positive] * 3)
    with pytest.raises(DataError, match="threshold is chosen on clips of both classes"):
        choose_threshold([positive] * 3, [0.1, 0.2, 0.3])


@settings(max_examples=60, deadline=None)
@given(BOTH_CLASSES, st.sampled_from(CRITERIA))
def test_no_threshold_is_better(clips: list[tuple[bool, float]], criterion: str) -> None:
    positive, probs = (np.array(column) for column in zip(*clips, strict=True))
    found = choose_threshold(positive, probs, criterion, max_false_alarm_rate=0.3, miss_cost=2.0)

    def merit(threshold: float) -> float:
        said = probs >= threshold
        hits, alarms = said[positive].mean(), said[~positive].mean()
        if criterion == "cost":
            return -(2 * (~said & positive).sum() + (said & ~positive).sum())
        if criterion == "max_false_alarm_rate":
            return hits if alarms <= 0.3 + 1e-9 else -1
        return (said == positive).mean() if criterion == "accuracy" else (hits + 1 - alarms) / 2

    assert merit(found.threshold) >= max(merit(t) for t in np.linspace(-0.01, 1.01, 103)) - 1e-9
    said = probs >= found.threshold
    assert found.accuracy == pytest.approx((said == positive).mean())
    assert (found.hit_rate, found.false_alarm_rate) == pytest.approx((said[positive].mean(), said[~positive].mean()))


def test_a_threshold_is_one_half_where_that_is_as_good_and_else_in_the_middle_of_the_gap() -> None:
    assert choose_threshold([True, True, False, False], [0.9, 0.8, 0.4, 0.1]).threshold == 0.5
    assert choose_threshold([True, True, False, False], [0.99, 0.9, 0.8, 0.1]).threshold == pytest.approx(0.85)
    assert choose_threshold([True, True, False, False], [0.3, 0.2, 0.1, 0.0]).threshold == pytest.approx(0.15)


def test_the_nearest_of_several_best_gaps_is_taken() -> None:
    # One error with any of the two gaps: below 0.9, and below 0.45.
    found = choose_threshold([True, False, True, False], [0.9, 0.6, 0.45, 0.1])
    assert found.threshold == pytest.approx((0.45 + 0.1) / 2)


def test_no_false_alarm_at_all_can_be_asked_for() -> None:
    found = choose_threshold([True, True, False], [0.9, 0.5, 0.7], "max_false_alarm_rate", max_false_alarm_rate=0.0)
    assert (found.hit_rate, found.false_alarm_rate, found.threshold) == (0.5, 0.0, pytest.approx(0.8))
    highest = choose_threshold([True, False], [0.5, 1.0], "max_false_alarm_rate", max_false_alarm_rate=0.0)
    assert highest.threshold > 1
    assert highest.hit_rate == 0


@pytest.mark.parametrize(("positive", "probs"), [([], []), ([True], [0.1, 0.2]), ([True, False], [0.1, math.nan])])
def test_what_is_no_table_of_clips_is_refused(positive: list[bool], probs: list[float]) -> None:
    with pytest.raises(ValueError, match="one clip at least|not finite"):
        brier_score(positive, probs)


def test_a_criterion_of_no_such_name_is_refused() -> None:
    with pytest.raises(ValueError, match="use balanced_accuracy"):
        choose_threshold([True, False], [0.9, 0.1], "luck")
