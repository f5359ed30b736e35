"""Loops, refusals and silence are found, and speech is left alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.metrics.detectors import find_refusal, find_repetition, is_empty


@pytest.mark.parametrize(("text", "empty"), [("", True), (" \n", True), ("...", True), ("♪♪♪", True), ("a", False), ("7", False), ("天", False)])
def test_empty(text: str, empty: bool) -> None:
    assert is_empty(text) is empty


@pytest.mark.parametrize(
    ("hypothesis", "phrase"),
    [
        ("the the the the", "the"),
        ("Thank you. thank you thank you, Thank you.", "Thank you."),
        ("So we went to the store and the store and the store and the store and the store", "the store and"),
        ("and so on " * 30, "and so on"),
        ("谢谢大家谢谢大家谢谢大家谢谢大家", "谢谢大家"),
        ("请大家订阅我的频道点赞。" * 6, "请大家订阅我的频道点赞。"),
        ("!" * 40, "!"),
        ("hahahahahahaha", "ha"),
        ("aaaaaaaaaaaaaaaa", "a"),
    ],
)
def test_loops_are_found(hypothesis: str, phrase: str) -> None:
    assert find_repetition(hypothesis) == phrase


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no no no",
        "no, no, no, no!",
        "very very very good",
        "Thank you. Thank you. Thank you.",
        "bye bye bye bye and then they went home together and nothing else was said that day",
        "the cat and the dog and the bird and the fish were there",
        "1,000,000,000,000",
        "10000000000",
        "哈哈哈哈",
        "The quick brown fox jumps over the lazy dog.",
    ],
)
def test_speech_is_no_loop(text: str) -> None:
    assert find_repetition(text) is None


def test_what_the_speaker_repeats_as_often_is_no_loop() -> None:
    song = "row row row row row row your boat"
    assert find_repetition(song) == "row"
    assert find_repetition(song, reference="Row, row, row your boat") is None
    assert find_repetition("row " * 100, reference=song) == "row"
    assert find_repetition("hahahahahahaha", reference="hahahahahaha") is None


words = st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=8)


@settings(deadline=None)
@given(st.lists(words, min_size=1, max_size=8), st.integers(8, 40), st.lists(words, max_size=8))
def test_every_loop_that_covers_a_text_is_found(phrase: list[str], repeats: int, before: list[str]) -> None:
    text = " ".join(before[: len(phrase)] + phrase * repeats)
    assert find_repetition(text) is not None


@given(
    st.lists(
        st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "saw", "ten", "dogs", "ran", "from", "him", "home", "天", "气", "好"]), unique=True
    )
)
def test_a_text_whose_words_differ_is_no_loop(text: list[str]) -> None:
    assert find_repetition(" ".join(text)) is None


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_text_can_be_looked_at(hypothesis: str, reference: str) -> None:
    phrase = find_repetition(hypothesis, reference)
    assert phrase is None or phrase.strip()
    find_refusal(hypothesis, reference)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't transcribe this audio.",
        "I’m sorry, I cannot assist with that.",
        "Sorry, I am unable to process the request.",
        "As an AI language model, I don't have ears.",
        "I'm just a text-based model.",
        "I cannot hear audio.",
        "I don't have the ability to listen to audio files.",
        "I am not able to directly process audio files.",
        "I don't have access to the audio.",
        "Please provide the audio file.",
        "Could you please share the recording so I can transcribe it?",
        "It seems no audio was provided.",
        "Es tut mir leid, aber ich kann keine Audiodateien anhören.",
        "Je suis désolé, mais je ne peux pas écouter ce fichier.",
        "Lo siento, no puedo escuchar el audio.",
        "Desculpe, não consigo ouvir o áudio.",
        "Mi dispiace, non posso ascoltare l'audio.",
        "Het spijt me, maar ik kan geen audio beluisteren.",
        "Извините, но я не могу прослушать аудио.",
        "作为一个人工智能，我无法听音频。",
        "抱歉，我无法直接处理音频文件。",
        "申し訳ありませんが、音声を直接聞くことはできません。",
        "죄송합니다. 오디오를 들을 수 없습니다.",
        "एक भाषा मॉडल के रूप में मैं सुन नहीं सकता।",
    ],
)
def test_refusals_are_found(text: str) -> None:
    assert find_refusal(text, reference="the cat sat on the mat")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I am sorry to hear that.",
        "She said that she could not hear the voice.",
        "as an aim in itself it is fine",
        "The audio engineer left.",
        "I can't believe it.",
        "We provide sound advice.",
        "He would attach a recording device to it.",
        "es tut mir leid um dich",
        "como iam as coisas",
    ],
)
def test_speech_is_no_refusal(text: str) -> None:
    assert find_refusal(text) is None


@pytest.mark.parametrize("said", ["I'm sorry, I can't hear you", "well as an AI researcher I would say", "please send the recording."])
def test_a_refusal_that_was_said_is_a_transcript(said: str) -> None:
    assert find_refusal(said)
    assert find_refusal(said, reference=said.upper()) is None


def test_loops_of_an_hour_are_told_from_speech_at_once() -> None:
    start_s = time.process_time()
    assert find_repetition("no " * 10_000, "no " * 10_000) is None
    assert find_repetition("no " * 10_000, "no " * 4_000) == "no"
    assert time.process_time() - start_s < 2  # 0.02 s on one idle core
