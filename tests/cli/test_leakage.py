"""`audiograft leakage`: its table, its JSON, and what it ends with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from babble import babble
from builders import picture

from audiograft.cli import main


def corpus(folder: Path, name: str, seeds: range) -> str:
    rows = []
    for seed in seeds:
        soundfile.write(folder / f"{name}-{seed}.wav", babble(1.5, seed), 16_000)
        rows.append({"id": f"{name}-{seed}", "audio": f"{name}-{seed}.wav", "text": f"{name} says sentence number {seed}", "speaker": "anna"})
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def train(tmp_path: Path) -> str:
    return corpus(tmp_path, "train", range(4))


def test_a_touch_is_shown_with_its_mend_and_ends_with_1(train: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = corpus(tmp_path, "test", range(3, 6))
    assert main(["leakage", train, test, "--allow", "texts"]) == 1
    printed = capsys.readouterr().out
    assert f"speakers: test row test-3, training row train-0 of {train} (anna)" in printed
    assert f"same audio: test row test-3, training row train-3 of {train}" in printed
    assert "shared speakers: split by speaker" in printed
    assert "shared audio: take these clips out" in printed
    assert "not compared: 4 rows name no recording" in printed
    assert printed.endswith("test data touches training data\n")


def test_as_many_as_wanted_are_named(train: str, capsys: pytest.CaptureFixture[str]) -> None:
    named = []
    for count in ("1", "9"):
        assert main(["leakage", train, train, "--examples", count]) == 1
        named.append(capsys.readouterr().out.count("same audio: test row"))
    assert named == [1, 4]


def test_a_speaker_of_two_files_of_one_corpus_is_found_when_both_were_prepared(train: str, tmp_path: Path) -> None:
    """No file's name becomes the name of a corpus, by which speakers of one name would be told apart."""
    files, test = {"train": train, "test": corpus(tmp_path, "test", range(9, 11))}, str(tmp_path / "prepared-test")
    for name, manifest in files.items():
        assert main(["prepare", "manifest", manifest, "--out", str(tmp_path / f"prepared-{name}")]) == 0
    assert main(["leakage", str(tmp_path / "prepared-train"), test, "--allow", "texts"]) == 1
    assert main(["leakage", str(tmp_path / "prepared-train"), test, "--allow", "texts,speakers"]) == 0


def test_what_is_allowed_ends_with_0(train: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other, test = corpus(tmp_path, "other", range(20, 22)), corpus(tmp_path, "test", range(9, 11))
    assert main(["leakage", train, other, test, "--allow", "speakers, texts"]) == 0
    assert capsys.readouterr().out.endswith("nothing is shared that is not allowed\n")
    assert main(["leakage", train, test, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["touches"], told["forbidden"], told["allowed"]) == (["speakers"], ["speakers"], [])


def test_a_clip_that_cannot_be_read_is_named(train: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = corpus(tmp_path, "test", range(9, 11))
    (tmp_path / "test-9.wav").unlink()
    assert main(["leakage", train, test, "--allow", "speakers"]) == 0
    printed = capsys.readouterr().out
    assert "1 clips can't be read" in printed
    assert "row test-9: a clip can't be read" in printed
    assert printed.endswith("nothing is shared that is not allowed, as far as it could be compared\n")


def test_test_data_of_which_no_row_fits_is_not_clean(train: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = tmp_path / "inner" / "test.jsonl"
    outside.parent.mkdir()
    outside.write_text('{"id": "a", "audio": "../train-0.wav", "text": "x"}\n')
    for pair in ([train, str(outside)], [str(outside), train]):
        assert main(["leakage", *pair]) == 2
        assert "none of its 1 rows fits, so there is nothing to compare; the first: " in capsys.readouterr().err
    assert main(["leakage", train, str(outside), "--allow-outside"]) == 1


def test_pictures_are_shown_and_may_be_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, images in {"train": ["60", "90"], "test": ["90", "gone"]}.items():
        rows = [{"id": f"{name}-{image}", "image": f"{image}.png", "prompt": f"{name}, what?", "response": f"{image} of {name}"} for image in images]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for level in (60, 90):
        picture(level).save(tmp_path / f"{level}.png")
    pair = [str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")]
    assert main(["leakage", *pair]) == 1
    printed = capsys.readouterr().out
    assert f"same pictures: test row test-90, training row train-90 of {pair[0]}" in printed
    assert "shared pictures: take them out on one side" in printed
    assert "test data: 2 rows, 0 clips, 2 pictures; not compared: 1 pictures can't be read" in printed
    assert "row test-gone: a picture can't be read" in printed
    assert main(["leakage", *pair, "--allow", "pictures"]) == 0
    assert capsys.readouterr().out.endswith("nothing is shared that is not allowed, as far as it could be compared\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["{train}"], "name training data and test data: TRAIN TEST"),
        (["{train}", "{train}", "--allow", "voices"], "--allow voices: choose among speakers, recordings, texts, audio, pictures"),
        (["{train}", "nowhere.jsonl"], "nowhere.jsonl: no such manifest"),
    ],
)
def test_wrong_usage_is_one_line_and_2(train: str, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leakage", *(word.format(train=train) for word in words)]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
