"""How well a detector tells classes apart: every figure of a predictions file with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from audiograft.metrics.bootstrap import Statistic, bootstrap
from audiograft.metrics.calibration import Bin, brier_score, expected_calibration_error, negative_log_likelihood, reliability
from audiograft.metrics.intervals import Interval, cluster_share, clusters_as_trials, count_clusters, make_interval, wilson
from audiograft.metrics.ranking import Figure, ranking_figures

Array = np.ndarray
_UNIT = "recording"


@dataclass(frozen=True)
class Rate:
    """A share of right answers.

    Attributes:
        n: clips.
        right: of them.
        rate: right / n; None without a clip.
        wilson: Wilson's interval, which takes clips for independent; None without a clip.
    """

    n: int
    right: int
    rate: float | None
    wilson: Interval | None


@dataclass(frozen=True)
class Confidence:
    """Mean probability that a detector gave to what it said: P(positive) where it said so, else 1 - P(positive).

    Attributes:
        overall: of all clips.
        right: of those that it had right; None where there is none.
        wrong: of those that it had wrong; None where there is none.
        n_wrong: how many these are: the mean of a handful says little.
        gap: right less wrong; None where one is.
    """

    overall: float
    right: float | None
    wrong: float | None
    n_wrong: int
    gap: float | None


@dataclass(frozen=True)
class Probabilities:
    """What P(positive) of two classes is worth, whatever the threshold.

    Attributes:
        roc_auc: see `ranking`.
        pr_auc: average precision, likewise.
        eer: where misses are as frequent as false alarms, likewise.
        brier: see `calibration`, as all that follow.
        nll: in nats.
        ece: over the bins of `reliability`.
        reliability: P(positive) against the share of positive clips.
        confidence: overall, when right and when wrong.
    """

    roc_auc: Figure
    pr_auc: Figure
    eer: Figure
    brier: float
    nll: float
    ece: float
    reliability: list[Bin]
    confidence: Confidence


@dataclass(frozen=True)
class DetectionScores:
    """Every figure of a detection on labelled clips.

    Attributes:
        n: clips.
        classes: in order; the first is the positive one.
        accuracy: share of clips that are right.
        accuracy_interval: of it, by drawing recordings.
        balanced_accuracy: mean, over the classes that occur, of the share that is right; one class alone has none, so it is None.
        balanced_accuracy_interval: of it, by drawing recordings; None likewise.
        per_class: by label.
        confusion: label to prediction to clips.
        probabilities: None where none were given.
    """

    n: int
    classes: tuple[str, ...]
    accuracy: Rate
    accuracy_interval: Interval
    balanced_accuracy: float | None
    balanced_accuracy_interval: Interval | None
    per_class: dict[str, Rate]
    confusion: dict[str, dict[str, int]]
    probabilities: Probabilities | None


def score_detection(
    labels: Sequence[str],
    predicted: Sequence[str],
    classes: Sequence[str],
    probs: Sequence[float] | Array | None = None,
    clusters: Sequence[str | None] | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> DetectionScores:
    """Every figure of a detector on labelled clips.

    Args:
        labels: what each clip is (n_clips,).
        predicted: what each was called (n_clips,).
        classes: all labels, the positive one first.
        probs: P(first class) of each clip, between 0 and 1 (n_clips,); of two classes only; None where they are not known.
        clusters: the recording of each clip; a None in it is a cluster of its own; None altogether: every clip is.
        resamples: draws of the bootstrap.
        confidence: of all intervals.
        seed: same seed, same intervals.

    Raises:
        ValueError: no clip, lengths that differ, a label or a prediction that is none of the classes, probabilities of more than two classes or
            outside 0 to 1.
    """
    _check(labels, predicted, classes, probs, clusters)
    groups = [None] * len(labels) if clusters is None else clusters
    right = np.array([label == said for label, said in zip(labels, predicted, strict=True)])
    truth = np.array(labels)
    present = [name for name in classes if (truth == name).any()]
    balanced, balanced_interval = None, None
    if len(present) > 1:
        balanced, balanced_interval = _balanced(right, truth, present, groups, resamples, confidence, seed)
    return DetectionScores(
        len(labels),
        tuple(classes),
        _rate(right, confidence),
        cluster_share(right.tolist(), groups, resamples, confidence, seed, _UNIT),
        balanced,
        balanced_interval,
        {name: _rate(right[truth == name], confidence) for name in classes},
        {name: {said: sum(a == name and b == said for a, b in zip(labels, predicted, strict=True)) for said in classes} for name in classes},
        None if probs is None else _score_probs(truth == classes[0], right, np.asarray(probs, dtype=float), groups, resamples, confidence, seed),
    )


def condition_table(labels: Sequence[str], predicted: Sequence[str], conditions: Mapping[str, Sequence[Any]], positive: str) -> list[dict[str, Any]]:
    """Accuracy in each cell of one condition or several, such as duration x SNR.

    Args:
        labels: what each clip is (n_clips,).
        predicted: what each was called (n_clips,).
        conditions: key to the value of each clip (n_clips,); clips with a None in one of them are in no cell.
        positive: the label of which hits are counted; clips of all others can be false alarms.

    Returns:
        One row a cell that has clips, in order of its values: the keys, `n`, `right`, `accuracy`, `wilson` {low, high}, `n_positive`,
        `hit_rate` (None without a positive clip), `n_negative`, `false_alarm_rate` (None without a negative one). The sum of `n` is less than the
        number of clips by those without a value.

    Raises:
        ValueError: lengths that differ.
    """
    cells: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
    for label, said, *values in zip(labels, predicted, *conditions.values(), strict=True):
        if None not in values:
            cells.setdefault(tuple(values), []).append((label, said))
    rows = []
    for cell in sorted(cells, key=lambda values: [(isinstance(value, str), value) for value in values]):
        clips = cells[cell]
        hits = [said == positive for label, said in clips if label == positive]
        alarms = [said == positive for label, said in clips if label != positive]
        right = sum(label == said for label, said in clips)
        interval = wilson(right, len(clips))
        rows.append(
            {
                **dict(zip(conditions, cell, strict=True)),
                "n": len(clips),
                "right": right,
                "accuracy": right / len(clips),
                "wilson": {"low": interval.low, "high": interval.high},
                "n_positive": len(hits),
                "hit_rate": sum(hits) / len(hits) if hits else None,
                "n_negative": len(alarms),
                "false_alarm_rate": sum(alarms) / len(alarms) if alarms else None,
            }
        )
    return rows


def _rate(right: Array, confidence: float) -> Rate:
    n, n_right = len(right), int(right.sum())
    return Rate(n, n_right, n_right / n if n else None, wilson(n_right, n, confidence) if n else None)


def _balanced(
    right: Array, truth: Array, present: Sequence[str], groups: Sequence[str | None], resamples: int, confidence: float, seed: int
) -> tuple[float, Interval]:
    """Balanced accuracy and its interval, by the bootstrap on its logit; Wilson's where all clips are right, or none is."""
    members = np.column_stack([truth == name for name in present]).astype(float)
    sums = np.hstack([members * right[:, None], members])
    n_classes = len(present)

    def shares(sums: Array) -> Array:
        means: Array = (sums[..., :n_classes] / sums[..., n_classes:]).mean(axis=-1)
        return means

    def logit_gradient(sums: Array) -> Array:
        hits, sizes = sums[..., :n_classes], sums[..., n_classes:]
        mean = shares(sums)[..., None]
        gradient: Array = np.concatenate([1 / sizes, -hits / sizes**2], axis=-1) / n_classes / (mean * (1 - mean))
        return gradient

    rate = float(shares(sums.sum(axis=0)))
    if rate in (0.0, 1.0):
        return rate, clusters_as_trials(count_clusters(groups) if rate else 0, groups, confidence, _UNIT)
    drawn = bootstrap(sums, groups, np.ones(len(right)), Statistic(lambda sums: special.logit(shares(sums)), logit_gradient), resamples, seed)
    return rate, make_interval(drawn, confidence, groups, special.expit, _UNIT)


