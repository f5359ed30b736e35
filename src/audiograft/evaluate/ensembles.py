"""Runs over the same clips joined into one: the log-odds averaged, and the majority's vote beside it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiograft import provenance
from audiograft.evaluate.calibrating import log_odds
from audiograft.evaluate.detection_scoring import MAJORITY, find_classes
from audiograft.evaluate.folder import METRICS_NAME, RunFolder, write_json
from audiograft.evaluate.pairing import Run, read_runs, shared_ids
from audiograft.evaluate.predictions import Prediction
from audiograft.evaluate.report import write_reports
from audiograft.evaluate.scoring import score
from audiograft.types import ConfigError, DataError

Array = npt.NDArray[np.float64]
_DIGITS = 6
_EVEN = 0.5


def ensemble(paths: Sequence[Path], out: Path, *, threshold: float | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Join detection runs: each choice's log-probability is averaged, and the likeliest, or the first of two from the threshold on, is taken.

    A run's scores are divided by its own temperature first. Of a run without scores, such as that of a voice activity detector, the log-odds of
    `speech_prob` are taken, at most those of one in a million. A clip that one run failed on is a failed one here.

    Args:
        paths: run folders or predictions files, two or more.
        out: the run folder.
        threshold: of two choices; by default that of the runs, where they have the same, and else 0.5.
        overwrite: give up what another run left in the folder.

    Returns:
        What `score` does. `detection.majority_vote` has the figures of the vote.

    Raises:
        ConfigError: fewer than two runs, or a threshold that is no probability.
        DataError: runs that are no detections, of other clips, labels or choices, or without probabilities.
    """
    if len(paths) < 2:
        raise ConfigError("an ensemble has two runs or more: name another one")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"threshold must be a probability from 0 to 1, not {threshold}")
    runs = read_runs(paths)
    ids = shared_ids(runs, common=False)
    classes = _classes(runs)
    question = _question(runs, classes, threshold)
    folder = RunFolder(out, _settings(runs, question), overwrite=overwrite)
    folder.start()
    weigh = [_weigher(run, classes) for run in runs]
    folder.append(_join([run.predictions[id_] for run in runs], runs, weigh, classes, question["threshold"]) for id_ in ids)
    metrics = score(folder.finish(ids))
    metrics |= {"wall_s": None, "leakage": _worst(runs, "leakage"), "checkpoint": _worst(runs, "checkpoint"), "context": 0}
    write_json(out / METRICS_NAME, metrics)
    write_reports(out)
    return metrics


def _classes(runs: Sequence[Run]) -> tuple[str, ...]:
    """The choices that all have."""
    for run in runs:
        other = next((row for row in run.predictions.values() if row.task != "detection"), None)
        if other is not None:
            raise DataError(f"{run.file}: row {other.id!r} is no detection: an ensemble is of detections alone")
    own = [find_classes([row for row in run.predictions.values() if row.error is None]) for run in runs]
    for run, classes in zip(runs, own, strict=True):
        if classes != own[0]:
            ours, theirs = ", ".join(own[0]), ", ".join(classes)
            raise DataError(f"{run.file}: chooses among {theirs}, and {runs[0].file} among {ours}: join runs of one question")
    return own[0]


def _weigher(run: Run, classes: Sequence[str]) -> Callable[[Prediction], Array]:
    """From a row to its tempered log-probabilities (n_choices,)."""
    temperature = (run.settings.get("question") or {}).get("temperature", 1.0)

    def weigh(row: Prediction) -> Array:
        if row.scores is not None:
            return _normalised(np.array([row.scores[label] for label in classes]) / temperature)
        if row.speech_prob is None or len(classes) != 2:
            raise DataError(f"{run.file}: row {row.id!r} has neither scores nor a probability of two choices: leave the run out")
        odds = log_odds(row.speech_prob)
        return np.array([-np.logaddexp(0, -odds), -np.logaddexp(0, odds)])

    return weigh


def _normalised(scores: Array) -> Array:
    """Log-probabilities that sum to 1."""
    own: Array = scores - np.logaddexp.reduce(scores)
    return own


