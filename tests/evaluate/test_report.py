"""The report: what it says, that nothing in a transcript is more than text in it, and that it stays small."""

from __future__ import annotations

import html.parser
import json
import random
import re
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audiograft.data.manifest import write_manifest
from audiograft.evaluate.report import _plain, write_reports
from audiograft.evaluate.scoring import score_again
from audiograft.types import DataError

VOID = {"meta", "br", "use", "path", "g"}
HOSTILE = (
    '<script>alert("x")</script>',
    "</title></style><img src=x onerror=alert(1)>",
    "\"' onmouseover='alert(1)",
    "a\u202egnp.exe\u200f\u2066",
    "{{ 7*7 }}{% x %}",
    "| a | b |\n| --- |",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png)",
    "**bold** `code` ~~gone~~ <!-- --> &lt;",
    "$\\frac{1}{0}$",
    "\x00\x1b[31m",
    "@everyone #1 www.evil.example https://evil.example",
    "\ud800 half",
    "]]></svg>",
    "日本語 العربية שלום",
)
RUN = {
    "model": "runs/mine",
    "manifest": "/data/test set/manifest.jsonl",
    "manifest_sha256": "ab" * 32,
    "prompt": "Write it; don't ask.",
    "audio": "true",
    "batch_size": 8,
    "context": [],
    "versions": {"torch": "2.13.0"},
    "commit": "abc123",
    "date": "2026-01-01T00:00:00+00:00",
}
TOLD = {
    "wall_s": 1.0,
    "context": 0,
    "leakage": {"checked": False, "why": "the model has no record of what it was trained on"},
    "checkpoint": {"known": True, "chosen_on_this_data": True, "clips": 3, "why": "not a clean test: 3 of these clips"},
}
Row = dict[str, Any]
Written = Callable[..., tuple[str, str]]


