"""A psychometric curve and all that is known of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audiograft.metrics.curve_fits import Shape, probabilities, shift_of

Array = np.ndarray


@dataclass(frozen=True)
class CurveOptions:
    """How a curve is measured.

    Attributes:
        performance: whose level is looked for.
        shape: of the curve.
        log: whether it has its shape over log2 of the levels, as for durations.
        unit: of the levels, for reasons.
        resamples: draws of the bootstrap.
        confidence: of the intervals.
        seed: same seed, same draws.
    """

    performance: float = 0.75
    shape: Shape = "logistic"
    log: bool = False
    unit: str = "dB"
    resamples: int = 400
    confidence: float = 0.95
    seed: int = 0


@dataclass(frozen=True)
class Level:
    """Where a curve reaches a performance, such as DT75: no curve is followed beyond the levels that were measured.

    Attributes:
        performance: e.g. 0.75.
        value: in the unit of the levels (ms, dB); None where it is not within those that were measured.
        low: lower end of the interval; None where it lies below the lowest level measured.
        high: upper end; None where it lies above the highest level measured.
        reason: why `value` or both ends are None, as one line; None else.
        method: of the interval.
        confidence: e.g. 0.95.
    """

    performance: float
    value: float | None
    low: float | None
    high: float | None
    reason: str | None
    method: str
    confidence: float


@dataclass(frozen=True)
class Slope:
    """How steep a curve is: what the argument of its shape grows by per octave of duration, or per dB.

    Attributes:
        value: of the fit.
        low: lower end of the interval; None where it reaches a curve that is flat.
        high: upper end; None where it reaches a step between two levels.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Goodness:
    """Does the curve fit?

    Attributes:
        deviance: of the fit from the measured shares.
        degrees: levels less three parameters.
        p_value: share of data sets simulated from the fit, and fitted again, with a deviance as large; None without a degree of freedom.
        unfit: p_value below 0.05: the shape is wrong, or answers are not independent within a level.
    """

    deviance: float
    degrees: int
    p_value: float | None
    unfit: bool


@dataclass(frozen=True)
class Point:
    """What was measured at one level: `level` in the unit of the levels, `n` clips, `right` of them, `rate` and Wilson's interval of it."""

    level: float
    n: int
    right: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class PsychometricFit:
    """P(x) = guess + (1 - guess - lapse) F(slope (x - threshold)), most likely with a lapse rate between 0 and `MOST_LAPSES`.

    Attributes:
        shape: F: `logistic`; `gaussian`, cumulative; `weibull`, 1 - exp(-exp(.)), which is Weibull's in the duration where x is its logarithm.
        log: whether x is log2 of the level.
        threshold: the x at which the argument of F is 0.
        slope: per unit of x.
        guess: rate where nothing can be heard; not fitted.
        lapse: rate of misses where all can be heard.
        log_likelihood: binomial, without the constant.
        deviance: twice what the log-likelihood lacks to that of the measured shares.
        mcfadden: 1 - log-likelihood over that of one rate for all levels; None where that is 0.
        n: clips.
        lowest, highest: levels measured, in their unit.
    """

    shape: Shape
    log: bool
    threshold: float
    slope: float
    guess: float
    lapse: float
    log_likelihood: float
    deviance: float
    mcfadden: float | None
    n: int
    lowest: float
    highest: float

    def predict(self, levels: Sequence[float] | Array) -> Array:
        """P at levels in their unit (n_levels,)."""
        at = scaled(np.asarray(levels, dtype=float), self.log)
        parameters = np.array([[self.threshold, math.log(self.slope), self.lapse]])
        middle = self.guess + (1 - self.guess - self.lapse) * _RISE_AT_0[self.shape]
        found: Array = probabilities(at, np.array([self.guess]), parameters, self.shape, middle)[0]
        return found

    def level_at(self, performance: float) -> float | None:
        """The level at which P is the performance; None where that is not within the levels measured, or never."""
        if not self.guess < performance < 1 - self.lapse:
            return None
        shift = float(shift_of(performance, np.array(self.guess), np.array(self.lapse), self.shape))
        found = self.threshold + shift / self.slope
        low, high = scaled(np.array([self.lowest, self.highest]), self.log)
        return float(unscaled(found, self.log)) if low <= found <= high else None


_RISE_AT_0: dict[Shape, float] = {"logistic": 0.5, "gaussian": 0.5, "weibull": 1 - math.exp(-1)}


@dataclass(frozen=True)
class PsychometricCurve:
    """A curve with all that is known of it.

    Attributes:
        fit: the most likely one.
        points: what was measured.
        level: where it reaches the performance that it was measured for.
        slope: with its interval.
        goodness: of the fit.
        notes: what to tell whoever reads it.
    """

    fit: PsychometricFit
    points: tuple[Point, ...]
    level: Level
    slope: Slope
    goodness: Goodness
    notes: tuple[str, ...]


def scaled(levels: Array, log: bool) -> Array:
    """From the unit of levels to the scale of the curve."""
    return np.log2(levels) if log else levels


def unscaled(levels: Array | float, log: bool) -> Array:
    """And back."""
    return np.exp2(levels) if log else np.asarray(levels)
