"""Looks: copies of a picture look the same, other pictures do not, whatever little they differ in."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from audiograft.data import looks as looks_module
from audiograft.data.looks import LOOK_BYTES, LookIndex, PictureTrace, find_look, is_blank, trace_image, trace_pictures, trace_readable_pictures
from audiograft.data.scenes.scene import Scene, Shape, render, scenes
from audiograft.types import ImageError, Sample

SHAPES = (Shape(0, 0, "circle", "white", "small"), Shape(1, 2, "square", "blue", "large"))


def draw(*shapes: Shape) -> Image.Image:
    return render(Scene(shapes), random.Random(7))


def coded(image: Image.Image, kind: str, **options: Any) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file).convert("RGB")


def alike(first: Image.Image, second: Image.Image) -> bool:
    return list(LookIndex([find_look(first)]).search([find_look(second)])) == [(0, 0)]


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: coded(image, "JPEG", quality=50),
        lambda image: coded(image, "WEBP", quality=50),
        lambda image: image.resize((100, 100), Image.Resampling.BICUBIC),
        lambda image: image.resize((500, 333), Image.Resampling.LANCZOS),
        lambda image: coded(image.resize((84, 84), Image.Resampling.BILINEAR), "JPEG", quality=60),
    ],
)
def test_a_copy_that_was_coded_anew_or_scaled_looks_the_same(copy: Any) -> None:
    assert alike(draw(*SHAPES), copy(draw(*SHAPES)))


@pytest.mark.parametrize("change", [{"colour": "yellow"}, {"colour": "pink"}, {"size": "large"}, {"kind": "triangle"}, {"column": 1}])
def test_one_small_shape_makes_another_picture(change: dict[str, Any]) -> None:
    assert not alike(draw(*SHAPES), draw(replace(SHAPES[0], **change), SHAPES[1]))
    assert not alike(draw(*SHAPES), draw(SHAPES[1]))


@pytest.mark.parametrize("width_px", [1, 2])
def test_thin_lines_on_white_are_told_apart_and_found_again(width_px: int) -> None:
    """No value of one such drawing is far from that of another, since both are white nearly everywhere."""
    rng, drawings = random.Random(5), []
    for _ in range(20):
        drawings.append(Image.new("RGB", (600, 600), "white"))
        corners = [(rng.randrange(600), rng.randrange(600)) for _ in range(6)]
        ImageDraw.Draw(drawings[-1]).line([*corners, corners[0]], fill="black", width=width_px)
    copies = [coded(drawing.resize((450, 450), Image.Resampling.LANCZOS), "JPEG", quality=50) for drawing in drawings]
    index = LookIndex([find_look(drawing) for drawing in drawings])
    assert sorted(index.search([find_look(copy) for copy in copies])) == [(number, number) for number in range(20)]


def test_dim_pictures_are_told_apart_by_the_mean() -> None:
    """No pixel is far off, and yet they are not the same."""
    dim = np.zeros((96, 96, 3), np.uint8)
    left, right = dim.copy(), dim.copy()
    left[:, :48], right[:, 48:] = 10, 10
    assert not alike(Image.fromarray(left), Image.fromarray(right))
    assert alike(Image.fromarray(left), Image.fromarray(left + np.uint8(1)))


def test_blank_pictures_are_seen() -> None:
    assert is_blank(find_look(coded(Image.new("RGB", (40, 30), (200, 30, 90)), "JPEG", quality=30)))
    assert not is_blank(find_look(draw(SHAPES[0])))


def test_what_is_compared_first_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    known = [find_look(render(scene, random.Random(row))) for row, scene in enumerate(islice(scenes("train", 3), 40))]
    shifted = [(np.frombuffer(look, np.uint8) // 2 + rng.integers(0, 9, LOOK_BYTES)).astype(np.uint8).tobytes() for look in known]
    levels = np.array([np.frombuffer(look, np.uint8) for look in known + shifted], np.int16)
    off = np.abs(levels[:, None] - levels[None])
    expected = {
        (int(one), int(other)) for one, other in np.argwhere((off.max(2) <= looks_module._MOST_OFF) & (off.mean(2) <= looks_module._MEAN_OFF))
    }
    assert set(LookIndex(known + shifted).search(known + shifted)) == expected
    monkeypatch.setattr(looks_module, "_MAX_PAIRS", 500)
    assert set(LookIndex(known + shifted).search(known + shifted)) == expected
    assert list(LookIndex([]).search(known)) == list(LookIndex(known).search([])) == []


def test_a_picture_is_remembered_by_its_file_and_its_look(tmp_path: Path) -> None:
    draw(*SHAPES).save(tmp_path / "a.png")
    draw(*SHAPES).save(tmp_path / "b.png", compress_level=1)
    Image.new("RGB", (9, 9)).save(tmp_path / "blank.png")
    (tmp_path / "v.mp4").write_bytes(b"any bytes")
    first, second, blank = (trace_image(str(tmp_path / name)) for name in ("a.png", "b.png", "blank.png"))
    assert first.n_bytes == (tmp_path / "a.png").stat().st_size
    assert first.digest != second.digest
    assert first.look == second.look
    assert len(first.look) == LOOK_BYTES
    assert blank == PictureTrace(None, (tmp_path / "blank.png").stat().st_size)
    sample = Sample("x", images=(str(tmp_path / "a.png"), str(tmp_path / "gone.png")), videos=(str(tmp_path / "v.mp4"), str(tmp_path)))
    assert trace_readable_pictures(sample)[::3] == (first, PictureTrace(None, 0))
    assert [(bool(trace.digest), trace.n_bytes, trace.look) for trace in trace_readable_pictures(sample)[1:3]] == [(False, 0, b""), (True, 9, b"")]
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        trace_pictures(sample)
    with pytest.raises(ImageError, match="is a folder"):
        trace_pictures(replace(sample, images=()))
