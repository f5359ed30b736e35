"""MUSAN as it is published: three parts, folders of long recordings in them, and ANNOTATIONS that say who sings."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from file_server import serving

from audiograft.data import download
from audiograft.data.sources import musan as module
from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.musan import Musan
from audiograft.types import ConfigError, DataError, Rejection

ANNOTATIONS = {
    "music/fma": "music-fma-0000 classical,baroque N Somebody\nmusic-fma-0001 blues Y Cullah\n",
    "speech/librivox": "speech-librivox-0000 f german\n",
    "speech/us-gov": "",
}
LENGTHS_S = {
    "music/fma/music-fma-0000": 2.0,
    "music/fma/music-fma-0001": 1.0,
    "speech/librivox/speech-librivox-0000": 1.2,
    "speech/us-gov/speech-us-gov-0000": 0.3,
    "noise/free-sound/noise-free-sound-0000": 1.0,
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "musan"
    for name, length_s in LENGTHS_S.items():
        path = root / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.random.default_rng(0).standard_normal(round(length_s * 16_000)) * 0.1, 16_000)
        (path.parent / "LICENSE").write_text("public domain\n", encoding="utf-8")
    for folder, text in ANNOTATIONS.items():
        (root / folder / "ANNOTATIONS").write_text(text, encoding="utf-8")
    (root / "README").write_text("A Music, Speech, and Noise Corpus\n", encoding="utf-8")
    return root


def test_labels_and_what_is_known(corpus: Path) -> None:
    rows = list(Musan(corpus).rows())
    assert [(row.sample.id, row.sample.label) for row in rows] == [
        ("music-fma-0000", "NONSPEECH"),
        ("music-fma-0001", "VOCALS"),
        ("speech-librivox-0000", "SPEECH"),
        ("speech-us-gov-0000", "SPEECH"),
        ("noise-free-sound-0000", "NONSPEECH"),
    ]
    assert all(row.sample.recording == row.sample.id and row.sample.source == "musan" and row.span is None for row in rows)
    assert all(Path(row.sample.audio).is_file() for row in rows)
    assert rows[0].sample.extra == {"part": "music", "collection": "fma", "genres": ["classical", "baroque"], "artist": "Somebody"}
    assert (rows[2].sample.language, rows[2].sample.extra["gender"]) == ("de", "female")
    assert (rows[3].sample.language, rows[3].sample.extra) == (None, {"part": "speech", "collection": "us-gov"})
    assert list(Musan(corpus.parent).rows()) == rows


def test_one_part(corpus: Path) -> None:
    assert [row.sample.extra["part"] for row in Musan(corpus, part="noise").rows()] == ["noise"]


def test_music_with_vocals_is_left_out_where_asked(corpus: Path) -> None:
    assert [row.sample.id for row in Musan(corpus, part="music", no_vocals=True).rows()] == ["music-fma-0000"]


def test_music_of_which_nothing_is_known_is_not_taken_for_music_without_vocals(corpus: Path) -> None:
    (corpus / "music/fma/ANNOTATIONS").write_text("music-fma-0000 classical N Somebody\nmusic-fma-0001 blues\n", encoding="utf-8")
    rows = list(Musan(corpus, part="music", no_vocals=True).rows())
    assert isinstance(rows[1], Rejection)
    assert (rows[1].id, rows[1].kind) == ("music-fma-0001", "row")
    assert "does not say Y or N for vocals of music-fma-0001: add it" in rows[1].reason
    assert [row.sample.label for row in Musan(corpus, part="music").rows()] == ["NONSPEECH", None]


def test_long_files_are_cut_and_stay_one_recording(corpus: Path) -> None:
    rows = list(Musan(corpus, clip_s=0.5).rows())
    cut = [row for row in rows if isinstance(row, SourceRow)]
    assert [row.span for row in cut[:4]] == [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 2.0)]
    assert {row.sample.recording for row in cut[:4]} == {"music-fma-0000"}
    assert len({row.sample.id for row in cut}) == len(cut) == 4 + 2 + 2 + 2
    rejected = [row for row in rows if isinstance(row, Rejection)]
    assert [(row.id, row.kind) for row in rejected] == [("speech-us-gov-0000", "duration")]
    assert "lasts 0.30 s, too short for 0.5 s: lower --clip-s" in rejected[0].reason


def test_a_file_that_is_no_audio_is_named(corpus: Path) -> None:
    (corpus / "noise/free-sound/noise-free-sound-0000.wav").write_bytes(b"")
    rows = list(Musan(corpus, part="noise", clip_s=0.5).rows())
    assert [row.kind for row in rows] == ["unreadable"]


def test_skipping_gives_what_follows(corpus: Path) -> None:
    source = Musan(corpus, clip_s=0.5)
    rows = list(source.rows())
    for skip in range(len(rows) + 2):
        assert list(source.rows(skip)) == rows[skip:]


def test_folders_that_do_not_fit_are_one_line(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the folders music, speech, noise in it: correct the path, or fetch the corpus with --download"):
        list(Musan(tmp_path / "none").rows())
    with pytest.raises(ConfigError, match="musan: clip_s must be above 0"):
        Musan(corpus, clip_s=-1.0)
    for name in ("free-sound/noise-free-sound-0000.wav", "free-sound/LICENSE"):
        (corpus / "noise" / name).unlink()
    (corpus / "noise/free-sound").rmdir()
    with pytest.raises(DataError, match=r"noise: no folders with recordings in it"):
        list(Musan(corpus).rows())


def test_download_checks_resumes_and_unpacks(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(corpus, "musan")
    monkeypatch.setattr(download, "_FIRST_WAIT_S", 0.001)
    with serving() as server:
        server.files["musan.tar.gz"] = packed.getvalue()
        server.cut_after = [1000]
        with pytest.raises(DataError, match=r"musan\.tar\.gz\.wrong: is md5:\w+, but md5:0c472d4fc0c5141eca47ad1ffeb2a7df was published"):
            list(Musan(tmp_path / "new", download=True, mirror=server.address).rows())
        monkeypatch.setattr(module, "ARCHIVE", download.Download(module.ARCHIVE.address, module.ARCHIVE.file_name))
        server.cut_after = [1000]
        assert len(list(Musan(tmp_path / "new", download=True, mirror=server.address).rows())) == 5
        assert [asked for _, asked in server.requests] == ["", "bytes=1000-"] * 2
