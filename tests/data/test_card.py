"""The data card: every number against one counted by hand, the books that must balance, and text from a corpus that is hostile to a page."""

from __future__ import annotations

import html.parser
import json
import math
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.data.card import make_card, render_card, write_card
from audiograft.data.counting import Spread, TopCounts
from audiograft.data.gate import COUNTED, LeakageReport, Side, Touch
from audiograft.types import DataError

ROWS = [
    {"id": "1", "audio": "1.wav", "text": "Hello, hello world", "speaker": "ann", "recording": "r1", "language": "en", "source": "x",
     "label": "SPEECH", "duration_s": 2.0, "wer_percent": 12.5},
    {"id": "2", "audio": "2.wav", "text": "the world -", "speaker": "ann", "recording": "r2", "language": "en", "source": "y",
     "duration_s": 1.5, "wer_percent": 0},
    {"id": "3", "audio": "3.wav", "text": "", "label": "NONSPEECH", "duration_s": 5.0},
    {"id": "4", "text": None, "prompt": "Who?", "response": "The cat"},
]  # fmt: skip
REJECTED = [
    {"id": "5", "audio": "5.wav", "reason": "lasts 31.2 s, more than --max-duration-s 30", "kind": "duration"},
    {"id": "6", "audio": "6.wav", "reason": "no such file: check the path", "kind": "missing"},
    {"id": "7", "audio": "7.wav", "reason": "lasts 44.0 s, more than --max-duration-s 30", "kind": "duration"},
]


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Any]:
    manifests = {"train": write(tmp_path / "train.jsonl", ROWS[:3]), "dev": write(tmp_path / "dev.jsonl", ROWS[3:])}
    return {"manifests": manifests, "rejected": write(tmp_path / "rejected.jsonl", REJECTED)}


def test_every_figure_is_what_the_rows_hold(corpus: dict[str, Any]) -> None:
    card = make_card(**corpus, n_read=7, made_by={"source": "csv"})
    assert card["rows"] == {"read": 7, "kept": 4, "rejected": 3}
    assert card["hours"] == 8.5 / 3600
    assert (card["speakers"], card["recordings"]) == (1, 2)
    assert card["rows_without"] == {"text": 2, "speaker": 2, "recording": 2, "language": 2, "duration_s": 1}
    assert card["languages"] == [{"name": "en", "rows": 2, "hours": 3.5 / 3600}]
    assert [group["name"] for group in card["sources"]] == ["x", "y"]
    assert [(group["name"], group["rows"]) for group in card["labels"]] == [("NONSPEECH", 1), ("SPEECH", 1)]
    assert card["words"] == {
        "total": 8, "distinct": 5, "top": [("hello", 2), ("the", 2), ("world", 2), ("-", 1), ("cat", 1)], "top_is_exact": True,
    }  # fmt: skip
    assert card["characters"]["total"] == len("Hello, hello worldthe world -The cat")
    assert dict(card["characters"]["top"])["l"] == 6
    assert (card["duration_s"]["least"], card["duration_s"]["quantiles"]["50%"], card["duration_s"]["most"]) == (1.5, 2.0, 5.0)
    assert (card["words_per_second"]["least"], card["words_per_second"]["most"]) == (1.5, 2.0)
    assert (card["wer_percent"]["least"], card["wer_percent"]["most"]) == (0, 12.5)
    assert {kind: found["rows"] for kind, found in card["rejected"].items()} == {"duration": 2, "missing": 1}
    assert card["rejected"]["missing"]["examples"] == [{"id": "6", "audio": "6.wav", "reason": "no such file: check the path"}]
    assert card["splits"]["train"] == {"rows": 3, "hours": 8.5 / 3600, "speakers": 1, "recordings": 2, "words": 6}
    assert card["splits"]["dev"] == {"rows": 1, "hours": 0.0, "speakers": 0, "recordings": 0, "words": 2}
    assert card["made_by"] == {"source": "csv"}


