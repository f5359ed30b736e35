"""A bench of a few clips."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import soundfile

MakeBench = Callable[..., Path]


@pytest.fixture
def make_bench(tmp_path: Path) -> MakeBench:
    """A manifest of tones (SPEECH) and noises (NONSPEECH) over 2 durations and 2 SNR."""

    def make(name: str = "dev", n_clips: int = 40, seed: int = 0, **keys: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(seed)
        rows = []
        for number in range(n_clips):
            is_speech = number % 2 == 0
            duration_ms = (200, 400)[number // 2 % 2]
            n_samples = duration_ms * 16
            waveform = builders.tone(duration_ms / 1000, 200 + 40 * number, seed + number) if is_speech else 0.1 * rng.standard_normal(n_samples)
            soundfile.write(folder / f"{number}.wav", waveform, 16_000, subtype="FLOAT")
            row = {"id": f"{name}-{number}", "audio": f"{number}.wav", "label": "SPEECH" if is_speech else "NONSPEECH", "duration_ms": duration_ms}
            row |= {"target_snr_db": (0, 20)[number // 4 % 2], "kind": None if is_speech else "rain", "split": name}
            rows.append(row | {"recording": f"{name}-{number // 2}"} | keys)
        manifest = folder / f"{name}.jsonl"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return manifest

    return make
