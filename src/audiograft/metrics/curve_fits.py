"""Maximum likelihood of many psychometric curves at once: what bootstraps and profiles of `psychometric` rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

Array = np.ndarray
Shape = Literal["logistic", "gaussian", "weibull"]

MOST_LAPSES = 0.1
"""The lapse rate lies between 0 and this (Wichmann and Hill 2001 have 0.06): a flat prior, so that data without a plateau keep a curve."""
_FLATTEST, _STEEPEST = 0.2, 30.0
"""Bounds of the slope: times one over all levels' span, and times one over the narrowest gap of two levels, between which it is a step."""
_ROUNDS = 60
_ENOUGH = 1e-6
"""Once a round gains less in log-likelihood a fit is done."""
_STUCK = 1e8
"""With so much damping, no step of any size gains anything."""
_LEAST_PROB = 1e-10


@dataclass(frozen=True)
class CurveData:
    """Data sets that were measured at the same levels.

    Attributes:
        levels: on the scale on which the curve has its shape: log2 of a duration, dB; rising (n_levels,).
        right: right answers (n_sets, n_levels).
        trials: answers (n_sets, n_levels); 0 where a data set has none.
        guess: rate of right answers where nothing can be heard (n_sets,).
    """

    levels: Array
    right: Array
    trials: Array
    guess: Array

    def repeat(self, times: int) -> CurveData:
        """The same data sets over and over."""
        return CurveData(self.levels, np.tile(self.right, (times, 1)), np.tile(self.trials, (times, 1)), np.tile(self.guess, times))

    def take(self, rows: Array) -> CurveData:
        return CurveData(self.levels, self.right[rows], self.trials[rows], self.guess[rows])


@dataclass(frozen=True)
class Curves:
    """Curves P(x) = guess + (1 - guess - lapse) F(e^log_slope (x - place) + shift), with the shift at which P(place) is the performance aimed at.

    Attributes:
        parameters: place, log_slope, lapse (n_sets, 3).
        log_likelihood: binomial, without the constant (n_sets,).
    """

    parameters: Array
    log_likelihood: Array


def fit_curves(data: CurveData, shape: Shape, performance: float, *, place: Array | None = None, log_slope: Array | None = None) -> Curves:
    """Fit all data sets by Fisher scoring within bounds, from the best shallow and the best steep point of a grid, and keep the better end.

    Places lie no farther beyond the levels than these span.

    Args:
        data: the data sets.
        shape: of the curve.
        performance: P at the place; above the guess rate, and below what `MOST_LAPSES` leave.
        place: where it is not to be fitted, that of each data set (n_sets,).
        log_slope: likewise.
    """
    lows, highs = bounds(data.levels)
    held = np.array([place is not None, log_slope is not None, False])
    starts = np.concatenate(_starts(data, shape, performance))
    for column, values in ((0, place), (1, log_slope)):
        if values is not None:
            starts[:, column] = np.tile(values, 2)
    ends = _climb(data.repeat(2), shape, performance, starts, held, lows, highs)
    parameters, likelihoods = ends.parameters.reshape(2, -1, 3), ends.log_likelihood.reshape(2, -1)
    better, rows = likelihoods.argmax(axis=0), np.arange(len(data.right))
    return Curves(parameters[better, rows], likelihoods[better, rows])


def bounds(levels: Array) -> tuple[Array, Array]:
    """Lowest and highest place, log-slope and lapse rate."""
    span, gap = float(levels[-1] - levels[0]), float(np.diff(levels).min())
    return np.array([levels[0] - span, np.log(_FLATTEST / span), 0.0]), np.array([levels[-1] + span, np.log(_STEEPEST / gap), MOST_LAPSES])


def probabilities(levels: Array, guess: Array, parameters: Array, shape: Shape, performance: float) -> Array:
    """P of each data set at each level (n_sets, n_levels)."""
    return _curve(levels, guess, parameters, shape, performance)[0]


def shift_of(performance: float, guess: Array, lapse: Array, shape: Shape) -> Array:
    """Argument of F at which P is the performance."""
    share = (performance - guess) / (1 - guess - lapse)
    if shape == "logistic":
        shift = special.logit(share)
    elif shape == "gaussian":
        shift = special.ndtri(share)
    else:
        shift = np.log(-np.log1p(-share))
    found: Array = np.asarray(shift)
    return found


def log_likelihoods(data: CurveData, probs: Array) -> Array:
    """Binomial, without the constant (n_sets,)."""
    kept = np.clip(probs, _LEAST_PROB, 1 - _LEAST_PROB)
    total: Array = (data.right * np.log(kept) + (data.trials - data.right) * np.log1p(-kept)).sum(axis=-1)
    return total


