"""Where clips, images and videos stand in a conversation."""

from __future__ import annotations

from typing import Any

import pytest

from audiograft.messages import audio_messages, check_messages, conversation, count_parts, media_messages, place_media, with_windows
from audiograft.types import DataError, Sample

CLIP, IMAGE, VIDEO = {"type": "audio"}, {"type": "image"}, {"type": "video"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@pytest.mark.parametrize(
    ("prompt", "n_clips", "parts"),
    [
        ("Write it down.", 1, [CLIP, text("\nWrite it down.")]),
        ("Same?", 2, [CLIP, CLIP, text("\nSame?")]),
        ("Hello", 0, [text("Hello")]),
        ("", 1, [CLIP]),
        ("", 0, []),
        ("First <audio> then <audio></audio>.", 2, [text("First "), CLIP, text(" then "), CLIP, text(".")]),
        ("<audio></audio><audio>", 2, [CLIP, CLIP]),
        ("<audio>\nWrite it down.", 1, [CLIP, text("\nWrite it down.")]),
    ],
)
def test_clips_stand_at_their_markers_or_first(prompt: str, n_clips: int, parts: list[Any]) -> None:
    assert audio_messages(prompt, n_clips) == [{"role": "user", "content": parts}]


@pytest.mark.parametrize(
    ("prompt", "n_clips", "counts"),
    [("<audio>", 2, "1 <audio> marker in the prompt but 2 clips"), ("<audio> <audio>", 1, "2 <audio> markers in the prompt but 1 clip:")],
)
def test_markers_and_clips_that_differ_are_both_counted(prompt: str, n_clips: int, counts: str) -> None:
    with pytest.raises(DataError, match=counts) as error:
        audio_messages(prompt, n_clips)
    assert "\n" not in str(error.value)


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Ann, who says <audio>."},
    {"role": "user", "content": "And where?"},
]


def test_without_markers_the_clips_stand_in_front_of_the_first_question() -> None:
    placed = place_media(TURNS, clips=2)
    assert placed[1]["content"] == [CLIP, CLIP, text("\nWho?")]
    assert placed[3]["content"] == [text("And where?")]
    assert TURNS[1]["content"] == "Who?"


def test_what_the_assistant_said_holds_no_clip() -> None:
    assert count_parts(place_media(TURNS), "audio") == 0
    assert place_media(TURNS, clips=1)[2] is TURNS[2]


def test_what_the_system_says_stays_text_unless_it_holds_a_clip() -> None:
    assert place_media(TURNS, clips=1)[0] is TURNS[0]
    heard = [{"role": "system", "content": "Speak like <audio>."}, {"role": "user", "content": "Who?"}]
    assert place_media(heard, clips=1)[0]["content"] == [text("Speak like "), CLIP, text(".")]


def test_each_turn_has_its_own_clips() -> None:
    turns = [*TURNS[:3], {"role": "user", "content": [text("<audio> is text here"), CLIP]}]
    turns[1] = {"role": "user", "content": "Who is <audio>?"}
    placed = place_media(turns, clips=2)
    assert [count_parts([message], "audio") for message in placed] == [0, 1, 0, 1]
    assert placed[3]["content"] == [text("<audio> is text here"), CLIP]


def test_the_windows_of_a_long_clip_stand_in_its_place() -> None:
    messages = with_windows(audio_messages("a <audio> b <audio>", 2), [3, 1])
    assert messages[0]["content"] == [text("a "), CLIP, CLIP, CLIP, text(" b "), CLIP]


@pytest.mark.parametrize(("prompt", "left"), [("Who?", [text("Who?")]), ("Is <audio> Ann?", [text("Is "), text(" Ann?")]), ("", [])])
def test_a_question_without_its_clips_is_its_text(prompt: str, left: list[Any]) -> None:
    sample = Sample("a", ("a.wav",), prompt=prompt)
    assert conversation(sample, audio=False) == [{"role": "user", "content": left}]
    assert count_parts(conversation(sample), "audio") == 1


@pytest.mark.parametrize(
    ("prompt", "left"),
    [
        ("Who?", [CLIP, text("\nWho?")]),
        ("<image>\nWho is <audio>?", [text("Who is "), CLIP, text("?")]),
        ("<audio> or <video>", [CLIP, text(" or ")]),
        ("", [CLIP]),
    ],
)
def test_a_question_without_its_pictures_keeps_the_rest(prompt: str, left: list[Any]) -> None:
    sample = Sample("a", ("a.wav",), prompt=prompt, images=("a.png",), videos=("a.mp4",))
    assert conversation(sample, pictures=False) == [{"role": "user", "content": left}]
    assert count_parts(conversation(sample, audio=False, pictures=False), "audio") == 0


