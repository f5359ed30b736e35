"""How well `suggest` finds wrong labels, where it is known which ones are wrong.

    python benchmarks/label_noise.py             # needs espeak-ng and flite; writes benchmarks/results/label_noise.json

`tiny` transcribes 300 unseen sentences in training voices, as they are and augmented (noise, reverberation, band limits, shifted voices). A tenth of
the labels is corrupted first, in four ways: a word dropped, a word put in, a word replaced by another of the corpus, and the label of another clip.
Suggestions are ranked with and without a second opinion, for which no second model ships: it is `tiny` on the same clips, played faster. Beside them
stand two baselines: chance, which is the share of wrong labels, and ranking by WER alone.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import soundfile

from audiograft import load, provenance
from audiograft.audit.run import AuditRun, load_run
from audiograft.audit.suggestions import WEIGHTS, Suggestion, suggest, suggestion_quality
from audiograft.audit.verdicts import Verdict
from audiograft.data.augment.effects import change_speed
from audiograft.data.manifest import read_rows, write_manifest
from audiograft.data.synthetic.generate import prepare_synthetic
from audiograft.evaluate.predictions import read_predictions
from audiograft.evaluate.run import evaluate
from audiograft.inference.engine import Engine

ROOT = Path(__file__).resolve().parent.parent
ROWS = 300
SEED = 4711
"""Of the sentences and of the corruption. Weights were chosen on another."""
SHARE = 0.1
KINDS = ("dropped word", "inserted word", "substituted word", "swapped label")
FASTER = 1.1


def corrupt(rows: Sequence[Mapping[str, Any]], share: float, seed: int) -> list[dict[str, Any]]:
    """Rows of `prepare_synthetic`, a share of them with a wrong `text`, the kinds of `KINDS` in turn.

    These keep the true text in `true_text` and have their kind in `corruption`.
    """
    rng = random.Random(seed)
    corruption = _Corruption(rows, rng)
    chosen = rng.sample(range(len(rows)), round(share * len(rows)))
    kinds = {row: KINDS[place % len(KINDS)] for place, row in enumerate(chosen)}
    return [
        {**row, "text": corruption.of(row, kinds[number]), "true_text": row["text"], "corruption": kinds[number]} if number in kinds else dict(row)
        for number, row in enumerate(rows)
    ]


class _Corruption:
    """Wrong labels in the words of a corpus."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], rng: random.Random) -> None:
        self.rng = rng
        self.texts = sorted({row["text"] for row in rows})
        self.words = sorted({word for text in self.texts for word in text.split()})
        self.values: dict[str, list[str]] = {}
        for slot, value in sorted({(slot, value) for row in rows for slot, value in row["slots"]}):
            self.values.setdefault(slot, []).append(value)

    def of(self, row: Mapping[str, Any], kind: str) -> str:
        """A wrong text for a row."""
        said = row["text"].split()
        place = self.rng.randrange(len(said))
        if kind == "dropped word":
            return " ".join(said[:place] + said[place + 1 :])
        if kind == "inserted word":
            return " ".join([*said[:place], self.rng.choice(self.words), *said[place:]])
        if kind == "substituted word":
            slot, value = self.rng.choice(row["slots"])
            return row["text"].replace(value, self.rng.choice([other for other in self.values[slot] if other != value]), 1)
        return self.rng.choice([text for text in self.texts if text != row["text"]])
