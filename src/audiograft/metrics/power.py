"""How many clips a comparison of two systems needs, and what a number of clips can show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from audiograft.metrics.bootstrap import as_units, sum_by_unit
from audiograft.metrics.permutation import fewest_clusters
from audiograft.metrics.word_errors import ErrorCounts

_MOST_CLIPS = 10**8
"""Whoever needs more is told that it is out of reach."""
_MOST_EXACT = 200_000
"""Above so many clips the exact power of McNemar's test is that of the normal approximation."""
_CERTAIN = 20.0
"""Standard errors. What lies that far from 0 is found."""


@dataclass(frozen=True)
class Speakers:
    """How clips are spread over speakers.

    Attributes:
        intraclass: correlation of the differences of two clips of one speaker; 0 where speakers do not matter.
        n_speakers: over whom the clips are spread evenly, however many; None where more clips have more speakers.
        clips_each: of a speaker, where there is no fixed number of them; for unequal speakers the mean over clips.
    """

    intraclass: float = 0.0
    n_speakers: int | None = None
    clips_each: float = 1.0

    def design_effect(self, n_clips: int) -> float:
        """By how much speakers with several clips widen a variance: 1 + (clips each - 1) * intraclass (Kish 1965)."""
        each = n_clips / self.n_speakers if self.n_speakers else self.clips_each
        return 1 + max(each - 1, 0) * self.intraclass

    def units(self, n_clips: int) -> int:
        """How many speakers there are: no more than clips."""
        return min(self.n_speakers or round(n_clips / self.clips_each), n_clips)


ALL_DIFFERENT = Speakers()


@dataclass(frozen=True)
class Spread:
    """What the standard error of a difference of two word error rates depends on.

    Attributes:
        words: reference words per clip.
        variance: of the difference of the two systems' numbers of errors in a clip.
        speakers: of the clips.
    """

    words: float
    variance: float
    speakers: Speakers = ALL_DIFFERENT


def assumed_variance(wer: float, words: float, dispersion: float, correlation: float) -> float:
    """Variance of the difference of two systems' errors in a clip, where nothing was measured.

    Args:
        wer: of the two systems on average.
        words: reference words per clip.
        dispersion: variance of a clip's errors over that of errors that come one by one, independently, which is their mean (Poisson).
        correlation: of the two systems' errors in the same clip.
    """
    return 2 * wer * words * dispersion * (1 - correlation)


def measured_spread(counts_a: Sequence[ErrorCounts], counts_b: Sequence[ErrorCounts], clusters: Sequence[str | None]) -> Spread:
    """The spread of the differences of two runs over the same clips, with the speakers as they are.

    What is measured is each clip's difference less what its words would give at the mean difference.

    Raises:
        ValueError: fewer than 2 clips, or no word.
    """
    errors = np.array([b.errors - a.errors for a, b in zip(counts_a, counts_b, strict=True)], dtype=float)
    words = np.array([(a.reference_length + b.reference_length) / 2 for a, b in zip(counts_a, counts_b, strict=True)])
    if len(errors) < 2 or not words.any():
        raise ValueError("two clips with words at least")
    residuals = errors - errors.sum() / words.sum() * words
    return Spread(float(words.mean()), float(residuals.var(ddof=1)), measured_speakers(residuals.tolist(), clusters))


def measured_speakers(values: Sequence[float], clusters: Sequence[str | None]) -> Speakers:
    """How alike one speaker's values are, and how many there are of a speaker."""
    sizes = np.bincount(as_units(clusters))
    return Speakers(intraclass_correlation(values, clusters), None, float((sizes**2).sum() / sizes.sum()))


def measured_dispersion(counts: Sequence[ErrorCounts]) -> float:
    """Variance of the clips' numbers of errors, beyond what their words explain, over their mean."""
    errors, words = (np.array([getattr(count, name) for count in counts], dtype=float) for name in ("errors", "reference_length"))
    residuals = errors - errors.sum() / max(words.sum(), 1) * words
    return float(residuals.var(ddof=1) / errors.mean()) if errors.any() and len(errors) > 1 else 1.0


def intraclass_correlation(values: Sequence[float], clusters: Sequence[str | None]) -> float:
    """How alike values of one cluster are, between 0 and 1, by the analysis of variance for unequal groups (Donner 1986).

    It is 0 where no cluster has two values, or there is one cluster.
    """
    units, numbers = as_units(clusters), np.asarray(values, dtype=float)
    sizes = np.bincount(units).astype(float)
    n, n_units = len(numbers), len(sizes)
    if n_units in (1, n) or not numbers.std():
        return 0.0
    means = sum_by_unit(clusters, numbers[:, None])[:, 0] / sizes
    between = float((sizes * (means - numbers.mean()) ** 2).sum()) / (n_units - 1)
    within = float(((numbers - means[units]) ** 2).sum()) / (n - n_units)
    size = (n - float((sizes**2).sum()) / n) / (n_units - 1)
    return min(max((between - within) / (between + (size - 1) * within), 0.0), 1.0)


