"""`audiograft ask` with a tiny random model: one question, one a clip, a conversation; what is printed, and the exit codes."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import builders
import pytest
import soundfile
import torch

from audiograft.cli import main
from audiograft.inference.engine import Engine
from audiograft.inference.questions import Question
from audiograft.model import load_graft
from audiograft.types import Answer, AudioError


@pytest.fixture(scope="module")
def random_engine() -> Engine:
    model, processor = builders.graft()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.mul_(6)
    # Printable letters alone, so that a line is an answer.
    letters = processor.tokenizer("abcdefghijklmnopqrstuvwxyz", add_special_tokens=False)["input_ids"]
    model.language_model.generation_config.suppress_tokens = sorted(set(range(builders.VOCABULARY_ROWS)) - set(letters))
    return Engine(model, processor, "random")


@pytest.fixture
def engine(random_engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    """The working directory holds a.wav and b.wav."""
    monkeypatch.setattr(Engine, "load", lambda *args, **kwargs: random_engine)
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate("ab"):
        soundfile.write(f"{name}.wav", builders.tone(0.3 + 0.2 * number, 300.0 + 500 * number), 16_000)
    return random_engine


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["ask", *words, "--max-new-tokens", "8"]) == code
    return capsys.readouterr().out


def test_one_question_about_a_clip_two_clips_and_none(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {
        ("a.wav", "--prompt", "Who?"): engine.ask("a.wav", "Who?", max_new_tokens=8),
        ("a.wav", "b.wav", "--prompt", "Is <audio> like <audio>?"): engine.ask(["a.wav", "b.wav"], "Is <audio> like <audio>?", max_new_tokens=8),
        ("--prompt", "Two and two?"): engine.ask(prompt="Two and two?", max_new_tokens=8),
        ("a.wav",): engine.ask("a.wav", max_new_tokens=8),
    }
    assert [run(capsys, *words) for words in asked] == [f"{answer.text}\n" for answer in asked.values()]
    assert len({answer.text for answer in asked.values()}) == len(asked)


def test_options_of_decoding_and_the_system_prompt_arrive(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    ways = ([], ["--num-beams", "3"], ["--temperature", "0.1", "--seed", "1"], ["--temperature", "0.1", "--top-p", "0.5"], ["--system", "Be brief."])
    printed = [run(capsys, "a.wav", "--prompt", "Who?", *way) for way in ways]
    assert printed == [run(capsys, "a.wav", "--prompt", "Who?", *way) for way in ways]
    assert len(set(printed)) >= 4
    assert main(["transcribe", "a.wav", "--num-beams", "3", "--max-new-tokens", "8"]) == 0
    assert capsys.readouterr().out == engine.transcribe("a.wav", num_beams=3, max_new_tokens=8).text + "\n"


def test_json_is_one_object(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    row = json.loads(run(capsys, "a.wav", "--prompt", "Who?", "--json"))
    answer = engine.ask("a.wav", "Who?", max_new_tokens=8)
    assert row.pop("confidence") == pytest.approx(answer.confidence, abs=1e-4)
    assert row == {"text": answer.text, "prompt": "Who?", "clips": ["a.wav"], "duration_s": 0.3, "model": "random"}


def test_each_asks_about_each_clip_in_order(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    alone = [engine.ask(name, "Who?", max_new_tokens=8).text for name in ("b.wav", "a.wav")]
    assert run(capsys, "b.wav", "a.wav", "--each", "--prompt", "Who?") == f"b.wav: {alone[0]}\na.wav: {alone[1]}\n"
    rows = [json.loads(line) for line in run(capsys, ".", "--each", "--prompt", "Who?", "--json", "--batch-size", "1").splitlines()]
    assert [(row["clips"], row["text"], row["prompt"]) for row in rows] == [(["a.wav"], alone[1], "Who?"), (["b.wav"], alone[0], "Who?")]


def test_failing_clips_are_named_and_the_exit_code_is_1(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "a.wav", "missing.wav", "--each", "--prompt", "Who?", "--max-new-tokens", "1"]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("a.wav: ")
    assert printed.err.count("error: ") == 1
    assert "missing.wav: no such file" in printed.err
    for words in (["missing.wav"], ["a.wav", "missing.wav"], ["empty"]):
        Path("empty").mkdir(exist_ok=True)
        assert main(["ask", *words, "--prompt", "Who?"]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "there is no question: give a clip, --prompt, or both"),
        (["--each", "--prompt", "x"], "--each needs paths"),
        (["a.wav", "--each", "--chat"], "--each needs paths, and --chat has one conversation"),
        (["a.wav", "--prompt", "<audio> or <audio>?"], "2 <audio> markers in the prompt but 1 clip"),
        (["a.wav", "b.wav", "--each", "--prompt", "<audio> or <audio>?"], "2 <audio> markers in the prompt but 1 clip"),
        (["--image", "scene.png"], "there is no question: give a clip, --prompt, or both"),
        (["--image", "scene.png", "--prompt", "<image> or <image>?"], "2 <image> markers in the prompt but 1 image"),
        (["a.wav", "--prompt", "Is <audio> like <video>?"], "1 <video> marker in the prompt but 0 videos"),
        (["a.wav", "--top-p", "0.9"], "top_p does nothing at temperature 0"),
        (["a.wav", "--top-p", "0", "--temperature", "1"], "top_p must be above 0"),
        (["a.wav", "--top-p", "2", "--temperature", "1"], "--top-p"),
        (["a.wav", "--temperature", "-1"], "--temperature"),
        (["a.wav", "--num-beams", "0"], "--num-beams"),
    ],
)
def test_wrong_usage_is_one_line_before_a_model_is_loaded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    monkeypatch.setattr(Engine, "load", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    assert main(["ask", *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert expected in line


class Recorder:
    """Answers every question with its number, and keeps what it was asked."""

    name, note = "recorder", None

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], list[Any]]] = []

    def ask(self, clips: Sequence[str], *, messages: list[Any], stream: Any, **decoding: Any) -> Answer:
        Question(clips, messages=messages).placed()
        if "missing.wav" in clips:
            raise AudioError("missing.wav: no such file")
        self.asked.append((list(clips), messages))
        if stream:
            for word in ("number", f" {len(self.asked)}"):
                stream(word)
        return Answer(f"number {len(self.asked)}", "", tuple(clips), 1.0, self.name)


@pytest.fixture
def recorder(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    fake = Recorder()
    monkeypatch.setattr(Engine, "load", lambda *args, **kwargs: fake)
    return fake


CLIP = {"type": "audio"}


def words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def test_a_conversation_goes_on_with_what_is_piped_in(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n And where? \nb.wav\n"))
    assert main(["ask", "a.wav", "--chat", "--prompt", "Who?", "--system", "Be brief."]) == 0
    assert capsys.readouterr().out == "number 1\nnumber 2\nnumber 3\n"
    assert recorder.asked[-1] == (
        ["a.wav", "b.wav"],
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [CLIP, words("\nWho?")]},
            {"role": "assistant", "content": "number 1"},
            {"role": "user", "content": [words("And where?")]},
            {"role": "assistant", "content": "number 2"},
            {"role": "user", "content": [CLIP]},
        ],
    )


def test_a_conversation_may_begin_with_a_clip_or_a_typed_question(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("b.wav\n"))
    assert main(["ask", "a.wav", "--chat", "--json"]) == 0
    assert recorder.asked == [(["a.wav", "b.wav"], [{"role": "user", "content": [CLIP, CLIP]}])]
    assert json.loads(capsys.readouterr().out)["prompt"] == "b.wav"
    monkeypatch.setattr("sys.stdin", io.StringIO("Two and two?\n"))
    assert main(["ask", "--chat", "--json"]) == 0
    assert recorder.asked[-1] == ([], [{"role": "user", "content": [words("Two and two?")]}])
    assert json.loads(capsys.readouterr().out)["prompt"] == "Two and two?"


def test_a_conversation_survives_a_question_that_can_not_be_asked(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Hear <audio>\nAnd where?\n"))
    assert main(["ask", "a.wav", "--chat", "--prompt", "Who?"]) == 1
    printed = capsys.readouterr()
    assert printed.out == "number 1\nnumber 2\n"
    assert printed.err.startswith("error: 1 <audio> marker in the prompt but 0 clips")
    assert len(recorder.asked[-1][1]) == 3


def test_a_real_conversation_remembers(engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("And where?\n"))
    first, second = run(capsys, "a.wav", "--chat", "--prompt", "Who?").splitlines()
    turns = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And where?"},
    ]
    assert engine.ask("a.wav", messages=turns, max_new_tokens=8).text == second


def test_words_come_one_by_one_on_a_terminal(recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["ask", "a.wav", "--prompt", "Who?"]) == 0
    assert capsys.readouterr().out == "number 1\n"


@pytest.fixture(scope="module")
def engine_with_eyes(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    model, processor = load_graft(builders.vlm_graft(tmp_path_factory.mktemp("graft"), initializer_range=0.4))
    letters = processor.tokenizer("abcdefghijklmnopqrstuvwxyz", add_special_tokens=False)["input_ids"]
    model.language_model.generation_config.suppress_tokens = sorted(set(range(builders.VOCABULARY_ROWS)) - set(letters))
    return Engine(model, processor, "seeing")


@pytest.fixture
def seeing(engine: Engine, engine_with_eyes: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The working directory holds scene.png and wide.png too."""
    monkeypatch.setattr(Engine, "load", lambda *args, **kwargs: engine_with_eyes)
    builders.picture(200).save("scene.png")
    builders.picture(90, 112, 28).save("wide.png")
    return engine_with_eyes


