"""Questions about pictures: what is seen counts beside what is heard, a batch answers as its questions would alone, and bad input is one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from PIL import Image
from transformers.utils import is_torchvision_available

from audiograft.inference import batching
from audiograft.inference.decoding import Request, write_answers
from audiograft.inference.engine import Engine
from audiograft.inference.questions import Question
from audiograft.inference.teacher_forcing import Referenced, TokenScores, score_references
from audiograft.messages import media_messages
from audiograft.model import load_graft
from audiograft.types import Answer, AudioError, ConfigError, DataError, ImageError

RATE_HZ = 16_000
LOW, HIGH = [(builders.tone(seconds, hz), RATE_HZ) for seconds, hz in ((0.4, 300), (1.1, 900))]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Weights so large that what is seen and heard decides what is written, in letters alone, without an end."""
    model, processor = load_graft(builders.vlm_graft(tmp_path_factory.mktemp("graft"), initializer_range=0.4))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("projector", "language_model.model.visual")) and parameter.dim() > 1:
                parameter.mul_(4)
    letters = processor.tokenizer("abcdefghijklmnopqrstuvwxyz", add_special_tokens=False)["input_ids"]
    model.language_model.generation_config.suppress_tokens = sorted(set(range(builders.VOCABULARY_ROWS)) - set(letters))
    return Engine(model, processor, "random")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Pictures of several sizes."""
    folder = tmp_path_factory.mktemp("scenes")
    paths = [folder / f"{number}.png" for number in range(3)]
    for path, (level, width, height) in zip(paths, ((200, 56, 56), (40, 28, 84), (120, 112, 28)), strict=True):
        builders.picture(level, width, height).save(path)
    return list(map(str, paths))


def ask(engine: Engine, *arguments: Any, **options: Any) -> str:
    return engine.ask(*arguments, **{"max_new_tokens": 12, **options}).text


def test_a_spoken_question_is_asked_about_a_picture(engine: Engine, scenes: list[str]) -> None:
    answers = {ask(engine, clip, images=scene) for clip in (LOW, HIGH) for scene in scenes}
    assert len(answers) == 6
    answer = engine.ask(LOW, images=scenes[0], max_new_tokens=1)
    assert (answer.images, answer.videos, answer.clips, answer.prompt, answer.duration_s) == ((scenes[0],), (), ("<array>",), "", 0.4)
    assert answer.as_row()["images"] == (scenes[0],)
    assert "videos" not in answer.as_row()
    assert "images" not in engine.ask(LOW, max_new_tokens=1).as_row()


def test_images_come_as_paths_bytes_or_open_and_alone(engine: Engine, scenes: list[str]) -> None:
    opened = builders.picture(200)
    expected = ask(engine, None, "What?", images=scenes[0])
    for source in (Path(scenes[0]), Path(scenes[0]).read_bytes(), opened, [scenes[0]]):
        assert ask(engine, None, "What?", images=source) == expected
    assert engine.ask(prompt="What?", images=[opened, b"".join([Path(scenes[1]).read_bytes()])], max_new_tokens=1).images == ("<image>", "<bytes>")


def test_the_order_and_the_place_of_pictures_count(engine: Engine, scenes: list[str]) -> None:
    one, other = scenes[0], scenes[1]
    asked = "Is <image> darker than <image>? <audio>"
    answers = [
        ask(engine, LOW, asked, images=[one, other]),
        ask(engine, LOW, asked, images=[other, one]),
        ask(engine, LOW, "<audio> Is darker than ? <image><image>", images=[one, other]),
        ask(engine, LOW, "Is darker than ?", images=[one, other]),
    ]
    assert len(set(answers)) == len(answers)
    assert answers[3] == ask(engine, LOW, "<image><image><audio>\nIs darker than ?", images=[one, other])


def test_a_conversation_remembers_what_it_saw_and_heard(engine: Engine, scenes: list[str]) -> None:
    def second(first: str, later: str, clip: Any) -> str:
        turns = [
            {"role": "user", "content": [{"type": "image"}, {"type": "audio"}, {"type": "text", "text": "Who?"}]},
            {"role": "assistant", "content": "Ann."},
            {"role": "user", "content": "And <image>? <audio>"},
        ]
        return ask(engine, [clip, LOW], messages=turns, images=[first, later])

    reference = second(scenes[0], scenes[1], LOW)
    assert reference not in (second(scenes[2], scenes[1], LOW), second(scenes[0], scenes[2], LOW), second(scenes[0], scenes[1], HIGH))


def questions(scenes: list[str]) -> list[Question]:
    return [
        Question([LOW], images=[scenes[0]]),
        Question([], "Two and two?"),
        Question([], "What?", images=[scenes[1]]),
        Question([HIGH], "Write."),
        Question([HIGH, LOW], "<audio> of <image> or <image> <audio>", images=scenes[:2]),
        Question([LOW], images=[scenes[2]]),
        Question([HIGH], "What?", images=[scenes[0]]),
    ]


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}])
def test_many_questions_are_answered_as_one_by_one(engine: Engine, scenes: list[str], options: dict[str, Any]) -> None:
    together = engine.ask_many(questions(scenes), batch_size=4, max_new_tokens=12, **options)
    alone = [engine.ask(list(item.clips), item.prompt, images=list(item.images), max_new_tokens=12, **options).text for item in questions(scenes)]
    assert [item.text for item in together if isinstance(item, Answer)] == alone
    assert len(set(alone)) == len(alone)


def test_references_are_scored_beside_pictures(engine: Engine, scenes: list[str]) -> None:
    asked = questions(scenes)
    targets = ["one two", "three", "four", "five six", "seven", "one two", "eight"]
    together = engine.score_references(asked, targets, batch_size=4)
    assert all(isinstance(score, TokenScores) for score in together)
    for question, target, score in zip(asked, targets, together, strict=True):
        [alone] = engine.score_references([question], [target])
        assert isinstance(alone, TokenScores)
        assert score.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    blind = engine.score_references([Question([LOW], images=[scenes[1]])], ["one two"])[0]
    assert isinstance(blind, TokenScores)
    assert blind.nats != pytest.approx(together[0].nats, abs=1e-2)
    # The answer is likely just as it is written token by token.
    engine_answer = engine.ask(LOW, images=scenes[0], max_new_tokens=3)
    direct = score_references(
        engine.model,
        engine.processor,
        [Referenced(media_messages("", clips=1, images=1), [LOW[0]], "one", [builders.picture(200)])],
    )[0]
    assert engine_answer.token_logprobs
    assert direct.nats == pytest.approx(engine.score_references([Question([LOW], images=[scenes[0]])], ["one"])[0].nats, abs=1e-4)


def test_requests_with_decoded_pictures_are_answered(engine: Engine, scenes: list[str]) -> None:
    requests = [
        Request(media_messages("", clips=1, images=1), [LOW[0]], 12, images=[builders.picture(200)]),
        Request(media_messages("Two and two?"), [], 12),
    ]
    written = write_answers(engine.model, engine.processor, requests)
    assert [item.text for item in written] == [ask(engine, LOW, images=scenes[0]), ask(engine, None, "Two and two?")]


def test_a_clip_of_several_windows_beside_a_picture(engine: Engine, scenes: list[str]) -> None:
    long = (np.concatenate([HIGH[0]] * 40), RATE_HZ)
    answer = engine.ask([long, LOW], "Is <audio> like <image> or <audio>?", images=scenes[0], max_new_tokens=4)
    assert answer.duration_s == pytest.approx(44.4)
    assert answer.text != ask(engine, [long, LOW], "Is <audio> like <image> or <audio>?", images=scenes[1], max_new_tokens=4)


def test_large_pictures_share_no_batch_and_do_not_wait_in_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_BATCH_VALUES", 100)
    kinds = [(0, 1, 1)] * 5 + [(0, 1, 0)] * 3
    batches = list(batching.similar_batches(kinds, [1] * 8, 4, [60, 30, 500, 40, 30, 0, 0, 0]))
    assert batches == [[5, 6, 7], [1, 4, 3], [0], [2]]
    assert [batching.rows_worth(values, 8) for values in (0, 10, 13, 50, 1000)] == [1, 1, 2, 4, 80]
    waited: list[int] = []

    def run(items: list[int]) -> list[int]:
        waited.append(len(items))
        return items

    batching.in_flight(10, lambda index: index, run, lambda index: batching.rows_worth(100, 4), 4, ImageError, lambda index, result: None)
    assert waited == [8, 2]


def test_a_bad_picture_is_an_error_and_the_others_go_on(engine: Engine, scenes: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(Path(scenes[0]).read_bytes()[:60])
    Image.new("RGB", (3000, 2)).save(tmp_path / "line.png")
    asked = [Question([], "x", images=[name]) for name in (str(tmp_path / "broken.png"), scenes[0], "missing.png", str(tmp_path / "line.png"))]
    broken, good, missing, line = engine.ask_many([*asked], max_new_tokens=2)
    assert isinstance(good, Answer)
    assert isinstance(broken, ImageError)
    assert str(broken).startswith(f"{tmp_path}/broken.png: damaged or cut off (")
    assert isinstance(missing, ImageError)
    assert str(missing) == "missing.png: no such file: check the path"
    assert isinstance(line, ImageError)
    assert str(line).startswith(f"{tmp_path}/line.png: the model's processor refuses a picture (")
    assert all("\n" not in str(error) for error in (broken, missing, line))
    assert isinstance(engine.ask_many([Question(["missing.wav"], images=[scenes[0]])])[0], AudioError)
    assert isinstance(engine.score_references([Question([], "x", images=["missing.png"])], ["y"])[0], ImageError)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Question([], "<image>", images=["a.png", "b.png"]), "1 <image> marker in the prompt but 2 images"),
        (Question([LOW], "<image>"), "1 <image> marker in the prompt but 0 images"),
        (Question([], "<audio> of <image>", images=["a.png"]), "1 <audio> marker in the prompt but 0 clips"),
        (Question([], "<video>", images=["a.png"]), "1 <video> marker in the prompt but 0 videos"),
        (Question([], "", images=["a.png"]), "there is no question: give a prompt, or a clip that asks"),
    ],
)
def test_what_can_not_be_asked_is_one_line_before_any_file_is_read(engine: Engine, asked: Question, said: str) -> None:
    with pytest.raises(DataError) as error:
        engine.ask_many([asked])
    assert str(error.value).startswith(said)


def test_a_model_without_eyes_says_so_before_any_file_is_read() -> None:
    blind = Engine(*builders.graft(), "blind")
    for pictures in ({"images": "missing.png"}, {"videos": "missing.mp4"}):
        with pytest.raises(ConfigError, match="this model has no eyes: it takes no images or videos; leave them out, or graft onto"):
            blind.ask(LOW, "x", **pictures)
    with pytest.raises(ConfigError, match="no eyes"):
        write_answers(blind.model, blind.processor, [Request(media_messages("x", images=1), [], 4, images=[builders.picture(1)])])


@pytest.mark.skipif(is_torchvision_available(), reason="with torchvision there are videos")
def test_what_videos_need_is_told_before_any_is_read(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="videos need the torchvision made for torch .*: pip install --no-deps 'torchvision=="):
        engine.ask(LOW, "x", videos="missing.mp4")


@pytest.mark.parametrize("kind", ["qwen2_audio", "granite_speech"])
def test_a_stock_audio_model_refuses_pictures_in_one_line(tmp_path: Path, kind: str) -> None:
    engine = Engine.load(builders.stock_checkpoint(tmp_path, kind))
    for prompt in ("x", "<audio> <image> x", "<image> <audio>"):
        with pytest.raises(ConfigError, match="this model has no eyes"):
            engine.ask(LOW, prompt, images="missing.png")


def test_pictures_longer_than_the_context_are_refused_in_one_line(engine: Engine, scenes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.model.config.get_text_config(), "max_position_embeddings", 20)
    said = rf"{scenes[2]} and <array>: they and the question take \d+ positions, .* has 20: give smaller or fewer pictures"
    with pytest.raises(ImageError, match=said):
        engine.ask(LOW, "x", images=scenes[2])
