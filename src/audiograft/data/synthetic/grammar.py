"""The grammar of the synthetic corpus: sentence patterns over a small vocabulary, see `PATTERNS` and `vocabulary()`.

Sentences are lower-case words without punctuation and with numbers spelled out, so that a transcript is scored without a normaliser. A sentence
belongs to the train, dev or test split by a hash of its text alone: the same sentence can never be in two splits, whatever the seed.
"""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass

SPLITS = ("train", "dev", "test")
_DEV_PERCENT = 5
_TEST_PERCENT = 5


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split(","))


UNITS = _words("one two three four five six seven eight nine")
TEENS = _words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")

SLOTS: dict[str, tuple[str, ...]] = {
    "name": _words(
        "alice anna arthur bella ben carla charles clara daniel david diana edward ella emma felix frank george grace hannah harry helen "
        "henry isaac jack james julia karen kevin laura leo linda lucy maria martin mary michael nora oliver oscar paul peter rachel "
        "robert rosa samuel sarah simon sofia susan thomas victor walter"
    ),
    "room": _words("kitchen bedroom bathroom garage garden hallway office cellar attic balcony library nursery studio workshop basement"),
    "city": _words(
        "amsterdam athens berlin boston chicago dublin geneva hamburg lisbon london madrid milan moscow munich oslo paris prague rome "
        "seattle stockholm sydney tokyo toronto vienna warsaw zurich"
    ),
    "place": _words(
        "airport bakery bank bridge castle church factory harbour hospital hotel market museum palace park pharmacy school stadium "
        "station theatre tower village"
    ),
    "colour": _words("black blue brown green grey orange pink purple red silver white yellow golden"),
    "object": _words(
        "bag ball basket blanket book bottle box bucket camera candle carpet chair clock cup hammer helmet jacket key ladder lamp letter "
        "mirror pencil phone picture plate radio scarf shirt table ticket towel umbrella wallet window"
    ),
    "objects": _words(
        "apples bags balls baskets bottles boxes buttons candles cards chairs coins cups flowers gloves jackets keys lamps letters "
        "mirrors pencils plates shirts stamps stones tickets towels"
    ),
    "item": _phrases(
        "loaves of bread, bottles of milk, pounds of butter, bags of rice, cans of soup, jars of honey, boxes of tea, onions, carrots, "
        "potatoes, tomatoes, lemons, oranges, bananas, cabbages, mushrooms, eggs, pieces of cheese, packets of sugar, cups of coffee"
    ),
    "device": _words("light lamp heater fan radio television oven printer camera alarm speaker computer"),
    "dial": _words("heater oven volume brightness thermostat fridge timer humidity"),
    "unit": _words("degrees percent"),
    "switch": _phrases("turn on, turn off, switch on, switch off, check, repair, unplug, clean"),
    "animal": _words(
        "bear bird camel cat chicken cow dog donkey dolphin elephant fox frog giraffe goat horse lion monkey mouse owl penguin pig "
        "rabbit sheep snake spider tiger turtle whale wolf zebra"
    ),
    "adjective": _words("angry brave clever friendly happy hungry lazy lonely nervous noisy old patient proud quiet sleepy strange young"),
    "comparative": _words("bigger smaller faster slower taller heavier lighter louder stronger weaker older younger smarter"),
    "vehicle": _words("bus train car boat plane bicycle taxi tram ferry motorcycle"),
    "day": _words("monday tuesday wednesday thursday friday saturday sunday"),
    "month": _words("january february march april may june july august september october november december"),
    "daytime": _words("morning afternoon evening night"),
    "weather": _words("sunny cloudy rainy windy foggy stormy snowy cold warm freezing humid"),
    "event": _words("concert meeting lesson party wedding lecture football film exhibition interview festival ceremony"),
    "meal": _words("breakfast lunch dinner supper"),
    "genre": _words("jazz rock classical folk country dance piano guitar"),
    "direction": _words("north south east west straight"),
    "side": _words("left right"),
    "distance": _words("miles metres kilometres minutes blocks"),
    "task": _phrases(
        "call the doctor, feed the cat, water the plants, close the windows, lock the door, wash the dishes, visit the dentist, "
        "pay the rent, send the report, book a hotel, charge the battery, collect the parcel, walk the dog, cook the pasta, "
        "finish the homework, empty the dishwasher, return the books, order a pizza"
    ),
    "entrance": _phrases("front door, back door, garden gate, office safe, garage door, hotel room, bank vault, main entrance"),
    "job": _words("doctor teacher farmer lawyer nurse pilot baker singer painter engineer driver gardener sailor student"),
    "verb": _words("bought found lost sold painted carried dropped borrowed opened cleaned hid broke"),
    "count": (*UNITS[1:], *TEENS[:3]),
    "digit": ("zero", *UNITS),
}

