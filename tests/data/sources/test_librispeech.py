from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
import soundfile
from builders import tone
from file_server import serving

from audiograft.audio import load_audio
from audiograft.data.download import Download
from audiograft.data.sources import find_source, librispeech
from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.librispeech import LibriSpeech
from audiograft.types import ConfigError, DataError, Rejection

SPEAKERS = """; The speakers
;ID  |SEX| SUBSET           |MINUTES| NAME
84   | F | dev-clean        |  8.05 | Christie Nowak
60   | M | dev-clean        | 20.18 | |CBW|Simon
1272 | M | dev-clean        |  8.00 | A Reader
"""
CHAPTERS = """;ID    |READER|MINUTES| SUBSET           | PROJ.|BOOK ID| CH. TITLE | PROJECT TITLE
121123 | 84   | 4.00  | dev-clean        | 3000 | 1184  | One | The Count
121550 | 84   | 4.05  | dev-clean        | 3001 | 1184  | Two | The Count
135766 | 1272 | 3.00  | dev-clean        | 4000 |       | One | Of no book | or several
"""


def write_chapter(root: Path, subset: str, speaker: int, chapter: int, texts: list[str]) -> Path:
    folder = root / subset / str(speaker) / str(chapter)
    folder.mkdir(parents=True)
    names = [f"{speaker}-{chapter}-{number:04d}" for number in range(len(texts))]
    for number, name in enumerate(names):
        soundfile.write(folder / f"{name}.flac", tone(0.1, seed=number), 16_000)
    (folder / f"{speaker}-{chapter}.trans.txt").write_text("".join(f"{name} {text}\n" for name, text in zip(names, texts, strict=True)))
    return folder


def unpacked(folder: Path) -> Path:
    root = folder / "LibriSpeech"
    write_chapter(root, "dev-clean", 1272, 135766, ["HE HOPED", "THERE WOULD BE STEW"])
    write_chapter(root, "dev-clean", 84, 121550, ["TWO"])
    write_chapter(root, "dev-clean", 84, 121123, ["ONE"])
    write_chapter(root, "test-other", 60, 5, ["I'M OF ANOTHER SET"])
    (root / "SPEAKERS.TXT").write_text(SPEAKERS)
    (root / "CHAPTERS.TXT").write_text(CHAPTERS)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return unpacked(tmp_path)


def read(source: LibriSpeech) -> tuple[list[SourceRow], list[Rejection]]:
    rows = list(source.rows())
    return [row for row in rows if isinstance(row, SourceRow)], [row for row in rows if isinstance(row, Rejection)]


@pytest.mark.parametrize("named", ["LibriSpeech", "."])
def test_an_unpacked_folder(root, named):
    rows, rejected = read(LibriSpeech(root.parent / named))

    assert find_source("librispeech") is LibriSpeech
    assert rejected == []
    assert [row.sample.id for row in rows] == ["84-121123-0000", "84-121550-0000", "1272-135766-0000", "1272-135766-0001", "60-5-0000"]
    sample = rows[3].sample
    assert (sample.text, sample.speaker, sample.language, sample.source) == ("THERE WOULD BE STEW", "1272", "en", "librispeech")
    assert sample.extra == {"subset": "dev-clean", "chapter": "135766", "sex": "M"}
    assert load_audio(sample.audio).duration_s == pytest.approx(0.1)


def test_chapters_of_one_reading_are_one_recording(root):
    recordings = {row.sample.id: row.sample.recording for row in read(LibriSpeech(root))[0]}

    assert recordings["84-121123-0000"] == recordings["84-121550-0000"] == "84-book-1184"
    assert recordings["1272-135766-0000"] == "1272-book-project-4000"
    assert recordings["60-5-0000"] == "60"  # a chapter that the table lacks


def test_without_the_table_of_chapters_the_speaker_is_the_recording(root, capsys):
    (root / "CHAPTERS.TXT").unlink()
    rows, _ = read(LibriSpeech(root))

    assert {row.sample.recording for row in rows} == {"84", "1272", "60"}
    assert "no CHAPTERS.TXT" in capsys.readouterr().err


