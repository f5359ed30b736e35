"""Each output format, character for character."""

from __future__ import annotations

import json
import math

import pytest

from audiograft.inference.writers import FORMATS, extension, render
from audiograft.types import ConfigError, Segment, Transcript

LONG = Transcript(
    audio="talks/a.wav",
    text="grüße & <b> more",
    duration_s=3725.5,
    model="tiny",
    segments=(Segment(0.0, 29.9996, "grüße &"), Segment(29.9996, 60.0, "  "), Segment(3600.0, 3725.5, "<b>\n\nmore")),
)
SHORT = Transcript(
    "b.wav", "hello", 1.0, "tiny", (Segment(0.0, 1.0, "hello"),), ("hel", "lo", "</s>"), (math.log(0.25), math.log(0.5), 0.0), decode_s=0.1
)
SILENT = Transcript(audio="c.wav", text="", duration_s=2.0, model="tiny")


def test_text_of_one_clip_is_the_text_alone() -> None:
    assert render([SHORT], "text") == "hello\n"


def test_text_of_several_clips_names_each() -> None:
    assert render([SHORT, LONG, SILENT], "text") == "b.wav: hello\ntalks/a.wav: grüße & <b> more\nc.wav: \n"


def test_jsonl_is_one_object_a_line_with_exactly_these_keys() -> None:
    rows = [json.loads(line) for line in render([LONG, SHORT, SILENT], "jsonl").splitlines()]
    assert all(list(row) == ["audio", "text", "duration_s", "model", "segments", "confidence"] for row in rows)
    assert rows[0]["segments"][2] == {"start_s": 3600.0, "end_s": 3725.5, "text": "<b>\n\nmore"}
    assert rows[1] == {
        "audio": "b.wav",
        "text": "hello",
        "duration_s": 1.0,
        "model": "tiny",
        "segments": [{"start_s": 0.0, "end_s": 1.0, "text": "hello"}],
        "confidence": 0.5,
    }
    assert rows[2]["segments"] == []
    assert rows[2]["confidence"] is None


def test_json_is_an_indented_list_of_the_same_objects() -> None:
    rendered = render([LONG, SHORT], "json")
    assert rendered.startswith('[\n  {\n    "audio": "talks/a.wav",\n')
    assert json.loads(rendered) == [json.loads(line) for line in render([LONG, SHORT], "jsonl").splitlines()]


@pytest.mark.parametrize("fmt", FORMATS)
def test_letters_beyond_ascii_stay_readable_and_lines_are_ended(fmt: str) -> None:
    assert "grüße" in render([LONG], fmt)
    assert render([LONG], fmt).endswith("\n")


def test_srt() -> None:
    assert render([LONG], "srt") == "1\n00:00:00,000 --> 00:00:30,000\ngrüße &\n\n2\n01:00:00,000 --> 01:02:05,500\n<b> more\n"


def test_vtt_escapes_what_would_be_markup() -> None:
    assert render([LONG], "vtt") == ("WEBVTT\n\n00:00:00.000 --> 00:00:30.000\ngrüße &amp;\n\n01:00:00.000 --> 01:02:05.500\n&lt;b&gt; more\n")


def test_a_clip_in_which_nothing_was_heard() -> None:
    assert {fmt: render([SILENT], fmt) for fmt in ("text", "srt", "vtt")} == {"text": "\n", "srt": "", "vtt": "WEBVTT\n"}


@pytest.mark.parametrize("fmt", ["text", "json", "jsonl"])
def test_a_file_name_that_is_no_utf8_can_be_written(fmt: str) -> None:
    odd = Transcript(audio="caf\udce9.wav", text="hello", duration_s=1.0, model="tiny")
    written = render([odd, SHORT], fmt).encode("utf-8")
    if fmt == "jsonl":
        assert json.loads(written.splitlines()[0])["audio"] == "caf\udce9.wav"


def test_extensions() -> None:
    assert [extension(fmt) for fmt in FORMATS] == [".txt", ".json", ".jsonl", ".srt", ".vtt"]


def test_an_unknown_format_is_named_with_the_known_ones() -> None:
    for call in (lambda: render([SHORT], "docx"), lambda: extension("docx")):
        with pytest.raises(ConfigError, match=r"'docx': use text, json, jsonl, srt, vtt"):
            call()
