"""The source `kaldi`: data folders as Kaldi's recipes write them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.kaldi import Kaldi
from audiograft.types import DataError, Rejection, Sample


def folder(path: Path, **files: str | bytes) -> Path:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        file = path / name.replace("_", ".", 1) if name == "wav_scp" else path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, **options: Any) -> list[SourceRow | Rejection]:
    source = Kaldi(path, **options)
    rows = list(source.rows())
    for skip in range(len(rows) + 2):
        assert list(source.rows(skip)) == rows[skip:]
    return rows


def test_utterances_without_segments_are_whole_files(tmp_path: Path) -> None:
    data = folder(
        tmp_path / "train",
        wav_scp="utt1 wavs/a file.wav\nutt2 \t wavs/b.wav \r\n",
        text="utt2 bye   now\nutt1 hello\n",
        utt2spk="utt1 ann\nutt2 bob\n",
        utt2lang="utt1 English\nutt2 fr\n",
        spk2gender="ann f\n",
        utt2dur="utt1 2.5\n",
    )
    second, first = read(data)
    assert first == SourceRow(
        Sample(
            id="utt1",
            clips=(str(data / "wavs/a file.wav"),),
            text="hello",
            speaker="ann",
            language="en",
            duration_s=2.5,
            extra={"gender": "f"},
        )
    )
    assert isinstance(second, SourceRow)
    assert (second.sample.text, second.sample.clips, second.sample.language) == ("bye   now", (str(data / "wavs/b.wav"),), "fr")


def test_segments_are_spans_of_recordings(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    data = folder(
        tmp_path / "dev",
        wav_scp=f"rec1 {audio}/rec1.flac\nrec2 rec2.flac\n",
        text="u1 one\nu2 two\nu3 three\n",
        segments="u1 rec1 0.5 2.25\nu2 rec1 2.25 3\nu3 rec2 0 1\n",
        utt2spk="u1 ann\nu2 bob\nu3 ann\n",
    )
    rows = read(data, audio_root=audio)
    kept = [(row.sample.id, row.sample.audio, row.span, row.sample.recording, row.sample.duration_s) for row in rows if isinstance(row, SourceRow)]
    assert kept == [
        ("u1", str(audio / "rec1.flac"), (0.5, 2.25), "rec1", 1.75),
        ("u2", str(audio / "rec1.flac"), (2.25, 3.0), "rec1", 0.75),
        ("u3", str(audio / "rec2.flac"), (0.0, 1.0), "rec2", 1.0),
    ]


def test_what_can_not_be_used_is_named_and_commands_never_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    data = folder(
        tmp_path / "train",
        wav_scp=(
            f"piped touch {ran} |\nto-pipe | touch {ran}\nark /x/raw.ark:123\nbare\noutside ../../etc/passwd\nabsolute /etc/passwd\n"
            "good a.wav\ngood b.wav\nsilent c.wav\nlatin d.wav\nempty e.wav\n"
        ),
        text=b"piped x\nto-pipe x\nark x\nbare x\noutside x\nabsolute x\ngood yes\ngood again\nnobody x\nlatin caf\xe9\nempty\n",
    )
    rows = read(data)
    assert not ran.exists()
    assert [(row.id, row.kind) for row in rows if isinstance(row, Rejection)] == [
        ("good", "duplicate"),
        ("piped", "row"),
        ("to-pipe", "row"),
        ("ark", "row"),
        ("bare", "missing"),
        ("outside", "outside"),
        ("absolute", "outside"),
        ("good", "duplicate"),
        ("nobody", "missing"),
        ("latin", "text"),
        ("silent", "text"),
    ]
    reasons = {row.id: row.reason for row in rows if isinstance(row, Rejection)}
    assert reasons["piped"] == f"{data}/text:1: wav.scp has a command for piped, which is not run: run it yourself, and name the file that it writes"
    assert reasons["silent"] == f"{data}/wav.scp:9: silent has no transcript in {data}/text: add it"
    kept = [(row.sample.text, row.sample.audio) for row in rows if isinstance(row, SourceRow)]
    assert kept == [("yes", str(data / "a.wav")), ("", str(data / "e.wav"))]
    allowed = [row.sample.audio for row in Kaldi(data, allow_outside=True).rows() if isinstance(row, SourceRow)]
    assert allowed[:2] == [str(data / "../../etc/passwd"), "/etc/passwd"]


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        ("rec 1", "needs recording, start and end"),
        ("rec 1 x", "1 to x is no span"),
        ("rec 2 1", "2 to 1 is no span"),
        ("rec -1 1", "-1 to 1 is no span"),
        ("rec nan 1", "nan to 1 is no span"),
        ("rec 1 -1", "lasts to the end of rec: state its end"),
        ("rec 1 2 1", "takes one channel of rec"),
        ("other 1 2", "wav.scp names no file for other"),
    ],
)
def test_a_segment_that_makes_no_sense_is_rejected(tmp_path: Path, segment: str, expected: str) -> None:
    data = folder(tmp_path / "d", wav_scp="rec a.wav\n", text="u1 x\nu2 y\n", segments=f"u1 {segment}\nu2 rec 0 1\n")
    refused, good = read(data)
    assert isinstance(refused, Rejection)
    assert expected in refused.reason
    assert isinstance(good, SourceRow)


def test_utterances_in_segments_alone_are_rejected(tmp_path: Path) -> None:
    data = folder(tmp_path / "d", wav_scp="rec a.wav\n", text="u1 x\n", segments="u1 rec 0 1\nu2 rec 1 2\n")
    _, refused = read(data)
    assert isinstance(refused, Rejection)
    assert (refused.id, refused.kind) == ("u2", "text")


def test_a_path_that_is_no_utf_8_stays_what_it_is(tmp_path: Path) -> None:
    data = folder(tmp_path / "d", wav_scp=b"u1 caf\xe9.wav\n", text="u1 x\n")
    (row,) = read(data)
    assert isinstance(row, SourceRow)
    assert os.fsencode(row.sample.audio).endswith(b"/caf\xe9.wav")


@pytest.mark.parametrize("missing", ["wav.scp", "text"])
def test_another_folder_is_refused(tmp_path: Path, missing: str) -> None:
    folder(tmp_path, wav_scp="u a.wav\n", text="u x\n")
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=f"no Kaldi folder, since it has no {missing}"):
        list(Kaldi(tmp_path).rows())
