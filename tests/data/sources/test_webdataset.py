"""The source `webdataset`: tars as they are published, and tars that are broken or unkind."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiograft.audio import load_audio
from audiograft.data.sources import tars
from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.tars import read_groups
from audiograft.data.sources.webdataset import WebDataset, find_shards
from audiograft.types import DataError, Rejection, Sample


def sound(n_samples: int = 1600) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.linspace(-0.5, 0.5, n_samples, dtype=np.float32), 16_000, format="FLAC")
    return file.getvalue()


CLIP = sound()


def shard(path: Path, members: dict[str, bytes | str] | list[tuple[str, bytes | str]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items() if isinstance(members, dict) else members:
            content = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def read(path: Path | str, **options: Any) -> list[SourceRow | Rejection]:
    rows = list(WebDataset(str(path), **options).rows())
    for skip in range(len(rows) + 2):
        assert list(WebDataset(str(path), **options).rows(skip)) == rows[skip:]
    return rows


def test_clips_and_what_stands_beside_them(tmp_path: Path) -> None:
    said = {"transcript": "not this", "text": "hello", "speaker_id": 7, "lang": "en", "path": "/old/home.flac", "duration": 0.1, "snr": 12}
    path = shard(
        tmp_path / "train-000000.tar",
        {
            "a.flac": CLIP, "a.json": json.dumps(said),
            "sub/b.txt": "bye\n", "sub/b.FLAC": CLIP, "sub/b.json": json.dumps({"speaker": "ann"}), "sub/b.jpg": b"",
            "./c.cls": "dog", "./c.seg.flac": CLIP,
        },
    )  # fmt: skip
    rows = read(path)
    assert rows[0] == SourceRow(
        Sample(
            id="train-000000/a",
            clips=("a.flac",),
            text="hello",
            speaker="7",
            language="en",
            duration_s=0.1,
            extra={"transcript": "not this", "snr": 12},
        ),
        audio=CLIP,
    )
    assert isinstance(rows[1], SourceRow)
    assert isinstance(rows[2], SourceRow)
    assert (rows[1].sample.id, rows[1].sample.text, rows[1].sample.speaker) == ("train-000000/sub/b", "bye", "ann")
    assert (rows[2].sample.label, rows[2].sample.text) == ("dog", None)
    assert all(row.audio is not None and len(load_audio(row.audio).waveform) == 1600 for row in rows if isinstance(row, SourceRow))


def test_keys_are_mapped(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", {"a.wav": CLIP, "a.json": json.dumps({"norm": {"text": "hello"}, "wer": 3})})
    (row,) = read(path, keys=("norm.text=text", "wer=wer_percent"))
    assert isinstance(row, SourceRow)
    assert (row.sample.text, row.sample.extra) == ("hello", {"norm": {"text": "hello"}, "wer_percent": 3})


def test_shards_are_found_and_passed_over(tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"s-{number:02}.tar", {"0.wav": CLIP, "0.txt": f"text {number}", "1.wav": CLIP, "1.txt": "x"})
    for path in (tmp_path, tmp_path / "s-*.tar", tmp_path / "s-{00..02}.tar"):
        ids = [row.sample.id for row in read(path) if isinstance(row, SourceRow)]
        assert ids == [f"s-0{number}/{key}" for number in range(3) for key in range(2)]
    assert find_shards(str(tmp_path / "s-{01..01}.tar")) == [tmp_path / "s-01.tar"]
    for missing in ("s-{00..03}.tar", "none.tar", "none-*.tar"):
        with pytest.raises(DataError, match="no tar archive here"):
            list(WebDataset(str(tmp_path / missing)).rows())


def test_what_is_passed_over_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shard(tmp_path / "a.tar", {name: content for key in "abc" for name, content in ((f"{key}.wav", CLIP), (f"{key}.txt", key))})
    asked = []
    extract = tarfile.TarFile.extractfile

    def watched(archive: tarfile.TarFile, member: Any) -> Any:
        asked.append(member.name)
        return extract(archive, member)

    monkeypatch.setattr(tarfile.TarFile, "extractfile", watched)
    assert len(list(WebDataset(str(path)).rows(2))) == 1
    assert asked == ["c.wav", "c.txt"]


def test_members_out_of_pairing_are_rejected_and_no_other(tmp_path: Path) -> None:
    path = shard(
        tmp_path / "a.tar",
        [
            ("silent.flac", CLIP), ("alone.txt", "x"), ("two.wav", CLIP), ("two.flac", CLIP), ("two.txt", "x"),
            ("latin.wav", CLIP), ("latin.txt", b"caf\xe9"), ("broken.wav", CLIP), ("broken.json", "{"), ("list.wav", CLIP), ("list.json", "[]"),
            ("number.wav", CLIP), ("number.json", '{"text": 7}'), ("twice.txt", "x"), ("twice.wav", CLIP), ("twice.wav", CLIP),
            ("good.wav", CLIP), ("good.txt", "x"),
        ],
    )  # fmt: skip
    *rejected, good = read(path)
    assert isinstance(good, SourceRow)
    found = {row.id: (row.kind, row.reason) for row in rejected if isinstance(row, Rejection)}
    assert list(found) == [f"a/{key}" for key in ("silent", "alone", "two", "latin", "broken", "list", "number", "twice")]
    assert [kind for kind, _ in found.values()] == ["row", "row", "row", "text", "row", "row", "row", "row"]
    assert found["a/silent"][1].startswith(f"{path}: silent: has no text (flac): put silent.txt or .json right beside it")
    assert "has 2 clips (wav, flac, txt)" in found["a/two"][1]
    assert not any("\n" in reason for _, reason in found.values())


def test_names_are_names_and_links_are_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name, content in (("link.txt", b"x"), ("../../etc/cron.wav", CLIP), ("../../etc/cron.txt", b"y"), ("/abs.wav", CLIP), ("/abs.txt", b"z")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    refused, climbing, absolute = read(path)
    assert isinstance(refused, Rejection)
    assert "'link.wav' is a link or a device" in refused.reason
    assert isinstance(climbing, SourceRow)
    assert isinstance(absolute, SourceRow)
    assert [climbing.sample.id, climbing.sample.clips] == ["a/etc/cron", ("etc/cron.wav",)]
    assert [absolute.sample.id, absolute.sample.clips] == ["a/abs", ("abs.wav",)]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["data", "pkl", "pyd"])
def test_pickles_are_never_opened(tmp_path: Path, suffix: str) -> None:
    class Unkind:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    path = shard(tmp_path / "cuts.tar", {f"cut.{suffix}": pickle.dumps(Unkind())})
    with pytest.raises(DataError, match=r"cuts\.tar: cut: pickled, .* use the source lhotse$"):
        list(WebDataset(str(path)).rows())
    assert not (tmp_path / "ran").exists()


def until_it_breaks(rows: Iterator[SourceRow | Rejection]) -> tuple[list[SourceRow | Rejection], str]:
    given: list[SourceRow | Rejection] = []
    try:
        given.extend(rows)
    except DataError as error:
        return given, str(error)
    return given, "nothing"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_shard_that_breaks_off_gives_its_whole_rows_and_can_be_gone_on_with(tmp_path: Path, mode: str) -> None:
    rng = np.random.default_rng(0)
    members = {f"{number}.{suffix}": rng.bytes(700) if suffix == "wav" else f"text {number}" for number in range(4) for suffix in ("wav", "txt")}
    path = shard(tmp_path / "a.tar", members, mode)
    whole, content = list(WebDataset(str(path)).rows()), path.read_bytes()
    assert len(whole) == 4
    # Behind the first block of its end mark, a plain archive holds zeros alone.
    for n_bytes in range(1, 4 * (512 + 1024 + 512 + 512) + 512 if mode == "w" else len(content), 97):
        path.write_bytes(content[:n_bytes])
        before, told = until_it_breaks(WebDataset(str(path)).rows())
        assert re.fullmatch(rf"{path}: breaks off, or is no tar archive \(.*\): get it again, then run this once more to go on", told)
        path.write_bytes(content)
        assert before + list(WebDataset(str(path)).rows(len(before))) == whole


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"RIFF" + bytes(5000))
    with pytest.raises(DataError, match=r"a\.tar: breaks off, or is no tar archive"):
        list(WebDataset(str(tmp_path / "a.tar")).rows())


def test_compressed_shards_are_read(tmp_path: Path) -> None:
    shard(tmp_path / "plain.tar", {"a.wav": CLIP, "a.txt": "x"})
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "plain.tar").read_bytes()))
    (row,) = read(tmp_path / "a.tar.gz")
    assert isinstance(row, SourceRow)
    assert row.audio == CLIP


def test_a_member_that_would_fill_the_memory_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "MAX_MEMBER_BYTES", 100)
    path = shard(tmp_path / "a.tar", {"a.wav": bytes(101), "a.txt": "x"})
    (row,) = read(path)
    assert isinstance(row, Rejection)
    assert "'a.wav' has 101 bytes, where 100 are the most" in row.reason


def test_members_are_forgotten(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {f"{number}.txt": "x" for number in range(50)})
    seen = []
    opened = tarfile.open

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append(opened(*args, **kwargs))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tarfile, "open", watched)
        assert len(list(read_groups(path))) == 50
    assert len(seen[0].members) <= 1
