"""`audiograft detect` with a tiny random model: text, JSON lines, CSV; notes on stderr, results alone on stdout; every wrong input one line."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import soundfile

from audiograft.cli import main
from audiograft.inference.choices import DEFAULT_QUESTION, ClosedQuestion
from audiograft.inference.engine import Engine

OWN = ClosedQuestion("Speech?\n<audio>", {"SPEECH": "A", "NONSPEECH": "B"}, None, 0.7, 0.45, {"manifest": "dev.jsonl", "sha256": "0", "clips": 9})


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a question of its own."""
    folder = tmp_path_factory.mktemp("models") / "detector"
    model, processor = builders.graft()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    OWN.write(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(detector: Path) -> Engine:
    return Engine.load(detector, "cpu")


@pytest.fixture
def clips(tmp_path: Path, loaded: Engine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: sounds/ holds three short clips, one of them silent, and long.wav has 2 s. All models are the loaded one."""
    monkeypatch.setattr(Engine, "load", lambda *args, **kwargs: loaded)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name, seconds in (("a", 0.3), ("bb", 0.6)):
        soundfile.write(folder / f"{name}.wav", builders.tone(seconds), 16_000)
    soundfile.write(folder / "silence.wav", np.zeros(4_800, np.float32), 16_000)
    soundfile.write("long.wav", builders.tone(2.0), 16_000)
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> tuple[str, str]:
    assert main(["detect", *map(str, words), "--device", "cpu"]) == code
    out, err = capsys.readouterr()
    return out, err


def test_a_line_a_clip_in_columns(detector: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "sounds", "--model", detector)
    assert err == ""
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["sounds/a.wav", "sounds/bb.wav", "sounds/silence.wav"]
    assert lines[2] == "sounds/silence.wav  NONSPEECH  P(SPEECH) 0.000"
    assert len({line.index(line.split()[1]) for line in lines}) == 1
    found = Engine.load(detector, "cpu").detect("sounds/a.wav")
    assert lines[0].split()[1:] == [found.predicted, "P(SPEECH)", f"{found.speech_prob:.3f}"]


def test_json_lines(detector: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, clips, "long.wav", "--model", detector, "--format", "jsonl", "--threshold", "0", "--speech-pad-ms", "0")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [list(row) for row in rows] == [["audio", "predicted", "speech_prob", "duration_s"]] * 3 + [
        ["audio", "predicted", "speech_prob", "duration_s", "segments"]
    ]
    assert rows[2] == {"audio": str(clips / "silence.wav"), "predicted": "SPEECH", "speech_prob": 0.0, "duration_s": 0.3}
    [segment] = rows[3]["segments"]
    assert segment == {"start_s": 0.0, "end_s": 2.0, "speech_prob": pytest.approx(rows[3]["speech_prob"], abs=0.1)}


def test_csv(detector: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clips / "a.wav").rename(clips / 'a, "b".wav')
    out, _ = run(capsys, clips, "long.wav", "--model", detector, "-f", "csv", "--threshold", "0")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ["audio", "predicted", "speech_prob", "duration_s", "segments"]
    assert rows[0]["audio"] == str(clips / 'a, "b".wav')
    assert [row["segments"] for row in rows] == ["", "", "", "0-2"]


def test_segments_are_lines_of_their_own(detector: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "long.wav", "--model", detector, "--threshold", "0")
    first, second = out.splitlines()
    assert first.startswith("long.wav  SPEECH     P(SPEECH) 0.")
    assert second.split()[:4] == ["0.00", "-", "2.00", "s"]
    out, _ = run(capsys, "long.wav", "--model", detector, "--threshold", "1")
    assert out.startswith("long.wav  NONSPEECH  P(SPEECH) 0.")
    assert len(out.splitlines()) == 1
    assert len(run(capsys, "long.wav", "--model", detector, "--threshold", "0", "--whole")[0].splitlines()) == 1
    assert len(run(capsys, "sounds/a.wav", "--model", detector, "--threshold", "0", "--segments")[0].splitlines()) == 2


def test_temperature_and_prompt_replace_the_model_s_own(detector: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def prob(*words: str) -> float:
        return float(json.loads(run(capsys, "sounds/a.wav", "--model", detector, "-f", "jsonl", *words)[0])["speech_prob"])

    own, flat = prob(), prob("--temperature", "1.4")
    assert np.log(own / (1 - own)) == pytest.approx(2 * np.log(flat / (1 - flat)), abs=1e-4)
    assert prob("--prompt", "Is it?") != own
    _, err = run(capsys, "sounds/a.wav", "--model", detector, "--prompt", "Is it?")
    assert err.splitlines() == [f"note: {detector}: with another prompt than its own the probability is not calibrated"]


def test_a_note_about_transcripts_is_not_for_a_detector(
    detector: Path, clips: Path, loaded: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loaded, "note", "it writes English")
    assert run(capsys, "sounds/a.wav", "--model", detector)[1] == ""
    assert "note: it writes English" in run(capsys, "sounds/a.wav", "--model", "tiny")[1]


def test_a_question_that_was_never_calibrated_says_so(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    ClosedQuestion(OWN.prompt, OWN.answers).write("model")
    assert run(capsys, "sounds/a.wav", "--model", "model")[1] == "note: model: before `audiograft calibrate` the probability is not calibrated\n"
    (tmp_path / "model" / "detection.json").unlink()
    _, err = run(capsys, "sounds/a.wav", "--model", "model")
    assert "model has no detection.json" in err
    assert " ".join(DEFAULT_QUESTION.prompt.split()) in err
    assert "not calibrated" in err
    assert run(capsys, "sounds/a.wav", "--model", "tiny")[1].startswith("warning: tiny was never trained to detect speech")


def test_any_choices(detector: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, clips, "long.wav", "--model", detector, "--choices", "dog, car,rain", "--format", "jsonl")
    # It learnt one question alone, and what it says to another would pass for knowledge.
    assert err.startswith(f"warning: {detector} learnt to tell SPEECH, NONSPEECH alone, so that its answers mean nothing")
    assert len(err.splitlines()) == 1
    for row in map(json.loads, out.splitlines()):
        assert list(row) == ["audio", "predicted", "probabilities", "duration_s"]
        assert list(row["probabilities"]) == ["dog", "car", "rain"]
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=3e-6)
        assert row["predicted"] == max(row["probabilities"], key=row["probabilities"].get)
    assert next(csv.reader(io.StringIO(run(capsys, clips, "--model", detector, "--choices", "dog,car,rain", "-f", "csv")[0]))) == [
        "audio", "predicted", "prob_dog", "prob_car", "prob_rain", "duration_s",
    ]  # fmt: skip
    text, _ = run(capsys, clips, "--model", detector, "--choices", "dog,car,rain")
    assert all(
        line.split()[1] in ("dog", "car", "rain") and line.split()[2] == f"P({line.split()[1]})" and float(line.split()[3]) > 1 / 3
        for line in text.splitlines()
    )


def test_clips_that_cannot_be_used_are_errors_and_the_exit_code_is_1(detector: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write(clips / "aa-short.wav", np.ones(100, np.float32), 16_000)
    soundfile.write(clips / "aa-nan.wav", np.full(8_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    (clips / "aa-text.wav").write_text("no sound", encoding="utf-8")
    out, err = run(capsys, clips, "gone.wav", "--model", detector, code=1)
    assert len(out.splitlines()) == 3
    errors = err.splitlines()
    assert len(errors) == 4
    assert all(line.startswith("error: ") for line in errors)
    assert sum("6.2 ms is too short: give at least 20 ms" in line for line in errors) == 1
    assert sum("NaN" in line for line in errors) == 1


def test_a_manifest_stands_for_its_clips(detector: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clips / "list.jsonl").write_text('{"id": "1", "audio": "bb.wav", "label": "SPEECH"}\n', encoding="utf-8")
    out, _ = run(capsys, "sounds/list.jsonl", "--model", detector)
    assert len(out.splitlines()) == 1
    assert "bb.wav" in out


def test_a_threshold_that_turns_the_answer_is_said_once(detector: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note = "note: P(SPEECH) of 1.000 or more is called SPEECH: the threshold of this question\n"
    question = replace(OWN, threshold=1.0, temperature=100.0)
    probs = [Engine.load(detector, "cpu").detect(f"sounds/{name}.wav", question).speech_prob for name in ("a", "bb")]
    words = ("sounds", "--model", detector, "--temperature", "100")
    err = run(capsys, *words, "--threshold", "1")[1]
    assert err == (note if max(probs) >= 0.5 else "")
    assert run(capsys, *words, "--threshold", "0")[1] == note.replace("1.000", "0.000")
    assert run(capsys, *words, "--threshold", "0", "--format", "jsonl")[1] == ""


def test_a_table_is_told_how_to_become_a_manifest(detector: Path, clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("m.csv").write_text("audio,label\nsounds/a.wav,SPEECH\n", encoding="utf-8")
    out, err = run(capsys, "m.csv", "--model", detector, code=2)
    assert out == ""
    assert err == "error: m.csv: a table is no manifest: make one of it with `audiograft prepare csv m.csv --out FOLDER`\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--choices", "dog"], "give two words or more"),
        (["--choices", "dog,,car"], "give two words or more"),
        (["--choices", "dog,car,dog"], "'dog' is there twice"),
        (["--choices", "dog,car,rain", "--threshold", "0.5"], "--threshold is between two answers"),
        (["--choices", "dog,car", "--segments"], "leave out --choices"),
        (["--threshold", "1.5"], "'--threshold': Input should be less than or equal to 1"),
        (["--temperature", "0"], "temperature must be above 0, not 0"),
        (["--window-ms", "5"], "window_ms must be between 20 and 30000, not 5"),
        (["--hop-ms", "1000"], "hop_ms must be between 10 and 300, not 1000"),
        (["--prompt", "<audio><audio>"], "2 <audio> markers"),
        (["--batch-size", "0"], "batch-size"),
    ],
)
def test_wrong_options_are_one_line(detector: Path, clips: Path, capsys: pytest.CaptureFixture[str], words: list[str], problem: str) -> None:
    out, err = run(capsys, "sounds", "--model", detector, *words, code=2)
    assert out == ""
    assert problem in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"answers": {"SPEECH": "speech", "NONSPEECH": "B"}}, "the answer 'speech' of SPEECH is 5 tokens"),
        ({"answers": {"SPEECH": "A", "NONSPEECH": "A"}}, "SPEECH and NONSPEECH share the token 'A'"),
        ({"answers": {"SPEECH": "A"}}, "two answers or more, not 1"),
        ({"threshold": "high"}, 'detection.json: threshold must be a number, not "high"'),
    ],
)
def test_a_detection_json_that_does_not_fit_is_one_line(
    clips: Path, capsys: pytest.CaptureFixture[str], content: dict[str, Any], problem: str
) -> None:
    Path("model").mkdir()
    Path("model/detection.json").write_text(
        json.dumps({"prompt": "?", "answers": OWN.answers, "chosen_on": {"clips": 1}} | content), encoding="utf-8"
    )
    out, err = run(capsys, "sounds", "--model", "model", "--format", "csv", code=2)
    assert out == ""
    assert problem in err
    assert len(err.splitlines()) == 1
