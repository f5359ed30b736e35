"""Fingerprints: copies are found however they were changed, and other clips are not taken for copies."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
import soxr
from babble import babble

from audiograft.audio import Waveform, load_audio
from audiograft.data import fingerprint
from audiograft.data.fingerprint import Index, Match, find_peaks


def resampled(rate_hz: int) -> Callable[[Waveform], Waveform]:
    return lambda clip: soxr.resample(soxr.resample(clip, 16_000, rate_hz), rate_hz, 16_000)


def compressed(clip: Waveform) -> Waveform:
    file = io.BytesIO()
    soundfile.write(file, clip, 16_000, format="OGG", subtype="VORBIS")
    return load_audio(file.getvalue()).waveform


def noisy(clip: Waveform) -> Waveform:
    noise = np.random.default_rng(1).standard_normal(len(clip))
    return (clip + 0.1 * np.sqrt(np.mean(clip**2)) * noise).astype(np.float32)


def matches(queries: list[Waveform], indexed: list[Waveform]) -> list[Match]:
    return list(Index([find_peaks(clip) for clip in indexed]).search([find_peaks(clip) for clip in queries]))


@pytest.fixture(scope="module")
def clips() -> list[Waveform]:
    return [babble(3.0 + seed % 3, seed) for seed in range(24)]


@pytest.mark.parametrize(
    ("change", "share"),
    [
        (resampled(8_000), 0.7),
        (resampled(22_050), 0.7),
        (resampled(44_100), 0.7),
        (lambda clip: np.rint(clip * 3276.8) / 32768, 0.7),
        (lambda clip: clip * 10, 0.7),
        (lambda clip: clip[16_000:], 0.8),
        (lambda clip: clip[: len(clip) // 2 + 37], 0.8),
        (lambda clip: np.concatenate([np.zeros(7_777), clip]), 0.6),
        (compressed, 0.7),
        (noisy, 0.7),
    ],
    ids=["8 kHz", "22 kHz", "44 kHz", "-20 dB", "+20 dB", "no start", "no end", "later", "Vorbis", "20 dB SNR"],
)
def test_copies_are_found_and_nothing_else(clips: list[Waveform], change: Callable[[Waveform], Waveform], share: float) -> None:
    copies = [change(clip).astype(np.float32) for clip in clips]
    found = matches(copies, clips)
    assert sorted((match.query, match.indexed) for match in found) == [(number, number) for number in range(len(clips))]
    for match in found:
        shorter_s = min(len(copies[match.query]), len(clips[match.indexed])) / 16_000
        assert share * shorter_s < match.overlap_s < shorter_s + 0.05


def test_most_pieces_of_a_second_are_found(clips: list[Waveform]) -> None:
    found = matches([clip[11_111:27_111] for clip in clips], clips)
    assert all(match.query == match.indexed for match in found)
    assert len(found) >= 0.9 * len(clips)


def test_other_sound_is_no_copy(clips: list[Waveform]) -> None:
    assert matches([babble(4.0, 1000 + seed) for seed in range(24)], clips) == []
    noise = [(0.05 * np.random.default_rng(seed).standard_normal(64_000)).astype(np.float32) for seed in range(40)]
    assert matches(noise[:20], noise[20:]) == []


def test_silence_has_no_fingerprint() -> None:
    silence = np.zeros(48_000, np.float32)
    assert len(find_peaks(silence)) == 0
    assert matches([silence], [silence]) == []


def test_a_shared_phrase_is_no_copy_but_a_long_stretch_is(clips: list[Waveform]) -> None:
    phrase, passage = babble(1.0, 77), babble(4.5, 78)

    def sentence(middle: Waveform, seed: int) -> Waveform:
        return np.concatenate([babble(6.0, seed), middle, babble(6.0, seed + 1)])

    assert matches([sentence(phrase, 100)], [sentence(phrase, 200)]) == []
    (match,) = matches([sentence(passage, 100)], [sentence(passage, 200)])
    assert match.overlap_s == pytest.approx(4.5, abs=0.3)


def test_memory_does_not_depend_on_how_a_clip_is_cut_into_blocks(clips: list[Waveform], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find_peaks(clips[0])
    monkeypatch.setattr(fingerprint, "_BLOCK_FRAMES", 64)
    assert np.array_equal(find_peaks(clips[0]), whole)
    assert np.all(np.diff(whole.astype(np.int64)) > 0)


def test_a_sound_that_all_clips_have_is_searched_in_bounded_memory(clips: list[Waveform], monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = [find_peaks(clip) for clip in clips]
    plain = set(Index(peaks).search(peaks))
    monkeypatch.setattr(fingerprint, "_MAX_PAIRS", 100)
    assert set(Index(peaks).search(peaks)) == plain
    # A jingle in more clips than a landmark may have entries is passed over.
    jingle = find_peaks(babble(2.0, 5))
    assert len(list(Index([jingle] * fingerprint._MAX_ENTRIES).search([jingle]))) == fingerprint._MAX_ENTRIES
    assert list(Index([jingle] * (fingerprint._MAX_ENTRIES + 1)).search([jingle])) == []


def test_empty_indexes_and_queries() -> None:
    nothing = np.zeros(0, np.uint32)
    peaks = find_peaks(babble(2.0, 3))
    assert list(Index([]).search([peaks])) == []
    assert list(Index([peaks]).search([])) == []
    assert list(Index([nothing, peaks]).search([nothing, peaks[:1], peaks[:2]])) == []


def test_two_chords_of_a_moment_are_no_copies() -> None:
    def struck(seed: int) -> Waveform:
        rng, time = np.random.default_rng(seed), np.arange(4800) / 16_000
        chord = sum(np.sin(2 * np.pi * hertz * time + rng.uniform(0, 6)) for hertz in range(420, 3400, 420))
        return np.asarray(0.05 * chord * np.exp(-(((time - 0.15) / 0.02) ** 2)) + 1e-4 * rng.standard_normal(4800), dtype=np.float32)

    assert matches([struck(1)], [struck(2)]) == []
    assert matches([np.tile(struck(1), 4)], [np.tile(struck(2), 4)])
