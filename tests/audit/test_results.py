"""What verdicts add up to: shares, majorities, agreement, and error rates on corrected labels; figures by hand."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import audit_run, verdicts

from audiograft.audit.results import results
from audiograft.audit.run import DrawnSample, Stratum
from audiograft.audit.settled import settle
from audiograft.audit.verdicts import CATEGORIES, Verdict
from audiograft.metrics.agreement import cohen_kappa
from audiograft.metrics.intervals import wilson
from audiograft.metrics.word_errors import corpus, word_errors

CLIPS = [(name, f"one two three {name}", f"one two tree {name}") for name in "abcdef"]


def test_shares_are_of_clips_with_their_wilson_intervals(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *CLIPS)
    found = results(run, verdicts("ann", a="label_noise", b="label_noise", c="model_error"))
    assert list(found["pooled"]["categories"]) == list(CATEGORIES)
    noise = found["pooled"]["categories"]["label_noise"]
    interval = wilson(2, 3)
    assert noise == {"clips": 2, "share": pytest.approx(2 / 3), "percent": 66.7, "low": interval.low, "high": interval.high}
    assert found["pooled"]["categories"]["perfect"]["clips"] == 0
    assert found["clips"] == {"run": 6, "sample": 6, "judged": 3, "failed": 0}
    assert json.loads(json.dumps(found)) == found


def test_it_is_told_what_the_shares_speak_for(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *CLIPS)
    every = verdicts("ann", **dict.fromkeys("abcdef", "perfect"))
    assert results(run, every[:5])["scope"] == "part"
    assert results(run, every)["scope"] == "all"
    assert results(run, [*every, *verdicts("bob", a="ambiguous")])["scope"] == "unsettled"
    drawn = replace(run, clips=run.clips[:2], sample=DrawnSample(2, 7, 6, (Stratum("all", 6, 2),), ("a", "b")))
    found = results(drawn, every)
    assert found["scope"] == "sample"
    assert found["outside"] == 4
    assert found["clips"] == {"run": 6, "sample": 2, "judged": 2, "failed": 0}
    assert found["sample"] == {"n": 2, "seed": 7, "of": 6, "strata": [{"wer": "all", "clips": 6, "drawn": 2}]}


@settings(max_examples=30)
@given(counts=st.lists(st.integers(0, 20), min_size=5, max_size=5))
def test_equal_counts_have_equal_percents_and_each_is_rounded_by_itself(counts: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    run = audit_run(tmp_path_factory.mktemp("run"), *((str(i), "a", "b") for i in range(max(1, sum(counts)))))
    categories = Counter(dict(zip(CATEGORIES, counts, strict=True))).elements()
    rows = results(run, [Verdict(str(i), category, "ann") for i, category in enumerate(categories)])["pooled"]["categories"].values()
    if not sum(counts):
        assert {row["percent"] for row in rows} == {None}
        return
    assert len({(row["clips"], row["percent"]) for row in rows}) == len(set(counts))
    assert all(abs(row["percent"] - 100 * row["share"]) < 0.05 + 1e-9 for row in rows)


def test_the_pool_has_one_vote_a_clip_and_ties_are_left_to_people(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *CLIPS)
    given = [
        *verdicts("ann", a="label_noise", b="label_noise", c="model_error"),
        *verdicts("bob", a="label_noise", b="model_error", c="perfect"),
        *verdicts("cy", a="model_error", c="ambiguous"),
    ]
    found = results(run, given)
    pooled = found["pooled"]
    assert pooled["clips"] == 1
    assert pooled["ties"] == ["b", "c"]
    assert {key: row["clips"] for key, row in pooled["categories"].items() if row["clips"]} == {"label_noise": 1}
    assert found["disagreements"] == [
        {"id": "a", "verdicts": {"ann": "label_noise", "bob": "label_noise", "cy": "model_error"}, "tied": False},
        {"id": "b", "verdicts": {"ann": "label_noise", "bob": "model_error"}, "tied": True},
        {"id": "c", "verdicts": {"ann": "model_error", "bob": "perfect", "cy": "ambiguous"}, "tied": True},
    ]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(sorted(CATEGORIES))), max_size=12))
def test_a_settled_category_always_has_more_raters_than_any_other(given: list[tuple[str, str]]) -> None:
    for one in settle([Verdict(id_, category, f"rater {i}") for i, (id_, category) in enumerate(given)]).values():
        votes = Counter(one.votes.values())
        most = [category for category, count in votes.items() if count == max(votes.values())]
        assert one.verdict == (most[0] if len(most) == 1 else None)


def test_raters_blind_and_open_verdicts_are_counted_apart(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *CLIPS)
    found = results(
        run, [*verdicts("ann", a="perfect", b="label_noise"), *verdicts("bob", blind=True, a="model_error", b="label_noise", c="perfect")]
    )
    assert found["raters"]["ann"]["clips"] == 2
    assert found["raters"]["ann"]["blind"] == 0
    assert found["raters"]["bob"]["blind"] == 3
    assert found["blind"]["clips"] == 3
    assert found["open"]["clips"] == 2
    assert found["blind"]["categories"]["model_error"]["clips"] == 1
    assert found["open"]["categories"]["model_error"]["clips"] == 0
    assert found["agreement"]["pairs"][0]["both_blind"] == 0


def test_time_a_clip_is_the_median_between_verdicts(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *CLIPS)
    times = {"a": "00:00:00", "b": "00:00:08", "c": "00:00:20", "d": "09:00:00"}
    given = [Verdict(id_, "perfect", "ann", time=f"2026-01-01T{time}+00:00") for id_, time in times.items()]
    found = results(run, [*reversed(given), *verdicts("bob", a="perfect")])["raters"]
    assert found["ann"]["seconds_a_clip"] == 12.0
    assert found["bob"]["seconds_a_clip"] is None


def test_agreement_is_of_clips_that_both_judged(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *CLIPS)
    ann = {"a": "label_noise", "b": "label_noise", "c": "model_error", "d": "perfect"}
    bob = {"b": "label_noise", "c": "perfect", "d": "perfect", "e": "ambiguous"}
    found = results(run, [*verdicts("ann", **ann), *verdicts("bob", **bob)])["agreement"]
    (pair,) = found["pairs"]
    expected = cohen_kappa([ann[key] for key in "bcd"], [bob[key] for key in "bcd"])
    assert (pair["raters"], pair["clips"], pair["agreed"]) == (["ann", "bob"], 3, 2)
    assert pair["kappa"] == expected.kappa == pytest.approx(0.5)
    assert found["fleiss"] is None  # two raters are a pair


def test_three_raters_have_fleiss_kappa_of_the_clips_that_all_judged(tmp_path: Path) -> None:
    ann = verdicts("ann", a="label_noise", b="label_noise", c="perfect", d="perfect")
    bob = verdicts("bob", b="label_noise", c="perfect", d="perfect")
    found = results(audit_run(tmp_path, *CLIPS), [*ann, *bob, *verdicts("cy", b="label_noise", c="perfect", d="ambiguous", e="perfect")])
    fleiss = found["agreement"]["fleiss"]
    assert (fleiss["raters"], fleiss["clips"]) == (3, 3)
    # By hand: two clips agree, a third of the pairs on the last: (1 + 1 + 1/3) / 3; of nine verdicts 3, 5 and 1 are in a category.
    assert fleiss["kappa"] == pytest.approx((7 / 9 - 35 / 81) / (1 - 35 / 81))


@pytest.mark.parametrize(
    "given",
    [
        [],
        verdicts("ann", a="perfect", b="perfect"),
        [*verdicts("ann", a="perfect"), *verdicts("bob", b="perfect")],
        [*verdicts("ann", a="perfect", b="perfect"), *verdicts("bob", a="perfect", b="perfect")],
        [*verdicts("ann", a="perfect"), *verdicts("bob", b="perfect"), *verdicts("cy", c="perfect")],
    ],
)
def test_where_there_is_no_kappa_it_is_said_why(tmp_path: Path, given: list[Verdict]) -> None:
    found = results(audit_run(tmp_path, *CLIPS), given)["agreement"]
    for row in filter(None, (*found["pairs"], found["fleiss"])):
        assert row["kappa"] is None
        assert row["reason"]


RATED = [
    ("noise-typed", "the cat sat", "the cat sat down"),
    ("noise", "a b c d", "a b c e"),
    ("error", "red green blue", "red green bloom"),
    ("unclear", "go home", "no home"),
    ("perfect", "all is well", "all is well"),
    ("unjudged", "many words that are all of them wrong", "x"),
]


def test_wer_on_corrected_labels_stands_beside_that_of_the_same_clips(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *RATED)
    given = verdicts("ann", **{"noise-typed": "label_noise: the cat sat now", "noise": "label_noise", "error": "model_error"})
    given += verdicts("ann", unclear="ambiguous", perfect="perfect")
    found = results(run, given)["wer"]
    assert found["clips"] == 5
    # Errors: 1 + 1 + 1 + 1 + 0 of 3 + 4 + 3 + 2 + 3 words; then "now" for "down", none, 1, 1 and none of 4 + 4 + 3 + 2 + 3.
    assert found["original"]["rate"] == pytest.approx(4 / 15)
    assert found["corrected"]["rate"] == pytest.approx(3 / 16)
    assert found["original"]["reference_length"] == 15
    assert found["corrected"]["reference_length"] == 16
    for rate in (found["original"], found["corrected"]):
        assert rate["interval"]["low"] <= rate["rate"] <= rate["interval"]["high"]
    assert (found["typed"], found["hypothesis_as_label"], found["kept"], found["ambiguous_kept"]) == (1, 1, 3, 1)
    assert found["left_out"] == {"tied": [], "texts_differ": [], "answers": 0}


def test_a_share_of_wrong_clips_is_not_taken_for_a_word_error_rate(tmp_path: Path) -> None:
    """System A's audit: errors in 14 of 100 clips were called a WER of 14 %."""
    said = "one two three four five six seven eight nine ten"
    run = audit_run(tmp_path, *((f"{i}", said, said if i >= 14 else said.replace("ten", "hen")) for i in range(100)))
    found = results(run, [Verdict(str(i), "model_error" if i < 14 else "perfect", "ann") for i in range(100)])
    assert found["pooled"]["categories"]["model_error"]["percent"] == 14.0
    assert found["wer"]["corrected"]["rate"] == pytest.approx(0.014)


