"""Do raters agree more than chance would have them? Cohen's and Fleiss' kappa, by statsmodels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from audiograft.metrics.intervals import Interval


@dataclass(frozen=True)
class Agreement:
    """How far raters agree on the clips that they all judged.

    Attributes:
        kappa: 1 for full agreement, 0 for what chance gives, below 0 for less; None where it is not defined.
        interval: None where it is not known.
        observed: share of pairs of verdicts on one clip that agree; None without such clips.
        n_clips: clips that were compared.
        reason: why kappa or its interval is None; None where both are there.
    """

    kappa: float | None
    interval: Interval | None
    observed: float | None
    n_clips: int
    reason: str | None = None


_ROUNDING = 1e-6
_ONE_CATEGORY = "all verdicts are of one category, so that chance would agree too"


def cohen_kappa(a: Sequence[str | None], b: Sequence[str | None], confidence: float = 0.95) -> Agreement:
    """Cohen's kappa (1960) of two raters, with the large-sample interval of Fleiss, Cohen and Everitt (1969).

    Args:
        a: the first rater's category of each clip; None where there is none.
        b: the second's, of the same clips in the same order.
        confidence: of the interval, which ends at -1 and 1.

    Raises:
        ValueError: lengths differ.
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    pairs = [(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    if not pairs:
        return Agreement(None, None, None, 0, "no clip was judged by both raters")
    place = {category: i for i, category in enumerate(sorted({category for pair in pairs for category in pair}))}
    observed = sum(x == y for x, y in pairs) / len(pairs)
    if len(place) == 1:
        return Agreement(None, None, observed, len(pairs), _ONE_CATEGORY)
    table = np.zeros((len(place), len(place)))
    for x, y in pairs:
        table[place[x], place[y]] += 1
    with np.errstate(all="ignore"):  # it tests kappa against 0 too, which divides by nothing where a rater gave one category
        found = cohens_kappa(table)
    kappa, deviation = float(found.kappa), float(found.std_kappa)
    if observed == 1 or len(pairs) == 1 or not deviation > _ROUNDING:
        return Agreement(kappa, None, observed, len(pairs), _why_no_interval(observed, len(pairs)))
    half = float(special.ndtri((1 + confidence) / 2)) * deviation
    interval = Interval(max(kappa - half, -1.0), min(kappa + half, 1.0), confidence, "large-sample", len(pairs))
    return Agreement(kappa, interval, observed, len(pairs))


def fleiss_kappa(table: Sequence[Sequence[int]] | np.ndarray, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> Agreement:
    """Fleiss' kappa (1971) of several raters, with a percentile bootstrap over clips.

    Args:
        table: how many raters put each clip into each category (n_clips, n_categories); all clips with as many verdicts, 2 at least.
        confidence: of the interval.
        resamples: bootstrap samples; those that drew one category alone have no kappa and are drawn again.
        seed: same seed, same interval.

    Returns:
        Kappa is None, with a reason, where there is no clip, clips have unequal numbers of verdicts, or all are of one category.
    """
    from statsmodels.stats import inter_rater

    counts = np.asarray(table, dtype=int).reshape(len(table), -1 if len(table) else 0)
    n_clips, verdicts = len(counts), counts.sum(axis=1)
    if not n_clips or verdicts.max() < 2:
        return Agreement(None, None, None, 0, "no clip was judged by two raters")
    if verdicts.min() != verdicts.max():
        reason = f"clips have {verdicts.min()} to {verdicts.max()} verdicts: kappa needs the clips that all raters judged"
        return Agreement(None, None, None, n_clips, reason)
    observed = float(((counts * (counts - 1)).sum(axis=1) / (verdicts * (verdicts - 1))).mean())
    if (counts.sum(axis=0) > 0).sum() == 1:
        return Agreement(None, None, observed, n_clips, _ONE_CATEGORY)
    kappa = float(inter_rater.fleiss_kappa(counts))
    if observed == 1 or n_clips == 1:
        return Agreement(kappa, None, observed, n_clips, _why_no_interval(observed, n_clips))
    rng = np.random.default_rng(seed)
    drawn: list[float] = []
    while len(drawn) < resamples:
        sample = counts[rng.integers(0, n_clips, n_clips)]
        if (sample.sum(axis=0) > 0).sum() > 1:
            drawn.append(float(inter_rater.fleiss_kappa(sample)))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Agreement(kappa, Interval(float(low), float(high), confidence, "clip-bootstrap", n_clips), observed, n_clips)


def _why_no_interval(observed: float, n_clips: int) -> str:
    if observed == 1:
        return "the raters agree on every clip, so that the spread of kappa can't be told"
    return "one clip alone tells nothing of the spread of kappa" if n_clips == 1 else "a rater gave one category alone, so kappa is 0 in any sample"