def test_rows_that_are_lost_are_an_error(corpus: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="4 rows kept and 3 rejected are not the 8 that were read"):
        make_card(**corpus, n_read=8)


def test_both_files_are_written_and_say_the_same(tmp_path: Path, corpus: dict[str, Any]) -> None:
    card = write_card(tmp_path, **corpus, n_read=7)
    assert json.loads((tmp_path / "card.json").read_text()) == json.loads(json.dumps(card))
    page = (tmp_path / "card.html").read_text()
    for shown in ("lasts 31.2 s, more than --max-duration-s 30", "NONSPEECH", "hello", "42.86", "train", tmp_path.name):
        assert shown in page


def test_nothing_kept_nothing_rejected_and_nothing_at_all(tmp_path: Path) -> None:
    empty, full = write(tmp_path / "empty.jsonl", []), write(tmp_path / "full.jsonl", ROWS)
    rejected = write(tmp_path / "rejected.jsonl", REJECTED)
    for manifest, dropped, read in ((empty, rejected, 3), (full, empty, 4), (full, None, 4), (empty, None, 0)):
        card = write_card(tmp_path, {"all": manifest}, dropped, n_read=read)
        assert card["rows"]["read"] == read
    assert card["duration_s"] is None


def test_a_broken_or_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"id": "1"}\n{"id": \n')
    with pytest.raises(DataError, match=r"m\.jsonl:2: not valid JSON"):
        make_card({"all": tmp_path / "m.jsonl"}, None)
    with pytest.raises(DataError, match=r"no\.jsonl: can't be read"):
        make_card({"all": tmp_path / "no.jsonl"}, None)


# The page


class Reader(html.parser.HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


HOSTILE = '<script>alert("x")</script> <img src=//a.example/x onerror=alert(1)> \'"&amp; \u202eabc\x00\x1b[31m \ud800'


def test_hostile_text_is_shown_not_obeyed(tmp_path: Path) -> None:
    row = {"id": HOSTILE, "audio": HOSTILE, "text": HOSTILE, "speaker": HOSTILE, "language": HOSTILE, "label": HOSTILE, "duration_s": 2.0}
    manifest = write(tmp_path / "m.jsonl", [row])
    rejected = write(tmp_path / "r.jsonl", [{"id": HOSTILE, "audio": HOSTILE, "reason": HOSTILE, "kind": HOSTILE}])
    shares = {HOSTILE: [HOSTILE, {HOSTILE: 3}]}
    write_card(tmp_path, {HOSTILE: manifest}, rejected, leakage=shares, made_by={HOSTILE: HOSTILE})
    reader = read((tmp_path / "card.html").read_text(encoding="utf-8"))
    assert not {"script", "img", "link", "iframe", "object", "form"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name in ("src", "href", "action")]
    assert '<script>alert("x")</script>' in reader.text
    assert not {"\x00", "\x1b", "\u202e"} & set(reader.text)
    json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))


def test_the_page_needs_no_network_and_can_be_read_aloud_and_on_a_phone(tmp_path: Path, corpus: dict[str, Any]) -> None:
    write_card(tmp_path, **corpus, leakage={"train, dev": {"speakers": 2}})
    page = (tmp_path / "card.html").read_text()
    reader = read(page)
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page
    assert ("name", "viewport") in reader.attributes
    labels = [value for name, value in reader.attributes if name == "aria-label"]
    assert len(labels) == 3  # one for each histogram: durations, words a second, word error rates
    assert all("half of the rows" in str(label) for label in labels)
    assert reader.tags["table"] >= 2 * 3  # and their numbers as tables
    assert reader.tags["th"] > 10


