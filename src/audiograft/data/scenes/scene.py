"""Scenes of up to five coloured shapes on a grid of three by three places, and how they are drawn.

A scene belongs to the train, dev or test split by a hash of what is in it alone: the same scene can never be in two splits, whatever the seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiograft.types import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

SPLITS = ("train", "dev", "test")
_DEV_PERCENT = 5
_TEST_PERCENT = 5
KINDS = ("circle", "square", "triangle")
SIZES = ("small", "large")
COLOURS = {
    "red": (215, 45, 40),
    "green": (50, 165, 60),
    "blue": (50, 90, 220),
    "yellow": (240, 215, 50),
    "white": (245, 245, 245),
    "pink": (245, 130, 190),
}
"""Names, and red, green and blue of 255, around which each scene's own shades are drawn."""
MOST_SHAPES = 5
DEFAULT_MOST_SHAPES = 3
"""What `tiny-vl` was made for."""
GRID = 3
SIDE_PX = 168
"""Width and height of a picture."""
_FINER = 2
"""Drawn so many times larger, then averaged: edges are smooth."""
_CELL_PX = SIDE_PX / GRID
_RADIUS_PX = {"small": (10.0, 13.0), "large": (18.0, 21.0)}
_SHIFT_PX = 3.0
"""How far a shape may lie off the middle of its place."""
_SHADE = 12
"""How far a channel of a colour may be off."""
_DARK, _BRIGHT = (15, 30), (90, 105)
"""Levels between which the ground's red rises from left to right and its blue from top to bottom, like an evening sky. So each place looks different
even where it is empty: the eyes of Qwen2-VL know of two patches how they lie to each other, and of none where it lies."""


@dataclass(frozen=True, order=True)
class Shape:
    """One shape: where it lies, counted from the top left, and what it is."""

    row: int
    column: int
    kind: str
    colour: str
    size: str


@dataclass(frozen=True)
class Scene:
    """Shapes in their places, in reading order; no place holds two."""

    shapes: tuple[Shape, ...]

    @property
    def name(self) -> str:
        """What is in it, in one line, such as `large red circle top left, small blue square middle`."""
        return ", ".join(f"{shape.size} {shape.colour} {shape.kind} {place(shape)}" for shape in self.shapes)

    @property
    def split(self) -> str:
        """Name of the split that the scene belongs to."""
        percent = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big") % 100
        return "test" if percent < _TEST_PERCENT else "dev" if percent < _TEST_PERCENT + _DEV_PERCENT else "train"


def place(shape: Shape) -> str:
    """Where a shape lies, in words: `top left`, `top`, `middle`, `right` and so on."""
    words = [("top", "", "bottom")[shape.row], ("left", "", "right")[shape.column]]
    return " ".join(filter(None, words)) or "middle"


def draw_scene(rng: random.Random) -> Scene:
    """A scene at random, of any split. Half of the shapes repeat a colour or kind that is there, so that there is something to count."""
    cells = rng.sample(range(GRID * GRID), rng.randint(1, MOST_SHAPES))
    shapes: list[Shape] = []
    for cell in cells:
        kind, colour, size = rng.choice(KINDS), rng.choice(list(COLOURS)), rng.choice(SIZES)
        if shapes and rng.random() < 0.5:
            other = rng.choice(shapes)
            kind, colour = (other.kind, colour) if rng.random() < 0.5 else (kind, other.colour)
        shapes.append(Shape(cell // GRID, cell % GRID, kind, colour, size))
    return Scene(tuple(sorted(shapes)))


def scenes(split: str, seed: int, most_shapes: int = DEFAULT_MOST_SHAPES) -> Iterator[Scene]:
    """Endless scenes of a split; the same seed gives the same ones, and fewer shapes leave out those with more.

    Raises:
        DataError: no such split or number of shapes.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}: use {'|'.join(SPLITS)}")
    if not 1 <= most_shapes <= MOST_SHAPES:
        raise DataError(f"most_shapes must be from 1 to {MOST_SHAPES}, not {most_shapes}")
    rng = random.Random(f"scenes/{split}/{seed}")
    while True:
        scene = draw_scene(rng)
        if scene.split == split and len(scene.shapes) <= most_shapes:
            yield scene


def _ground(side: int, rng: random.Random) -> Image.Image:
    """An empty picture: its red rises from left to right, its blue from top to bottom, its green is the same everywhere."""
    import numpy as np
    from PIL import Image

    def ramp() -> npt.NDArray[np.uint8]:
        return np.linspace(rng.randint(*_DARK), rng.randint(*_BRIGHT), side).astype(np.uint8)

    pixels = np.full((side, side, 3), rng.randint(*_DARK), dtype=np.uint8)
    pixels[:, :, 0] = ramp()
    pixels[:, :, 2] = ramp()[:, None]
    return Image.fromarray(pixels)


def render(scene: Scene, rng: random.Random) -> Image.Image:
    """Draw a scene: `SIDE_PX` by `SIDE_PX`, RGB. Ground, shades, sizes and where in its place a shape lies vary with the draws."""
    from PIL import ImageDraw

    image = _ground(SIDE_PX * _FINER, rng)
    pen = ImageDraw.Draw(image)
    for shape in scene.shapes:
        radius = rng.uniform(*_RADIUS_PX[shape.size]) * _FINER
        x, y = (((cell + 0.5) * _CELL_PX + rng.uniform(-_SHIFT_PX, _SHIFT_PX)) * _FINER for cell in (shape.column, shape.row))
        red, green, blue = (min(255, max(0, level + rng.randint(-_SHADE, _SHADE))) for level in COLOURS[shape.colour])
        if shape.kind == "circle":
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(red, green, blue))
        elif shape.kind == "square":
            half = radius * 0.886  # as large as the circle
            pen.rectangle((x - half, y - half, x + half, y + half), fill=(red, green, blue))
        else:
            pen.regular_polygon((x, y + radius * 0.15, radius * 1.15), 3, fill=(red, green, blue))
    return image.reduce(_FINER)
