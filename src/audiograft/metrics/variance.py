"""How much of what repeated runs differ by comes from the seed, how much from the split of the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiograft.metrics.intervals import Interval

Array = np.ndarray


@dataclass(frozen=True)
class VarianceParts:
    """A table of accuracies, taken apart.

    Attributes:
        mean: of all runs.
        interval: of the mean, for a new seed and a new split; without ends where the table can't carry one, which its warning explains.
        seed_sd: standard deviation between seeds; None with one seed.
        split_sd: between splits; None with one split.
        residual_sd: what is left: a seed that suits one split and not another; None where seeds or splits are one.
        total_sd: of one run with a new seed and a new split; None with one run.
        n_seeds: rows of the table.
        n_splits: columns.
        one_clip: what one test clip adds to an accuracy; None where the number of clips is not known.
        notes: what to tell whoever reads the parts.
    """

    mean: float
    interval: Interval
    seed_sd: float | None
    split_sd: float | None
    residual_sd: float | None
    total_sd: float | None
    n_seeds: int
    n_splits: int
    one_clip: float | None
    notes: tuple[str, ...] = ()


def variance_parts(values: Array, n_test_clips: int | None = None, confidence: float = 0.95) -> VarianceParts:
    """Two-way random effects without replication, by the analysis of variance (Searle, Casella and McCulloch 1992, chapter 4).

    Args:
        values: accuracies (n_seeds, n_splits).
        n_test_clips: of one split, so that the parts can be held against what one clip is worth.
        confidence: of the interval of the mean.

    Raises:
        ValueError: no value, values that are not finite, or not a table.
    """
    raise NotImplementedError
