"""Rows of manifests -> checked rows with their lengths."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiograft.audio import is_silent, load_audio
from audiograft.data.manifest import read_manifest
from audiograft.messages import conversation
from audiograft.model import AudioGraftProcessor
from audiograft.types import SAMPLE_RATE_HZ, TRANSCRIBE_PROMPT, WINDOW_S, WINDOW_SAMPLES, AudioError, DataError, Rejection, Sample

Waveform = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """A row of a manifest that can be learnt from; lengths only, no audio.

    Attributes:
        sample: the row as it was read.
        n_samples: of each clip at 16 kHz, as decoded; empty in a row of text alone.
        checksum: CRC-32 of the decoded samples and of the ids.
        padded: whether its clips are padded to 30 s in training.
        feature_frames: of each clip, as the tower is given them in training.
        positions: it takes in the language model in training, prompt and answer included.
    """

    sample: Sample
    n_samples: tuple[int, ...]
    checksum: int
    padded: bool
    feature_frames: tuple[int, ...]
    positions: int

    @property
    def target(self) -> str:
        """What the model should answer."""
        assert self.sample.target is not None
        return self.sample.target

    @property
    def duration_s(self) -> float:
        """Of all clips together."""
        return sum(self.n_samples) / SAMPLE_RATE_HZ


def read_samples(manifests: Sequence[str], prompt: str | None = None, prompts: str | None = None, seed: int = 0) -> list[Sample]:
    """All rows of some manifests.

    Args:
        manifests: files or folders.
        prompt: instruction for all rows with clips, in place of their own; conversations and rows of text alone keep theirs.
        prompts: text file of instructions, one a line, of which each row with clips draws one, where it has none of its own.
        seed: of the draws.

    Raises:
        DataError: a manifest or file of instructions that is missing, broken or empty.
    """
    samples = [sample for manifest in manifests for sample in read_manifest(manifest)]
    if prompt is not None:
        return [replace(sample, prompt=prompt) if sample.clips and not sample.messages else sample for sample in samples]
    if prompts is None:
        return samples
    templates = read_prompts(prompts)
    return [
        replace(sample, prompt=templates[int(drawn(seed, f"{sample.id}/prompt") * len(templates))])
        if sample.clips and not sample.messages and sample.prompt == TRANSCRIBE_PROMPT
        else sample
        for sample in samples
    ]


def read_prompts(path: str) -> list[str]:
    """Instructions, one a line; blank lines are left out.

    Raises:
        DataError: the file is missing, no text, or empty.
    """
    try:
        lines = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read as instructions, one a line: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    if not any(lines):
        raise DataError(f"{path}: no instructions: write one a line")
    return [line for line in lines if line]


def drawn(seed: int, row_id: str) -> float:
    """A number in [0, 1) that depends on seed and row alone, so that it is the same in every epoch and after a resume."""
    digest = hashlib.blake2b(f"{seed}/{row_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _row(sample: Sample, processor: AudioGraftProcessor, pad_share: float, seed: int) -> Row | Rejection:
    """Decode a row's clips once, to know that they can be read and how long they are."""
    reject = partial(Rejection, sample.id, sample.audio or sample.id)
    if sample.target is None:
        return reject("no text or response to learn: add one to its row")
    for key, written in (("text", sample.text), ("prompt", sample.prompt), ("response", sample.response)):
        if written is not None and processor.audio_token in written:
            return reject(f"the {key} contains {processor.audio_token}, which stands for a clip: take it out")
    try:
        waveforms = [load_audio(clip).waveform for clip in sample.clips]
    except AudioError as error:
        return reject(str(error))
    if sample.target and waveforms and all(map(is_silent, waveforms)):
        return reject("silence with a transcript: correct the clip, or give it an empty text")
    n_samples = tuple(map(len, waveforms))
    if waveforms and max(n_samples) > WINDOW_SAMPLES:
        length = f"{max(n_samples) / SAMPLE_RATE_HZ:.1f} s is longer than {WINDOW_S} s"
        return reject(f"{length}: cut it, with its transcript, into shorter clips")
    padded = processor.pad_to_window or drawn(seed, sample.id) < pad_share
    frames = tuple(processor.front_end.feature_frames(n, padded) for n in n_samples)
    row = Row(sample, n_samples, 0, padded, frames, positions=0)
    try:
        ids = tokens(row, frames, processor)["input_ids"]
    except DataError as error:
        return reject(str(error))
    checksum = zlib.crc32(np.array(ids, dtype=np.int64).tobytes())
    for waveform in waveforms:
        checksum = zlib.crc32(waveform.tobytes(), checksum)
    return replace(row, checksum=checksum, positions=len(ids))


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


def load_clip(row: Row, number: int) -> Waveform:
    """One of a row's clips: (n_samples,) at 16 kHz.

    Raises:
        DataError: the clip passed `index_rows` and can't be read any more, or has another length now.
    """
    path = row.sample.clips[number]
    try:
        waveform = load_audio(path).waveform
    except AudioError as error:
        raise DataError(f"row {row.sample.id}: the clip was readable when the run began and is not now: {error}") from error
    if len(waveform) != row.n_samples[number]:
        raise DataError(f"row {row.sample.id}: {path} changed during the run: start it again")
    return waveform


def load_clips(row: Row) -> list[Waveform]:
    """All clips of a row, in order. Raises what `load_clip` raises."""
    return [load_clip(row, number) for number in range(len(row.n_samples))]


def tokens(row: Row, feature_frames: Sequence[int], processor: AudioGraftProcessor) -> dict[str, Any]:
    """A row's text with clips of so many feature frames: `id`, `input_ids`, `labels`, `feature_frames`.

    Raises:
        DataError: markers and clips differ in number, or the chat template refuses the conversation.
    """
    ids, labels = processor.training_ids(conversation(row.sample), row.target, feature_frames)
    return {"id": row.sample.id, "input_ids": ids, "labels": labels, "feature_frames": list(feature_frames)}
