"""Pictures in manifests: read, refused, prepared, and written back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import builders
import pytest

from audiograft.audit.corrected import _moved
from audiograft.data.ledger import manifest_row
from audiograft.data.looks import trace_pictures
from audiograft.data.manifest import pictures_as_given, read_manifest
from audiograft.data.options import PrepareOptions
from audiograft.data.prepare import prepare
from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.columns import TableReader
from audiograft.data.sources.manifests import Manifest
from audiograft.data.traces import read_traces
from audiograft.types import DataError, Sample

MIXED = "<image> is <image>, <video>, <audio>"
WHOLE = {"id": "b", "audio": "a.wav", "text": "one", "image": ["p/0.png", "p/1.png"], "video": "v.mp4", "prompt": MIXED}


def write(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_pictures_are_paths_below_the_manifest(tmp_path: Path) -> None:
    rows = [WHOLE, {"images": ["q.png"], "image": None, "prompt": "what", "response": "two"}, {"audio": "a.wav", "text": "one", "video": ""}]
    whole, seen, heard = read_manifest(write(tmp_path, rows))
    assert (whole.images, whole.videos) == ((str(tmp_path / "p/0.png"), str(tmp_path / "p/1.png")), (str(tmp_path / "v.mp4"),))
    assert (seen.id, seen.images, seen.clips, seen.extra) == ("q.png", (str(tmp_path / "q.png"),), (), {})
    assert (heard.images, heard.videos) == ((), ())
    assert pictures_as_given(rows[0]) == {"images": ("p/0.png", "p/1.png"), "videos": ("v.mp4",)}
    assert pictures_as_given(rows[2]) == {}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"image": 3}, '"image" must be a path or a list of paths, not 3'),
        ({"videos": [""]}, '"videos" must be a path or a list of paths'),
        ({"image": "a.png", "images": ["b.png"]}, '"image" and "images" are the same: leave one out'),
        ({"image": "../a.png"}, r"the image \.\./a\.png leaves the folder"),
        ({"video": "/etc/passwd"}, "the video /etc/passwd leaves the folder"),
        ({"image": "https://example.org/a.png"}, "addresses are never fetched"),
        ({"image": "a.png", "prompt": "<image> <image>"}, "2 <image> markers in the prompt but 1 image"),
        ({"prompt": "<video>"}, "1 <video> marker in the prompt but 0 videos"),
    ],
)
def test_pictures_that_dont_fit_are_one_line(tmp_path: Path, row: dict[str, Any], expected: str) -> None:
    manifest = write(tmp_path, [{"id": "a", "prompt": "what", "response": "two"} | row])
    with pytest.raises(DataError, match=f"manifest.jsonl:1: .*{expected}") as error:
        read_manifest(manifest)
    assert "\n" not in str(error.value)


def test_a_row_of_pictures_alone_needs_a_question_and_an_answer(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='"prompt" and "response"'):
        read_manifest(write(tmp_path, [{"image": "a.png", "text": "one"}]))


def test_a_sample_is_written_back_as_it_was_read(tmp_path: Path) -> None:
    rows = [WHOLE, {"id": "s", "image": "q.png", "prompt": "what", "response": "two"}]
    written = [manifest_row(sample) for sample in read_manifest(write(tmp_path, rows))]
    again = read_manifest(write(tmp_path, [json.loads(json.dumps(row).replace(f"{tmp_path}/", "")) for row in written]))
    assert again == read_manifest(write(tmp_path, rows))


def test_rows_that_move_find_their_pictures(tmp_path: Path) -> None:
    from audiograft.audit.corrected import CorrectedSummary

    summary = CorrectedSummary(tmp_path)
    moved = _moved(dict(WHOLE), tmp_path / "old", tmp_path / "new", summary)
    assert (moved["image"], moved["video"]) == (["../old/p/0.png", "../old/p/1.png"], "../old/v.mp4")
    assert summary.needs_allow_outside


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    folder = tmp_path / "scenes"
    made = builders.write_clips(folder, [builders.tone(0.4, 300.0 * (1 + number), number) for number in range(3)], ["one", "two", "three"])
    rows = [json.loads(line) for line in made.read_text().splitlines()]
    for number, row in enumerate(rows):
        builders.picture(60 + 60 * number, 28).save(folder / f"{number}.png")
        row["image"] = f"{number}.png"
    (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "2.png").unlink()
    alone = {"id": "seen", "images": ["0.png", "0.png"], "prompt": "what", "response": "two"}
    again = {"id": "clip-0", "audio": "0.wav", "image": "0.png", "text": "one"}
    return write(folder, [*rows, alone, again])


@pytest.mark.parametrize("audio", ["link", "copy", "flac"])
def test_a_corpus_has_its_pictures_and_names_those_that_it_lacks(scenes: Path, tmp_path: Path, audio: Any) -> None:
    options = PrepareOptions(out=tmp_path / "corpus", audio=audio, max_rejected=1.0)
    summary = prepare(Manifest(scenes), options)
    assert (summary.kept, summary.rejected) == (2, {"unreadable": 1, "missing": 1, "duplicate": 1})
    clip, seen = read_manifest(tmp_path / "corpus")
    assert [len(sample.images) for sample in (clip, seen)] == [1, 2]
    picture = scenes.with_name("0.png").read_bytes()
    assert all(Path(path).read_bytes() == picture for sample in (clip, seen) for path in sample.images)
    assert all(Path(path).is_relative_to(tmp_path / "corpus" / "images") for path in (*clip.images, *seen.images))
    # The leakage gate need not look at them again.
    assert [trace.pictures for trace in read_traces(tmp_path / "corpus" / "manifest.traces")] == [trace_pictures(sample) for sample in (clip, seen)]
    assert len(list((tmp_path / "corpus" / "images").rglob("*.png"))) == 3  # that of the second row of one id is removed
    again = prepare(Manifest(scenes), PrepareOptions(out=tmp_path / "corpus", audio=audio, max_rejected=1.0, overwrite=True))
    assert again.kept == 2


@pytest.mark.parametrize(("folder", "value", "expected"), [("here", "a.png", 1), (None, "a.png", 0), ("here", {"bytes": b"x", "path": "a.png"}, 0)])
def test_tables_give_pictures_that_are_files(tmp_path: Path, folder: str | None, value: Any, expected: int) -> None:
    names = {name: name for name in ("audio", "text", "image")}
    reader = TableReader("table", "table", names, folder=tmp_path if folder else None)
    made = reader.read({"audio": b"RIFF", "text": "one", "image": value}, 0)
    assert isinstance(made, SourceRow)
    assert len(made.sample.images) == expected
    assert "image" not in made.sample.extra


def test_a_sample_without_pictures_is_as_it_was() -> None:
    assert "image" not in manifest_row(Sample("a", ("a.wav",), "one"))
