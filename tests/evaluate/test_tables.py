"""What a terminal shows of metrics.json."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from audiograft.data.manifest import write_manifest
from audiograft.evaluate.printing import print_metrics
from audiograft.evaluate.scoring import score
from audiograft.evaluate.tables import Table, counted, percent, rounded, slices, span

SAID = [
    {"id": f"{i}", "reference": "One [bold]two[/bold]", "hypothesis": "one [bold]two[/bold]" if i else "", "speaker": f"s{i % 3}", "duration_s": 2.0}
    for i in range(9)
]
LEAKAGE = {"checked": False, "why": "the model has no record of what it was trained on"}


def shown(metrics: dict[str, Any]) -> str:
    file = io.StringIO()
    print_metrics(metrics, Console(file=file, markup=False, highlight=False, width=160))
    return file.getvalue()


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    write_manifest(tmp_path / "predictions.jsonl", SAID)
    return tmp_path


def test_what_spoils_a_number_stands_below_it(predictions: Path) -> None:
    told = {"leakage": LEAKAGE, "checkpoint": {"why": "not a clean test: 9 of these clips were validated on during training"}}
    lines = shown(score(predictions) | told).splitlines()
    assert lines[-2:] == ["leakage not checked: the model has no record of what it was trained on", told["checkpoint"]["why"]]
    assert shown(score(predictions)).splitlines()[-2:] == [
        "leakage not checked: these predictions come without a run",
        "choice of checkpoint not checked: these predictions come without a run",
    ]


def test_the_headline_comes_first_and_each_table_where_it_has_something_to_say(predictions: Path, tmp_path: Path) -> None:
    heard = [row | {"heard": heard, "hypothesis": "no"} for row in SAID for heard in ("shuffled", "silence")]
    write_manifest(tmp_path / "deafness.jsonl", heard)
    write_manifest(tmp_path / "other.jsonl", SAID[:4])
    metrics = score(predictions, terms=["two"], baseline=tmp_path / "other.jsonl", deafness=tmp_path / "deafness.jsonl")
    text = shown(metrics)
    order = (
        "11.11 %",
        "normaliser",
        "mismatch",
        "empty",
        "written where it was not said",
        "silence",
        "this run",
        "speaker",
        "intervals: 3 speakers only",
    )
    assert [part for part in order if part not in text] == []
    assert sorted(order, key=text.index) == list(order)
    assert "it listens: 9 clips, errors on true against shuffled audio p = " in text
    assert "4 clips compared, 5 only in this run" in text
    assert "* few words" in text
    plain = shown(score(predictions) | {"detectors": {}})
    for part in ("silence", "this run", "term", "token F1", "detector"):
        assert part not in plain


def test_text_of_a_corpus_is_no_markup(predictions: Path) -> None:
    metrics = score(predictions)
    metrics["slices"]["speaker"]["[red]x[/red]"] = metrics["slices"]["speaker"]["s1"]
    assert "[red]x[/red]" in shown(metrics)


def test_slices_that_would_fill_the_screen_are_left_to_the_report(predictions: Path) -> None:
    rows = [SAID[0] | {"id": f"{i}", "speaker": f"speaker-{i}", "source": f"source-{i % 2}"} for i in range(13)]
    write_manifest(predictions / "predictions.jsonl", rows)
    text = shown(score(predictions))
    assert "speaker-1" not in text
    assert "source-1" in text


@pytest.mark.parametrize("task", ["transcript", "answer"])
def test_long_tables_begin_with_the_worst(predictions: Path, task: str) -> None:
    rows = [{"id": f"{i}", "task": task, "reference": "one", "hypothesis": "one" if i % 4 else "", "speaker": f"s{i:02}"} for i in range(12)]
    write_manifest(predictions / "predictions.jsonl", [*rows, {"id": "e", "task": task, "reference": "", "hypothesis": "", "speaker": "zoe"}])
    (table,) = slices(score(predictions)).values()
    assert [row[0] for row in table.rows[:4]] == ["s00", "s04", "s08", "s01"]
    assert table.rows[-1][0] == "zoe"
    assert len(table.rows) == 13


def test_a_speed_has_the_digits_that_can_be_known(predictions: Path) -> None:
    assert [rounded(speed) for speed in (0.0517, 0.99999, 7.26, 76.44, 126.3, 12_345.0)] == ["0.052", "1", "7.3", "76", "130", "12,000"]
    write_manifest(predictions / "predictions.jsonl", [row | {"decode_s": 0.0163} for row in SAID])
    assert "RTFx 120 (s of audio a second: decoding alone, one run on one machine)" in shown(score(predictions))


def test_one_is_no_plural() -> None:
    assert [counted(count, "row") for count in (0, 1, 2, 1_000)] == ["0 rows", "1 row", "2 rows", "1,000 rows"]


def test_rates_and_intervals_in_words() -> None:
    assert (percent(0.125), percent(None)) == ("12.50 %", "-")
    assert span({"low": 0.01, "high": 2.5}) == "1.00-250.00 %"
    assert span({"low": 1e-9, "high": 1e5}) == "too wide to tell"
    assert span(None) == "-"


def test_intervals_are_drawn_to_one_scale_and_never_beyond_it() -> None:
    table = Table(("x",), [("a",), ("b",), ("c",)], [(0.1, 0.2, 0.3), None, (0.0, 0.4, 1e6)])
    first, none, last = table.tracks()
    assert none is None
    assert first is not None
    assert last is not None
    assert first[2] * 2 == pytest.approx(last[2])
    assert (last[0], last[1]) == (0.0, 100.0)
    assert Table(("x",), [("a",)], [(0.0, 0.0, 0.0)]).tracks() == [(0.0, 0.0, 0.0)]
    assert Table(("x",), [("a",)]).tracks() == []


def test_no_name_controls_the_terminal(tmp_path: Path) -> None:
    rows = [row | {"speaker": f"\x1b]0;owned\x07{row['speaker']}", "hypothesis": ""} for row in SAID]
    rows[0]["id"] = "\x1b[2Jgone"
    write_manifest(tmp_path / "predictions.jsonl", rows)
    text = shown(score(tmp_path))
    assert "\x1b" not in text
    assert "\N{REPLACEMENT CHARACTER}[2Jgone" in text
