"""The source `lhotse`: cut sets and Shar folders that the library itself has written."""

from __future__ import annotations

import gzip
import importlib.util
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.audio import load_audio
from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.lhotse import Lhotse
from audiograft.types import ConfigError, DataError, Rejection, Sample

lhotse = pytest.importorskip("lhotse")
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment  # noqa: E402


@pytest.fixture
def meeting(tmp_path: Path) -> MonoCut:
    """A cut of a whole recording of 4 s, in which two people speak."""
    path = tmp_path / "audio" / "meeting.wav"
    path.parent.mkdir()
    soundfile.write(path, np.linspace(-0.5, 0.5, 64_000, dtype=np.float32), 16_000)
    cut = Recording.from_file(path, recording_id="meeting").to_cut()
    cut.supervisions = [
        SupervisionSegment("s2", "meeting", 2.5, 1.0, text="bye", speaker="bob", language="English"),
        SupervisionSegment("s1", "meeting", 0.5, 1.5, text="hello", speaker="ann", language="English", gender="F", custom={"take": 3, "text": "x"}),
    ]
    return cut


def write(path: Path, *cuts: Any) -> Path:
    CutSet.from_cuts(cuts).to_file(path)
    return path


def read(path: Path, **options: Any) -> list[SourceRow | Rejection]:
    rows = list(Lhotse(path, **options).rows())
    for skip in range(len(rows) + 2):
        assert list(Lhotse(path, **options).rows(skip)) == rows[skip:]
    return rows


def kept(rows: list[SourceRow | Rejection]) -> list[SourceRow]:
    assert all(isinstance(row, SourceRow) for row in rows), rows
    return [row for row in rows if isinstance(row, SourceRow)]


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_a_cut_is_a_row_with_all_that_is_said_in_it(tmp_path: Path, meeting: MonoCut, name: str) -> None:
    part = meeting.truncate(offset=2.0, duration=2.0, preserve_id=False).with_id("part")
    path = write(tmp_path / name, meeting, part)
    for named in (path, tmp_path):
        whole, half = kept(read(named, audio_root=tmp_path))
        assert whole == SourceRow(
            Sample(
                id="meeting",
                clips=(str(tmp_path / "audio" / "meeting.wav"),),
                text="hello bye",
                recording="meeting",
                language="en",
                duration_s=4.0,
                extra={"take": 3, "gender": "F"},
            )
        )
        assert (half.sample.text, half.sample.speaker, half.span, half.sample.duration_s) == ("bye", "bob", (2.0, 4.0), 2.0)


def test_a_supervision_is_a_row_with_its_span(tmp_path: Path, meeting: MonoCut) -> None:
    part = meeting.truncate(offset=1.0, duration=1.0, preserve_id=False)
    rows = kept(read(write(tmp_path / "cuts.jsonl", meeting, part), per="supervision"))
    found = [(row.sample.id, row.sample.text, row.sample.speaker, row.span, row.sample.duration_s, row.sample.recording) for row in rows]
    assert found == [
        ("s2", "bye", "bob", (2.5, 3.5), 1.0, "meeting"),
        ("s1", "hello", "ann", (0.5, 2.0), 1.5, "meeting"),
        ("s1", "hello", "ann", (0.5, 2.0), 1.5, "meeting"),
    ]
    (refused,) = [row for row in read(write(tmp_path / "cuts.jsonl", part)) if isinstance(row, Rejection)]
    assert "the supervision s1 goes over the edge of its cut, where not all is said: use --per supervision" in refused.reason


def test_relative_paths_lie_in_the_folder_or_the_audio_root(tmp_path: Path, meeting: MonoCut) -> None:
    def at(path: str) -> Path:
        meeting.recording.sources[0].source = path
        return write(tmp_path / "cuts.jsonl", meeting)

    assert kept(read(at("audio/meeting.wav")))[0].sample.audio == str(tmp_path / "audio/meeting.wav")
    assert kept(read(at("meeting.wav"), audio_root=tmp_path / "audio"))[0].sample.audio == str(tmp_path / "audio/meeting.wav")
    for path in ("../../etc/passwd", "/etc/passwd"):
        (refused,) = read(at(path))
        assert isinstance(refused, Rejection)
        assert (refused.id, refused.audio, refused.kind) == ("meeting", path, "outside")
        assert kept(read(at(path), allow_outside=True))[0].sample.audio == str(tmp_path / path)


