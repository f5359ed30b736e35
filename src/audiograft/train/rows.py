"""Rows of manifests -> checked rows with their lengths."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from audiograft.audio import load_audio
from audiograft.bulk import spread
from audiograft.data.examine import short_fault
from audiograft.data.manifest import find_manifest, iterate_rows, row_to_sample
from audiograft.data.prompts import drawn, read_prompts, with_drawn_prompt
from audiograft.data.text import text_fault
from audiograft.data.traces import ClipTrace, audio_digest
from audiograft.messages import conversation
from audiograft.model import AudioGraftProcessor
from audiograft.model.outputs import IGNORE_INDEX
from audiograft.train.detection import DetectionRecipe
from audiograft.train.pictures import NOTHING_SEEN, Pictures, has_pictures
from audiograft.types import SAMPLE_RATE_HZ, SPEECH, WINDOW_S, WINDOW_SAMPLES, AudioError, ConfigError, DataError, ImageError, Rejection, Sample

Waveform = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """A row of a manifest that can be learnt from; lengths only, no audio and no pictures.

    Attributes:
        sample: the row as it was read.
        n_samples: of each clip at 16 kHz, as decoded; empty in a row of text alone.
        checksum: CRC-32 of the ids, of the clips' digests and of the pictures.
        padded: whether its clips are padded to 30 s in training.
        feature_frames: of each clip, as the tower is given them in training.
        positions: it takes in the language model in training, pictures, prompt and answer included.
        audio: the bytes of its clip, where that is no file of its own but came with a stream.
        window: of the stream that it came in.
        answer_only: whether the end of turn behind the answer carries no loss.
    """

    sample: Sample
    n_samples: tuple[int, ...]
    checksum: int
    padded: bool
    feature_frames: tuple[int, ...]
    positions: int
    audio: bytes | None = None
    window: int = 0
    answer_only: bool = False

    @property
    def target(self) -> str:
        """What the model should answer."""
        assert self.sample.target is not None
        return self.sample.target

    @property
    def label(self) -> str | None:
        """Its class, where the answer to be learnt stands for that."""
        return class_of(self.sample)

    @property
    def duration_s(self) -> float:
        """Of all clips together."""
        return sum(self.n_samples) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Wording:
    """Which instruction a row gets in place of its own.

    Attributes:
        prompt: for all rows with clips; conversations and rows of text alone keep theirs.
        prompts: each row with clips draws one of them, where it has none of its own.
        seed: of the draws.
        detection: what is answered for a label, and the system turn.
    """

    prompt: str | None = None
    prompts: tuple[str, ...] = ()
    seed: int = 0
    detection: DetectionRecipe | None = None

    @property
    def answer_only(self) -> bool:
        """Whether the end of turn carries no loss."""
        return self.detection is not None and self.detection.loss_on == "answer"

    @classmethod
    def read(cls, prompt: str | None, prompts: str | None, seed: int, detection: DetectionRecipe | None = None) -> Self:
        """Args are those of the class, but `prompts` is a text file of instructions, one a line.

        Raises:
            DataError: the file is missing, no text, or empty.
        """
        return cls(prompt, () if prompts is None else tuple(read_prompts(prompts)), seed, detection)

    def apply(self, sample: Sample) -> Sample:
        """The row with its instruction and, where it has a label alone, the answer that stands for it."""
        sample = self._instructed(sample)
        if self.detection is None:
            return sample
        if sample.target is None and sample.label is not None:
            sample = replace(sample, response=self.detection.answers.get(sample.label))
        if self.detection.system is not None and sample.clips and not sample.messages:
            turns = ({"role": "system", "content": self.detection.system}, {"role": "user", "content": sample.prompt})
            sample = replace(sample, messages=turns)
        return sample

    def _instructed(self, sample: Sample) -> Sample:
        if self.prompt is not None:
            return replace(sample, prompt=self.prompt) if sample.clips and not sample.messages else sample
        return with_drawn_prompt(sample, self.prompts, self.seed) if self.prompts else sample


def class_of(sample: Sample) -> str | None:
    """The label of a row that is to be classified: what is said in it is not known, or of no account."""
    return sample.label if sample.text is None else None


def read_samples(
    manifests: Sequence[str],
    prompt: str | None = None,
    prompts: str | None = None,
    seed: int = 0,
    allow_outside: bool = False,
    detection: DetectionRecipe | None = None,
) -> Iterator[Sample]:
    """All rows of some manifests, one at a time.

    Args:
        manifests: files or folders.
        prompt: see `Wording`.
        prompts: text file of instructions, one a line.
        seed: of the draws.
        allow_outside: also take clips and pictures that do not lie below the manifest's folder.
        detection: see `Wording`.

    Raises:
        DataError: a file of instructions, or when its place is reached a manifest, that is missing, broken or empty.
    """
    wording = Wording.read(prompt, prompts, seed, detection)
    paths = map(find_manifest, manifests)
    rows = ((path, number, row) for path in paths for number, _, row in iterate_rows(path))
    return (wording.apply(row_to_sample(row, number, path.parent, f"{path}:{number}", allow_outside)) for path, number, row in rows)


def check_row(
    sample: Sample, processor: AudioGraftProcessor, pad_share: float = 0.0, seed: int = 0, known: Sequence[ClipTrace] | None = None
) -> Row | Rejection:
    """Whether a row can be learnt from, and how long it is.

    Args:
        sample: the row.
        processor: of the model to be trained.
        pad_share: share of rows whose clips are padded to 30 s.
        seed: decides which.
        known: what decoding its clips gave before; where there is none they are decoded, since NaN samples and cut files show no earlier. Pictures
            are decoded in any case: their size decides how many positions they take.
    """
    reject = partial(Rejection, sample.id, sample.audio or sample.id)
    if sample.target is None and sample.label is not None:
        return reject(f"the label {sample.label!r} has no answer: add it to detection.answers, or a text or response to the row", "label")
    if sample.target is None:
        return reject("no text or response to learn: add one to its row", "text")
    if (fault := _wrong_text(sample, processor)) is not None:
        return reject(fault, "text")
    try:
        clips = _listen(sample.clips) if known is None else [(clip.digest, clip.n_samples) for clip in known]
    except AudioError as error:
        return reject(str(error), error.kind)
    if clips and all(digest is None for digest, _ in clips) and (fault := _wrong_silence(sample)):
        return reject(fault, "silence")
    n_samples = tuple(n for _, n in clips)
    if problem := _wrong_length(sample, n_samples):
        return reject(*problem)
    padded = processor.pad_to_window or drawn(seed, sample.id) < pad_share
    frames = tuple(processor.front_end.feature_frames(n, padded) for n in n_samples)
    try:
        return _measured(Row(sample, n_samples, 0, padded, frames, positions=0), clips, processor)
    except ImageError as error:
        return Rejection(sample.id, sample.id, str(error), error.kind)
    except ConfigError as error:  # pictures, and the model has no eyes for them
        return Rejection(sample.id, sample.id, str(error), "row")
    except DataError as error:
        return reject(str(error), "text")


def told(rejection: Rejection) -> str:
    """A row that can't be used, in a message; a reason that begins with the name of the clip does not get it again."""
    known = f"{rejection.audio}: "
    return known + rejection.reason.removeprefix(known)


