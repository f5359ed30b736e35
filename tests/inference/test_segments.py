"""Segments of speech: hysteresis, minimum durations, pads and parts, whatever the probabilities are."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.inference.segmentation import Segmentation
from audiograft.inference.segments import segments, weakest_windows, window_starts
from audiograft.types import ConfigError, SpeechSegment

PLAIN = Segmentation(window_ms=100, hop_ms=100, min_speech_ms=0, min_silence_ms=0, speech_pad_ms=0)
"""Windows side by side, so that each stands for its own time."""


def cut(probs: list[float], options: Segmentation = PLAIN, threshold: float = 0.5) -> list[tuple[float, float]]:
    found = segments(probs, 0.1, 0.1, len(probs) / 10, threshold, options)
    return [(span.start_s, span.end_s) for span in found]


def changed(**changes: Any) -> Segmentation:
    return Segmentation(**{**vars(PLAIN), **changes})


def test_a_segment_is_entered_at_the_threshold_and_left_below_it() -> None:
    probs = [0.1, 0.4, 0.5, 0.4, 0.36, 0.34, 0.4, 0.9, 0.0]
    assert cut(probs) == [(0.2, 0.5), (0.7, 0.8)]
    assert cut(probs, changed(neg_threshold=0.2)) == [(0.2, 0.8)]
    assert cut(probs, changed(neg_threshold=0.5)) == [(0.2, 0.3), (0.7, 0.8)]


def test_a_low_threshold_can_still_be_left() -> None:
    assert cut([0.2, 0.05, 0.0, 0.2], threshold=0.1) == [(0.0, 0.2), (0.3, 0.4)]
    assert cut([0.2, 0.0, 0.1], threshold=0.0) == [(0.0, 0.3)]


def test_short_gaps_are_filled_before_short_segments_are_left_out() -> None:
    probs = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    assert cut(probs, changed(min_silence_ms=150)) == [(0.0, 0.3), (0.5, 0.6), (0.9, 1.1)]
    assert cut(probs, changed(min_silence_ms=150, min_speech_ms=200)) == [(0.0, 0.3), (0.9, 1.1)]
    assert cut(probs, changed(min_silence_ms=100)) == cut(probs)  # a gap of just that length stays


def test_pads_go_as_far_as_the_clip_and_half_of_a_gap() -> None:
    probs = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    assert cut(probs, changed(speech_pad_ms=80)) == [(0.0, 0.15), (0.15, 0.38), (0.42, 0.68)]
    assert cut(probs, changed(speech_pad_ms=500))[-1][1] == 0.7


def test_long_segments_are_parted_where_speech_is_least_likely() -> None:
    probs = [0.9] * 6 + [0.6] + [0.9] * 5
    assert cut(probs, changed(max_speech_s=0.8)) == [(0.0, 0.6), (0.6, 1.2)]


@pytest.mark.parametrize("window_s", [0.2, 0.4, 0.5, 1.0])
def test_edges_are_those_of_the_speech_though_windows_beside_it_say_speech(window_s: float) -> None:
    starts_s = window_starts(4.0, window_s, 0.1)
    np.testing.assert_allclose(starts_s, np.arange(round((4.0 - window_s) * 10) + 1) / 10, atol=1e-9)
    # Speech from 1.5 to 2.5 s: a window says so from 50 ms of it on.
    probs = [0.9 * float(start + window_s >= 1.55 and start <= 2.45) for start in starts_s]
    [found] = segments(probs, 0.1, window_s, 4.0, 0.5, Segmentation(speech_pad_ms=0))
    assert found == SpeechSegment(1.5, 2.5, 0.9)


def test_a_pause_that_is_longer_than_a_window_parts_two_segments() -> None:
    starts_s = window_starts(3.0, 0.4, 0.1)
    probs = [float(start < 0.99 or start + 0.4 > 1.51) for start in starts_s]
    assert [(span.start_s, span.end_s) for span in segments(probs, 0.1, 0.4, 3.0, 0.5, Segmentation(speech_pad_ms=0))] == [(0, 1), (1.5, 3)]


def test_the_weakest_window_that_holds_the_middle_of_a_moment_speaks_for_it() -> None:
    weakest, edges_s = weakest_windows([0.9, 0.2, 0.8, 0.7], 0.1, 0.3, 0.55)
    np.testing.assert_allclose(edges_s, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55])
    assert weakest.tolist() == [0, 1, 1, 1, 3, 3]


def test_the_last_window_ends_with_the_clip() -> None:
    np.testing.assert_allclose(window_starts(1.23, 0.5, 0.1)[-2:], [0.7, 0.73])
    assert window_starts(0.3, 0.5, 0.1).tolist() == [0.0]
    assert segments([0.9], 0.1, 0.5, 0.2, 0.5, Segmentation()) == [SpeechSegment(0.0, 0.2, 0.9)]
    assert segments([0.4], 0.1, 0.5, 0.2, 0.5, Segmentation()) == []


@given(st.data())
def test_segments_are_ordered_disjoint_inside_and_long_enough(data: st.DataObject) -> None:
    window_ms = data.draw(st.integers(20, 1500))
    hop_ms = data.draw(st.integers(10, window_ms))
    min_speech_ms = data.draw(st.integers(0, 1500))
    shortest_max_s = 2 * max(window_ms, min_speech_ms + hop_ms) / 1000
    options = Segmentation(
        window_ms=window_ms,
        hop_ms=hop_ms,
        min_speech_ms=min_speech_ms,
        min_silence_ms=data.draw(st.integers(0, 1000)),
        speech_pad_ms=data.draw(st.integers(0, 300)),
        max_speech_s=data.draw(st.one_of(st.just(float("inf")), st.floats(shortest_max_s, shortest_max_s + 5))),
    )
    duration_s = data.draw(st.integers(320, 16_000 * 12)) / 16_000
    window_s = min(window_ms / 1000, duration_s)
    starts_s = window_starts(duration_s, window_s, hop_ms / 1000)
    assert starts_s[0] == 0
    assert starts_s[-1] == pytest.approx(duration_s - window_s)
    assert max(np.diff(starts_s), default=0) <= hop_ms / 1000 + 1e-9
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    probs = rng.beta(data.draw(st.floats(0.2, 5)), data.draw(st.floats(0.2, 5)), len(starts_s))
    threshold = data.draw(st.floats(0, 1))
    found = segments(probs, hop_ms / 1000, window_s, duration_s, threshold, options)
    rounding_s = 1.1e-4
    assert all(0 <= span.start_s < span.end_s <= duration_s + rounding_s for span in found)
    assert all(one.end_s <= other.start_s + rounding_s for one, other in pairwise(found))
    assert all(span.end_s - span.start_s >= min(min_speech_ms / 1000, duration_s) - rounding_s for span in found)
    assert all(span.end_s - span.start_s <= options.max_speech_s + 2 * options.speech_pad_ms / 1000 + rounding_s for span in found)
    assert all(0 <= span.speech_prob <= 1 for span in found)
    weakest, edges_s = weakest_windows(probs, hop_ms / 1000, window_s, duration_s)
    assert (edges_s[0], edges_s[-1]) == (0, duration_s)
    assert (np.diff(edges_s) > 0).all()
    if min_speech_ms == 0:
        assert bool(found) == bool((probs[weakest] >= threshold).any())


def test_silence_shorter_than_asked_for_is_not_between_two_segments() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = cut(rng.random(60).tolist(), changed(min_silence_ms=300, min_speech_ms=200))
        assert all(other[0] - one[1] >= 0.3 - 1e-3 for one, other in pairwise(found))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"window_ms": 10}, "window_ms must be between 20 and 30000, not 10"),
        ({"hop_ms": 200}, "hop_ms must be between 10 and 100, not 200"),
        ({"hop_ms": 0}, "hop_ms must be between 10 and 100, not 0"),
        ({"min_speech_ms": -1}, "min_speech_ms must be 0 or more, not -1"),
        ({"min_silence_ms": float("nan")}, "min_silence_ms must be 0 or more, not nan"),
        ({"max_speech_s": 0.1}, "max_speech_s must be 0.2 or more, not 0.1"),
        ({"neg_threshold": 2}, "neg_threshold must be between 0 and 1, not 2"),
    ],
)
def test_options_out_of_range_are_one_line(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        changed(**changes)


def test_a_neg_threshold_above_the_threshold_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"neg_threshold is 0\.8, above the threshold of 0\.5"):
        cut([0.9], changed(neg_threshold=0.8))


def test_probabilities_and_windows_have_to_be_as_many() -> None:
    with pytest.raises(ValueError, match="2 probabilities for 3 windows"):
        segments([0.1, 0.2], 0.1, 0.1, 0.3, 0.5, PLAIN)
