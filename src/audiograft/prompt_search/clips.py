"""The clips that prompts are scored on: dev rows, and the test rows of the end. They are never the same."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiograft.audio import load_audio
from audiograft.audio.samples import Waveform
from audiograft.data.leakage import compare_manifests
from audiograft.data.manifest import find_manifest, read_manifest
from audiograft.types import TRANSCRIBE_PROMPT, WINDOW_S, WINDOW_SAMPLES, ConfigError, DataError, Sample

CONDITION_KEYS = ("duration_ms", "target_snr_db")
"""The cells of the bench."""
_MAX_EXAMPLES = 12
_SHARED = ("speakers", "recordings", "audio")


@dataclass(frozen=True)
class LabelledClips:
    """Clips with their labels.

    Attributes:
        manifest: that they are from.
        sha256: of the manifest.
        samples: their rows.
        conditions: of each clip, in words, such as `200 ms, 5 dB`; all the same where rows name none.
        n_rows: of the manifest; more than the clips where some were drawn.
    """

    manifest: Path
    sha256: str
    samples: Sequence[Sample]
    conditions: Sequence[str]
    n_rows: int

    @property
    def labels(self) -> list[str]:
        """Of each clip."""
        return [str(sample.label) for sample in self.samples]

    def load(self) -> list[Waveform]:
        """(n_samples,) at 16 kHz each.

        Raises:
            AudioError: a clip can't be used.
            DataError: a clip is longer than 30 s.
        """
        waveforms = []
        for sample in self.samples:
            waveform = load_audio(sample.audio).waveform
            if len(waveform) > WINDOW_SAMPLES:
                raise DataError(f"{self.manifest}: the clip of row {sample.id!r} is longer than {WINDOW_S} s: cut it, or leave it out")
            waveforms.append(waveform)
        return waveforms

    def examples(self) -> dict[str, list[str]]:
        """By label, what its rows say they are (`kind`), such as rain or engine."""
        kinds: dict[str, dict[str, None]] = defaultdict(dict)
        for sample in self.samples:
            if isinstance(kind := sample.extra.get("kind"), str) and kind != sample.label:
                kinds[str(sample.label)][kind.replace("_", " ")] = None
        return {label: sorted(found)[:_MAX_EXAMPLES] for label, found in kinds.items()}


def read_dev(path: str | Path, labels: Sequence[str], n_clips: int | None = None, seed: int = 0, allow_outside: bool = False) -> LabelledClips:
    """Rows to score prompts on.

    Args:
        path: manifest, each row with a `label`.
        labels: of the closed question.
        n_clips: draw so many, from all conditions and classes alike; None takes all.
        seed: of the draw.
        allow_outside: also take clips that do not lie below the manifest's folder.

    Raises:
        ConfigError: `n_clips` is more than there are, or fewer than classes.
        DataError: a row without label or clip, of another question, or of a test split; or one class only.
    """
    clips = _read(path, labels, allow_outside)
    for sample in clips.samples:
        if sample.extra.get("split") == "test":
            raise DataError(
                f"{clips.manifest}: row {sample.id!r} is of the test split, which is for the winner alone: name the dev manifest with --dev"
            )
    return clips if n_clips is None else _draw(clips, n_clips, seed)


def read_test(path: str | Path, dev: LabelledClips, labels: Sequence[str], allow_outside: bool = False) -> LabelledClips:
    """Rows to measure the winner on, once; they share no clip, recording or speaker with those that chose it.

    Raises:
        DataError: as `read_dev`; or it is the dev manifest, has rows of another split, or shares something with it.
    """
    manifest = find_manifest(path)
    clips = _read(manifest, labels, allow_outside)
    if manifest.samefile(dev.manifest) or clips.sha256 == dev.sha256:
        raise DataError(f"{manifest}: the winner was chosen on these clips: name another manifest with --test")
    for sample in clips.samples:
        if sample.extra.get("split") in ("train", "dev"):
            raise DataError(f"{manifest}: row {sample.id!r} is of the {sample.extra['split']} split: name the test manifest with --test")
    report = compare_manifests([dev.manifest], manifest, allow_outside=allow_outside)
    if shared := [kind for kind in report.touches if kind in _SHARED]:
        raise DataError(f"{manifest}: shares {shared[0]} with the dev clips, as {report.first(shared[0])}: split by speaker and recording")
    return clips


def _read(path: str | Path, labels: Sequence[str], allow_outside: bool) -> LabelledClips:
    manifest = find_manifest(path)
    samples = read_manifest(manifest, allow_outside)
    for sample in samples:
        if len(sample.clips) != 1:
            raise DataError(f"{manifest}: row {sample.id!r} has {len(sample.clips)} clips: a closed question is about one")
        if sample.messages or sample.prompt != TRANSCRIBE_PROMPT or sample.target is not None:
            raise DataError(f"{manifest}: row {sample.id!r} has a prompt or a text of its own: leave its label alone, since all are asked the same")
        if sample.label not in labels:
            found = 'no "label"' if sample.label is None else f"the label {sample.label!r}"
            raise DataError(f"{manifest}: row {sample.id!r} has {found}: each row needs one of {', '.join(labels)}")
    if missing := [label for label in labels if label not in {sample.label for sample in samples}]:
        raise DataError(f"{manifest}: has no row of {missing[0]}: with one class missing, nothing can be chosen")
    sha256 = hashlib.sha256(manifest.read_bytes()).hexdigest()
    return LabelledClips(manifest, sha256, samples, [_condition(sample.extra) for sample in samples], len(samples))


def _condition(extra: dict[str, Any]) -> str:
    named = {key: extra[key] for key in CONDITION_KEYS if extra.get(key) is not None}
    return ", ".join(f"{value:g} {key.rpartition('_')[2].replace('db', 'dB')}" for key, value in named.items() if isinstance(value, int | float))


def _draw(clips: LabelledClips, n_clips: int, seed: int) -> LabelledClips:
    """So many rows, one from each cell of condition and class in turn, in the manifest's order."""
    classes = len(set(clips.labels))
    if not classes <= n_clips <= clips.n_rows:
        raise ConfigError(f"--clips {n_clips}: {clips.manifest} has {classes} classes and {clips.n_rows} rows: take a number between the two")
    rng = np.random.default_rng(seed)
    cells: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number in rng.permutation(clips.n_rows):
        cells[clips.conditions[number], clips.labels[number]].append(int(number))
    # Of each label the cells in turn, so that a few clips hold all classes alike.
    turns = sorted((place, order, clips.labels[number], number) for order, cell in enumerate(cells.values()) for place, number in enumerate(cell))
    by_label: dict[str, list[int]] = defaultdict(list)
    for _, _, label, number in turns:
        by_label[label].append(number)
    ranked = sorted((place, label, number) for label, numbers in by_label.items() for place, number in enumerate(numbers))
    kept = sorted(number for _, _, number in ranked[:n_clips])
    return LabelledClips(
        clips.manifest, clips.sha256, [clips.samples[number] for number in kept], [clips.conditions[number] for number in kept], clips.n_rows
    )
