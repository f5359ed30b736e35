"""Choose the pictures, spoken questions and answers of examples/scenes from unseen scenes: the first of each wanted kind.

python recipes/tiny/scene_examples.py CORPUS      # made by: audiograft prepare scenes --split test --spoken 1
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from audiograft.data.manifest import find_manifest, read_rows

OUT = Path(__file__).resolve().parents[2] / "examples" / "scenes"
NAMES = {"circles": ("count", "how many circles are there"), "place": ("position", "where is the"), "size": ("size", "is the")}
FEWEST_SHAPES = 3


def main(corpus: Path) -> None:
    manifest = find_manifest(corpus)
    rows = [row for _, row in read_rows(manifest)]
    OUT.mkdir(parents=True, exist_ok=True)
    for name, (kind, begin) in NAMES.items():
        row = next(row for row in rows if row["question"] == kind and row["text"].startswith(begin) and row["scene"].count(",") >= FEWEST_SHAPES - 1)
        shutil.copy(manifest.parent / row["image"], OUT / f"{name}.png")
        shutil.copy(manifest.parent / row["audio"], OUT / f"{name}.wav")
        (OUT / f"{name}.txt").write_text(row["response"] + "\n", encoding="utf-8")
        print(f"{name}: {row['text']}? {row['response']} ({row['scene']})")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
