"""ESC-50 as it is published: a table and 44.1 kHz clips; its takes stay together, and what counts as non-speech is declared."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from file_server import serving

from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.esc50 import CATEGORIES, NON_SPEECH, Esc50
from audiograft.types import ConfigError, DataError, Rejection

HEADER = "filename,fold,target,category,esc10,src_file,take\n"
LINES = (
    "1-100032-A-0.wav,1,0,dog,True,100032,A",
    "1-17367-A-10.wav,1,10,rain,True,17367,A",
    "1-17367-B-10.wav,1,10,rain,True,17367,B",
    "2-22-A-16.wav,2,16,wind,False,22,A",
    "3-33-A-20.wav,3,20,crying_baby,True,33,A",
)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "ESC-50-master"
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    (root / "meta/esc50.csv").write_text(HEADER + "\n".join(LINES) + "\n", encoding="utf-8")
    for line in LINES:
        noise = np.random.default_rng(len(line)).standard_normal(4410) * 0.1
        soundfile.write(root / "audio" / line.partition(",")[0], noise, 44_100)
    return root


def append(corpus: Path, *lines: str) -> None:
    with (corpus / "meta/esc50.csv").open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def test_rows_have_their_category_and_clip(corpus: Path) -> None:
    rows = list(Esc50(corpus).rows())
    assert [row.sample.label for row in rows] == ["dog", "rain", "rain", "wind", "crying_baby"]
    assert rows[0].sample.id == "1-100032-A-0"
    assert rows[0].sample.extra == {"category": "dog", "fold": 1}
    assert rows[0].sample.source == "esc50"
    assert all(Path(row.sample.audio).is_file() for row in rows)
    assert list(Esc50(corpus.parent).rows()) == rows


def test_takes_of_one_source_are_one_recording(corpus: Path) -> None:
    recordings = [row.sample.recording for row in Esc50(corpus).rows()]
    assert recordings[1] == recordings[2] == "freesound_17367"
    assert len(set(recordings)) == 4


def test_non_speech_leaves_out_voices(corpus: Path) -> None:
    rows = list(Esc50(corpus, non_speech=True).rows())
    assert [(row.sample.label, row.sample.extra["category"]) for row in rows] == [("NONSPEECH", name) for name in ("rain", "rain", "wind")]
    rows = list(Esc50(corpus, non_speech=True, classes=("dog",)).rows())
    assert [(row.sample.label, row.sample.extra["category"]) for row in rows] == [("NONSPEECH", "dog")]
    assert [row.sample.label for row in Esc50(corpus, classes=("dog", "wind")).rows()] == ["dog", "wind"]


def test_each_of_the_fifty_categories_is_declared() -> None:
    assert len(CATEGORIES) == 50
    assert len(NON_SPEECH) == 33
    for voice in ("crying_baby", "laughing", "coughing", "sneezing", "breathing", "snoring", "dog", "chirping_birds"):
        assert voice not in NON_SPEECH


def test_skipping_gives_what_follows(corpus: Path) -> None:
    append(corpus, "broken")
    for options in ({}, {"non_speech": True}):
        rows = list(Esc50(corpus, **options).rows())
        for skip in range(len(rows) + 2):
            assert list(Esc50(corpus, **options).rows(skip)) == rows[skip:]


@pytest.mark.parametrize(
    ("line", "kind", "why"),
    [
        ("../../../etc/passwd,1,0,rain,False,9,A", "outside", "leaves the folder"),
        ("/etc/passwd,1,0,rain,False,9,A", "outside", "leaves the folder"),
        ("9-9-A-0.wav,1,0,unicorn,False,9,A", "row", "'unicorn' is none of the 50 categories"),
        ("9-9-A-0.wav,one,0,rain,False,9,A", "row", "the fold 'one' is no number"),
        ("9-9-A-0.wav,1,0,rain,False,,A", "row", "no src_file"),
        ("9-9-A-0.wav", "row", "no fold and no category and no src_file"),
        (",1,0,rain,False,9,A", "row", "no filename"),
    ],
)
def test_a_line_that_can_not_be_used_is_named_and_costs_no_other(corpus: Path, line: str, kind: str, why: str) -> None:
    append(corpus, line, "4-44-A-10.wav,4,10,rain,True,44,A")
    for options in ({}, {"non_speech": True}):
        rows = list(Esc50(corpus, **options).rows())
        rejected = rows[-2]
        assert isinstance(rejected, Rejection)
        assert rejected.kind == kind
        assert rejected.reason.startswith(f"{corpus}/meta/esc50.csv:7: ")
        assert why in rejected.reason
        assert isinstance(rows[-1], SourceRow)


def test_folders_and_tables_that_do_not_fit_are_one_line(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no meta/esc50\.csv in it, nor in a folder ESC-50-master: correct the path, or fetch .* --download"):
        list(Esc50(tmp_path / "none").rows())
    (corpus / "meta/esc50.csv").write_text("filename,category\na.wav,rain\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"esc50\.csv: no column fold and no column src_file: take the file that is published"):
        list(Esc50(corpus).rows())


def test_a_category_that_does_not_exist_is_named_with_the_closest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'cryingbaby' is none of its categories: the closest is crying_baby"):
        Esc50(tmp_path, classes=("rain", "cryingbaby"))


def test_download(corpus: Path, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in corpus.rglob("*.*"):
            archive.write(path, path.relative_to(corpus.parent))
    with serving() as server:
        server.files["ESC-50-master.zip"] = packed.getvalue()
        source = Esc50(tmp_path / "new", download=True, mirror=server.address)
        assert len(list(source.rows())) == len(list(source.rows(2))) + 2 == 5
        assert len(server.requests) == 1
