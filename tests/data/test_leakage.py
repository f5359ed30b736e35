"""The leakage gate: what two sides share is found, counted and named; nothing else is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from babble import babble

from audiograft.data import gate as gate_module
from audiograft.data.gate import LeakageReport
from audiograft.data.leakage import check_choice, check_model, check_training, compare, compare_manifests, save_traces, summary_line
from audiograft.data.manifest import write_manifest
from audiograft.data.traces import Trace, make_trace, read_traces
from audiograft.types import TRAINING_TRACES, VALIDATION_TRACES, DataError, Sample

NONE = dict.fromkeys(gate_module.COUNTED, 0)
LONG = "the quick brown fox jumps over the lazy dog"


def row(row_id: str, *clips: np.ndarray, **keys: Any) -> Trace:
    return make_trace(Sample(row_id, **keys), clips)


def counts(report: LeakageReport) -> dict[str, int]:
    return {kind: count for kind, count in report.counts.items() if count}


def test_each_kind_is_found_by_itself() -> None:
    clip = babble(3.0, 1)
    test = [
        row("t0", babble(2.0, 10), speaker="anna", recording="book-1", text=LONG),
        row("t1", babble(2.5, 11), speaker="ben", text="yes"),
        row("t2", babble(2.0, 12), speaker="ben", text="the rain in spain falls"),
        row("t3", clip),
        row("t4", soxr.resample(clip, 16_000, 8_000)),
    ]
    test[4] = row("t4", soxr.resample(soxr.resample(clip, 16_000, 8_000), 8_000, 16_000) * np.float32(0.1))
    found = {
        "speakers": row("a", babble(2.0, 20), speaker="ben", text="something else entirely"),
        "recordings": row("a", babble(2.0, 21), recording="book-1"),
        "texts": row("a", babble(2.0, 22), text="The quick, brown fox -- jumps over the LAZY dog!"),
        "short_texts": row("a", babble(2.0, 23), text="Yes."),
    }
    for kind, train in found.items():
        report = compare([train], test)
        assert counts(report) == {kind: 1}
        assert report.touches == (() if kind == "short_texts" else (kind,))
        assert report.examples[kind][0].train == "a"
    assert compare([found["speakers"]], test).rows["speakers"] == 2
    assert str(compare([found["recordings"]], test, "book.jsonl").first("recordings")) == "t0, training row a of book.jsonl (book-1)"
    report = compare([row("b", babble(1.0, 24), clip)], test)
    assert counts(report) == {"same_audio": 1, "near_audio": 1}
    assert report.touches == ("audio",)
    assert report.count("audio") == 2
    (near,) = report.examples["near_audio"]
    assert (near.test, near.train) == ("t4", "b")
    assert near.overlap_s == pytest.approx(2.9, abs=0.2)
    assert counts(compare([row("c", babble(3.0, 30), speaker="zoe", recording="book-2", text="nothing in common at all")], test)) == {}


def test_spaces_and_case_do_not_hide_a_speaker() -> None:
    test, train = [row("t", speaker=" Bob ", recording="Book  1")], row("a", speaker="bob", recording="book 1")
    assert compare([train], test).touches == ("speakers", "recordings")
    assert gate_module.Gate(test).kinds(train) == ["speakers", "recordings"]


def test_names_of_two_corpora_are_not_the_same_people() -> None:
    test = [row("t", speaker="19", recording="r", source="librispeech")]
    assert compare([row("a", speaker="19", recording="r", source="voxconverse")], test).touches == ()
    assert compare([row("a", speaker="19", recording="r", source="librispeech")], test).touches == ("speakers", "recordings")
    assert compare([row("a", speaker="19", recording="r")], test).touches == ("speakers", "recordings")


def test_silence_is_no_leakage_and_is_counted() -> None:
    silence = np.zeros(16_000, np.float32)
    report = compare([row("a", silence)], [row("t", silence)])
    assert report.touches == ()
    assert report.train.silent == report.test.silent == 1


def test_what_could_not_be_compared_is_counted() -> None:
    report = compare([row("a"), row("b", speaker="x", text=LONG)], [row("t", babble(1.0, 0), recording="r")])
    assert (report.train.rows, report.train.clips, report.train.without_speaker, report.train.without_text) == (2, 0, 1, 1)
    assert (report.test.without_speaker, report.test.without_recording, report.test.without_text) == (1, 0, 1)


def test_many_blocks_and_indexes_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [babble(1.5, seed) for seed in range(30)]
    test = [row(f"t{n}", clip[1000:], clip[::-1].copy()) for n, clip in enumerate(clips)]
    train = [row(f"a{n}", clip) for n, clip in enumerate(clips[:20])]
    whole = compare(train, test)
    assert whole.counts == NONE | {"near_audio": 20}
    monkeypatch.setattr(gate_module, "_BLOCK_PEAKS", 50)
    monkeypatch.setattr(gate_module, "_INDEX_CLIPS", 7)
    assert compare(iter(train), iter(test)).as_dict() == whole.as_dict()


def test_the_best_of_several_near_copies_is_shown() -> None:
    clip = babble(4.0, 3)
    train = [row("half", clip[: len(clip) // 2 + 8000]), row("most", clip[2000:]), row("less", clip[20_000:])]
    assert compare(train, [row("t", clip)]).examples["near_audio"][0].train == "most"


class Corpora:
    """Manifests of babble in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, seeds: range, **keys: Any) -> Path:
        rows = []
        for seed in seeds:
            soundfile.write(self.folder / f"{name}-{seed}.flac", babble(1.5, seed), 16_000)
            rows.append({"id": f"{name}-{seed}", "audio": f"{name}-{seed}.flac", "text": f"this is sentence number {name} {seed}", **keys})
        path = self.folder / f"{name}.jsonl"
        write_manifest(path, rows)
        return path