def test_what_has_no_pictures_stays_as_it_is_without_them() -> None:
    sample = Sample("a", ("a.wav",), messages=({"role": "system", "content": [text("\nBe brief.")]}, {"role": "user", "content": "\nWho?"}))
    assert conversation(sample, pictures=False) == conversation(sample)


def test_a_conversation_is_taken_as_it_is() -> None:
    assert check_messages(TURNS) is TURNS
    assert conversation(Sample("a", messages=tuple(TURNS), prompt="not this")) == place_media(TURNS)


@pytest.mark.parametrize(
    ("prompt", "counts", "parts"),
    [
        ("What is it?", {"images": 1}, [IMAGE, text("\nWhat is it?")]),
        ("", {"clips": 1, "images": 1}, [IMAGE, CLIP]),
        ("Which?", {"clips": 1, "images": 2, "videos": 1}, [IMAGE, IMAGE, VIDEO, CLIP, text("\nWhich?")]),
        ("Is <image> like <image></image>?", {"images": 2}, [text("Is "), IMAGE, text(" like "), IMAGE, text("?")]),
        ("Hear <audio> there.", {"clips": 1, "images": 1}, [IMAGE, text("\nHear "), CLIP, text(" there.")]),
        ("<audio> <video>", {"clips": 1, "videos": 1, "images": 1}, [IMAGE, CLIP, text(" "), VIDEO]),
        ("<video></image>", {"videos": 1}, [VIDEO, text("</image>")]),
    ],
)
def test_each_kind_stands_at_its_markers_or_first(prompt: str, counts: dict[str, int], parts: list[Any]) -> None:
    assert media_messages(prompt, **counts) == [{"role": "user", "content": parts}]


@pytest.mark.parametrize(
    ("prompt", "counts", "said"),
    [
        ("<image>", {"images": 2}, "1 <image> marker in the prompt but 2 images: write one marker an image, or none to put the images first"),
        ("<image> <image>", {"clips": 1}, "2 <image> markers in the prompt but 0 images"),
        ("<video>", {"images": 1}, "1 <video> marker in the prompt but 0 videos: write one marker a video"),
        ("<image> <audio>", {"images": 1}, "1 <audio> marker in the prompt but 0 clips"),
    ],
)
def test_markers_and_pictures_that_differ_are_both_counted(prompt: str, counts: dict[str, int], said: str) -> None:
    with pytest.raises(DataError) as error:
        media_messages(prompt, **counts)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_each_turn_has_its_own_pictures() -> None:
    turns = [
        {"role": "system", "content": "Look at <image>."},
        {"role": "user", "content": [IMAGE, CLIP, text("and <image> is text")]},
        {"role": "assistant", "content": "I see <image>."},
        {"role": "user", "content": "<video> and <audio>?"},
    ]
    assert check_messages(turns) is turns
    placed = place_media(turns, clips=2, images=2, videos=1)
    counts = [[count_parts([message], kind) for kind in ("image", "video", "audio")] for message in placed]
    assert counts == [[1, 0, 0], [1, 0, 1], [0, 0, 0], [0, 1, 1]]
    assert placed[2] is turns[2]


@pytest.mark.parametrize("kind", ["audio", "image", "video"])
def test_a_part_names_its_kind_and_nothing_else(kind: str) -> None:
    messages = [{"role": "user", "content": [{"type": kind}, text("x")]}]
    assert check_messages(messages) is messages
    messages[0]["content"][0] = {"type": kind, kind: "a.png"}
    with pytest.raises(DataError, match=rf'message 1: a part is {{"type": "{kind}"}} alone, without {kind}: give the files beside'):
        check_messages(messages)


@pytest.mark.parametrize("part", [{"type": "image_url"}, {"type": ["image"]}, {"type": "text"}, "image", {"text": "x"}])
def test_other_parts_are_refused_in_one_line(part: Any) -> None:
    with pytest.raises(DataError, match="one of image, video, audio") as error:
        check_messages([{"role": "user", "content": [part]}])
    assert "\n" not in str(error.value)


def test_the_assistant_shows_no_pictures() -> None:
    with pytest.raises(DataError, match='message 2 needs "content": a text'):
        check_messages([{"role": "user", "content": "x"}, {"role": "assistant", "content": [IMAGE]}])


def test_a_row_has_its_pictures_in_their_places() -> None:
    sample = Sample("a", ("a.wav",), prompt="Who?", images=("a.png",), videos=("a.mp4", "b.mp4"))
    assert conversation(sample) == [{"role": "user", "content": [IMAGE, VIDEO, VIDEO, CLIP, text("\nWho?")]}]
    assert conversation(sample, audio=False) == [{"role": "user", "content": [IMAGE, VIDEO, VIDEO, text("\nWho?")]}]
    marked = Sample("a", ("a.wav",), prompt="<audio> of <image>", images=("a.png",))
    assert conversation(marked, audio=False) == [{"role": "user", "content": [text(" of "), IMAGE]}]
