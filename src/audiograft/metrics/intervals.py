"""Confidence intervals for rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from audiograft.metrics.bootstrap import FEW_CLUSTERS, FEW_DEGREES, Array, Bootstrap, Statistic, as_units, bootstrap
from audiograft.metrics.word_errors import ErrorCounts


@dataclass(frozen=True)
class Interval:
    """A confidence interval of a rate.

    Attributes:
        low: lower end, as a rate; None where it can't be known, which `warning` explains.
        high: upper end, likewise.
        confidence: e.g. 0.95.
        method: `cluster-bootstrap-t`, or `utterance-bootstrap-t` where each utterance was drawn by itself; `cluster-t` or `utterance-t` where
            clusters are too few or too unequal, or errors too rare, for draws to say more than Student's distribution; `wilson`; `none` where there
            are no ends.
        n_clusters: how many units were drawn from: speakers, or utterances.
        warning: what to tell whoever reads the interval; None where there is nothing.
    """

    low: float | None
    high: float | None
    confidence: float
    method: str
    n_clusters: int
    warning: str | None = None


def cluster_bootstrap(
    counts: Sequence[ErrorCounts],
    clusters: Sequence[str | None],
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the corpus error rate by a bootstrap that draws whole clusters, usually speakers.

    The bootstrap over utterances of Bisani and Ney (2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation")
    takes utterances for independent. Those of one speaker are not, and treating them so gives intervals that are too narrow; so the units
    drawn, with replacement, are speakers with all their utterances. Quantiles of the rates drawn are too narrow as well where speakers are
    few: so the draws are studentised, on the logarithm of the rate (see `bootstrap`); where few speakers hold most of the words, Student's interval
    is of the rate itself, cut at 0, since on the logarithm its upper end would leave all bounds. `benchmarks/results/interval_coverage.json` has
    how often each holds the truth.

    Args:
        counts: one per utterance.
        clusters: the cluster of each utterance; None is a cluster of its own.
        resamples: bootstrap samples.
        confidence: how often such intervals are to hold the truth.
        seed: same seed, same interval.

    Returns:
        The interval. With one cluster alone nothing can be learnt about other speakers: utterances are drawn instead, and `method` and
        `warning` say so. Without any error it is Wilson's for as many trials as there are clusters: how errors would cluster is not known. Where all
        have the same rate, or there is one utterance, it has no ends.

    Raises:
        ValueError: no utterance, or the two differ in length.
    """
    _check(len(counts), len(clusters), "counts")
    sums = np.array([(count.errors, count.reference_length) for count in counts], dtype=float)
    errors, words = sums.sum(axis=0)
    if not words:
        return Interval(None, None, confidence, "none", len(counts), "no reference has a word, so there is no rate")
    if not errors:
        return clusters_as_trials(0, clusters, confidence)
    drawn = bootstrap(sums, clusters, sums[:, 1], _LOG_RATE, resamples, seed)
    if drawn.degrees >= FEW_DEGREES:
        return make_interval(drawn, confidence, clusters, np.exp)
    return make_interval(bootstrap(sums, clusters, sums[:, 1], _RATE, resamples, seed), confidence, clusters, lambda ends: np.maximum(ends, 0))


def cluster_share(
    right: Sequence[bool],
    clusters: Sequence[str | None],
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    unit: str = "speaker",
) -> Interval:
    """Interval of a share, such as an accuracy, by the bootstrap of `cluster_bootstrap`, on the logit of the share.

    Args:
        right: one per answer.
        clusters: the cluster of each answer; None is a cluster of its own.
        resamples: bootstrap samples.
        confidence: how often such intervals are to hold the truth.
        seed: same seed, same interval.
        unit: what a cluster is called in warnings.

    Returns:
        The interval, between 0 and 1. Where each answer is a cluster of its own it is Wilson's; where all are right, or none is, it is Wilson's
        for as many trials as there are clusters.

    Raises:
        ValueError: no answer, or the two differ in length.
    """
    _check(len(right), len(clusters), "answers")
    n_right = int(sum(right))
    n_clusters = count_clusters(clusters)
    if n_right in (0, len(right)) or n_clusters == len(right):
        return clusters_as_trials(min(n_right, n_clusters), clusters, confidence, unit)
    sums = np.column_stack([np.asarray(right, dtype=float), np.ones(len(right))])
    return make_interval(bootstrap(sums, clusters, sums[:, 1], _LOGIT_SHARE, resamples, seed), confidence, clusters, special.expit, unit)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share of n independent trials (1927, "Probable inference, the law of succession, and statistical inference").

    Raises:
        ValueError: no trial, or more successes than trials.
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes among one trial at least: got {successes} of {n}")
    from scipy import stats  # a second's import

    found = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high), confidence, "wilson", n)


