"""Comparisons of predictions files: what is claimed, what is not, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from compared import Row, answers, speech, write

from audiograft.evaluate.comparing import compare
from audiograft.types import DataError


def test_system_c_shows_no_difference(runs: Callable[..., list[Path]]) -> None:
    """95 of 96 right against 92 of 96, 4 clips against 1: it was called clearly superior (chi-squared p 0.37, exact 0.375)."""
    found = compare(runs(answers([i >= 4 for i in range(96)]), answers([i != 50 for i in range(96)])))
    assert found["mcnemar_p"] == 0.375
    assert (found["mcnemar"]["only_a"], found["mcnemar"]["only_b"]) == (1, 4)
    assert found["accuracy_difference"] == pytest.approx(3 / 96)
    assert found["accuracy_interval"]["low"] < 0 < found["accuracy_interval"]["high"]
    assert found["better"] is None
    assert found["claim"].startswith("no difference shown between b and a (p = 0.375); to detect 1 point at 80 % power you need about ")
    assert found["needed_clips"] > 3000
    assert "superior" not in found["claim"]
    assert (found["wer_difference"], found["wer_interval"], found["mapsswe_p"]) == (None, None, None)


def test_a_clear_difference_is_claimed_with_its_interval_and_p(runs: Callable[..., list[Path]]) -> None:
    found = compare(runs(speech(0.2, 1), speech(0.1, 2)))
    low, high = sorted(abs(found["wer_interval"][end]) for end in ("low", "high"))
    assert found["wer_difference"] == pytest.approx(found["runs"][1]["wer"]["rate"] - found["runs"][0]["wer"]["rate"])
    assert found["better"] == "b"
    points = [f"{100 * value:.1f}".removesuffix(".0") for value in (-found["wer_difference"], low, high)]
    assert found["claim"] == f"b makes fewer errors than a: WER lower by {points[0]} points (95 % interval {points[1]} to {points[2]}), p < 0.001"
    assert found["relative_difference"] == pytest.approx(-0.5, abs=0.1)
    assert (found["n_clips"], found["clusters"], found["clustered_by"]) == (400, 20, "speaker")


def test_the_other_way_round_it_makes_more_errors(runs: Callable[..., list[Path]]) -> None:
    a, b = runs(speech(0.2, 1), speech(0.1, 2))
    there, back = compare([a, b]), compare([b, a])
    assert back["wer_difference"] == pytest.approx(-there["wer_difference"])
    assert back["better"] == "b"
    assert back["claim"].startswith("a makes more errors than b: WER higher by ")


def test_the_claim_rests_on_the_most_careful_test(runs: Callable[..., list[Path]]) -> None:
    """Each speaker suits one of the systems: over clips the difference is sure, over speakers it is chance."""
    rows = speech(0, 0, 400, 8)
    worse = {f"s{i}" for i in range(5)}
    a = [row | {"hypothesis": row["hypothesis"] if row["speaker"] in worse else f"{row['hypothesis']} more"} for row in rows]
    b = [row | {"hypothesis": f"{row['hypothesis']} more" if row["speaker"] in worse else row["hypothesis"]} for row in rows]
    found = compare(runs(a, b))
    assert found["mapsswe_p"] < 1e-6
    assert found["p_from"] in ("bootstrap", "permutation")
    assert found["p_value"] == max(found[name] for name in ("mapsswe_p", "bootstrap_p", "permutation_p")) > 0.3
    assert found["claim"].startswith("no difference shown")
    assert found["design_effect"] > 10
    assert "8 speakers only: the interval is wide and rough" in found["comparisons"][0]["notes"]
    assert found["wer_interval"]["warning"] == "8 speakers only: the interval is wide and rough"


def test_several_runs_are_adjusted_by_holm(runs: Callable[..., list[Path]]) -> None:
    found = compare(runs(speech(0.2, 1), speech(0.17, 2), speech(0.1, 3), speech(0.2, 4)))
    p_values = [row["p_value"] for row in found["comparisons"]]
    assert found["comparisons"][1]["adjusted_p"] == pytest.approx(3 * min(p_values))
    assert all(row["adjusted_p"] >= row["p_value"] for row in found["comparisons"])
    assert "p < 0.001, adjusted for 3 comparisons" in found["comparisons"][1]["claim"]
    assert [row["run"] for row in found["comparisons"]] == ["b", "c", "d"]
    assert "claim" not in found


def test_a_difference_that_only_one_test_of_many_would_show_is_not_claimed(runs: Callable[..., list[Path]]) -> None:
    files = runs(speech(0.2, 1), speech(0.175, 8), speech(0.2, 3), speech(0.2, 4), speech(0.2, 5), speech(0.2, 6))
    alone, among = compare(files[:2]), compare(files)["comparisons"][0]
    assert alone["p_value"] == among["p_value"] < 0.05
    assert alone["better"] == "b"
    assert among["adjusted_p"] > 0.05
    assert among["better"] is None


def test_the_same_file_is_no_comparison(runs: Callable[..., list[Path]]) -> None:
    (run,) = runs(speech(0.2, 1, 20))
    found = compare([run, run / "predictions.jsonl"])
    assert found["claim"] == "no difference: a (1) and a (2) are the same predictions file"
    assert (found["wer_difference"], found["p_value"], found["needed_clips"]) == (0, 1, None)


def test_the_same_texts_are_no_difference(runs: Callable[..., list[Path]]) -> None:
    assert compare(runs(speech(0.2, 1, 20), speech(0.2, 1, 20)))["claim"] == "no difference: b and a wrote the same for each of the 20 clips"


def test_other_texts_with_as_many_errors_have_no_spread(runs: Callable[..., list[Path]]) -> None:
    rows = speech(0, 1, 20)
    found = compare(
        runs([row | {"hypothesis": f"{row['hypothesis']} x"} for row in rows], [row | {"hypothesis": f"{row['hypothesis']} y"} for row in rows])
    )
    assert "(p = 1.000): both make as many errors in each clip, so what it takes to see one is not known" in found["claim"]
    assert (found["wer_interval"]["low"], found["wer_interval"]["high"]) == (0, 0)
    assert found["wer_interval"]["warning"] == "all 20 utterances are alike: their spread can't be known, so there is no interval"


@pytest.mark.parametrize("task", ["answers", "transcripts"])
def test_always_right_against_always_wrong_is_a_difference_without_an_interval(runs: Callable[..., list[Path]], task: str) -> None:
    """All clips differ by the same, so no spread is known; that was once told as no difference."""
    right = answers([True] * 40) if task == "answers" else speech(0, 1, 40, 20)
    wrong = answers([False] * 40) if task == "answers" else [row | {"hypothesis": ""} for row in right]
    found = compare(runs(right, wrong))
    assert found["better"] == "a"
    interval = found["accuracy_interval" if task == "answers" else "wer_interval"]
    assert (interval["low"], interval["high"], interval["method"]) == (None, None, "none")
    assert "by 100 points (in each clip alike, so without an interval), p < 0.001" in found["claim"]
    assert compare([Path(run["file"]) for run in found["runs"][::-1]])["claim"].startswith("a ")


def test_few_clips_that_all_differ_alike_are_no_proof(runs: Callable[..., list[Path]]) -> None:
    found = compare(runs(answers([True] * 4), answers([False] * 4)))
    assert found["p_value"] == pytest.approx(1 / 8)
    assert found["claim"].endswith("(p = 0.125): with 4 clips p can't fall below 0.125; at least 6 clips are needed")


@pytest.mark.parametrize(("a", "b"), [(0.02, 0.9), (0, 1)])
def test_too_few_speakers_for_any_claim_are_told_with_how_many_it_takes(runs: Callable[..., list[Path]], a: float, b: float) -> None:
    """However clear: it was once told that more clips would do, which they can't."""
    found = compare(runs(speech(a, 1, 100, 5), speech(b, 2, 100, 5)))
    assert found["p_from"] == "permutation"
    assert found["p_value"] == found["lowest_p"] == 2 / 2**5
    assert found["fewest_clusters"] == 6
    assert found["claim"].startswith(
        "no difference can be shown between b and a (p = 0.062): with 5 speakers p can't fall below 0.062, however many clips they have; "
        "at least 6 speakers are needed"
    )
    assert "clips like these" not in found["claim"]
    assert compare([Path(run["file"]) for run in found["runs"]], confidence=0.9)["better"] == "a"


