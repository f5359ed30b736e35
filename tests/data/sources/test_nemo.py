"""The source `nemo`: manifests as NeMo's scripts write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audiograft.data.sources.base import SourceRow
from audiograft.data.sources.nemo import Nemo
from audiograft.types import TRANSCRIBE_PROMPT, DataError, Rejection, Sample


def read(path: Path, *rows: dict[str, Any] | str, **options: Any) -> list[SourceRow | Rejection]:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    found = list(Nemo(path, **options).rows())
    for skip in range(len(found) + 1):
        assert list(Nemo(path, **options).rows(skip)) == found[skip:]
    return found


def one(path: Path, row: dict[str, Any]) -> SourceRow:
    (found,) = read(path, row)
    assert isinstance(found, SourceRow), found
    return found


def test_a_transcript_is_read(tmp_path: Path) -> None:
    row = {"audio_filepath": "wav/a.wav", "duration": 2.5, "text": "hello", "speaker": 12, "lang": "en", "pred_text": "hallo"}
    assert one(tmp_path / "train_manifest.json", row) == SourceRow(
        Sample(
            id="wav/a.wav",
            clips=(str(tmp_path / "wav/a.wav"),),
            text="hello",
            speaker="12",
            language="en",
            duration_s=2.5,
            extra={"pred_text": "hallo"},
        )
    )


def test_an_offset_makes_a_span(tmp_path: Path) -> None:
    rows = [{"audio_filepath": "a.wav", "duration": 2, "offset": offset, "text": "x"} for offset in (0, 1.5)]
    first, second = read(tmp_path / "m.json", *rows)
    assert isinstance(first, SourceRow)
    assert isinstance(second, SourceRow)
    assert (first.span, second.span) == ((0.0, 2.0), (1.5, 3.5))
    assert (first.sample.id, second.sample.id, second.sample.recording, second.sample.duration_s) == ("a.wav@0", "a.wav@1.5", "a.wav", 2.0)


def test_questions_labels_and_translations(tmp_path: Path) -> None:
    clip = {"audio_filepath": "a.wav", "duration": 1.0}
    asked = one(tmp_path / "m.json", clip | {"context": "Who speaks?", "answer": "Ann."}).sample
    assert (asked.prompt, asked.response, asked.extra) == ("Who speaks?", "Ann.", {})
    assert one(tmp_path / "m.json", clip | {"question": "Who?", "answer": "Ann."}).sample.prompt == "Who?"
    assert one(tmp_path / "m.json", clip | {"command": "stop", "text": None}).sample.label == "stop"
    canary = clip | {"text": "hello", "answer": "hello", "source_lang": "en", "target_lang": "en", "taskname": "asr"}
    heard = one(tmp_path / "m.json", canary).sample
    assert (heard.prompt, heard.response, heard.language) == (TRANSCRIBE_PROMPT, "hello", "en")
    (refused,) = read(tmp_path / "m.json", canary | {"target_lang": "de", "answer": "hallo"})
    assert isinstance(refused, Rejection)
    assert "a translation from en to de without a question: add context" in refused.reason
    assert one(tmp_path / "m.json", canary | {"target_lang": "de", "answer": "hallo", "context": "Translate."}).sample.response == "hallo"


@pytest.mark.parametrize(
    ("row", "kind", "expected"),
    [
        ("{", "row", "not valid JSON"),
        ({"duration": 1, "text": "x"}, "row", "audio_filepath must be a path"),
        ({"audio_filepath": ["l.wav", "r.wav"], "text": "x"}, "row", "audio_filepath is a list, one file a channel: mix it down"),
        ({"audio_filepath": "a.wav", "offset": 1}, "row", "offset without duration"),
        ({"audio_filepath": "a.wav", "offset": "1", "duration": 1}, "row", "offset must be 0 or more seconds"),
        ({"audio_filepath": "a.wav", "duration": -1}, "row", '"duration_s" must be 0 or more seconds'),
        ({"audio_filepath": "a.wav", "duration": 1, "text": 7}, "row", '"text" must be a string'),
        ({"audio_filepath": "../../etc/passwd", "duration": 1, "text": "x"}, "outside", "leaves the folder"),
        ({"audio_filepath": "/etc/passwd", "duration": 1, "text": "x"}, "outside", "leaves the folder"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path: Path, row: Any, kind: str, expected: str) -> None:
    path = tmp_path / "m.json"
    good = {"audio_filepath": "good.wav", "duration": 1, "text": "x"}
    _, refused, last = read(path, good, row, good)
    assert isinstance(refused, Rejection)
    assert refused.kind == kind
    assert refused.reason.startswith(f"{path}:2: ")
    assert expected in refused.reason
    assert isinstance(last, SourceRow)


def test_clips_may_lie_below_another_folder(tmp_path: Path) -> None:
    row = {"audio_filepath": "/data/a.wav", "duration": 1, "text": "x"}
    for options in ({"audio_root": Path("/data")}, {"allow_outside": True}):
        (found,) = read(tmp_path / "m.json", row, **options)
        assert isinstance(found, SourceRow)
        assert found.sample.clips == ("/data/a.wav",)


def test_a_tarred_manifest_names_what_reads_tars(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m\.json:1: a manifest of tarred audio: unpack .* `audiograft prepare webdataset`$"):
        read(tmp_path / "m.json", {"audio_filepath": "a.wav", "duration": 1, "text": "x", "shard_id": 0})


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m\.json: no such manifest"):
        list(Nemo(tmp_path / "m.json").rows())
