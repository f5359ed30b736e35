"""Acoustic fingerprints: which clips hold the same sound, be it resampled, coded, louder, cut or a little noisy.

A clip is remembered by the peaks of its spectrogram: they stay where they are under changes of level, band, codec and noise (Wang, "An
industrial-strength audio search algorithm", ISMIR 2003). Three peaks that follow each other, by their bins and distances in time, are a landmark
that can be looked up, whatever the beginning of the clip is (triplets in place of Wang's pairs: Six and Leman, "Panako", ISMIR 2014; the pitch and
the tempo are not left open here as they are there). Landmarks shared at one offset in time name a pair of clips, and the pair is then verified by
all of its peaks.

What is not found, by design: copies at another speed or pitch, and sound that is shared for a short part of both clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audiograft.audio import Waveform
from audiograft.types import SAMPLE_RATE_HZ

Peaks = npt.NDArray[np.uint32]
"""(n_peaks,) in order of time: frame << 8 | bin, frames of 10 ms, bins of 15.6 Hz from 203 Hz on."""
Integers = npt.NDArray[np.int64]

_HOP_SAMPLES = 160
_WINDOW_SAMPLES = 1024
_FIRST_BIN, _END_BIN = 13, 231
"""203 to 3,594 Hz: above the hum of the mains, and below what a telephone or 8 kHz leaves."""
_PEAK_FRAMES, _PEAK_BINS = 6, 20
"""A peak is the largest value within so many frames and bins on each side: about 20 a second in speech."""
_LEVEL_FRAMES = 50
_LEVEL_RANGE = 10 ** (-35 / 10)
"""And at most 35 dB below the largest within half a second, where noise does not reach it."""
_LEAST_POWER = 1e-6
"""Of a bin, before weighting: a few times what the rounding to 16 bits leaves."""
_BLOCK_FRAMES = 4096
_CHUNK_FRAMES = 64
"""Spectra computed at once: they stay in the processor's cache, and memory is not asked for anew."""
_MARGIN_FRAMES = _PEAK_FRAMES + _LEVEL_FRAMES

_FAN_OUT = 5
"""A landmark is a peak with two of the next so many."""
_MAX_LANDMARK_FRAMES = 63
_MIN_LANDMARKS = 4
"""Shared at one offset, for a pair to be looked at. Two chance pairs of three peaks make up to four landmarks."""
_MAX_ENTRIES = 128
"""A landmark that the index has more often is a tone, or a jingle, and tells nothing."""
_MAX_PAIRS = 4_000_000
"""Of landmarks, compared at once: bounds memory."""
_FILTER_BITS = 25
_HASH = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: Knuth's multiplicative hash."""

_MISS = 0.5
"""What a peak without counterpart costs, in units of what one with a counterpart brings."""
_MIN_SCORE = 10.0
_MIN_SHARE = 0.6
"""Of the peaks of one of both clips: what is shared by less is a phrase said twice or a jingle, unless it is long."""
_LONG_S = 3.0
_MIN_OVERLAP_S = 0.2
"""In less, a chord or a vowel is all that there is: every peak of one may have a counterpart in another."""


@dataclass(frozen=True)
class Match:
    """Two clips that share sound.

    Attributes:
        query: place of the first among the clips that were searched for.
        indexed: place of the second in the index.
        overlap_s: how much of the sound is shared, in seconds.
        score: peaks that agree, less half of those that do not, of both clips.
    """

    query: int
    indexed: int
    overlap_s: float
    score: float