def test_six_speakers_are_enough_as_it_says_and_over_several_comparisons_eight(runs: Callable[..., list[Path]]) -> None:
    files = runs(*(speech(rate, seed, 96, 6) for rate, seed in ((0.02, 1), (0.9, 2), (0.9, 3), (0.9, 4), (0.9, 5))))
    assert compare(files[:2])["better"] == "a"
    rows = compare(files)["comparisons"]
    assert {(row["lowest_p"], row["fewest_clusters"], row["better"]) for row in rows} == {(4 * 2 / 2**6, 8, None)}
    assert "(p = 0.125, adjusted for 4 comparisons): with 6 speakers p can't fall below 0.125" in rows[0]["claim"]


def test_clips_that_are_needed_come_with_their_speakers(runs: Callable[..., list[Path]]) -> None:
    found = compare(runs(speech(0.2, 1, 40, 20), speech(0.2, 2, 40, 20)))
    assert found["needed_clusters"] == math.ceil(found["needed_clips"] / 2)
    need = f"you need about {found['needed_clips']:,} clips like these of {found['needed_clusters']:,} speakers, and here are 40 of 20"
    assert found["claim"].endswith(need)


@pytest.mark.parametrize("n_speakers", [2, 3, 4, 9])
def test_few_speakers_give_ends_that_can_be_printed(runs: Callable[..., list[Path]], n_speakers: int) -> None:
    """The draws of four speakers once ended at 10 to the power of 130, and JSON has no number for what lies beyond."""
    found = compare(runs(speech(0.2, 1, 60, n_speakers), speech(0.1, 2, 60, n_speakers)))
    spans = [found["wer_interval"], *(run["wer"]["interval"] for run in found["runs"])]
    assert all(-2 < span["low"] <= span["high"] < 2 for span in spans)
    assert all(span["warning"] == f"{n_speakers} speakers only: the interval is wide and rough" for span in spans)
    json.dumps(found, allow_nan=False)


