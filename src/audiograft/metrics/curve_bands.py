"""Bands around ROC and precision-recall curves, by drawing whole recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audiograft.metrics.bootstrap import as_units, draw_clusters
from audiograft.metrics.ranking import weighted_points

Array = np.ndarray

_LEAST_USABLE = 0.95
"""Of the draws; where more of them lack a class there is no band."""
_BLOCK_CLIPS = 2_000_000
"""Weights of clips held at once (16 MB a table)."""


@dataclass(frozen=True)
class Band:
    """Where a curve lies in all but a few of the draws, point by point.

    Attributes:
        grid: false-alarm rates, or recalls (n_points,).
        low: lower edge of hit rates, or of precisions (n_points,).
        high: upper edge (n_points,).
    """

    grid: Array
    low: Array
    high: Array


def curve_bands(
    positive: Sequence[bool] | Array,
    probs: Sequence[float] | Array,
    clusters: Sequence[str | None],
    *,
    points: int = 101,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Band, Band] | None:
    """Pointwise bands of hit rate over false-alarm rate, and of precision over recall.

    Each draw takes whole recordings with replacement, one drawn twice counts twice, and has a curve of its own; at each false-alarm rate the
    band holds the middle of the hit rates (vertical averaging, Fawcett 2006, "An introduction to ROC analysis", section 7.1). So it is as wide as
    the curve is uncertain there. It is no band for the curve as a whole: some point of the true curve lies outside more often than in 5 % of cases.

    Args:
        positive: of each clip, whether it is (n_clips,).
        probs: P(positive) (n_clips,).
        clusters: the recording of each clip; None is one of its own.
        points: of the grid.
        resamples: draws.
        confidence: of each point.
        seed: same seed, same bands.

    Returns:
        The ROC's and the other's. None where there are clips of one class only, or recordings too few to be drawn from.

    Raises:
        ValueError: lengths that differ.
    """
    truth, said = np.asarray(positive, dtype=bool), np.asarray(probs, dtype=float)
    if not len(truth) == len(said) == len(clusters):
        raise ValueError(f"a probability and a recording a clip: got {len(truth)} clips, {len(said)} probabilities and {len(clusters)} recordings")
    if truth.all() or not truth.any():
        return None
    units = as_units(clusters)
    n_units, rng, grid = int(units.max()) + 1, np.random.default_rng(seed), np.linspace(0, 1, points)
    drawn: list[tuple[Array, Array]] = []
    block = max(1, _BLOCK_CLIPS // len(said))
    for start in range(0, resamples, block):
        weights = draw_clusters(n_units, min(block, resamples - start), rng)[:, units]
        pairs = zip(*weighted_points(truth, said, weights), strict=True)
        drawn += [_on_grid(hits, alarms, grid) for hits, alarms in pairs if hits[-1] and alarms[-1]]
    if n_units < 2 or len(drawn) < _LEAST_USABLE * resamples:
        return None
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    roc, precision = (Band(grid, *np.quantile(np.stack(curves), ends, axis=0)) for curves in zip(*drawn, strict=True))
    return roc, precision


def _on_grid(hits: Array, alarms: Array, grid: Array) -> tuple[Array, Array]:
    """Hit rate at each false-alarm rate, on straight lines between operating points; precision at the first of them with enough recall."""
    hit_rates, alarm_rates = hits / hits[-1], alarms / alarms[-1]
    # Where the curve is vertical its upper end counts: a detector may be used there.
    last = np.append(np.diff(alarm_rates) > 0, True)
    called = hits[1:] + alarms[1:]
    place = np.minimum(np.searchsorted(hit_rates[1:], np.maximum(grid, 1e-9)), len(called) - 1)
    return np.interp(grid, alarm_rates[last], hit_rates[last]), hits[1:][place] / np.maximum(called[place], 1)
