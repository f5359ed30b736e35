"""Bands around curves: where they lie, what makes them wide, and when there are none."""

from __future__ import annotations

import numpy as np
import pytest

from audiograft.metrics.curve_bands import curve_bands
from audiograft.metrics.ranking import pr_points, roc_points


def scored(n: int, seed: int, distance: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    positive = draw.random(n) < 0.5
    return positive, 1 / (1 + np.exp(-draw.normal(np.where(positive, distance, -distance) / 2)))


def test_the_curves_of_the_sample_lie_in_their_bands() -> None:
    positive, probs = scored(400, 0)
    found = curve_bands(positive, probs, [None] * 400, resamples=400)
    assert found
    roc, precision = found
    points = roc_points(positive, probs)
    hits = np.interp(roc.grid, points.false_alarm_rates, points.hit_rates)
    inner = (roc.grid > 0.02) & (roc.grid < 0.98)
    assert ((roc.low <= hits + 1e-9) & (hits <= roc.high + 1e-9))[inner].all()
    assert (np.diff(roc.low) >= -1e-12).all()
    line = pr_points(positive, probs)
    shares = np.array([line.precisions[line.recalls >= recall][0] for recall in precision.grid[5:-1]])
    assert ((precision.low[5:-1] <= shares + 1e-9) & (shares <= precision.high[5:-1] + 1e-9)).mean() > 0.95


def test_a_band_is_of_the_curve_and_no_bar_of_one_height() -> None:
    """As wide as the area's interval everywhere would be wrong: at a false-alarm rate of 1 all curves meet."""
    positive, probs = scored(200, 1)
    found = curve_bands(positive, probs, [None] * 200, resamples=300)
    assert found
    widths = found[0].high - found[0].low
    assert widths[-1] == 0
    assert widths[5:20].min() > 0.02


def test_recordings_that_say_the_same_make_bands_wider() -> None:
    positive, probs = scored(60, 2)
    copies = 10
    alone = curve_bands(np.repeat(positive, copies), np.repeat(probs, copies), [None] * (60 * copies), resamples=300)
    whole = curve_bands(np.repeat(positive, copies), np.repeat(probs, copies), [str(i // copies) for i in range(60 * copies)], resamples=300)
    assert alone
    assert whole
    assert (whole[0].high - whole[0].low).mean() > 2 * (alone[0].high - alone[0].low).mean()


def test_the_pointwise_bands_hold_the_truth_about_as_often_as_they_say() -> None:
    from scipy import stats

    held, widths = [], []
    for seed in range(60):
        positive, probs = scored(150, seed)
        found = curve_bands(positive, probs, [None] * 150, points=21, resamples=200)
        assert found
        grid = found[0].grid[2:15]
        truth = stats.norm.sf(stats.norm.isf(grid) - 1.5)
        widths.append(found[0].high[2:15] - found[0].low[2:15])
        held.append((found[0].low[2:15] <= truth) & (truth <= found[0].high[2:15]))
    assert np.mean(held) > 0.9  # 96 % of 200 samples
    assert np.mean(widths) < 0.3  # twice that of four times as many clips


def test_without_two_classes_or_two_recordings_there_is_no_band() -> None:
    positive, probs = scored(20, 3)
    assert curve_bands([True] * 20, probs, [None] * 20) is None
    assert curve_bands([False] * 20, probs, [None] * 20) is None
    assert curve_bands([True] + [False] * 19, probs, [None] * 20) is None  # most draws lack the one
    assert curve_bands(positive[:1], probs[:1], [None]) is None


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="3 clips, 2 probabilities and 3 recordings"):
        curve_bands([True, False, True], [0.1, 0.2], [None] * 3)
