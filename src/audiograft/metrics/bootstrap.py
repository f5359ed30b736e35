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
FEW_CLUSTERS = 10
"""Below this there are too few different draws: many are of one or two clusters, and have next to no spread."""
FEW_DEGREES = 3.0
"""Below this, one cluster or two hold most of the whole, and draws differ by little else than how often these are in them."""
_NO_SPREAD = 1e-6
"""A draw with less than this share of the sample's standard error has none but rounding."""
_MOST_WITHOUT_SPREAD = 0.05
"""Of the draws. With more of them, as where errors are rare, their quantiles would say nothing."""
_ROUNDING = 1e-12
"""A standard error below this share of what it is the error of is none but rounding."""
_FARTHEST = 2.0
"""So many times farther out than Student's, a quantile of the draws tells of draws that happen to have no spread."""


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
        error: its standard error; 0 where all clusters are alike, so that it is not known.
        degrees: effective degrees of freedom: clusters less one, fewer where some are much larger than others.
        n_clusters: how many were drawn from.
        distances: sorted absolute t values of the draws (resamples,); none where clusters are too few for draws or too unequal, or
            errors too rare.
    """

    value: float
    error: float
    degrees: float
    n_clusters: int
    distances: Array

    def critical(self, confidence: float) -> float:
        """How many standard errors the truth lies away at most: the draws' quantile, but no less than Student's and no more than twice that."""
        student = float(special.stdtrit(self.degrees, (1 + confidence) / 2))
        if not len(self.distances):
            return student
        place = math.ceil(confidence * (len(self.distances) + 1)) - 1
        drawn = float(self.distances[place]) if place < len(self.distances) else math.inf
        return max(student, min(drawn, _FARTHEST * student))

    def ends(self, confidence: float) -> tuple[float, float]:
        """The interval, symmetric about the value."""
        margin = self.critical(confidence) * self.error
        return self.value - margin, self.value + margin

    def p_value(self) -> float:
        """Two-sided p-value of the truth being 0, from the quantiles of `critical`: below 0.05 just where the interval of 95 % leaves 0 out.

        Without a standard error it is 1 where the value is 0, and else 0.
        """
        if not self.value or not self.error:
            return float(not self.value)
        distance = abs(self.value) / self.error
        student, nearer = (2 * float(special.stdtr(self.degrees, -by)) for by in (distance, distance / _FARTHEST))
        if not len(self.distances):
            return student
        further = len(self.distances) - int(np.searchsorted(self.distances, distance))
        return max(student, min((1 + further) / (1 + len(self.distances)), nearer))


def bootstrap(sums: Array, clusters: Sequence[str | None], sizes: Array, statistic: Statistic, resamples: int = 2000, seed: int = 0) -> Bootstrap:
    """Draw whole clusters with replacement and see how far, in standard errors, a statistic strays from what it was drawn from.

    The symmetric percentile-t of Hall (1988, "On symmetric bootstrap confidence intervals") over clusters (Field and Welsh 2007,
    "Bootstrapping clustered data"). Standard errors are linearised; in the sample itself each cluster's part is divided by one less its share
    of the whole, which the jackknife does too, and without which few or unequal clusters give too small an error (Bell and McCaffrey 2002).
    The error is not taken for less than that of independent rows: speakers who happen to be alike are no proof that all are. Where there are too
    few clusters for draws (`FEW_CLUSTERS`), some are too large (`FEW_DEGREES`), or too many draws have no spread, Student's distribution stands
    alone.

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
    degrees = max(1 / max(float((shares**2).sum()), 1e-12) - 1, 1.0)
    if error <= _ROUNDING * float(np.abs(whole * gradient).sum()):
        return Bootstrap(value, 0.0, degrees, n_clusters, np.zeros(0))
    if n_clusters < FEW_CLUSTERS or degrees < FEW_DEGREES:
        return Bootstrap(value, error, degrees, n_clusters, np.zeros(0))
    distances = np.sort(np.concatenate(list(_distances(totals, statistic, value, error, resamples, np.random.default_rng(seed)))))
    usable = np.isinf(distances).mean() <= _MOST_WITHOUT_SPREAD
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
        times = draw_clusters(n_clusters, min(block, resamples - start), rng)
        drawn = times @ totals
        # Rates of draws without a word, or logarithms of none, are not finite, and count as infinitely far.
        with np.errstate(all="ignore"):
            gradient = statistic.gradient(drawn)
            squares = np.einsum("bi,bij,bj->b", gradient, (times @ products).reshape(-1, n_sums, n_sums), gradient)
            errors = np.sqrt(np.maximum(squares, 0) * n_clusters / max(n_clusters - 1, 1))
            distances = np.abs(statistic.value(drawn) - value) / errors
        distances[~(errors > _NO_SPREAD * error) | ~np.isfinite(distances)] = np.inf
        yield distances


def draw_clusters(n_clusters: int, count: int, rng: np.random.Generator) -> Array:
    """How often each cluster is drawn (count, n_clusters), as floats."""
    drawn = rng.integers(0, n_clusters, size=(count, n_clusters)) + n_clusters * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * n_clusters).reshape(count, n_clusters).astype(float)
