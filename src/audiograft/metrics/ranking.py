"""How well probabilities order clips, whatever the threshold: areas under curves, equal error rate, operating points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from audiograft.metrics.bootstrap import as_units, draw_clusters
from audiograft.metrics.intervals import Interval, few_clusters, wilson_ends

Array = np.ndarray

_BLOCK_CLIPS = 2_000_000
"""Weights of clips held at once (16 MB a table), so that memory does not grow with clips and draws."""
_LEAST_USABLE = 0.95
"""Of the draws. With more of them that lack a class, what is left would say nothing."""
_FEW_ERRORS = 5
"""At the equal error rate: with fewer, draws without an error make up the spread."""
_MOST_PERFECT = 0.025
"""Of the draws, that may have no error at all."""


@dataclass(frozen=True)
class Figure:
    """A figure with its interval.

    Attributes:
        value: None where it is not defined, which `reason` explains.
        interval: None where it is not known, which `reason` explains.
        reason: one line; None where both are there.
    """

    value: float | None
    interval: Interval | None
    reason: str | None = None


@dataclass(frozen=True)
class RocPoints:
    """Operating points from the highest threshold to the lowest, without those in the midst of a straight line.

    Attributes:
        thresholds: (n_points,); the first is infinite: nothing is called positive.
        false_alarm_rates: (n_points,).
        hit_rates: (n_points,).
    """

    thresholds: Array
    false_alarm_rates: Array
    hit_rates: Array


@dataclass(frozen=True)
class PrecisionRecall:
    """Operating points from the highest threshold to the lowest.

    Attributes:
        thresholds: (n_points,).
        recalls: (n_points,); the hit rate.
        precisions: (n_points,); share of positive clips among those that are called so.
    """

    thresholds: Array
    recalls: Array
    precisions: Array


def ranking_figures(
    positive: Sequence[bool] | Array,
    probs: Sequence[float] | Array,
    clusters: Sequence[str | None] | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Figure]:
    """Areas under two curves and the equal error rate, with intervals by drawing whole recordings.

    - `roc_auc`: how often a positive clip has a higher probability than a negative one, ties counting half (scikit-learn's `roc_auc_score`);
    - `pr_auc`: average precision, the sum over thresholds of precision times the recall gained (scikit-learn's `average_precision_score`). It
      depends on the share of positive clips;
    - `eer`: the rate at which misses are as frequent as false alarms, on the straight line between the two operating points around it.

    A recording that is drawn twice counts twice. The standard error of the draws, on the logit of the figure, is taken with Student's
    distribution, whose degrees of freedom fall with few or unequal recordings. With fewer than five errors, or where more draws than a few have
    none at all, that spread is not to be trusted: the equal error rate then has Wilson's interval for as many trials as the rarer class has
    recordings, and the areas have none.

    Args:
        positive: of each clip, whether it is (n_clips,).
        probs: P(positive), or any score that grows with it (n_clips,).
        clusters: of each clip; a None in it is a cluster of its own; None altogether: every clip is.
        resamples: draws.
        confidence: of the intervals.
        seed: same seed, same intervals.

    Raises:
        ValueError: no clip, or lengths that differ.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth, said, units = _arrays(positive, probs, clusters)
    if truth.all() or not truth.any():
        reason = f"all {len(truth)} clips are {'positive' if truth.all() else 'negative'}: there is nothing to tell apart"
        return {name: Figure(None, None, reason) for name in ("roc_auc", "pr_auc", "eer")}
    values = {
        "roc_auc": float(roc_auc_score(truth, said)),
        "pr_auc": float(average_precision_score(truth, said)),
        "eer": float(_equal_error_rate(*weighted_points(truth, said, np.ones((1, len(said)))))[0]),
    }
    drawn = np.concatenate(list(_draw_figures(truth, said, units, resamples, seed)))
    names = clusters or [None] * len(truth)
    return {name: _figure(name, values, draws, truth, units, names, confidence) for name, draws in zip(values, drawn.T, strict=True)}


def roc_points(positive: Sequence[bool] | Array, probs: Sequence[float] | Array) -> RocPoints:
    """The receiver operating characteristic, by scikit-learn.

    Raises:
        ValueError: clips of one class only.
    """
    from sklearn.metrics import roc_curve

    truth, said, _ = _arrays(positive, probs, None)
    _both_classes(truth)
    alarms, hits, thresholds = roc_curve(truth, said)
    return RocPoints(thresholds, alarms, hits)


def pr_points(positive: Sequence[bool] | Array, probs: Sequence[float] | Array) -> PrecisionRecall:
    """Precision over recall, by scikit-learn, without its last point, which stands for no threshold.

    Raises:
        ValueError: clips of one class only.
    """
    from sklearn.metrics import precision_recall_curve

    truth, said, _ = _arrays(positive, probs, None)
    _both_classes(truth)
    precisions, recalls, thresholds = precision_recall_curve(truth, said)
    return PrecisionRecall(thresholds[::-1], recalls[-2::-1], precisions[-2::-1])


def threshold_table(positive: Sequence[bool] | Array, probs: Sequence[float] | Array, steps: int = 101) -> list[dict[str, float | None]]:
    """What each of several thresholds from 0 to 1 would give.

    Args:
        positive: of each clip, whether it is (n_clips,).
        probs: P(positive) (n_clips,).
        steps: thresholds, at equal distances.

    Returns:
        One row a threshold: `threshold`, `hit_rate`, `false_alarm_rate`, `accuracy`, `balanced_accuracy`, `precision` and `f1` (None where nothing
        is called positive).

    Raises:
        ValueError: clips of one class only.
    """
    truth, said, _ = _arrays(positive, probs, None)
    _both_classes(truth)
    thresholds = np.linspace(0, 1, steps)
    n_positive, n_negative = int(truth.sum()), int((~truth).sum())
    hits = n_positive - np.searchsorted(np.sort(said[truth]), thresholds)
    alarms = n_negative - np.searchsorted(np.sort(said[~truth]), thresholds)
    rows: list[dict[str, float | None]] = []
    for threshold, hit, alarm in zip(thresholds.tolist(), hits.tolist(), alarms.tolist(), strict=True):
        rows.append(
            {
                "threshold": threshold,
                "hit_rate": hit / n_positive,
                "false_alarm_rate": alarm / n_negative,
                "accuracy": (hit + n_negative - alarm) / len(truth),
                "balanced_accuracy": (hit / n_positive + 1 - alarm / n_negative) / 2,
                "precision": hit / (hit + alarm) if hit + alarm else None,
                "f1": 2 * hit / (hit + alarm + n_positive) if hit + alarm else None,
            }
        )
    return rows


def _draw_figures(truth: Array, said: Array, units: Array, resamples: int, seed: int) -> Iterator[Array]:
    """Yield blocks of (draws, 3) figures; not finite where a draw lacks a class."""
    rng = np.random.default_rng(seed)
    n_units = int(units.max()) + 1
    block = max(1, _BLOCK_CLIPS // len(said))
    for start in range(0, resamples, block):
        weights = draw_clusters(n_units, min(block, resamples - start), rng)[:, units]
        with np.errstate(all="ignore"):
            hits, alarms = weighted_points(truth, said, weights)
            figures = np.column_stack([_area(hits, alarms), _average_precision(hits, alarms), _equal_error_rate(hits, alarms)])
        figures[(hits[:, -1] == 0) | (alarms[:, -1] == 0)] = np.nan
        yield figures


def weighted_points(truth: Array, said: Array, weights: Array) -> tuple[Array, Array]:
    """Weights of hits and of false alarms at every threshold, from above all scores down (n_draws, n_distinct + 1)."""
    order = np.argsort(-said, kind="stable")
    last = np.flatnonzero(np.append(np.diff(said[order]) != 0, True))
    sorted_weights = weights[:, order]
    none = np.zeros((len(weights), 1))
    hits = np.cumsum(sorted_weights * truth[order], axis=1)[:, last]
    alarms = np.cumsum(sorted_weights, axis=1)[:, last] - hits
    return np.hstack([none, hits]), np.hstack([none, alarms])


def _area(hits: Array, alarms: Array) -> Array:
    """Under the ROC, by trapezoids: ties count half (n_draws,)."""
    areas: Array = (np.diff(alarms, axis=1) * (hits[:, 1:] + hits[:, :-1])).sum(axis=1) / (2 * hits[:, -1] * alarms[:, -1])
    return areas


def _average_precision(hits: Array, alarms: Array) -> Array:
    gained = np.diff(hits, axis=1)
    called = hits[:, 1:] + alarms[:, 1:]
    precisions: Array = np.where(gained > 0, gained * hits[:, 1:] / np.maximum(called, 1), 0).sum(axis=1) / hits[:, -1]
    return precisions


def _equal_error_rate(hits: Array, alarms: Array) -> Array:
    """Where the ROC's line between two operating points meets misses = false alarms (n_draws,)."""
    miss, alarm = 1 - hits / hits[:, -1:], alarms / alarms[:, -1:]
    after = np.argmax(miss <= alarm, axis=1)  # misses fall from 1 to 0 while false alarms rise from 0 to 1; never at the first point
    rows, before = np.arange(len(miss)), np.maximum(after - 1, 0)
    ahead, behind = miss[rows, before] - alarm[rows, before], alarm[rows, after] - miss[rows, after]
    rates: Array = alarm[rows, before] + (alarm[rows, after] - alarm[rows, before]) * ahead / (ahead + behind)
    return rates


def _figure(
    name: str, values: Mapping[str, float], draws: Array, truth: Array, units: Array, names: Sequence[str | None], confidence: float
) -> Figure:
    value, n_units = values[name], int(units.max()) + 1
    usable = draws[np.isfinite(draws)]
    if n_units < 2 or len(usable) < _LEAST_USABLE * len(draws):
        return Figure(value, None, "recordings of one class are too few to be drawn from, so there is no interval")
    warning = few_clusters(names, "recording")
    errors = values["eer"] * len(truth)
    # A logit of 0 or 1 has no end, so its spread would be whatever stands for that.
    if errors < _FEW_ERRORS or float(np.isin(usable, (0.0, 1.0)).mean()) > _MOST_PERFECT or np.ptp(usable) == 0:
        if name != "eer":
            return Figure(value, None, f"too few errors for an interval of the areas: about {errors:.0f} of {len(truth):,} clips")
        fewer = min(len(set(units[truth].tolist())), len(set(units[~truth].tolist())))
        low, high = wilson_ends(value, fewer, confidence)
        return Figure(value, Interval(low, high, confidence, "wilson", fewer, warning))
    least = 1 / (2 * len(truth) ** 2)  # half of what one pair of clips in the wrong order is worth, at least
    logits = special.logit(np.clip(usable, least, 1 - least))
    error = float(logits.std(ddof=1)) * float(np.sqrt(n_units / (n_units - 1)))
    shares = np.bincount(units) / len(units)
    degrees = max(1 / float((shares**2).sum()) - 1, 1.0)
    margin = float(special.stdtrit(degrees, (1 + confidence) / 2)) * error
    low, high = special.expit(special.logit(np.clip(value, least, 1 - least)) + np.array([-margin, margin])).tolist()
    method = f"{'clip' if n_units == len(truth) else 'cluster'}-bootstrap-t"
    return Figure(value, Interval(low, high, confidence, method, n_units, warning))


def _both_classes(truth: Array) -> None:
    if truth.all() or not truth.any():
        raise ValueError("clips of one class only: there is nothing to tell apart")


def _arrays(positive: Sequence[bool] | Array, probs: Sequence[float] | Array, clusters: Sequence[str | None] | None) -> tuple[Array, Array, Array]:
    """As boolean, float and unit arrays."""
    truth, said = np.asarray(positive, dtype=bool), np.asarray(probs, dtype=float)
    if not len(truth) or truth.shape != said.shape or (clusters is not None and len(clusters) != len(truth)):
        raise ValueError(f"a probability and a recording a clip, and one clip at least: got {len(truth)} clips and {len(said)} probabilities")
    return truth, said, as_units([None] * len(truth) if clusters is None else clusters)