def _curve(levels: Array, guess: Array, parameters: Array, shape: Shape, performance: float) -> tuple[Array, Array]:
    """P (n_sets, n_levels), and its derivatives by place, log-slope and lapse (n_sets, n_levels, 3)."""
    place, slope, lapse = parameters[:, 0, None], np.exp(parameters[:, 1, None]), parameters[:, 2, None]
    room = 1 - guess[:, None] - lapse
    shift = shift_of(performance, guess[:, None], lapse, shape)
    risen, steepness = _rise(slope * (levels - place) + shift, shape)
    # The shift moves with the lapse rate, since P(place) is to stay.
    shift_by_lapse = (performance - guess[:, None]) / room**2 / _rise(shift, shape)[1]
    by_argument = room * steepness
    derivatives = np.stack([-slope * by_argument, slope * (levels - place) * by_argument, -risen + by_argument * shift_by_lapse], axis=-1)
    return guess[:, None] + room * risen, derivatives


def _rise(argument: Array, shape: Shape) -> tuple[Array, Array]:
    """F and its derivative."""
    if shape == "logistic":
        risen = special.expit(argument)
        return risen, risen * (1 - risen)
    if shape == "gaussian":
        return special.ndtr(argument), np.exp(-0.5 * np.minimum(argument**2, 1400)) / np.sqrt(2 * np.pi)
    grown = np.exp(np.minimum(argument, 30.0))
    return -np.expm1(-grown), grown * np.exp(-grown)


def _starts(data: CurveData, shape: Shape, performance: float) -> list[Array]:
    """The most likely shallow and the most likely steep point of a grid for each data set (n_sets, 3), with one guess rate for all."""
    lows, highs = bounds(data.levels)
    steepness = np.linspace(lows[1], highs[1], 11)[:-1]
    starts = []
    for half in (steepness[:5], steepness[5:]):
        grid = np.stack(np.meshgrid(np.linspace(lows[0], highs[0], 31), half, [0.005, 0.04, 0.09], indexing="ij"), axis=-1).reshape(-1, 3)
        probs = probabilities(data.levels, np.full(len(grid), float(np.mean(data.guess))), grid, shape, performance)
        kept = np.clip(probs, _LEAST_PROB, 1 - _LEAST_PROB)
        likelihoods = data.right @ np.log(kept).T + (data.trials - data.right) @ np.log1p(-kept).T
        starts.append(grid[likelihoods.argmax(axis=1)])
    return starts


def _climb(data: CurveData, shape: Shape, performance: float, start: Array, held: Array, lows: Array, highs: Array) -> Curves:
    """Fisher scoring, damped after Levenberg and Marquardt, along the bounds where it leads out of them."""
    found = start.copy()
    likelihood = log_likelihoods(data, probabilities(data.levels, data.guess, found, shape, performance))
    damping, active = np.full(len(found), 1e-3), np.arange(len(found))
    for _ in range(_ROUNDS):
        part, now = data.take(active), found[active]
        step = _step(part, shape, performance, now, held, lows, highs, damping[active])
        tried = np.clip(now + step, lows, highs)
        tried[:, held] = now[:, held]
        new = log_likelihoods(part, probabilities(data.levels, part.guess, tried, shape, performance))
        gained = new - likelihood[active]
        better = gained > 0
        found[active[better]], likelihood[active[better]] = tried[better], new[better]
        damping[active] = np.where(better, np.maximum(damping[active] / 5, 1e-9), damping[active] * 8)
        done = better & (gained < _ENOUGH) | (damping[active] > _STUCK)
        active = active[~done]
        if not len(active):
            break
    return Curves(found, likelihood)


def _step(part: CurveData, shape: Shape, performance: float, now: Array, held: Array, lows: Array, highs: Array, damping: Array) -> Array:
    probs, derivatives = _curve(part.levels, part.guess, now, shape, performance)
    kept = np.clip(probs, _LEAST_PROB, 1 - _LEAST_PROB)
    spread = kept * (1 - kept)
    across = derivatives.transpose(0, 2, 1)
    gradient = (across @ ((part.right - part.trials * kept) / spread)[:, :, None])[:, :, 0]
    information = across @ (derivatives * (part.trials / spread)[:, :, None])
    still = held | ((now <= lows) & (gradient < 0)) | ((now >= highs) & (gradient > 0))
    gradient = np.where(still, 0.0, gradient)
    information = np.where(still[:, :, None] | still[:, None, :], 0.0, information)
    diagonal = np.einsum("bpp->bp", information)
    diagonal += np.where(still, 1.0, damping[:, None] * diagonal + 1e-9)
    step: Array = np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
    most = np.array([0.5 * (highs[0] - lows[0]), 1.5, MOST_LAPSES])
    return np.asarray(np.clip(step, -most, most))
