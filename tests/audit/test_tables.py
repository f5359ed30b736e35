"""Verdicts as CSV, which a spreadsheet must not compute, and results on a terminal."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import audit_run, verdicts
from rich.console import Console

from audiograft.audit.results import results
from audiograft.audit.run import AuditRun
from audiograft.audit.suggestions import Suggestion, suggestion_quality
from audiograft.audit.tables import CSV_COLUMNS, print_results, verdicts_csv
from audiograft.audit.verdicts import Verdict

CLIPS = [(name, f"one two three {name}", f"one two tree {name}") for name in "abcdef"]


def rows_of(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table)))


def test_one_row_a_verdict_with_its_clip(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *CLIPS)
    verdict = Verdict("a", "label_noise", "ann", True, "y", 'one, "two"\nthree', ("name", "grammar"), "sure", "2026-01-01T00:00:00+00:00")
    table = verdicts_csv(run, [verdict, Verdict("elsewhere", "perfect", "bob")])
    first, second = rows_of(table)
    assert tuple(first) == CSV_COLUMNS
    assert first == {
        "id": "a",
        "rater": "ann",
        "verdict": "label_noise",
        "choice": "y",
        "blind": "yes",
        "is_corrected": "yes",
        "corrected": 'one, "two"\nthree',
        "tags": "name; grammar",
        "note": "sure",
        "time": "2026-01-01T00:00:00+00:00",
        "reference": "one two three a",
        "hypothesis": "one two tree a",
        "wer": "0.2500",
    }
    assert (second["blind"], second["is_corrected"], second["corrected"], second["reference"], second["wer"]) == ("no", "no", "", "", "")
    (silence,) = rows_of(verdicts_csv(run, [Verdict("a", "label_noise", "ann", corrected="")]))
    assert (silence["is_corrected"], silence["corrected"]) == ("yes", "")


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =cmd|' /C calc'!A0", "\n=1", "\u00a0=1", "\uff1d1+1", '=HYPERLINK("http://x","y")']
)
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    run = audit_run(tmp_path, (text, text, text))
    (row,) = rows_of(verdicts_csv(run, [Verdict(text, "perfect", text, corrected=text, note=text)]))
    for key in ("id", "rater", "corrected", "note", "reference", "hypothesis"):
        assert row[key] == f"'{text}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    return audit_run(tmp_path_factory.mktemp("run"), *CLIPS)


@given(note=st.text(alphabet=st.characters(codec="utf-8")))
def test_a_cell_is_the_text_or_begins_with_an_apostrophe(run: AuditRun, note: str) -> None:
    (row,) = csv.DictReader(io.StringIO(verdicts_csv(run, [Verdict("a", "perfect", "ann", note=note)]), newline=""))
    assert row["note"] in (note, f"'{note}")
    assert row["note"].strip()[:1] not in tuple("=+-@")
    assert row["note"][:1] not in ("\t", "\r", "\n")


def printed(found: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=140, markup=False, highlight=False)
    print_results(found, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_terminal_shows_shares_agreement_rates_and_what_was_left_out(run: AuditRun) -> None:
    given = [
        *verdicts("ann", a="label_noise: one two tree a", b="label_noise", c="model_error", d="perfect"),
        *verdicts("[bold]bob", blind=True, a="label_noise", b="model_error", c="model_error", d="ambiguous"),
        Verdict("a", "label_noise", "cy", tags=("name",)),
        Verdict("elsewhere", "perfect", "cy"),
    ]
    shown = printed(results(run, given))
    for part in (
        "│ Label noise        │ 1 (50.0 %) │ 9.5 to 90.5 % │",
        "[bold]bob",
        "4, 4 blind",
        "ann / [bold]bob",
        "all 3 (Fleiss)",
        "WER of 2 judged clips",
        "25.00 %",
        "12.50 %",
        "4 clips judged of 6 in the run; judged in part",
        "verdicts on clips outside the sample, left out: 1",
        "1 typed, 0 are the hypothesis",
        "intervals of the WER: 2 utterances only: the interval is wide and rough",
        "2 clips on which raters are tied",
        "tied, in no share until they are settled: b, d",
        "raters differ on 2 clips: b, d",
        "tags: name 1",
    ):
        assert part in shown, part


def test_two_raters_are_one_pair_and_no_more(run: AuditRun) -> None:
    shown = printed(results(run, [*verdicts("ann", a="perfect", b="ambiguous"), *verdicts("bob", a="perfect", b="perfect")]))
    assert "ann / bob" in shown
    assert "Fleiss" not in shown


def test_an_audit_without_verdicts_can_be_shown(run: AuditRun) -> None:
    shown = printed(results(run, []))
    assert "0 clips judged of 6 in the run" in shown
    assert "WER" not in shown


def test_the_quality_of_suggestions_is_shown_where_it_is_known(run: AuditRun) -> None:
    given = verdicts("ann", a="label_noise", b="model_error")
    ranking = {id_: Suggestion(score, [], {}) for id_, score in zip("ab", (0.9, 0.8), strict=True)}
    shown = printed(results(run, given) | {"suggestions": suggestion_quality(ranking, given)})
    assert "│ first 5     │ 2      │ 1           │ 50.00 % (9.45-90.55 %) │ 100.00 % (20.65-100.00 %) │" in shown
    assert "suggestions" not in printed(results(run, given) | {"suggestions": None})


def test_long_lists_of_ids_are_cut(tmp_path: Path) -> None:
    run = audit_run(tmp_path, *((f"clip {i}", "a", "b") for i in range(25)))
    every = [Verdict(f"clip {i}", category, rater) for i in range(25) for category, rater in (("perfect", "ann"), ("ambiguous", "bob"))]
    assert "clip 9 and 15 more" in printed(results(run, every))
