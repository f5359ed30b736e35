"""The benchmark of the suggestions: what it corrupts, and how it counts by kind."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from judged import audit_run

from audiograft.audit.suggestions import Suggestion

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "label_noise.py"
ROWS = [
    {"id": f"{i}", "text": f"{name} bought {n} eggs on {day}", "slots": [["name", name], ["number", n], ["day", day]]}
    for i, (name, n, day) in enumerate((name, n, day) for name in ("ann", "bob", "cy") for n in ("two", "six") for day in ("monday", "friday"))
]


@pytest.fixture(scope="module")
def label_noise() -> ModuleType:
    spec = importlib.util.spec_from_file_location("label_noise", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["label_noise"] = module
    spec.loader.exec_module(module)
    return module


def test_a_share_of_labels_is_wrong_each_in_a_known_way(label_noise: ModuleType) -> None:
    rows = label_noise.corrupt(ROWS, 2 / 3, seed=1)
    assert rows == label_noise.corrupt(ROWS, 2 / 3, seed=1) != label_noise.corrupt(ROWS, 2 / 3, seed=2)
    wrong = [row for row in rows if "corruption" in row]
    assert Counter(row["corruption"] for row in wrong) == dict.fromkeys(label_noise.KINDS, 2)
    assert [row for row in rows if "corruption" not in row] == [row for row in ROWS if row["id"] not in {row["id"] for row in wrong}]
    more = {"dropped word": -1, "inserted word": 1, "substituted word": 0, "swapped label": 0}
    for row in wrong:
        assert row["text"] != row["true_text"] == ROWS[int(row["id"])]["text"]
        assert len(row["text"].split()) - len(row["true_text"].split()) == more[row["corruption"]]
        if row["corruption"] == "substituted word":
            assert sum(a != b for a, b in zip(row["text"].split(), row["true_text"].split(), strict=True)) == 1
        if row["corruption"] == "swapped label":
            assert row["text"] in {other["text"] for other in ROWS}


def test_labels_of_other_kinds_are_left_out_and_not_taken_for_right(label_noise: ModuleType) -> None:
    rows = [{"id": "a", "corruption": "dropped word"}, {"id": "b", "corruption": "swapped label"}, {"id": "c"}, {"id": "d"}]
    ranking = {id_: Suggestion(1.0, [], {}) for id_ in "bcad"}
    assert label_noise.quality(ranking, rows, label_noise.ALL)["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    one = label_noise.quality(ranking, rows, "dropped word")
    assert (one["judged"], one["label_noise"], one["average_precision"]) == (3, 1, 0.5)
    summed = label_noise.summed_up([one, one], "dropped word")
    assert (summed["average_precision"], summed["chance"], summed["at"]["5"]) == (0.5, 0.3333, {"recall": 1.0})


def test_by_wer_and_without_probabilities_are_what_they_say(label_noise: ModuleType, tmp_path: Path) -> None:
    known = {"token_logprobs": [-0.1], "reference_nats": 1.0, "reference_tokens": 2}
    run = audit_run(
        tmp_path,
        {"id": "little", "reference": "a b c d", "hypothesis": "a b c", **known},
        {"id": "much", "reference": "a b", "hypothesis": "a", **known},
        {"id": "none", "reference": "a", "hypothesis": "a", **known},
    )
    found = label_noise.rankings(run, [clip.prediction for clip in run.clips])
    assert list(found["by WER"]) == ["much", "little"]
    assert "likelihood" in found["suggest"]["much"].signals
    assert found["suggest, no probabilities"]["much"].signals.keys() == {"distance", "length"}
    assert found["suggest, second opinion, no probabilities"]["much"].signals.keys() == {"distance", "length", "second_opinion"}