class Page(html.parser.HTMLParser):
    """What a browser would make of the page: its elements, their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes.update(name for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def written(rows: list[Row], told: dict[str, Any] | None = None, about: dict[str, Any] | None = None, **options: Any) -> tuple[str, str]:
        """The texts of report.md and report.html."""
        run = tmp_path / "run"
        run.mkdir(exist_ok=True)
        write_manifest(run / "predictions.jsonl", rows)
        if about is not None:
            (run / "run.json").write_text(json.dumps(about))
        (run / "metrics.json").write_text(json.dumps(TOLD if told is None else told))
        score_again(run, **options)
        markdown, page = write_reports(run)
        assert (markdown.name, page.name) == ("report.md", "report.html")
        return markdown.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")

    return written


def corpus(n: int, seed: int = 0) -> list[Row]:
    rng = random.Random(seed)
    words = [f"word{i}" for i in range(200)]
    rows = []
    for i in range(n):
        reference = [rng.choice(words) for _ in range(rng.randint(2, 20))]
        hypothesis = [word if rng.random() > 0.1 else rng.choice(words) for word in reference]
        rows.append(
            {
                "id": f"clip {i}",
                "reference": " ".join(reference),
                "hypothesis": " ".join(hypothesis),
                "speaker": f"speaker {i % 30}",
                "source": "books",
                "duration_s": len(reference) / 2,
                "decode_s": 0.1,
                "snr_db": rng.uniform(-5, 30),
                "token_logprobs": [-rng.random() for _ in reference],
                "reference_nats": 1.0,
                "reference_tokens": len(reference),
            }
        )
    return rows


def test_both_reports_say_the_same_numbers(written: Written) -> None:
    rows = [*corpus(60), {"id": "bad", "reference": "x", "hypothesis": "", "error": "bad.wav: no such file"}]
    markdown, page = written(rows, about=RUN)
    metrics_rate = re.search(r"\| ([\d.]+ %) \|", markdown)
    assert metrics_rate
    shown = Page(page).text
    for text in (markdown, shown):
        for part in (
            metrics_rate[1],
            "whisper-english",
            "substitutions",
            "speaker 7",
            "books",
            "20+",
            "bad.wav: no such file",
            "Confidence against correctness",
            "2.13.0",
            "1 failed",
            "leakage not checked",
            "not a clean test: 3 of these clips",
            "nats a token",
            "Commonest errors",
            "The worst clips",
            "abc123",
        ):
            assert part in text, part
    # Beside the number stand its interval and what spoils it, before all else.
    head = shown[: shown.index("Normalisers side by side")]
    assert head.index("95 %:") < head.index("leakage not checked") < head.index("not a clean test") < head.index("substitutions")
    assert page.count("<svg") == 2


def test_the_command_repeats_the_run(written: Written, tmp_path: Path) -> None:
    markdown, _ = written(corpus(5), about=RUN, normaliser="none")
    command = shlex.split(markdown[markdown.index("audiograft evaluate") :].split("\n```")[0])
    pairs = dict(zip(command[2::2], command[3::2], strict=True))
    assert pairs == {
        "--model": "runs/mine",
        "--data": "/data/test set/manifest.jsonl",
        "--out": str(tmp_path / "run"),
        "--normaliser": "none",
        "--batch-size": "8",
        "--prompt": "Write it; don't ask.",
        "--audio": "true",
    }


def test_the_command_has_what_was_measured_beside_the_headline(written: Written, tmp_path: Path) -> None:
    write_manifest(tmp_path / "other.jsonl", corpus(5))
    markdown, _ = written(corpus(5), about=RUN | {"language": "de"}, baseline=tmp_path / "other.jsonl", slice_by=["snr_db"], terms=["word1"])
    command = shlex.split(markdown[markdown.index("audiograft evaluate") :].split("\n```")[0])
    assert command[-6:] == ["--language", "de", "--baseline", str(tmp_path / "other.jsonl"), "--slice-by", "snr_db"]
    assert "Recall is of 1 term:" in markdown


def test_a_run_with_terms_says_that_the_command_needs_them(written: Written) -> None:
    markdown, _ = written(corpus(5), about=RUN | {"context": ["Xeno", "Zeno"]})
    assert "The prompts held 2 terms:" in markdown
    assert "The prompts held" not in written(corpus(5), about=RUN)[0]


def test_words_over_empty_references_are_told_apart(written: Written) -> None:
    said = [
        {"id": "silence", "reference": "", "hypothesis": "thank you"},
        {"id": "noise", "reference": "[noise]", "hypothesis": "so"},
        {"id": "speech", "reference": "go on now", "hypothesis": "go off now", "speaker": "ann"},
    ]
    markdown, page = written(said, normaliser="whisper-english")
    for text in (markdown, Page(page).text):
        for part in (
            "nothing was said; 2 words written",
            "the reference is empty once normalised; 1 word written",
            "2 empty references (1 normalised to nothing): of 4 errors in the WER, 3 are words written there",
            "3 of 4 errors",
            "1 error in 3 words",
            "With errors: 3 of 3 clips; here all of these",
            "2 rows without speaker",
            "3 rows without token probabilities",
        ):
            assert part in text, part
        assert "WER -" not in text
    assert re.search(r"^> .*\n\n\*\*", markdown, re.MULTILINE)  # else the next clip would be a part of the quotation
    assert "over empty references" not in written(said[2:])[0]


def test_the_settings_leave_out_what_says_nothing(written: Written) -> None:
    table = written(corpus(2), about=RUN | {"language": None, "commit": None})[0].split("## How it was made")[1]
    assert "| commit | not known: audiograft was not in a git checkout |" in table
    assert not re.search("null|language|context", table)
    assert "| context | Xeno, Zeno |" in written(corpus(2), about=RUN | {"context": ["Xeno", "Zeno"]})[0]


def test_the_page_needs_nothing_and_runs_nothing(written: Written) -> None:
    _, text = written(corpus(60), about=RUN)
    page = Page(text)
    assert page.open == []
    assert not page.elements.keys() & {"script", "link", "img", "iframe", "object", "base", "form"}
    assert not page.attributes.keys() & {"src", "srcset", "onclick", "onload", "background"}
    assert not re.search(r"url\((?!#)", text)
    assert "default-src 'none'" in text
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("task", ["transcript", "answer"])
def test_what_a_corpus_holds_is_text_and_nothing_else(written: Written, task: str) -> None:
    def rows(texts: tuple[str, ...]) -> list[Row]:
        return [
            {
                "id": f"{i} {text}",
                "task": task,
                "reference": f"said {text}",
                "hypothesis": f"{text} written",
                "speaker": text,
                "source": text,
                "language": text,
                "prompt": text,
                "question": text,
                "audio": text,
                "accent": text,
                **({"error": text} if i % 7 == 6 else {}),
            }
            for i, text in enumerate(texts)
        ]

    plain = tuple(f"plain {i}" for i in range(len(HOSTILE)))
    _, harmless = written(rows(plain), about=RUN, slice_by=["accent"])
    markdown, hostile = written(rows(HOSTILE), about=RUN | {"model": HOSTILE[0], "prompt": HOSTILE[1], "commit": HOSTILE[2]}, slice_by=["accent"])
    expected, found = Page(harmless), Page(hostile)
    assert found.open == []
    assert found.elements["script"] == found.elements["img"] == 0
    # Longer cells may have a class of their own; beyond that hostile text makes neither elements nor attributes.
    assert found.elements.keys() == expected.elements.keys()
    assert found.attributes.keys() == expected.attributes.keys()
    assert '<script>alert("x")</script>' in found.text
    assert "\u202e" not in hostile
    markdown, code, _ = markdown.split("```")  # in which nothing but a line of its own means anything
    assert len(code.strip().splitlines()) == 1
    assert "<script" not in markdown
    assert "<img" not in markdown
    assert not re.search(r"(?<!\\)\]\(", markdown)
    assert "https://evil" not in markdown
    assert not re.search(r"(?<!\\)\$", markdown)
    assert "\u202e" not in markdown


@given(st.text())
@example("a\n\n# heading\n- list")
@example("HTTPS://evil.example")
@example("\\| \\\\")
def test_no_text_is_more_than_a_cell_of_a_markdown_table(text: str) -> None:
    cell = str(_plain(text))
    assert "\n" not in cell
    assert not re.search(r"[<>@]", cell)
    assert not re.search(r"(?i)https?:|www\.", cell)
    # Each sign that means something has an odd number of backslashes before it.
    assert not re.search(r"(?<!\\)(?:\\\\)*[|`*_\[\]~$]", cell)


def test_differences_can_be_read_without_colour(written: Written) -> None:
    markdown, page = written([{"id": "1", "reference": "Go on now, please", "hypothesis": "go off now my dear"}])
    assert "<del>on</del>" in page
    assert "<ins>off</ins>" in page
    assert re.search(r"del \{[^}]*line-through", page)
    assert re.search(r"ins \{[^}]*underline", page)
    assert "<del>on</del><ins>off</ins> now" in markdown.replace("*now,*", "now").replace("*now*", "now")


def test_long_clips_and_long_names_are_cut(written: Written) -> None:
    long = " ".join(f"w{i} x" for i in range(1_000))
    _, page = written([{"id": "long" * 1000, "speaker": "s" * 10_000, "reference": long, "hypothesis": long.replace("x", "y"), "error": None}] * 1)
    assert len(page) < 100_000
    assert "(said: 1850 more words; written: 1850 more words)" in page


@pytest.mark.slow
def test_ten_thousand_clips_stay_below_a_megabyte(written: Written) -> None:
    rows = [row | {"speaker": f"speaker number {i}"} for i, row in enumerate(corpus(10_000))]
    markdown, page = written(rows)
    assert len(page.encode()) < 500_000
    assert len(markdown.encode()) < 200_000
    assert "9,960 more are in metrics.json" in page


def test_answers_alone_have_a_report(written: Written) -> None:
    rows = [
        {"id": f"{i}", "task": "answer", "prompt": "Who?", "reference": "ann", "hypothesis": "ann" if i % 3 else "bob", "token_logprobs": [-0.1 * i]}
        for i in range(12)
    ]
    markdown, page = written(rows)
    assert "right answers" in Page(page).text
    for part in ("| right answers |", "66.67 %", "4 wrong answers", "exact match"):
        assert part in markdown
    assert "WER clip by clip" not in markdown


def test_without_a_run_the_report_says_what_is_not_known(written: Written) -> None:
    markdown, page = written([{"id": "1", "reference": "", "hypothesis": ""}], told={})
    for text in (markdown, Page(page).text):
        assert "leakage not checked: these predictions come without a run" in text
        assert "a model that is not named" in text
    assert "audiograft evaluate" not in markdown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "no such file: audiograft report"),
        ("{", "can't be read"),
        ("[]", "holds no JSON object"),
        ("{}", r"is not as this version writes it \(KeyError"),
    ],
)
def test_metrics_that_cant_be_used_are_named(tmp_path: Path, text: str | None, expected: str) -> None:
    write_manifest(tmp_path / "predictions.jsonl", corpus(2))
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(DataError, match=rf"metrics\.json: {expected}"):
        write_reports(tmp_path)