def test_subsets_are_chosen(root):
    assert [row.sample.id for row in read(LibriSpeech(root, subsets=("test-other",)))[0]] == ["60-5-0000"]
    with pytest.raises(DataError, match=r"no folder train-clean-100: unpack train-clean-100.tar.gz there, or fetch it with --download$"):
        list(LibriSpeech(root, subsets=("train-clean-100",)).rows())
    with pytest.raises(ConfigError, match="no subset 'clean': it has dev-clean, "):
        LibriSpeech(root, subsets=("clean",))


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(DataError, match="none of LibriSpeech's folders"):
        list(LibriSpeech(tmp_path).rows())


@pytest.mark.parametrize("skip", [0, 1, 3, 5, 9])
def test_skip_gives_what_is_behind(root, skip):
    (root / "dev-clean" / "84" / "121550" / "84-121550-0000.flac").unlink()

    assert list(LibriSpeech(root).rows(skip)) == list(LibriSpeech(root).rows())[skip:]


def test_what_does_not_fit_together_is_named(root):
    folder = root / "dev-clean" / "1272" / "135766"
    with (folder / "1272-135766.trans.txt").open("ab") as file:
        file.write(b"1272-135766-0002 IT HAS NO CLIP\n\n1272-135766-0003\n1272-135766-0004 NA\xefVE\n../../84/121123/84-121123-0000 ELSEWHERE\n")
    for number in (3, 4, 5):
        soundfile.write(folder / f"1272-135766-{number:04d}.flac", tone(0.1), 16_000)
    (folder / "._1272-135766-0000.flac").write_bytes(b"of a Macintosh")
    rows, rejected = read(LibriSpeech(root, subsets=("dev-clean",)))

    assert len(rows) == 4
    assert [(row.id.split("/")[-1], row.kind) for row in rejected] == [
        ("1272-135766-0002", "missing"),
        ("1272-135766-0003", "text"),
        ("1272-135766.trans.txt:6", "text"),
        ("84-121123-0000", "missing"),
        ("1272-135766-0004", "text"),  # its line can't be read, so that it has none
        ("1272-135766-0005", "text"),
    ]
    assert "1272-135766.trans.txt:3: its clip" in rejected[0].reason
    assert "no line of 1272-135766.trans.txt has its text" in rejected[-1].reason


def test_a_chapter_without_transcript(root):
    (root / "dev-clean" / "84" / "121123" / "84-121123.trans.txt").unlink()
    rejected = read(LibriSpeech(root))[1]

    assert [(row.id, row.kind) for row in rejected] == [("84-121123-0000", "text")]


def test_download_fetches_and_unpacks_what_is_named(tmp_path, monkeypatch, capsys):
    unpacked(tmp_path / "publisher")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in ("dev-clean", "SPEAKERS.TXT", "CHAPTERS.TXT"):
            tar.add(tmp_path / "publisher" / "LibriSpeech" / name, f"LibriSpeech/{name}")
    content = archive.getvalue()
    with serving() as shop:
        shop.files["dev-clean.tar.gz"] = content
        published = Download(f"{shop.address}/dev-clean.tar.gz", "dev-clean.tar.gz", f"md5:{hashlib.md5(content).hexdigest()}")
        monkeypatch.setitem(librispeech.ARCHIVES, "dev-clean", published)
        source = LibriSpeech(tmp_path / "here", subsets=("dev-clean",), download=True)
        rows, rejected = read(source)
        again = read(LibriSpeech(tmp_path / "here" / "LibriSpeech", subsets=("dev-clean",), download=True))[0]

    assert (len(rows), rejected, len(shop.requests)) == (4, [], 1)
    assert again == rows
    assert load_audio(rows[0].sample.audio).duration_s == pytest.approx(0.1)


def test_download_needs_to_know_what(tmp_path):
    with pytest.raises(ConfigError, match="name what to download with --subsets"):
        LibriSpeech(tmp_path, download=True)


def test_every_archive_has_an_address_and_a_checksum():
    assert librispeech.ARCHIVES["test-clean"] == Download(
        "https://www.openslr.org/resources/12/test-clean.tar.gz", "test-clean.tar.gz", "md5:32fa31d27d2e1cad72775fff3f4849a6"
    )
    assert len({archive.checksum for archive in librispeech.ARCHIVES.values()}) == 7
