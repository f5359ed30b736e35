"""Runs of which it is known how they differ."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
Row = dict[str, Any]


def write(folder: Path, name: str, rows: Sequence[Row], **beside: dict[str, Any]) -> Path:
    """A run folder; `beside` are run.json and metrics.json, by `run` and `metrics`."""
    run = folder / name
    run.mkdir()
    (run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for key, value in beside.items():
        (run / f"{key}.json").write_text(json.dumps(value), encoding="utf-8")
    return run


def speech(rate: float, seed: int, n_clips: int = 400, n_speakers: int = 20) -> list[Row]:
    """Rows whose hypotheses have so many wrong words; the references are the same each time."""
    texts, errors = random.Random(0), random.Random(seed)
    rows = []
    for i in range(n_clips):
        reference = [texts.choice(WORDS) for _ in range(texts.randint(5, 15))]
        hypothesis = ["wrong" if errors.random() < rate else word for word in reference]
        rows.append({"id": f"c{i}", "reference": " ".join(reference), "hypothesis": " ".join(hypothesis), "speaker": f"s{i % n_speakers}"})
    return rows


def answers(right: Sequence[bool]) -> list[Row]:
    return [{"id": str(i), "task": "answer", "reference": "yes", "hypothesis": "yes" if one else "no"} for i, one in enumerate(right)]
