"""How well looks tell copies of pictures from other pictures, and what they cost.

    python benchmarks/picture_leakage.py    # prints the figures, writes benchmarks/results/picture_leakage.json (some minutes)

Copies: 1,000 scenes as `audiograft prepare scenes` draws them, each changed in one way and looked up among all of them; tiles of the two photographs
that scikit-learn brings, and polygons in thin lines on white, likewise. Not copies: every pair of scenes that differ; scenes of the test split
against ten times as many of the train split; each scene and the same drawing with one shape of another colour, kind or size. The thresholds of
audiograft.data.looks were set on seeds 1, 2 and 11, and on the same tiles; the figures are those of another seed.

For comparison a 64-bit pHash (Zauner 2010) of grey pictures, where up to 8 bits may differ, as many deduplicators have it.

Cost: processor time for the look of a picture of one megapixel, and to compare 100,000 training pictures with 1,000 test pictures.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.fft import dctn
from sklearn.datasets import load_sample_images

from audiograft.data.gate import Gate
from audiograft.data.looks import LookIndex, PictureTrace, find_look
from audiograft.data.scenes.scene import COLOURS, KINDS, SIZES, Scene, render, scenes
from audiograft.data.traces import Trace

RESULTS = Path(__file__).resolve().parent / "results" / "picture_leakage.json"
SCENES, TRAIN_SCENES = 1_000, 10_000
TRAIN_PICTURES = 100_000
TILE_PX = 107
LINE_DRAWINGS, LINE_DRAWING_PX = 150, 600
PHASH_BITS = 8

Change = Callable[[Image.Image], Image.Image]
Scaling = Image.Resampling


def coded(kind: str, quality: int | None = None) -> Change:
    def code(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, kind, **({} if quality is None else {"quality": quality}))
        return Image.open(file).convert("RGB")

    return code


def scaled(width: float, height: float, filter_: Scaling) -> Change:
    return lambda image: image.resize((round(image.width * width), round(image.height * height)), filter_)


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((2, 2, image.width - 2, image.height - 2))


CHANGES: dict[str, Change] = {
    "JPEG, quality 90": coded("JPEG", 90),
    "JPEG, quality 50": coded("JPEG", 50),
    "JPEG, quality 30": coded("JPEG", 30),
    "JPEG, quality 10": coded("JPEG", 10),
    "WebP, quality 50": coded("WEBP", 50),
    "GIF": coded("GIF"),
    "twice the size": scaled(2, 2, Scaling.BICUBIC),
    "0.6 of the size": scaled(0.6, 0.6, Scaling.BICUBIC),
    "0.6 of the size, nearest pixels": scaled(0.6, 0.6, Scaling.NEAREST),
    "half the size": scaled(0.5, 0.5, Scaling.LANCZOS),
    "half the size, JPEG, quality 50": lambda image: coded("JPEG", 50)(scaled(0.5, 0.5, Scaling.LANCZOS)(image)),
    "0.3 of the size": scaled(0.3, 0.3, Scaling.BICUBIC),
    "stretched to 0.78 by 0.58": scaled(0.78, 0.58, Scaling.BICUBIC),
    "2 pixels cut off each side": cropped,
}


def drawn(split: str, seed: int, count: int) -> tuple[list[Scene], list[Image.Image]]:
    found = list(islice(scenes(split, seed), count))
    return found, [render(scene, random.Random(f"{split}/{seed}/{row}")) for row, scene in enumerate(found)]


def one_shape_changed(row: int, scene: Scene, key: str, split: str, seed: int) -> Image.Image:
    """The same drawing, ground and places and all, with one shape of another colour, kind or size."""
    rng = random.Random(f"{key}/{row}")
    place = rng.randrange(len(scene.shapes))
    shape = scene.shapes[place]
    others = [value for value in {"colour": list(COLOURS), "kind": KINDS, "size": SIZES}[key] if value != getattr(shape, key)]
    shapes = (*scene.shapes[:place], replace(shape, **{key: rng.choice(others)}), *scene.shapes[place + 1 :])
    return render(Scene(shapes), random.Random(f"{split}/{seed}/{row}"))


def phash(image: Image.Image) -> np.ndarray[Any, Any]:
    """(64,) bits."""
    grey = np.asarray(image.convert("L").resize((32, 32), Scaling.LANCZOS), dtype=float)
    lowest = dctn(grey)[:8, :8].ravel()
    return lowest > np.median(lowest)


def share_by_phash(first: Sequence[Image.Image], second: Sequence[Image.Image]) -> float:
    """Of pairs."""
    return float(np.mean([(phash(one) != phash(other)).sum() <= PHASH_BITS for one, other in zip(first, second, strict=True)]))


def copies(pictures: list[Image.Image], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each change: how many copies were found, and how many other pictures were taken for copies."""
    index = LookIndex([find_look(picture) for picture in pictures])
    results = {}
    for name, change in CHANGES.items():
        changed = [change(picture) for picture in pictures]
        pairs = list(index.search([find_look(picture) for picture in changed]))
        found = sum(query == indexed for query, indexed in pairs)
        others = sum(names[query] != names[indexed] for query, indexed in pairs)
        by_phash = share_by_phash(pictures, changed)
        results[name] = {
            "copies": len(pictures),
            "found": found,
            "recall": found / len(pictures),
            "others_taken_for_it": others,
            "phash_recall": by_phash,
        }
        print(f"{name:34} found {found / len(pictures):7.1%}, others taken for it: {others}; pHash finds {by_phash:7.1%}", flush=True)
    return results


