"""The mixed model of SNR, duration and recordings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import optimize, special

from audiograft.metrics.mixed_model import TERMS, _loss, _Table, fit_mixed_model, predict_accuracy

TRUTH = (2.0, 1.0, 0.8, 0.3)
Clips = tuple[np.ndarray, list[float], list[float], list[str]]


def draw(n_recordings: int = 40, spread: float = 1.0, seed: int = 0, truth: tuple[float, ...] = TRUTH) -> Clips:
    """One clip of each recording at each duration and SNR."""
    rng = np.random.default_rng(seed)
    durations, snrs = (grid.ravel() for grid in np.meshgrid([200.0, 400.0, 600.0, 800.0, 1000.0], [0.0, 5.0, 10.0, 15.0, 20.0]))
    durations, snrs = np.tile(durations, n_recordings), np.tile(snrs, n_recordings)
    recording = np.arange(n_recordings).repeat(25)
    x, y = ((column - column.mean()) / column.std() for column in (snrs, np.log2(durations)))
    logits = np.column_stack([np.ones(len(x)), x, y, x * y]) @ np.array(truth) + rng.normal(0, spread, n_recordings)[recording]
    return rng.random(len(x)) < special.expit(logits), durations.tolist(), snrs.tolist(), [f"r{i}" for i in recording]


def test_known_coefficients_lie_within_their_intervals() -> None:
    found = [fit_mixed_model(*draw(seed=seed)) for seed in range(10)]
    for term, truth in zip(TERMS, TRUTH, strict=True):
        values = [one["coefficients"][term] for one in found]
        assert np.mean([one["value"] for one in values]) == pytest.approx(truth, abs=0.2)
        assert np.mean([one["low"] <= truth <= one["high"] for one in values]) >= 0.7
    assert np.mean([one["recording_sd"]["value"] for one in found]) == pytest.approx(1.0, abs=0.2)
    assert np.mean([one["recording_sd"]["low"] <= 1 <= one["recording_sd"]["high"] for one in found]) >= 0.8
    assert all(one["converged"] for one in found)


def test_recordings_that_are_alike_are_not_told_apart() -> None:
    found = [fit_mixed_model(*draw(spread=0.0, seed=seed))["recording_sd"]["low"] for seed in range(4)]
    assert sum(low == 0 for low in found) >= 3


def test_without_spread_it_is_logistic_regression() -> None:
    import statsmodels.api as sm

    right, durations, snrs, recordings = draw(spread=0.0, seed=1)
    found = fit_mixed_model(right, durations, snrs, recordings)
    x, y = (np.array(snrs), np.log2(durations))
    x, y = ((column - column.mean()) / column.std() for column in (x, y))
    plain = sm.GLM(right.astype(float), np.column_stack([np.ones(len(x)), x, y, x * y]), family=sm.families.Binomial()).fit()
    assert [found["coefficients"][term]["value"] for term in TERMS] == pytest.approx(plain.params, abs=0.05)


def test_the_gradient_is_that_of_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    table = _Table(
        np.column_stack([np.ones(12), rng.normal(size=(12, 3))]), rng.integers(0, 4, 12).astype(float), np.full(12, 4.0), np.arange(12) // 3
    )
    at = np.array([0.5, -0.3, 0.2, 0.1, -0.4])
    numeric = optimize.approx_fprime(at, lambda parameters: _loss(parameters, table)[0], 1e-6)
    assert _loss(at, table)[1] == pytest.approx(numeric, abs=1e-4)


def test_predictions_are_of_all_recordings_and_the_contour_is_where_75_percent_are_right() -> None:
    right, durations, snrs, recordings = draw(100, 1.5, truth=(1.0, 1.0, 0.8, 0.3))
    found = fit_mixed_model(right, durations, snrs, recordings)
    place = (np.array(durations) == 400) & (np.array(snrs) == 10)
    assert predict_accuracy(found, np.array([[400.0]]), np.array([[10.0]])) == pytest.approx(np.array([[right[place].mean()]]), abs=0.1)
    inside = [row for row in found["contour"] if row["snr_db"] is not None]
    assert inside
    for row in inside:
        assert 0 <= row["snr_db"] <= 20
        assert predict_accuracy(found, np.array([row["duration_ms"]]), np.array([row["snr_db"]]))[0] == pytest.approx(0.75, abs=1e-6)
    assert [row["duration_ms"] for row in found["contour"]] == [200, 400, 600, 800, 1000]
    assert json.loads(json.dumps(found)) == found


def test_the_contour_is_not_followed_beyond_the_snrs_measured() -> None:
    easy, hard = (fit_mixed_model(*draw(seed=2, truth=truth))["contour"] for truth in ((4.0, 0.5, 0.5, 0.0), (-2.0, 0.5, 0.5, 0.0)))
    assert all(row["snr_db"] is None and row["reason"].startswith("75% and more at all SNRs measured, 0 to 20 dB") for row in easy)
    assert all(row["snr_db"] is None and row["reason"].startswith("less than 75% at all SNRs measured") for row in hard)


def test_clips_without_a_condition_are_left_out_and_counted() -> None:
    right, durations, snrs, recordings = draw()
    found = fit_mixed_model(right, [None if i < 30 else value for i, value in enumerate(durations)], snrs, recordings)
    assert (found["left_out"], found["n"], found["n_recordings"]) == (30, 970, 39)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"snr_db": [5.0] * 1000}, "all clips have the same of their SNRs"),
        ({"duration_ms": [200.0] * 1000}, "all clips have the same of their durations"),
        ({"duration_ms": [None] * 1000}, "no clip states both"),
        ({"right": [True] * 1000}, "0 wrong of 1000 clips are too few"),
        ({"right": [i < 9 for i in range(1000)]}, "9 right of 1000 clips are too few"),
        ({"recordings": None}, "no recording has two clips"),
        ({"recordings": ["a", "b"] * 500}, "there are 2 recordings"),
    ],
)
def test_clips_that_cannot_carry_it_are_refused(change: dict[str, object], refused: str) -> None:
    clips = dict(zip(("right", "duration_ms", "snr_db", "recordings"), draw(), strict=True)) | change
    found = fit_mixed_model(**clips)
    assert list(found) == ["refused"]
    assert refused in found["refused"]


def test_answers_that_snr_tells_without_an_exception_are_refused() -> None:
    _, durations, snrs, recordings = draw()
    assert "hardly an exception" in fit_mixed_model(np.array(snrs) > 7, durations, snrs, recordings)["refused"]