def wer_power(spread: Spread, difference: float, n_clips: int, alpha: float = 0.05) -> float:
    """Power of the two-sided matched-pairs test of two word error rates (Gillick and Cox 1989).

    The variance of the mean difference is that of clips times the design effect. The test is Student's, over speakers where there are fewer
    of them than clips. Of so few speakers that the permutation test, on which `compare` insists too, can show nothing, the power is 0.

    Args:
        spread: of the differences.
        difference: of the two rates, which is to be found.
        n_clips: how many.
        alpha: level of the test.
    """
    error = math.sqrt(spread.variance * spread.speakers.design_effect(n_clips) / n_clips) / spread.words
    n_units = spread.speakers.units(n_clips)
    if n_units < fewest_clusters(alpha):
        return 0.0
    critical, shift = float(stats.t.ppf(1 - alpha / 2, n_units - 1)), abs(difference) / error if error else math.inf
    if shift > _CERTAIN + critical:
        return 1.0
    found = stats.nct(n_units - 1, shift) if n_units < 1000 else stats.norm(shift)
    return float(found.sf(critical) + found.cdf(-critical))


def clips_for_wer(spread: Spread, difference: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The fewest clips with that power; None where no number of clips of so few speakers has it."""
    return _fewest(lambda n: wer_power(spread, difference, n, alpha), power)


def assumed_discordance(accuracy: float, difference: float, correlation: float) -> float:
    """Share of clips that only one of two systems has right, the second with an accuracy higher by `difference`."""
    other = accuracy + difference
    spread = math.sqrt(max(accuracy * (1 - accuracy) * other * (1 - other), 0))
    return max(accuracy * (1 - other) + other * (1 - accuracy) - 2 * correlation * spread, abs(difference))


def mcnemar_power(difference: float, discordance: float, n_clips: int, alpha: float = 0.05) -> float:
    """Power of the exact two-sided McNemar test.

    The number of clips that only one system has right is binomial, and so is, among these, that of the better one; the test's power is summed
    over the first. For very many clips it is the normal formula (Connor 1987, "Sample size for testing differences in proportions for the
    paired-sample design").

    Args:
        difference: of the two accuracies, which is to be found.
        discordance: share of clips that only one of the two has right; at least `difference`.
        n_clips: how many, taken for independent.
        alpha: level of the test.

    Raises:
        ValueError: a discordance below the difference, or above 1.
    """
    if not abs(difference) <= discordance <= 1:
        raise ValueError(f"a discordance between {abs(difference)} and 1: got {discordance}")
    if not discordance:
        return 0.0
    if n_clips > _MOST_EXACT:
        return _connor_power(abs(difference), discordance, n_clips, alpha)
    low, high = (float(stats.binom.ppf(end, n_clips, discordance)) for end in (1e-9, 1 - 1e-9))
    differing = np.arange(max(int(low), 0), int(high) + 1)
    # The largest number on one side at which both tails together are still rare enough; -1 where none is.
    rejected = stats.binom.ppf(alpha / 2, differing, 0.5)
    rejected = np.where(stats.binom.cdf(rejected, differing, 0.5) > alpha / 2, rejected - 1, rejected)
    better = (discordance + abs(difference)) / (2 * discordance)
    found = stats.binom.cdf(rejected, differing, better) + stats.binom.sf(differing - rejected - 1, differing, better)
    return float((stats.binom.pmf(differing, n_clips, discordance) * found).sum())


def clips_for_accuracy(
    difference: float, discordance: float, power: float = 0.8, alpha: float = 0.05, speakers: Speakers = ALL_DIFFERENT
) -> int | None:
    """The fewest clips with that power; None where no number of clips of so few speakers has it."""
    return _fewest(lambda n: accuracy_power(difference, discordance, n, alpha, speakers), power)


def accuracy_power(difference: float, discordance: float, n_clips: int, alpha: float = 0.05, speakers: Speakers = ALL_DIFFERENT) -> float:
    """`mcnemar_power` of as many independent clips as these are worth: fewer, by the design effect. 0 of speakers too few to show anything."""
    if speakers.units(n_clips) < fewest_clusters(alpha):
        return 0.0
    return mcnemar_power(difference, discordance, int(n_clips / speakers.design_effect(n_clips)), alpha)


def speakers_needed(n_independent: int, intraclass: float) -> int:
    """How many speakers it takes at least, with any number of clips each, to be worth so many independent clips."""
    return math.ceil(n_independent * intraclass) + 1


def _connor_power(difference: float, discordance: float, n_clips: int, alpha: float) -> float:
    shift = difference * math.sqrt(n_clips) - float(stats.norm.ppf(1 - alpha / 2)) * math.sqrt(discordance)
    spread = math.sqrt(discordance - difference**2)
    return float(stats.norm.cdf(shift / spread)) if spread else float(shift > 0)


def _fewest(power_of: Callable[[int], float], power: float) -> int | None:
    """The first n in a doubling and halving search with that power. Exact tests gain power in small steps back and forth: it is one of the first."""
    high = 2
    while power_of(high) < power:
        high *= 2
        if high > _MOST_CLIPS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= power else (middle, high)
    return high
