"""How a rate would differ with other groups, such as other speakers and other kinds of sound, where only a few of them were measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from audiograft.metrics.bootstrap import FEW_CLUSTERS
from audiograft.metrics.intervals import Interval


def mean_over_groups(classes: Sequence[Sequence[float]], confidence: float = 0.95, lowest: float = 0.0) -> tuple[float, Interval]:
    """Mean over classes of the mean over their groups, each group one observation, however many clips it has.

    Student's interval with the degrees of freedom of Welch (1947, "The generalization of Student's problem when several different population
    variances are involved"): classes have groups of their own kind, such as speakers and kinds of sound, whose spreads differ.

    Args:
        classes: one value a group, such as its share of right clips, by class.
        confidence: of the interval.
        lowest: that the mean can be; the highest is 1.

    Returns:
        The mean and its interval, without ends where a class has one group, or all groups are alike.

    Raises:
        ValueError: no class, or one without a group.
    """
    if not classes or not all(len(groups) for groups in classes):
        raise ValueError("one class with one group at least")
    mean = float(np.mean([np.mean(groups) for groups in classes]))
    n_groups, fewest = sum(map(len, classes)), min(map(len, classes))
    parts = [float(np.var(groups, ddof=1)) / len(groups) if len(groups) > 1 else 0.0 for groups in classes]
    if fewest < 2 or not sum(parts):
        why = "one class has one group alone" if fewest < 2 else "all groups are alike"
        return mean, Interval(None, None, confidence, "none", n_groups, f"{why}: how far others would differ can't be known")
    degrees = sum(parts) ** 2 / sum(part**2 / (len(groups) - 1) for part, groups in zip(parts, classes, strict=True))
    margin = float(special.stdtrit(degrees, (1 + confidence) / 2)) * math.sqrt(sum(parts)) / len(classes)
    warning = f"{n_groups} groups, {fewest} of one class: the interval is wide and rough" if fewest < FEW_CLUSTERS else None
    return mean, Interval(max(mean - margin, lowest), min(mean + margin, 1.0), confidence, "welch-t", n_groups, warning)
