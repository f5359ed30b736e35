from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from builders import tone

from audiograft.audio import load_audio
from audiograft.data.sources import find_source
from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.common_voice import CommonVoice
from audiograft.types import DataError, Rejection

HEADER = "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\tsegment\n"


def line(number: int, sentence: str = "Hej.", path: str | None = None, locale: str = "sv-SE") -> str:
    clip = path or f"common_voice_{locale}_{number}.mp3"
    return f"ab{number}\t{clip}\tf{number}\t{sentence}\t\t2\t0\tthirties\tfemale_feminine\tGötamål\t\t{locale}\t\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "cv-corpus-21.0" / "sv-SE"
    (root / "clips").mkdir(parents=True)
    for number in range(4):
        soundfile.write(root / "clips" / f"common_voice_sv-SE_{number}.mp3", tone(1.5, seed=number), 48_000, format="MP3")
    (root / "train.tsv").write_text(HEADER + "".join(line(number) for number in range(3)))
    (root / "test.tsv").write_text(HEADER + line(3, 'Han sa "hej.'))
    (root / "clip_durations.tsv").write_text("clip\tduration[ms]\n")
    return root


def read(source: CommonVoice) -> tuple[list[SourceRow], list[Rejection]]:
    rows = list(source.rows())
    return [row for row in rows if isinstance(row, SourceRow)], [row for row in rows if isinstance(row, Rejection)]


def test_a_folder_of_one_language(folder):
    rows, rejected = read(CommonVoice(folder))

    assert find_source("common-voice") is CommonVoice
    assert rejected == []
    assert [row.sample.id for row in rows] == ["common_voice_sv-SE_0", "common_voice_sv-SE_1", "common_voice_sv-SE_2"]
    sample = rows[1].sample
    assert (sample.text, sample.speaker, sample.language, sample.source) == ("Hej.", "ab1", "sv", "common-voice")
    assert sample.extra == {
        "up_votes": 2,
        "down_votes": 0,
        "age": "thirties",
        "gender": "female_feminine",
        "accents": "Götamål",
        "sentence_id": "f1",
        "locale": "sv-SE",
    }
    assert load_audio(sample.audio).duration_s == pytest.approx(0.5, abs=0.1)


def test_a_quotation_mark_is_nothing_but_itself(folder):
    (folder / "test.tsv").write_text(HEADER + line(3, 'Han sa "hej.') + line(0, '"Nej"'))

    assert [row.sample.text for row in read(CommonVoice(folder, split="test"))[0]] == ['Han sa "hej.', '"Nej"']


def test_a_table_that_is_not_there(folder):
    with pytest.raises(DataError, match=r"dev.tsv: no such table: it has test, train$"):
        list(CommonVoice(folder, split="dev").rows())
    with pytest.raises(DataError, match="name the folder of one language"):
        list(CommonVoice(folder.parent).rows())


def test_a_table_of_something_else(folder):
    (folder / "train.tsv").write_text("path\ttext\n")

    with pytest.raises(DataError, match="train.tsv: no column client_id and no column sentence"):
        list(CommonVoice(folder).rows())


def test_broken_lines_are_named_by_number_and_nothing_else_is_lost(folder):
    lines = [
        HEADER,
        line(0),
        "ab\tonly_three.mp3\tfields\n",
        "\n",
        line(1, sentence=" "),
        line(1, path="../../../etc/passwd"),
        line(1, path="/etc/passwd"),
        line(2),
    ]
    broken = "".join(lines).encode() + line(3).encode("latin-1") + line(1).encode().rstrip(b"\n")
    (folder / "train.tsv").write_bytes(broken)
    rows, rejected = read(CommonVoice(folder))

    assert [row.sample.id[-1] for row in rows] == ["0", "2", "1"]
    assert [(row.kind, row.reason.partition(": ")[0].rpartition(":")[2]) for row in rejected] == [
        ("row", "3"),
        ("text", "5"),
        ("outside", "6"),
        ("outside", "7"),
        ("text", "9"),
    ]
    assert "allow-outside" not in rejected[2].reason  # which this source has not
    assert "has 3 fields, and 13 columns" in rejected[0].reason


@pytest.mark.parametrize("skip", [0, 1, 2, 3, 5])
def test_skip_gives_what_is_behind(folder, skip):
    with (folder / "train.tsv").open("a") as file:
        file.write("broken\n" + line(3))

    assert list(CommonVoice(folder).rows(skip)) == list(CommonVoice(folder).rows())[skip:]


def test_a_byte_order_mark_and_windows_line_ends(folder):
    (folder / "train.tsv").write_bytes(b"\xef\xbb\xbf" + (HEADER + line(0)).replace("\n", "\r\n").encode())
    sample = read(CommonVoice(folder))[0][0].sample

    assert (sample.speaker, sample.extra["locale"]) == ("ab0", "sv-SE")
