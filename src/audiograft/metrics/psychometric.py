"""Psychometric curves: how performance grows with duration or SNR, and where it reaches a level (Wichmann and Hill 2001)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import special

from audiograft.metrics.bootstrap import as_units, draw_clusters
from audiograft.metrics.curve_fits import CurveData, Curves, Shape, bounds, fit_curves, log_likelihoods, probabilities, shift_of
from audiograft.metrics.curves import CurveOptions, Goodness, Level, Point, PsychometricCurve, PsychometricFit, Slope, scaled, unscaled
from audiograft.metrics.intervals import few_clusters, wilson
from audiograft.types import DataError

Array = np.ndarray

_FEWEST_LEVELS = 3
"""As many as a curve has parameters."""
_MOST_LEVELS = 20
"""More distinct levels, such as SNRs that were measured, are put together in as many groups of equal size, each at its mean."""
_PROFILE_POINTS = 161
_UNFIT = 0.05
_UNFIT_NOTE = "the points lie farther from the curve than chance allows: its shape is wrong, or answers within a level are not independent"
DEFAULT_OPTIONS = CurveOptions()
_SPARE_GUESS = 0.02
_MOST_STRATA = 12
_MOST_UNBALANCED = 0.1
"""How far from one half the share of positive clips at a level may be; at levels with few clips, as far as chance takes it."""


@dataclass(frozen=True)
class _Measured:
    """The data set, its levels in their unit, and what each cluster adds to it.

    Of `totals` (n_clusters, 2 * n_levels + 2) the columns are right answers and answers at each level, false alarms, negative clips.
    """

    data: CurveData
    places: Array
    totals: Array
    units: Array
    independent: bool


def psychometric_curves(
    positive: Sequence[bool] | Array,
    right: Sequence[bool] | Array,
    duration_ms: Sequence[float | None],
    snr_db: Sequence[float | None],
    clusters: Sequence[str | None] | None = None,
    *,
    shape: Shape = "logistic",
    resamples: int = 400,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """The curves of a detection, ready for JSON: how accuracy and hit rate grow with duration and SNR.

    Accuracy of two classes of equal size starts from 0.5: so DT75 and SNR-75 are where 75 % of the clips are right, and half of them being right
    is no threshold. DT50 is of the hit rate: where half of the positive clips are found, over the false-alarm rate as guess rate.

    Args:
        positive: of each clip, whether it holds speech (n_clips,).
        right: of each clip, whether it was called right (n_clips,).
        duration_ms: of each clip (n_clips,).
        snr_db: of each clip, as the grid has it, or as measured (n_clips,).
        clusters: the recording of each clip; a None in it is a cluster of its own; None altogether: every clip is.
        shape: of the curves.
        resamples: draws for each.
        confidence: of the intervals.
        seed: same seed, same draws.

    Returns:
        `curves`: name to the fields of `PsychometricCurve` with `over` (duration_ms or snr_db), `of` (accuracy or hit_rate), `where` (the duration or
        SNR that its clips have in common, if any) and `left_out` (clips that do not state their level); or to `refused`, why there is none.
        `dt50_ms`, `dt75_ms`, `snr75_db`: the `level` of three of them.
    """
    clips = _Clips(
        np.asarray(positive, dtype=bool),
        np.asarray(right, dtype=bool),
        {"duration_ms": _numbers(duration_ms), "snr_db": _numbers(snr_db)},
        [None] * len(right) if clusters is None else clusters,
    )
    options = {
        "duration_ms": CurveOptions(0.75, shape, True, "ms", resamples, confidence, seed),
        "snr_db": CurveOptions(0.75, shape, False, "dB", resamples, confidence, seed),
    }
    everywhere = np.full(len(clips.right), True)
    curves = {
        "accuracy_by_duration": _accuracy(clips, "duration_ms", everywhere, options),
        "accuracy_by_snr": _accuracy(clips, "snr_db", everywhere, options),
        "hit_rate_by_duration": _hit_rate(clips, "duration_ms", replace(options["duration_ms"], performance=0.5)),
    }
    for over, by, name in (("snr_db", "duration_ms", "accuracy_by_snr_at_{:g}_ms"), ("duration_ms", "snr_db", "accuracy_by_duration_at_{:g}_db")):
        values = np.unique(clips.columns[by][np.isfinite(clips.columns[by])]).tolist()
        if 1 < len(values) <= _MOST_STRATA:
            curves |= {name.format(value): _accuracy(clips, over, clips.columns[by] == value, options) | {"where": {by: value}} for value in values}
    named = {"dt50_ms": "hit_rate_by_duration", "dt75_ms": "accuracy_by_duration", "snr75_db": "accuracy_by_snr"}
    unknown = {"value": None, "low": None, "high": None}
    return {"curves": curves, **{key: curves[name].get("level") or {**unknown, "reason": curves[name]["refused"]} for key, name in named.items()}}


@dataclass(frozen=True)
class _Clips:
    positive: Array
    right: Array
    columns: dict[str, Array]
    clusters: Sequence[str | None]

    def clusters_of(self, chosen: Array) -> list[str | None]:
        return [self.clusters[i] for i in np.flatnonzero(chosen).tolist()]


def _accuracy(clips: _Clips, over: str, chosen: Array, options: Mapping[str, CurveOptions]) -> dict[str, Any]:
    stated = chosen & np.isfinite(clips.columns[over])
    told = {"over": over, "of": "accuracy", "where": {}, "left_out": int((chosen & ~stated).sum())}
    try:
        _check_balance(clips.positive[stated], clips.columns[over][stated], options[over].unit)
        found = measure_curve(clips.columns[over][stated], clips.right[stated], clips.clusters_of(stated), options[over])
    except DataError as refused:
        return {**told, "refused": str(refused)}
    return {**told, **asdict(found)}


def _hit_rate(clips: _Clips, over: str, options: CurveOptions) -> dict[str, Any]:
    stated = np.isfinite(clips.columns[over])
    hits, others = stated & clips.positive, stated & ~clips.positive
    told = {"over": over, "of": "hit_rate", "where": {}, "left_out": int((~stated).sum())}
    try:
        if not hits.any() or not others.any():
            raise DataError("a hit rate needs clips of both classes, with their levels: false alarms stand beside it")
        alarms, clusters = ~clips.right[others], clips.clusters_of(others)
        levels = clips.columns[over][hits]
        found = measure_curve(levels, clips.right[hits], clips.clusters_of(hits), options, alarms=alarms, alarm_clusters=clusters)
    except DataError as refused:
        return {**told, "refused": str(refused)}
    return {**told, **asdict(found)}


def _numbers(values: Sequence[float | None]) -> Array:
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _check_balance(truth: Array, levels: Array, unit: str) -> None:
    """Raise where accuracy would not start from one half, since one class has more clips."""
    if not len(truth):
        raise DataError("no clip states its level")
    places, index = _group_levels(levels)
    n, n_positive = np.bincount(index), np.bincount(index, truth)
    odd = np.abs(n_positive / n - 0.5) > np.maximum(_MOST_UNBALANCED, 1 / np.sqrt(n))
    if odd.any():
        worst = int(np.flatnonzero(odd)[0])
        share = f"{n_positive[worst] / n[worst]:.0%} of the clips at {places[worst]:.4g} {unit}"
        raise DataError(f"accuracy starts from one half only where both classes have as many clips: {share} are positive")


def measure_curve(
    levels: Sequence[float] | Array,
    right: Sequence[bool] | Array,
    clusters: Sequence[str | None] | None = None,
    options: CurveOptions = DEFAULT_OPTIONS,
    *,
    guess: float = 0.5,
    alarms: Sequence[bool] | Array | None = None,
    alarm_clusters: Sequence[str | None] | None = None,
) -> PsychometricCurve:
    """Fit a curve by maximum likelihood, and find where it reaches a performance.

    Intervals of that place and of the slope hold the values whose profile likelihood is not too far below the highest. How far is too far is
    bootstrapped: in data sets drawn anew it is seen how far below the highest the values of the fit lie, and the share `confidence` of these
    distances has to be taken in; but no less than Student's distribution asks for. Data sets are drawn by whole clusters, false alarms with
    them; where each clip is a cluster of its own, from the fitted curve. `benchmarks/results/psychometric_coverage.json` has how often such
    intervals hold the truth, beside the percentile bootstrap, which does so too seldom.

    Args:
        levels: duration or SNR of each clip, in its unit (n_clips,).
        right: whether it was called right, or, for a hit rate, positive (n_clips,).
        clusters: of each clip; a None in it is a cluster of its own; None altogether: every clip is.
        options: the performance that is looked for, and all else.
        guess: rate where nothing can be heard: 0.5 for the accuracy of two classes of equal size.
        alarms: of clips of the other class, whether they were called positive: their share is the guess rate of a hit rate, in place of `guess`.
        alarm_clusters: of these.

    Raises:
        DataError: fewer than three levels, or a performance that is reached by guessing.
        ValueError: lengths that differ, or levels that are not finite or, with `log`, not above 0.
    """
    shape, performance = options.shape, options.performance
    measured = _gather(levels, right, clusters, guess, alarms, alarm_clusters, options.log)
    data = measured.data
    guessed = float(data.guess[0])
    if guessed >= performance - _SPARE_GUESS:
        raise DataError(f"{performance:.0%} is reached by guessing alone, which gives {guessed:.1%}: there is no such threshold")
    best = fit_curves(data, shape, performance)
    fit = _describe(measured, best, options)
    simulated = _simulate(data, best, options)
    again = fit_curves(simulated, shape, performance)
    drawn = simulated if measured.independent else _draw(measured, options)
    refitted = again if measured.independent else fit_curves(drawn, shape, performance)
    cutoffs = [_cutoff(drawn, refitted, best, options, column, measured) for column in (0, 1)]
    method = f"profile likelihood, {'parametric' if measured.independent else 'cluster'} bootstrap"
    level, slope = _level(data, best, options, cutoffs[0], method), _slope(data, best, options, cutoffs[1])
    goodness = _goodness(data, fit, simulated, again)
    notes = [
        None if measured.independent else few_clusters([str(unit) for unit in measured.units], "recording"),
        _UNFIT_NOTE if goodness.unfit else None,
    ]
    return PsychometricCurve(fit, _points(measured), level, slope, goodness, tuple(note for note in notes if note))


def _gather(
    levels: Sequence[float] | Array,
    right: Sequence[bool] | Array,
    clusters: Sequence[str | None] | None,
    guess: float,
    alarms: Sequence[bool] | Array | None,
    alarm_clusters: Sequence[str | None] | None,
    log: bool,
) -> _Measured:
    at, hits = np.asarray(levels, dtype=float), np.asarray(right, dtype=float)
    if at.shape != hits.shape or (clusters is not None and len(clusters) != len(at)) or not np.isfinite(at).all() or (log and (at <= 0).any()):
        raise ValueError(f"a finite level, an answer and a cluster a clip: got {len(at)} levels and {len(hits)} answers")
    others = np.asarray([] if alarms is None else alarms, dtype=float)
    groups = [*(clusters or [None] * len(at)), *(alarm_clusters or [None] * len(others))]
    places, index = _group_levels(at)
    if len(places) < _FEWEST_LEVELS:
        raise DataError(f"a curve needs {_FEWEST_LEVELS} levels at least: these clips have {len(places)}")
    units, n_levels = as_units(groups), len(places)
    totals = np.zeros((int(units.max()) + 1, 2 * n_levels + 2))
    np.add.at(totals, (units[: len(at)], index), hits)
    np.add.at(totals, (units[: len(at)], n_levels + index), 1.0)
    np.add.at(totals[:, -2], units[len(at) :], others)
    np.add.at(totals[:, -1], units[len(at) :], 1.0)
    whole = totals.sum(axis=0)
    rate = float(whole[-2] / whole[-1]) if len(others) else guess
    data = CurveData(scaled(places, log), whole[None, :n_levels], whole[None, n_levels:-2], np.array([rate]))
    return _Measured(data, places, totals, units, len(totals) == len(units))


def _group_levels(at: Array) -> tuple[Array, Array]:
    """The distinct levels, rising, or the means of groups of them; and the number of each clip's."""
    places, index = np.unique(at, return_inverse=True)
    if len(places) <= _MOST_LEVELS:
        return places, index
    group = np.minimum(np.argsort(np.argsort(at, kind="stable")) * _MOST_LEVELS // len(at), _MOST_LEVELS - 1)
    group = group[np.unique(at, return_index=True)[1]][index]  # equal levels stay together
    kept, index = np.unique(group, return_inverse=True)
    return np.array([at[group == one].mean() for one in kept]), index


def _describe(measured: _Measured, best: Curves, options: CurveOptions) -> PsychometricFit:
    data, shape = measured.data, options.shape
    place, log_slope, lapse = best.parameters[0].tolist()
    slope = math.exp(log_slope)
    shift = float(shift_of(options.performance, data.guess[0], np.array(lapse), shape))
    likelihood = float(best.log_likelihood[0])
    flat = float(log_likelihoods(data, np.full((1, 1), data.right.sum() / data.trials.sum()))[0])
    return PsychometricFit(
        shape,
        options.log,
        place - shift / slope,
        slope,
        float(data.guess[0]),
        lapse,
        likelihood,
        max(2 * (float(_saturated(data)[0]) - likelihood), 0.0),
        1 - likelihood / flat if flat < -1e-6 else None,
        int(data.trials.sum()),
        float(measured.places[0]),
        float(measured.places[-1]),
    )


def _saturated(data: CurveData) -> Array:
    return log_likelihoods(data, data.right / np.maximum(data.trials, 1))


def _simulate(data: CurveData, best: Curves, options: CurveOptions) -> CurveData:
    """Data sets of independent answers from the fitted curve."""
    rng = np.random.default_rng(options.seed)
    probs = np.clip(probabilities(data.levels, data.guess, best.parameters, options.shape, options.performance)[0], 0, 1)
    right = rng.binomial(data.trials[0].astype(int), probs, size=(options.resamples, len(probs))).astype(float)
    repeated = data.repeat(options.resamples)
    return CurveData(data.levels, right, repeated.trials, repeated.guess)


def _draw(measured: _Measured, options: CurveOptions) -> CurveData:
    """Data sets of clusters drawn with replacement, as often as they are drawn."""
    times = draw_clusters(len(measured.totals), options.resamples, np.random.default_rng(options.seed))
    sums, n_levels = times @ measured.totals, len(measured.data.levels)
    guess = np.where(sums[:, -1] > 0, sums[:, -2] / np.maximum(sums[:, -1], 1), measured.data.guess)
    return CurveData(measured.data.levels, sums[:, :n_levels], sums[:, n_levels:-2], np.minimum(guess, options.performance - _SPARE_GUESS))


def _cutoff(drawn: CurveData, refitted: Curves, best: Curves, options: CurveOptions, column: int, measured: _Measured) -> float:
    """Twice the log-likelihood that a place or a log-slope may lack to be taken in."""
    truth = np.full(len(drawn.right), best.parameters[0, column])
    held = _hold(drawn, options, column, truth)
    lacking = np.sort(2 * (refitted.log_likelihood - held.log_likelihood))
    place = min(math.ceil(options.confidence * (len(lacking) + 1)) - 1, len(lacking) - 1)
    degrees = max(1 / float(((np.bincount(measured.units) / len(measured.units)) ** 2).sum()) - 1, 1.0)
    tail, n_clusters = (1 + options.confidence) / 2, len(measured.totals)
    student = float(special.stdtrit(degrees, tail)) ** 2
    # Clusters drawn from n spread less than the n do, by 1 / n, and what n tell of their spread is itself uncertain.
    wider = 1.0 if measured.independent else n_clusters / (n_clusters - 1) * student / float(special.ndtri(tail)) ** 2
    return max(student, wider * float(lacking[place]))


def _hold(data: CurveData, options: CurveOptions, column: int, values: Array) -> Curves:
    return fit_curves(data, options.shape, options.performance, place=None if column else values, log_slope=values if column else None)


def _taken_in(
    data: CurveData, best: Curves, options: CurveOptions, column: int, grid: Array, cutoff: float
) -> tuple[float | None, float | None, bool]:
    """Where the profile over a rising grid comes within the cutoff, and goes beyond it again; and whether it ever is within.

    None stands where it is within at an end of the grid.
    """
    held = _hold(data.repeat(len(grid)), options, column, grid)
    lacking = 2 * (best.log_likelihood[0] - held.log_likelihood)
    within = np.flatnonzero(lacking <= cutoff)
    if not len(within):
        return None, None, False
    first, last = int(within[0]), int(within[-1])
    low = None if first == 0 else float(np.interp(cutoff, lacking[[first, first - 1]], grid[[first, first - 1]]))
    high = None if last == len(grid) - 1 else float(np.interp(cutoff, lacking[[last, last + 1]], grid[[last, last + 1]]))
    return low, high, True


def _level(data: CurveData, best: Curves, options: CurveOptions, cutoff: float, method: str) -> Level:
    place, ends = float(best.parameters[0, 0]), data.levels[[0, -1]]
    inside = bool(ends[0] <= place <= ends[1])
    grid = np.linspace(ends[0], ends[1], _PROFILE_POINTS)
    if inside:
        grid = np.insert(grid, np.searchsorted(grid, place), place)
    low, high, met = _taken_in(data, best, options, 0, grid, cutoff)
    if not met:
        # All values within the levels are too unlikely: the whole interval lies on the side of the fit.
        low, high = (None, float(ends[0])) if place < ends[0] else (float(ends[1]), None)
    lowest, highest = (f"{float(unscaled(end, options.log)):.4g} {options.unit}" for end in ends)
    reason = None
    if not inside:
        reason = f"{options.performance:.0%} lies " + (
            f"below the lowest level measured, {lowest}" if place < ends[0] else f"above the highest, {highest}"
        )
    elif low is None and high is None:
        reason = f"any level from {lowest} to {highest} may be the one: the clips do not tell"
    value, low, high = (None if x is None else round(float(unscaled(x, options.log)), 9) for x in (place if inside else None, low, high))
    return Level(options.performance, value, low, high, reason, method, options.confidence)


def _slope(data: CurveData, best: Curves, options: CurveOptions, cutoff: float) -> Slope:
    lows, highs = bounds(data.levels)
    found = float(best.parameters[0, 1])
    grid = np.linspace(lows[1], highs[1], _PROFILE_POINTS)
    grid = np.insert(grid, np.searchsorted(grid, found), found)
    low, high, _ = _taken_in(data, best, options, 1, grid, cutoff)
    return Slope(math.exp(found), None if low is None else math.exp(low), None if high is None else math.exp(high))


def _goodness(data: CurveData, fit: PsychometricFit, simulated: CurveData, refitted: Curves) -> Goodness:
    degrees = len(data.levels) - _FEWEST_LEVELS
    if degrees < 1:
        return Goodness(fit.deviance, 0, None, False)
    deviances = 2 * (_saturated(simulated) - refitted.log_likelihood)
    p_value = (1 + int((deviances >= fit.deviance - 1e-6).sum())) / (1 + len(deviances))
    return Goodness(fit.deviance, degrees, p_value, p_value < _UNFIT)


def _points(measured: _Measured) -> tuple[Point, ...]:
    data, points = measured.data, []
    for level, right, n in zip(measured.places.tolist(), data.right[0].astype(int).tolist(), data.trials[0].astype(int).tolist(), strict=True):
        interval = wilson(right, n)
        points.append(Point(level, n, right, right / n, float(interval.low or 0), float(1 if interval.high is None else interval.high)))
    return tuple(points)
