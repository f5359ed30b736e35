"""Do two systems differ on the same clips? Tests and effect sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from audiograft.metrics.bootstrap import FEW_DEGREES, Array, Statistic, bootstrap
from audiograft.metrics.intervals import Interval, make_interval
from audiograft.metrics.word_errors import ErrorCounts


@dataclass(frozen=True)
class PairedDifference:
    """How much a rate of the second system differs from that of the first.

    Attributes:
        difference: rate of the second less rate of the first; negative error rates are in the second's favour.
        interval: of the difference, from a paired bootstrap over clusters. Where all differ alike, so that no spread is known, it has no ends, or
            is 0 to 0 where the two never differ; its warning says so.
        p_value: two-sided, of the same bootstrap: below 0.05 just where the 95 % interval leaves 0 out.
        relative: difference as a share of the first rate; None where that is 0.
        relative_interval: None where one of the rates is 0, or a few clusters hold most words, so that it would leave all bounds.
        error: standard error of the difference, over clusters.
        error_of_independent: what it would be if all clips were independent.
    """

    difference: float
    interval: Interval
    p_value: float
    relative: float | None
    relative_interval: Interval | None
    error: float
    error_of_independent: float


def paired_difference(
    counts_a: Sequence[ErrorCounts],
    counts_b: Sequence[ErrorCounts],
    clusters: Sequence[str | None],
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compare two error rates on the same utterances by drawing clusters, each time the same ones for both systems.

    What is hard for both cancels out, so the interval is narrower than those of the two rates let one think (Bisani and Ney 2004, section 4).
    The draws are those of `audiograft.metrics.bootstrap`. Accuracies are rates too: an answer has one word, which is right or wrong.

    Args:
        counts_a: of the first system, one an utterance.
        counts_b: of the second, in the same order.
        clusters: of each utterance; None is a cluster of its own.
        resamples: bootstrap samples.
        confidence: how often such intervals are to hold the truth.
        seed: same seed, same draws.

    Raises:
        ValueError: no utterance, lengths that differ, or no word in the references.
    """
    if not counts_a or not len(counts_a) == len(counts_b) == len(clusters):
        raise ValueError(f"as many counts of both and clusters: got {len(counts_a)}, {len(counts_b)} and {len(clusters)}")
    sums = np.array([(a.errors, a.reference_length, b.errors, b.reference_length) for a, b in zip(counts_a, counts_b, strict=True)], dtype=float)
    errors_a, words_a, errors_b, words_b = sums.sum(axis=0)
    if not words_a or not words_b:
        raise ValueError("no reference has a word, so there is no rate to compare")
    sizes = sums[:, 1] + sums[:, 3]
    drawn = bootstrap(sums, clusters, sizes, _DIFFERENCE, resamples, seed)
    relative = drawn.value / (errors_a / words_a) if errors_a else None
    log_ratio = bootstrap(sums, clusters, sizes, _LOG_RATIO, resamples, seed) if errors_a and errors_b else None
    independent = math.sqrt(float(((sums @ _difference_gradient(sums.sum(axis=0))) ** 2).sum()))
    interval = make_interval(drawn, confidence, clusters, np.asarray)
    return PairedDifference(
        drawn.value,
        interval if drawn.error or drawn.value else replace(interval, low=0.0, high=0.0),
        drawn.p_value(),
        None if relative is None else float(relative),
        make_interval(log_ratio, confidence, clusters, np.expm1) if log_ratio and log_ratio.degrees >= FEW_DEGREES else None,
        drawn.error,
        independent,
    )


def _difference(sums: Array) -> Array:
    rates: Array = sums[..., 2] / sums[..., 3] - sums[..., 0] / sums[..., 1]
    return rates


def _difference_gradient(sums: Array) -> Array:
    errors_a, words_a, errors_b, words_b = np.moveaxis(sums, -1, 0)
    return np.stack([-1 / words_a, errors_a / words_a**2, 1 / words_b, -errors_b / words_b**2], axis=-1)


def _log_ratio(sums: Array) -> Array:
    logs = np.log(sums)
    ratios: Array = logs[..., 2] - logs[..., 3] - logs[..., 0] + logs[..., 1]
    return ratios


