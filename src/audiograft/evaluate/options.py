"""What can be chosen about an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from audiograft.evaluate.predictions import Task
from audiograft.inference.choices import ClosedQuestion
from audiograft.metrics.normalisers import get_normaliser
from audiograft.types import ConfigError, Sample

Audio = Literal["true", "shuffled", "none"]
"""Which clips a model is given: each row's own, other rows', or none. What it gets right without its own, it does not get from listening."""
Pictures = Audio
"""Which images and videos it is given, likewise."""
DEAFNESS_CLIPS = 64
"""Rows of the deafness table by default: it costs two passes over so many."""


class EvaluateOptions(TypedDict, total=False):
    """The keywords of `Options`, for functions that pass them on."""

    batch_size: int
    normaliser: str
    prompt: str | None
    audio: Audio
    pictures: Pictures
    context: Sequence[str]
    terms: Sequence[str]
    slice_by: Sequence[str]
    baseline: Path | None
    deafness_clips: int
    device: str
    language: str | None
    allow_outside: bool
    overwrite: bool
    threshold: float | None
    question: Path | ClosedQuestion | None


@dataclass(frozen=True)
class Options:
    """How a model is run over a manifest, and how what it wrote is scored.

    Attributes:
        batch_size: clips in a batch.
        normaliser: of the headline, one of `audiograft.metrics.normalisers.NORMALISERS`; all others stand beside it.
        prompt: the instruction for all rows with clips, in place of their own; conversations keep theirs.
        audio: which clips the model is given, for baselines.
        pictures: which images and videos, likewise.
        context: names and rare words to put into the prompts, but not into conversations.
        terms: words whose recall is measured; by default those of `context`.
        slice_by: further keys of the rows by which figures are cut.
        baseline: a second predictions file of the same clips, for a column beside.
        deafness_clips: so many rows, at most, are also heard with shuffled and with silent audio, and as many with pictures also seen with those of
            others; 0 leaves the tables out.
        device: where a model is opened.
        language: of a stock Whisper, as an ISO 639-1 code; None lets it find out.
        allow_outside: also take clips that do not lie below the manifest's folder.
        overwrite: give up what another run left in the run folder.
        threshold: of detections, in place of the model's own: SPEECH from this probability on.
        question: of detections, in place of the model's own; or a folder with its detection.json.

    Raises:
        ConfigError: an unknown normaliser, or a number out of its range.
    """

    batch_size: int = 8
    normaliser: str = "lower"
    prompt: str | None = None
    audio: Audio = "true"
    pictures: Pictures = "true"
    context: Sequence[str] = ()
    terms: Sequence[str] = ()
    slice_by: Sequence[str] = ()
    baseline: Path | None = None
    deafness_clips: int = DEAFNESS_CLIPS
    device: str = "auto"
    language: str | None = None
    allow_outside: bool = False
    overwrite: bool = False
    threshold: float | None = None
    question: Path | ClosedQuestion | None = None

    def __post_init__(self) -> None:
        get_normaliser(self.normaliser)  # an unknown name is to stop the run before the work, not after it
        if self.batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, not {self.batch_size}")
        if self.deafness_clips < 0:
            raise ConfigError(f"deafness_clips must be 0 or more, not {self.deafness_clips}: 0 leaves the table out")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold must be a probability from 0 to 1, not {self.threshold}")


def task(sample: Sample) -> Task:
    """What a row wants: an answer where its `response` is another than its `text`; its label where it has one and neither text."""
    if sample.target is None and sample.label is not None:
        return "detection"
    return "transcript" if sample.response in (None, sample.text) else "answer"


def is_plain(sample: Sample, clips: Sequence[str]) -> bool:
    """Whether a row wants the transcript of one clip by an instruction, and no more."""
    return task(sample) == "transcript" and len(clips) == 1 and not (sample.messages or sample.images or sample.videos)