def _score_probs(
    truth: Array, right: Array, probs: Array, groups: Sequence[str | None], resamples: int, confidence: float, seed: int
) -> Probabilities:
    figures = ranking_figures(truth, probs, groups, resamples=resamples, confidence=confidence, seed=seed)
    return Probabilities(
        figures["roc_auc"],
        figures["pr_auc"],
        figures["eer"],
        brier_score(truth, probs),
        negative_log_likelihood(truth, probs),
        expected_calibration_error(truth, probs),
        reliability(truth, probs),
        _confidence(np.where(right == truth, probs, 1 - probs), right),
    )


def _confidence(sure: Array, right: Array) -> Confidence:
    """Of the probability of what was said: of the positive class where a positive clip is right, or a negative one wrong."""
    when_right = float(sure[right].mean()) if right.any() else None
    when_wrong = float(sure[~right].mean()) if not right.all() else None
    gap = None if when_right is None or when_wrong is None else when_right - when_wrong
    return Confidence(float(sure.mean()), when_right, when_wrong, int((~right).sum()), gap)


def _check(
    labels: Sequence[str],
    predicted: Sequence[str],
    classes: Sequence[str],
    probs: Sequence[float] | Array | None,
    clusters: Sequence[str | None] | None,
) -> None:
    columns = [column for column in (labels, predicted, probs, clusters) if column is not None]
    if not len(labels) or any(len(column) != len(labels) for column in columns):
        raise ValueError(f"columns of one length, and one clip at least: got {', '.join(str(len(column)) for column in columns)}")
    strange = sorted({*labels, *predicted} - set(classes))
    if strange:
        raise ValueError(f"labels and predictions are among the classes {', '.join(classes)}: got {', '.join(map(repr, strange))}")
    if probs is not None and (len(classes) != 2 or not all(0 <= one <= 1 for one in probs)):
        raise ValueError(f"probabilities are those of the first of two classes, between 0 and 1: there are {len(classes)} classes")
