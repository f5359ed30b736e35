"""Which prompts may be tried: those that still ask the same closed question."""

from __future__ import annotations

import re
from collections.abc import Mapping

from audiograft.messages import audio_messages
from audiograft.types import DataError

MIN_CHARACTERS, MAX_CHARACTERS = 10, 300
"""Length of a prompt."""
_AUDIO = re.compile(r"<audio>(?:</audio>)?")
_TOKEN = re.compile(r"<[^<>\s]{1,40}>|\[/?[A-Z_]{2,}\]")
"""What special tokens look like in any family: <|im_end|>, </s>, <start_of_turn>, [INST]."""


def normalise(prompt: str) -> str:
    """By which two prompts are the same: case and white space do not count."""
    return " ".join(prompt.casefold().split())


def why_not(prompt: str, answers: Mapping[str, str]) -> str | None:
    """Why a prompt may not be tried, in a few words under which refusals are counted; None where it may.

    Each answer has to stand in it as a word of its own, so that a model can know how to answer. Where answers stand for labels (A for SPEECH), the
    labels have to stand in it too, first mentioned in the order of their answers: a prompt that swaps them would turn the question round. Hyphens
    and spaces within a label, as in non-speech, do not count.

    Args:
        prompt: what was proposed.
        answers: of the closed question, by label.
    """
    if not MIN_CHARACTERS <= len(prompt) <= MAX_CHARACTERS:
        return f"not {MIN_CHARACTERS} to {MAX_CHARACTERS} characters"
    if not all(character.isprintable() or character == "\n" for character in prompt):
        return "control characters"
    if _TOKEN.search(_AUDIO.sub("", prompt)):
        return "special tokens"
    try:
        audio_messages(prompt)
    except DataError:
        return "several <audio> markers"
    told = _first_places(prompt, {label: re.escape(answer) for label, answer in answers.items()})
    if len(told) < len(answers):
        return "an answer is missing"
    if all(label.casefold() == answer.casefold() for label, answer in answers.items()):
        return None
    meant = _first_places(prompt, {label: _spelt(label) for label in answers}, re.IGNORECASE)
    if len(meant) < len(answers):
        return "a label is missing"
    return None if sorted(answers, key=told.__getitem__) == sorted(answers, key=meant.__getitem__) else "labels and answers in another order"


def _spelt(label: str) -> str:
    """A pattern of the label's letters with or without a hyphen or a space between them."""
    return r"[\W_]?".join(re.escape(letter) for letter in label if letter.isalnum()) or re.escape(label)


def _first_places(prompt: str, patterns: Mapping[str, str], flags: int = 0) -> dict[str, int]:
    """Where each pattern first stands as a word of its own. The longest is looked for first, and what it took is no other's: speech in non-speech."""
    places = {}
    for name in sorted(patterns, key=lambda name: len(patterns[name]), reverse=True):
        pattern = re.compile(rf"(?<!\w){patterns[name]}(?!\w)", flags)
        if found := pattern.search(prompt):
            places[name] = found.start()
        prompt = pattern.sub(lambda match: "\0" * len(match[0]), prompt)
    return places
