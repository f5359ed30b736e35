"""Confidence intervals for corpus error rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from audiograft.metrics.word_errors import ErrorCounts

_BLOCK_DRAWS = 10_000_000
"""Cluster draws held at once (80 MB), so that memory does not grow with the corpus."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval of an error rate.

    Attributes:
        low: lower end, as a rate.
        high: upper end, as a rate.
        confidence: e.g. 0.95.
        method: `cluster-bootstrap`, or `utterance-bootstrap` where each utterance was drawn by itself.
        n_clusters: how many units were drawn from: speakers, or utterances.
    """

    low: float
    high: float
    confidence: float
    method: str
    n_clusters: int


def cluster_bootstrap(
    counts: Sequence[ErrorCounts],
    clusters: Sequence[str | None],
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the corpus error rate that draws whole clusters, usually speakers.

    The bootstrap over utterances of Bisani and Ney (2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation")
    takes utterances for independent. Those of one speaker are not, and treating them so gives intervals that are too narrow; so the units
    drawn, with replacement, are speakers with all their utterances (the cluster bootstrap of Field and Welsh 2007).

    Args:
        counts: one per utterance.
        clusters: the cluster of each utterance; None is a cluster of its own.
        resamples: bootstrap samples.
        confidence: share of the samples inside the interval.
        seed: same seed, same interval.

    Returns:
        The interval. With one cluster alone nothing can be learnt about other speakers: utterances are drawn instead and `method` says so.

    Raises:
        ValueError: no utterance, or the two differ in length.
    """
    if not counts or len(counts) != len(clusters):
        raise ValueError(f"one cluster an utterance and one utterance at least: got {len(counts)} counts and {len(clusters)} clusters")
    units = [("own", str(i)) if cluster is None else ("named", cluster) for i, cluster in enumerate(clusters)]
    if len(set(units)) == 1:
        units = [("own", str(i)) for i in range(len(counts))]
    position = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    totals = np.zeros((len(position), 2))
    for unit, count in zip(units, counts, strict=True):
        totals[position[unit]] += count.errors, count.reference_length
    rates = np.concatenate(list(_resampled_rates(totals, resamples, np.random.default_rng(seed))))
    low, high = np.quantile(rates, [(1 - confidence) / 2, (1 + confidence) / 2])
    method = "utterance-bootstrap" if len(position) == len(counts) else "cluster-bootstrap"
    return Interval(float(low), float(high), confidence, method, len(position))


def _resampled_rates(totals: np.ndarray, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield blocks of rates; `totals` (n_clusters, 2) holds errors and reference length. How often a cluster is drawn is multinomial."""
    n_clusters = len(totals)
    block = max(1, _BLOCK_DRAWS // n_clusters)
    for start in range(0, resamples, block):
        times = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=min(block, resamples - start))
        errors, lengths = (times @ totals).T
        yield errors / np.maximum(lengths, 1)