PATTERNS: dict[str, str] = {
    "command": "{switch} the {colour} {device} in the {room}",
    "setting": "set the {dial} in the {room} to {number} {unit}",
    "reminder": "remind {name} to {task} at {time} on {day}",
    "travel": "{name} travels from {city} to {city} by {vehicle} on {day} {daytime}",
    "comparison": "the {adjective} {animal} is {comparative} than the {adjective} {animal}",
    "shopping": "please buy {count} {item} and {count} {item} for {name}",
    "possession": "{name} has {count} {colour} {objects} in the {room}",
    "schedule": "the {event} in {city} starts at {time} and ends at {time}",
    "code": "the code for the {entrance} is {digit} {digit} {digit} {digit}",
    "weather": "it will be {weather} and {weather} in {city} on {day} {daytime}",
    "question": "where did {name} put the {colour} {object} and the {object}",
    "price": "the {colour} {object} costs {number} dollars and {number} cents",
    "meeting": "{name} the {job} and {name} the {job} will meet near the {place} after {meal}",
    "route": "go {direction} for {number} {distance} then turn {side} at the {place}",
    "music": "play some {genre} music for {name} in the {room} after {meal}",
    "story": "on the {ordinal} of {month} the {job} {verb} {count} {objects} near the {place}",
}

_ORDINALS = _words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth "
    "seventeenth eighteenth nineteenth twentieth thirtieth"
)
_FORMATTER = string.Formatter()


@dataclass(frozen=True)
class Sentence:
    """A sentence of the grammar.

    Attributes:
        text: lower-case words, no punctuation.
        pattern: the key in `PATTERNS` it was made from.
        slots: (slot name, words filled in), in order of appearance.
    """

    text: str
    pattern: str
    slots: tuple[tuple[str, str], ...]

    @property
    def split(self) -> str:
        return split_of(self.text)


def split_of(text: str) -> str:
    """Name of the split a sentence belongs to, from a hash of its text alone."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100
    if bucket < _TEST_PERCENT:
        return "test"
    return "dev" if bucket < _TEST_PERCENT + _DEV_PERCENT else "train"


def number_words(value: int) -> str:
    """Words of a whole number from 1 to 999."""
    if not 1 <= value <= 999:
        raise ValueError(f"{value} is not between 1 and 999")
    hundreds, rest = divmod(value, 100)
    parts = [f"{UNITS[hundreds - 1]} hundred"] if hundreds else []
    if rest >= 20:
        tens, units = divmod(rest, 10)
        parts.append(TENS[tens - 2] + (f" {UNITS[units - 1]}" if units else ""))
    elif rest >= 10:
        parts.append(TEENS[rest - 10])
    elif rest:
        parts.append(UNITS[rest - 1])
    return " ".join(parts)


def _clock_time(rng: random.Random) -> str:
    hour = rng.choice((*UNITS, *TEENS[:3]))
    form = rng.randrange(4)
    if form == 0:
        return f"{rng.choice(('half', 'a quarter', 'ten', 'twenty'))} past {hour}"
    if form == 1:
        return f"{rng.choice(('a quarter', 'five', 'twenty'))} to {hour}"
    if form == 2:
        return f"{hour} {rng.choice(('fifteen', 'thirty', 'forty five', 'ten', 'twenty'))}"
    return f"{hour} o'clock"


def _fill(slot: str, rng: random.Random) -> str:
    if slot == "number":
        return number_words(rng.randint(2, 99) if rng.random() < 0.8 else rng.randint(100, 999))
    if slot == "time":
        return _clock_time(rng)
    if slot == "ordinal":
        return rng.choice(_ORDINALS)
    return rng.choice(SLOTS[slot])


def draw(rng: random.Random) -> Sentence:
    """One random sentence. A slot that stands twice in a pattern is filled with two different words."""
    pattern = rng.choice(tuple(PATTERNS))
    parts: list[str] = []
    slots: list[tuple[str, str]] = []
    for literal, slot, _, _ in _FORMATTER.parse(PATTERNS[pattern]):
        parts.append(literal)
        if slot is None:
            continue
        value = _fill(slot, rng)
        while slot != "digit" and (slot, value) in slots:
            value = _fill(slot, rng)
        slots.append((slot, value))
        parts.append(value)
    return Sentence("".join(parts), pattern, tuple(slots))


def sentences(split: str, seed: int) -> Iterator[Sentence]:
    """Endless sentences of one split, none twice, the same for the same seed."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    rng = random.Random(f"{split}/{seed}")
    seen: set[str] = set()
    while True:
        sentence = draw(rng)
        if sentence.split == split and sentence.text not in seen:
            seen.add(sentence.text)
            yield sentence


def vocabulary() -> frozenset[str]:
    """Every word the grammar can produce."""
    words: set[str] = {"a", "hundred", "half", "quarter", "past", "to", "o'clock", *UNITS, *TEENS, *TENS, *_ORDINALS}
    for pattern in PATTERNS.values():
        for literal, _, _, _ in _FORMATTER.parse(pattern):
            words.update(literal.split())
    for values in SLOTS.values():
        for value in values:
            words.update(value.split())
    return frozenset(words)