def _windows(waveform: Waveform) -> npt.NDArray[np.float32]:
    padded = np.pad(waveform, _WINDOW_SAMPLES // 2)
    return np.lib.stride_tricks.sliding_window_view(padded, _WINDOW_SAMPLES)[::_HOP_SAMPLES]


_HANN = np.hanning(_WINDOW_SAMPLES + 1)[:-1].astype(np.float32)
_WEIGHTS = np.arange(_FIRST_BIN, _END_BIN, dtype=np.float32) ** 2
"""6 dB an octave: what speech falls by."""


def find_peaks(waveform: Waveform) -> Peaks:
    """Peaks of the spectrogram of a clip.

    Args:
        waveform: (n_samples,) at 16 kHz, of any length: memory does not grow with it, but for the result.

    Returns:
        (n_peaks,); none where the clip is silent.
    """
    windows = _windows(waveform)
    found = []
    for start in range(0, len(windows), _BLOCK_FRAMES):
        first = max(0, start - _MARGIN_FRAMES)
        frames, bins = _block_peaks(windows[first : start + _BLOCK_FRAMES + _MARGIN_FRAMES])
        frames += first
        inside = (frames >= start) & (frames < start + _BLOCK_FRAMES)
        found.append((frames[inside] << 8 | bins[inside]).astype(np.uint32))
    return np.concatenate(found)


def _block_peaks(windows: npt.NDArray[np.float32]) -> tuple[Integers, Integers]:
    power = np.empty((len(windows), len(_WEIGHTS)), np.float32)
    for start in range(0, len(windows), _CHUNK_FRAMES):
        power[start : start + _CHUNK_FRAMES] = _power(windows[start : start + _CHUNK_FRAMES])
    level = _running_max(power.max(axis=1), _LEVEL_FRAMES, 0) * np.float32(_LEVEL_RANGE)
    is_peak = (power == _running_max(_running_max(power, _PEAK_BINS, 1), _PEAK_FRAMES, 0)) & (power > level[:, None])
    frames, bins = np.nonzero(is_peak)
    loud = power[frames, bins] > _LEAST_POWER * _WEIGHTS[bins]
    return frames[loud], bins[loud]


def _power(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    from scipy import fft  # NumPy's computes single precision no faster than double

    spectrum: npt.NDArray[np.complex64] = fft.rfft(windows * _HANN, axis=1)[:, _FIRST_BIN:_END_BIN]
    power: npt.NDArray[np.float32] = (spectrum.real**2 + spectrum.imag**2) * _WEIGHTS
    return power


def _running_max(values: npt.NDArray[np.float32], reach: int, axis: int) -> npt.NDArray[np.float32]:
    """The largest value within `reach` places on each side along an axis, by doubling."""
    values = np.moveaxis(values, axis, 0)
    n_values, size = len(values), 2 * reach + 1
    result = np.pad(values, [(reach, reach)] + [(0, 0)] * (values.ndim - 1), constant_values=-np.inf)
    span = 1
    while 2 * span <= size:
        result = np.maximum(result[:-span], result[span:])
        span *= 2
    result = np.maximum(result[:n_values], result[size - span : size - span + n_values])
    return np.moveaxis(result, 0, axis)


@dataclass(frozen=True)
class _Landmarks:
    """Landmarks of several clips.

    Attributes:
        keys: (n_landmarks,) what they are looked up by: 32 bits of the hash of their bins and distances. Two landmarks that are not alike share
            one by chance once in 4 billion; what chance pairs come of it is told by their offsets, as with all others.
        places: (n_landmarks,) of their first peaks among those of all clips.
        owners: (n_peaks,) the clip of each of these peaks.
        frames: (n_peaks,) their frames.
    """

    keys: npt.NDArray[np.uint32]
    places: npt.NDArray[np.uint32]
    owners: npt.NDArray[np.int32]
    frames: npt.NDArray[np.int32]


def _landmarks(clips: Sequence[Peaks]) -> _Landmarks:
    """All landmarks of clips."""
    peaks = np.concatenate([np.zeros(0, np.uint32), *clips])
    owners = np.repeat(np.arange(len(clips), dtype=np.int32), [len(clip) for clip in clips])
    frames, bins = (peaks >> 8).astype(np.int32), (peaks & 0xFF).astype(np.int64)
    keys, places = [np.zeros(0, np.uint32)], [np.zeros(0, np.uint32)]
    for third in range(2, min(_FAN_OUT, len(peaks) - 1) + 1):
        n = len(peaks) - third
        near = np.flatnonzero((owners[:n] == owners[third:]) & (frames[third:] - frames[:n] <= _MAX_LANDMARK_FRAMES))
        for second in range(1, third):
            # Distances are kept in steps of two frames: a peak moves by one where a clip is cut between two frames.
            first_gap, second_gap = (frames[near + second] - frames[near]) >> 1, (frames[near + third] - frames[near]) >> 1
            three_bins = (bins[near] << 8 | bins[near + second]) << 8 | bins[near + third]
            landmark = ((three_bins << 5 | first_gap) << 5 | second_gap).astype(np.uint64)
            keys.append(((landmark * _HASH) >> np.uint64(32)).astype(np.uint32))
            places.append(near.astype(np.uint32))
    return _Landmarks(np.concatenate(keys), np.concatenate(places), owners, frames)


class Index:
    """Clips that can be searched for shared sound. Takes some 20 kB for 10 s of speech, and 34 MB for itself.

    Args:
        clips: their peaks.
    """

    def __init__(self, clips: Sequence[Peaks]) -> None:
        self._clips = clips
        found = _landmarks(clips)
        self._owners, self._frames = found.owners, found.frames
        order = np.argsort(found.keys, kind="stable").astype(np.uint32)
        keys = found.keys[order]
        starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] + np.uint32(1)))  # where another key begins
        counts = np.diff(starts, append=len(keys))
        seldom = np.repeat(counts <= _MAX_ENTRIES, counts)
        self._keys, self._places = keys[seldom], found.places[order[seldom]]
        # Most landmarks that are looked up are not there: that is told by one access to a table.
        self._filter = np.zeros(1 << _FILTER_BITS, np.bool_)
        self._filter[_slots(self._keys)] = True

    def search(self, clips: Sequence[Peaks]) -> Iterator[Match]:
        """The indexed clips with which each of `clips` shares sound; some hundreds at a time are fast."""
        for query, indexed, offset in self._candidates(clips):
            match = _verify(clips[query].astype(np.int64), self._clips[indexed].astype(np.int64), offset)
            if match is not None:
                yield Match(query, indexed, *match)

    def _candidates(self, clips: Sequence[Peaks]) -> list[tuple[int, int, int]]:
        """(place in `clips`, place in the index, frames by which the second is later) of pairs that share landmarks, each with its best offset."""
        found = _landmarks(clips)
        known = np.flatnonzero(self._filter[_slots(found.keys)])
        low = np.searchsorted(self._keys, found.keys[known], "left")
        counts = np.searchsorted(self._keys, found.keys[known], "right") - low
        if counts.sum() > _MAX_PAIRS and len(clips) > 1:
            half = len(clips) // 2
            later = [(half + query, indexed, offset) for query, indexed, offset in self._candidates(clips[half:])]
            return self._candidates(clips[:half]) + later
        # The entries low .. low + count of each landmark, all in a row.
        entry = np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        first, second = np.repeat(found.places[known], counts), self._places[entry]
        pair = found.owners[first].astype(np.int64) * len(self._clips) + self._owners[second]
        offset = self._frames[second] - found.frames[first]
        order = np.lexsort((offset, pair))
        pair, offset = pair[order], offset[order]
        # How many landmarks of the pair there are at this offset and at the next, which is the same where a clip was cut between two frames.
        end = np.searchsorted(_joined(pair, offset), _joined(pair, offset + 1), "right")
        shared = end - np.arange(len(pair))
        often = np.flatnonzero(shared >= _MIN_LANDMARKS)
        best: dict[int, tuple[int, int]] = {}
        for place in often.tolist():
            best[int(pair[place])] = max(best.get(int(pair[place]), (0, 0)), (int(shared[place]), int(offset[place])))
        return [(*divmod(key, len(self._clips)), offset) for key, (_, offset) in best.items()]


