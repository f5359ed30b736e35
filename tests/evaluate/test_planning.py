"""How many clips a comparison needs: from pilots, and of what can not be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from compared import Row, answers, speech

from audiograft.evaluate.comparing import compare
from audiograft.evaluate.planning import Expectation, plan, read_pilot
from audiograft.types import ConfigError, DataError


def test_a_pilot_of_two_runs_needs_as_many_clips_as_compare_says(runs: Callable[..., list[Path]]) -> None:
    files = runs(speech(0.2, 1), speech(0.15, 2))
    needed, found = plan(read_pilot(files, Expectation()), 0.01), compare(files)
    assert needed["clips"] == found["needed_clips"]
    assert plan(read_pilot(files, Expectation()), 0.01, clips=400)["smallest_difference"] == found["detectable_difference"]
    assert needed["expected"]["variance"]["measured"]
    assert needed["expected"]["wer"]["value"] == pytest.approx(0.175, abs=0.02)
    assert needed["expected"]["clips_each"]["value"] == 20


def test_a_pilot_of_one_run_measures_what_one_can(runs: Callable[..., list[Path]]) -> None:
    found = plan(read_pilot(runs(speech(0.2, 1)), Expectation()), 0.01)["expected"]
    assert found["dispersion"]["value"] == pytest.approx(0.8, abs=0.15)  # binomial: each word by itself, and no more errors than words
    assert {name for name, row in found.items() if not row["measured"]} == {"correlation"}


def test_a_pilot_of_answers_measures_accuracies(runs: Callable[..., list[Path]]) -> None:
    files = runs(answers([i % 10 > 0 for i in range(100)]), answers([i % 10 > 1 for i in range(100)]))
    found = plan(read_pilot(files, Expectation()), 0.02)
    assert found["measure"] == "accuracy"
    assert found["expected"]["accuracy"]["value"] == 0.8
    assert found["expected"]["discordance"] == {"value": 0.1, "measured": True}
    assert plan(read_pilot(files[:1], Expectation()), 0.02)["expected"]["accuracy"]["value"] == 0.9
    assert plan(read_pilot(files, Expectation()), 0.01)["clips"] == compare(files)["needed_clips"]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (speech(0, 1, 20), speech(0, 1, 20), "no error to learn from"),
        (speech(0.2, 1, 20), speech(0.2, 1, 20), "makes as many errors as"),
        (answers([True, False]), answers([True, False]), "b: has the same answers right as .*a, so no spread is known: take"),
        (speech(0.2, 1, 1), speech(0.1, 1, 1), "two clips are the fewest"),
    ],
)
def test_a_pilot_that_tells_nothing_is_refused(runs: Callable[..., list[Path]], a: list[Row], b: list[Row], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_pilot(runs(a, b), Expectation())


def test_a_plan_for_given_clips_tells_power_and_the_smallest_difference() -> None:
    found = plan(Expectation(wer=0.05), 0.01, clips=300)
    assert found["asked_for"] == "power"
    again = plan(Expectation(wer=0.05), found["smallest_difference"], clips=300)
    assert again["power"] == pytest.approx(0.8, abs=0.001)
    assert found["power"] < 0.8


def test_a_plan_with_too_few_speakers_says_how_many_it_takes() -> None:
    found = plan(Expectation(wer=0.05), 0.003, speakers=40)
    assert (found["clips"], found["design_effect"]) == (None, None)
    assert found["speakers_needed"] > 200
    assert plan(Expectation(accuracy=0.9, intraclass=0.2), 0.05, speakers=10)["speakers_needed"] > 20


@pytest.mark.parametrize("expected", [Expectation(wer=0.5, intraclass=0.0), Expectation(accuracy=0.5, intraclass=0.0)])
def test_of_speakers_too_few_for_any_claim_no_number_of_clips_is_enough(expected: Expectation) -> None:
    found = plan(expected, 0.4, speakers=5)
    assert (found["clips"], found["speakers_needed"]) == (None, 6)
    given = plan(expected, 0.4, speakers=5, clips=1000)
    assert (given["power"], given["smallest_difference"], given["speakers_needed"]) == (0, None, 6)
    assert plan(expected, 0.4, speakers=6)["clips"] is not None


@pytest.mark.parametrize(
    ("expected", "difference", "options", "message"),
    [
        (Expectation(accuracy=0.9), 0.2, {}, "an accuracy of 90 % can't be higher by 20 points: give a smaller --difference, and"),
        (Expectation(wer=0.00437), 0.01, {}, "0.437 % WER on average can't differ by 1 point: give a smaller --difference, such as 0.002"),
        (Expectation(accuracy=0.5, discordance=0.1), 0.2, {}, "discordance 0.1 is below"),
        (Expectation(wer=0.1), 0.01, {"clips": 10, "speakers": 20}, "10 clips can't have 20 speakers"),
    ],
)
def test_a_plan_of_what_can_not_be_is_one_line(expected: Expectation, difference: float, options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(expected, difference, **options)
