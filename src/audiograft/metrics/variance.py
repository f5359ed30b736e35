"""How much of what repeated runs differ by comes from the seed, how much from the split of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from audiograft.metrics.bootstrap import FEW_CLUSTERS
from audiograft.metrics.intervals import Interval

Array = np.ndarray
_FEWEST_LEVELS = 4
"""Seeds, and splits, from which on the parts of the variance are more than guesses."""
_ROUNDING = 1e-20
"""A variance of accuracies below this is none."""


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

    Parts that come out below 0 are 0. The interval of the mean is Student's, with Satterthwaite's degrees of freedom (1946).

    Args:
        values: accuracies (n_seeds, n_splits).
        n_test_clips: of one split, so that the parts can be held against what one clip is worth.
        confidence: of the interval of the mean.

    Raises:
        ValueError: no value, values that are not finite, or not a table.
    """
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError(f"a table of finite accuracies, seeds x splits: got {table.shape}")
    n_seeds, n_splits = table.shape
    mean, one_clip = float(table.mean()), 1 / n_test_clips if n_test_clips else None
    if 1 in table.shape:
        return _one_way(table, mean, one_clip, confidence)
    by_seed = n_splits * float(table.mean(axis=1).var(ddof=1))
    by_split = n_seeds * float(table.mean(axis=0).var(ddof=1))
    left = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + mean
    residual = float((left**2).sum()) / ((n_seeds - 1) * (n_splits - 1))
    seed, split = max(by_seed - residual, 0.0) / n_splits, max(by_split - residual, 0.0) / n_seeds
    total = math.sqrt(seed + split + residual)
    squares, degrees = [by_seed, by_split, -residual], [n_seeds - 1, n_splits - 1, (n_seeds - 1) * (n_splits - 1)]
    error = sum(squares) / table.size
    if error <= residual / table.size:  # neither seed nor split tells runs apart: all are alike
        squares, degrees, error = [residual], [table.size - 1], residual / table.size
    interval = _interval(
        mean, error, sum(squares) ** 2 / max(sum(x**2 / d for x, d in zip(squares, degrees, strict=True)), 1e-300), table.size, confidence
    )
    notes = (*_few_levels(n_seeds, n_splits), *_notes(table, total, one_clip))
    return VarianceParts(mean, interval, math.sqrt(seed), math.sqrt(split), math.sqrt(residual), total, n_seeds, n_splits, one_clip, notes)


def _one_way(table: Array, mean: float, one_clip: float | None, confidence: float) -> VarianceParts:
    """One seed or one split: what differs along the other includes the residual, and what the missing one would add is not known."""
    n_seeds, n_splits = table.shape
    warning = "one run alone: how far results vary is not known"
    spread = float(table.std(ddof=1)) if table.size > 1 else None
    if table.size > 1:
        warning = (
            f"one {'split' if n_splits == 1 else 'seed'} alone: how far results vary with {'the data' if n_splits == 1 else 'the seed'} is not known"
        )
    interval = Interval(None, None, confidence, "none", table.size, warning)
    along_seeds, along_splits = (spread if n_splits == 1 else None), (spread if n_seeds == 1 else None)
    notes = (warning, *_notes(table, spread, one_clip))
    return VarianceParts(mean, interval, along_seeds, along_splits, None, spread, n_seeds, n_splits, one_clip, notes)


def _interval(mean: float, error: float, degrees: float, n_runs: int, confidence: float) -> Interval:
    if error <= _ROUNDING:
        return Interval(None, None, confidence, "none", n_runs, "all runs are alike: their spread can't be known, so there is no interval")
    margin = float(special.stdtrit(max(degrees, 1.0), (1 + confidence) / 2)) * math.sqrt(error)
    warning = f"{n_runs} runs only: the interval is wide and rough" if n_runs < FEW_CLUSTERS else None
    return Interval(max(mean - margin, 0.0), min(mean + margin, 1.0), confidence, "two-way random effects", n_runs, warning)


def _few_levels(n_seeds: int, n_splits: int) -> tuple[str, ...]:
    """Of so few, a part of 0 says nothing: it is 0 in half of all tables whose true part is small."""
    if min(n_seeds, n_splits) >= _FEWEST_LEVELS:
        return ()
    few = f"{n_seeds} seeds and {n_splits} splits are too few to part the variance, and an sd of 0 is no finding"
    return (f"{few}: {_FEWEST_LEVELS} of each tell more",)


def _notes(table: Array, total: float | None, one_clip: float | None) -> tuple[str, ...]:
    """What may be no finding at all."""
    if table.size == 1:
        return ()
    same = np.ptp(table) == 0
    if one_clip is None:
        return ("all runs have the same accuracy: that is no proof of stability",) if same else ()
    clips = f"one test clip is {100 * one_clip:.2g} points"
    if same:
        return (f"all runs have the same accuracy: that is no proof of stability, since {clips}",)
    if total is not None and total < one_clip:
        return (f"runs differ by less than one test clip: {clips}",)
    return ()
