"""Every figure of a detection run, computed from its predictions alone; what its run.json says of the threshold stands beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audiograft.evaluate.clips import as_dict
from audiograft.evaluate.detection_conditions import CELLS, CONDITIONS, condition_values, grouped_levels
from audiograft.evaluate.folder import RUN_NAME
from audiograft.evaluate.predictions import PREDICTIONS_NAME, Prediction
from audiograft.metrics.detection import DetectionScores, Rate, condition_table, score_detection
from audiograft.metrics.groups import mean_over_groups
from audiograft.metrics.mixed_model import fit_mixed_model
from audiograft.metrics.psychometric import psychometric_curves
from audiograft.metrics.ranking import Figure
from audiograft.types import NONSPEECH, SPEECH, DataError

GROUPED_BY = ("speaker", "kind")
"""What clips of one class have in common besides their recording: the first that all of them name."""
MAJORITY = "majority_vote"
"""Key of an ensemble's rows: what most of its runs chose."""
UNKNOWN_CHOICE = "whether the threshold was chosen on these clips is not known: the predictions come without a run"


def score_detections(predictions: Sequence[Prediction], question: Mapping[str, Any] | None, manifest_sha256: str | None) -> dict[str, Any]:
    """The figures of detections: what metrics.json has under `detection`. `docs/detection.md` explains it key by key.

    Args:
        predictions: rows that did not fail, all of them detections.
        question: of run.json; None where there is none.
        manifest_sha256: of run.json; None where there is none.

    Raises:
        DataError: a probability without scores whose label is not known.
    """
    right = [row.reference == row.hypothesis for row in predictions]
    duration_ms, snr_db = (condition_values(predictions, key) for key in CELLS)
    recordings = [row.cluster for row in predictions]
    told = describe_detections(predictions, question, manifest_sha256)
    is_positive = [row.reference == told["positive"] for row in predictions]
    return told | {
        "psychometric": psychometric_curves(is_positive, right, duration_ms, snr_db, recordings),
        "mixed_model": fit_mixed_model(right, duration_ms, snr_db, recordings),
        "majority_vote": _majority_vote(predictions, told["classes"]),
    }


def describe_detections(predictions: Sequence[Prediction], question: Mapping[str, Any] | None, manifest_sha256: str | None) -> dict[str, Any]:
    """The figures of `score_detections` without those that take long: the psychometric curves and the mixed model."""
    labels = [row.reference for row in predictions]
    predicted = [row.hypothesis for row in predictions]
    classes = find_classes(predictions)
    positive = classes[0]
    unknown = _why_unknown(predictions, classes)
    probs = None if unknown else [row.speech_prob or 0.0 for row in predictions]
    found = score_detection(labels, predicted, classes, probs, [row.cluster for row in predictions])
    conditions, notes = _conditions(predictions, labels, predicted, positive)
    told = _as_dicts(found, unknown)
    return {
        **told,
        "notes": [*told["notes"], *notes],
        "over_groups": _over_groups(predictions),
        "positive": positive,
        "classes": list(classes),
        "n_clips": len(predictions),
        "no_probabilities": unknown,
        **_choice(question, manifest_sha256),
        "conditions": conditions,
    }


def _majority_vote(predictions: Sequence[Prediction], classes: Sequence[str]) -> dict[str, Any] | None:
    """The figures of the vote beside an ensemble's averaged log-odds, which decide where it is tied; None where the rows have no vote."""
    votes = [row.extra.get(MAJORITY) for row in predictions]
    if not all(vote in classes for vote in votes):
        return None
    labels, recordings = [row.reference for row in predictions], [row.cluster for row in predictions]
    found = score_detection(labels, [str(vote) for vote in votes], classes, None, recordings)
    told = _as_dicts(found, None)
    ties = sum(bool(row.extra.get("tied")) for row in predictions)
    return {key: told[key] for key in ("accuracy", "wilson", "balanced_accuracy", "per_class")} | {"tied": ties}