def taken_for_copies(found: list[Scene], pictures: list[Image.Image], split: str, seed: int) -> dict[str, Any]:
    """Pairs of different scenes that are taken for copies."""
    looks = [find_look(picture) for picture in pictures]
    index = LookIndex(looks)
    names = [scene.name for scene in found]
    pairs = {(query, indexed) for query, indexed in index.search(looks) if query < indexed and names[query] != names[indexed]}
    train, train_pictures = drawn("train", seed, TRAIN_SCENES)
    train_looks = [find_look(picture) for picture in train_pictures]
    across = [[train[query].name, names[indexed]] for query, indexed in index.search(train_looks)]
    result: dict[str, Any] = {
        "different scenes": {"pairs": sum(one != other for one, other in combinations(names, 2)), "taken_for_copies": len(pairs)},
        "train and test scenes": {"pairs": len(train) * len(found), "taken_for_copies": len(across), "examples": across[:5]},
    }
    for key in ("colour", "kind", "size"):
        changed = [one_shape_changed(row, scene, key, split, seed) for row, scene in enumerate(found)]
        hits = [query for query, indexed in index.search([find_look(picture) for picture in changed]) if query == indexed]
        taken = {"pairs": len(found), "taken_for_copies": len(hits), "examples": [names[row] for row in hits[:5]]}
        result[f"one shape of another {key}"] = taken | {"phash_taken": round(share_by_phash(pictures, changed) * len(found))}
    for name, told in result.items():
        print(name, told, flush=True)
    return result | {"looks": train_looks}


def tiles() -> list[Image.Image]:
    photographs = [Image.fromarray(array) for array in load_sample_images().images]
    corners = [
        (photo, x, y) for photo in photographs for y in range(0, photo.height - TILE_PX, TILE_PX) for x in range(0, photo.width - TILE_PX, TILE_PX)
    ]
    return [photo.crop((x, y, x + TILE_PX, y + TILE_PX)) for photo, x, y in corners]


def line_drawings() -> list[Image.Image]:
    """Random polygons of five to nine corners, in lines one pixel wide."""
    rng, pictures = random.Random(3), []
    for _ in range(LINE_DRAWINGS):
        picture = Image.new("RGB", (LINE_DRAWING_PX, LINE_DRAWING_PX), "white")
        corners = [(rng.randrange(LINE_DRAWING_PX), rng.randrange(LINE_DRAWING_PX)) for _ in range(rng.randint(5, 9))]
        ImageDraw.Draw(picture).polygon(corners, outline="black")
        pictures.append(picture)
    return pictures


def cost(train: Sequence[bytes], test: Sequence[bytes]) -> dict[str, float]:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), dtype=np.uint8))
    times = []
    for _ in range(20):
        start_s = time.process_time()
        find_look(picture)
        times.append(time.process_time() - start_s)

    def trace(name: str, look: bytes) -> Trace:
        return Trace(name, None, None, None, None, 0, (), (PictureTrace(name, 1, look),))

    gate = Gate([trace(f"test{number}", look) for number, look in enumerate(test)])
    start_s = time.process_time()
    gate.add((trace(f"train{number}", train[number % len(train)]) for number in range(TRAIN_PICTURES)), "train")
    compare_s = time.process_time() - start_s
    return {
        "milliseconds_a_megapixel": 1000 * min(times),
        "train_pictures": TRAIN_PICTURES,
        "test_pictures": len(test),
        "compare_s": compare_s,
        "bytes_a_look": len(test[0]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found, pictures = drawn("test", arguments.seed, SCENES)
    print("scenes")
    of_scenes = copies(pictures, [scene.name for scene in found])
    others = taken_for_copies(found, pictures, "test", arguments.seed)
    print("photographs")
    photographs = tiles()
    thin = line_drawings()
    result = {
        "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
        "seed": arguments.seed,
        "copies": of_scenes,
        "copies_of_photographs": copies(photographs, [str(number) for number in range(len(photographs))]),
        "copies_of_line_drawings": copies(thin, [str(number) for number in range(len(thin))]),
        "cost": cost(others.pop("looks"), [find_look(picture) for picture in pictures]),
        "others": others,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["cost"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
