"""What a figure is held against: a second system on the same clips, and the same model on other clips' audio, on silence and on other pictures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audiograft.data.manifest import read_rows
from audiograft.evaluate.clips import ScoredClip, answer_rate, score_clip, split_tasks, word_rate
from audiograft.evaluate.pairing import pair_runs, read_runs
from audiograft.evaluate.predictions import Prediction, parse_prediction
from audiograft.metrics.normalisers import Normaliser
from audiograft.metrics.permutation import permutation_p_value
from audiograft.train.recipe import DEAF_P, MIN_DEAFNESS_CLIPS
from audiograft.types import WINDOW_S, DataError


@dataclass(frozen=True)
class _Control:
    """How a model is tried with something else than what belongs to a row.

    Attributes:
        key: of the rows, that names the condition.
        conditions: its values.
        what: is exchanged.
        unit: what a row is called.
        verdict: the key for a model that does not mind.
    """

    key: str
    conditions: tuple[str, ...]
    what: str
    unit: str
    verdict: str


_DEAFNESS = _Control("heard", ("shuffled", "silence"), "audio", "clip", "deaf")
_BLINDNESS = _Control("seen", ("shuffled",), "pictures", "row", "blind")
_DRAW_SEED = 0


def compare_baseline(predictions: Path, baseline: Path, normaliser: Normaliser) -> dict[str, Any]:
    """Score a second predictions file, and the first one again, on the clips that both did.

    Args:
        predictions: the run's own file.
        baseline: the second file, or its run folder.
        normaliser: for both.

    Returns:
        `name` (the baseline's model, where a run.json says it, else its path), `path`, its `wer`, `cer` and `accuracy`, those of the run on the
        same clips under `here`, `n_shared` (clips that are compared), `only_here` and `only_there` (clips of one file alone), `failed_here` and
        `failed_there` (shared clips that one or the other could not do).

    Raises:
        DataError: the file can't be used, shares no clip, or expects another text of a shared one.
    """
    ours, theirs = read_runs([predictions, baseline])
    paired = pair_runs([ours, theirs], normaliser, common=True)
    here, there = (
        {"wer": word_rate(transcripts), "cer": word_rate(transcripts, "characters"), "accuracy": answer_rate(answers)}
        for transcripts, answers in zip(paired.transcripts, paired.answers, strict=True)
    )
    n_shared = len(paired.transcripts[0]) + len(paired.answers[0])
    n_both = n_shared + len(paired.failed)
    failed_here, failed_there = (sum(run.predictions[id_].error is not None for id_ in paired.failed) for run in (ours, theirs))
    return {
        "name": str(theirs.settings.get("model", baseline)),
        "path": str(baseline.resolve()),
        **there,
        "here": here,
        "n_shared": n_shared,
        "only_here": len(ours.predictions) - n_both,
        "only_there": len(theirs.predictions) - n_both,
        "failed_here": failed_here,
        "failed_there": failed_there,
    }


def draw_deafness_rows(predictions: Sequence[Prediction], candidates: Collection[str], count: int) -> list[str]:
    """Ids of rows for the deafness table, or that of pictures, by a fixed seed, in their order.

    Only rows that were done, have no clips of more than one window, and a loss to compare: of a stock Whisper none has.

    Args:
        predictions: of the run.
        candidates: ids of rows that have clips; of those with pictures for theirs.
        count: how many, at most.
    """
    usable = [
        row.id
        for row in predictions
        if row.error is None and row.reference_nats is not None and (row.duration_s or 0) <= WINDOW_S and row.id in candidates
    ]
    drawn = np.random.default_rng(_DRAW_SEED).permutation(len(usable))[:count]
    return [usable[index] for index in sorted(drawn)]


def deafness_ids(deafness: Path) -> set[str]:
    """Ids of the rows that a file of such a table has; none where there is no such file."""
    return {str(row.get("id")) for _, row in read_rows(deafness)} if deafness.is_file() else set()


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
    return _hold_against(clips, deafness, normaliser, _DEAFNESS)


def check_blindness(clips: Sequence[ScoredClip], blindness: Path, normaliser: Normaliser) -> dict[str, Any]:
    """Hold a run against the same rows with the pictures of others, by the rule of `check_deafness`.

    Args:
        clips: of the run, on their own pictures.
        blindness: predictions rows with `seen`: `shuffled`.
        normaliser: that of the clips.

    Returns:
        As `check_deafness`, with `blind` in place of `deaf`.

    Raises:
        DataError: the file can't be used, or has none of the run's rows.
    """
    return _hold_against(clips, blindness, normaliser, _BLINDNESS)


def _hold_against(clips: Sequence[ScoredClip], file: Path, normaliser: Normaliser, control: _Control) -> dict[str, Any]:
    true = {clip.prediction.id: clip for clip in clips}
    changed = _read_changed(file, normaliser, control)
    compared = [id_ for id_ in true if all(id_ in rows for rows in changed.values())]
    if not compared:
        raise DataError(f"{file}: no {control.unit} of the run was done under {' and '.join(changed)}: remove it and evaluate again")
    named = set().union(*changed.values())
    conditions = {name: [rows[id_] for id_ in compared] for name, rows in ({"true": true} | changed).items()}
    found: dict[str, Any] = {
        "conditions": {name: _condition(rows) for name, rows in conditions.items()},
        "clips": len(compared),
        "left_out": len(named) - len(compared),
    }
    return found | _verdict(conditions, control)


def _read_changed(path: Path, normaliser: Normaliser, control: _Control) -> dict[str, dict[str, ScoredClip]]:
    """By condition and by id: the clips that did not fail."""
    rows: dict[str, dict[str, Prediction]] = {}
    for number, row in read_rows(path):
        place = f"{path}:{number}"
        given = row.pop(control.key, None)
        if given not in control.conditions:
            raise DataError(f'{place}: "{control.key}" must be {" or ".join(control.conditions)}, not {given!r}')
        prediction = parse_prediction(row, place)
        if prediction.id in rows.setdefault(given, {}):
            raise DataError(f"{place}: id {prediction.id!r} was done with {given} {control.what} already: keep one row of each")
        rows[given][prediction.id] = prediction
    return {
        given: {id_: score_clip(prediction, normaliser) for id_, prediction in rows[given].items() if prediction.error is None}
        for given in control.conditions
        if given in rows
    }


def _condition(clips: Sequence[ScoredClip]) -> dict[str, float | None]:
    transcripts, answers = split_tasks(clips)
    wer, accuracy = word_rate(transcripts, with_interval=False), answer_rate(answers)
    nats = [clip.prediction.reference_nats for clip in clips if clip.nats_per_token is not None]
    n_tokens = sum(clip.prediction.reference_tokens or 0 for clip in clips if clip.nats_per_token is not None)
    return {
        "wer": wer["rate"] if wer else None,
        "accuracy": accuracy["rate"] if accuracy else None,
        "nats_per_token": sum(value for value in nats if value is not None) / n_tokens if n_tokens and len(nats) == len(clips) else None,
    }


def _verdict(conditions: Mapping[str, Sequence[ScoredClip]], control: _Control) -> dict[str, Any]:
    if "shuffled" not in conditions:
        return {"measure": None, "p_value": None, control.verdict: None, "why": f"nothing was done with shuffled {control.what}"}
    true, shuffled = conditions["true"], conditions["shuffled"]
    losses = [[clip.nats_per_token for clip in clips] for clips in (true, shuffled)]
    measure = "errors" if any(loss is None for row in losses for loss in row) else "loss"
    if len(true) < MIN_DEAFNESS_CLIPS:
        why = f"{len(true)} {control.unit}{'' if len(true) == 1 else 's'}, and the test needs {MIN_DEAFNESS_CLIPS}"
        return {"measure": measure, "p_value": None, control.verdict: None, "why": why}
    values = losses if measure == "loss" else [[clip.error_rate for clip in clips] for clips in (true, shuffled)]
    before, after = ([float(value) for value in row if value is not None] for row in values)
    p_value = permutation_p_value(before, after)
    return {"measure": measure, "p_value": p_value, control.verdict: p_value >= DEAF_P or not _worse(true, shuffled), "why": None}


def _worse(true: Sequence[ScoredClip], shuffled: Sequence[ScoredClip]) -> bool:
    """Whether what is shuffled leads to more errors, in transcripts and in answers where there are both."""
    errors = [[sum(clip.words.errors for clip in transcripts), sum(not clip.right for clip in answers)]
              for transcripts, answers in map(split_tasks, (true, shuffled))]  # fmt: skip
    asked = [bool(part) for part in split_tasks(true)]
    return all(there > here for here, there, present in zip(*errors, asked, strict=True) if present)
