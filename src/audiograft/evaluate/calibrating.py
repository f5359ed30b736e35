"""A detector's temperature and threshold, chosen on a dev set and never on a test set."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from scipy import special

from audiograft.data.manifest import find_manifest, read_manifest
from audiograft.evaluate.folder import RUN_NAME, model_fingerprint
from audiograft.evaluate.options import EvaluateOptions
from audiograft.evaluate.predictions import Prediction, find_predictions, read_predictions
from audiograft.inference.choices import DEFAULT_QUESTION, SOUNDLESS_SCORE, ClosedQuestion
from audiograft.metrics import calibration
from audiograft.metrics.calibration import LEAST_PROB, Criterion, choose_threshold, fit_temperature
from audiograft.types import DETECTION_FILE, ConfigError, DataError

_TEST = "test"
SMOOTHED_NOTE = (
    "no clip is on the wrong side of 0.5, so the loss has no minimum: the temperature is that of Platt's smoothed targets, and the loss may be more "
    "than before; more or harder dev clips would tell it"
)
Array = np.ndarray


@dataclass(frozen=True)
class ThresholdCosts:
    """What errors cost, for a threshold that is not that of the most right clips.

    Attributes:
        max_false_alarm_rate: share of the other clips that may be called by the first label, with the criterion of that name.
        miss_cost: of a clip of the first label that is called otherwise, with the criterion `cost`.
        false_alarm_cost: of another clip that is called by the first label, likewise.

    Raises:
        ConfigError: a rate that is none, or a cost below 0.
    """

    max_false_alarm_rate: float = 0.05
    miss_cost: float = 1.0
    false_alarm_cost: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.max_false_alarm_rate <= 1:
            raise ConfigError(f"max_false_alarm_rate must be a share from 0 to 1, not {self.max_false_alarm_rate:g}")
        for name in ("miss_cost", "false_alarm_cost"):
            if not 0 <= (cost := getattr(self, name)) < math.inf:
                raise ConfigError(f"{name} must be 0 or more, not {cost:g}")
        if not self.miss_cost + self.false_alarm_cost:
            raise ConfigError("miss_cost and false_alarm_cost are both 0, so any threshold would do: raise one of them")

    def of(self, criterion: Criterion) -> dict[str, float]:
        """Those that the criterion looks at."""
        names = {"cost": ("miss_cost", "false_alarm_cost"), "max_false_alarm_rate": ("max_false_alarm_rate",)}.get(criterion, ())
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Calibrated:
    """What was chosen, and what it changes on the clips that it was chosen on.

    Attributes:
        file: detection.json, as it is now.
        question: with the new temperature and threshold.
        former: the question as it was.
        before: `temperature`, `threshold`, `nll`, `ece`, `brier`, `accuracy` and `balanced_accuracy` as they were.
        after: the same as they are now; better than on other clips, since they were chosen on these.
        failed: clips that could not be heard, and are in no figure.
        smoothed: see `Temperature`: where the classes are told apart without an error, the loss may be more than before.
    """

    file: Path
    question: ClosedQuestion
    former: ClosedQuestion
    before: dict[str, float]
    after: dict[str, float]
    failed: int
    smoothed: bool

    @property
    def notes(self) -> list[str]:
        """What to know, a line each."""
        return [SMOOTHED_NOTE] if self.smoothed else []

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        about = {"file": str(self.file), "chosen_on": self.question.chosen_on, "failed": self.failed, "notes": self.notes}
        return about | {"before": self.before, "after": self.after}


def calibrate(
    model: str | Path,
    manifest: str | Path | None = None,
    *,
    predictions: Path | None = None,
    out: Path | None = None,
    folder: Path | None = None,
    criterion: Criterion = "balanced_accuracy",
    with_threshold: bool = True,
    costs: ThresholdCosts | None = None,
    on_clip: Callable[[], None] = lambda: None,
    **options: Unpack[EvaluateOptions],
) -> Calibrated:
    """Fit a detector's temperature by the negative log-likelihood, choose its threshold, and write both into its detection.json.

    Args:
        model: a model's folder; or any other detector, with `folder`.
        manifest: of the dev set, whose clips are heard.
        predictions: a run of the same model on the dev set, in place of hearing it again.
        out: run folder that keeps the predictions on the dev set; by default they are not kept.
        folder: where detection.json is written, and read where it is there already; the model's own folder by default.
        criterion: of the threshold.
        with_threshold: whether to choose one at all; else that of before stays.
        costs: of the criteria `cost` and `max_false_alarm_rate`.
        on_clip: called after each clip.
        **options: as for `evaluate`.

    Raises:
        ConfigError: a model without a folder of its own and no other one named, or a question of more than two answers.
        DataError: rows of a test split, clips of one class only, or scores that tell the classes not apart.
    """
    if (manifest is None) == (predictions is None):
        raise ConfigError("name either a manifest of dev clips or, with --predictions, a run on them")
    target = _writable(model, folder)
    if predictions is not None:
        rows, question, chosen_on = _from_run(str(model), predictions)
    else:
        rows, question, chosen_on = _hear(model, find_manifest(str(manifest)), out, target, on_clip, options)
    done = [row for row in rows if row.error is None]
    place = str(predictions or manifest)
    odds, positive = _log_odds(done, question, place)
    asked = odds > SOUNDLESS_SCORE  # of silence no model was asked: its score is no evidence of how sure the model is
    fit = fit_temperature(odds[asked], positive[asked])
    temperature = fit.value
    probs = special.expit(odds / temperature)
    # A threshold above 1, where to call nothing speech is best, is none that a probability can have.
    costs = costs or ThresholdCosts()
    threshold = min(choose_threshold(positive, probs, criterion, **asdict(costs)).threshold, 1.0) if with_threshold else question.threshold
    fitted = {"model": str(model), "clips": len(done), "criterion": None}
    fitted |= {"criterion": criterion, **costs.of(criterion)} if with_threshold else {}
    chosen = replace(question, temperature=temperature, threshold=threshold, chosen_on={**chosen_on, **fitted})
    target.mkdir(parents=True, exist_ok=True)
    before, after = (_figures(odds, positive, one) for one in (question, chosen))
    return Calibrated(chosen.write(target), chosen, question, before, after, len(rows) - len(done), fit.smoothed)


def _writable(model: str | Path, folder: Path | None) -> Path:
    """The folder of detection.json."""
    if folder is not None:
        return folder
    own = Path(model).expanduser()
    if not own.is_dir():
        raise ConfigError(f"{model} has no folder of its own to write {DETECTION_FILE} into: name one with --question, and give it to evaluate too")
    return own


def _hear(
    model: str | Path, manifest: Path, out: Path | None, target: Path, on_clip: Callable[[], None], options: EvaluateOptions
) -> tuple[list[Prediction], ClosedQuestion, dict[str, Any]]:
    """The dev set's rows, after what can't be used was refused."""
    from audiograft.evaluate.run import evaluate

    samples = read_manifest(manifest, options.get("allow_outside", False))
    _refuse([(sample.id, sample.label, sample.extra.get("split")) for sample in samples], str(manifest))
    if options.get("audio", "true") != "true":
        raise ConfigError("temperature and threshold are chosen on what the clips sound like: leave the option audio out")
    asked: EvaluateOptions = {**options, "deafness_clips": 0}
    if (target / DETECTION_FILE).is_file():
        asked["question"] = target
    with tempfile.TemporaryDirectory() as scratch:
        run = out or Path(scratch) / "dev"
        evaluate(model, manifest, run, on_clip=on_clip, **asked)
        return _read(run)


def _from_run(model: str, run: Path) -> tuple[list[Prediction], ClosedQuestion, dict[str, Any]]:
    rows, question, chosen_on = _read(run)
    about = _about(run)
    own = Path(model).expanduser()
    if about["model"] != model and not (own.is_dir() and Path(about["model"]).expanduser().resolve() == own.resolve()):
        raise DataError(f"{run}: is a run of {about['model']}, not of {model}: name a run of the model that is calibrated")
    if about.get("model_fingerprint", model_fingerprint(model)) != model_fingerprint(model):
        raise DataError(f"{run}: {model} has changed since: evaluate it on the dev clips again")
    if about.get("audio", "true") != "true":
        raise DataError(f"{run}: heard each clip as {about['audio']}: name a run that heard the clips themselves")
    _refuse([(row.id, row.reference, row.extra.get("split")) for row in rows], str(run))
    return rows, question, chosen_on


def _about(run: Path) -> dict[str, Any]:
    path = find_predictions(run).with_name(RUN_NAME)
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and {"model", "manifest", "manifest_sha256", "question"} <= found.keys() and found["question"]:
            return found
    raise DataError(f"{path}: does not say what was asked of whom: name the run folder of an evaluation of detections")


def _read(run: Path) -> tuple[list[Prediction], ClosedQuestion, dict[str, Any]]:
    about = _about(run)
    told = {key: about["question"][key] for key in ("prompt", "answers", "system", "temperature", "threshold", "chosen_on")}
    if told["prompt"] is None:  # of a voice activity detector, of whose question only the labels and two numbers count
        told |= {key: getattr(DEFAULT_QUESTION, key) for key in ("prompt", "answers", "system")}
    return read_predictions(run), ClosedQuestion(**told), {"manifest": about["manifest"], "sha256": about["manifest_sha256"]}


def _refuse(rows: Sequence[tuple[str, str | None, Any]], place: str) -> None:
    """Raises DataError for rows of a test split, or of one class alone."""
    if tests := [id_ for id_, _, split in rows if split == _TEST]:
        raise DataError(
            f"{place}: {len(tests)} of {len(rows)} rows are of the test split, such as {tests[0]!r}: temperature and threshold are chosen on "
            "dev alone"
        )
    labels = {label for _, label, _ in rows if label is not None}
    if len(labels) == 1:
        raise DataError(f"{place}: all {len(rows)} rows are {labels.pop()}: temperature and threshold are chosen on clips of both classes")


def _log_odds(rows: Sequence[Prediction], question: ClosedQuestion, place: str) -> tuple[Array, Array]:
    """Of the first label, untempered (n_clips,), and whether it is the right one."""
    if len(question.labels) != 2:
        raise ConfigError(f"{place}: the question has {len(question.labels)} answers, and a threshold is between two")
    first, second = question.labels
    odds = []
    for row in rows:
        if row.scores is not None:
            odds.append(row.scores[first] - row.scores[second])
        elif row.speech_prob is not None:
            odds.append(log_odds(row.speech_prob) * question.temperature)
        else:
            raise DataError(f"{place}: row {row.id!r} has neither scores nor speech_prob, so there is nothing to calibrate")
    return np.array(odds), np.array([row.reference == first for row in rows])


def log_odds(probability: float) -> float:
    """Of a probability: detectors of others say 0 and 1, whose log-odds would have no end."""
    kept = min(max(probability, LEAST_PROB), 1 - LEAST_PROB)
    return math.log(kept / (1 - kept))


def _figures(odds: Array, positive: Array, question: ClosedQuestion) -> dict[str, float]:
    probs = special.expit(odds / question.temperature)
    right = (probs >= question.threshold) == positive
    return {
        "temperature": question.temperature,
        "threshold": question.threshold,
        "nll": calibration.negative_log_likelihood(positive, probs),
        "ece": calibration.expected_calibration_error(positive, probs),
        "brier": calibration.brier_score(positive, probs),
        "accuracy": float(right.mean()),
        "balanced_accuracy": float((right[positive].mean() + right[~positive].mean()) / 2),
    }
