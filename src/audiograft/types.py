"""Shared types, constants with units, and the errors that users see. Imports nothing of the package."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SAMPLE_RATE_HZ = 16_000
"""Every clip is resampled to this rate; Whisper's rate."""
HOP_SAMPLES = 160
"""Samples between two mel frames: 10 ms."""
WINDOW_S = 30
"""Length of Whisper's window in seconds; longer clips are chunked."""
WINDOW_SAMPLES = WINDOW_S * SAMPLE_RATE_HZ
WINDOW_FRAMES = WINDOW_SAMPLES // HOP_SAMPLES
"""Mel frames in one window: 3000."""
TRANSCRIBE_PROMPT = "Transcribe the audio."
"""The instruction used when a row or a caller gives none."""
DEFAULT_DETECTOR = "tiny-detect"
"""The detector that ships with the package."""
DEFAULT_WITH_EYES = "tiny-vl"
"""The model with eyes that ships with the package."""
SPEECH, NONSPEECH = "SPEECH", "NONSPEECH"
"""Labels of the two classes of a detector of speech."""
TRAINING_TRACES = "training.traces"
"""The record of what a model was trained on, in its folder; the leakage gate reads it."""
VALIDATION_TRACES = "validation.traces"
"""The record of what a model was validated on while it was trained: figures on the same data may have chosen the checkpoint."""
DETECTION_FILE = "detection.json"
"""A model's closed question, in its folder."""


class AudiograftError(Exception):
    """Anything a user can cause and mend. The message is one line that names the file or key and the mend."""


class MediaError(AudiograftError):
    """A file of a question or row that can't be used: a clip, an image or a video.

    Attributes:
        kind: of the `Rejection` that it leads to: `missing`, `empty`, `short`, `giant` or `unreadable`.
    """

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind


class AudioError(MediaError):
    """A clip that can't be used: missing, unreadable, empty or not finite."""


class ImageError(MediaError):
    """An image or a video that can't be used: missing, unreadable, giant, or without pixels or frames."""


class ConfigError(AudiograftError):
    """A recipe, model folder or option that does not fit."""


class DataError(AudiograftError):
    """A manifest or row that can't be used."""


@dataclass(frozen=True)
class Sample:
    """One row of a manifest.

    Attributes:
        id: unique within its manifest.
        clips: paths of the clips, as they can be opened from the working directory; none in a row of text alone.
        text: the reference transcript, where there is one.
        prompt: the instruction, with a marker for each item of a kind (`<audio>`, `<image>`, `<video>`) or none; `TRANSCRIBE_PROMPT` where the row
            gives none.
        messages: the conversation to be answered, which stands in place of `prompt`; empty where there is only a prompt.
        response: what the model should answer; the reference where the row gives none.
        speaker: who speaks; the unit over which intervals are clustered.
        recording: what the clip was cut from: a reading, a broadcast, a sound file. Clips of one recording never part in a split.
        language: as an ISO 639-1 code, `en`.
        label: its class, where rows are to be classified, such as SPEECH or NONSPEECH.
        source: the corpus that it comes from.
        duration_s: length in seconds, where the manifest states it.
        extra: every other key of the row, kept as it is.
        images: paths of images, as those of clips.
        videos: paths of videos, likewise.
    """

    id: str
    clips: tuple[str, ...] = ()
    text: str | None = None
    prompt: str = TRANSCRIBE_PROMPT
    messages: tuple[dict[str, Any], ...] = ()
    response: str | None = None
    speaker: str | None = None
    recording: str | None = None
    language: str | None = None
    label: str | None = None
    source: str | None = None
    duration_s: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()

    @property
    def audio(self) -> str:
        """The first clip's path; empty where there is none."""
        return self.clips[0] if self.clips else ""

    @property
    def target(self) -> str | None:
        """The text to be learnt: `response`, else `text`."""
        return self.response if self.response is not None else self.text


@dataclass(frozen=True)
class Rejection:
    """A row that can't be used, and why.

    Attributes:
        id: of the row; where it has none, its place, as file and line.
        audio: its first clip as it was named; its id where it has none, or where its pictures are at fault.
        reason: one line that names the mend.
        kind: the short name under which rejections are counted, such as `missing`, `unreadable` or `duration`.
    """

    id: str
    audio: str
    reason: str
    kind: str = "unusable"