def _measured(row: Row, clips: Sequence[tuple[str | None, int]], processor: AudioGraftProcessor) -> Row:
    """The row with its positions and its checksum; `clips` are from `_listen`."""
    seen = Pictures.of(row.sample)
    try:
        ids = tokens(row, row.feature_frames, processor, seen)["input_ids"]
    except ImageError as error:  # the processor does not know the names
        raise ImageError(f"{' or '.join((*row.sample.images, *row.sample.videos))}: {error}", error.kind) from error
    checksum = zlib.crc32(repr(clips).encode(), zlib.crc32(np.array(ids, dtype=np.int64).tobytes()))
    if has_pictures(row.sample):
        checksum = zlib.crc32(repr(seen.checksum).encode(), checksum)
    return replace(row, checksum=checksum, positions=len(ids))


def _wrong_text(sample: Sample, processor: AudioGraftProcessor) -> str | None:
    """Why a row's texts can't be learnt."""
    for key, written in (("text", sample.text), ("prompt", sample.prompt), ("response", sample.response)):
        if written is not None and processor.audio_token in written:
            return f"the {key} contains {processor.audio_token}, which stands for a clip: take it out"
        if written is not None and (fault := text_fault(written)) is not None:
            return f"the {key} {fault}"
    return None


def _listen(paths: Sequence[str]) -> list[tuple[str | None, int]]:
    """The digest and the number of samples of each clip."""
    waveforms = (load_audio(path).waveform for path in paths)
    return [(audio_digest(waveform), len(waveform)) for waveform in waveforms]


