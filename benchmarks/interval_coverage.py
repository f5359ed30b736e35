"""How often 95 % intervals hold the truth, and how often tests find a difference that is none, over simulated speakers.

    python benchmarks/interval_coverage.py            # prints the figures, writes benchmarks/results/interval_coverage.json (some minutes)

Speakers are drawn anew in each trial. Some say more than others (lognormal), some are harder than others (a factor on all their errors: lognormal,
or a beta distribution of their share of wrong answers), some utterances are harder than others (gamma), and errors come one by one (Poisson); so
errors of one speaker are correlated. What is measured is how often an interval holds the rate that the errors were drawn with:

- `cluster_bootstrap` and `cluster_share`, which evaluate and compare use;
- the percentile bootstrap over utterances, which takes them for independent;
- the percentile bootstrap over speakers.

Of two systems that are alike on average, each with speakers that suit it better, it is measured how often each test says p < 0.05, and how often the
interval of the difference of two systems that do differ holds that difference.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from audiograft.metrics.intervals import FEW_CLUSTERS, cluster_bootstrap, cluster_share
from audiograft.metrics.paired import mapsswe, paired_difference
from audiograft.metrics.permutation import cluster_permutation
from audiograft.metrics.word_errors import ErrorCounts

RESULTS = Path(__file__).resolve().parent / "results" / "interval_coverage.json"
SPEAKERS = (3, 5, 10, 20, 40, 100)
TRIALS = 1000
WORDS = 15.0


@dataclass(frozen=True)
class Speech:
    """How speakers and utterances differ.

    Attributes:
        wer: true, of all speakers together.
        speaker_variation: standard deviation of a speaker's own rate over its mean.
        size_spread: standard deviation of the logarithm of a speaker's number of utterances.
        utterances: of a speaker, on average.
    """

    wer: float = 0.08
    speaker_variation: float = 0.6
    size_spread: float = 0.6
    utterances: float = 20.0


SPEECH = {
    "WER 8 %": Speech(),
    "WER 3 %": Speech(wer=0.03, speaker_variation=0.8),
    "WER 25 %": Speech(wer=0.25, speaker_variation=0.4),
    "WER 8 %, speakers much alike": Speech(speaker_variation=0.2),
    "WER 8 %, speakers very unlike and unequal": Speech(speaker_variation=1.0, size_spread=1.0),
}
ANSWERS = {"accuracy 90 %": (0.1, 0.15, 0.6), "accuracy 70 %, unequal speakers": (0.3, 0.2, 1.0), "accuracy 98 %": (0.02, 0.05, 0.6)}
"""Share of wrong answers, correlation within a speaker, spread of the speakers' sizes."""


def draw_sizes(rng: np.random.Generator, speakers: int, mean: float, spread: float) -> np.ndarray:
    return np.maximum(1, np.rint(rng.lognormal(math.log(mean) - spread**2 / 2, spread, speakers))).astype(int)


def draw_factors(rng: np.random.Generator, variation: float, count: int) -> np.ndarray:
    """Lognormal, of mean 1."""
    variance = math.log(1 + variation**2)
    return rng.lognormal(-variance / 2, math.sqrt(variance), count)


