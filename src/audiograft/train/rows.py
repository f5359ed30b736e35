"""Rows of manifests -> checked rows with their lengths."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from audiograft.audio import is_silent, load_audio
from audiograft.data.manifest import read_manifest
from audiograft.model import AudioGraftProcessor, audio_messages
from audiograft.model.lengths import chunk_mel_frames
from audiograft.types import SAMPLE_RATE_HZ, WINDOW_S, WINDOW_SAMPLES, AudioError, DataError, Sample

Waveform = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One clip that can be learnt from; lengths only, no audio.

    Attributes:
        sample: its row of the manifest.
        n_samples: at 16 kHz, as decoded.
        padded: to 30 s, in training.
        positions: it takes in the language model in training, prompt and answer included.
    """

    sample: Sample
    n_samples: int
    padded: bool
    positions: int

    @property
    def target(self) -> str:
        """What the model should answer."""
        assert self.sample.target is not None
        return self.sample.target

    @property
    def mel_frames(self) -> int:
        """Frames that the tower is given in training."""
        return chunk_mel_frames(self.n_samples, self.padded)

    @property
    def duration_s(self) -> float:
        return self.n_samples / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Rejection:
    """A row that can't be learnt from, and why."""

    id: str
    audio: str
    reason: str


def read_samples(manifests: Sequence[str], prompt: str | None) -> list[Sample]:
    """All rows of some manifests, with the recipe's instruction in place of their own where it gives one.

    Raises:
        DataError: a manifest that is missing, broken or empty.
    """
    samples = [sample for manifest in manifests for sample in read_manifest(manifest)]
    return samples if prompt is None else [replace(sample, prompt=prompt) for sample in samples]


def drawn(seed: int, row_id: str) -> float:
    """A number in [0, 1) that depends on seed and row alone, so that it is the same in every epoch and after a resume."""
    digest = hashlib.blake2b(f"{seed}/{row_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _row(sample: Sample, processor: AudioGraftProcessor, pad_share: float, seed: int) -> Row | Rejection:
    """Decode a clip once, to know that it can be read and how long it is."""
    if sample.target is None:
        return Rejection(sample.id, sample.audio, "no text or response to learn: add one to its row")
    for key, written in (("text", sample.text), ("prompt", sample.prompt), ("response", sample.response)):
        if written is not None and processor.audio_token in written:
            return Rejection(sample.id, sample.audio, f"the {key} contains {processor.audio_token}, which stands for a clip: take it out")
    try:
        waveform = load_audio(sample.audio).waveform
    except AudioError as error:
        return Rejection(sample.id, sample.audio, str(error))
    if sample.target and is_silent(waveform):
        return Rejection(sample.id, sample.audio, "silence with a transcript: correct the clip, or give it an empty text")
    n_samples = len(waveform)
    if n_samples > WINDOW_SAMPLES:
        length = f"{n_samples / SAMPLE_RATE_HZ:.1f} s is longer than {WINDOW_S} s"
        return Rejection(sample.id, sample.audio, f"{length}: cut it, with its transcript, into shorter clips")
    row = Row(sample, n_samples, processor.pad_to_window or drawn(seed, sample.id) < pad_share, positions=0)
    return replace(row, positions=len(tokens(row, row.mel_frames, processor)["input_ids"]))


def index_rows(
    samples: Sequence[Sample],
    processor: AudioGraftProcessor,
    pad_share: float = 0.0,
    seed: int = 0,
    on_row: Callable[[], None] = lambda: None,
) -> tuple[list[Row], list[Rejection]]:
    """Check and measure each row. Clips are decoded, not only their headers read: NaN samples and cut files show no earlier.

    Args:
        samples: rows of manifests.
        processor: of the model to be trained.
        pad_share: share of clips that are padded to 30 s.
        seed: decides which.
        on_row: called after each row.

    Returns:
        Usable rows and rejected ones, both in the order of the manifests.
    """
    rows: list[Row] = []
    rejected: list[Rejection] = []
    measure = partial(_row, processor=processor, pad_share=pad_share, seed=seed)
    # Decoding releases the interpreter lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for result in pool.map(measure, samples):
            if isinstance(result, Row):
                rows.append(result)
            else:
                rejected.append(result)
            on_row()
    return rows, rejected


def load_waveform(row: Row) -> Waveform:
    """(n_samples,) at 16 kHz.

    Raises:
        DataError: the clip passed `index_rows` and can't be read any more, or has another length now.
    """
    try:
        waveform = load_audio(row.sample.audio).waveform
    except AudioError as error:
        raise DataError(f"row {row.sample.id}: the clip was readable when the run began and is not now: {error}") from error
    if len(waveform) != row.n_samples:
        raise DataError(f"row {row.sample.id}: {row.sample.audio} changed during the run: start it again")
    return waveform


def tokens(row: Row, mel_frames: int, processor: AudioGraftProcessor) -> dict[str, Any]:
    """A row's text with a clip of so many mel frames: `id`, `input_ids`, `labels`, `mel_frames`."""
    ids, labels = processor.training_ids(audio_messages(row.sample.prompt), row.target, [mel_frames])
    return {"id": row.sample.id, "input_ids": ids, "labels": labels, "mel_frames": mel_frames}
