"""Is the class told by something trivial? Classifiers on a clip's length, level and crest factor alone, and the gate that refuses a leaky bench.

Whatever such a classifier gets right, a detector can get right without hearing speech. Where clips are scaled to one peak, their RMS still tells
speech from steadier sounds; where only one class has short clips, the length does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from audiograft.audio import load_audio
from audiograft.data.paths import clip_path
from audiograft.types import SAMPLE_RATE_HZ, DataError

Waveform = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

CUES: Mapping[str, tuple[int, ...]] = {"duration": (0,), "rms": (1,), "duration+rms": (0, 1), "crest-factor": (2,), "all": (0, 1, 2)}
"""What each trivial classifier sees: columns of `TrivialMeasures`."""
REFUSED_CUES = ("duration", "rms", "duration+rms")
"""Those that must be at chance. The crest factor is of the sound itself, so it is reported and no more."""
TOLERANCE = 0.04
CONFIDENCE = 0.95
SURE = 0.99
"""A cue is refused where an interval that holds the truth so often leaves chance out: of 1,000 test clips, that is the tolerance itself."""
_QUIETEST_DB = -120.0
_MENDS = {
    "duration": "give both classes the same grid of durations in each part",
    "rms": "make it again with levels randomised on RMS (normalisation rms-random), the same range for both classes",
    "duration+rms": "draw levels from one range for all durations and both classes",
}


class LeakError(DataError):
    """A bench whose classes can be told apart without listening.

    Attributes:
        report: all that was measured.
    """

    def __init__(self, message: str, report: LeakReport) -> None:
        super().__init__(message)
        self.report = report


class TrivialMeasures(NamedTuple):
    """What can be known of a clip without listening.

    Attributes:
        duration_s: length in seconds.
        rms_db: root of the mean square, in decibels below full scale; -120 where it is less than that.
        crest_factor_db: peak over RMS; 0 of silence.
    """

    duration_s: float
    rms_db: float
    crest_factor_db: float


def measure_trivial(waveform: Waveform) -> TrivialMeasures:
    """Length, level and crest factor of (n_samples,) at 16 kHz, one sample at least."""
    rms = math.sqrt(float(np.mean(np.square(waveform, dtype=np.float64))))
    peak = float(np.max(np.abs(waveform)))
    rms_db = 20 * math.log10(rms) if rms > 10 ** (_QUIETEST_DB / 20) else _QUIETEST_DB
    return TrivialMeasures(len(waveform) / SAMPLE_RATE_HZ, rms_db, 20 * math.log10(peak / rms) if rms else 0.0)


def measure_rows(rows: Sequence[Mapping[str, Any]], folder: Path, on_clip: Callable[[], None] = lambda: None) -> FloatArray:
    """`TrivialMeasures` of the clips of manifest rows, (n_rows, 3), measured on the files and not taken from the rows.

    Args:
        rows: each with `audio`.
        folder: that of the manifest.
        on_clip: called after each.

    Raises:
        DataError: a row without a clip, or one outside of the folder.
        AudioError: a clip can't be read.
    """
    measures = []
    for number, row in enumerate(rows, start=1):
        place = f"row {row.get('id', number)}"
        if not isinstance(row.get("audio"), str):
            raise DataError(f'{place}: "audio" must be one path: a trivial classifier measures one clip a row')
        measures.append(measure_trivial(load_audio(clip_path(row["audio"], folder, place)).waveform))
        on_clip()
    return np.array(measures, dtype=np.float64).reshape(-1, 3)


class TrivialClassifier:
    """Boosted trees (Friedman 2001; scikit-learn's on histograms) on one cue or several, small enough that noise alone teaches them nothing.

    Trees find any shape of cue, such as speech at both ends of the levels and other sounds between them. Both classes weigh alike.

    Attributes:
        labels: the classes, sorted: the columns of `probs`.
    """

    def __init__(self, cue: str, measures: FloatArray, labels: Sequence[str]) -> None:
        """Fit.

        Args:
            cue: a name of `CUES`.
            measures: (n_clips, 3) of `measure_rows`.
            labels: of each clip.

        Raises:
            DataError: one class only.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier  # a second's import

        self._columns = list(CUES[cue])
        self.labels = sorted(set(labels))
        if len(self.labels) < 2:
            raise DataError(f"all clips to learn from are {', '.join(self.labels) or 'missing'}: a classifier needs two classes")
        leaf = min(max(len(labels) // 40, 5), 30)
        self._trees = HistGradientBoostingClassifier(
            max_iter=30, max_leaf_nodes=6, min_samples_leaf=leaf, early_stopping=False, class_weight="balanced", random_state=0
        )
        self._trees.fit(measures[:, self._columns], [self.labels.index(label) for label in labels])

    def probs(self, measures: FloatArray) -> FloatArray:
        """Probability of each class (n_clips, n_labels)."""
        return np.asarray(self._trees.predict_proba(measures[:, self._columns]), dtype=np.float64)


@dataclass(frozen=True)
class CueAccuracy:
    """How well one cue tells the class.

    Attributes:
        accuracy: mean of the shares that are right of each class, so that chance is one over the number of classes however many clips each has.
        low: lower end of Wilson's 95 % interval; clips are taken for independent.
        high: upper end.
        leaks: whether it must be at chance and is not: off by more than the tolerance, and surely so (`SURE`).
    """

    accuracy: float
    low: float
    high: float
    leaks: bool


@dataclass(frozen=True)
class LeakReport:
    """What trivial classifiers, fitted on one part of a bench, reach on another.

    Attributes:
        cues: by name of `CUES`.
        chance: accuracy of a guess.
        tolerance: how far off chance is still taken for chance.
        train_clips: fitted on.
        test_clips: measured on.
    """

    cues: Mapping[str, CueAccuracy]
    chance: float
    tolerance: float
    train_clips: int
    test_clips: int

    def as_row(self) -> dict[str, Any]:
        """For JSON, rates to four digits."""
        cues = {
            name: {key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(cue).items()}
            for name, cue in self.cues.items()
        }
        return {**asdict(self), "cues": cues}


def check_leaks(
    train_rows: Sequence[Mapping[str, Any]],
    test_rows: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    tolerance: float = TOLERANCE,
    on_clip: Callable[[], None] = lambda: None,
) -> LeakReport:
    """Measure how well trivial cues tell the class, and refuse a bench where length or level does.

    The bar is the tolerance. With few test clips a guess is off by more than that by chance alone, so Wilson's 99 % interval must leave chance out
    as well: a small bench passes unless its cue is strong. Of clean benches with up to 1,000 test clips about one in fifty fails by chance, of
    larger ones hardly any.

    Args:
        train_rows: manifest rows, each with `label` and `audio`, to fit the classifiers on.
        test_rows: rows to measure them on.
        folder: that of the manifests, to which clips are relative.
        tolerance: how far off chance an accuracy may be.
        on_clip: called after each clip.

    Raises:
        LeakError: a cue of `REFUSED_CUES` is off chance: says which, how far, and what to change.
        DataError: a row without label or clip, one class only.
        AudioError: a clip can't be read.
    """
    labels = [_labels(rows, part) for rows, part in ((train_rows, "train"), (test_rows, "test"))]
    measures = [measure_rows(rows, folder, on_clip) for rows in (train_rows, test_rows)]
    report = measure_leaks(measures[0], labels[0], measures[1], labels[1], tolerance)
    leaking = [name for name in REFUSED_CUES if report.cues[name].leaks]
    if leaking:
        name = leaking[0]  # the joint cue stands last, so a single one is named where one alone leaks
        found = report.cues[name]
        what = {"duration": "its length", "rms": "its RMS level", "duration+rms": "its length and RMS level together"}[name]
        raise LeakError(
            f"{folder}: {what} alone gives a clip's class away: right on {found.accuracy:.1%} of {report.test_clips} test clips "
            f"[{found.low:.1%}, {found.high:.1%}], where chance is {report.chance:.0%} +- {tolerance:.0%}: {_MENDS[name]}",
            report,
        )
    return report


def measure_leaks(
    train: FloatArray, train_labels: Sequence[str], test: FloatArray, test_labels: Sequence[str], tolerance: float = TOLERANCE
) -> LeakReport:
    """What `check_leaks` measures, of measures (n_clips, 3), without a refusal.

    Raises:
        DataError: one class only, or a class of the test that can't be learnt.
    """
    classes = sorted(set(test_labels))
    if unknown := sorted(set(classes) - set(train_labels)):
        raise DataError(f"no clip to learn from is {unknown[0]}: each part needs all classes")
    if len(classes) < 2:
        raise DataError(f"all test clips are {', '.join(classes) or 'missing'}: a test needs two classes")
    from threadpoolctl import threadpool_limits

    chance = 1 / len(classes)
    cues = {}
    with threadpool_limits(1):  # on a busy machine threads that wait for each other take minutes for what one does in seconds
        for name in CUES:
            classifier = TrivialClassifier(name, train, train_labels)
            guesses = [classifier.labels[column] for column in classifier.probs(test).argmax(axis=1)]
            cues[name] = _accuracy(guesses, test_labels, chance, tolerance if name in REFUSED_CUES else math.inf)
    return LeakReport(cues, chance, tolerance, len(train_labels), len(test_labels))


def _accuracy(guesses: Sequence[str], labels: Sequence[str], chance: float, tolerance: float) -> CueAccuracy:
    """Balanced accuracy; its interval is Wilson's of as many clips as would have its variance, with equal classes just the clips."""
    from statsmodels.stats.proportion import proportion_confint

    right = {label: [guess == own for guess, own in zip(guesses, labels, strict=True) if own == label] for label in set(labels)}
    accuracy = float(np.mean([np.mean(of_class) for of_class in right.values()]))
    n_effective = len(right) ** 2 / sum(1 / len(of_class) for of_class in right.values())
    (low, high), (surely_low, surely_high) = (
        proportion_confint(accuracy * n_effective, n_effective, 1 - confidence, method="wilson") for confidence in (CONFIDENCE, SURE)
    )
    leaks = abs(accuracy - chance) > tolerance and not surely_low <= chance <= surely_high
    return CueAccuracy(accuracy, float(low), float(high), bool(leaks))


def _labels(rows: Sequence[Mapping[str, Any]], part: str) -> list[str]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("label"), str):
            raise DataError(f'{part}, row {row.get("id", number)}: "label" is missing: a detection row has its class there, such as SPEECH')
    return [row["label"] for row in rows]
