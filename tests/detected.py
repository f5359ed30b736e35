"""Predictions files of detectors that do not exist: as the bench and `evaluate` write them, with errors that grow as clips get short and noisy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count, product
from pathlib import Path
from typing import Any

import numpy as np

from audiograft.data.manifest import write_manifest

DURATIONS_MS, SNRS_DB = (200, 400, 600, 800, 1000), (0, 5, 10, 15, 20)
NOISES, BANDS, T60S_S = ("white", "pink", "brown", "babble"), ("none", "telephone", "lowpass", "highpass"), (0.0, 0.5)
KINDS = ("rain", "engine", "chirps", "alarm", "chord", "hum", "impacts", "dog")
Row = dict[str, Any]


def detections(
    per_cell: int = 8,
    *,
    seed: int = 0,
    skill: float = 1.0,
    scores: bool = True,
    durations_ms: Sequence[int] = DURATIONS_MS,
    snrs_db: Sequence[int] = SNRS_DB,
    decode_s: float = 0.002,
) -> list[Row]:
    """Rows of `per_cell` clips of each class in each cell of the grid; the same seed means the same clips, whatever the skill.

    Args:
        per_cell: clips of each class, duration and SNR.
        seed: of clips and detector.
        skill: how far apart the classes are.
        scores: whether there are log-probabilities of the choices and P(SPEECH).
        durations_ms: of the grid.
        snrs_db: of the grid.
        decode_s: mean time of a clip.
    """
    draw = np.random.default_rng(seed)
    numbers = count()
    rows = []
    for duration_ms, snr_db, label, _ in product(durations_ms, snrs_db, ("SPEECH", "NONSPEECH"), range(per_cell)):
        number = next(numbers)
        recording = int(draw.integers(24))
        kind = KINDS[recording % len(KINDS)] if label == "NONSPEECH" else None
        noise, band, t60_s = NOISES[number % 4], BANDS[(number // 4) % 4], T60S_S[(number // 3) % 2]
        ease = 1.1 * math.log(duration_ms / 120) + 0.07 * snr_db - (0.8 if kind in ("chirps", "dog") else 0.0) - (0.5 if noise == "babble" else 0.0)
        odds = skill * (1.2 * ease + 0.4 * math.sin(recording)) + float(draw.logistic(scale=0.9))
        log_odds = odds if label == "SPEECH" else -odds
        prob = 1 / (1 + math.exp(-log_odds))
        rows.append(
            {
                "id": f"clip-{number:05d}",
                "audio": f"test/{number:05d}.wav",
                "task": "detection",
                "label": label,
                "predicted": "SPEECH" if prob >= 0.5 else "NONSPEECH",
                **({"speech_prob": round(prob, 6), "scores": {"SPEECH": math.log(prob), "NONSPEECH": math.log(1 - prob)}} if scores else {}),
                "duration_s": duration_ms / 1000,
                "decode_s": float(draw.uniform(0.5, 1.5)) * decode_s,
                "snr_db": snr_db + float(draw.normal(0, 0.05)),
                "target_snr_db": snr_db,
                "duration_ms": duration_ms,
                "noise": noise,
                "band": band,
                "t60_s": t60_s,
                "recording": f"{label.lower()}-{recording}",
                "source": "synthetic",
                "split": "test",
                "level_db": float(draw.uniform(-40, -15)),
                **({"kind": kind} if kind else {"speaker": f"voice-{recording}"}),
            }
        )
    return rows


def write_run(folder: Path, rows: Sequence[Row]) -> Path:
    """A run folder that holds a predictions file and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder / "predictions.jsonl", rows)
    return folder