def draw_speech(rng: np.random.Generator, speech: Speech, speakers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each utterance: its speaker, its words, and the errors to be expected."""
    speaker = np.repeat(np.arange(speakers), draw_sizes(rng, speakers, speech.utterances, speech.size_spread))
    words = np.maximum(1, rng.poisson(rng.gamma(3, WORDS / 3, len(speaker))))
    hard = speech.wer * draw_factors(rng, speech.speaker_variation, speakers)[speaker] * rng.gamma(1, 1, len(speaker)) * words
    return speaker, words, hard


def draw_pair(
    rng: np.random.Generator, speech: Speech, speakers: int, gain: float, taste: float
) -> tuple[list[ErrorCounts], list[ErrorCounts], list[str]]:
    """Two systems over the same utterances, and the speakers.

    Args:
        rng: draws.
        speech: how utterances are.
        speakers: how many.
        gain: by how much of its errors the second makes fewer.
        taste: standard deviation of what a speaker multiplies the second's errors by.
    """
    speaker, words, hard = draw_speech(rng, speech, speakers)
    suits = draw_factors(rng, taste, speakers)[speaker]
    return as_counts(rng.poisson(hard), words), as_counts(rng.poisson(hard * (1 - gain) * suits), words), speaker.astype(str).tolist()


def as_counts(errors: np.ndarray, words: np.ndarray) -> list[ErrorCounts]:
    """Errors as substitutions, and those that are more than words as insertions."""
    return [ErrorCounts(max(n - e, 0), min(e, n), max(e - n, 0)) for e, n in zip(errors.tolist(), words.tolist(), strict=True)]


def draw_answers(rng: np.random.Generator, wrong: float, correlation: float, spread: float, speakers: int) -> tuple[list[bool], list[str]]:
    sizes = draw_sizes(rng, speakers, 10, spread)
    own = rng.beta(wrong * (1 / correlation - 1), (1 - wrong) * (1 / correlation - 1), speakers)
    speaker = np.repeat(np.arange(speakers), sizes)
    return (rng.random(len(speaker)) >= own[speaker]).tolist(), [str(one) for one in speaker]


def percentile(
    errors: Sequence[float] | np.ndarray, sizes: Sequence[float] | np.ndarray, units: Sequence[str], rng: np.random.Generator, resamples: int = 400
) -> tuple[float, float]:
    """The plain percentile bootstrap of a rate."""
    place = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    totals = np.zeros((len(place), 2))
    np.add.at(totals, [place[unit] for unit in units], np.column_stack([errors, sizes]))
    drawn = totals[rng.integers(0, len(totals), (resamples, len(totals)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return float(low), float(high)


def speech_coverage(speech: Speech, trials: int, seed: int, speakers: int) -> dict[str, float]:
    """Share of the trials in which each interval holds the true rate."""
    rng = np.random.default_rng((seed, speakers))
    held: dict[str, int] = {}
    for _ in range(trials):
        speaker, words, hard = draw_speech(rng, speech, speakers)
        errors, names = rng.poisson(hard), speaker.astype(str).tolist()
        found = cluster_bootstrap(as_counts(errors, words), names, resamples=1000)
        ends = {
            "ours": (found.low, found.high),
            "percentile, utterances": percentile(errors, words, list(map(str, range(len(words)))), rng),
            "percentile, speakers": percentile(errors, words, names, rng),
        }
        for name, (low, high) in ends.items():
            # Without ends an interval says nothing, so it is not wrong.
            held[name] = held.get(name, 0) + (low is None or low <= speech.wer <= high)
    return {name: count / trials for name, count in held.items()}


def answer_coverage(shape: tuple[float, float, float], trials: int, seed: int, speakers: int) -> dict[str, float]:
    """Share of the trials in which each interval holds the true accuracy."""
    wrong, correlation, spread = shape
    rng = np.random.default_rng((seed, speakers))
    held = {"ours": 0, "percentile, utterances": 0, "percentile, speakers": 0}
    for _ in range(trials):
        right, names = draw_answers(rng, wrong, correlation, spread, speakers)
        found = cluster_share(right, names, resamples=1000)
        ones = [1.0] * len(right)
        plain = [percentile(right, ones, units, rng) for units in ([str(i) for i in range(len(right))], names)]
        for name, (low, high) in zip(held, ((found.low, found.high), *plain), strict=True):
            held[name] += low <= 1 - wrong <= high
    return {name: count / trials for name, count in held.items()}


def paired_coverage(trials: int, seed: int, speakers: int, gain: float = 0.15, taste: float = 0.3) -> dict[str, float]:
    """Of two systems that differ: how often the interval holds the difference. Of two that do not: how often each test says p < 0.05."""
    rng = np.random.default_rng((seed, speakers))
    speech = Speech()
    held = 0
    alarms = {"paired bootstrap": 0, "permutation of speakers": 0, "MAPSSWE": 0, "the claim": 0}
    for _ in range(trials):
        base, other, names = draw_pair(rng, speech, speakers, gain, taste)
        interval = paired_difference(base, other, names, resamples=1000).interval
        held += interval.low <= -gain * speech.wer <= interval.high
        base, other, names = draw_pair(rng, speech, speakers, 0.0, taste)
        errors = [[count.errors for count in side] for side in (base, other)]
        p_values = [
            paired_difference(base, other, names, resamples=1000).p_value,
            cluster_permutation([b - a for a, b in zip(*errors, strict=True)], names, permutations=1000),
            mapsswe(errors[0], errors[1]).p_value,
        ]
        for name, p in zip(alarms, (*p_values, max(p_values)), strict=True):
            alarms[name] += p < 0.05
    return {"interval holds the difference": held / trials} | {f"false alarms: {name}": count / trials for name, count in alarms.items()}


def measure(name: str, coverage: Callable[[int], dict[str, float]]) -> dict[str, dict[str, float]]:
    """By number of speakers, printed as it comes."""
    found = {}
    for speakers in SPEAKERS:
        found[str(speakers)] = coverage(speakers)
        print(f"{name}, {speakers} speakers: " + ", ".join(f"{key} {100 * value:.1f} %" for key, value in found[str(speakers)].items()), flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    trials, seed = arguments.trials, arguments.seed
    result: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
        "trials": trials,
        "seed": seed,
        "standard_error_at_95": math.sqrt(0.95 * 0.05 / trials),
        "few_clusters": FEW_CLUSTERS,
        "word_error_rates": {name: measure(name, partial(speech_coverage, speech, trials, seed)) for name, speech in SPEECH.items()},
        "accuracies": {name: measure(name, partial(answer_coverage, shape, trials, seed)) for name, shape in ANSWERS.items()},
        "differences": measure("difference", partial(paired_coverage, trials, seed)),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
