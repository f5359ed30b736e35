"""Figures from a predictions file alone: each against one counted by hand, and nothing that is left out uncounted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiograft.data.manifest import write_manifest
from audiograft.evaluate.predictions import read_predictions
from audiograft.evaluate.scoring import RUN_KEYS, score, score_again
from audiograft.metrics.normalisers import NORMALISERS
from audiograft.metrics.permutation import permutation_p_value
from audiograft.types import ConfigError, DataError

ROWS: list[dict[str, Any]] = [
    {"id": "1", "reference": "One two three four", "hypothesis": "one  two free four", "duration_s": 2.0, "decode_s": 0.5, "speaker": "ann"},
    {"id": "2", "reference": "hello", "hypothesis": "hello there you", "duration_s": 2.0, "decode_s": 0.3, "speaker": "bob"},
    {"id": "3", "reference": "stop", "hypothesis": "", "duration_s": 9.0, "speaker": "ann", "error": "c.wav: no such file"},
    {"id": "4", "reference": "go on now", "hypothesis": "go now", "duration_s": 2.0, "decode_s": 0.2},
]
ANSWERS: list[dict[str, Any]] = [
    {"id": "who", "task": "answer", "reference": "who?  A", "hypothesis": "Who? a", "speaker": "ann", "question": "who"},
    {"id": "where", "task": "answer", "reference": "in the blue house", "hypothesis": "the house", "speaker": "bob", "question": "where"},
    {"id": "sum", "task": "answer", "reference": "four", "hypothesis": "four"},
]
Scored = Callable[..., dict[str, Any]]


@pytest.fixture
def scored(tmp_path: Path) -> Scored:
    def scored(rows: list[dict[str, Any]], *arguments: Any, **options: Any) -> dict[str, Any]:
        write_manifest(tmp_path / "predictions.jsonl", rows)
        return score(tmp_path / "predictions.jsonl", *arguments, **options)

    return scored


def row(reference: str, hypothesis: str, number: int = 0, **keys: Any) -> dict[str, Any]:
    return {"id": f"{number}", "reference": reference, "hypothesis": hypothesis, **keys}


def many(n: int, reference: str = "one two", hypothesis: str = "one two", **keys: Any) -> list[dict[str, Any]]:
    return [row(reference, hypothesis, number, **keys) for number in range(n)]


def test_figures_by_hand(scored: Scored) -> None:
    metrics = scored(ROWS)
    wer, cer = metrics["wer"], metrics["cer"]
    counts = ("hits", "substitutions", "insertions", "deletions", "reference_length", "rate")
    # 1 substitution in 4 words, 2 insertions in 1, 1 deletion in 3
    assert [wer[key] for key in counts] == [6, 1, 2, 1, 8, 4 / 8]
    # three -> free: 2 errors in 18; " there you": 10 insertions in 5; "on ": 3 deletions in 9
    assert (cer["reference_length"], cer["insertions"]) == (18 + 5 + 9, 10)
    assert cer["rate"] == (2 + 10 + 3) / 32
    assert metrics["utterance_mean_wer"] == pytest.approx((1 / 4 + 2 / 1 + 1 / 3) / 3)
    speakers = {name: (part["wer"], part["n_clips"], part["reference_length"]) for name, part in metrics["slices"]["speaker"].items()}
    assert speakers == {"ann": (1 / 4, 1, 4), "bob": (2.0, 1, 1)}
    assert metrics["normaliser"] == {"name": "lower", "version": "1"}
    assert metrics["matches"] == {
        "exact": {"clips": 0, "share": 0.0}, "partial": {"clips": 1, "share": 1 / 3}, "mismatch": {"clips": 2, "share": 2 / 3},
    }  # fmt: skip


def test_a_clip_that_fails_is_named_and_left_out_of_the_rates(scored: Scored) -> None:
    metrics = scored(ROWS)
    assert metrics["failed"] == [{"id": "3", "error": "c.wav: no such file"}]
    assert (metrics["n_clips"], metrics["audio_s"]) == (3, 6.0)


def test_when_every_clip_failed_the_first_error_is_shown(scored: Scored) -> None:
    failed = [line | {"error": "gone.wav: no such file"} for line in ROWS]
    with pytest.raises(DataError, match=r"all 4 clips failed, so there is nothing to score; the first: gone\.wav: no such file$"):
        scored(failed)


def test_intervals_are_clustered_by_speaker(scored: Scored) -> None:
    rows = [row("one two", "one two" if i % 3 else "one", i, speaker=f"s{i % 3}") for i in range(12)]
    wer = scored(rows)["wer"]
    assert (wer["interval"]["clusters"], wer["interval"]["confidence"]) == (3, 0.95)
    assert 0.0 <= wer["interval"]["low"] < wer["rate"] == 1 / 6 < wer["interval"]["high"]
    assert wer["interval"]["warning"]


def test_a_single_speaker_shows_in_the_interval(scored: Scored) -> None:
    interval = scored([line | {"speaker": "ann"} for line in ROWS])["wer"]["interval"]
    assert interval["method"].startswith("utterance")
    assert "one speaker" in interval["warning"]


def test_normalisers_stand_side_by_side_and_one_is_the_headline(scored: Scored) -> None:
    plain, english = scored(ROWS, "none"), scored(ROWS, "whisper-english")
    assert plain["wer"]["substitutions"] == 2  # One / one
    assert english["wer"]["substitutions"] == 1
    assert tuple(plain["normalisers"]) == NORMALISERS
    assert plain["normalisers"] == english["normalisers"]
    for metrics in (plain, english):
        own = metrics["normalisers"][metrics["normaliser"]["name"]]
        assert own == {
            "version": metrics["normaliser"]["version"], "wer": metrics["wer"]["rate"], "cer": metrics["cer"]["rate"],
            "interval": metrics["wer"]["interval"], "accuracy": None,
        }  # fmt: skip
    merged = scored([row("a white paper", "a whitepaper")])["normalisers"]
    assert (merged["whisper-english"]["wer"], merged["leaderboard"]["wer"]) == (2 / 3, 0.0)


def test_an_unknown_normaliser_is_named(scored: Scored) -> None:
    with pytest.raises(ConfigError, match="unknown normaliser 'upper'"):
        scored(ROWS, "upper")


def test_insertions_over_an_empty_reference_are_errors_without_length(scored: Scored) -> None:
    metrics = scored([row("one", "one"), row("", "thank you", 1), row(" -- ", "so", 2), row("", "", 3)], "whisper-basic")
    assert (metrics["wer"]["rate"], metrics["wer"]["reference_length"], metrics["utterance_mean_wer"]) == (3.0, 1, 0.75)
    assert metrics["empty_references"] == {"clips": 3, "insertions": 3, "normalised_to_nothing": 1, "ids": ["1", "2", "3"]}


def test_without_a_word_in_any_reference_there_is_no_rate_but_a_count(scored: Scored) -> None:
    metrics = scored([row("", "thank you", i, speaker="ann") for i in range(3)])
    assert (metrics["wer"]["rate"], metrics["wer"]["interval"], metrics["wer"]["insertions"]) == (None, None, 6)
    assert metrics["slices"]["speaker"]["ann"]["wer"] is None
    assert {part["wer"] for part in metrics["normalisers"].values()} == {None}
    json.dumps(metrics, allow_nan=False)


def test_all_empty_hypotheses_are_all_deletions(scored: Scored) -> None:
    metrics = scored([row("one two", "", i) for i in range(5)])
    assert (metrics["wer"]["rate"], metrics["wer"]["deletions"]) == (1.0, 10)
    assert metrics["detectors"]["empty"] == {"clips": 5, "share": 1.0, "ids": ["0", "1", "2", "3", "4"]}


def test_detectors_count_what_only_the_hypothesis_does_and_name_twenty(scored: Scored) -> None:
    loop, excuse = "the cat the cat the cat the cat the cat the cat", "I'm sorry, I cannot listen to audio."
    rows = [row("hello there", loop, i) for i in range(25)]
    rows += [row("", "", 25), row(loop, loop, 26), row("", excuse, 27), row(excuse, excuse, 28)]
    found = scored(rows)["detectors"]
    assert {name: part["clips"] for name, part in found.items()} == {"empty": 0, "repetition": 25, "refusal": 1}
    assert found["repetition"]["ids"] == [str(i) for i in range(20)]
    assert found["repetition"]["share"] == 25 / 29


def test_time_and_what_states_none(scored: Scored) -> None:
    metrics = scored([*ROWS, row("a", "a", 9, duration_s=100.0), row("a", "a", 10, decode_s=100.0)])
    # Rows without one of the two are in neither sum.
    assert (metrics["audio_s"], metrics["decode_s"], metrics["rtfx"]) == (106.0, 1.0, 6.0)
    assert (metrics["rows_without"]["duration_s"], metrics["rows_without"]["decode_s"]) == (1, 1)
    without = scored([row("a", "a")])
    assert (without["audio_s"], without["decode_s"], without["rtfx"]) == (0.0, None, None)


def test_answers_are_right_or_wrong_beside_transcripts(scored: Scored) -> None:
    metrics = scored([*ROWS, *ANSWERS])
    assert metrics["wer"] == scored(ROWS)["wer"]
    accuracy = metrics["accuracy"]
    assert [accuracy[key] for key in ("rate", "right", "answers")] == [2 / 3, 2, 3]
    assert accuracy["by_question"] == {"where": {"rate": 0.0, "answers": 1}, "who": {"rate": 1.0, "answers": 1}}
    assert 0 <= accuracy["interval"]["low"] < accuracy["rate"] < accuracy["interval"]["high"] <= 1
    assert {name: part["rate"] for name, part in accuracy["slices"]["speaker"].items()} == {"ann": 1.0, "bob": 0.0}
    assert metrics["slices"]["speaker"].keys() == {"ann", "bob"}
    assert metrics["normalisers"]["lower"]["accuracy"] == 2 / 3
    texts = metrics["answers"]
    # the house / in the blue house: 1 of 1 words, 1 of 3, articles apart
    assert texts["exact_match"] == pytest.approx(2 / 3)
    assert texts["token_f1"] == pytest.approx((1 + 1 + 2 * 1 / 3 / (1 + 1 / 3)) / 3)
    assert 0 < texts["rouge_l"] < 1
    assert 0 < texts["chrf"] < 100
    assert texts["chrf_signature"]


def test_each_task_is_missing_where_there_is_none_of_it(scored: Scored) -> None:
    asked = scored(ANSWERS)
    assert (asked["wer"], asked["cer"], asked["utterance_mean_wer"], asked["matches"], asked["slices"]) == (None, None, None, None, {})
    said = scored(ROWS)
    assert (said["accuracy"], said["answers"], said["loss"], said["terms"], said["baseline"], said["deafness"]) == (None,) * 6


def test_loss_weighs_each_token_alike(scored: Scored) -> None:
    rows = [row("a", "a", 0, reference_nats=2.0, reference_tokens=1), row("a", "a", 1, reference_nats=1.0, reference_tokens=5), row("a", "a", 2)]
    metrics = scored(rows)
    assert metrics["loss"] == {"nats_per_token": 0.5, "perplexity": math.exp(0.5), "tokens": 6, "rows": 2}
    assert metrics["rows_without"]["reference_nats"] == 1
    assert scored([row("a", "a", reference_nats=1e9, reference_tokens=1)])["loss"]["perplexity"] is None


def test_terms_are_found_or_invented(scored: Scored) -> None:
    rows = [row("Call Xantippe now", "call xantippe now"), row("Xantippe left", "Santippe left", 1), row("who", "who Xantippe", 2)]
    terms = scored(rows, terms=["Xantippe", "Zeus"])["terms"]
    assert (terms["found"], terms["occurrences"], terms["recall"], terms["false_insertions"]) == (1, 2, 0.5, 1)
    assert terms["terms"]["Zeus"] == {"found": 0, "occurrences": 0, "false_insertions": 0}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": 1.5}, '"id" must be a string or an integer: give each row its own'),
        ({"id": True}, '"id" must be a string or an integer: give each row its own'),
        ({"reference": None}, '"reference" must be a string: write what was said, an empty string where that was nothing'),
        ({"hypothesis": 1}, '"hypothesis" must be a string: write what was recognised, an empty string where that was nothing'),
        ({"task": "x"}, "\"task\" must be transcript, answer or detection, not 'x'"),
        ({"duration_s": "2"}, '"duration_s" must be a number or null'),
        ({"speaker": 7}, '"speaker" must be a string or null'),
        ({"token_logprobs": ["x"]}, '"token_logprobs" must be a list of numbers'),
        ({"token_logprobs": [float("nan")]}, '"token_logprobs" must be a list of numbers'),
        ({"token_logprobs": -0.5}, '"token_logprobs" must be a list'),
        ({"tokens": [1]}, '"tokens" must be a list of strings'),
        ({"audio": [None]}, '"audio" must be a list of paths'),
        ({"duration_s": -1}, '"duration_s" must be 0 or more'),
        ({"reference_tokens": -1}, '"reference_tokens" must be 0 or more'),
    ],
)
def test_a_row_that_does_not_fit_names_its_line_and_key(scored: Scored, tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as error:
        scored([row("a", "a"), row("a", "a", 1) | changes])
    mend = "" if "give" in expected or "write" in expected else ": correct it or leave the key out"
    assert str(error.value) == f"{tmp_path / 'predictions.jsonl'}:2: {expected}{mend}"
    assert "repeat" not in str(error.value)  # it may be another system's


def test_integer_ids_are_text(scored: Scored, tmp_path: Path) -> None:
    scored([row("a", "a") | {"id": 7}, row("a", "a") | {"id": "007"}])
    assert [prediction.id for prediction in read_predictions(tmp_path)] == ["7", "007"]


def write_deafness(path: Path, rows: list[dict[str, Any]], **heard: dict[str, Any]) -> Path:
    write_manifest(path, [line | changes | {"heard": name} for name, changes in heard.items() for line in rows])
    return path


def test_a_model_that_listens_does_worse_on_other_audio(scored: Scored, tmp_path: Path) -> None:
    rows = [row("one two", "one two", i, reference_nats=1.0 + i / 10, reference_tokens=4) for i in range(10)]
    heard = write_deafness(tmp_path / "deafness.jsonl", rows, shuffled={"hypothesis": "three", "reference_nats": 8.0}, silence={"hypothesis": ""})
    found = scored([*rows, row("not", "in the table", 99)], deafness=heard)["deafness"]
    assert found["conditions"] == {
        "true": {"wer": 0.0, "accuracy": None, "nats_per_token": pytest.approx(14.5 / 40)},
        "shuffled": {"wer": 1.0, "accuracy": None, "nats_per_token": 2.0},
        "silence": {"wer": 1.0, "accuracy": None, "nats_per_token": pytest.approx(14.5 / 40)},
    }
    assert (found["clips"], found["left_out"], found["measure"], found["deaf"], found["why"]) == (10, 0, "loss", False, None)
    assert found["p_value"] == permutation_p_value([(1.0 + i / 10) / 4 for i in range(10)], [2.0] * 10)


def test_a_model_that_writes_the_same_whatever_it_hears_is_deaf(scored: Scored, tmp_path: Path) -> None:
    rows = many(10, hypothesis="one")
    found = scored(rows, deafness=write_deafness(tmp_path / "d.jsonl", rows, shuffled={}, silence={}))["deafness"]
    assert (found["measure"], found["deaf"], found["p_value"]) == ("errors", True, 1.0)


def test_a_lower_loss_without_fewer_errors_is_not_listening(scored: Scored, tmp_path: Path) -> None:
    rows = many(10, hypothesis="one", reference_nats=1.0, reference_tokens=1)
    found = scored(rows, deafness=write_deafness(tmp_path / "d.jsonl", rows, shuffled={"reference_nats": 2.0}))["deafness"]
    assert found["p_value"] < 0.01
    assert found["deaf"] is True


def test_answers_have_a_deafness_table_too(scored: Scored, tmp_path: Path) -> None:
    rows = many(10, task="answer")
    found = scored(rows, deafness=write_deafness(tmp_path / "d.jsonl", rows, shuffled={"hypothesis": "no"}))["deafness"]
    assert {name: part["accuracy"] for name, part in found["conditions"].items()} == {"true": 1.0, "shuffled": 0.0}
    assert found["deaf"] is False


def test_too_few_clips_have_a_table_without_a_verdict(scored: Scored, tmp_path: Path) -> None:
    rows = many(9)
    failed = [rows[0] | {"error": "gone"}, rows[1] | {"error": "gone"}]
    found = scored([*failed, *rows[2:]], deafness=write_deafness(tmp_path / "d.jsonl", rows, shuffled={"hypothesis": ""}))["deafness"]
    assert (found["clips"], found["left_out"], found["p_value"], found["deaf"]) == (7, 2, None, None)
    assert found["why"] == "7 clips, and the test needs 8"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row("a", "a", heard="music")], r":1: \"heard\" must be shuffled or silence, not 'music'"),
        ([row("a", "a", heard="silence")] * 2, r":2: id '0' was done with silence audio already"),
        ([row("a", "a", 7, heard="silence")], r"no clip of the run was done under silence"),
    ],
)
def test_a_deafness_file_that_does_not_fit_is_named(scored: Scored, tmp_path: Path, rows: list[dict[str, Any]], expected: str) -> None:
    write_manifest(tmp_path / "d.jsonl", rows)
    with pytest.raises(DataError, match=r"d\.jsonl" + (expected if expected.startswith(":") else f": {expected}")):
        scored([row("a", "a")], deafness=tmp_path / "d.jsonl")


def test_a_baseline_is_scored_on_the_shared_clips_alone(scored: Scored, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    theirs = [row("one two", "one too", 0), row("hello  there", "hello there", 1), row("x", "x", 5), row("a", "", 3, error="gone"), row("b", "b", 4)]
    write_manifest(other / "predictions.jsonl", theirs)
    (other / "run.json").write_text('{"model": "whisper-tiny"}')
    ours = [row("one two", "one", 0), row("hello there", "hello there", 1), row("y", "y", 2), row("a", "a", 3), row("b", "", 4, error="gone")]
    found = scored(ours, baseline=other)["baseline"]
    assert (found["name"], found["path"]) == ("whisper-tiny", str(other))
    counts = ("n_shared", "only_here", "only_there", "failed_here", "failed_there")
    assert [found[key] for key in counts] == [2, 1, 1, 1, 1]
    assert (found["wer"]["substitutions"], found["here"]["wer"]["deletions"], found["wer"]["reference_length"]) == (1, 1, 4)
    assert found["accuracy"] is None


def test_a_baseline_of_answers_is_told_the_task_by_the_run(scored: Scored, tmp_path: Path) -> None:
    write_manifest(tmp_path / "other.jsonl", [{"id": line["id"], "reference": line["reference"], "hypothesis": "four"} for line in ANSWERS])
    found = scored(ANSWERS, baseline=tmp_path / "other.jsonl")["baseline"]
    assert (found["wer"], found["accuracy"]["rate"], found["here"]["accuracy"]["rate"]) == (None, 1 / 3, 2 / 3)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row("one two", "", 77)], "shares no id"),
        ([row("one two", "", 0), row("one", "", 1)], "id '1' expects 'one'"),
        ([row("one two", "", 0, error="gone")], "each of the 1 clips failed in one of the runs"),
    ],
)
def test_a_baseline_that_does_not_fit_is_one_line(scored: Scored, tmp_path: Path, rows: list[dict[str, Any]], expected: str) -> None:
    write_manifest(tmp_path / "other.jsonl", rows)
    with pytest.raises(DataError, match=expected):
        scored(many(3), baseline=tmp_path / "other.jsonl")


def test_scoring_again_changes_what_is_asked_for_and_keeps_the_rest(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other.jsonl"
    run.mkdir()
    rows = [line | {"accent": "north" if i % 2 else "south"} for i, line in enumerate(many(9, "One Xeno", "one Xeno"))]
    write_manifest(run / "predictions.jsonl", rows)
    write_manifest(other, many(9, "One Xeno", "one two"))
    write_deafness(run / "deafness.jsonl", rows, shuffled={"hypothesis": "no"})
    told = dict.fromkeys(RUN_KEYS, "told by the run")
    first = score_again(run, "none", terms=["Xeno"], slice_by=["accent"], baseline=other)
    (run / "metrics.json").write_text(json.dumps(first | told | {"stale": 1}))
    again = score_again(run, "lower")
    assert (first["wer"]["rate"], again["wer"]["rate"]) == (0.5, 0.0)
    assert again["terms"]["found"] == 9
    assert again["slices"]["accent"].keys() == {"north", "south"}
    assert again["baseline"]["wer"]["rate"] == 0.5
    assert again["deafness"]["deaf"] is False
    assert {key: again[key] for key in RUN_KEYS} == told
    assert "stale" not in again
    assert json.loads((run / "metrics.json").read_text()) == again
    assert score_again(run)["normaliser"]["name"] == "lower"


def test_the_documentation_names_every_key(scored: Scored) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert [key for key in (*scored(ROWS), *RUN_KEYS) if f"`{key}`" not in page] == []


def test_scoring_does_not_load_torch(tmp_path: Path) -> None:
    write_manifest(tmp_path / "predictions.jsonl", [*ROWS, *ANSWERS])
    code = (
        "import sys; from pathlib import Path\n"
        "from audiograft.evaluate.scoring import score_again; from audiograft.evaluate.report import write_reports\n"
        f"run = Path({str(tmp_path)!r}); score_again(run); write_reports(run); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
