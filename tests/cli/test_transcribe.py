"""`audiograft transcribe` with an engine that writes down each clip's name."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Sequence
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from audiograft.audio import load_audio
from audiograft.cli import main
from audiograft.inference.engine import Engine
from audiograft.inference.writers import render
from audiograft.types import TRANSCRIBE_PROMPT, AudioError, ConfigError, Segment, Transcript


class EchoEngine:
    """Reads clips as the real engine does, and hears the stem of their names."""

    name = "echo"
    note: str | None = None

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], int, str]] = []
        self.limits: list[int | None] = []
        self.interrupted_after: int | None = None

    def transcribe_many(
        self,
        sources: Sequence[str],
        *,
        batch_size: int,
        prompt: str,
        on_result: Callable[[int, Transcript | AudioError], None] = lambda index, result: None,
        **decoding: Any,
    ) -> list[Transcript | AudioError]:
        self.calls.append((list(sources), batch_size, prompt))
        self.limits.append(decoding["max_new_tokens"])
        results = list(enumerate(map(self._hear, sources)))
        done = results[: self.interrupted_after]
        for index, result in reversed(done):  # clips need not be done in order
            on_result(index, result)
        if len(done) < len(results):
            raise KeyboardInterrupt
        return [result for _, result in results]

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


def test_terms_of_a_file_stand_behind_the_instruction(engine: EchoEngine, clip: Any) -> None:
    Path("names.txt").write_text("# people\nŁódź\nNwosu\n", encoding="utf-8")
    assert main(["transcribe", clip("a.wav"), "--context", "names.txt", "--prompt", "Listen."]) == 0
    [(_, _, prompt)] = engine.calls
    assert prompt == "Listen.\nThese names and words may come up; where one does, spell it like this: Łódź; Nwosu."


def test_terms_that_can_not_be_used_are_one_line_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, clip: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Engine, "load", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    Path("names.txt").write_text("Nwosu\nthe <audio> tag\n", encoding="utf-8")
    for file, expected in (("none.txt", "none.txt: can't be read (No such file"), ("names.txt", "names.txt:2: the term 'the <audio> tag' contains")):
        assert main(["transcribe", clip("a.wav"), "--context", file]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(f"error: {expected}")
        assert printed.err.count("\n") == 1


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
    assert all(list(row) == ["audio", "text", "duration_s", "model", "segments", "confidence"] for row in rows)


def test_out_writes_one_file_a_clip_and_numbers_equal_names(engine: EchoEngine, clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [clip("a.wav"), clip("x/a.wav"), clip("a-2.wav"), clip("y/a.flac")]
    assert main(["transcribe", *paths, "--out", "new/texts"]) == 0
    assert capsys.readouterr().out == ""
    written = {path.name: path.read_text() for path in Path("new/texts").iterdir()}
    assert written == {"a.txt": "this is a\n", "a-2.txt": "this is a\n", "a-2-2.txt": "this is a-2\n", "a-3.txt": "this is a\n"}


def test_out_files_are_put_in_place_whole(engine: EchoEngine, clip: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clip("a.wav")
    assert main(["transcribe", "a.wav", "--out", "texts"]) == 0

    def replace(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(EchoEngine, "_hear", lambda self, source: Transcript(source, "new", 0.5, "echo", ()))
    assert main(["transcribe", "a.wav", "--out", "texts"]) == 2
    assert capsys.readouterr().err.startswith("error: texts/a.txt: can't be written (No space left on device)")
    assert {path.name: path.read_text() for path in Path("texts").iterdir()} == {"a.txt": "this is a\n"}


@pytest.mark.parametrize("file_format", ["text", "jsonl"])
def test_what_was_done_before_an_interrupt_is_printed(engine: EchoEngine, clip: Any, file_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [clip(f"{name}.wav") for name in "dcba"]
    engine.interrupted_after = 3
    assert main(["transcribe", *paths, "--format", file_format]) == 130
    lines = capsys.readouterr().out.splitlines()
    names = [json.loads(line)["audio"] for line in lines] if file_format == "jsonl" else [line.partition(":")[0] for line in lines]
    assert names == paths[:3]


def test_lines_are_printed_as_soon_as_all_before_them_are_done(clip: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    paths = [clip("a.wav"), "missing.wav", clip("b.wav"), clip("c.wav")]
    printed = []

    class Watched(EchoEngine):
        def transcribe_many(self, sources: Sequence[str], *, on_result: Any, **options: Any) -> list[Transcript | AudioError]:
            results = list(map(self._hear, sources))
            for index in (2, 0, 1, 3):
                on_result(index, results[index])
                printed.append(capsys.readouterr().out)
            return results

    monkeypatch.setattr(Engine, "load", lambda *args, **kwargs: Watched())
    assert main(["transcribe", *paths]) == 1
    assert printed == ["", "a.wav: this is a\n", "b.wav: this is b\n", "c.wav: this is c\n"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("file_format", ["json", "srt", "vtt"])
def test_formats_that_are_one_document_come_whole_or_not_at_all(
    engine: EchoEngine, clip: Any, file_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [clip("a.wav"), clip("b.wav")]
    assert main(["transcribe", *paths, "--format", file_format]) == 0
    whole = [engine._hear(path) for path in paths]
    assert capsys.readouterr().out == render([result for result in whole if isinstance(result, Transcript)], file_format)
    engine.interrupted_after = 1
    assert main(["transcribe", *paths, "--format", file_format]) == 130
    assert capsys.readouterr().out == ""


def test_the_limit_of_tokens_reaches_the_engine(engine: EchoEngine, clip: Any) -> None:
    clip("a.wav")
    assert main(["transcribe", "a.wav"]) == 0
    assert main(["transcribe", "a.wav", "--max-new-tokens", "7"]) == 0
    assert main(["transcribe", "a.wav", "--timing", "--max-new-tokens", "9"]) == 0
    assert engine.limits == [None, 7, 9]


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


@pytest.mark.parametrize("options", [[], ["--timing"], ["--format", "jsonl"], ["--format", "json"]])
def test_a_file_name_that_is_no_utf_8_costs_a_character_and_not_the_run(
    engine: EchoEngine, clip: Any, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        os.rename(clip("c.wav"), "bad\udcff.wav")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    # Strict, as where the commands are called from Python and not by `main`, which sets the stream of the process up.
    out = TextIOWrapper(BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(out, "reconfigure", lambda **options: None, raising=False)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["transcribe", "bad\udcff.wav", clip("a.wav"), *options]) == 0
    out.seek(0)
    printed = out.read()
    assert "bad\\udcff.wav" in printed
    assert "this is a" in printed


def test_a_file_name_that_is_no_utf_8_can_be_written_into_a_folder(engine: EchoEngine, clip: Any) -> None:
    try:
        os.rename(clip("c.wav"), "bad\udcff.wav")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    assert main(["transcribe", "bad\udcff.wav", "--out", "texts"]) == 0
    assert Path("texts", "bad\udcff.txt").read_text() == "this is bad\\udcff\n"


def test_a_manifest_stands_for_its_clips(engine: EchoEngine, clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    clip("made/a.wav")
    clip("made/b.wav")
    clip("c.wav")
    rows = [{"id": "pair", "audio": ["b.wav", "a.wav"], "prompt": "same?", "response": "yes"}, {"id": "text", "prompt": "x", "response": "y"}]
    Path("made/manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["transcribe", "made/manifest.jsonl", "c.wav"]) == 0
    assert engine.calls[0][0] == ["made/b.wav", "made/a.wav", "c.wav"]
    Path("made/manifest.jsonl").write_text(json.dumps({"id": "out", "audio": "../c.wav", "text": "x"}) + "\n")
    assert main(["transcribe", "made/manifest.jsonl"]) == 2
    assert "--allow-outside" in capsys.readouterr().err
    assert main(["transcribe", "made/manifest.jsonl", "--allow-outside"]) == 0
    assert len(engine.calls) == 2


def test_an_engine_that_can_not_be_is_one_line_before_a_model_is_loaded(clip: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", clip("a.wav"), "--address", "x"]) == 2
    assert "address x: it is that of a Ray cluster" in capsys.readouterr().err
    assert main(["transcribe", "a.wav", "--engine", "ray", "--timing"]) == 2
    assert "leave out --engine" in capsys.readouterr().err
