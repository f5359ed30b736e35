"""The studentised bootstrap over clusters: what intervals and paired comparisons rest on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

Array = np.ndarray

_BLOCK_DRAWS = 10_000_000
"""Cluster draws held at once (80 MB), so that memory does not grow with the corpus."""
_NO_SPREAD = 1e-6
"""A draw with less than this share of the sample's standard error has none but rounding."""
_MOST_WITHOUT_SPREAD = 0.05
"""Of the draws. With more of them their quantiles would say nothing."""


@dataclass(frozen=True)
class Statistic:
    """A function of sums that does not change where all sums grow by one factor, such as a rate.

    Attributes:
        value: (..., n_sums) to (...).
        gradient: (..., n_sums) to (..., n_sums).
    """

    value: Callable[[Array], Array]
    gradient: Callable[[Array], Array]


@dataclass(frozen=True)
class Bootstrap:
    """A statistic with its standard error and the draws of its studentised distance from the truth.

    Attributes:
        value: of the whole sample.
        error: its standard error.
        degrees: effective degrees of freedom: clusters less one, fewer where some are much larger than others.
        n_clusters: how many were drawn from.
        distances: sorted absolute t values of the draws (resamples,); none where too many draws have no spread: few clusters, or rare errors.
    """

    value: float
    error: float
    degrees: float
    n_clusters: int
    distances: Array

    def critical(self, confidence: float) -> float:
        """How many standard errors the truth lies away at most: the larger of the draws' quantile and Student's."""
        student = float(special.stdtrit(self.degrees, (1 + confidence) / 2))
        place = math.ceil(confidence * (len(self.distances) + 1)) - 1
        return max(student, float(self.distances[place])) if place < len(self.distances) else student

    def ends(self, confidence: float) -> tuple[float, float]:
        """The interval, symmetric about the value."""
        margin = self.critical(confidence) * self.error
        return self.value - margin, self.value + margin

    def p_value(self) -> float:
        """Two-sided p-value of the truth being 0: the larger of the draws' and Student's.

        So it is below 0.05 just where the interval of 95 % leaves 0 out.
        """
        if self.value == 0 or self.error == 0:
            return 1.0
        distance = abs(self.value) / self.error
        student = 2 * float(special.stdtr(self.degrees, -distance))
        if not len(self.distances):
            return student
        further = len(self.distances) - int(np.searchsorted(self.distances, distance))
        return max(student, (1 + further) / (1 + len(self.distances)))


def bootstrap(sums: Array, clusters: Sequence[str | None], sizes: Array, statistic: Statistic, resamples: int = 2000, seed: int = 0) -> Bootstrap:
    """Draw whole clusters with replacement and see how far, in standard errors, a statistic strays from what it was drawn from.

    The symmetric percentile-t of Hall (1988, "On symmetric bootstrap confidence intervals") over clusters (Field and Welsh 2007,
    "Bootstrapping clustered data"). Standard errors are linearised; in the sample itself each cluster's part is divided by one less its share
    of the whole, which the jackknife does too, and without which few or unequal clusters give too small an error (Bell and McCaffrey 2002).
    The error is not taken for less than that of independent rows: speakers who happen to be alike are no proof that all are.

    Args:
        sums: what each row adds to the sums of the statistic (n_rows, n_sums).
        clusters: of each row; None is a cluster of its own.
        sizes: how much of the whole each row is (n_rows,), such as reference words.
        statistic: of the sums.
        resamples: how many draws.
        seed: same seed, same draws; so two statistics of the same rows see the same draws.
    """
    totals, weights = sum_by_unit(clusters, sums), sum_by_unit(clusters, sizes[:, None])[:, 0]
    n_clusters, whole = len(totals), sums.sum(axis=0)
    shares = weights / max(weights.sum(), 1)
    gradient = statistic.gradient(whole)
    alone = np.maximum(1 - shares, 1 / n_clusters)
    between = math.sqrt((n_clusters - 1) / n_clusters * float((((totals @ gradient) / alone) ** 2).sum()))
    error = max(between, math.sqrt(float(((sums @ gradient) ** 2).sum())))
    value = float(statistic.value(whole))
    distances = np.sort(np.concatenate(list(_distances(totals, statistic, value, error, resamples, np.random.default_rng(seed)))))
    usable = np.isinf(distances).mean() <= _MOST_WITHOUT_SPREAD
    degrees = max(1 / max(float((shares**2).sum()), 1e-12) - 1, 1.0)
    return Bootstrap(value, error, degrees, n_clusters, distances if usable else distances[:0])


def as_units(clusters: Sequence[str | None]) -> Array:
    """The number of each row's cluster (n_rows,), counted from 0. A row without one is one; where all are of one cluster, each row is."""
    named = [("own", str(i)) if cluster is None else ("named", cluster) for i, cluster in enumerate(clusters)]
    if len(set(named)) == 1:
        return np.arange(len(named))
    position = {unit: i for i, unit in enumerate(dict.fromkeys(named))}
    return np.array([position[unit] for unit in named], dtype=int)


def sum_by_unit(clusters: Sequence[str | None], values: Array) -> Array:
    """Sums of rows (n_rows, n) over each cluster (n_clusters, n)."""
    units = as_units(clusters)
    totals = np.zeros((int(units.max()) + 1, values.shape[1]))
    np.add.at(totals, units, values)
    return totals


def _distances(totals: Array, statistic: Statistic, value: float, error: float, resamples: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield blocks of absolute t values."""
    n_clusters, n_sums = totals.shape
    products = (totals[:, :, None] * totals[:, None, :]).reshape(n_clusters, -1)
    block = max(1, _BLOCK_DRAWS // n_clusters)
    for start in range(0, resamples, block):
        times = _draw(n_clusters, min(block, resamples - start), rng)
        drawn = times @ totals
        # Rates of draws without a word, or logarithms of none, are not finite, and count as infinitely far.
        with np.errstate(all="ignore"):
            gradient = statistic.gradient(drawn)
            squares = np.einsum("bi,bij,bj->b", gradient, (times @ products).reshape(-1, n_sums, n_sums), gradient)
            errors = np.sqrt(np.maximum(squares, 0) * n_clusters / max(n_clusters - 1, 1))
            distances = np.abs(statistic.value(drawn) - value) / errors
        distances[~(errors > _NO_SPREAD * error) | ~np.isfinite(distances)] = np.inf
        yield distances


def _draw(n_clusters: int, count: int, rng: np.random.Generator) -> Array:
    """How often each cluster is drawn (count, n_clusters), as floats."""
    drawn = rng.integers(0, n_clusters, size=(count, n_clusters)) + n_clusters * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * n_clusters).reshape(count, n_clusters).astype(float)
