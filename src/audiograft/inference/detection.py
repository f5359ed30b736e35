"""Closed questions about clips: which are heard whole, which window by window, and what becomes of the scores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from audiograft.audio import AudioInput, Clip, is_silent, load_audio
from audiograft.inference.choices import SOUNDLESS_SCORE, ChoiceScorer, ClosedQuestion, choice_probs
from audiograft.inference.decoding import Waveform
from audiograft.inference.segmentation import Segmentation
from audiograft.inference.segments import segments, weakest_windows, window_starts
from audiograft.inference.transcribing import room_behind
from audiograft.types import SAMPLE_RATE_HZ, AudioError, ConfigError, Detection

LONGEST_WHOLE_S = 1.0
"""Detectors learn on clips of up to a second; longer ones are heard window by window."""
SHORTEST_S = 0.02
"""One frame of the encoder."""
_EDGE_SAMPLES = SAMPLE_RATE_HZ * 15 // 1000
"""A resampler rings at the ends of a constant clip, from 8 kHz for 15 ms."""


class HearingOptions(TypedDict, total=False):
    """How the clips of a closed question are heard.

    Attributes:
        batch_size: clips or windows in one prefill; 64 by default.
        cut: hear clips window by window and say where the speech is: all, none, or (None) those of more than `LONGEST_WHOLE_S`.
        segmentation: how.
    """

    batch_size: int
    cut: bool | None
    segmentation: Segmentation | None


@dataclass(frozen=True)
class Heard:
    """A clip on its way to its answer.

    Attributes:
        clip: decoded.
        windows: what the model hears; the whole clip, where it is not cut up.
        cut: whether it is.
    """

    clip: Clip
    windows: list[Waveform]
    cut: bool


class Detector:
    """Answers one closed question about clips with one model."""

    def __init__(self, engine: Any, question: ClosedQuestion, cut: bool | None = False, options: Segmentation | None = None) -> None:
        """
        Args:
            engine: with `model`, `processor` and `name`.
            question: what is asked.
            cut: as in `HearingOptions`.
            options: likewise, its `segmentation`.

        Raises:
            ConfigError: the answers don't fit the model's vocabulary, or clips are to be cut and there are more than two of them.
            DataError: the model's chat template refuses the conversation.
        """
        two = len(question.labels) == 2
        if cut and not two:
            raise ConfigError(f"segments are of one label against another, and the question has {len(question.labels)}: hear the clips whole")
        self._engine = engine
        self._question = question
        self._cut = cut if two else False
        self._options = options or Segmentation()
        self._scorer = ChoiceScorer(engine.model, engine.processor, question)

    def hear(self, source: AudioInput) -> Heard:
        """Decode a clip, and cut it where it is to be cut.

        Raises:
            AudioError: it can't be used, is shorter than `SHORTEST_S`, or longer than the language model's context.
        """
        clip = load_audio(source)
        if clip.duration_s < SHORTEST_S:
            raise AudioError(f"{clip.name}: {1000 * clip.duration_s:.1f} ms is too short: give at least {1000 * SHORTEST_S:.0f} ms", kind="short")
        if self._cut if self._cut is not None else clip.duration_s > LONGEST_WHOLE_S:
            n_samples = min(round(self._options.window_ms * SAMPLE_RATE_HZ / 1000), len(clip.waveform))
            starts = np.round(window_starts(clip.duration_s, n_samples / SAMPLE_RATE_HZ, self._options.hop_ms / 1000) * SAMPLE_RATE_HZ).astype(int)
            return Heard(clip, [clip.waveform[start : start + n_samples] for start in starts], cut=True)
        positions = self._scorer.positions(clip.waveform)
        room = room_behind(self._engine.model, positions)
        if room is not None and room < 1:
            raise AudioError(
                f"{clip.name}: {clip.duration_s:.0f} s and the question take {positions} positions, and the language model has {room + positions}: "
                "ask about shorter parts",
                kind="long",
            )
        return Heard(clip, [clip.waveform], cut=False)

    def answer(self, heard: Sequence[Heard], batch_size: int) -> Iterator[Detection]:
        """One detection a clip, in order.

        Where the question is about speech, a window of one constant value is without speech, and the model is not asked.
        """
        if not heard:
            return
        start_s = time.perf_counter()
        windows = [window for item in heard for window in item.windows]
        asked = [number for number, window in enumerate(windows) if not (self._question.about_speech and is_constant(window))]
        scores = np.zeros((len(windows), len(self._question.labels)))
        scores[:, 0] = SOUNDLESS_SCORE
        scores[asked] = self._scorer.scores([windows[number] for number in asked], batch_size)
        each_s = (time.perf_counter() - start_s) / len(windows)
        bounds = np.cumsum([len(item.windows) for item in heard])[:-1]
        for item, own in zip(heard, np.split(scores, bounds), strict=True):
            yield self._detection(item, own, each_s * len(own))

    def _detection(self, heard: Heard, scores: npt.NDArray[np.float64], decode_s: float) -> Detection:
        question = self._question
        probs = choice_probs(scores, question.temperature)
        likeliest, found = 0, None
        predicted = question.pick(probs[likeliest].tolist())
        if heard.cut:
            layout = self._options.hop_ms / 1000, len(heard.windows[0]) / SAMPLE_RATE_HZ, heard.clip.duration_s
            found = tuple(segments(probs[:, 0], *layout, question.threshold, self._options))
            predicted = question.labels[0 if found else 1]
            # Of the likeliest moment: what one window alone says, and its neighbours do not, makes no segment either.
            weakest, _ = weakest_windows(probs[:, 0], *layout)
            likeliest = int(weakest[probs[weakest, 0].argmax()])
        return Detection(
            audio=heard.clip.name,
            predicted=predicted,
            speech_prob=float(probs[likeliest, 0]),
            duration_s=round(heard.clip.duration_s, 4),
            scores=dict(zip(question.labels, scores[likeliest].tolist(), strict=True)),
            model=self._engine.name,
            probabilities=dict(zip(question.labels, probs[likeliest].tolist(), strict=True)),
            segments=found,
            decode_s=round(decode_s, 6),
        )


def is_constant(waveform: Waveform) -> bool:
    """True where (n_samples,) is one value, such as digital silence or DC, but for 15 ms at each end (a quarter of a clip of less than 60 ms)."""
    edge = min(_EDGE_SAMPLES, len(waveform) // 4)
    middle = waveform[edge : len(waveform) - edge]
    return is_silent(middle - middle[len(middle) // 2])