def test_clips_whose_label_is_in_dispute_are_in_neither_rate(tmp_path: Path) -> None:
    answer = {"id": "asked", "reference": "yes", "hypothesis": "no", "task": "answer"}
    run = audit_run(tmp_path, *RATED, answer)
    ann = verdicts("ann", noise="label_noise", error="label_noise: red", unclear="label_noise: go", perfect="perfect", asked="model_error")
    bob = verdicts("bob", noise="model_error", error="label_noise: green", unclear="label_noise", perfect="perfect", asked="model_error")
    found = results(run, [*ann, *bob])["wer"]
    assert found["left_out"] == {"tied": ["noise"], "texts_differ": ["error"], "answers": 1}
    assert found["clips"] == 2
    # Where one typed and the other found the model right, what was typed stands: "go" against "no home".
    expected = corpus([word_errors("go", "no home"), word_errors("all is well", "all is well")])
    assert found["corrected"]["rate"] == expected.rate
    assert found["original"]["reference_length"] == 5


def test_the_text_of_who_was_outvoted_is_no_correction(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *RATED)
    given = [*verdicts("ann", error="label_noise: x y"), *verdicts("bob", error="model_error"), *verdicts("cy", error="model_error")]
    found = results(run, given)["wer"]
    assert found["typed"] == 0
    assert found["corrected"] == found["original"]


def test_without_verdicts_everything_is_there_and_empty(tmp_path: Path) -> None:
    found = results(audit_run(tmp_path, *CLIPS), [])
    assert found["wer"]["original"] is None
    assert found["wer"]["corrected"] is None
    assert found["pooled"]["clips"] == 0
    assert found["raters"] == {}
    assert found["scope"] == "part"


def test_tags_are_counted_once_a_clip(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *CLIPS)
    given = [Verdict("a", "label_noise", "ann", tags=("name", "grammar")), Verdict("a", "label_noise", "bob", tags=("name",))]
    given += [Verdict("b", "label_noise", "ann", tags=("name",))]
    assert results(run, given)["tags"] == {"name": 2, "grammar": 1}


def test_failed_rows_are_counted_and_in_no_share(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *CLIPS, {"id": "gone", "reference": "x", "hypothesis": "", "error": "no such file"})
    assert results(run, [])["clips"] == {"run": 6, "sample": 6, "judged": 0, "failed": 1}