def test_a_picture_and_the_clip_that_asks_about_it(seeing: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {
        ("--image", "scene.png", "a.wav"): seeing.ask("a.wav", images="scene.png", max_new_tokens=8),
        ("--image", "wide.png", "a.wav"): seeing.ask("a.wav", images="wide.png", max_new_tokens=8),
        ("--image", "scene.png", "--prompt", "What?"): seeing.ask(prompt="What?", images="scene.png", max_new_tokens=8),
        ("a.wav", "--image", "scene.png", "--image", "wide.png", "--prompt", "<audio> <image> or <image>?"): seeing.ask(
            "a.wav", "<audio> <image> or <image>?", images=["scene.png", "wide.png"], max_new_tokens=8
        ),
    }
    assert [run(capsys, *words) for words in asked] == [f"{answer.text}\n" for answer in asked.values()]
    assert len({answer.text for answer in asked.values()}) == len(asked)
    row = json.loads(run(capsys, "--image", "scene.png", "a.wav", "--json"))
    assert (row["images"], row["clips"], row["prompt"]) == (["scene.png"], ["a.wav"], "")
    assert "videos" not in row


def test_each_clip_is_asked_beside_the_same_picture(seeing: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    alone = [seeing.ask(name, images="scene.png", max_new_tokens=8).text for name in ("a.wav", "b.wav")]
    assert run(capsys, "a.wav", "b.wav", "--each", "--image", "scene.png") == f"a.wav: {alone[0]}\nb.wav: {alone[1]}\n"


def test_pictures_are_looked_at_before_a_model_is_loaded(engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Engine, "load", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    builders.picture(200).save("scene.png")
    Path("empty.png").touch()
    address = "https://example.org/a.png"
    words = ["--image", "none.png", "--image", "scene.png", "--image", "empty.png", "--image", address, "--video", "scene.png"]
    for way in (["--prompt", "What?"], ["a.wav", "b.wav", "--each"], ["--chat"]):
        assert main(["ask", *words, *way]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.splitlines() == [
            "error: none.png: no such file: check the path",
            "error: empty.png: is empty (0 bytes): make or copy it again",
            f"error: {address} is an address, and addresses are never fetched: download it first, and name the file",
            "error: scene.png: is an image: give it as an image, with --image or images=",
        ]
    assert main(["ask", "https://example.org/a.wav", "--prompt", "Who?"]) == 1
    assert capsys.readouterr().err.startswith("error: https://example.org/a.wav is an address, ")


def test_a_picture_from_a_pipe_is_read_once(seeing: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    out, into = os.pipe()
    with open(out, "rb"), open(into, "wb") as writer:
        writer.write(Path("scene.png").read_bytes())
        writer.close()
        piped = run(capsys, "--image", f"/dev/fd/{out}", "--prompt", "What?")
    assert piped == run(capsys, "--image", "scene.png", "--prompt", "What?")


def test_a_conversation_goes_on_about_a_picture(seeing: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("And where?\nb.wav\n"))
    first, second, third = run(capsys, "--image", "scene.png", "--chat", "--prompt", "What?").splitlines()
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": first}, {"role": "user", "content": "And where?"}]
    assert seeing.ask(messages=turns, images="scene.png", max_new_tokens=8).text == second
    turns += [{"role": "assistant", "content": second}, {"role": "user", "content": "<audio>"}]
    assert seeing.ask("b.wav", messages=turns, images="scene.png", max_new_tokens=8).text == third


def test_pictures_that_can_not_be_seen_are_one_line(
    seeing: Engine, random_engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("audiograft.model.processing.check_takes_videos", lambda vision_processor: None)  # as where torchvision is installed
    for words, said in (
        (["a.wav", "--image", "none.png"], "none.png: no such file: check the path"),
        (["a.wav", "--image", "b.wav"], "b.wav: is sound, no image: give it as a clip, without --image (in Python as audio=)"),
        (["a.wav", "--video", "scene.png"], "scene.png: is an image: give it as an image, with --image or images="),
        (["scene.png", "--prompt", "What?"], "scene.png: is an image (PNG), no audio: give it as an image, with --image or images="),
    ):
        assert main(["ask", *words]) == 1
        printed = capsys.readouterr()
        assert (printed.out, printed.err) == ("", f"error: {said}\n")
    monkeypatch.setattr(Engine, "load", lambda *args, **kwargs: random_engine)
    assert main(["ask", "a.wav", "--image", "scene.png"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "this model has no eyes: it takes no images or videos" in line


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for part in ("Example:", "--each", "--chat", "Which room is mentioned?", "<audio>", "--top-p", "--image scene.png question.wav", "--video"):
        assert part in printed