def test_the_rates_have_the_confidence_that_is_asked_for(runs: Callable[..., list[Path]]) -> None:
    found = compare(runs(*(speech(rate, seed, 60) + answers([True] * 5 + [False] * seed) for rate, seed in ((0.2, 5), (0.1, 5)))), confidence=0.9)
    assert {run[key]["interval"]["confidence"] for run in found["runs"] for key in ("wer", "accuracy")} == {0.9}


def test_enough_clips_without_a_difference_are_told(runs: Callable[..., list[Path]]) -> None:
    found = compare(runs(speech(0.01, 1, 600), speech(0.01, 2, 600)))
    assert found["needed_clips"] < 600
    assert "these 600 clips are enough to detect 1 point at 80 % power" in found["claim"]


def test_transcripts_and_answers_are_compared_each_for_themselves(runs: Callable[..., list[Path]]) -> None:
    a = speech(0.2, 1, 100) + answers([True] * 30 + [False] * 10)
    b = speech(0.1, 2, 100) + answers([True] * 32 + [False] * 8)
    found = compare(runs(a, b))
    assert [row["task"] for row in found["comparisons"]] == ["transcripts", "answers"]
    assert found["n_clips"] == 140
    assert found["accuracy_difference"] == pytest.approx(2 / 40)
    assert found["wer_difference"] < 0
    assert found["claim"] == "; ".join(row["claim"] for row in found["comparisons"])


def test_transcripts_without_a_word_do_not_keep_answers_from_being_compared(runs: Callable[..., list[Path]]) -> None:
    silent = [{"id": f"s{i}", "reference": " ", "hypothesis": "hm"} for i in range(3)]
    found = compare(runs(silent + answers([True] * 9 + [False] * 3), silent + answers([True] * 12)))
    assert [row["task"] for row in found["comparisons"]] == ["answers"]
    assert "no reference of the 3 transcripts has a word behind the normaliser: they are in no test" in found["notes"]
    assert found["wer_interval"] is None


def test_what_few_clips_say_of_the_number_needed_is_called_rough(runs: Callable[..., list[Path]]) -> None:
    files = runs(answers([True, False] + [True] * 6), answers([False] + [True] * 7))
    assert " clips like these (by 8 clips, so a rough figure), and here are 8" in compare(files)["claim"]


