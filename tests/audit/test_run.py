"""Loading a run for review: where its audio is found, what is counted, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from reviewed import write_run

from audiograft.audit.run import AuditRun, load_run
from audiograft.metrics.word_errors import ErrorCounts
from audiograft.types import ConfigError, DataError

TEXTS = [("One two three four", "one two free four"), ("hello", "hello there"), ("stop", "Stop")]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "clips").mkdir(parents=True)
    for row in range(3):
        (folder / "clips" / f"{row}.wav").write_bytes(b"never opened")
    return folder


def evaluated(folder: Path, corpus: Path, settings: dict[str, Any] | None = None, **columns: Any) -> Path:
    """A run folder as `evaluate` leaves it: clips as the manifest names them, and a run.json that names the manifest."""
    columns.setdefault("audio", [f"clips/{row}.wav" for row in range(3)])
    write_run(folder, TEXTS, **columns)
    for clip in folder.glob("*.wav"):
        clip.unlink()
    told = {"manifest": str(corpus / "manifest.jsonl"), "normaliser": {"name": "none", "version": "1"}} if settings is None else settings
    (folder / "run.json").write_text(json.dumps(told))
    return folder


def test_clips_have_their_audio_and_their_errors(tmp_path: Path, corpus: Path) -> None:
    folder = evaluated(tmp_path / "run", corpus, token_logprobs=[[0.0, 0.0], [], []])
    run = load_run(folder)
    assert [clip.path for clip in run.clips] == [(corpus / "clips" / f"{row}.wav",) for row in range(3)]
    assert (run.name, run.normaliser.name, run.manifest) == ("run", "none", corpus / "manifest.jsonl")
    assert run.clips[0].errors == ErrorCounts(hits=2, substitutions=2)  # "none" keeps the capital of One
    assert [clip.wer for clip in run.clips] == [0.5, 1.0, 1.0]
    assert [clip.kind for clip in run.clips] == ["mismatch", "partial", "exact"]
    assert [clip.confidence for clip in run.clips] == [1.0, None, None]
    assert [edit.kind for edit in run.clips[0].diff] == ["same", "equal", "substitute", "equal"]
    assert run.fingerprint == hashlib.sha256((folder / "predictions.jsonl").read_bytes()).hexdigest()[:16]
    assert (run.verdicts_path, run.sample_path) == (folder / "verdicts.jsonl", folder / "audit.json")
    assert run.notes == ()


def test_a_lone_predictions_file_keeps_its_verdicts_under_its_own_name(tmp_path: Path) -> None:
    write_run(tmp_path, TEXTS)
    lone = (tmp_path / "predictions.jsonl").rename(tmp_path / "theirs.jsonl")
    run = load_run(lone)
    assert (run.name, run.normaliser.name, run.manifest) == ("theirs.jsonl", "lower", None)
    assert run.verdicts_path == tmp_path / "theirs.verdicts.jsonl"
    assert all(clip.path for clip in run.clips)


def test_audio_that_is_gone_is_counted_and_its_clip_stays(tmp_path: Path, corpus: Path) -> None:
    (corpus / "clips" / "1.wav").unlink()
    folder = evaluated(tmp_path / "run", corpus)
    run = load_run(folder)
    assert [bool(clip.path) for clip in run.clips] == [True, False, True]
    assert run.missing == 1
    assert run.notes == (f"1 of 3 clips: audio missing (the first: {corpus}/clips/1.wav): if it has moved, name its folder with --audio-root",)


def test_all_audio_gone_is_an_error_that_names_the_option(tmp_path: Path, corpus: Path) -> None:
    folder = evaluated(tmp_path / "run", corpus)
    moved = corpus.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"audio of all 3 clips is missing \(the first: .*0\.wav\).*--audio-root") as caught:
        load_run(folder)
    assert "\n" not in str(caught.value)
    assert load_run(folder, needs_audio=False).missing == 3
    assert [clip.path[0].parent for clip in load_run(folder, audio_root=moved).clips] == [moved / "clips"] * 3


@pytest.mark.parametrize("known", [True, False])
def test_absolute_paths_are_found_below_the_folder_to_which_they_moved(tmp_path: Path, corpus: Path, known: bool) -> None:
    """Below the manifest's folder, or where no manifest is known below the folder that all clips share."""
    folder = evaluated(tmp_path / "run", corpus, None if known else {}, audio=[str(corpus / "clips" / f"{row}.wav") for row in range(3)])
    moved = corpus.rename(tmp_path / "elsewhere")
    run = load_run(folder, audio_root=moved if known else moved / "clips")
    assert [clip.path for clip in run.clips] == [(moved / "clips" / f"{row}.wav",) for row in range(3)]


