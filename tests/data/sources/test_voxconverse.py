"""VoxConverse as it is published: zips of WAV files, RTTM files in the folders dev and test; unpacked or not, complete or damaged."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from file_server import serving

from audiograft.data import download
from audiograft.data.sources import voxconverse as module
from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.voxconverse import VoxConverse
from audiograft.types import ConfigError, DataError, Rejection

RTTM = {
    # 20 s: a alone, a and b, b alone, nobody, a
    "dev/abjxc": "SPEAKER abjxc 1 1.0 5.0 <NA> <NA> spk00 <NA> <NA>\nSPEAKER abjxc 1 4.0 4.0 <NA> <NA> spk01 <NA> <NA>\n"
    "SPEAKER abjxc 1 14.0 4.0 <NA> <NA> spk00 <NA> <NA>\n",
    "dev/bkwns": "SPEAKER bkwns 1 0.0 10.0 <NA> <NA> spk00 <NA> <NA>\n",
    "test/aepyx": "SPEAKER aepyx 1 2.0 5.0 <NA> <NA> spk00 <NA> <NA>\n",
}
LENGTHS_S = {"abjxc": 20.0, "bkwns": 10.0, "aepyx": 8.0}


def wav(length_s: float) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).standard_normal(round(length_s * 16_000)) * 0.01
    soundfile.write(file, noise, 16_000, format="WAV", subtype="PCM_16")
    return file.getvalue()


def archive(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as handle:
        for name, content in members.items():
            handle.writestr(name, content)
    return file.getvalue()


def archives() -> dict[str, bytes]:
    """The three files as their publishers have them."""
    annotations = {f"voxconverse-master/{name}.rttm": text.encode() for name, text in RTTM.items()}
    dev = {f"audio/{name}.wav": wav(LENGTHS_S[name]) for name in ("abjxc", "bkwns")}
    return {
        "voxconverse-master.zip": archive(annotations | {"__MACOSX/voxconverse-master/dev/._abjxc.rttm": b"x"}),
        "voxconverse_dev_wav.zip": archive(dev | {"__MACOSX/audio/._abjxc.wav": b"x"}),
        "voxconverse_test_wav.zip": archive({"voxconverse_test_wav/aepyx.wav": wav(LENGTHS_S["aepyx"])}),
    }


@pytest.fixture(params=["zipped", "unpacked"])
def corpus(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for name, content in archives().items():
        (tmp_path / name).write_bytes(content)
        if request.param == "unpacked":
            with zipfile.ZipFile(tmp_path / name) as handle:
                handle.extractall(tmp_path)
            (tmp_path / name).unlink()
    return tmp_path


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    for name, text in RTTM.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.rttm").write_text(text, encoding="utf-8")
        (tmp_path / "wav").mkdir(exist_ok=True)
        (tmp_path / f"wav/{Path(name).name}.wav").write_bytes(wav(LENGTHS_S[Path(name).name]))
    return tmp_path


def taken(rows: Sequence[SourceRow | Rejection]) -> list[tuple[str, float, float]]:
    assert all(isinstance(row, SourceRow) for row in rows), rows
    return [(row.sample.recording, *(round(place, 3) for place in row.span)) for row in rows]


def test_speech_is_read_from_archives_and_folders_alike(corpus: Path) -> None:
    rows = list(VoxConverse(corpus).rows())
    assert taken(rows) == [("abjxc", 1.0, 8.0), ("abjxc", 14.0, 18.0), ("bkwns", 0.0, 10.0)]
    first, second, third = (row.sample for row in rows)
    assert (first.label, first.source, first.text) == ("SPEECH", "voxconverse", None)
    assert first.speaker is None
    assert first.extra == {"speakers": ["voxconverse_abjxc_spk00", "voxconverse_abjxc_spk01"]}
    # A name of a speaker means nothing outside its recording.
    assert (second.speaker, third.speaker) == ("voxconverse_abjxc_spk00", "voxconverse_bkwns_spk00")
    assert len({row.sample.id for row in rows}) == 3
    for row in rows:
        opened = soundfile.info(row.sample.audio if row.audio is None else io.BytesIO(row.audio))
        assert opened.duration == LENGTHS_S[row.sample.recording]
    assert Path(rows[0].sample.audio).exists() == (rows[0].audio is None)


def test_turns(corpus: Path) -> None:
    rows = list(VoxConverse(corpus, segments="turns").rows())
    assert taken(rows) == [("abjxc", 1.0, 6.0), ("abjxc", 4.0, 8.0), ("abjxc", 14.0, 18.0), ("bkwns", 0.0, 10.0)]
    assert [row.sample.speaker for row in rows] == [f"voxconverse_{name}" for name in ("abjxc_spk00", "abjxc_spk01", "abjxc_spk00", "bkwns_spk00")]


def test_overlapped_speech_is_left_out_where_asked(unpacked: Path) -> None:
    for segments in ("turns", "speech"):
        rows = list(VoxConverse(unpacked, segments=segments, no_overlap=True).rows())
        assert taken(rows) == [("abjxc", 1.0, 4.0), ("abjxc", 6.0, 8.0), ("abjxc", 14.0, 18.0), ("bkwns", 0.0, 10.0)]
        assert all(row.sample.speaker for row in rows)


def test_non_speech_keeps_its_distance_from_speech(unpacked: Path) -> None:
    rows = list(VoxConverse(unpacked, segments="nonspeech").rows())
    assert taken(rows) == [("abjxc", 9.0, 13.0)]  # what is left of 0 to 1 s and of 18 to 20 s has no length
    assert rows[0].sample.label == "NONSPEECH"
    assert rows[0].sample.speaker is None
    rows = list(VoxConverse(unpacked, segments="nonspeech", margin_s=0.0, clip_s=2.0).rows())
    assert taken(rows) == [("abjxc", 8.0, 10.0), ("abjxc", 10.0, 12.0), ("abjxc", 12.0, 14.0), ("abjxc", 18.0, 20.0)]


def test_clips_of_one_length_come_from_inside_and_what_is_too_short_is_named(unpacked: Path) -> None:
    rows = list(VoxConverse(unpacked, clip_s=2.5).rows())
    cut = [row for row in rows if isinstance(row, SourceRow)]
    assert taken(cut) == [("abjxc", 2.0, 4.5), ("abjxc", 4.5, 7.0), ("bkwns", 1.0, 3.5), ("bkwns", 3.5, 6.0), ("bkwns", 6.0, 8.5)]
    rejected = [row for row in rows if isinstance(row, Rejection)]
    assert [row.kind for row in rejected] == ["duration"]
    assert "lasts 4.00 s, too short for 2.5 s with 1 s before and after: lower --margin-s" in rejected[0].reason


def test_a_clip_has_the_speakers_that_are_heard_in_it(unpacked: Path) -> None:
    rows = list(VoxConverse(unpacked, clip_s=2.0).rows())
    assert [(row.span, row.sample.speaker) for row in rows[:2]] == [((2.0, 4.0), "voxconverse_abjxc_spk00"), ((4.0, 6.0), None)]


def test_all_recordings_of_the_set_that_is_asked_for(corpus: Path) -> None:
    recordings = {subset: {row.sample.recording for row in VoxConverse(corpus, subset=subset).rows()} for subset in ("dev", "test", "all")}
    assert recordings == {"dev": {"abjxc", "bkwns"}, "test": {"aepyx"}, "all": {"abjxc", "bkwns", "aepyx"}}


@pytest.mark.parametrize("segments", ["speech", "turns", "nonspeech"])
def test_skipping_gives_what_follows(corpus: Path, segments: str) -> None:
    source = VoxConverse(corpus, subset="all", segments=segments, clip_s=0.5)
    rows = list(source.rows())
    for skip in (0, 1, len(rows) - 1, len(rows), len(rows) + 5):
        assert list(source.rows(skip)) == rows[skip:]


def test_lines_that_are_broken_are_named_and_the_others_read(unpacked: Path) -> None:
    with (unpacked / "dev/abjxc.rttm").open("a", encoding="utf-8") as file:
        file.write("SPEAKER abjxc 1 -4 2 <NA> <NA> spk00 <NA> <NA>\nSPEAKER abjxc 1 19 6 <NA> <NA> spk00 <NA> <NA>\n")
    rows = list(VoxConverse(unpacked, segments="turns").rows())
    rejected = [row for row in rows if isinstance(row, Rejection)]
    assert len(rows) == 6
    assert [row.kind for row in rejected] == ["row", "short"]
    assert f"{unpacked}/dev/abjxc.rttm:4: a turn that begins at -4 s" in rejected[0].reason
    assert "ends at 25.00 s, but" in rejected[1].reason
    assert "lasts 20.00 s" in rejected[1].reason


def test_a_turn_may_end_a_frame_of_video_after_the_sound(unpacked: Path) -> None:
    (unpacked / "dev/bkwns.rttm").write_text("SPEAKER bkwns 1 5.0 5.04 <NA> <NA> spk00 <NA> <NA>\n", encoding="utf-8")
    assert taken(list(VoxConverse(unpacked).rows()))[-1] == ("bkwns", 5.0, 10.0)


def test_no_non_speech_is_taken_where_a_line_is_broken(unpacked: Path) -> None:
    with (unpacked / "dev/abjxc.rttm").open("a", encoding="utf-8") as file:
        file.write("SPEAKER abjxc 1 9.0 x <NA> <NA> spk00 <NA> <NA>\n")  # someone speaks in the gap, nobody knows how long
    rows = list(VoxConverse(unpacked, segments="nonspeech").rows())
    assert all(isinstance(row, Rejection) for row in rows)
    assert any("someone may speak here, in a line that is broken" in row.reason for row in rows)


def test_recordings_without_sound_are_named_row_by_row(unpacked: Path) -> None:
    (unpacked / "wav/abjxc.wav").unlink()
    (unpacked / "wav/bkwns.wav").write_bytes(b"<html>")
    rows = list(VoxConverse(unpacked).rows())
    assert [row.kind for row in rows] == ["missing", "missing", "unreadable"]
    assert "abjxc.wav: neither below" in rows[0].reason


def test_a_member_that_is_damaged_costs_its_recording_alone(tmp_path: Path) -> None:
    for name, content in archives().items():
        if name == "voxconverse_dev_wav.zip":
            data = bytearray(content)
            data[2000] ^= 0xFF
            content = bytes(data)
        (tmp_path / name).write_bytes(content)
    rows = list(VoxConverse(tmp_path).rows())
    assert [row.kind if isinstance(row, Rejection) else row.sample.recording for row in rows] == ["unreadable", "unreadable", "bkwns"]
    assert "\n" not in rows[0].reason


def test_folders_that_hold_something_else_are_one_line(tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="fetch .* with --download") as error:
            list(VoxConverse(folder).rows())
        assert "\n" not in str(error.value)
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"x\.zip: can't be read as an archive .*: delete it and fetch it again"):
        list(VoxConverse(tmp_path).rows())


def test_options_that_can_not_be_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clip_s must be above 0 seconds, not 0"):
        VoxConverse(tmp_path, clip_s=0.0)
    with pytest.raises(ConfigError, match="margin_s must be 0 seconds or more, not -1"):
        VoxConverse(tmp_path, margin_s=-1.0)


def test_download_fetches_one_set_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FIRST_WAIT_S", 0.001)
    # The checksums are those of the real archives, which are gigabytes.
    monkeypatch.setattr(module, "AUDIO", {name: download.Download(file.address, file.file_name) for name, file in module.AUDIO.items()})
    with serving() as server:
        server.files.update(archives())
        server.cut_after = [None, 10_000]
        source = VoxConverse(tmp_path / "new", subset="all", download=True, mirror=server.address)
        rows = source.rows()
        assert next(rows).sample.recording == "abjxc"
        asked = [name for name, _ in server.requests]
        assert asked == ["voxconverse-master.zip", "voxconverse_dev_wav.zip", "voxconverse_dev_wav.zip"]
        assert [row.sample.recording for row in rows] == ["abjxc", "bkwns", "aepyx"]
        assert [name for name, _ in server.requests[3:]] == ["voxconverse_test_wav.zip"]
        assert len(list(source.rows())) == 4
        assert len(server.requests) == 4
    assert all(row.audio is None for row in VoxConverse(tmp_path / "new").rows())


def test_the_published_addresses() -> None:
    assert module.ANNOTATIONS.address == "https://github.com/joonson/voxconverse/archive/refs/heads/master.zip"
    assert module.AUDIO["test"].address == "https://www.robots.ox.ac.uk/~vgg/data/voxconverse/data/voxconverse_test_wav.zip"
    assert all(file.checksum is not None for file in module.AUDIO.values())