@dataclass(frozen=True)
class Segment:
    """A span of text with its place in the clip, in seconds."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """What was heard in one clip.

    Attributes:
        audio: the clip as it was named by the caller.
        text: the whole transcript; empty where nothing was heard.
        duration_s: length of the clip in seconds.
        model: name or folder of the model that wrote it.
        segments: one per chunk of the clip, in order of time.
        tokens: what the model wrote, as its vocabulary has it, the end token of each chunk with it; empty with beams.
        token_logprobs: natural logarithm of the probability of each token, by the model alone: before temperature and top-p.
        decode_s: the clip's share of the wall time of its batches, in which all rows share alike: features, encoder, decoding, and the text
            from the tokens. Reading the file is not in it.
    """

    audio: str
    text: str
    duration_s: float
    model: str
    segments: tuple[Segment, ...] = ()
    tokens: tuple[str, ...] = ()
    token_logprobs: tuple[float, ...] = ()
    decode_s: float | None = field(default=None, compare=False)

    @property
    def confidence(self) -> float | None:
        """See `confidence`."""
        return confidence(self.token_logprobs)

    def as_row(self) -> dict[str, Any]:
        """For users, as JSON: without the tokens and the cost, with the confidence to four digits."""
        return _row(self, ("audio", "text", "duration_s", "model", "segments"))


@dataclass(frozen=True)
class Answer:
    """What was answered to one question.

    Attributes:
        text: the answer.
        prompt: the question as it was put, of a conversation the last one; empty where the clips themselves asked.
        clips: the clips as they were named by the caller, in order.
        duration_s: their length in seconds, all together.
        model: name or folder of the model that answered.
        tokens: as in `Transcript`.
        token_logprobs: likewise.
        decode_s: likewise.
        images: the images as they were named by the caller, in order.
        videos: likewise.
    """

    text: str
    prompt: str
    clips: tuple[str, ...]
    duration_s: float
    model: str
    tokens: tuple[str, ...] = ()
    token_logprobs: tuple[float, ...] = ()
    decode_s: float | None = field(default=None, compare=False)
    images: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()

    @property
    def confidence(self) -> float | None:
        """See `confidence`."""
        return confidence(self.token_logprobs)

    def as_row(self) -> dict[str, Any]:
        """For users, as JSON: without the tokens and the cost, with the confidence to four digits, and with pictures where there are some."""
        pictures = [kind for kind in ("images", "videos") if getattr(self, kind)]
        return _row(self, ("text", "prompt", *pictures, "clips", "duration_s", "model"))


@dataclass(frozen=True)
class SpeechSegment:
    """A stretch of a clip that holds speech.

    Attributes:
        start_s: where it begins, from the start of the clip.
        end_s: where it ends.
        speech_prob: mean of the probabilities of the moments in it.
    """

    start_s: float
    end_s: float
    speech_prob: float


@dataclass(frozen=True)
class Detection:
    """What a closed question about one clip was answered with: SPEECH or NONSPEECH, or any other set of labels.

    Attributes:
        audio: the clip as it was named by the caller.
        predicted: the label.
        speech_prob: calibrated probability of the first label; of a clip that was cut into windows that of its likeliest moment.
        duration_s: length of the clip in seconds.
        scores: label -> natural logarithm of its probability among the labels, before any temperature.
        model: name or folder of the model.
        probabilities: label -> its probability, after the temperature.
        segments: where the speech is, in order of time; None where the clip was heard whole.
        decode_s: as in `Transcript`.
    """

    audio: str
    predicted: str
    speech_prob: float
    duration_s: float
    scores: Mapping[str, float]
    model: str
    probabilities: Mapping[str, float] = field(default_factory=dict)
    segments: tuple[SpeechSegment, ...] | None = None
    decode_s: float | None = field(default=None, compare=False)


def confidence(token_logprobs: Sequence[float]) -> float | None:
    """Geometric mean of the tokens' probabilities, between 0 and 1; None where they are not known."""
    return math.exp(math.fsum(token_logprobs) / len(token_logprobs)) if token_logprobs else None


def _row(result: Transcript | Answer, names: Sequence[str]) -> dict[str, Any]:
    values = asdict(result)
    sure = result.confidence
    return {**{name: values[name] for name in names}, "confidence": None if sure is None else round(sure, 4)}
