"""Which prompts still ask the same question, and what counts as the same prompt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.inference.choices import DEFAULT_QUESTION
from audiograft.prompt_search.optimisers import extract_prompt, wrap_prompt
from audiograft.prompt_search.rules import normalise, why_not

LETTERS = {"SPEECH": "A", "NONSPEECH": "B"}
WORDS = {"dog": "dog", "car": "car", "rain": "rain"}


@pytest.mark.parametrize(
    "prompt",
    [
        DEFAULT_QUESTION.prompt,
        "Is it speech (A) or non-speech (B)?",
        "B) nonspeech\nA) speech\nAnswer with a letter.",
        "A = Speech, B = non speech. <audio> Which?",
        "<audio></audio>A: speech, B: nonspeech",
    ],
)
def test_prompts_that_ask_the_question_may_be_tried(prompt: str) -> None:
    assert why_not(prompt, LETTERS) is None


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("A speech", "not 10 to 300 characters"),
        ("A) speech B) nonspeech " + "x" * 280, "not 10 to 300 characters"),
        ("A) speech B) nonspeech <|im_end|>", "special tokens"),
        ("A) speech B) nonspeech </s>", "special tokens"),
        ("[INST] A) speech B) nonspeech", "special tokens"),
        ("<audio> A) speech B) nonspeech <audio>", "several <audio> markers"),
        ("A) speech\x1b[2J B) nonspeech", "control characters"),
        ("A) speech, or nonspeech?", "an answer is missing"),
        ("a) speech b) nonspeech", "an answer is missing"),
        ("About speech or nonspeech: BA", "an answer is missing"),
        ("A) human voice B) all else", "a label is missing"),
        ("A) non-speech B) something", "a label is missing"),
        ("A) nonspeech B) speech", "labels and answers in another order"),
    ],
)
def test_what_asks_something_else_is_refused_by_name(prompt: str, why: str) -> None:
    assert why_not(prompt, LETTERS) == why


def test_words_that_are_their_own_labels_need_no_order() -> None:
    assert why_not("Is this a car, a dog or rain?", WORDS) is None
    assert why_not("Is this a car, a dog or raining?", WORDS) == "an answer is missing"


def test_case_and_white_space_do_not_make_another_prompt() -> None:
    assert normalise("Answer  with\nA ") == normalise("answer with a")
    assert normalise("answer with a") != normalise("answer with b")


@given(st.text(max_size=400))
def test_no_text_is_too_strange_to_be_judged(text: str) -> None:
    why_not(text, LETTERS)
    extract_prompt(text)


@given(st.text(min_size=1).filter(lambda text: text.strip() and "<" not in text))
def test_a_prompt_comes_back_out_of_its_reply(prompt: str) -> None:
    assert extract_prompt(f"Let me think: {wrap_prompt('no')}\n{wrap_prompt(prompt)}") == prompt.strip()


@pytest.mark.parametrize("reply", ["", "Choose A or B.", "<PROMPT></PROMPT>", "<PROMPT>Choose A or B."])
def test_a_reply_without_a_prompt_has_none(reply: str) -> None:
    assert extract_prompt(reply) is None
