"""How far the next-token distributions of two models lie apart, on the same inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from audiograft.metrics.bootstrap import Array, Statistic, bootstrap
from audiograft.metrics.intervals import Interval, make_interval

_NEAR = 1.0
"""Log-ratios below this are small enough for `expm1` to save digits, and none of them can overflow it."""


@dataclass(frozen=True)
class Divergence:
    """What two models make of the same tokens.

    Attributes:
        kl: KL(base || other) at each token, in nats.
        top1: whether both find the same token likeliest, at each token.
        equal: whether all logits are the same numbers.
    """

    kl: tuple[float, ...]
    top1: tuple[bool, ...]
    equal: bool


def divergence(base: ArrayLike, other: ArrayLike) -> Divergence:
    """Compare two tables of logits.

    Args:
        base: (tokens, vocabulary), of the model that is held for right.
        other: likewise, of the same tokens.

    Raises:
        ValueError: shapes that differ, no token, or a logit that is not finite.
    """
    ours, theirs = np.asarray(base, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if ours.ndim != 2 or ours.shape != theirs.shape or not ours.size:
        raise ValueError(f"logits of the same tokens, (tokens, vocabulary): got {ours.shape} and {theirs.shape}")
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise ValueError("a logit is not finite")
    return Divergence(
        tuple(kl_divergence(ours, theirs).tolist()),
        tuple((ours.argmax(axis=1) == theirs.argmax(axis=1)).tolist()),
        bool(np.array_equal(ours, theirs)),
    )


def kl_divergence(base: Array, other: Array) -> Array:
    """KL(base || other) of each row, in nats (Kullback and Leibler 1951): never negative, and 0 where two rows are the same.

    The sum of p (log p - log q) cancels where p is nearly q, and may come out below 0. With d = log q - log p it is the sum of p (e^d - 1 - d) too,
    since p and q both sum to 1, and no term of that is negative.

    Args:
        base: finite logits (rows, vocabulary), in float64.
        other: likewise.
    """
    log_p, log_q = special.log_softmax(base, axis=-1), special.log_softmax(other, axis=-1)
    p, log_ratio = np.exp(log_p), log_q - log_p
    near = np.abs(log_ratio) < _NEAR
    small = np.where(near, log_ratio, 0.0)
    terms: Array = np.where(near, p * (np.expm1(small) - small), np.exp(log_q) - p - p * log_ratio)
    totals: Array = np.maximum(terms, 0.0).sum(axis=-1)
    return totals


def mean_divergence(sums: Sequence[float], tokens: Sequence[int], clusters: Sequence[str | None], unit: str, confidence: float = 0.95) -> Interval:
    """Interval of the mean over tokens, by a bootstrap that draws whole clusters, on the logarithm of the mean (see `bootstrap`).

    Args:
        sums: over the tokens of each row, in nats.
        tokens: of each row.
        clusters: of each row; None is a cluster of its own.
        unit: what a cluster is called in warnings.
        confidence: how often such intervals are to hold the truth.

    Returns:
        The interval, in nats. Without ends where all rows are alike, as where all divergences are 0: how far others lie apart is not known then.

    Raises:
        ValueError: no row, or lengths that differ.
    """
    if not sums or not len(sums) == len(tokens) == len(clusters):
        raise ValueError(f"as many sums, tokens and clusters, and one at least: got {len(sums)}, {len(tokens)} and {len(clusters)}")
    table = np.column_stack([np.asarray(sums, dtype=float), np.asarray(tokens, dtype=float)])
    if not table[:, 0].any():
        return Interval(None, None, confidence, "none", len(sums), "0 at every token: no spread, so there is no interval")
    return make_interval(bootstrap(table, clusters, table[:, 1], _LOG_MEAN), confidence, clusters, np.exp, unit)


def _log_mean(sums: Array) -> Array:
    logs: Array = np.log(sums[..., 0] / sums[..., 1])
    return logs


def _log_mean_gradient(sums: Array) -> Array:
    return np.stack([1 / sums[..., 0], -1 / sums[..., 1]], axis=-1)


_LOG_MEAN = Statistic(_log_mean, _log_mean_gradient)