def _slots(keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    return keys >> np.uint32(32 - _FILTER_BITS)


def _joined(pair: Integers, offset: npt.NDArray[Any]) -> Integers:
    """Pairs and offsets as one number, in the order of both. Frames have 24 bits."""
    joined: Integers = (pair << 26) + (offset.astype(np.int64) + (1 << 25))
    return joined


def _verify(first: Integers, second: Integers, offset: int) -> tuple[float, float] | None:
    """(seconds shared, score) of two clips, the second later by `offset` frames; None where they do not share enough.

    The stretch is taken in which peaks with counterparts most outweigh those without.
    """
    moved = second - (offset << 8)
    with_counterpart = (_has_counterpart(first, moved), _has_counterpart(moved, first))
    places = np.concatenate([first, moved])
    order = np.argsort(places, kind="stable")
    gains = np.where(np.concatenate(with_counterpart)[order], 1.0, -_MISS)
    sums = np.concatenate([[0.0], np.cumsum(gains)])
    lowest = np.minimum.accumulate(sums)
    end = int(np.argmax(sums - lowest))
    score = float(sums[end] - lowest[end])
    start = int(np.flatnonzero(sums[:end] == lowest[end])[-1]) if end else 0
    if score < _MIN_SCORE:
        return None
    from_first = order[start:end] < len(first)
    share = max(from_first.sum() / len(first), (~from_first).sum() / len(second))
    stretch = places[order[[start, end - 1]]] >> 8
    overlap_s = float(stretch[1] - stretch[0] + 1) * _HOP_SAMPLES / SAMPLE_RATE_HZ
    enough = overlap_s >= _LONG_S or (share >= _MIN_SHARE and overlap_s >= _MIN_OVERLAP_S)
    return (overlap_s, score) if enough else None


def _has_counterpart(peaks: Integers, others: Integers) -> npt.NDArray[np.bool_]:
    """Whether each peak has another within one frame and one bin. Both are sorted."""
    found = np.zeros(len(peaks), np.bool_)
    for frames in (-1, 0, 1):
        # Bins end at 218 of 256, so that one bin up or down stays within the frame, or meets nothing.
        place = np.searchsorted(others, peaks + (frames << 8) - 1)
        inside = place < len(others)
        found[inside] |= others[place[inside]] <= peaks[inside] + (frames << 8) + 1
    return found
