"""`audiograft transcribe` with an engine that writes down each clip's name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiograft.audio import load_audio
from audiograft.cli import main
from audiograft.inference.engine import Engine
from audiograft.types import TRANSCRIBE_PROMPT, AudioError, ConfigError, Segment, Transcript


class EchoEngine:
    """Reads clips as the real engine does, and hears the stem of their names."""

    name = "echo"
    note: str | None = None

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], int, str]] = []

    def transcribe_many(
        self,
        sources: Sequence[str],
        *,
        batch_size: int,
        prompt: str,
        on_result: Callable[[int, Transcript | AudioError], None] = lambda index, result: None,
    ) -> list[Transcript | AudioError]:
        self.calls.append((list(sources), batch_size, prompt))
        results = [self._hear(source) for source in sources]
        for index, result in reversed(list(enumerate(results))):  # clips need not be done in order
            on_result(index, result)
        return results

    def _hear(self, source: str) -> Transcript | AudioError:
        try:
            clip = load_audio(source)
        except AudioError as error:
            return error
        text = f"this is {Path(source).stem}"
        return Transcript(source, text, clip.duration_s, self.name, (Segment(0.0, clip.duration_s, text),))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> EchoEngine:
    fake = EchoEngine()
    monkeypatch.setattr(Engine, "load", lambda *args, **kwargs: fake)
    return fake


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a clip of half a second; the working directory is where it lies."""
    monkeypatch.chdir(tmp_path)

    def write(name: str) -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, np.sin(np.arange(8000) / 10), 16_000)
        return name

    return write


def test_one_clip_is_its_text_alone(engine: EchoEngine, clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", clip("a.wav")]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("this is a\n", "")
    assert engine.calls == [(["a.wav"], 8, TRANSCRIBE_PROMPT)]


def test_several_clips_are_named(engine: EchoEngine, clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", clip("b.wav"), clip("a.wav"), "--batch-size", "3", "--prompt", "Listen."]) == 0
    assert capsys.readouterr().out == "b.wav: this is b\na.wav: this is a\n"
    assert engine.calls == [(["b.wav", "a.wav"], 3, "Listen.")]


def test_a_clip_given_twice_is_done_once(engine: EchoEngine, clip: Any) -> None:
    clip("calls/a.wav")
    assert main(["transcribe", "calls", "calls/a.wav", "./calls/*.wav"]) == 0
    assert [sources for sources, _, _ in engine.calls] == [["calls/a.wav"]]


def test_failing_inputs_are_named_the_others_are_done_and_the_exit_code_is_1(
    engine: EchoEngine, clip: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.wav").write_text("this is not audio")
    Path("empty").mkdir()
    assert main(["transcribe", "missing.wav", "text.wav", "empty", clip("good.wav")]) == 1
    printed = capsys.readouterr()
    assert printed.out == "good.wav: this is good\n"
    lines = printed.err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    for name in ("missing.wav", "text.wav", "empty"):
        assert sum(name in line for line in lines) == 1


def test_without_any_file_no_model_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load(*args: object, **kwargs: object) -> None:
        pytest.fail("the model was loaded")

    monkeypatch.setattr(Engine, "load", load)
    assert main(["transcribe", str(tmp_path)]) == 1


def test_unknown_model_is_exit_code_2(monkeypatch: pytest.MonkeyPatch, clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise ConfigError("unknown model x: give a folder")

    monkeypatch.setattr(Engine, "load", load)
    assert main(["transcribe", clip("a.wav"), "--model", "x"]) == 2
    assert capsys.readouterr().err == "error: unknown model x: give a folder\n"


def test_note_of_the_model_goes_to_stderr(engine: EchoEngine, clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    engine.note = "a miniature"
    assert main(["transcribe", clip("a.wav")]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("this is a\n", "note: a miniature\n")


def test_json_is_an_alias_of_the_format(engine: EchoEngine, clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    clip("a.wav")
    assert main(["transcribe", "a.wav", "--json"]) == 0
    alias = capsys.readouterr().out
    assert main(["transcribe", "a.wav", "--format", "json"]) == 0
    assert capsys.readouterr().out == alias
    assert json.loads(alias)[0]["text"] == "this is a"


def test_jsonl_rows_have_the_promised_keys(engine: EchoEngine, clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", clip("a.wav"), clip("b.wav"), "--format", "jsonl"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["audio"] for row in rows] == ["a.wav", "b.wav"]
    assert all(list(row) == ["audio", "text", "duration_s", "model", "segments"] for row in rows)


def test_out_writes_one_file_a_clip_and_numbers_equal_names(engine: EchoEngine, clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [clip("a.wav"), clip("x/a.wav"), clip("a-2.wav"), clip("y/a.flac")]
    assert main(["transcribe", *paths, "--out", "new/texts"]) == 0
    assert capsys.readouterr().out == ""
    written = {path.name: path.read_text() for path in Path("new/texts").iterdir()}
    assert written == {"a.txt": "this is a\n", "a-2.txt": "this is a\n", "a-2-2.txt": "this is a-2\n", "a-3.txt": "this is a\n"}


def test_out_that_is_a_file_is_one_line(engine: EchoEngine, clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("")
    assert main(["transcribe", clip("a.wav"), "--out", "taken"]) == 2
    assert capsys.readouterr().err == "error: taken: File exists; choose another path\n"


def test_timing_gives_each_clip_its_duration_and_real_time_factor(engine: EchoEngine, clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "--timing", clip("a.wav"), "missing.wav", clip("b.wav")]) == 1
    printed = capsys.readouterr()
    blocks = printed.out.strip().split("\n\n")
    assert [block.splitlines()[0] for block in blocks] == ["a.wav", "b.wav"]
    assert "this is a" in blocks[0]
    assert "0.50 s" in blocks[0]
    assert "real-time factor" in blocks[0]
    assert "missing.wav" in printed.err
    assert [(len(sources), batch_size) for sources, batch_size, _ in engine.calls] == [(1, 1)] * 3


def test_a_file_name_that_is_no_utf_8_costs_a_character_and_not_the_run(engine: EchoEngine, clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        os.rename(clip("c.wav"), "bad\udcff.wav")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    assert main(["transcribe", "bad\udcff.wav", clip("a.wav")]) == 0
    assert capsys.readouterr().out == "bad\\udcff.wav: this is bad\\udcff\na.wav: this is a\n"
