"""How many clips a comparison needs, from what is expected or from a pilot run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audiograft.evaluate.pairing import pair_runs, read_runs
from audiograft.metrics.normalisers import get_normaliser
from audiograft.metrics.permutation import fewest_clusters
from audiograft.metrics.power import (
    Speakers,
    Spread,
    accuracy_power,
    assumed_discordance,
    assumed_variance,
    clips_for_accuracy,
    clips_for_wer,
    measured_dispersion,
    measured_speakers,
    measured_spread,
    speakers_needed,
    wer_power,
)
from audiograft.metrics.word_errors import ErrorCounts, corpus
from audiograft.types import ConfigError, DataError

_STEPS = 40
"""Halvings by which the smallest difference is found: to 1e-12."""


@dataclass(frozen=True)
class Expectation:
    """What is expected of two systems; the defaults are guesses, and a pilot run measures them.

    Attributes:
        wer: of the two on average; None where accuracies are compared.
        accuracy: of the weaker one; None where word error rates are compared.
        words: reference words per clip.
        dispersion: variance of a clip's errors over their mean: errors come in groups.
        correlation: of the two systems' errors in the same clip.
        intraclass: correlation of the differences of two clips of one speaker.
        clips_each: of a speaker, where no number of speakers is given; 1 leaves speakers out of account.
        variance: of the difference of the two numbers of errors in a clip; what the other three would give where it was not measured.
        discordance: share of clips that only one of the two has right; likewise.
        measured: which of these come from a pilot.
    """

    wer: float | None = None
    accuracy: float | None = None
    words: float = 15.0
    dispersion: float = 2.0
    correlation: float = 0.5
    intraclass: float = 0.05
    clips_each: float = 1.0
    variance: float | None = None
    discordance: float | None = None
    measured: tuple[str, ...] = ()


def plan(
    expected: Expectation, difference: float, *, clips: int | None = None, speakers: int | None = None, power: float = 0.8, confidence: float = 0.95
) -> dict[str, Any]:
    """The clips that find a difference with that power; or, where clips are given, their power and the smallest difference that they find.

    Args:
        expected: of the two systems.
        difference: to be found, as a rate: 0.01 is a point.
        clips: how many there are; None asks for their number.
        speakers: over whom they are spread evenly; None where more clips have more speakers, with `clips_each` of each.
        power: chance to find the difference, where it is there.
        confidence: one less the level of the test.

    Returns:
        For JSON: `measure`, `asked_for` (`clips` or `power`), `difference`, `power` (wanted, or that of the clips given), `wanted_power`, `clips`
        (None where no number is enough), `speakers`, `speakers_needed` (where they are too few for any number of clips), `smallest_difference`
        (where clips are given), `confidence`, `design_effect` and `expected`.

    Raises:
        ConfigError: numbers that can't be.
    """
    _check(expected, difference, speakers, clips)
    spread_over = Speakers(expected.intraclass, speakers, expected.clips_each)
    finder = _finder(expected, spread_over, 1 - confidence)
    found_clips = finder.clips_for(difference, power, spread_over) if clips is None else clips
    fewest = fewest_clusters(1 - confidence)
    needed = fewest if speakers and speakers < fewest else None
    if found_clips is None and (independent := finder.clips_for(difference, power, Speakers())):
        needed = max(speakers_needed(independent, expected.intraclass), fewest)
    return {
        "measure": "accuracy" if expected.wer is None else "wer",
        "asked_for": "clips" if clips is None else "power",
        "difference": difference,
        "power": power if clips is None else finder.power(difference, clips),
        "wanted_power": power,
        "clips": found_clips,
        "speakers": speakers,
        "speakers_needed": needed,
        "smallest_difference": _smallest(finder, clips, power) if clips else None,
        "confidence": confidence,
        "design_effect": spread_over.design_effect(found_clips) if found_clips else None,
        "expected": _told(expected, speakers),
    }


def need_of_measured(expected: Expectation, difference: float, clips: int, power: float, confidence: float) -> tuple[int | None, float | None]:
    """What `plan` says of a finished comparison of so many clips: how many like these find a difference, and the smallest that these find.

    Of a difference that is not to be had, since there are fewer errors, it tells too: nobody asked for it.

    Returns:
        Both None where they are out of reach.
    """
    finder = _finder(expected, Speakers(expected.intraclass, None, expected.clips_each), 1 - confidence)
    return finder.clips_for(difference, power, Speakers(expected.intraclass, None, expected.clips_each)), _smallest(finder, clips, power)


@dataclass(frozen=True)
class _Finder:
    power: Callable[[float, int], float]
    clips_for: Callable[[float, float, Speakers], int | None]


def _finder(expected: Expectation, speakers: Speakers, alpha: float) -> _Finder:
    return (_answers if expected.wer is None else _words)(expected, speakers, alpha)


def _words(expected: Expectation, speakers: Speakers, alpha: float) -> _Finder:
    variance = expected.variance
    if variance is None:
        variance = assumed_variance(expected.wer or 0.0, expected.words, expected.dispersion, expected.correlation)
    spread = Spread(expected.words, variance, speakers)
    return _Finder(
        lambda difference, n_clips: wer_power(spread, difference, n_clips, alpha),
        lambda difference, power, over: clips_for_wer(replace(spread, speakers=over), difference, power, alpha),
    )


def _answers(expected: Expectation, speakers: Speakers, alpha: float) -> _Finder:
    accuracy = expected.accuracy or 0.0

    def discordance(difference: float) -> float:
        if expected.discordance is not None:
            return max(expected.discordance, difference)
        return max(assumed_discordance(accuracy, min(difference, 1 - accuracy), expected.correlation), difference)

    return _Finder(
        lambda difference, n_clips: accuracy_power(difference, discordance(difference), n_clips, alpha, speakers),
        lambda difference, power, over: clips_for_accuracy(difference, discordance(difference), power, alpha, over),
    )


def _told(expected: Expectation, speakers: int | None) -> dict[str, Any]:
    """What went into the figures, each with whether it was measured."""
    if expected.wer is None:
        used = ["accuracy", "correlation" if expected.discordance is None else "discordance"]
    else:
        used = ["wer", "words", *(("dispersion", "correlation") if expected.variance is None else ("variance",))]
    if speakers:
        used.append("intraclass")
    elif expected.clips_each > 1:
        used += ["intraclass", "clips_each"]
    return {name: {"value": getattr(expected, name), "measured": name in expected.measured} for name in used}


def _smallest(finder: _Finder, clips: int, power: float) -> float | None:
    low, high = 0.0, 1.0
    if finder.power(high, clips) < power:
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if finder.power(middle, clips) >= power else (middle, high)
    return high


def _check(expected: Expectation, difference: float, speakers: int | None, clips: int | None) -> None:
    points = f"{100 * difference:.3g} point{'' if difference == 0.01 else 's'}"
    if expected.wer is None and expected.accuracy is not None and expected.accuracy + difference > 1:
        raise ConfigError(
            f"an accuracy of {100 * expected.accuracy:.3g} % can't be higher by {points}: give a smaller --difference"
            f"{'' if expected.measured else ', and the accuracy of the weaker system'}"
        )
    if expected.wer is not None and difference > 2 * expected.wer:
        raise ConfigError(
            f"two systems of {100 * expected.wer:.3g} % WER on average can't differ by {points}: "
            f"give a smaller --difference, such as {expected.wer / 2:.1g}"
        )
    if expected.discordance is not None and expected.discordance < difference:
        raise ConfigError(f"discordance {expected.discordance:g} is below the difference {difference:g}: at least as many clips differ")
    if speakers is not None and clips is not None and clips < speakers:
        raise ConfigError(f"{clips} clips can't have {speakers} speakers: give fewer speakers, or leave them out")


def read_pilot(paths: Sequence[Path], expected: Expectation, normaliser: str = "lower") -> Expectation:
    """Replace what is expected by what one run, or two over the same clips, measured.

    One run gives the rate, the words per clip and how errors are spread; how alike the errors of two systems are only two runs can tell. Where
    there are transcripts they are taken, else answers.

    Raises:
        ConfigError: an unknown normaliser.
        DataError: a file that can't be used, runs that don't match, fewer than two clips, or no error in any.
    """
    paired = pair_runs(read_runs(paths), get_normaliser(normaliser))
    transcripts, answers = paired.transcripts, paired.answers
    clips = transcripts if len(transcripts[0]) > 1 else answers
    if len(clips[0]) < 2:
        raise DataError(f"{paths[0]}: two clips are the fewest that tell a spread: run the pilot over more")
    speakers = [clip.prediction.cluster for clip in clips[0]]
    if clips is answers:
        return _pilot_answers([[clip.right for clip in run] for run in answers], speakers, expected, paths)
    counts = [[clip.words for clip in run] for run in transcripts]
    totals = [corpus(run) for run in counts]
    if not totals[0].reference_length or not any(total.errors for total in totals):
        raise DataError(f"{paths[0]}: {'no word' if not totals[0].reference_length else 'no error'} to learn from: take a pilot that has some")
    if len(counts) == 2:
        found = measure_words(counts[0], counts[1], speakers)
        if not found.variance:
            raise DataError(
                f"{paths[1]}: makes as many errors as {paths[0]} in each clip, so no spread is known: take a pilot of two runs that differ"
            )
        return found
    wer = totals[0].rate
    residuals = [count.errors - wer * count.reference_length for count in counts[0]]
    words, dispersion = totals[0].reference_length / len(counts[0]), measured_dispersion(counts[0])
    found = replace(expected, wer=wer, accuracy=None, words=words, dispersion=dispersion, measured=("wer", "words", "dispersion"))
    return _with_speakers(found, measured_speakers(residuals, speakers))


def measure_words(counts_a: Sequence[ErrorCounts], counts_b: Sequence[ErrorCounts], speakers: Sequence[str | None]) -> Expectation:
    """What two runs over the same clips tell of how their word error rates differ; a variance of 0 where they differ in each clip alike."""
    spread = measured_spread(counts_a, counts_b, speakers)
    wer = (corpus(counts_a).rate + corpus(counts_b).rate) / 2
    found = Expectation(wer=wer, words=spread.words, variance=spread.variance, measured=("wer", "words", "variance"))
    return _with_speakers(found, spread.speakers)


def measure_answers(right_a: Sequence[bool], right_b: Sequence[bool], speakers: Sequence[str | None]) -> Expectation:
    """What two runs over the same clips tell of how their accuracies differ; a discordance of 0 where they never do."""
    differences = [float(b) - float(a) for a, b in zip(right_a, right_b, strict=True)]
    accuracy, discordance = min(sum(right_a), sum(right_b)) / len(differences), sum(map(abs, differences)) / len(differences)
    found = Expectation(accuracy=accuracy, discordance=discordance, measured=("accuracy", "discordance"))
    return _with_speakers(found, measured_speakers(differences, speakers))


def _pilot_answers(rights: Sequence[Sequence[bool]], speakers: Sequence[str | None], expected: Expectation, paths: Sequence[Path]) -> Expectation:
    if len(rights) == 1:
        found = replace(expected, wer=None, accuracy=sum(rights[0]) / len(rights[0]), measured=("accuracy",))
        return _with_speakers(found, measured_speakers([float(right) for right in rights[0]], speakers))
    found = measure_answers(rights[0], rights[1], speakers)
    if not found.discordance:
        raise DataError(f"{paths[1]}: has the same answers right as {paths[0]}, so no spread is known: take a pilot of two runs that differ")
    return found


def _with_speakers(expected: Expectation, found: Speakers) -> Expectation:
    return replace(expected, intraclass=found.intraclass, clips_each=found.clips_each, measured=(*expected.measured, "intraclass", "clips_each"))
