"""Questions about scenes, with the answers that the scenes give: colour, shape, count, position, size, comparison.

A question is asked only where the scene answers it: `where is the red circle` needs exactly one red circle. Questions and answers are lower-case
words without punctuation, as a voice reads them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from audiograft.data.scenes.scene import COLOURS, KINDS, MOST_SHAPES, Scene, Shape, place

NUMBERS = ("zero", "one", "two", "three", "four", "five")
assert len(NUMBERS) == MOST_SHAPES + 1


@dataclass(frozen=True)
class SceneQuestion:
    """A question about a scene.

    Attributes:
        kind: a key of `ASKERS`, under which it is counted in results.
        text: as it is asked.
        answer: in words.
    """

    kind: str
    text: str
    answer: str


def _named(shape: Shape) -> str:
    return f"{shape.colour} {shape.kind}"


def _alone(scene: Scene, *fields: str) -> list[Shape]:
    """Shapes that no other shape of the scene equals in these fields."""

    def key(shape: Shape) -> tuple[str, ...]:
        return tuple(getattr(shape, field) for field in fields)

    counts = Counter(map(key, scene.shapes))
    return [shape for shape in scene.shapes if counts[key(shape)] == 1]


def _one(scene: Scene, rng: random.Random, *fields: str) -> Shape | None:
    """One of these at random, where there are any."""
    shapes = _alone(scene, *fields)
    return rng.choice(shapes) if shapes else None


def _pair(scene: Scene, rng: random.Random, differ: Callable[[Shape], object]) -> tuple[Shape, Shape] | None:
    """Two shapes that can be named by colour and kind and differ in something, in random order."""
    named = _alone(scene, "colour", "kind")
    pairs = [(a, b) for a in named for b in named if differ(a) != differ(b)]
    return rng.choice(pairs) if pairs else None


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _colour(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    shape = _one(scene, rng, "kind")
    return None if shape is None else (f"what colour is the {shape.kind}", shape.colour)


def _shape(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    shape = _one(scene, rng, "colour")
    return None if shape is None else (f"which shape is {shape.colour}", shape.kind)


def _count(scene: Scene, rng: random.Random) -> tuple[str, str]:
    what = rng.random()
    if what < 0.2:
        return "how many shapes are there", NUMBERS[len(scene.shapes)]
    field, values = ("kind", KINDS) if what < 0.6 else ("colour", tuple(COLOURS))
    # Zero is an answer too, but not most of the time.
    there = sorted({getattr(shape, field) for shape in scene.shapes})
    value = rng.choice(there if rng.random() < 0.8 else values)
    number = sum(getattr(shape, field) == value for shape in scene.shapes)
    return f"how many {value}s are there" if field == "kind" else f"how many shapes are {value}", NUMBERS[number]


def _position(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    shape = _one(scene, rng, "colour", "kind")
    return None if shape is None else (f"where is the {_named(shape)}", place(shape))


def _size(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    shape = _one(scene, rng, "colour", "kind")
    return None if shape is None else (f"is the {_named(shape)} small or large", shape.size)


def _comparison(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    what = rng.choice(("more", "larger", "left", "above"))
    if what == "more":
        a, b = rng.sample(KINDS, 2)
        counts = Counter(shape.kind for shape in scene.shapes)
        return f"are there more {a}s than {b}s", _yes(counts[a] > counts[b])
    differ: dict[str, Callable[[Shape], object]] = {
        "larger": lambda shape: shape.size,
        "left": lambda shape: shape.column,
        "above": lambda shape: shape.row,
    }
    pair = _pair(scene, rng, differ[what])
    if pair is None:
        return None
    first, second = pair
    if what == "larger":
        return f"which is larger the {_named(first)} or the {_named(second)}", f"the {_named(first if first.size == 'large' else second)}"
    if what == "left":
        return f"is the {_named(first)} left of the {_named(second)}", _yes(first.column < second.column)
    return f"is the {_named(first)} above the {_named(second)}", _yes(first.row < second.row)


ASKERS: dict[str, Callable[[Scene, random.Random], tuple[str, str] | None]] = {
    "colour": _colour,
    "shape": _shape,
    "count": _count,
    "position": _position,
    "size": _size,
    "comparison": _comparison,
}
"""Kinds of questions; each gives question and answer, or None where the scene doesn't answer such a question."""


def ask_about(scene: Scene, rng: random.Random, kinds: Sequence[str] = tuple(ASKERS)) -> SceneQuestion:
    """One question about a scene, of a kind at random among those that it answers."""
    for kind in rng.sample(list(kinds), len(kinds)):
        found = ASKERS[kind](scene, rng)
        if found is not None:
            return SceneQuestion(kind, *found)
    raise ValueError(f"none of {', '.join(kinds)} can be asked about {scene.name}")
