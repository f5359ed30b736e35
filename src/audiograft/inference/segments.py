"""Where speech is in a long clip: probabilities of overlapping windows -> segments with start and end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
import numpy.typing as npt

from audiograft.inference.segmentation import Segmentation
from audiograft.types import ConfigError, SpeechSegment

_LEAVE_BELOW = 0.15
"""So far below the threshold a window has to fall to end a segment, as silero-vad has it."""
_LOWEST = 0.01
"""Where the threshold is so low that there is no 0.15 below it."""
_ROUNDING_S = 1e-9


def window_starts(duration_s: float, window_s: float, hop_s: float) -> npt.NDArray[np.float64]:
    """(windows,) start of each in seconds. The last one ends with the clip; a clip that is no longer than a window has one at 0."""
    last_s = max(0.0, duration_s - window_s)
    starts_s: npt.NDArray[np.float64] = np.minimum(np.arange(ceil(round(last_s / hop_s, 9)) + 1) * hop_s, last_s)
    return starts_s


def weakest_windows(
    probs: Sequence[float] | npt.NDArray[np.float64], hop_s: float, window_s: float, duration_s: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Which window speaks for each moment of a clip: of all that hold its middle the one that finds speech least likely.

    A window says SPEECH as soon as a word reaches into it, by some 50 ms for `tiny-detect`, so a window beside the word says so too. A moment within
    the word has speech in all windows around it; one beside the word has a window that ends before the word begins.

    Args:
        probs: (windows,) probability of speech in each window, at the starts of `window_starts`.
        hop_s: between the starts of windows.
        window_s: length of a window.
        duration_s: length of the clip.

    Returns:
        (moments,) number of a window; (moments + 1,) edges of the moments in seconds, a hop apart, from 0 to the end of the clip.

    Raises:
        ValueError: another number of probabilities than windows.
    """
    values = np.asarray(probs, dtype=np.float64)
    starts_s = window_starts(duration_s, window_s, hop_s)
    if len(values) != len(starts_s):
        raise ValueError(f"{len(values)} probabilities for {len(starts_s)} windows")
    n_moments = max(1, ceil(round(duration_s / hop_s, 9)))
    edges_s = np.minimum(np.arange(n_moments + 1) * hop_s, duration_s)
    middles_s = (edges_s[1:] + edges_s[:-1]) / 2
    first = np.searchsorted(starts_s, middles_s - window_s - _ROUNDING_S)
    behind = np.searchsorted(starts_s, middles_s + _ROUNDING_S, side="right")
    spans = zip(first.tolist(), behind.tolist(), strict=True)
    return np.array([start + int(values[start:end].argmin()) for start, end in spans]), edges_s


def segments(
    probs: Sequence[float] | npt.NDArray[np.float64], hop_s: float, window_s: float, duration_s: float, threshold: float, options: Segmentation
) -> list[SpeechSegment]:
    """Segments of speech: hysteresis, then gaps filled, short ones left out, long ones parted, padded.

    A moment is as likely speech as its weakest window, see `weakest_windows`. So an edge is found to about a hop, though a window is longer.

    Args:
        probs: (windows,) probability of speech in each window, at the starts of `window_starts`.
        hop_s: between the starts of windows.
        window_s: length of a window.
        duration_s: length of the clip.
        threshold: a segment begins where the probability reaches it.
        options: the durations, and where a segment ends.

    Returns:
        In order of time, apart from each other, inside the clip.

    Raises:
        ConfigError: `neg_threshold` above the threshold.
        ValueError: another number of probabilities than windows.
    """
    weakest, edges_s = weakest_windows(probs, hop_s, window_s, duration_s)
    values = np.asarray(probs, dtype=np.float64)[weakest]
    spans = _without_gaps(_hysteresis(values, threshold, _leave_at(threshold, options)), edges_s, options.min_silence_ms / 1000)
    min_speech_s = min(options.min_speech_ms / 1000, duration_s)
    spans = [span for span in spans if _length_s(span, edges_s) >= min_speech_s - _ROUNDING_S]
    parted = [part for span in spans for part in _parted(span, values, edges_s, min_speech_s, options.max_speech_s)]
    return _padded(parted, values, edges_s, options.speech_pad_ms / 1000)


Span = tuple[int, int]
"""First moment and the one behind the last."""


def _leave_at(threshold: float, options: Segmentation) -> float:
    if options.neg_threshold is None:
        return max(threshold - _LEAVE_BELOW, min(threshold, _LOWEST))
    if options.neg_threshold > threshold:
        raise ConfigError(f"neg_threshold is {options.neg_threshold:g}, above the threshold of {threshold:g}: lower it")
    return options.neg_threshold


def _hysteresis(values: npt.NDArray[np.float64], enter: float, leave: float) -> Iterator[Span]:
    """Runs that begin at `enter` or above and go on until a value is below `leave`."""
    start: int | None = None
    for number, value in enumerate(values):
        if start is None and value >= enter:
            start = number
        elif start is not None and value < leave:
            yield start, number
            start = None
    if start is not None:
        yield start, len(values)


def _length_s(span: Span, edges_s: npt.NDArray[np.float64]) -> float:
    return float(edges_s[span[1]] - edges_s[span[0]])


def _without_gaps(spans: Iterator[Span], edges_s: npt.NDArray[np.float64], min_silence_s: float) -> list[Span]:
    """Neighbours with too short a gap become one."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and edges_s[start] - edges_s[joined[-1][1]] < min_silence_s - _ROUNDING_S:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _parted(
    span: Span, values: npt.NDArray[np.float64], edges_s: npt.NDArray[np.float64], min_speech_s: float, max_speech_s: float
) -> Iterator[Span]:
    """Parts of at most `max_speech_s`, each cut where speech is least likely between the half of that and the whole of it."""
    start, end = span
    while (length_s := _length_s((start, end), edges_s)) > max_speech_s + _ROUNDING_S:
        lengths_s = edges_s[start + 1 : end] - edges_s[start]
        latest_s = min(max_speech_s, length_s - min_speech_s) + _ROUNDING_S
        allowed = np.flatnonzero((lengths_s >= max_speech_s / 2 - _ROUNDING_S) & (lengths_s <= latest_s)) + start + 1
        cut = int(allowed[np.argmin(values[allowed])])
        yield start, cut
        start = cut
    yield start, end


def _padded(spans: Sequence[Span], values: npt.NDArray[np.float64], edges_s: npt.NDArray[np.float64], pad_s: float) -> list[SpeechSegment]:
    """With some time at both ends, as far as the file and half of each gap go."""
    found = []
    for number, (start, end) in enumerate(spans):
        before_s = edges_s[start] - (edges_s[spans[number - 1][1]] if number else -edges_s[start])
        behind_s = (edges_s[spans[number + 1][0]] if number + 1 < len(spans) else 2 * edges_s[-1] - edges_s[end]) - edges_s[end]
        found.append(
            SpeechSegment(
                round(float(edges_s[start] - min(pad_s, before_s / 2)), 4),
                round(float(edges_s[end] + min(pad_s, behind_s / 2)), 4),
                round(float(values[start:end].mean()), 4),
            )
        )
    return found