def test_a_file_without_tasks_takes_those_of_the_other(runs: Callable[..., list[Path]]) -> None:
    a = answers([True, False, True, True])
    b = [{key: row[key] for key in ("id", "reference", "hypothesis")} for row in a]
    files = runs(a, b)
    for order in (files, files[::-1]):
        assert [row["task"] for row in compare(order)["comparisons"]] == ["answers"]


def test_failed_clips_are_counted_and_in_no_figure(runs: Callable[..., list[Path]]) -> None:
    a, b = speech(0.2, 1, 50), speech(0.1, 2, 50)
    a[3] |= {"hypothesis": "", "error": "gone"}
    b[3] |= {"hypothesis": "", "error": "gone"}
    b[4] |= {"hypothesis": "", "error": "gone"}
    found = compare(runs(a, b))
    assert (found["n_clips"], found["failed"]) == (48, ["c3", "c4"])
    assert found["notes"][0] == "2 clips are left out, since a run failed on them (a failed on 1; b failed on 2)"
    assert [run["failed"] for run in found["runs"]] == [1, 2]


def test_ids_that_are_missing_are_refused_with_their_counts(runs: Callable[..., list[Path]]) -> None:
    rows = speech(0.2, 1, 10)
    files = runs(rows[:8], rows[3:])
    with pytest.raises(
        DataError, match=r"lacks 3 ids \(the first 'c0'\) of .* and has 2 ids \(the first 'c8'\) that .* lacks: --common compares the 5"
    ):
        compare(files)
    found = compare(files, common=True)
    assert (found["n_clips"], found["not_shared"]) == (5, 5)
    assert found["notes"][0] == "5 ids are not in all runs and left out"


def test_nothing_shared_is_refused_with_common_too(runs: Callable[..., list[Path]]) -> None:
    rows = speech(0.2, 1, 10)
    files = runs(rows[:5], rows[5:])
    for common in (False, True):
        with pytest.raises(DataError, match="evaluate on one manifest"):
            compare(files, common=common)


def test_two_references_of_one_id_are_refused_with_both(runs: Callable[..., list[Path]]) -> None:
    a, b = speech(0, 1, 5), speech(0, 1, 5)
    b[2] |= {"reference": "something else"}
    with pytest.raises(DataError, match=f"id 'c2' expects 'something else', and .* '{a[2]['reference']}"):
        compare(runs(a, b))