def _wrong_silence(sample: Sample) -> str | None:
    """Why a row's clips can't be silent; as the class of a clip, silence is as good as any other sound, unless it is to be speech."""
    if class_of(sample) is None:
        return "silence with a transcript: correct the clip, or give it an empty text" if sample.target else None
    return f"silence with the label {SPEECH}: correct the clip or its label" if class_of(sample) == SPEECH else None


def _wrong_length(sample: Sample, n_samples: Sequence[int]) -> tuple[str, str] | None:
    """Why clips of so many samples can't be taken, and the kind of it."""
    if n_samples and max(n_samples) > WINDOW_SAMPLES:
        length = f"{max(n_samples) / SAMPLE_RATE_HZ:.1f} s is longer than {WINDOW_S} s"
        return f"{length}: cut it, with its transcript, into shorter clips", "duration"
    fault = short_fault(sum(n_samples), sample.duration_s) if n_samples else None
    return None if fault is None else (fault, "short")


def index_rows(samples: Iterable[Sample], processor: AudioGraftProcessor, pad_share: float = 0.0, seed: int = 0) -> tuple[list[Row], list[Rejection]]:
    """Check and measure some rows and keep them in memory; `audiograft.train.index` is for any number of them.

    Args:
        samples: rows of manifests.
        processor: of the model to be trained.
        pad_share: share of rows whose clips are padded to 30 s.
        seed: decides which.

    Returns:
        Usable rows and rejected ones, both in the order of the manifests.
    """
    rows: list[Row] = []
    rejected: list[Rejection] = []
    check: Callable[[Sample], Row | Rejection] = partial(check_row, processor=processor, pad_share=pad_share, seed=seed)
    for result in spread(lambda: check, samples):
        if isinstance(result, Row):
            rows.append(result)
        else:
            rejected.append(result)
    return rows, rejected


def load_clip(row: Row, number: int) -> Waveform:
    """One of a row's clips: (n_samples,) at 16 kHz.

    Raises:
        DataError: the clip passed `check_row` and can't be read any more, or has another length now.
    """
    path = row.sample.clips[number]
    try:
        waveform = load_audio(path if row.audio is None else row.audio).waveform
    except AudioError as error:
        raise DataError(f"row {row.sample.id}: the clip was readable when the run began and is not now: {error}") from error
    if len(waveform) != row.n_samples[number]:
        raise DataError(f"row {row.sample.id}: {path} changed during the run: start it again")
    return waveform


def load_clips(row: Row) -> list[Waveform]:
    """All clips of a row, in order. Raises what `load_clip` raises."""
    return [load_clip(row, number) for number in range(len(row.n_samples))]


def tokens(row: Row, feature_frames: Sequence[int], processor: AudioGraftProcessor, seen: Pictures = NOTHING_SEEN) -> dict[str, Any]:
    """A row's text with clips of so many feature frames, and with its pictures.

    Returns:
        `id`, `input_ids`, `labels`, `vision` (see `AudioGraftProcessor.training_inputs`), `feature_frames`, and its class as `label`.

    Raises:
        DataError: markers and clips or pictures differ in number, or the chat template refuses the conversation.
    """
    inputs = processor.training_inputs(conversation(row.sample), row.target, feature_frames, images=seen.images, videos=seen.videos)
    if row.answer_only:
        inputs["labels"][-1] = IGNORE_INDEX
    return {"id": row.sample.id, **inputs, "feature_frames": list(feature_frames), "label": row.label}
