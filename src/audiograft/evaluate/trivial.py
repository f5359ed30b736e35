"""Classifiers of length, level or crest factor alone as detectors, so that their predictions stand beside those of models on the same clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiograft import __version__
from audiograft.data.detection.leaks import CUES, TrivialClassifier, measure_rows, measure_trivial
from audiograft.data.manifest import find_manifest, read_rows
from audiograft.evaluate.run import evaluate
from audiograft.inference.vads import THRESHOLD, FloatArray
from audiograft.types import NONSPEECH, SPEECH, ConfigError, DataError

Waveform = npt.NDArray[np.float32]


class TrivialDetector:
    """A `TrivialClassifier` where a voice activity detector stands (see `audiograft.inference.vads.Vad`): of both classes alike, from 0.5 on.

    Attributes:
        name: the cue with `-cue` behind it.
        version: of this package.
        threshold: 0.5.
    """

    def __init__(self, cue: str, train: str | Path) -> None:
        """Fit.

        Args:
            cue: a name of `CUES`.
            train: the manifest to learn from, with `label` SPEECH or NONSPEECH.

        Raises:
            ConfigError: an unknown cue.
            DataError: the manifest can't be read, or its labels are others.
            AudioError: a clip can't be read.
        """
        if cue not in CUES:
            raise ConfigError(f"no trivial cue {cue!r}: take {', '.join(CUES)}")
        manifest = find_manifest(train)
        rows = [row for _, row in read_rows(manifest)]
        labels = [str(row.get("label")) for row in rows]
        if set(labels) != {SPEECH, NONSPEECH}:
            raise DataError(
                f"{manifest}: a trivial detector learns from clips of both {SPEECH} and {NONSPEECH}, and here is {', '.join(sorted(set(labels)))}"
            )
        self._classifier = TrivialClassifier(cue, measure_rows(rows, manifest.parent), labels)
        self.name = f"{cue}-cue"
        self.version = __version__
        self.threshold = THRESHOLD

    def speech_probs(self, waveforms: Sequence[Waveform]) -> FloatArray:
        """See `audiograft.inference.vads.Vad`."""
        measures = np.array([measure_trivial(waveform) for waveform in waveforms], dtype=np.float64).reshape(-1, 3)
        return self._classifier.probs(measures)[:, self._classifier.labels.index(SPEECH)]


def write_trivial_run(cue: str, train: str | Path, test: str | Path, out: Path, on_clip: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Fit a trivial detector on one manifest and evaluate it on another: a run folder as any other.

    Args:
        cue: a name of `CUES`.
        train: the manifest to learn from.
        test: the manifest to detect.
        out: the run folder; what was there is given up.
        on_clip: called after each clip of the test.

    Returns:
        The metrics of `evaluate`.

    Raises:
        ConfigError: an unknown cue.
        DataError: a manifest or folder that can't be used.
        AudioError: a clip can't be read.
    """
    return evaluate(TrivialDetector(cue, train), test, out, on_clip=on_clip, overwrite=True)