@pytest.fixture
def corpora(tmp_path: Path) -> Corpora:
    return Corpora(tmp_path)


def test_manifests_are_compared_and_report_is_json(corpora: Corpora) -> None:
    train = [corpora.write("one", range(4), speaker="anna"), corpora.write("two", range(4, 8))]
    test = corpora.write("test", range(6, 10), speaker="anna")
    seen: list[int] = []
    report = compare_manifests(train, test, workers=2, on_row=lambda: seen.append(1))
    assert counts(report) == {"speakers": 1, "same_audio": 2}
    assert report.first("audio").origin == str(train[1])
    assert len(seen) == 12
    told = json.loads(json.dumps(report.as_dict()))
    assert told["touches"] == ["speakers", "audio"]
    assert told["shared"]["same_audio"] == {
        "shared": 2,
        "test_rows": 2,
        "examples": [{"test": f"test-{n}", "train": f"two-{n}", "origin": str(train[1])} for n in (6, 7)],
    }
    assert told["test"]["rows"] == 4


def test_training_stops_before_it_touches_what_is_held_out(corpora: Corpora) -> None:
    train, validation = corpora.write("train", range(4), speaker="anna"), corpora.write("validation", range(3, 6))
    clean, dirty = corpora.write("clean", range(20, 23), speaker="anna"), corpora.write("dirty", range(5, 8))
    told = check_training([train], validation, [clean], ["speakers", "texts"])
    assert told["held_out"][str(clean)]["touches"] == ["speakers"]
    assert told["validation"]["touches"] == ["audio"]  # told, and no reason to stop
    with pytest.raises(DataError) as error:
        check_training([train], None, [clean], ["texts"])
    assert str(error.value).startswith(
        f"{clean}: held out, but its training data shares 1 speakers with it, such as test row clean-20, training row train-0"
    )
    # Validation chooses the model, so it is no place for test data either.
    with pytest.raises(
        DataError, match=r"dirty\.jsonl: held out, but .* shares 1 clips .* test row dirty-5, training row validation-5 .*data\.allow_leakage$"
    ):
        check_training([train], validation, [clean, dirty], ["speakers", "texts"])
    assert check_training([train], None, [dirty], [])["held_out"][str(dirty)]["touches"] == []
    assert check_training([train], None, [], []) == {"allowed": [], "validation": None, "held_out": {}}


def test_rows_that_do_not_fit_are_counted_on_both_sides(corpora: Corpora) -> None:
    train, test = corpora.write("train", range(2)), corpora.write("test", range(5, 7))
    for manifest in (train, test):
        with manifest.open("a") as file:
            file.write('{"id": "broken"\n')
    told = compare_manifests([train], test).as_dict()
    assert told["train"]["refused"] == told["test"]["refused"] == 1
    assert told["train"]["examples"][0].startswith(f"{train}:3: not valid JSON")
    # What is held out has to be compared, all of it, be there traces already or not.
    for _ in range(2):
        with pytest.raises(DataError, match=r"test\.jsonl:3: not valid JSON"):
            check_training([train], None, [test], [])