def _join(
    rows: Sequence[Prediction], runs: Sequence[Run], weigh: Sequence[Callable[[Prediction], Array]], classes: Sequence[str], threshold: float
) -> Prediction:
    """One clip: the first run's row with the choice of all."""
    first = rows[0]
    for run, row in zip(runs, rows, strict=True):
        if row.reference != first.reference:
            raise DataError(f"{run.file}: id {row.id!r} is {row.reference}, and in {runs[0].file} {first.reference}: join runs of one manifest")
    times = [row.decode_s for row in rows if row.decode_s is not None]
    # Whoever asks all of them waits for all of them.
    base = replace(first, decode_s=round(sum(times), _DIGITS) if len(times) == len(rows) else None, prompt=None, reference_nats=None)
    if failed := [f"{run.name}: {row.error}" for run, row in zip(runs, rows, strict=True) if row.error is not None]:
        return replace(base, hypothesis="", speech_prob=None, scores=None, error="; ".join(failed))
    averaged = _normalised(np.mean([own(row) for own, row in zip(weigh, rows, strict=True)], axis=0))
    probability = float(np.exp(averaged[0]))
    best = int(np.argmax(averaged)) if len(classes) > 2 else int(probability < threshold)
    votes = Counter(row.hypothesis for row in rows).most_common()
    tied = len(votes) > 1 and votes[0][1] == votes[1][1]
    return replace(
        base,
        hypothesis=classes[best],
        speech_prob=probability,
        scores={label: round(float(score), _DIGITS) for label, score in zip(classes, averaged, strict=True)},
        extra=first.extra | {MAJORITY: classes[best] if tied else votes[0][0], "tied": tied},
    )


def _question(runs: Sequence[Run], classes: Sequence[str], threshold: float | None) -> dict[str, Any]:
    """For run.json: how the choice was made, and what it was chosen on: nothing, but where all runs share a fit, or one was fitted to these clips."""
    questions = [run.settings.get("question") or {} for run in runs]
    own = {question.get("threshold", _EVEN) for question in questions}
    source = "the runs" if len(own) == 1 else "default"
    chosen_on = [question.get("chosen_on") for question in questions]
    manifest = runs[0].settings.get("manifest_sha256")
    here = next((one for one in chosen_on if one and one.get("sha256") == manifest), None)
    shared = chosen_on[0] if threshold is None and len(own) == 1 and _same_clips(chosen_on) else None
    return {
        "prompt": None,
        "answers": dict.fromkeys(classes),
        "system": None,
        "temperature": 1.0,
        "threshold": threshold if threshold is not None else own.pop() if len(own) == 1 else _EVEN,
        "chosen_on": here or shared,
        "threshold_from": "by hand" if threshold is not None else source,
    }


def _same_clips(chosen_on: Sequence[Mapping[str, Any] | None]) -> bool:
    """Whether all runs were fitted, and on one set of clips."""
    return len({one.get("sha256") if one else None for one in chosen_on}) == 1


def _settings(runs: Sequence[Run], question: Mapping[str, Any]) -> dict[str, Any]:
    members = [
        {
            "name": run.name,
            "model": run.settings.get("model"),
            "file": str(run.file.resolve()),
            "sha256": hashlib.sha256(run.file.read_bytes()).hexdigest(),
            "temperature": (run.settings.get("question") or {}).get("temperature", 1.0),
            "chosen_on": (run.settings.get("question") or {}).get("chosen_on"),
        }
        for run in runs
    ]
    told = {key: {run.settings.get(key) for run in runs} for key in ("manifest", "manifest_sha256", "audio")}
    shared = {key: values.pop() if len(values) == 1 else None for key, values in told.items()}
    return {
        "model": f"ensemble of {len(runs)}: {', '.join(run.name for run in runs)}",
        "model_fingerprint": hashlib.sha256(json.dumps(members).encode()).hexdigest(),
        "members": members,
        **shared,
        "prompt": None,
        "question": dict(question),
        "language": None,
        "context": [],
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _worst(runs: Sequence[Run], key: str) -> dict[str, Any] | None:
    """What metrics.json of the runs says under `key`, of that run about which the worst is known, or least."""
    found = [run.metrics.get(key) for run in runs]

    def badness(told: Mapping[str, Any] | None) -> int:
        if not told or not told.get("checked", told.get("known")):
            return 1
        return 2 if told.get("touches") or told.get("chosen_on_this_data") else 0

    return max(found, key=badness)
