"""The source `manifest`: rows of ours and of others, and what becomes of the lines that don't fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.manifests import Manifest
from audiograft.types import ConfigError, DataError, Rejection, Sample

GOOD = {"id": "a", "audio": "a.wav", "text": "hello"}


def write(path: Path, *lines: Any) -> Path:
    path.write_bytes(b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines))
    return path


def samples(source: Manifest) -> list[Sample]:
    rows = list(source.rows())
    assert all(isinstance(row, SourceRow) for row in rows), rows
    return [row.sample for row in rows if isinstance(row, SourceRow)]


def test_every_broken_line_is_named_and_no_other_lost(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.jsonl",
        GOOD,
        b"",
        b'{"audio": "b.wav", "text": ',
        b'{"audio": "caf\xe9.wav"}',
        [1],
        {"audio": "../../etc/passwd", "text": "root"},
        {"audio": "c.wav", "duration_s": "long"},
        {"id": "gone"},
        {**GOOD, "id": 7, "speaker": 12, "language": "en-US", "source": "ours"},
    )
    rows = list(Manifest(path).rows())
    assert rows[0] == SourceRow(Sample(id="a", clips=(str(tmp_path / "a.wav"),), text="hello"))
    rejected = [(row.id, row.audio, row.kind) for row in rows[1:-1] if isinstance(row, Rejection)]
    assert rejected == [
        (f"{path}:3", f"{path}:3", "row"),
        (f"{path}:4", f"{path}:4", "text"),
        (f"{path}:5", f"{path}:5", "row"),
        ("../../etc/passwd", "../../etc/passwd", "outside"),
        ("c.wav", "c.wav", "row"),
        ("gone", "gone", "row"),
    ]
    assert all(isinstance(row, Rejection) and row.reason.startswith(f"{path}:{line}: ") for line, row in zip(range(3, 9), rows[1:-1], strict=True))
    last = rows[-1]
    assert isinstance(last, SourceRow)
    assert (last.sample.id, last.sample.speaker, last.sample.language, last.sample.source) == ("7", "12", "en", "ours")
    for skip in range(10):
        assert list(Manifest(path).rows(skip)) == rows[skip:]


def test_clips_of_another_folder_need_its_name_or_the_switch(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    path = write(tmp_path / "manifests" / "a.jsonl", {"audio": str(tmp_path / "x" / "a.wav")})
    (refused,) = Manifest(path).rows()
    assert isinstance(refused, Rejection)
    assert "allow it with --allow-outside" in refused.reason
    assert refused.reason.endswith("or name the folder that it lies in with --audio-root")
    for source in (Manifest(path, audio_root=tmp_path / "x"), Manifest(path, allow_outside=True)):
        assert samples(source)[0].clips == (str(tmp_path / "x" / "a.wav"),)
    write(path, {"audio": "b.wav"}, {"audio": "../b.wav"})
    inside, outside = Manifest(path, audio_root=tmp_path / "x").rows()
    assert isinstance(inside, SourceRow)
    assert inside.sample.clips == (str(tmp_path / "x" / "b.wav"),)
    assert isinstance(outside, Rejection)
    assert outside.kind == "outside"


def test_keys_are_mapped_also_nested_ones(tmp_path: Path) -> None:
    rows = [
        {"clip": "a.wav", "meta": {"reader": {"id": 7}, "take": 2}, "text": "raw", "norm": "hello"},
        {"clip": "b.wav", "norm": "bye", "wer": 12.5},
    ]
    path = write(tmp_path / "manifest.jsonl", *rows)
    first, second = samples(Manifest(path, keys=("clip=audio", "norm=text", "meta.reader.id=speaker", "wer=wer_percent")))
    assert (first.text, first.speaker, first.clips) == ("hello", "7", (str(tmp_path / "a.wav"),))
    assert first.extra == {"meta": rows[0]["meta"], "original_text": "raw"}
    assert (second.text, second.speaker, second.extra) == ("bye", None, {"wer_percent": 12.5})


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (("transcript",), "--keys transcript: write theirs=ours"),
        (("=text",), "--keys =text: write theirs=ours"),
        (("a=txt",), "--keys a=txt: txt is none of our keys: the closest is text"),
        (("a=text", "b=text"), "--keys b=text: text is given twice"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(tmp_path: Path, keys: tuple[str, ...], expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        list(Manifest(write(tmp_path / "a.jsonl", GOOD), keys=keys).rows())
    assert str(error.value).startswith(expected)


def test_a_key_that_no_row_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl: no row has the key 'transcritp': name one of 'id', 'audio', 'text'"):
        list(Manifest(write(tmp_path / "a.jsonl", GOOD), keys=("transcritp=text",)).rows())


def test_several_clips_conversations_and_text_alone_are_kept(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hear <audio>"}, {"role": "assistant", "content": "Yes."}]
    path = write(
        tmp_path / "a.jsonl",
        {"audio": ["a.wav", "b.wav"], "prompt": "Same?", "response": "No."},
        {"audio": "a.wav", "messages": turns},
        {"prompt": "Two and two?", "response": "Four."},
    )
    several, turned, alone = samples(Manifest(path))
    assert [Path(clip).name for clip in several.clips] == ["a.wav", "b.wav"]
    assert (turned.messages, turned.response) == ((turns[0],), "Yes.")
    assert (alone.clips, alone.prompt, alone.response) == ((), "Two and two?", "Four.")


@pytest.mark.parametrize("times", [{"offset": 0.5, "duration": 1.0}, {"start_s": 0.5, "end_s": 1.5}, {"start": 0.5, "end": 1.5, "duration_s": 9.0}])
def test_a_row_may_be_a_part_of_its_file(tmp_path: Path, times: dict[str, float]) -> None:
    (row,) = Manifest(write(tmp_path / "a.jsonl", {"audio": "a.wav", "text": "quick brown"} | times)).rows()
    assert isinstance(row, SourceRow)
    assert (row.span, row.sample.id, row.sample.recording, row.sample.duration_s) == ((0.5, 1.5), "a.wav@0.5", "a.wav", 1.0)
    assert not row.sample.extra.keys() & {"start", "end", "offset", "start_s", "end_s"}


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"end": 1.5}, "end without start"),
        ({"start": 0.5}, "start without duration"),
        ({"start": "0:01", "end": 2}, "start must be 0 or more seconds"),
        ({"start": 2, "end": 2}, "the part from 2 s to 2 s holds nothing"),
        ({"audio": ["a.wav", "b.wav"], "start": 1, "end": 2}, "has several clips"),
    ],
)
def test_times_that_make_no_sense_are_never_the_whole_file(tmp_path: Path, times: dict[str, Any], expected: str) -> None:
    path = write(tmp_path / "a.jsonl", GOOD | times)
    (row,) = Manifest(path).rows()
    assert isinstance(row, Rejection)
    assert row.reason.startswith(f"{path}:1: ")
    assert expected in row.reason


def test_usual_names_are_found_where_ours_are_missing(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"wav": "a.wav", "transcript": "one"},
        {"audio": "b.wav", "sentence": "two", "spk_id": 7},
        {"audio": "c.wav", "text": "three", "path": "x/c.wav", "answer": "four"},
    )
    first, second, third = samples(Manifest(path))
    assert [(Path(row.clips[0]).name, row.text) for row in (first, second, third)] == [("a.wav", "one"), ("b.wav", "two"), ("c.wav", "three")]
    assert second.speaker == "7"
    assert (third.response, third.extra) == (None, {"path": "x/c.wav", "answer": "four"})


def test_an_address_is_never_fetched(tmp_path: Path) -> None:
    (row,) = Manifest(write(tmp_path / "a.jsonl", {"audio": "https://example.org/a.wav", "text": "x"})).rows()
    assert isinstance(row, Rejection)
    assert "https://example.org/a.wav is an address, and addresses are never fetched: download it first" in row.reason


def test_arrays_of_the_published_systems_are_read_and_go_on_behind_a_bad_row(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "<|audio_bos|><|AUDIO|><|audio_eos|>\nSay it."}, {"role": "assistant", "content": "HI"}]
    rows = [
        {"id": "t0", "audio": "a.wav", "ground_truth": "HI", "conversations": turns},
        {"audio": "b.wav", "conversations": turns[:1]},
        17,
        {"audio_paths": "c.wav", "text": "What is it? <audio>", "response": "A dog."},
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, indent=1))
    first, short, number, last = Manifest(path).rows()
    assert isinstance(first, SourceRow)
    assert (first.sample.text, first.sample.prompt) == ("HI", "<audio>\nSay it.")
    assert isinstance(short, Rejection)
    assert isinstance(number, Rejection)
    assert (short.audio, short.kind, number.kind) == ("b.wav", "row", "row")
    assert isinstance(last, SourceRow)
    assert (last.sample.response, last.sample.id) == ("A dog.", f"c.wav#{path.read_text().split(chr(10)).index(' {', 20) + 1}")


def test_an_array_that_breaks_gives_its_rows_first(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(f"[{json.dumps(GOOD)},\n{{]")
    rows = Manifest(path).rows()
    assert isinstance(next(rows), SourceRow)
    with pytest.raises(DataError, match=r"a\.json:2: not valid JSON"):
        next(rows)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OURS = ("id", "audio", "text", "prompt", "messages", "response", "speaker", "language", "duration_s", "conversations", "audio_paths", "ground_truth")
ROWS = st.dictionaries(st.sampled_from(OURS), JSON | st.sampled_from(["a.wav", "/etc/passwd", "<audio>"]), max_size=5)
LINES = st.one_of((ROWS | JSON).map(lambda value: json.dumps(value).encode()), st.binary(min_size=1, max_size=12))


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=6))
def test_every_line_is_a_row_or_a_rejection(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    lines = [line.replace(b"\n", b" ") for line in lines]
    path = write(tmp_path_factory.getbasetemp() / "any.jsonl", {}, *lines)
    n_lines = 1 + sum(bool(line.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n\v\f")) for line in lines)
    rows = list(Manifest(path).rows())
    assert len(rows) == n_lines
    for row in rows:
        if isinstance(row, Rejection):
            assert "\n" not in row.reason
            assert row.kind in ("row", "text", "outside")
        else:
            assert all(Path(clip).is_relative_to(path.parent) for clip in row.sample.clips)