def run_question(predictions: Path) -> tuple[dict[str, Any] | None, str | None]:
    """What the run.json beside a predictions file says of the question, and the digest of its manifest; None where it says nothing.

    Raises:
        DataError: it can't be read.
    """
    path = predictions.with_name(RUN_NAME)
    if predictions.name != PREDICTIONS_NAME or not path.is_file():
        return None, None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return about.get("question"), about.get("manifest_sha256")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: can't be read ({error}): repeat the evaluation, or move the predictions elsewhere") from error


def find_classes(predictions: Sequence[Prediction]) -> tuple[str, ...]:
    """All labels, that which `speech_prob` is about first: those of the scores, in their order.

    Raises:
        DataError: rows with different choices; or a probability of it is not known what; or labels that are spelt in two ways.
    """
    choices = {tuple(row.scores) for row in predictions if row.scores}
    if len(choices) > 1:
        first, second = (", ".join(labels) for labels in sorted(choices)[:2])
        raise DataError(f"some rows have scores of {first} and others of {second}: keep to one question")
    labels = {row.reference for row in predictions}
    _check_spelling(predictions, labels)
    named = labels | {row.hypothesis for row in predictions}
    if choices:
        known = choices.pop()
        return (*known, *sorted(named - {*known}))
    if named <= {SPEECH, NONSPEECH}:
        return SPEECH, NONSPEECH
    if unclear := next((row for row in predictions if row.speech_prob is not None), None):
        raise DataError(f"row {unclear.id!r} has a speech_prob, and of {', '.join(sorted(named))} it is not known which it is of: add scores")
    return tuple(sorted(named))


def _check_spelling(predictions: Sequence[Prediction], labels: set[str]) -> None:
    """Raises DataError for a prediction that is no label, but would be one if spelt alike: no clip would be right, and nobody told why."""
    alike = {label.strip().casefold(): label for label in labels}
    for row in predictions:
        said = row.hypothesis
        if said not in labels and (label := alike.get(said.strip().casefold())):
            raise DataError(f"row {row.id!r} is called {said!r}, and the label of the clips is {label!r}: spell them alike")


def _why_unknown(predictions: Sequence[Prediction], classes: Sequence[str]) -> str | None:
    """Why there are no figures of probabilities; None where there are."""
    without = sum(row.speech_prob is None for row in predictions)
    if without:
        return f"{without} of {len(predictions)} rows have no speech_prob"
    return f"these figures are of two labels, and here are {len(classes)}" if len(classes) > 2 else None


