"""The ranking of likely label errors: each signal by itself, and precision and recall by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import audit_run, verdicts

from audiograft.audit.run import AuditRun
from audiograft.audit.suggestions import WEIGHTS, Suggestion, suggest, suggestion_quality, telling_cut_offs
from audiograft.audit.verdicts import Verdict
from audiograft.evaluate.predictions import Prediction
from audiograft.metrics.intervals import wilson
from audiograft.types import DataError

LABEL, HEARD = "one two three four", "one two tree four"


def row(id_: str, reference: str = LABEL, hypothesis: str = HEARD, **more: Any) -> dict[str, Any]:
    return {"id": id_, "reference": reference, "hypothesis": hypothesis, **more}


def second(**texts: str) -> list[Prediction]:
    return [Prediction(id_, LABEL, text) for id_, text in texts.items()]


def test_only_transcripts_that_differ_and_say_something_are_suggested(tmp_path: Path) -> None:
    run = audit_run(
        tmp_path,
        row("differs"),
        row("same", hypothesis="One  two three FOUR"),
        row("answer", task="answer"),
        row("empty", hypothesis="..."),
        row("loop", hypothesis="over and over " * 8),
        row("refusal", hypothesis="I'm sorry, but I can't listen to audio."),
    )
    assert list(suggest(run)) == ["differs"]


def test_nothing_is_suggested_where_every_hypothesis_is_empty(tmp_path: Path) -> None:
    assert suggest(audit_run(tmp_path, row("a", hypothesis=""), row("b", hypothesis=""))) == {}


def test_a_second_opinion_counts_by_the_side_it_takes(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *(row(id_) for id_ in ("same", "label", "between", "none", "failed")))
    opinions = second(same=HEARD, label=LABEL, between="one two free four", elsewhere="x")
    opinions.append(Prediction("failed", LABEL, "", error="no such file"))
    found = suggest(run, opinions)
    assert {id_: one.signals.get("second_opinion") for id_, one in found.items()} == {
        "same": 1.0,
        "label": 0.0,
        "between": 0.0,
        "none": None,
        "failed": None,
    }
    assert next(iter(found)) == "same"
    assert "a second model wrote the same as the first" in found["same"].reasons
    assert suggest(run, second(same="one two tree for"))["same"].signals["second_opinion"] == 1.0
    assert (
        "words by which a second model differs: 1 from the first, 2 from the label" in suggest(run, second(same="one two tree for"))["same"].reasons
    )


def test_a_second_opinion_on_other_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="share no clip with"):
        suggest(audit_run(tmp_path, row("a")), second(b=HEARD))


def test_confidence_is_the_probability_of_the_whole_text(tmp_path: Path) -> None:
    run = audit_run(tmp_path, row("sure", token_logprobs=[-0.1, -0.2]), row("unsure", token_logprobs=[-1.0, -2.0]), row("unknown"))
    found = suggest(run)
    assert found["sure"].signals["confidence"] == pytest.approx(math.exp(-0.3), abs=1e-4)
    assert found["unsure"].signals["confidence"] == pytest.approx(math.exp(-3.0), abs=1e-4)
    assert "confidence" not in found["unknown"].signals
    assert any("74%" in reason for reason in found["sure"].reasons)
    assert list(found)[0] == "sure"


def test_likelihood_ranks_labels_by_what_they_cost_beyond_the_models_own_text(tmp_path: Path) -> None:
    known = {"token_logprobs": [-0.5, -0.5], "reference_tokens": 4}
    run = audit_run(
        tmp_path,
        row("likely", reference_nats=0.5, **known),
        row("little", reference_nats=2.0, **known),
        row("some", reference_nats=5.0, **known),
        row("much", reference_nats=9.0, **known),
        row("unknown"),
    )
    found = {id_: one.signals.get("likelihood") for id_, one in suggest(run).items()}
    assert found == {"much": 1.0, "some": pytest.approx(2 / 3, abs=1e-4), "little": pytest.approx(1 / 3, abs=1e-4), "likely": 0.0, "unknown": None}
    assert "the model finds the label 2.00 nats a token less likely than its own text" in suggest(run)["much"].reasons


def test_the_likelihood_of_a_label_is_0_where_it_beats_the_hypothesis(tmp_path: Path) -> None:
    better = {"token_logprobs": [-3.0], "reference_tokens": 4}
    run = audit_run(tmp_path, row("a", reference_nats=1.0, **better), row("b", reference_nats=2.0, **better))
    assert {one.signals["likelihood"] for one in suggest(run).values()} == {0.0}


def test_an_odd_pace_is_one_far_from_that_of_the_run(tmp_path: Path) -> None:
    usual = [row(f"usual {i}", duration_s=2.0 + 0.05 * i) for i in range(9)]
    run = audit_run(tmp_path, *usual, row("cut", duration_s=0.5), row("unknown"))
    found = suggest(run)
    assert found["cut"].signals["pace"] == 1.0
    assert any("8.0 words a second" in reason for reason in found["cut"].reasons)
    assert {found[f"usual {i}"].signals["pace"] for i in range(2, 7)} == {0.0}
    assert "pace" not in found["unknown"].signals
    same = audit_run(tmp_path / "same", *(row(str(i), duration_s=2.0) for i in range(3)))
    assert all("pace" not in one.signals for one in suggest(same).values())


def test_distance_and_length_are_those_of_the_texts(tmp_path: Path) -> None:
    found = suggest(audit_run(tmp_path, row("short", "one two three four five six seven eight", "one two"), row("one", LABEL, HEARD)))
    assert found["short"].signals == {"distance": 0.75, "length": 0.75}
    assert found["one"].signals == {"distance": 0.25, "length": 0.0}
    assert found["short"].reasons == ["6 of 8 words differ from the label", "the label has 8 words, the model heard 2"]


def test_a_label_without_words_can_be_suggested(tmp_path: Path) -> None:
    assert suggest(audit_run(tmp_path, row("a", reference="  ")))["a"].signals == {"distance": 1.0, "length": 1.0}


ROWS = st.builds(
    row,
    st.uuids().map(str),
    st.text("ab ", max_size=12),
    st.text("ab ", max_size=12),
    duration_s=st.floats(0.1, 30),
    token_logprobs=st.lists(st.floats(-20, 0), max_size=4),
    reference_nats=st.floats(0, 100),
    reference_tokens=st.integers(1, 20),
)


@settings(max_examples=40)
@given(rows=st.lists(ROWS, min_size=1, max_size=6), said=st.text("ab ", max_size=12))
def test_scores_are_weighted_means_of_signals_between_0_and_1(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], said: str
) -> None:
    run = audit_run(tmp_path_factory.mktemp("run"), *rows)
    found = suggest(run, [Prediction(rows[0]["id"], "", said)])
    scores = [one.score for one in found.values()]
    assert scores == sorted(scores, reverse=True)
    for one in found.values():
        assert all(0 <= signal <= 1 for signal in one.signals.values())
        mean = sum(WEIGHTS[name] * signal for name, signal in one.signals.items()) / sum(WEIGHTS[name] for name in one.signals)
        assert one.score == pytest.approx(mean, abs=2e-4)


RANKED = {id_: Suggestion(score, [], {}) for id_, score in zip("abcdefg", (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3), strict=True)}


def test_quality_is_that_of_the_ranking_by_the_verdicts() -> None:
    given_ = verdicts("ann", a="label_noise", c="model_error", d="label_noise", e="ambiguous", f="perfect", missed="label_noise")
    found = suggestion_quality(RANKED, given_)
    assert {key: found[key] for key in ("judged", "label_noise", "ambiguous", "blind", "tied")} == {
        "judged": 6,
        "label_noise": 3,
        "ambiguous": 1,
        "blind": 0,
        "tied": 0,
    }
    first = found["at"]["5"]
    assert (first["judged"], first["right"], first["ambiguous"]) == (4, 2, 1)
    interval = wilson(2, 4)
    assert first["precision"] == {"rate": 0.5, "low": interval.low, "high": interval.high}
    assert first["recall"]["rate"] == pytest.approx(2 / 3)
    # Judged ranks: a is the first of one, d the second of three, and the third was never suggested.
    assert found["average_precision"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["chance"] == 0.5


@pytest.mark.parametrize(("judged", "told"), [("abc", ["5"]), ("abcdefg", ["5", "10"]), ("g", ["5", "10"]), ("", ["5"])])
def test_cut_offs_that_add_no_judged_clip_are_not_told(judged: str, told: list[str]) -> None:
    found = suggestion_quality(RANKED, verdicts("ann", **dict.fromkeys(judged, "label_noise")))
    assert list(found["at"]) == ["5", "10", "20", "50"]
    assert list(telling_cut_offs(found["at"])) == told


def test_quality_counts_what_is_blind_or_tied() -> None:
    given_ = [*verdicts("ann", blind=True, a="label_noise", b="label_noise"), *verdicts("bob", b="model_error")]
    found = suggestion_quality(RANKED, given_)
    assert (found["judged"], found["blind"], found["tied"]) == (1, 1, 1)


@pytest.mark.parametrize("given_", [[], verdicts("ann", a="model_error"), [Verdict("elsewhere", "perfect", "ann")]])
def test_quality_is_null_where_there_is_nothing_to_divide(given_: list[Verdict]) -> None:
    found = suggestion_quality(RANKED, given_)
    assert found["average_precision"] is None
    assert found["at"]["50"]["recall"] is None
    assert (found["at"]["50"]["precision"] is None) == (found["at"]["50"]["judged"] == 0)


def test_the_sample_of_a_run_is_ranked_within_itself(tmp_path: Path) -> None:
    run: AuditRun = audit_run(tmp_path, *(row(str(i), reference_nats=float(i), reference_tokens=1) for i in range(1, 6)))
    part = replace(run, clips=run.clips[:3])
    assert [one.signals["likelihood"] for one in suggest(part).values()] == [1.0, 0.5, 0.0]