def test_where_splits_touch_is_a_table(tmp_path: Path, corpus: dict[str, Any]) -> None:
    touch = Touch("test row", "train row", "train", "ann")
    counts = dict.fromkeys(COUNTED, 0)
    none: dict[str, list[Touch]] = {kind: [] for kind in counts}
    apart = LeakageReport(Side(rows=3), Side(rows=1), counts, counts, none)
    touching = LeakageReport(Side(rows=3), Side(rows=1), {**counts, "speakers": 1}, {**counts, "speakers": 1}, {**none, "speakers": [touch]})
    write_card(tmp_path, **corpus, leakage={"train and dev": touching.as_dict(), "train and test": apart.as_dict()})
    text = " ".join(read((tmp_path / "card.html").read_text()).text.split())
    assert "train and dev: share speakers" in text
    assert "train and test: share nothing that counts" in text
    assert "test row" in text
    unlooked = read(render_card(make_card(**corpus), "t")).text
    assert "Not looked for: run audiograft leakage." in unlooked


def test_spaces_and_invisible_characters_are_named() -> None:
    card = make_card({}, None)
    card["characters"] = {"total": 4, "distinct": 3, "top": [(" ", 2), ("\u200b", 1), ("\n", 1)], "top_is_exact": True}
    text = read(render_card(card, "t")).text
    assert all(name in text for name in ("space", "zero width space u+200b", "u+000a"))


def test_the_template_is_part_of_the_package() -> None:
    assert resources.files("audiograft").joinpath("assets", "card.html.jinja").is_file()


# Counting in bounded memory


def test_the_card_needs_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    peaks = []
    for n_rows in (500, 4_000):
        rows = ({"id": str(i), "text": f"word{i % 300} and so on", "speaker": str(i % 50), "duration_s": i % 400 / 100} for i in range(n_rows))
        manifest = write(tmp_path / "m.jsonl", rows)
        tracemalloc.start()
        make_card({"all": manifest}, None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20_000


def test_groups_beyond_the_limit_are_counted_together(tmp_path: Path) -> None:
    manifest = write(tmp_path / "m.jsonl", [{"id": str(i), "label": f"l{i}", "duration_s": 1.0} for i in range(500)])
    labels = make_card({"all": manifest}, None)["labels"]
    assert labels[0] == {"name": "(others)", "rows": 300, "hours": 300 / 3600}
    assert sum(group["rows"] for group in labels) == 500


def test_frequent_strings_are_exact_until_there_are_too_many_and_distinct_ones_always() -> None:
    counts = TopCounts(limit=10)
    for number in range(100):
        counts.update(["the", "the", f"rare {number}"])
    assert counts.top(1) == [("the", 200)]
    assert (counts.total, counts.distinct, counts.exact) == (300, 101, False)
    few = TopCounts(limit=10)
    few.update(["b", "a", "b"])
    assert (few.top(5), few.exact) == ([("b", 2), ("a", 1)], True)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=100))
def test_a_histogram_counts_every_number_once_and_quantiles_are_near_the_true_ones(values: list[float]) -> None:
    spread = Spread(0.01)
    for value in values:
        spread.add(value)
    summary = spread.summary()
    assert summary is not None
    bars = summary["histogram"]
    assert sum(bar["rows"] for bar in bars) == len(values)
    assert len(bars) <= 25
    assert all(first["to"] == pytest.approx(second["from"]) for first, second in zip(bars, bars[1:], strict=False))
    assert (summary["least"], summary["most"]) == (min(values), max(values))
    assert (bars[-1]["to"] is None) or bars[-1]["to"] > max(values)
    for percent, got in summary["quantiles"].items():
        true = sorted(values)[math.ceil(float(percent[:-1]) / 100 * len(values)) - 1]
        assert got == pytest.approx(true, rel=0.006, abs=0.0101)


def test_bars_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).gamma(3, 2, 2_000)
    spread = Spread(0.01)
    for value in values:
        spread.add(float(value))
    summary = spread.summary()
    assert summary is not None
    edges = [bar["from"] for bar in summary["histogram"]] + [np.inf]
    counts, _ = np.histogram(values, edges)
    assert [bar["rows"] for bar in summary["histogram"]] == counts.tolist()
