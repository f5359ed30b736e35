"""The source `csv`: columns, delimiters, encodings, and lines that don't fit."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.csv_file import CsvFile
from audiograft.types import ConfigError, DataError, Rejection, Sample


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "train.csv"


def read(path: Path, content: str | bytes, **options: Any) -> list[SourceRow | Rejection]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = list(CsvFile(path, **options).rows())
    for skip in range(len(rows)):
        assert list(CsvFile(path, **options).rows(skip)) == rows[skip:]
    return rows


def samples(rows: list[SourceRow | Rejection]) -> list[Sample]:
    assert all(isinstance(row, SourceRow) for row in rows), rows
    return [row.sample for row in rows if isinstance(row, SourceRow)]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_known_columns_are_found_and_the_rest_kept(path: Path, delimiter: str) -> None:
    lines = ["ID,duration,wav,spk_id,wrd,sex", "u1,1.5,clips/a.wav,1089,hello there,F", "u2,,clips/b.wav,,bye,"]
    first, second = samples(read(path, "\n".join(lines).replace(",", delimiter)))
    assert first == Sample(
        id="u1",
        clips=(str(path.parent / "clips/a.wav"),),
        text="hello there",
        speaker="1089",
        duration_s=1.5,
        extra={"sex": "F"},
    )
    assert (second.speaker, second.duration_s, second.extra) == (None, None, {})


def test_layouts_of_common_tables_are_read(path: Path) -> None:
    deep_speech = samples(read(path, "\ufeffwav_filename,wav_filesize,transcript\r\na.wav,320,one\r\n"))
    assert (deep_speech[0].id, deep_speech[0].text, deep_speech[0].extra) == ("a.wav", "one", {"wav_filesize": "320"})
    common_voice = samples(read(path, "client_id\tpath\tsentence\tlocale\nx1\ta.mp3\tHello, you.\ten\n", audio_root=path.parent / "clips"))
    assert common_voice[0].clips == (str(path.parent / "clips" / "a.mp3"),)
    assert (common_voice[0].speaker, common_voice[0].text, common_voice[0].language) == ("x1", "Hello, you.", "en")


def test_columns_can_be_named(path: Path) -> None:
    (row,) = samples(read(path, "sound,raw,text,wer\na.wav,hello,HELLO,12.5\n", keys=("sound=audio", "raw=text", "wer=wer_percent")))
    assert (row.audio, row.text, row.extra) == (str(path.parent / "a.wav"), "hello", {"original_text": "HELLO", "wer_percent": 12.5})


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("sound,said\na,b\n", {}, "none of the columns 'sound', 'said' is known to name clips: say which does, as --keys COLUMN=audio"),
        ("audio,said\na,b\n", {}, "none of the columns 'audio', 'said' is known to hold transcripts: say which does, as --keys COLUMN=text"),
        ("audio,text\na,b\n", {"keys": ("sound=audio",)}, "no column is called 'sound': name one of 'audio', 'text'"),
        ("audio,text,text\na,b,c\n", {}, "no header: its first line must name the columns, each once"),
        ("audio,text\n", {}, "no rows behind the header"),
        ("\n", {}, "no header"),
        ("", {}, "no header"),
        ("audio,text\na,b\n".encode("utf-16"), {}, "its text is UTF-16: add --encoding utf-16"),
        ("audio,text\na,b\n".encode("utf-16-le"), {}, "its text is UTF-16-LE: add --encoding utf-16-le"),
        (b"\xfe\xff\0a\x01", {"encoding": "utf-16"}, "not utf-16 text: name its encoding with --encoding"),
    ],
)
def test_a_table_that_can_not_be_read_says_why(path: Path, content: str | bytes, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as error:
        read(path, content, **options)
    assert str(error.value).startswith(str(path))
    assert expected in str(error.value)


@pytest.mark.parametrize(("options", "expected"), [({"encoding": "utf8000"}, "unknown: give one such"), ({"delimiter": "::"}, "give one character")])
def test_options_that_make_no_sense_are_refused(path: Path, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        read(path, "audio,text\na,b\n", **options)


def test_spaces_around_cells_are_none_of_theirs(path: Path) -> None:
    (row,) = samples(read(path, "path, text, speaker, mood\na.wav, hello you , Bob , glad\n"))
    assert (row.id, row.text, row.speaker, row.extra) == ("a.wav", "hello you", "Bob", {"mood": "glad"})


@pytest.mark.parametrize("header", ["start,end", "Start_s,end_s", "offset,duration"])
def test_a_row_may_be_a_part_of_its_file(path: Path, header: str) -> None:
    last = "1.0" if header.startswith("offset") else "1.5"
    first, whole, wrong = read(path, f"path,text,{header}\na.wav,one,0.5,{last}\na.wav,two,,\nb.wav,three,soon,9\n")
    assert isinstance(first, SourceRow)
    assert (first.span, first.sample.id, first.sample.recording, first.sample.duration_s) == ((0.5, 1.5), "a.wav@0.5", "a.wav", 1.0)
    assert isinstance(whole, SourceRow)
    assert (whole.span, whole.sample.extra) == (None, {})
    assert isinstance(wrong, Rejection)
    assert f"{header.split(',')[0]} must be a number" in wrong.reason


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.csv: can't be read \(No such file"):
        list(CsvFile(path).rows())


def test_lines_that_do_not_fit_are_rejected_and_no_other(path: Path) -> None:
    content = (
        b"audio,text,duration\n"
        b"a.wav,hello,1\n"
        b"b.wav,one,two,1\n"
        b"c.wav\n"
        b"\n"
        b"caf\xe9.wav,x,1\n"
        b"d.wav,a\0b,1\n"
        b"../../etc/passwd,x,1\n"
        b"e.wav,x,long\n"
        b",x,1\n"
        b'"f,1.wav","said ""no""\nthen left",1\n'
        b"g.wav,,1\n"
    )
    rows = read(path, content)
    kinds = [row.kind if isinstance(row, Rejection) else row.sample.id for row in rows]
    assert kinds == ["a.wav", "row", "row", "text", "text", "outside", "row", "row", "f,1.wav", "g.wav"]
    lines = [int(row.reason.removeprefix(f"{path}:").split(":")[0]) for row in rows if isinstance(row, Rejection)]
    assert lines == [3, 4, 6, 7, 8, 9, 10]
    kept = [row.sample.text for row in rows if isinstance(row, SourceRow)]
    assert kept == ["hello", 'said "no"\nthen left', ""]


def test_a_stray_quotation_mark_costs_its_own_line(path: Path) -> None:
    rows = read(path, 'audio\ttext\na.wav\t"Never closed\nb.wav\ttwo\nc.wav\t"Yes" he said\nd.wav\tfour\n')
    assert [row.kind if isinstance(row, Rejection) else row.sample.text for row in rows] == ["row", "two", "row", "four"]
    assert isinstance(rows[2], Rejection)
    assert rows[2].reason == f"{path}:4: a quotation mark does not end its field: double it, or read with --plain-quotes"
    plain = samples(read(path, path.read_bytes(), plain_quotes=True))
    assert [row.text for row in plain] == ['"Never closed', "two", '"Yes" he said', "four"]


def test_other_encodings_are_read(path: Path) -> None:
    for encoding in ("latin-1", "utf-16", "cp1252"):
        (row,) = samples(read(path, "audio,text\na.wav,café\n".encode(encoding), encoding=encoding))
        assert row.text == "café"


def test_a_table_of_questions_needs_no_clips(path: Path) -> None:
    (row,) = samples(read(path, "prompt,response\nTwo and two?,Four.\n"))
    assert (row.clips, row.prompt, row.response) == ((), "Two and two?", "Four.")


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8), min_size=1, max_size=5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerows([("audio", "text"), *((f"{number}.wav", text) for number, text in enumerate(texts))])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    # Lone carriage returns end no line, but the csv module doesn't keep them inside a quoted field.
    found = read(path, written.getvalue().replace("\r", " "))
    assert [row.text for row in samples(found)] == [text.replace("\r", " ").strip() for text in texts]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=20).map(lambda line: line.replace(b"\n", b" ")), max_size=6))
def test_no_bytes_stop_the_reading(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.csv"
    rows = read(path, b"\n".join([b"audio,text", *lines, b"last.wav,here", b""]))
    assert 1 <= len(rows) <= 1 + len(lines)
    assert not any("\n" in row.reason for row in rows if isinstance(row, Rejection))
