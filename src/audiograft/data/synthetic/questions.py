"""Questions about sentences of the grammar, with the one right answer to each: who, where, when, how many, which colour, and which code.

The answer is always made of words of the sentence, or `NOT_MENTIONED` where it says nothing of what is asked. Wordings are data: each kind of
question has several, and `{0}` in one stands for a thing that the sentence counts or describes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from audiograft.data.synthetic.grammar import Sentence

NOT_MENTIONED = "not mentioned"
"""The answer where the sentence has nothing of the kind that is asked for."""
ABSENT_SHARE = 0.1
"""Share of questions for what the sentence does not mention."""

WORDINGS: dict[str, tuple[str, ...]] = {
    "name": ("Who is mentioned?", "Which name is mentioned?", "What is the name of the person?", "Who is it about?", "Who?"),
    "names": ("Who is mentioned?", "Which names are mentioned?", "Who will meet?", "Who?"),
    "room": ("Which room is mentioned?", "What room is mentioned?", "In which room?", "Which room is it?", "Where is it?", "Where?"),
    "city": ("Which city is mentioned?", "What city is mentioned?", "In which city?", "Which city is it?", "Where is it?", "Where?"),
    "place": ("Which place is mentioned?", "What place is mentioned?", "Near which place?", "Where is it?", "Where?"),
    "from": ("From which city?", "Where does the journey start?", "Where from?"),
    "to": ("To which city?", "Where does the journey end?", "Where to?", "Where does the person travel to?"),
    "day": ("Which day is mentioned?", "What day is mentioned?", "On which day?", "Which day is it?"),
    "month": ("Which month is mentioned?", "What month is mentioned?", "In which month?"),
    "time": ("What time is mentioned?", "Which time is mentioned?", "At what time?"),
    "start": ("When does it start?", "At what time does it start?"),
    "end": ("When does it end?", "At what time does it end?"),
    "when": ("When?", "When is it?", "When does it happen?"),
    "number": ("How many?", "How many are there?", "Which number is mentioned?"),
    "number of": ("How many {0}?", "How many {0} are mentioned?", "How many {0} are there?"),
    "colour": ("Which colour is mentioned?", "What colour is mentioned?", "Which colour?", "Which color is mentioned?", "What colour is it?"),
    "colour of": ("What colour is the {0}?", "Which colour is the {0}?"),
    "colours of": ("What colour are the {0}?", "Which colour are the {0}?"),
    "code": ("What is the code?", "Which code is mentioned?"),
}
"""Ways to ask, by kind."""
GROUPS = {
    **dict.fromkeys(("name", "names"), "who"),
    **dict.fromkeys(("room", "city", "place", "from", "to"), "where"),
    **dict.fromkeys(("day", "month", "time", "start", "end", "when"), "when"),
    **dict.fromkeys(("number", "number of"), "how many"),
    **dict.fromkeys(("colour", "colour of", "colours of"), "which colour"),
    "code": "which code",
}
"""What a kind of question is counted under in results."""
_ABSENT = {"name": "name", "room": "room", "city": "city", "place": "place", "day": "day", "month": "month", "colour": "colour"}
"""Kinds that are also asked of sentences without such a slot, and the slot; in the wordings that name it, which are the first two."""


@dataclass(frozen=True)
class Question:
    """A question about a sentence.

    Attributes:
        kind: a key of `WORDINGS`.
        text: as it is asked.
        answer: lower-case words of the sentence, or `NOT_MENTIONED`.
    """

    kind: str
    text: str
    answer: str

    @property
    def group(self) -> str:
        """Who, where, when, how many, which colour, which code; or `NOT_MENTIONED`."""
        return NOT_MENTIONED if self.answer == NOT_MENTIONED else GROUPS[self.kind]


def _facts(sentence: Sentence) -> Iterator[tuple[str, str, str]]:
    """What a sentence says: kind of question, what `{0}` stands for, answer."""
    slots: dict[str, list[str]] = {}
    for slot, value in sentence.slots:
        slots.setdefault(slot, []).append(value)
    first = {slot: values[0] for slot, values in slots.items()}
    names = slots.get("name", [])
    if names:
        yield ("name" if len(names) == 1 else "names"), "", " and ".join(names)
    for kind in ("room", "place", "day", "month"):
        if kind in slots:
            yield kind, "", first[kind]
    if sentence.pattern == "travel":
        yield "from", "", slots["city"][0]
        yield "to", "", slots["city"][1]
    elif "city" in slots:
        yield "city", "", first["city"]
    if "colour" in slots:
        yield "colour", "", first["colour"]
        things = "objects" if "objects" in slots else "device" if "device" in slots else "object"
        yield ("colours of" if things == "objects" else "colour of"), first[things], first["colour"]
    if sentence.pattern == "code":
        yield "code", "", " ".join(slots["digit"])
    yield from _times(sentence.pattern, slots)
    yield from _numbers(sentence.pattern, slots)


def _times(pattern: str, slots: dict[str, list[str]]) -> Iterator[tuple[str, str, str]]:
    """What a sentence says of when something happens."""
    if pattern == "schedule":
        yield "start", "", slots["time"][0]
        yield "end", "", slots["time"][1]
    elif "time" in slots:
        yield "time", "", slots["time"][0]
        yield "when", "", f"at {slots['time'][0]} on {slots['day'][0]}"
    if "daytime" in slots:
        yield "when", "", f"on {slots['day'][0]} {slots['daytime'][0]}"
    if "month" in slots:
        yield "when", "", f"on the {slots['ordinal'][0]} of {slots['month'][0]}"
    if "meal" in slots:
        yield "when", "", f"after {slots['meal'][0]}"


def _numbers(pattern: str, slots: dict[str, list[str]]) -> Iterator[tuple[str, str, str]]:
    """What a sentence counts. Without naming the thing, only where there is one number."""
    counted = {
        "possession": ("count", "objects"),
        "story": ("count", "objects"),
        "shopping": ("count", "item"),
        "setting": ("number", "unit"),
        "route": ("number", "distance"),
    }
    if pattern == "price":
        yield "number of", "dollars", slots["number"][0]
        yield "number of", "cents", slots["number"][1]
    elif pattern in counted:
        numbers, things = (slots[slot] for slot in counted[pattern])
        for number, thing in zip(numbers, things, strict=True):
            yield "number of", thing, number
        if len(numbers) == 1:
            yield "number", "", numbers[0]


def ask(sentence: Sentence, rng: random.Random) -> Question:
    """One question about a sentence: first what is asked, then its wording, both at random."""
    facts = list(_facts(sentence))
    mentioned = {slot for slot, _ in sentence.slots}
    absent = [kind for kind, slot in _ABSENT.items() if slot not in mentioned]
    if absent and (not facts or rng.random() < ABSENT_SHARE):
        kind = rng.choice(absent)
        return Question(kind, rng.choice(WORDINGS[kind][:2]), NOT_MENTIONED)
    kind, thing, answer = rng.choice(facts)
    return Question(kind, rng.choice(WORDINGS[kind]).format(thing), answer)