def wilson_ends(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The ends of Wilson's interval of a share that need be no whole number of n trials, such as one between two operating points."""
    z = float(special.ndtri((1 + confidence) / 2))
    centre, spread = share + z**2 / (2 * n), z * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)))
    low, high = (centre - spread) / (1 + z**2 / n), (centre + spread) / (1 + z**2 / n)
    return max(low, 0.0) if share else 0.0, min(high, 1.0) if share < 1 else 1.0


def _rate(sums: Array) -> Array:
    rates: Array = sums[..., 0] / sums[..., 1]
    return rates


def _rate_gradient(sums: Array) -> Array:
    return np.stack([1 / sums[..., 1], -sums[..., 0] / sums[..., 1] ** 2], axis=-1)


def _log_rate(sums: Array) -> Array:
    rates: Array = np.log(sums[..., 0] / sums[..., 1])
    return rates


def _log_rate_gradient(sums: Array) -> Array:
    return np.stack([1 / sums[..., 0], -1 / sums[..., 1]], axis=-1)


def _logit(sums: Array) -> Array:
    logits: Array = np.log(sums[..., 0] / (sums[..., 1] - sums[..., 0]))
    return logits


def _logit_gradient(sums: Array) -> Array:
    wrong = sums[..., 1] - sums[..., 0]
    return np.stack([1 / sums[..., 0] + 1 / wrong, -1 / wrong], axis=-1)


_RATE = Statistic(_rate, _rate_gradient)
_LOG_RATE = Statistic(_log_rate, _log_rate_gradient)
_LOGIT_SHARE = Statistic(_logit, _logit_gradient)


def clusters_as_trials(successes: int, clusters: Sequence[str | None], confidence: float, unit: str = "speaker") -> Interval:
    """Wilson's interval for as many trials as there are clusters: where all are alike, nobody knows how errors would cluster."""
    return replace(wilson(successes, count_clusters(clusters), confidence), warning=few_clusters(clusters, unit))


def make_interval(
    drawn: Bootstrap, confidence: float, clusters: Sequence[str | None], back: Callable[[Array], Array], unit: str = "speaker"
) -> Interval:
    """The interval of what was drawn, its ends brought `back` from the scale of the statistic; without ends where no spread is known."""
    if not drawn.error:
        return Interval(None, None, confidence, "none", drawn.n_clusters, _no_spread(clusters, unit))
    low, high = back(np.array(drawn.ends(confidence)))
    method = f"{'utterance' if drawn.n_clusters == len(clusters) else 'cluster'}{'-bootstrap' if len(drawn.distances) else ''}-t"
    return Interval(float(low), float(high), confidence, method, drawn.n_clusters, few_clusters(clusters, unit))


def _no_spread(clusters: Sequence[str | None], unit: str) -> str:
    if len(clusters) == 1:
        return "one utterance: its spread can't be known, so there is no interval"
    return f"all {count_clusters(clusters)} {_units(clusters, unit)} are alike: their spread can't be known, so there is no interval"


def count_clusters(clusters: Sequence[str | None]) -> int:
    """How many units are drawn from."""
    return int(as_units(clusters).max()) + 1


def few_clusters(clusters: Sequence[str | None], unit: str = "speaker") -> str | None:
    """What to say of an interval of so few clusters; None where they are enough."""
    if len(set(clusters)) == 1 and None not in clusters:
        return f"all of one {unit}: it says nothing about other {unit}s"
    n_clusters = count_clusters(clusters)
    return f"{n_clusters} {_units(clusters, unit)} only: the interval is wide and rough" if n_clusters < FEW_CLUSTERS else None


def _units(clusters: Sequence[str | None], unit: str) -> str:
    return "utterances" if count_clusters(clusters) == len(clusters) else f"{unit}s"


def _check(n_rows: int, n_clusters: int, name: str) -> None:
    if not n_rows or n_rows != n_clusters:
        raise ValueError(f"one cluster an utterance and one utterance at least: got {n_rows} {name} and {n_clusters} clusters")
