"""Are probabilities what they say, and at which one should a detector say yes? Temperature and threshold, to be chosen on dev alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize

from audiograft.types import DataError

Array = np.ndarray
Criterion = Literal["balanced_accuracy", "accuracy", "cost", "max_false_alarm_rate"]
CRITERIA: tuple[Criterion, ...] = ("balanced_accuracy", "accuracy", "cost", "max_false_alarm_rate")

LEAST_PROB = 1e-6
"""Probabilities are brought this far from 0 and 1 before their logarithm is taken: a wrong certainty costs 13.8 nats, and not infinitely many."""
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0
_ROUNDING = 1e-12
_AT_BOUND = 1.001
_NO_TEMPERATURE = "the log-odds do not tell the classes apart, so no temperature makes them probabilities: use a detector that is above chance"


@dataclass(frozen=True)
class Bin:
    """Clips of which a detector says much the same.

    Attributes:
        low: lowest P(positive) of the bin, in it.
        high: highest, in the next bin, but for the last one's.
        n: clips.
        mean_prob: their mean P(positive); None where there is none.
        share: of them that are positive; None where there is none.
    """

    low: float
    high: float
    n: int
    mean_prob: float | None
    share: float | None


@dataclass(frozen=True)
class Threshold:
    """From which P(positive) on to say yes, and what that gives on the clips that it was chosen on.

    Attributes:
        threshold: clips with this P(positive) or more are called positive.
        hit_rate: share of the positive clips that are.
        false_alarm_rate: share of the negative clips that are.
        accuracy: share of all clips that are called right.
        balanced_accuracy: mean of the share of positive and the share of negative clips that are called right.
    """

    threshold: float
    hit_rate: float
    false_alarm_rate: float
    accuracy: float
    balanced_accuracy: float


@dataclass(frozen=True)
class Temperature:
    """What log-odds are to be divided by.

    Attributes:
        value: the temperature.
        smoothed: whether it is that of Platt's targets, since no clip was on the wrong side and a plain loss has no minimum.
    """

    value: float
    smoothed: bool


def reliability(positive: Sequence[bool] | Array, probs: Sequence[float] | Array, bins: int = 10) -> list[Bin]:
    """Hold P(positive) against the share of positive clips, in bins of equal width over 0 to 1.

    What is held against P(positive) is how many clips are positive, and not how many were called right: a clip with P = 0.02 that is negative
    was called right, and stands rightly in the lowest bin.

    Args:
        positive: of each clip, whether it is (n_clips,).
        probs: P(positive) of each clip (n_clips,).
        bins: how many.
    """
    truth, said = _arrays(positive, probs)
    place = np.minimum((said * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums, shares = np.bincount(place, said, minlength=bins), np.bincount(place, truth, minlength=bins)
    return [
        Bin(i / bins, (i + 1) / bins, n, float(sums[i]) / n if n else None, float(shares[i]) / n if n else None)
        for i, n in enumerate(counts.tolist())
    ]


def expected_calibration_error(positive: Sequence[bool] | Array, probs: Sequence[float] | Array, bins: int = 10) -> float:
    """Mean distance of P(positive) from the share of positive clips, over the bins of `reliability`, each with its clips as weight.

    After Naeini et al. (2015, "Obtaining well calibrated probabilities using Bayesian binning"). It lies between 0 and 1, and small samples
    make it larger than it is: each bin's share is off by chance.
    """
    filled = [one for one in reliability(positive, probs, bins) if one.n]
    n_clips = sum(one.n for one in filled)
    return math.fsum(one.n / n_clips * abs(one.mean_prob - one.share) for one in filled if one.mean_prob is not None and one.share is not None)


def brier_score(positive: Sequence[bool] | Array, probs: Sequence[float] | Array) -> float:
    """Mean squared distance of P(positive) from 1 where a clip is positive, and from 0 where not (Brier 1950)."""
    truth, said = _arrays(positive, probs)
    return float(np.mean((said - truth) ** 2))


def negative_log_likelihood(positive: Sequence[bool] | Array, probs: Sequence[float] | Array) -> float:
    """Mean of -ln of the probability given to what a clip is, in nats, with probabilities `LEAST_PROB` from 0 and 1 at least."""
    truth, said = _arrays(positive, probs)
    kept = np.clip(said, LEAST_PROB, 1 - LEAST_PROB)
    return float(-np.mean(np.where(truth, np.log(kept), np.log1p(-kept))))


def fit_temperature(log_odds: Sequence[float] | Array, positive: Sequence[bool] | Array) -> Temperature:
    """The temperature by which log-odds are to be divided so that the negative log-likelihood of what clips are is least.

    Guo et al. (2017, "On calibration of modern neural networks"); found between 0.01 and 100 on the scale of its logarithm, where the loss has
    one minimum. 1 is among these, so on the clips of the fit the loss is never more than without a temperature.

    Where no clip is on the wrong side of 0.5 there is no least loss: the lower the temperature the better, as if no error were possible. There
    the targets are Platt's (1999, "Probabilistic outputs for support vector machines"): (n + 1) / (n + 2) for n positive clips, 1 / (n + 2) for n
    negative ones, instead of 1 and 0; and the loss may rise. Elsewhere they would only make the loss larger than it need be. Decisions at 0.5 do
    not change.

    Args:
        log_odds: ln P(positive) - ln P(negative), untempered, finite (n_clips,).
        positive: of each clip, whether it is (n_clips,).

    Raises:
        DataError: clips of one class only, or log-odds that know nothing of the class or have it the wrong way round, so that no temperature
            helps.
    """
    truth, odds = _arrays(positive, log_odds)
    n_positive = int(truth.sum())
    _both_classes(n_positive, len(truth), "a temperature")
    # The slope of the loss at 1 / T = 0: only where true classes go with larger log-odds is any finite temperature better than none.
    if float(np.mean(odds * (truth - 0.5))) <= _ROUNDING:
        raise DataError(_NO_TEMPERATURE)
    separable = bool((np.where(truth, odds, -odds) >= 0).all())
    if not separable:
        found = _least_loss(odds, truth)
        if found > LOWEST_TEMPERATURE * _AT_BOUND:
            return Temperature(found, smoothed=False)
    return Temperature(_least_loss(odds, np.where(truth, (n_positive + 1) / (n_positive + 2), 1 / (len(truth) - n_positive + 2))), smoothed=True)


def _least_loss(odds: Array, targets: Array) -> float:
    """The temperature of the least cross-entropy.

    Raises:
        DataError: it is at the upper bound.
    """

    def loss(log_temperature: float) -> float:
        tempered = odds * math.exp(-log_temperature)
        return float(np.mean(np.logaddexp(0, tempered) - targets * tempered))

    ends = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
    found = math.exp(float(optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-8}).x))
    if found * _AT_BOUND > HIGHEST_TEMPERATURE:
        raise DataError(_NO_TEMPERATURE)
    return found


def choose_threshold(
    positive: Sequence[bool] | Array,
    probs: Sequence[float] | Array,
    criterion: Criterion = "balanced_accuracy",
    *,
    max_false_alarm_rate: float = 0.05,
    miss_cost: float = 1.0,
    false_alarm_cost: float = 1.0,
) -> Threshold:
    """The threshold on P(positive) that is best by a criterion.

    Between two neighbouring probabilities all thresholds are alike; the one in the middle is taken, or 0.5 where it lies between them. Of
    several best gaps it is the one that comes nearest to 0.5.

    Args:
        positive: of each clip, whether it is (n_clips,).
        probs: P(positive) of each clip, between 0 and 1 (n_clips,).
        criterion: `balanced_accuracy` or `accuracy`, to be highest; `cost`, the mean cost of a clip, to be lowest; `max_false_alarm_rate`, the
            highest hit rate at no more false alarms than are allowed.
        max_false_alarm_rate: share of negative clips that may be called positive, for the criterion of that name.
        miss_cost: of a positive clip that is called negative, for `cost`.
        false_alarm_cost: of a negative clip that is called positive, for `cost`.

    Raises:
        DataError: clips of one class only.
        ValueError: no such criterion, or probabilities that are none.
    """
    truth, said = _arrays(positive, probs)
    if criterion not in CRITERIA:
        raise ValueError(f"unknown criterion {criterion!r}: use {', '.join(CRITERIA)}")
    n_positive, n_negative = int(truth.sum()), int((~truth).sum())
    _both_classes(n_positive, len(truth), "a threshold")
    values, hits, alarms = _operating_points(truth, said)
    hit_rate, alarm_rate = hits / n_positive, alarms / n_negative
    accuracy, balanced = (hits + n_negative - alarms) / len(truth), (hit_rate + 1 - alarm_rate) / 2
    merits = {
        "balanced_accuracy": balanced,
        "accuracy": accuracy,
        "cost": -((n_positive - hits) * miss_cost + alarms * false_alarm_cost) / len(truth),
        "max_false_alarm_rate": np.where(alarm_rate <= max_false_alarm_rate + _ROUNDING, hit_rate, -alarm_rate),
    }[criterion]
    thresholds = _middles(values)
    best = np.flatnonzero(merits >= merits.max() - _ROUNDING)
    chosen = int(best[np.argmin(np.abs(thresholds[best] - 0.5))])
    return Threshold(*(float(column[chosen]) for column in (thresholds, hit_rate, alarm_rate, accuracy, balanced)))


def _operating_points(truth: Array, said: Array) -> tuple[Array, Array, Array]:
    """The distinct probabilities, falling (n,); and of the n + 1 thresholds above, between and below them how many hits and false alarms."""
    order = np.argsort(-said, kind="stable")
    last = np.flatnonzero(np.append(np.diff(said[order]) != 0, True))
    hits, alarms = np.cumsum(truth[order])[last], np.cumsum(~truth[order])[last]
    return said[order][last], np.append(0, hits), np.append(0, alarms)


def _middles(values: Array) -> Array:
    """A threshold above the first of falling values, one in each gap, one below the last: 0.5 where it fits, else the middle."""
    upper, lower = np.append(max(1.0, values[0]), values), np.append(values, min(0.0, values[-1]))
    middle = (upper + lower) / 2
    # At the threshold itself a clip counts as positive: so 0.5 fits where it is above the lower value, and no higher than the upper one.
    middle = np.where((lower < 0.5) & (upper >= 0.5), 0.5, middle)
    if values[0] >= 1:
        middle[0] = np.nextafter(values[0], 2)  # above a probability of 1: nothing is called positive
    return middle


def _both_classes(n_positive: int, n_clips: int, what: str) -> None:
    if n_positive in (0, n_clips):
        raise DataError(f"all {n_clips} clips are {'positive' if n_positive else 'negative'}: {what} is chosen on clips of both classes")


def _arrays(positive: Sequence[bool] | Array, values: Sequence[float] | Array) -> tuple[Array, Array]:
    """As a boolean and a float array.

    Raises:
        ValueError: no clip, lengths that differ, or values that are not finite.
    """
    truth, numbers = np.asarray(positive, dtype=bool), np.asarray(values, dtype=float)
    if not len(truth) or truth.shape != numbers.shape:
        raise ValueError(f"one value a clip and one clip at least: got {len(truth)} clips and {len(numbers)} values")
    if not np.isfinite(numbers).all():
        raise ValueError("values that are not finite")
    return truth, numbers