def test_a_row_of_several_clips_has_all_of_them_or_none(tmp_path: Path, corpus: Path) -> None:
    pairs = [["clips/0.wav", "clips/1.wav"], ["clips/0.wav", "clips/9.wav"], None]
    run = load_run(evaluated(tmp_path / "run", corpus, audio=pairs))
    assert [len(clip.path) for clip in run.clips] == [2, 0, 0]
    assert run.missing == 1  # a row without audio misses none


@pytest.mark.parametrize("name", ["../secret.wav", "/etc/passwd", "clips/../../secret.wav"])
def test_no_clip_outside_the_corpus_is_taken_unless_allowed(tmp_path: Path, corpus: Path, name: str) -> None:
    (tmp_path / "secret.wav").write_bytes(b"x")
    folder = evaluated(tmp_path / "run", corpus, audio=["clips/0.wav", name, "clips/2.wav"])
    with pytest.raises(DataError, match=r"row 'clip-00001'.*--allow-outside"):
        load_run(folder)
    assert load_run(folder, allow_outside=True).clips[1].path


def test_failed_clips_are_apart_and_counted(tmp_path: Path, corpus: Path) -> None:
    folder = evaluated(tmp_path / "run", corpus, error=[None, "1.wav: no such file", None])
    run = load_run(folder)
    assert [clip.prediction.id for clip in run.clips] == ["clip-00000", "clip-00002"]
    assert [clip.index for clip in run.clips] == [0, 1]
    assert [row.error for row in run.failed] == ["1.wav: no such file"]
    assert run.notes == ("1 of 3 clips failed and can't be judged; the first: 1.wav: no such file",)
    every = evaluated(tmp_path / "all", corpus, error=["broken"] * 3)
    with pytest.raises(DataError, match="all 3 clips failed, so there is nothing to judge"):
        load_run(every)


def test_what_is_odd_is_told_in_a_line(tmp_path: Path) -> None:
    silent = load_run(write_run(tmp_path / "silent", [("one", ""), ("two", " ")]))
    assert [note.partition(":")[0] for note in silent.telling_notes] == ["all 2 hypotheses are empty"]
    wordless = load_run(write_run(tmp_path / "wordless", [("", "oh no"), ("two", "two")]))
    assert [note.partition(":")[0] for note in wordless.telling_notes] == ["1 of 2 references have no words once normalised"]
    assert (silent.notes, wordless.notes) == ((), ())  # these a blind session is told too
    assert wordless.clips[0].wer == 2


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ("{", "run.json: can't be read"),
        ("[1]", 'run.json: "manifest" must be a path'),
        ('{"manifest": 7}', 'run.json: "manifest" must be a path'),
        ('{"normaliser": "lower"}', 'run.json: "manifest" must be a path'),
        ('{"normaliser": {"name": "upper"}}', "unknown normaliser 'upper'"),
    ],
)
def test_a_run_json_that_does_not_fit_is_refused(tmp_path: Path, told: str, line: str) -> None:
    folder = write_run(tmp_path / "run", TEXTS)
    (folder / "run.json").write_text(told)
    with pytest.raises((DataError, ConfigError), match=line):
        load_run(folder)


def test_two_rows_of_one_id_are_refused(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", TEXTS, id=["a", "b", "a"])
    with pytest.raises(DataError, match=r"predictions\.jsonl:3: id 'a' stands in line 1 already"):
        load_run(folder)


def test_ten_thousand_clips_load_without_opening_any(tmp_path: Path) -> None:
    texts = [
        (f"one two three four five six seven eight nine ten number {row}", f"one two free four five six ate nine ten number {row}")
        for row in range(10_000)
    ]
    folder = write_run(tmp_path / "run", texts)
    for clip in folder.glob("*.wav"):
        clip.write_bytes(b"no audio")
    start_s = time.process_time()
    run: AuditRun = load_run(folder)
    assert time.process_time() - start_s < 2
    assert len(run.clips) == 10_000


def test_a_run_that_moved_with_its_corpus_is_found_by_a_relative_manifest(tmp_path: Path, corpus: Path) -> None:
    folder = evaluated(tmp_path / "run", corpus, {"manifest": "../corpus/manifest.jsonl"})
    moved = tmp_path / "away"
    moved.mkdir()
    for place in (folder, corpus):
        shutil.move(place, moved)
    assert all(clip.path for clip in load_run(moved / "run").clips)
