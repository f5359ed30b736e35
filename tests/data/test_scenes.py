"""Scenes of shapes: their splits, their pictures, questions that only the scene answers, and the corpus on the disk."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from audiograft.data.scenes.generate import prepare_scenes
from audiograft.data.scenes.questions import ASKERS, ask_about
from audiograft.data.scenes.scene import COLOURS, GRID, KINDS, MOST_SHAPES, SIDE_PX, SIZES, SPLITS, Scene, Shape, place, render, scenes
from audiograft.types import DataError

SHAPES = st.builds(
    Shape, row=st.integers(0, GRID - 1), column=st.integers(0, GRID - 1), kind=st.sampled_from(KINDS), colour=st.sampled_from(list(COLOURS)),
    size=st.sampled_from(SIZES),
)  # fmt: skip
SCENES = st.lists(SHAPES, min_size=1, max_size=MOST_SHAPES, unique_by=lambda shape: (shape.row, shape.column)).map(
    lambda shapes: Scene(tuple(sorted(shapes)))
)
NUMBERS = ["zero", "one", "two", "three", "four", "five"]


def answer(scene: Scene, question: str) -> str:
    """Read the question anew, word by word; another way than the one it was made by."""
    words = question.split()
    kinds = [word for word in words if word in KINDS]
    colours = [word for word in words if word in COLOURS]
    named = [shape for colour, kind in zip(colours, kinds, strict=False) for shape in scene.shapes if (shape.colour, shape.kind) == (colour, kind)]
    if question.startswith("what colour is the "):
        [shape] = [shape for shape in scene.shapes if shape.kind == kinds[0]]
        return shape.colour
    if question.startswith("which shape is "):
        [shape] = [shape for shape in scene.shapes if shape.colour == colours[0]]
        return shape.kind
    if question.startswith("how many "):
        counted = [
            shape
            for shape in scene.shapes
            if f"{shape.kind}s" in words or shape.colour in words or words[2:4] == ["shapes", "are"] and words[-1] == "there"
        ]
        return NUMBERS[len(counted)]
    if question.startswith("are there more "):
        counts = Counter(f"{shape.kind}s" for shape in scene.shapes)
        return "yes" if counts[words[3]] > counts[words[5]] else "no"
    if question.startswith("where is "):
        [shape] = named
        return place(shape)
    if question.endswith(" small or large"):
        [shape] = named
        return shape.size
    first, second = named
    if question.startswith("which is larger "):
        largest = max(named, key=lambda shape: shape.size == "large")
        return f"the {largest.colour} {largest.kind}"
    return "yes" if (first.column < second.column if "left of" in question else first.row < second.row) else "no"


@given(scene=SCENES, seed=st.integers(0, 1000))
def test_the_answer_is_what_the_scene_says(scene: Scene, seed: int) -> None:
    question = ask_about(scene, random.Random(seed))
    assert question.answer == answer(scene, question.text)
    assert set((question.text + question.answer).replace(" ", "")) <= set("abcdefghijklmnopqrstuvwxyz")


def test_each_kind_is_asked_and_no_answer_is_most_of_its_kind() -> None:
    rng, answers = random.Random(0), defaultdict(Counter)
    for scene in islice(scenes("train", 0), 3000):
        question = ask_about(scene, rng)
        answers[question.kind][question.answer] += 1
    assert set(answers) == set(ASKERS)
    assert all(max(counts.values()) < 0.6 * sum(counts.values()) for counts in answers.values())


@given(scene=SCENES)
def test_each_scene_is_in_a_split(scene: Scene) -> None:
    assert scene.split in SPLITS


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_holds_its_own_scenes_alone(split: str) -> None:
    assert {scene.split for scene in islice(scenes(split, 3), 200)} == {split}
    assert list(islice(scenes(split, 3), 20)) == list(islice(scenes(split, 3), 20)) != list(islice(scenes(split, 4), 20))


@given(scene=SCENES, seed=st.integers(0, 100))
def test_a_picture_shows_each_shape_in_its_place_and_colour(scene: Scene, seed: int) -> None:
    pixels = np.asarray(render(scene, random.Random(seed))).astype(int)
    assert pixels.shape == (SIDE_PX, SIDE_PX, 3)
    edges = np.linspace(0, SIDE_PX, GRID + 1).round().astype(int)
    painted = {}
    for row in range(GRID):
        for column in range(GRID):
            cell = pixels[edges[row] : edges[row + 1], edges[column] : edges[column + 1]].reshape(-1, 3)
            shown = cell[cell.max(1) > 130]
            if len(shown):
                painted[row, column] = min(COLOURS, key=lambda name, shown=shown: np.abs(np.median(shown, 0) - COLOURS[name]).sum())
    assert painted == {(shape.row, shape.column): shape.colour for shape in scene.shapes}


def test_large_shapes_cover_more_than_small_ones_of_any_kind() -> None:
    covered = defaultdict(list)
    for seed in range(40):
        for kind in KINDS:
            for size in SIZES:
                pixels = np.asarray(render(Scene((Shape(1, 1, kind, "red", size),)), random.Random(seed))).astype(int)
                covered[size].append(int((pixels[..., 0] > 130).sum()))
    assert max(covered["small"]) < min(covered["large"])


def test_the_corpus_is_the_same_on_any_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 2):
        prepare_scenes(tmp_path / str(workers), split="dev", rows=40, seed=1, workers=workers)
    one, two = ({path.relative_to(tmp_path / name): path.read_bytes() for path in sorted((tmp_path / name).rglob("*.*"))} for name in ("1", "2"))
    assert one == two
    assert len(one) == 41
    rows = [json.loads(line) for line in (tmp_path / "1" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(row["prompt"] and row["response"] and "audio" not in row for row in rows)
    for row in rows:
        with Image.open(tmp_path / "1" / row["image"]) as picture:
            assert picture.size == (SIDE_PX, SIDE_PX)


@pytest.mark.needs_engines
def test_a_share_of_the_questions_is_spoken(tmp_path: Path) -> None:
    manifest = prepare_scenes(tmp_path, split="test", rows=24, seed=1, spoken=0.5, voices="held-out")
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    spoken = [row for row in rows if "audio" in row]
    assert 4 < len(spoken) < 20
    assert all(row["prompt"] == "" and row["text"] and (tmp_path / row["audio"]).is_file() and row["duration_s"] > 0.5 for row in spoken)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "all"}, "unknown split or voices 'all'"),
        ({"voices": "languages"}, "unknown split or voices"),
        ({"voices": "held-out"}, "held-out voices are for the test split alone"),
        ({"rows": 0}, "rows must be 1 or more"),
        ({"spoken": 1.5}, "spoken from 0 to 1"),
    ],
)
def test_what_cant_be_drawn_is_one_line(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare_scenes(tmp_path, **{"split": "train", "rows": 1, "seed": 0, **options})  # type: ignore[arg-type]
