"""How long clips are cut into windows, and windows into segments. Stays free of numpy, for the help of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isnan

from audiograft.types import ConfigError


@dataclass(frozen=True)
class Segmentation:
    """How a long clip is cut into windows, and their probabilities into segments.

    The names of the last five are silero-vad's, and so are their defaults but that of `min_speech_ms`, 250 there: a moment counts only where all
    windows around it agree, so that false alarms are rare already, and words of 0.3 s would be lost.

    Attributes:
        window_ms: length of the windows that are scored.
        hop_ms: between their starts, and length of the moments that segments are made of.
        neg_threshold: a segment ends where the probability falls below it; None for 0.15 below the threshold at which it begins.
        min_speech_ms: shorter segments are left out, unless they are the whole clip.
        min_silence_ms: shorter gaps are filled.
        speech_pad_ms: added at both ends of a segment; where there is no room for that, the gap is shared.
        max_speech_s: longer segments are parted where speech is least likely.

    Raises:
        ConfigError: a value out of its range.
    """

    window_ms: float = 300.0
    hop_ms: float = 100.0
    neg_threshold: float | None = None
    min_speech_ms: float = 100.0
    min_silence_ms: float = 100.0
    speech_pad_ms: float = 30.0
    max_speech_s: float = inf

    def __post_init__(self) -> None:
        # Below 20 ms nothing is scored; above 30 s Whisper hears nothing.
        for name, value, low, high in (
            ("window_ms", self.window_ms, 20, 30_000),
            ("hop_ms", self.hop_ms, 10, self.window_ms),
            ("neg_threshold", 0 if self.neg_threshold is None else self.neg_threshold, 0, 1),
            ("min_speech_ms", self.min_speech_ms, 0, inf),
            ("min_silence_ms", self.min_silence_ms, 0, inf),
            ("speech_pad_ms", self.speech_pad_ms, 0, inf),
            # So that there is always a window between the two parts, and neither part is too short.
            ("max_speech_s", self.max_speech_s, 2 * max(self.window_ms, self.min_speech_ms + self.hop_ms) / 1000, inf),
        ):
            if isnan(value) or not low <= value <= high:
                raise ConfigError(f"{name} must be {f'between {low:g} and {high:g}' if high < inf else f'{low:g} or more'}, not {value:g}")
