"""Trivial cues: what they measure, that they are found whatever their shape, and that a bench without them passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.data.detection.leaks import CUES, LeakError, TrivialClassifier, check_leaks, measure_leaks, measure_rows, measure_trivial
from audiograft.types import AudioError, DataError

FloatArray = npt.NDArray[np.float64]
Rng = np.random.Generator
LABELS = ("SPEECH", "NONSPEECH")
DURATIONS_S = (0.2, 0.4, 0.6, 0.8, 1.0)


def clean(n_clips: int, rng: Rng) -> tuple[FloatArray, list[str]]:
    """Measures of a bench whose classes differ in their crest factor alone."""
    labels = [LABELS[number % 2] for number in range(n_clips)]
    durations = [DURATIONS_S[number // 2 % 5] for number in range(n_clips)]
    crests = [rng.normal(16 if label == "SPEECH" else 12, 2) for label in labels]
    return np.column_stack([durations, rng.uniform(-45, -25, n_clips), crests]), labels


def both(make: Callable[[int, Rng], tuple[FloatArray, list[str]]], n_train: int, n_test: int, seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    return (*make(n_train, rng), *make(n_test, rng))


@settings(max_examples=30, deadline=None)
@given(frequency_hz=st.integers(100, 4000), amplitude=st.floats(1e-3, 1.0), n_periods=st.integers(10, 100))
def test_a_tone_measures_as_a_tone(frequency_hz: int, amplitude: float, n_periods: int) -> None:
    n_samples = round(16_000 * n_periods / frequency_hz)
    waveform = np.asarray(amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(n_samples) / 16_000 + 0.3), dtype=np.float32)
    duration_s, rms_db, crest_factor_db = measure_trivial(waveform)
    assert duration_s == n_samples / 16_000
    assert rms_db == pytest.approx(20 * np.log10(amplitude / np.sqrt(2)), abs=0.3)
    assert crest_factor_db == pytest.approx(3.01, abs=0.9)


def test_silence_has_numbers_too() -> None:
    assert measure_trivial(np.zeros(1600, dtype=np.float32)) == (0.1, -120.0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_bench_passes_and_its_crest_factor_is_told(seed: int) -> None:
    report = measure_leaks(*both(clean, 1500, 1000, seed))
    assert not any(cue.leaks for cue in report.cues.values())
    assert report.cues["duration"].accuracy == 0.5
    assert report.cues["rms"].accuracy == pytest.approx(0.5, abs=0.045)
    assert report.cues["crest-factor"].accuracy > 0.75
    assert report.cues["all"].accuracy > 0.75
    assert (report.chance, report.train_clips, report.test_clips) == (0.5, 1500, 1000)
    assert all(cue.low < cue.accuracy < cue.high for cue in report.cues.values())
    assert json.loads(json.dumps(report.as_row()))["cues"]["rms"]["accuracy"] == round(report.cues["rms"].accuracy, 4)


def test_the_interval_of_equal_classes_is_wilsons() -> None:
    from scipy import stats

    cue = measure_leaks(*both(clean, 600, 400)).cues["crest-factor"]
    wilson = stats.binomtest(round(cue.accuracy * 400), 400).proportion_ci(0.95, method="wilson")
    assert (cue.low, cue.high) == pytest.approx((wilson.low, wilson.high), abs=1e-9)


def test_few_clips_are_not_refused_for_their_chance() -> None:
    refused = sum(any(cue.leaks for cue in measure_leaks(*both(clean, 200, 80, seed)).cues.values()) for seed in range(20))
    assert refused <= 1


def louder(n_clips: int, rng: Rng) -> tuple[FloatArray, list[str]]:
    measures, labels = clean(n_clips, rng)
    measures[:, 1] += [2.5 if label == "SPEECH" else 0.0 for label in labels]
    return measures, labels


def at_both_ends(n_clips: int, rng: Rng) -> tuple[FloatArray, list[str]]:
    measures, labels = clean(n_clips, rng)
    ends = np.where(rng.random(n_clips) < 0.5, -44.0, -26.0)
    measures[:, 1] = np.where(np.array(labels) == "SPEECH", ends, -35.0) + rng.normal(0, 3, n_clips)
    return measures, labels


def longer_now_and_then(n_clips: int, rng: Rng) -> tuple[FloatArray, list[str]]:
    measures, labels = clean(n_clips, rng)
    measures[:, 0] += np.where((np.array(labels) == "SPEECH") & (rng.random(n_clips) < 0.3), 0.01, 0.0)
    return measures, labels


def loud_where_short(n_clips: int, rng: Rng) -> tuple[FloatArray, list[str]]:
    """Neither alone tells anything."""
    measures, labels = clean(n_clips, rng)
    loud = (np.array(labels) == "SPEECH") == (measures[:, 0] < 0.5)
    # Where three of five durations are long, levels of both classes would differ: half of the middle ones are loud.
    loud = np.where(measures[:, 0] == 0.6, rng.random(n_clips) < 0.5, loud)
    measures[:, 1] = np.where(loud, -30.0, -40.0) + rng.normal(0, 3, n_clips)
    return measures, labels


@pytest.mark.parametrize(
    ("make", "cue", "silent"),
    [
        (louder, "rms", "duration"),
        (at_both_ends, "rms", "duration"),
        (longer_now_and_then, "duration", "rms"),
        (loud_where_short, "duration+rms", "rms"),
    ],
)
def test_a_cue_of_any_shape_is_found(make: Callable[[int, Rng], tuple[FloatArray, list[str]]], cue: str, silent: str) -> None:
    report = measure_leaks(*both(make, 1500, 1000))
    assert report.cues[cue].leaks
    assert report.cues[cue].accuracy > 0.54
    assert not report.cues[silent].leaks


def test_a_class_with_more_clips_is_no_leak() -> None:
    def uneven(n_clips: int, rng: Rng) -> tuple[FloatArray, list[str]]:
        measures, _ = clean(n_clips, rng)
        return measures, ["SPEECH" if draw < 0.85 else "NONSPEECH" for draw in rng.random(n_clips)]

    report = measure_leaks(*both(uneven, 1500, 1000))
    assert not any(cue.leaks for cue in report.cues.values())
    assert report.cues["rms"].high - report.cues["rms"].low > 0.08  # the smaller class has 150 clips


def test_of_three_classes_chance_is_a_third() -> None:
    rng = np.random.default_rng(0)
    labels = [("dog", "car", "rain")[number % 3] for number in range(900)]
    report = measure_leaks(np.column_stack([rng.normal(size=(900, 3))]), labels, rng.normal(size=(900, 3)), labels)
    assert report.chance == pytest.approx(1 / 3)
    assert not report.cues["duration"].leaks


def bench(folder: Path, n_clips: int, make: Callable[[str, Rng], npt.NDArray[np.float64]], seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n_clips):
        label = LABELS[number % 2]
        name = f"{seed}-{number}.wav"
        soundfile.write(folder / name, make(label, rng), 16_000, subtype="PCM_16")
        rows.append({"id": name, "audio": name, "label": label})
    return rows


def spiky_or_steady(label: str, rng: Rng) -> npt.NDArray[np.float64]:
    """Speech has a higher crest factor than steady noise has."""
    sound = rng.standard_normal(1600)
    return sound * np.exp(rng.normal(0, 0.8, 1600)) if label == "SPEECH" else sound


def peak_normalised(label: str, rng: Rng) -> npt.NDArray[np.float64]:
    sound = spiky_or_steady(label, rng)
    return 0.637 * sound / np.abs(sound).max()


def level_drawn(label: str, rng: Rng) -> npt.NDArray[np.float64]:
    sound = spiky_or_steady(label, rng)
    return 10 ** (rng.uniform(-45, -25) / 20) * sound / np.sqrt(np.mean(sound**2))


def test_peak_normalisation_gives_the_class_away_and_drawn_levels_do_not(tmp_path: Path) -> None:
    with pytest.raises(LeakError, match="RMS level alone gives a clip's class away.*normalisation rms-random") as refusal:
        check_leaks(bench(tmp_path, 120, peak_normalised, 1), bench(tmp_path, 120, peak_normalised, 2), tmp_path)
    assert "\n" not in str(refusal.value)
    assert refusal.value.report.cues["rms"].leaks
    counted: list[None] = []
    report = check_leaks(bench(tmp_path, 120, level_drawn, 3), bench(tmp_path, 120, level_drawn, 4), tmp_path, on_clip=lambda: counted.append(None))
    assert len(counted) == 240
    assert report.cues["crest-factor"].accuracy > 0.8


def test_unequal_durations_are_refused(tmp_path: Path) -> None:
    def cut(label: str, rng: Rng) -> npt.NDArray[np.float64]:
        lengths = (1600, 3200) if label == "SPEECH" else (1600, 2400)
        return level_drawn(label, rng)[:1] * np.ones(int(rng.choice(lengths)))

    with pytest.raises(LeakError, match="its length alone.*same grid of durations"):
        check_leaks(bench(tmp_path, 100, cut, 1), bench(tmp_path, 100, cut, 2), tmp_path)


def test_what_rows_say_of_levels_is_not_believed(tmp_path: Path) -> None:
    rows = bench(tmp_path, 4, level_drawn, 0)
    assert (measure_rows([row | {"level_db": -3.0, "duration_s": 9.0} for row in rows], tmp_path) == measure_rows(rows, tmp_path)).all()


def test_a_classifier_is_the_same_each_time() -> None:
    train, labels, test, _ = both(clean, 400, 100)
    first, second = (TrivialClassifier("all", train, labels).probs(test) for _ in range(2))
    assert (first == second).all()
    assert TrivialClassifier("all", train, labels).labels == ["NONSPEECH", "SPEECH"]
    assert set(CUES) == {"duration", "rms", "duration+rms", "crest-factor", "all"}


def test_rows_that_do_not_fit_are_named(tmp_path: Path) -> None:
    rows = bench(tmp_path, 4, level_drawn, 0)
    for wrong, mend in (
        ([{key: value for key, value in row.items() if key != "label"} for row in rows], 'train, row 0-0.wav: "label" is missing'),
        ([row | {"audio": None} for row in rows], 'row 0-0.wav: "audio" must be one path'),
        ([row | {"audio": "../else.wav"} for row in rows], "leaves the folder"),
        (rows[::2], "no clip to learn from is NONSPEECH"),
    ):
        with pytest.raises(DataError, match=mend):
            check_leaks(wrong, rows, tmp_path)
    with pytest.raises(DataError, match="all test clips are SPEECH"):
        check_leaks(rows, rows[::2], tmp_path)
    with pytest.raises(AudioError, match="no-such.wav"):
        check_leaks([row | {"audio": "no-such.wav"} for row in rows], rows, tmp_path)
