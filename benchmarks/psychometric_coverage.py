"""How often intervals of psychometric curves hold the parameters that the answers were drawn with.

    python benchmarks/psychometric_coverage.py        # prints the figures, writes benchmarks/results/psychometric_coverage.json (some minutes)

Observers with known thresholds, slopes and lapse rates answer on the grids of the detection bench: durations of 200 to 1000 ms, SNRs of 0 to 20 dB.
Their answers are fitted by `audiograft.metrics.psychometric.measure_curve`. Measured is how often its 95 % intervals hold the true DT75 or SNR-75,
and the true slope:

- answers that are independent of one another, 40 to 200 a level;
- answers of 40 recordings, some of which are harder than others at all levels: each has a threshold of its own. The truth is then the curve of all
  recordings together.

Beside it stands the percentile bootstrap that is common in the field, drawn from the same fits: by clips, and by recordings where there are any.
An interval without an end reaches to the end of the grid and beyond.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from audiograft.metrics.bootstrap import draw_clusters
from audiograft.metrics.curve_fits import CurveData, fit_curves, probabilities
from audiograft.metrics.curves import CurveOptions
from audiograft.metrics.psychometric import measure_curve

RESULTS = Path(__file__).resolve().parent / "results" / "psychometric_coverage.json"
GRIDS = {"duration": (200.0, 400.0, 600.0, 800.0, 1000.0), "SNR": (0.0, 5.0, 10.0, 15.0, 20.0)}
TRIALS = 400
RESAMPLES = 200
PERFORMANCE = 0.75
GUESS = 0.5
RECORDINGS = 40


@dataclass(frozen=True)
class Observer:
    """Who answers.

    Attributes:
        grid: a key of `GRIDS`.
        level: at which 75 % are right: ms or dB.
        slope: per octave or per dB.
        lapse: rate of lapses.
        answers: at each level.
        spread: standard deviation of the recordings' thresholds, in octaves or dB; 0: answers are independent.
    """

    grid: str
    level: float
    slope: float
    lapse: float
    answers: int
    spread: float = 0.0

    @property
    def log(self) -> bool:
        return self.grid == "duration"

    @property
    def levels(self) -> np.ndarray:
        """On the scale of the curve."""
        levels = np.array(GRIDS[self.grid])
        return np.log2(levels) if self.log else levels

    def rates(self, shifts: np.ndarray) -> np.ndarray:
        """How often recordings are answered right, each with its threshold shifted (n_recordings, n_levels)."""
        place = math.log2(self.level) if self.log else self.level
        parameters = np.column_stack([place + shifts, np.full((len(shifts), 2), [math.log(self.slope), self.lapse])])
        return probabilities(self.levels, np.full(len(shifts), GUESS), parameters, "logistic", PERFORMANCE)

    def truth(self) -> tuple[float, float]:
        """The place at which 75 % of all are right, and the slope, of the curve that endless answers would give."""
        points, weights = np.polynomial.hermite_e.hermegauss(41)
        rates = (weights / weights.sum()) @ self.rates(points * self.spread)
        endless = np.full((1, len(rates)), 1e6)
        place, log_slope, _ = fit_curves(CurveData(self.levels, rates * endless, endless, np.array([GUESS])), "logistic", PERFORMANCE).parameters[0]
        return float(np.exp2(place) if self.log else place), math.exp(log_slope)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
        """Level, answer and recording of each clip."""
        if not self.spread:
            rates = np.repeat(self.rates(np.zeros(1)), self.answers, axis=0)
        else:
            own = self.rates(rng.normal(0, self.spread, RECORDINGS))
            rates = np.repeat(own, self.answers // RECORDINGS, axis=0)
        names = [str(i * RECORDINGS // len(rates)) for i in range(len(rates)) for _ in GRIDS[self.grid]] if self.spread else None
        return np.tile(GRIDS[self.grid], len(rates)), (rng.random(rates.shape) < rates).ravel(), names


OBSERVERS = {
    "DT75 400 ms": Observer("duration", 400, 3.0, 0.02, 100),
    "DT75 400 ms, 40 answers a level": Observer("duration", 400, 3.0, 0.02, 40),
    "DT75 400 ms, 200 answers a level": Observer("duration", 400, 3.0, 0.02, 200),
    "DT75 400 ms, lapses 5 %": Observer("duration", 400, 3.0, 0.05, 100),
    "DT75 230 ms, near the edge": Observer("duration", 230, 2.5, 0.0, 100),
    "DT75 850 ms, near the edge": Observer("duration", 850, 3.0, 0.02, 100),
    "SNR75 8 dB": Observer("SNR", 8, 0.4, 0.02, 100),
    "SNR75 8 dB, 40 answers a level": Observer("SNR", 8, 0.4, 0.02, 40),
    "SNR75 8 dB, steep, lapses 5 %": Observer("SNR", 8, 0.8, 0.05, 100),
    "SNR75 1 dB, near the edge": Observer("SNR", 1, 0.4, 0.0, 100),
    "DT75 400 ms, unequal recordings": Observer("duration", 400, 4.0, 0.02, 200, 0.5),
    "SNR75 8 dB, unequal recordings": Observer("SNR", 8, 0.5, 0.02, 200, 3.0),
}


def percentile(observer: Observer, right: np.ndarray, names: list[str] | None, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """The plain percentile bootstrap of the place and of the slope: of answers drawn by themselves, and by recordings."""
    answers = right.reshape(-1, len(observer.levels)).astype(float)
    found = {}
    for unit in ("clips", "recordings") if names else ("clips",):
        if unit == "clips":
            drawn = rng.binomial(len(answers), answers.mean(axis=0), size=(RESAMPLES, answers.shape[1])).astype(float)
        else:
            drawn = draw_clusters(RECORDINGS, RESAMPLES, rng) @ answers.reshape(RECORDINGS, -1, answers.shape[1]).sum(axis=1)
        data = CurveData(observer.levels, drawn, np.full(drawn.shape, float(len(answers))), np.full(len(drawn), GUESS))
        parameters = fit_curves(data, "logistic", PERFORMANCE).parameters[:, :2]
        ends = np.quantile(parameters, [0.025, 0.975], axis=0)
        places = np.exp2(ends[:, 0]) if observer.log else ends[:, 0]
        found[f"threshold, percentile over {unit}"] = (float(places[0]), float(places[1]))
        found[f"slope, percentile over {unit}"] = (math.exp(ends[0, 1]), math.exp(ends[1, 1]))
    return found


def coverage(name: str, trials: int, seed: int, with_percentile: bool = True) -> dict[str, float]:
    """Share of the trials in which each interval holds the truth."""
    observer = OBSERVERS[name]
    level, slope = observer.truth()
    held: dict[str, int] = {}
    for trial in range(trials):
        rng = np.random.default_rng((seed, list(OBSERVERS).index(name), trial))
        levels, right, names = observer.draw(rng)
        curve = measure_curve(levels, right, names, CurveOptions(PERFORMANCE, log=observer.log, resamples=RESAMPLES, seed=trial))
        ends: dict[str, tuple[float | None, float | None]] = {}
        ends |= {"threshold": (curve.level.low, curve.level.high), "slope": (curve.slope.low, curve.slope.high)}
        if with_percentile:
            ends |= percentile(observer, right, names, rng)
        for key, (low, high) in ends.items():
            truth = slope if key.startswith("slope") else level
            held[key] = held.get(key, 0) + ((low is None or low <= truth) and (high is None or truth <= high))
    return {key: count / trials for key, count in held.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    started = time.perf_counter()
    found = {}
    with ProcessPoolExecutor(arguments.workers) as pool:
        measured = pool.map(partial(coverage, trials=arguments.trials, seed=arguments.seed), OBSERVERS)
        for name, shares in zip(OBSERVERS, measured, strict=True):
            found[name] = shares
            print(f"{name}: " + ", ".join(f"{key} {100 * value:.1f} %" for key, value in found[name].items()), flush=True)
    ours = {key: float(np.mean([one[key] for one in found.values()])) for key in ("threshold", "slope")}
    print(", ".join(f"{key} {100 * value:.1f} %" for key, value in ours.items()) + f" over all, {time.perf_counter() - started:.0f} s")
    result: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
        "trials": arguments.trials,
        "resamples": RESAMPLES,
        "seed": arguments.seed,
        "standard_error_at_95": math.sqrt(0.95 * 0.05 / arguments.trials),
        "observers": {name: asdict(one) | dict(zip(("true_level", "true_slope"), one.truth(), strict=True)) for name, one in OBSERVERS.items()},
        "coverage": found,
        "over_all": ours,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