def test_references_that_the_normaliser_makes_equal_are(runs: Callable[..., list[Path]]) -> None:
    a, b = speech(0.2, 1, 5), speech(0.1, 2, 5)
    files = runs(a, [row | {"reference": row["reference"].upper()} for row in b])
    assert compare(files)["n_clips"] == 5
    with pytest.raises(DataError, match="id 'c0' expects"):
        compare(files, "none")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "1", "reference": "a", "hypothesis": "b"}], "one clip is left"),
        ([{"id": str(i), "reference": " ", "hypothesis": "b"} for i in range(3)], "no reference has a word"),
        ([{"id": str(i), "reference": "a", "hypothesis": "", "error": "gone"} for i in range(3)], "each of the 3 clips failed"),
    ],
)
def test_too_little_to_compare_is_one_line(runs: Callable[..., list[Path]], rows: list[Row], message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare(runs(rows, rows))


def test_all_empty_hypotheses_are_compared_like_any(runs: Callable[..., list[Path]]) -> None:
    found = compare(runs(speech(0.2, 1, 60), [row | {"hypothesis": ""} for row in speech(0, 1, 60)]))
    assert found["runs"][1]["wer"]["rate"] == 1
    assert found["better"] == "a"


def test_data_that_touch_training_take_from_the_claim(tmp_path: Path) -> None:
    clean = {"leakage": {"checked": True, "touches": []}, "normaliser": {"name": "lower", "version": "1"}}
    touched = {"leakage": {"checked": True, "touches": ["texts", "audio"]}, "checkpoint": {"chosen_on_this_data": True}}
    a = write(tmp_path, "a", speech(0.2, 1), metrics=clean)
    b = write(tmp_path, "b", speech(0.1, 2), metrics=touched)
    found = compare([a, b])
    assert "but these data touch what b was trained on (texts, audio), so it is no claim about new data" in found["claim"]
    assert "but the checkpoint of b may have been chosen by these clips" in found["claim"]
    assert found["comparisons"][0]["notes"] == ["b: these data touch what it was trained on (texts, audio)"]


def test_runs_that_were_made_differently_are_noted(tmp_path: Path) -> None:
    one = {"manifest_sha256": "1", "prompt": "Write.", "audio": "true", "context": []}
    two = {"manifest_sha256": "2", "prompt": "Listen.", "audio": "shuffled", "pictures": "none", "context": []}
    metrics = {"leakage": {"checked": False, "why": "the model has no record"}}
    a = write(tmp_path, "a", speech(0.2, 1, 20), run=one, metrics=metrics | {"normaliser": {"name": "lower", "version": "1"}})
    b = write(tmp_path, "b", speech(0.1, 2, 20), run=two, metrics=metrics | {"normaliser": {"name": "none", "version": "1"}})
    notes = compare([a, b])["comparisons"][0]["notes"]
    assert notes == [
        "a and b were evaluated with different manifests",
        "a and b were evaluated with different prompts: 'Write.' and 'Listen.'",
        "a and b were evaluated with different audio: 'true' and 'shuffled'",
        "a and b were evaluated with different pictures: 'true' and 'none'",
        "the figures in their metrics.json are under different normalisers (lower 1 and none 1); here both are under one",
        "whether a and b were trained on these data is not known (the model has no record)",
    ]


def test_what_is_not_known_for_two_reasons_is_noted_twice(tmp_path: Path) -> None:
    a = write(tmp_path, "a", speech(0.2, 1, 20), metrics={"leakage": {"checked": False, "why": "no record"}})
    assert compare([a, write(tmp_path, "b", speech(0.1, 2, 20))])["comparisons"][0]["notes"] == [
        "a: whether it was trained on these data is not known (no record)",
        "b: whether it was trained on these data is not known",
    ]


@pytest.mark.parametrize(("words", "note"), [(["x"] * 40, "0 and 40 context words"), ([], None), (None, None), (["x"], "0 and 1 context words")])
def test_other_context_words_are_counted_and_not_listed(tmp_path: Path, words: list[str] | None, note: str | None) -> None:
    a, b = (write(tmp_path, name, speech(0.2, 1, 20), run={"context": those}) for name, those in (("a", []), ("b", words)))
    notes = compare([a, b])["comparisons"][0]["notes"]
    assert [one for one in notes if "context" in one] == ([f"a and b were evaluated with {note}"] if note else [])


def test_as_many_other_context_words_are_said_to_differ(tmp_path: Path) -> None:
    a, b = (write(tmp_path, name, speech(0.2, 1, 20), run={"context": [name, "x"]}) for name in "ab")
    assert "a and b were evaluated with 2 context words each, but not the same" in compare([a, b])["comparisons"][0]["notes"]


def test_clips_without_speakers_are_noted(runs: Callable[..., list[Path]]) -> None:
    files = runs(*([row | {"speaker": None} for row in speech(rate, seed, 30)] for rate, seed in ((0.2, 1), (0.1, 2))))
    found = compare(files)
    assert found["clustered_by"] == "clip"
    assert found["notes"][0].startswith("no clip names a speaker: they are taken for independent")


def test_run_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    a, b = write(tmp_path / "one", "test", speech(0.2, 1, 20)), write(tmp_path / "two", "test", speech(0.1, 2, 20))
    assert [run["name"] for run in compare([a, b])["runs"]] == [str(a / "predictions.jsonl"), str(b / "predictions.jsonl")]


def test_a_broken_run_json_is_one_line(tmp_path: Path) -> None:
    run = write(tmp_path, "a", speech(0.2, 1, 20))
    (run / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json: can't be read"):
        compare([run, run])


def test_compound_words_are_counted_as_the_normaliser_wants(runs: Callable[..., list[Path]]) -> None:
    rows = [{"id": str(i), "reference": "white paper here", "hypothesis": text} for i, text in enumerate(["white paper here"] * 3)]
    files = runs(rows, [row | {"hypothesis": "whitepaper here"} for row in rows])
    assert compare(files, "leaderboard")["wer_difference"] == 0
    assert compare(files, "lower")["wer_difference"] > 0