def test_a_model_remembers_what_it_and_its_base_were_trained_on(corpora: Corpora, tmp_path: Path) -> None:
    first, second, test = corpora.write("first", range(3)), corpora.write("second", range(3, 6)), corpora.write("test", range(2, 4))
    base, model, other = tmp_path / "base", tmp_path / "model", tmp_path / "other"
    for folder in (base, model, other):
        folder.mkdir()
    assert check_model(model, test) == {"checked": False, "why": "the model has no record of what it was trained on"}
    save_traces(base, [first])
    assert save_traces(model, [second], base) == model / TRAINING_TRACES
    assert [trace.id for trace in read_traces(model / TRAINING_TRACES)] == [f"first-{n}" for n in range(3)] + [f"second-{n}" for n in range(3, 6)]
    told = check_model(model, test)
    assert (told["checked"], told["complete"], told["shared"]["same_audio"]["shared"]) == (True, True, 2)
    assert summary_line(told) == "touches training data: 0 speakers, 0 recordings, 0 texts, 2 clips"
    assert counts(compare_manifests([model], test)) == {"same_audio": 2}
    # Trained from a model without a record: what is known is not all.
    save_traces(model, [second], other)
    told = check_model(model, corpora.write("clean", range(30, 32)))
    assert (told["checked"], told["complete"], told["touches"]) == (True, False, [])
    assert summary_line(told).startswith("does not touch training data: 0 speakers")
    assert summary_line(told).endswith("(its record does not cover the model that it was trained from)")
    assert [compare_manifests([folder], test).train.partial_records for folder in (base, model)] == [0, 1]
    # And so it goes on.
    save_traces(other, [first], model)
    assert not check_model(other, test)["complete"]


def test_a_model_remembers_what_it_was_validated_on(corpora: Corpora, tmp_path: Path) -> None:
    validation, test, clean = corpora.write("validation", range(3)), corpora.write("test", range(2, 4)), corpora.write("clean", range(30, 32))
    base, model = tmp_path / "base", tmp_path / "model"
    for folder in (base, model):
        folder.mkdir()
    told = check_choice(model, test)
    assert (told["known"], told["chosen_on_this_data"]) == (False, None)
    assert told["why"] == "choice of checkpoint not checked: the model has no record of what it was validated on"
    save_traces(base, [validation], record=VALIDATION_TRACES)
    save_traces(model, [], base, record=VALIDATION_TRACES)
    told = check_choice(model, test)
    assert (told["known"], told["chosen_on_this_data"], told["clips"]) == (True, True, 1)
    assert told["why"].startswith("not a clean test: 1 of these clips were validated on")
    assert check_choice(model, clean)["chosen_on_this_data"] is False
    # Trained from a model without a record: what is known is not all.
    save_traces(model, [], tmp_path / "other", record=VALIDATION_TRACES)
    assert not check_choice(model, clean)["known"]
    assert not check_model(model, test)["checked"]


def test_without_sound_nothing_says_whether_rows_chose_the_checkpoint(corpora: Corpora, tmp_path: Path) -> None:
    save_traces(tmp_path, [corpora.write("validation", range(3))], record=VALIDATION_TRACES)
    write_manifest(tmp_path / "asked.jsonl", [{"id": "a", "prompt": "What is the capital of Norway?", "response": "Oslo"}])
    told = check_choice(tmp_path, tmp_path / "asked.jsonl")
    assert (told["known"], told["chosen_on_this_data"]) == (False, None)
    assert told["why"] == "choice of checkpoint not checked: none of these rows has a clip with sound, or a picture"


def test_a_broken_record_is_told_and_does_not_stop(corpora: Corpora, tmp_path: Path) -> None:
    test = corpora.write("test", range(2))
    (tmp_path / TRAINING_TRACES).write_bytes(b"nonsense")
    told = check_model(tmp_path, test)
    assert not told["checked"]
    assert summary_line(told).startswith(f"leakage not checked: {tmp_path / TRAINING_TRACES}: no traces")


def test_a_touch_says_what_there_is() -> None:
    touch = compare([row("a", speaker="x")], [row("t", speaker="x")]).first("speakers")
    assert touch.as_dict() == {"test": "t", "train": "a", "origin": "the training data", "name": "x"}
    assert replace(touch, name=None).as_dict() == {"test": "t", "train": "a", "origin": "the training data"}