CHANGES: list[tuple[str, Callable[[Any], Any], str]] = [
    ("command", lambda row: row["recording"]["sources"][0].update(type="command", source="touch ran"), "of the type 'command', which is not run or"),
    ("url", lambda row: row["recording"]["sources"][0].update(type="url", source="http://x/a.wav"), "of the type 'url', which is not run or fetched"),
    ("channel", lambda row: row["recording"]["sources"][0].update(channels=[0, 1]), "takes channel 0 of a file with others"),
    ("no audio", lambda row: row.pop("recording"), "no cut with a recording (AttributeError"),
    ("broken", lambda row: row["supervisions"][0].update(start="soon"), "no cut with a recording (TypeError"),
    ("unknown", lambda row: row.update(rows=7), "no cut with a recording (TypeError"),
    ("recording", lambda row: row.pop("type"), "no cut: make cuts of recordings and supervisions with `lhotse cut simple`"),
    ("old", lambda row: row.update(type="Cut"), "Cut: write the set again with Lhotse 0.8 or later"),
    ("speaker", lambda row: row["supervisions"][0].update(speaker=[1]), "no cut with a recording (TypeError"),
    ("text", lambda row: row["supervisions"][0].update(text=7), "no cut with a recording (TypeError"),
    ("backwards", lambda row: row.update(start=3.0, duration=-1.0), "lasts from 3 to 2 s of meeting"),
]


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_a_line_that_does_not_fit_is_named_and_no_other_lost(
    tmp_path: Path, meeting: MonoCut, change: Callable[[Any], Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    row, good = meeting.to_dict(), json.dumps(meeting.to_dict())
    if expected.startswith("lasts"):
        row["supervisions"] = []
    change(row)
    path = tmp_path / "cuts.jsonl"
    path.write_text(f"{good}\n\n{json.dumps(row)}\n{{broken\n{good}\n")
    first, refused, broken, last = read(path)
    assert isinstance(refused, Rejection)
    assert refused.kind == "row"
    assert refused.reason.startswith(f"{path}:3: ")
    assert expected in refused.reason
    assert "\n" not in refused.reason
    assert isinstance(broken, Rejection)
    assert broken.reason.startswith(f"{path}:4: not valid JSON")
    assert first == last
    assert not (tmp_path / "ran").exists()


def test_mixed_and_changed_cuts_are_rejected_with_the_mend(tmp_path: Path, meeting: MonoCut) -> None:
    mixed, faster = read(write(tmp_path / "cuts.jsonl", meeting.pad(5.0), meeting.perturb_speed(1.1)))
    assert isinstance(mixed, Rejection)
    assert isinstance(faster, Rejection)
    assert mixed.reason.endswith("MixedCut: write it to a file with cuts.save_audios")
    assert faster.reason.endswith("has transforms, which are not done here: write it to a file with cuts.save_audios")


def test_a_file_a_channel_is_the_file_of_its_channel(tmp_path: Path, meeting: MonoCut) -> None:
    row = meeting.to_dict() | {"channel": 1}
    row["recording"]["sources"] = [{"type": "file", "channels": [number], "source": f"{number}.wav"} for number in (0, 1)]
    (tmp_path / "cuts.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = kept(read(tmp_path / "cuts.jsonl"))
    assert found.sample.audio == str(tmp_path / "1.wav")


def test_shar_folders_are_read_out_of_their_archives(tmp_path: Path, meeting: MonoCut) -> None:
    cuts = [meeting.truncate(offset=number, duration=1.5, preserve_id=False).with_id(f"cut.{number}") for number in range(3)]
    for cut in cuts:
        cut.supervisions = [SupervisionSegment(f"{cut.id}-s", "meeting", 0.25, 1.0, text=cut.id, speaker="ann")]
    shar = tmp_path / "shar"
    shar.mkdir()
    CutSet.from_cuts(cuts).to_shar(shar, fields={"recording": "wav"}, shard_size=2)
    rows = kept(read(shar))
    found = [(row.sample.id, row.sample.text, row.sample.clips, row.span) for row in rows]
    assert found == [(f"cut.{number}", f"cut.{number}", (f"cut.{number}.wav",), None) for number in range(3)]
    samples = load_audio(tmp_path / "audio" / "meeting.wav").waveform
    for number, row in enumerate(rows):
        assert row.audio is not None
        np.testing.assert_allclose(load_audio(row.audio).waveform, samples[number * 16_000 :][:24_000], atol=1e-4)
    assert [row.span for row in kept(read(shar, per="supervision"))] == [(0.25, 1.25)] * 3
    assert [row.sample.id for row in kept(read(shar / "cuts.000001.jsonl.gz"))] == ["cut.2"]
    (shar / "recording.000001.tar").unlink()
    with pytest.raises(DataError, match=r"cuts\.000001\.jsonl\.gz: recording\.000001\.tar is not beside it"):
        read(shar)


def test_a_shar_folder_whose_files_do_not_fit_is_told(tmp_path: Path, meeting: MonoCut) -> None:
    CutSet.from_cuts([meeting.with_id(f"c{number}") for number in range(3)]).to_shar(tmp_path, fields={"recording": "wav"})
    lines = gzip.decompress((tmp_path / "cuts.000000.jsonl.gz").read_bytes()).splitlines(keepends=True)
    (tmp_path / "cuts.000000.jsonl.gz").write_bytes(gzip.compress(b"".join(lines[:2])))
    with pytest.raises(DataError, match=r"recording\.000000\.tar: c2 has no cut in .*: get both again"):
        read(tmp_path)
    (tmp_path / "cuts.000000.jsonl.gz").write_bytes(gzip.compress(b"".join([lines[0], lines[2], lines[2], lines[0]])))
    first, other, right, behind = read(tmp_path)
    assert [isinstance(row, SourceRow) for row in (first, right)] == [True, True]
    assert isinstance(other, Rejection)
    assert isinstance(behind, Rejection)
    assert "the archive has c1 where c2 should be" in other.reason
    assert (behind.kind, behind.reason.endswith("ends before it: get both again")) == ("missing", True)


def test_a_shar_cut_without_audio_is_rejected(tmp_path: Path, meeting: MonoCut) -> None:
    CutSet.from_cuts([meeting]).to_shar(tmp_path, fields={"recording": "wav"})
    with tarfile.open(tmp_path / "recording.000000.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("meeting.nodata"))
        archive.addfile(tarfile.TarInfo("meeting.nometa"))
    (refused,) = read(tmp_path)
    assert isinstance(refused, Rejection)
    assert "meeting has no audio in its archive" in refused.reason


def test_what_is_no_cut_set_is_refused(tmp_path: Path, meeting: MonoCut, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(path: Path) -> str:
        with pytest.raises(DataError) as error:
            list(Lhotse(path).rows())
        return str(error.value)

    assert error(tmp_path / "cuts.jsonl").endswith("no such file or folder: correct the path")
    assert "no cut set in this folder" in error(tmp_path)
    write(tmp_path / "a_cuts.jsonl", meeting)
    write(tmp_path / "b_cuts.jsonl", meeting)
    assert "several cut sets in this folder" in error(tmp_path)
    (tmp_path / "cuts.yaml").touch()
    assert error(tmp_path / "cuts.yaml").endswith(f"run `lhotse copy {tmp_path}/cuts.yaml cuts.jsonl.gz`")
    whole = write(tmp_path / "cuts.jsonl.gz", *(meeting.with_id(str(number)) for number in range(200))).read_bytes()
    (tmp_path / "cuts.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert "cuts.jsonl.gz: breaks off (" in error(tmp_path / "cuts.jsonl.gz")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("audiograft.data.sources.lhotse.find_spec", lambda name: None if name == "lhotse" else find_spec(name))
    with pytest.raises(ConfigError, match=r"pip install 'audiograft\[lhotse\]'"):
        list(Lhotse(tmp_path).rows())


KEYS = ("id", "start", "duration", "channel", "supervisions", "recording", "type", "custom")
VALUE = st.sampled_from(["x", "MonoCut", 1, -1.5, None, [], {}, [1], [{}], {"id": "r"}, {"sources": [{}]}, True])


SAID = ("id", "text", "speaker", "custom", "start", "language")


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUE), st.dictionaries(st.sampled_from(SAID), VALUE))
def test_no_line_stops_the_reading(tmp_path_factory: pytest.TempPathFactory, change: dict[str, Any], said: dict[str, Any]) -> None:
    source = {"type": "file", "channels": [0], "source": "a.wav"}
    recording = {"id": "r", "sources": [source], "sampling_rate": 16_000, "num_samples": 32_000, "duration": 2.0}
    supervision = {"id": "s", "recording_id": "r", "start": 0.0, "duration": 1.0, "text": "x"} | said
    row = {"id": "c", "start": 0, "duration": 2.0, "channel": 0, "supervisions": [supervision], "recording": recording, "type": "MonoCut"}
    path = tmp_path_factory.getbasetemp() / "any_cuts.jsonl"
    path.write_text(json.dumps(row | change) + "\n" + json.dumps(row) + "\n")
    rows = list(Lhotse(path).rows())
    assert len(rows) == 2
    assert not any("\n" in row.reason for row in rows if isinstance(row, Rejection))
