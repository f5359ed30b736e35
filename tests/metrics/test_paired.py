"""Paired tests against SciPy and statsmodels, published examples, and the error rates that they promise."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ztest

from audiograft.metrics.intervals import cluster_bootstrap
from audiograft.metrics.paired import holm, mapsswe, mcnemar, paired_difference
from audiograft.metrics.permutation import cluster_permutation, fewest_clusters, lowest_p
from audiograft.metrics.word_errors import ErrorCounts


def counts(errors: np.ndarray | list[int], words: int = 20) -> list[ErrorCounts]:
    return [ErrorCounts(words - int(e), int(e)) for e in errors]


def rights(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    cells = [(True, True)] * both + [(True, False)] * only_a + [(False, True)] * only_b + [(False, False)] * neither
    return [a for a, _ in cells], [b for _, b in cells]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_statsmodels_exact(only_a: int, only_b: int, both: int) -> None:
    found = mcnemar(*rights(both, only_a, only_b, 3))
    assert found.p_value == pytest.approx(statsmodels_mcnemar([[both, only_a], [only_b, 3]], exact=True).pvalue)
    assert (found.only_a, found.only_b, found.n) == (only_a, only_b, both + only_a + only_b + 3)


def test_mcnemar_of_system_c_proves_nothing() -> None:
    """4 clips against 1 in 96: chi-squared p 0.37, exact 0.375, and it was called clearly superior, with z for an effect size."""
    found = mcnemar(*rights(91, 1, 4, 0))
    assert found.p_value == 0.375
    assert found.odds_ratio == 4
    assert found.cohens_g == pytest.approx(0.3)
    assert found.odds_interval is not None
    assert found.odds_interval[0] < 1 < (found.odds_interval[1] or 0)
    assert found.g_interval is not None
    assert found.g_interval[0] < 0 < found.g_interval[1]


def test_effect_sizes_are_of_the_exact_interval_of_the_differing_clips() -> None:
    found = mcnemar(*rights(10, 5, 20, 10))
    low, high = stats.beta.ppf([0.025, 0.975], [20, 21], [6, 5])  # Clopper and Pearson, by their definition
    assert found.odds_interval == pytest.approx((low / (1 - low), high / (1 - high)))
    assert found.g_interval == pytest.approx((low - 0.5, high - 0.5))
    narrower = mcnemar(*rights(10, 5, 20, 10), confidence=0.8)
    assert narrower.odds_interval is not None
    assert narrower.odds_interval[0] > found.odds_interval[0]  # type: ignore[index]


def test_odds_that_are_infinite_or_not_there_are_none() -> None:
    one_sided, same = mcnemar(*rights(5, 0, 8, 0)), mcnemar(*rights(5, 0, 0, 3))
    assert one_sided.odds_ratio is None
    assert one_sided.odds_interval is not None
    assert one_sided.odds_interval[1] is None
    assert (same.p_value, same.odds_ratio, same.odds_interval, same.cohens_g, same.g_interval) == (1.0, None, None, None, None)


def test_mapsswe_is_the_z_test_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.poisson(2, 200), rng.poisson(1.8, 200)
    found = mapsswe(a.tolist(), b.tolist())
    statistic, p_value = ztest(b - a)
    assert (found.statistic, found.p_value) == pytest.approx((statistic, p_value))
    assert (found.mean, found.n_segments) == (pytest.approx((b - a).mean()), 200)


def test_mapsswe_by_hand() -> None:
    found = mapsswe([2, 1, 0, 3], [1, 1, 1, 0])  # differences -1, 0, 1, -3: mean -3/4, variance 35/12
    assert found.statistic == pytest.approx(-0.75 / (35 / 12 / 4) ** 0.5)


def test_mapsswe_without_spread() -> None:
    assert mapsswe([1, 2], [1, 2]) == mapsswe([0, 0], [0, 0])
    assert (mapsswe([1, 2], [1, 2]).p_value, mapsswe([1, 2], [2, 3]).p_value) == (1.0, 0.0)


@pytest.mark.parametrize(("a", "b"), [([1], [2]), ([1, 2], [1, 2, 3])])
def test_mapsswe_refuses_too_few(a: list[int], b: list[int]) -> None:
    with pytest.raises(ValueError, match="2 segments at least"):
        mapsswe(a, b)


@pytest.mark.parametrize("p_values", [[0.3], [0.01, 0.04, 0.03], [0.04, 0.001, 0.9, 0.9, 0.02], [0.0, 1.0, 0.5, 0.5]])
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holm_of_nothing() -> None:
    assert holm([]) == []


def test_whole_speakers_are_swapped_by_hand() -> None:
    # Three speakers with sums -3, -2, +1: of the 8 ways to swap, sums of at least 4 in size are those of -3-2+1 and -3-2-1, both ways.
    assert cluster_permutation([-1, -2, -2, 1], ["a", "a", "b", "c"]) == pytest.approx(4 / 8)
    sums = [abs(sum(s * d for s, d in zip(signs, (-3, -2, 1), strict=True))) for signs in product((1, -1), repeat=3)]
    assert np.mean(np.array(sums) >= 4) == 4 / 8


def test_four_speakers_prove_nothing_however_many_clips() -> None:
    assert cluster_permutation([-1] * 400, [f"s{i % 4}" for i in range(400)]) == pytest.approx(2 / 2**4)
    assert cluster_permutation([-1] * 400, [None] * 400) < 0.001
    assert cluster_permutation([0, 0, 0], ["a", "b", "c"]) == 1.0


@pytest.mark.parametrize("n_speakers", range(2, 9))
def test_the_lowest_p_is_that_of_speakers_who_all_differ_one_way(n_speakers: int) -> None:
    found = cluster_permutation([-1.0] * n_speakers + [-2.0], [*map(str, range(n_speakers)), "0"])
    assert found == pytest.approx(lowest_p(n_speakers))
    assert (found < 0.05) == (n_speakers >= fewest_clusters(0.05))


def test_the_difference_is_that_of_the_rates_with_its_interval() -> None:
    rng = np.random.default_rng(1)
    speakers = [f"s{i % 30}" for i in range(600)]
    hard = rng.gamma(1, 1, 600)
    a, b = counts(np.minimum(rng.poisson(2 * hard), 20)), counts(np.minimum(rng.poisson(1.6 * hard), 20))
    found = paired_difference(a, b, speakers)
    rate_a, rate_b = (sum(c.errors for c in side) / 12_000 for side in (a, b))
    assert found.difference == pytest.approx(rate_b - rate_a)
    assert found.relative == pytest.approx(rate_b / rate_a - 1)
    assert found.interval.low < found.difference < found.interval.high < 0
    assert found.p_value < 0.05
    assert found.relative_interval is not None
    assert found.relative_interval.low < found.relative < found.relative_interval.high < 0
    alone = cluster_bootstrap(a, speakers)
    assert found.interval.high - found.interval.low < 0.8 * (alone.high - alone.low)  # what is hard for both cancels out


def test_p_is_below_005_just_where_the_interval_leaves_0_out() -> None:
    rng = np.random.default_rng(2)
    decided = []
    for trial in range(120):
        units = [f"s{i % 12}" for i in range(60)]
        found = paired_difference(counts(rng.poisson(2, 60)), counts(rng.poisson(1.5, 60)), units, resamples=300, seed=trial)
        assert (found.p_value < 0.05) == (not found.interval.low <= 0 <= found.interval.high)
        decided.append(found.p_value < 0.05)
    assert 10 < sum(decided) < 110


def test_for_many_independent_clips_it_is_the_t_test() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.binomial(20, 0.10, 800), rng.binomial(20, 0.092, 800)
    found = paired_difference(counts(a), counts(b), [None] * 800, resamples=4000)
    expected = stats.ttest_rel(b, a)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.015)
    interval = expected.confidence_interval()
    assert (found.interval.low * 20, found.interval.high * 20) == pytest.approx((interval.low, interval.high), abs=0.02)
    assert found.error == pytest.approx(found.error_of_independent, rel=0.01)


def test_systems_that_differ_by_speaker_are_not_told_apart_by_clips() -> None:
    """Alike on average; each speaker suits one of the two. MAPSSWE takes clips for independent and cries wolf, the others keep the level."""
    rng = np.random.default_rng(4)
    alarms = np.zeros(3)
    trials = 200
    for trial in range(trials):
        speakers = np.repeat(np.arange(20), 20)
        suits = np.exp(rng.normal(0, 0.4, 20))[speakers]
        a, b = rng.poisson(1.5 * suits), rng.poisson(1.5 / suits)
        names = [str(one) for one in speakers]
        p_values = (
            mapsswe(a.tolist(), b.tolist()).p_value,
            paired_difference(counts(a, 40), counts(b, 40), names, resamples=300, seed=trial).p_value,
            cluster_permutation((b - a).tolist(), names, permutations=200, seed=trial),
        )
        alarms += np.array(p_values) < 0.05
    assert alarms[0] / trials > 0.3
    assert (alarms[1:] / trials < 0.09).all()


def test_references_that_differ_in_length_between_systems_are_rates_all_the_same() -> None:
    """As they do where a normaliser merges compound words on the count side."""
    a, b = [ErrorCounts(8, 2), ErrorCounts(9, 1)], [ErrorCounts(8, 1), ErrorCounts(9, 1)]
    assert paired_difference(a, b, [None, None]).difference == pytest.approx(2 / 19 - 3 / 20)


def test_runs_without_a_difference_or_without_errors() -> None:
    same = paired_difference(counts([1, 2, 0, 4]), counts([1, 2, 0, 4]), [None] * 4)
    assert (same.difference, same.p_value, same.error, same.interval.low, same.interval.high) == (0, 1, 0, 0, 0)
    perfect = paired_difference(counts([0, 0, 0]), counts([1, 0, 2]), ["a", "b", "c"])
    assert perfect.difference > 0
    assert (perfect.relative, perfect.relative_interval) == (None, None)


def test_what_can_not_be_paired_is_refused() -> None:
    with pytest.raises(ValueError, match="as many counts"):
        paired_difference(counts([1]), counts([1, 2]), [None])
    with pytest.raises(ValueError, match="no reference has a word"):
        paired_difference([ErrorCounts(insertions=1)] * 2, [ErrorCounts()] * 2, [None] * 2)
