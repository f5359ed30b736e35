"""What a figure is held against: a second system on the same clips, and the same model on other clips' audio and on silence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from audiograft.data.manifest import read_rows
from audiograft.evaluate.clips import ScoredClip, answer_rate, score_clip, score_clips, split_tasks, word_rate
from audiograft.evaluate.folder import RUN_NAME
from audiograft.evaluate.predictions import Prediction, find_predictions, parse_prediction, read_predictions
from audiograft.metrics.normalisers import Normaliser
from audiograft.metrics.permutation import permutation_p_value
from audiograft.train.recipe import DEAF_P, MIN_DEAFNESS_CLIPS
from audiograft.types import DataError

_HEARD = ("shuffled", "silence")


def compare_baseline(predictions: Sequence[Prediction], baseline: Path, normaliser: Normaliser) -> dict[str, Any]:
    """Score a second predictions file, and the first one again, on the clips that both have.

    Args:
        predictions: the run's own, with those that failed.
        baseline: the second file, or its run folder.
        normaliser: for both.

    Returns:
        `name` (the baseline's model, where a run.json says it, else its path), `path`, its `wer`, `cer` and `accuracy`, those of the run on the
        same clips under `here`, `n_shared` (clips that are compared), `only_here`, `only_there` (ids of one file alone), `failed_here` and
        `failed_there` (shared ids that one or the other could not do).

    Raises:
        DataError: the file can't be used, shares no clip, or expects another text of a shared one.
    """
    file = find_predictions(baseline)
    theirs = {prediction.id: prediction for prediction in read_predictions(file)}
    ours = {prediction.id: prediction for prediction in predictions}
    shared = [id_ for id_ in ours if id_ in theirs]
    if not shared:
        raise DataError(f"{file}: shares no id with the run it is to be the baseline of: evaluate both on one manifest")
    different = [id_ for id_ in shared if ours[id_].reference.split() != theirs[id_].reference.split()]
    if different:
        of = f"{len(different)} of {len(shared)} shared clips, the first {different[0]!r}"
        raise DataError(f"{file}: expects another reference than the run for {of}: evaluate both on one manifest")
    done = [id_ for id_ in shared if ours[id_].error is None and theirs[id_].error is None]
    if not done:
        raise DataError(f"{file}: each clip that it shares with the run failed in one of the two: evaluate again")
    # What a row wants is the run's to say: another system's file need not name the task.
    there = [replace(theirs[id_], task=ours[id_].task, question=ours[id_].question) for id_ in done]
    return {
        "name": _model_name(file) or str(baseline),
        "path": str(baseline),
        **_rates(score_clips(there, normaliser)),
        "here": _rates(score_clips([ours[id_] for id_ in done], normaliser)),
        "n_shared": len(done),
        "only_here": len(ours) - len(shared),
        "only_there": len(theirs) - len(shared),
        "failed_here": sum(ours[id_].error is not None for id_ in shared),
        "failed_there": sum(theirs[id_].error is not None for id_ in shared),
    }


def check_deafness(clips: Sequence[ScoredClip], deafness: Path, normaliser: Normaliser) -> dict[str, Any]:
    """Hold a run against the same rows with other clips' audio and with silence.

    The rule is that of training: the model listens where a paired permutation test finds it better on true audio (p < 0.01) and its error rate
    on shuffled audio is higher.

    Args:
        clips: of the run, on their own audio.
        deafness: predictions rows with `heard`: `shuffled` or `silence`.
        normaliser: that of the clips.

    Returns:
        `conditions` (by what was heard: `wer`, `accuracy` and `nats_per_token`, each None where it is not known), `clips` (on which all are
        compared), `left_out` (clips of the file that are not), `measure` (of the test: `loss` or `errors`), `p_value`, `deaf`, and `why`: the
        reason where the last two are None.

    Raises:
        DataError: the file can't be used, or has none of the run's clips.
    """
    true = {clip.prediction.id: clip for clip in clips}
    heard = _read_heard(deafness, normaliser)
    compared = [id_ for id_ in true if all(id_ in rows for rows in heard.values())]
    if not compared:
        raise DataError(f"{deafness}: no clip of the run was done under {' and '.join(heard)}: remove it or evaluate with --deafness again")
    named = set().union(*heard.values())
    conditions = {name: [rows[id_] for id_ in compared] for name, rows in ({"true": true} | heard).items()}
    found: dict[str, Any] = {
        "conditions": {name: _condition(rows) for name, rows in conditions.items()},
        "clips": len(compared),
        "left_out": len(named) - len(compared),
    }
    return found | _verdict(conditions)


def _read_heard(path: Path, normaliser: Normaliser) -> dict[str, dict[str, ScoredClip]]:
    """By what was heard and by id: the clips that did not fail."""
    rows: dict[str, dict[str, Prediction]] = {}
    for number, row in read_rows(path):
        place = f"{path}:{number}"
        heard = row.pop("heard", None)
        if heard not in _HEARD:
            raise DataError(f'{place}: "heard" must be {" or ".join(_HEARD)}, not {heard!r}')
        prediction = parse_prediction(row, place)
        if prediction.id in rows.setdefault(heard, {}):
            raise DataError(f"{place}: id {prediction.id!r} was done with {heard} audio already: keep one row of each")
        rows[heard][prediction.id] = prediction
    return {
        heard: {id_: score_clip(prediction, normaliser) for id_, prediction in rows[heard].items() if prediction.error is None}
        for heard in _HEARD
        if heard in rows
    }


def _condition(clips: Sequence[ScoredClip]) -> dict[str, float | None]:
    rates = _rates(clips)
    nats = [clip.prediction.reference_nats for clip in clips if clip.nats_per_token is not None]
    n_tokens = sum(clip.prediction.reference_tokens or 0 for clip in clips if clip.nats_per_token is not None)
    return {
        "wer": rates["wer"]["rate"] if rates["wer"] else None,
        "accuracy": rates["accuracy"]["rate"] if rates["accuracy"] else None,
        "nats_per_token": sum(value for value in nats if value is not None) / n_tokens if n_tokens and len(nats) == len(clips) else None,
    }


def _verdict(conditions: Mapping[str, Sequence[ScoredClip]]) -> dict[str, Any]:
    if "shuffled" not in conditions:
        return {"measure": None, "p_value": None, "deaf": None, "why": "nothing was done with shuffled audio"}
    true, shuffled = conditions["true"], conditions["shuffled"]
    losses = [[clip.nats_per_token for clip in clips] for clips in (true, shuffled)]
    measure = "errors" if any(loss is None for row in losses for loss in row) else "loss"
    if len(true) < MIN_DEAFNESS_CLIPS:
        return {"measure": measure, "p_value": None, "deaf": None, "why": f"{len(true)} clips, and the test needs {MIN_DEAFNESS_CLIPS}"}
    values = losses if measure == "loss" else [[clip.error_rate for clip in clips] for clips in (true, shuffled)]
    before, after = ([float(value) for value in row if value is not None] for row in values)
    p_value = permutation_p_value(before, after)
    return {"measure": measure, "p_value": p_value, "deaf": p_value >= DEAF_P or not _worse(true, shuffled), "why": None}


def _worse(true: Sequence[ScoredClip], shuffled: Sequence[ScoredClip]) -> bool:
    """Whether shuffled audio leads to more errors, in transcripts and in answers where there are both."""
    errors = [[sum(clip.words.errors for clip in transcripts), sum(not clip.right for clip in answers)]
              for transcripts, answers in map(split_tasks, (true, shuffled))]  # fmt: skip
    asked = [bool(part) for part in split_tasks(true)]
    return all(there > here for here, there, present in zip(*errors, asked, strict=True) if present)


def _rates(clips: Sequence[ScoredClip]) -> dict[str, Any]:
    transcripts, answers = split_tasks(clips)
    return {"wer": word_rate(transcripts), "cer": word_rate(transcripts, "characters"), "accuracy": answer_rate(answers)}


def _model_name(file: Path) -> str | None:
    """The model that wrote a predictions file, where a run.json beside it tells."""
    try:
        name = json.loads((file.parent / RUN_NAME).read_text(encoding="utf-8"))["model"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None
