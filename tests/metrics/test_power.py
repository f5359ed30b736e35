"""Power: against statsmodels and the published formula, and reached in simulation by the tests that compare uses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from audiograft.metrics.paired import mapsswe, mcnemar, paired_difference
from audiograft.metrics.power import (
    Speakers,
    Spread,
    accuracy_power,
    assumed_discordance,
    assumed_variance,
    clips_for_accuracy,
    clips_for_wer,
    intraclass_correlation,
    mcnemar_power,
    measured_dispersion,
    measured_spread,
    speakers_needed,
    wer_power,
)
from audiograft.metrics.word_errors import ErrorCounts

SPREAD = Spread(15.0, assumed_variance(0.05, 15, 2.0, 0.5))


def counts(errors: np.ndarray, words: int) -> list[ErrorCounts]:
    return [ErrorCounts(words - int(e), int(e)) for e in errors]


@pytest.mark.parametrize("n_clips", [10, 50, 400, 2000])
def test_power_of_wer_is_statsmodels_of_the_paired_t_test(n_clips: int) -> None:
    effect = 0.01 * SPREAD.words / math.sqrt(SPREAD.variance)
    assert wer_power(SPREAD, 0.01, n_clips) == pytest.approx(TTestPower().power(effect, n_clips, 0.05), abs=2e-3)


def test_the_variance_that_is_assumed() -> None:
    assert SPREAD.variance == pytest.approx(2 * 0.75 * 2.0 * 0.5)  # two Poisson counts of 0.75 errors, twice as spread, half of it shared


@pytest.mark.parametrize("difference", [0.005, 0.01, 0.03])
def test_the_clips_needed_have_the_power_and_one_fewer_has_not(difference: float) -> None:
    needed = clips_for_wer(SPREAD, difference)
    assert needed is not None
    assert wer_power(SPREAD, difference, needed) >= 0.8 > wer_power(SPREAD, difference, needed - 1)


def test_the_power_for_wer_is_reached_by_mapsswe() -> None:
    """Errors with the assumed dispersion and correlation: a common part for both systems, and one of their own."""
    rng = np.random.default_rng(0)
    words, rate, gain = 15, 0.05, 0.02
    spread = Spread(words, assumed_variance(rate, words, 2.0, 0.5))
    needed = clips_for_wer(spread, gain)
    assert needed is not None
    found = np.zeros(1500)
    for trial in range(1500):
        common = 2 * rng.poisson(rate * words / 4, needed)  # doubled counts have twice the variance of Poisson's
        a, b = (common + 2 * rng.poisson((rate + shift) * words / 2 - rate * words / 4, needed) for shift in (gain / 2, -gain / 2))
        found[trial] = mapsswe(a.tolist(), b.tolist()).p_value
    assert np.mean(found < 0.05) == pytest.approx(0.8, abs=0.03)


def test_the_power_with_speakers_is_reached_by_the_bootstrap_over_speakers() -> None:
    rng = np.random.default_rng(1)
    words, n_speakers, intraclass, variance = 20, 25, 0.2, 3.0
    spread = Spread(words, variance, Speakers(intraclass, n_speakers))
    needed = clips_for_wer(spread, 0.04)
    assert needed is not None
    each = round(needed / n_speakers)
    names = [str(i) for i in range(n_speakers) for _ in range(each)]
    expected = wer_power(spread, 0.04, each * n_speakers)
    p_values = []
    for trial in range(900):
        own = np.repeat(rng.normal(0, math.sqrt(variance * intraclass), n_speakers), each)
        errors = np.rint(10 + own + rng.normal(-0.04 * words, math.sqrt(variance * (1 - intraclass) - 1 / 12), len(names)))
        p_values.append(paired_difference(counts(np.full(len(names), 10), words), counts(errors, words), names, 200, seed=trial).p_value)
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(expected, abs=0.03)


def test_too_few_speakers_are_enough_for_no_number_of_clips() -> None:
    few, enough = Speakers(0.05, 40), Speakers(0.05, 1000)
    assert clips_for_wer(Spread(15, 1.5, few), 0.003) is None
    independent, clustered = clips_for_wer(Spread(15, 1.5), 0.003), clips_for_wer(Spread(15, 1.5, enough), 0.003)
    assert independent is not None
    assert clustered is not None
    assert clustered > independent
    needed = speakers_needed(independent, 0.05)
    assert clips_for_wer(Spread(15, 1.5, Speakers(0.05, needed - 5)), 0.003) is None
    assert clips_for_wer(Spread(15, 1.5, Speakers(0.05, needed + 5)), 0.003) is not None


def test_the_design_effect_is_kishs() -> None:
    assert Speakers(0.1, 20).design_effect(200) == pytest.approx(1 + 9 * 0.1)
    assert Speakers(0.1, None, 10).design_effect(999) == pytest.approx(1 + 9 * 0.1)
    assert Speakers(0.1, 20).design_effect(10) == Speakers().design_effect(10) == 1


@pytest.mark.parametrize(("difference", "discordance"), [(0.05, 0.15), (0.02, 0.08), (0.1, 0.1), (0.002, 0.03)])
def test_clips_for_accuracies_are_near_connors_formula(difference: float, discordance: float) -> None:
    """n = (z_a sqrt(discordance) + z_b sqrt(discordance - difference^2))^2 / difference^2; the exact test needs a few more."""
    z_a, z_b = stats.norm.ppf([0.975, 0.8])
    formula = ((z_a * math.sqrt(discordance) + z_b * math.sqrt(discordance - difference**2)) / difference) ** 2
    needed = clips_for_accuracy(difference, discordance)
    assert needed is not None
    assert formula * 0.95 <= needed <= formula * 1.1 + 2 / difference


def test_the_power_of_mcnemar_is_reached_in_simulation() -> None:
    rng = np.random.default_rng(2)
    difference, discordance = 0.06, 0.16
    needed = clips_for_accuracy(difference, discordance)
    assert needed is not None
    rejected = 0
    for _ in range(1500):
        drawn = rng.choice(3, needed, p=[(discordance - difference) / 2, (discordance + difference) / 2, 1 - discordance])
        rejected += mcnemar((drawn != 1).tolist(), (drawn != 0).tolist()).p_value < 0.05
    assert rejected / 1500 == pytest.approx(0.8, abs=0.03)


def test_the_exact_power_meets_the_formula_where_it_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = mcnemar_power(0.002, 0.05, 100_000)
    monkeypatch.setattr("audiograft.metrics.power._MOST_EXACT", 1)
    assert mcnemar_power(0.002, 0.05, 100_000) == pytest.approx(exact, abs=0.005)


def test_without_a_difference_the_exact_test_keeps_its_level() -> None:
    assert mcnemar_power(0.0, 0.0, 100) == 0
    for n_clips in (5, 30, 200, 2000):
        assert mcnemar_power(0.0, 0.2, n_clips) <= 0.05


def test_five_differing_clips_can_not_show_anything() -> None:
    assert mcnemar_power(0.9999, 1.0, 5) == 0  # 2 / 2**5 is above 0.05
    assert mcnemar_power(0.9999, 1.0, 6) > 0.99


def test_speakers_make_clips_worth_less() -> None:
    assert accuracy_power(0.05, 0.15, 1000, 0.05, Speakers(0.1, 20)) == mcnemar_power(0.05, 0.15, int(1000 / 5.9))


def test_discordance_is_that_of_independent_systems_without_correlation() -> None:
    assert assumed_discordance(0.8, 0.1, 0.0) == pytest.approx(0.8 * 0.1 + 0.2 * 0.9)
    assert assumed_discordance(0.8, 0.1, 0.99) == pytest.approx(0.1, abs=0.02)
    with pytest.raises(ValueError, match="a discordance between"):
        mcnemar_power(0.2, 0.1, 100)


def test_speakers_too_few_for_the_permutation_test_have_no_power() -> None:
    assert wer_power(Spread(15, 1.5, Speakers(0.0, 5)), 0.9, 1000) == accuracy_power(0.5, 0.5, 1000, 0.05, Speakers(0.0, 5)) == 0
    assert wer_power(Spread(15, 1.5, Speakers(0.0, 6)), 0.9, 1000) > 0.99


def test_the_spread_is_measured_as_it_was_drawn() -> None:
    rng = np.random.default_rng(3)
    speakers = np.repeat(np.arange(300), 12)
    own = rng.normal(0, 1, 300)[speakers]
    errors = np.rint(20 + own + rng.normal(0, 2, len(speakers)))
    names = [str(one) for one in speakers]
    found = measured_spread(counts(np.full(len(names), 20), 50), counts(errors, 50), names)
    assert found.words == 50
    assert found.variance == pytest.approx(5 + 1 / 12, rel=0.07)
    assert found.speakers.intraclass == pytest.approx(0.2, abs=0.04)
    assert (found.speakers.n_speakers, found.speakers.clips_each) == (None, 12)


def test_the_intraclass_correlation_by_hand() -> None:
    # Two speakers with values 1, 3 and 5, 7: mean squares 16 between and 2 within, so (16 - 2) / (16 + 2).
    assert intraclass_correlation([1, 3, 5, 7], ["a", "a", "b", "b"]) == pytest.approx(14 / 18)
    assert intraclass_correlation([1, 3, 1, 3], ["a", "a", "b", "b"]) == 0
    assert intraclass_correlation([1, 2, 3], [None] * 3) == intraclass_correlation([1, 2, 3], ["a"] * 3) == 0


def test_dispersion_of_errors_that_come_one_by_one_is_1() -> None:
    rng = np.random.default_rng(4)
    assert measured_dispersion(counts(rng.poisson(2, 4000), 40)) == pytest.approx(1, abs=0.08)
    assert measured_dispersion(counts(3 * rng.poisson(1, 4000), 40)) == pytest.approx(3, abs=0.25)
    assert measured_dispersion([ErrorCounts(3), ErrorCounts(4)]) == 1


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="two clips"):
        measured_spread([ErrorCounts(1)], [ErrorCounts(1)], [None])