def _log_ratio_gradient(sums: Array) -> Array:
    gradient: Array = np.array([-1.0, 1.0, 1.0, -1.0]) / sums
    return gradient


_DIFFERENCE = Statistic(_difference, _difference_gradient)
_LOG_RATIO = Statistic(_log_ratio, _log_ratio_gradient)


@dataclass(frozen=True)
class MatchedPairs:
    """The matched-pairs sentence-segment word error test.

    Attributes:
        mean: errors of the second system less those of the first, per segment.
        statistic: the mean in standard errors; None where all differences are the same, so that it would be infinite or is not defined.
        p_value: two-sided.
        n_segments: of which the errors were compared.
    """

    mean: float
    statistic: float | None
    p_value: float
    n_segments: int


def mapsswe(errors_a: Sequence[int], errors_b: Sequence[int]) -> MatchedPairs:
    """Test whether two systems make equally many errors, by the differences per segment (Gillick and Cox 1989, MAPSSWE; as in NIST's sclite).

    Segments are clips here, whole. The test takes them for independent and their number for large, so that the mean difference is normal:
    clips of one speaker, or cut one after another from one recording, are not independent, and it then finds differences that are none.
    sclite cuts segments at stretches that both systems have right, which gives more of them.

    Raises:
        ValueError: fewer than 2 segments, or lengths that differ.
    """
    if len(errors_a) != len(errors_b) or len(errors_a) < 2:
        raise ValueError(f"errors of both in 2 segments at least: got {len(errors_a)} and {len(errors_b)}")
    differences = np.asarray(errors_b, dtype=float) - np.asarray(errors_a, dtype=float)
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    if not spread:
        # No difference at all, or the same one in each segment.
        return MatchedPairs(mean, None, 0.0 if mean else 1.0, len(differences))
    statistic = mean / (spread / math.sqrt(len(differences)))
    return MatchedPairs(mean, statistic, 2 * float(stats.norm.sf(abs(statistic))), len(differences))


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two systems that are right or wrong on the same clips, with its effect sizes.

    Attributes:
        only_a: clips that only the first has right.
        only_b: clips that only the second has right.
        n: clips in all.
        p_value: exact and two-sided.
        odds_ratio: `only_b` / `only_a`: above 1 in the second's favour; None where `only_a` is 0.
        odds_interval: (low, high), exact; a high end of None is infinite. None where the two never differ.
        cohens_g: share of the differing clips that the second has right, less 1/2: between -0.5 and 0.5 (Cohen 1988: 0.05 small, 0.15 medium,
            0.25 large). None where the two never differ.
        g_interval: (low, high), exact.
    """

    only_a: int
    only_b: int
    n: int
    p_value: float
    odds_ratio: float | None
    odds_interval: tuple[float, float | None] | None
    cohens_g: float | None
    g_interval: tuple[float, float] | None


def mcnemar(right_a: Sequence[bool], right_b: Sequence[bool], confidence: float = 0.95) -> McNemar:
    """Exact McNemar test (1947): where two systems are alike, each clip that only one has right is a coin's throw.

    Intervals are Clopper and Pearson's of the share of such clips that the second has right. Clips are taken for independent.

    Raises:
        ValueError: lengths differ.
    """
    pairs = list(zip(right_a, right_b, strict=True))
    only_a, only_b = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    if not only_a + only_b:
        return McNemar(0, 0, len(pairs), 1.0, None, None, None, None)
    test = stats.binomtest(only_b, only_a + only_b)
    share = test.proportion_ci(confidence, method="exact")
    low, high = float(share.low), float(share.high)
    return McNemar(
        only_a,
        only_b,
        len(pairs),
        float(test.pvalue),
        only_b / only_a if only_a else None,
        (low / (1 - low), high / (1 - high) if high < 1 else None),
        only_b / (only_a + only_b) - 0.5,
        (low - 0.5, high - 0.5),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several comparisons so that one wrong claim among all stays as rare as one test allows (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min((len(order) - rank) * p_values[place], 1.0))
        adjusted[place] = largest
    return adjusted