def _conditions(
    predictions: Sequence[Prediction], labels: Sequence[str], predicted: Sequence[str], positive: str
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """By key, or keys: the figures of each value, or cell, without keys that no row states; and what to know about them."""
    grouped = {key: grouped_levels(condition_values(predictions, key), key) for key in CONDITIONS}
    columns = {key: values for key, (values, _) in grouped.items()}
    stated = [key for key, values in columns.items() if any(value is not None for value in values)]
    tables = {key: condition_table(labels, predicted, {key: columns[key]}, positive) for key in stated}
    if all(key in stated for key in CELLS):
        tables[" x ".join(CELLS)] = condition_table(labels, predicted, {key: columns[key] for key in CELLS}, positive)
    return tables, [note for _, note in grouped.values() if note]


def right_by_group(predictions: Sequence[Prediction]) -> dict[str, tuple[str, dict[str, list[bool]]]] | None:
    """By class: whether its groups are speakers or kinds of sound, and whether the clips of each are right; None where a class names neither."""
    found: dict[str, tuple[str, dict[str, list[bool]]]] = {}
    for label in dict.fromkeys(row.reference for row in predictions):
        rows = [row.as_row() for row in predictions if row.reference == label]
        by = next((key for key in GROUPED_BY if all(row.get(key) is not None for row in rows)), None)
        if by is None:
            return None
        groups: dict[str, list[bool]] = {}
        for row in rows:
            groups.setdefault(str(row[by]), []).append(row["predicted"] == label)
        found[label] = by, groups
    return found


def _over_groups(predictions: Sequence[Prediction]) -> dict[str, Any] | None:
    """Accuracy over speakers and kinds, of which a test often has but a few; None where they are not named."""
    found = right_by_group(predictions)
    if found is None:
        return None
    rate, interval = mean_over_groups([[sum(hits) / len(hits) for hits in groups.values()] for _, groups in found.values()])
    return {"rate": rate, "interval": as_dict(interval), "groups": {label: {"by": by, "n": len(groups)} for label, (by, groups) in found.items()}}


def _choice(question: Mapping[str, Any] | None, manifest_sha256: str | None) -> dict[str, Any]:
    """The threshold, and whether it was chosen on these very clips: then the figures are no test result."""
    if question is None:
        unknown = dict.fromkeys(("threshold", "temperature", "threshold_from", "chosen_on", "chosen_on_this_data"))
        return unknown | {"choice": UNKNOWN_CHOICE}
    told = {key: question.get(key) for key in ("threshold", "temperature", "threshold_from", "chosen_on")}
    chosen_on: Mapping[str, Any] = told["chosen_on"] or {}
    by_hand = told["threshold_from"] == "by hand"
    here = manifest_sha256 is not None and chosen_on.get("sha256") == manifest_sha256
    if here:
        why = f"not a test result: temperature and threshold were chosen on these clips ({chosen_on.get('manifest')})"
    elif by_hand:
        why = f"the threshold, {told['threshold']:g}, was given by hand: what it was chosen on is not known"
    elif chosen_on:
        why = f"temperature and threshold were chosen on other clips: {chosen_on.get('clips')} of {chosen_on.get('manifest')}"
    else:
        why = f"temperature and threshold were not fitted: {told['temperature']:g} and {told['threshold']:g}"
    known = None if by_hand and not here else here
    return told | {"chosen_on_this_data": known, "choice": why}


def _as_dicts(found: DetectionScores, unknown: str | None) -> dict[str, Any]:
    """For JSON; `unknown` says why probabilities are not known, where they are not."""
    balanced = found.balanced_accuracy_interval
    figures = ("roc_auc", "pr_auc", "eer")
    means = ("brier", "nll", "ece")
    known = found.probabilities
    reasons = {figure.reason for name in figures if known and (figure := getattr(known, name)).reason}
    notes = [*([unknown] if unknown else []), *sorted(reasons)]
    told: dict[str, Any] = {
        "accuracy": _counts(found.accuracy) | {"interval": as_dict(found.accuracy_interval)},
        "wilson": _ends(found.accuracy),
        "balanced_accuracy": {"rate": found.balanced_accuracy, "interval": as_dict(balanced) if balanced else None},
        "per_class": {label: _counts(rate) | {"wilson": _ends(rate)} for label, rate in found.per_class.items()},
        "confusion": found.confusion,
        "notes": notes,
    }
    if known is None:
        told |= {name: {"value": None, "interval": None, "reason": unknown} for name in figures}
        return told | dict.fromkeys((*means, "reliability", "confidence"))
    told |= {name: _figure(getattr(known, name)) for name in figures} | {name: getattr(known, name) for name in means}
    return told | {"reliability": [asdict(part) for part in known.reliability], "confidence": asdict(known.confidence)}


def _counts(rate: Rate) -> dict[str, Any]:
    return {"n": rate.n, "right": rate.right, "rate": rate.rate}


def _ends(rate: Rate) -> dict[str, float | None] | None:
    return None if rate.wilson is None else {"low": rate.wilson.low, "high": rate.wilson.high}


def _figure(figure: Figure) -> dict[str, Any]:
    return {"value": figure.value, "interval": as_dict(figure.interval) if figure.interval else None, "reason": figure.reason}
