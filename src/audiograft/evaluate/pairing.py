"""Several runs over the same clips, brought together clip by clip; what does not match is refused or counted, never dropped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from audiograft.evaluate.clips import ScoredClip, score_clip, split_tasks
from audiograft.evaluate.folder import METRICS_NAME, RUN_NAME
from audiograft.evaluate.predictions import PREDICTIONS_NAME, Prediction, Task, find_predictions, read_predictions
from audiograft.metrics.normalisers import Normaliser
from audiograft.types import DataError

_SHOWN_CHARACTERS = 60
_FIRST: tuple[Task, ...] = ("detection", "answer")


@dataclass(frozen=True)
class Run:
    """One predictions file with what lies beside it.

    Attributes:
        name: the run folder's or file's, made longer where several are alike.
        file: of the predictions.
        predictions: by id, in the order of the file.
        settings: run.json; empty where there is none.
        metrics: metrics.json; empty where there is none.
    """

    name: str
    file: Path
    predictions: dict[str, Prediction]
    settings: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def failed(self) -> list[str]:
        """Ids of the clips without a hypothesis."""
        return [prediction.id for prediction in self.predictions.values() if prediction.error is not None]


@dataclass(frozen=True)
class Paired:
    """The clips that all runs did.

    Attributes:
        runs: the base first.
        transcripts: of each run, in the same order of clips.
        answers: of each run, in the same order of clips; or detections, which are right or wrong as answers are.
        not_shared: how many ids not all runs have.
        failed: ids that all runs have and at least one failed on; they are in no figure.
    """

    runs: list[Run]
    transcripts: list[list[ScoredClip]]
    answers: list[list[ScoredClip]]
    not_shared: int
    failed: list[str]


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read run folders or predictions files.

    Raises:
        DataError: one of them can't be used.
    """
    files = [find_predictions(path) for path in paths]
    return [
        Run(name, file, {row.id: row for row in read_predictions(file)}, _read_object(file, RUN_NAME), _read_object(file, METRICS_NAME))
        for name, file in zip(_names(files), files, strict=True)
    ]


def pair_runs(runs: Sequence[Run], normaliser: Normaliser, common: bool = False) -> Paired:
    """Bring runs together clip by clip.

    A row is an answer, or a detection, where any run says so: another system's file need not name the task. The speaker is that of the first run
    that names one, and so is the recording.

    Args:
        runs: the base first.
        normaliser: of both texts. References need be equal only behind it.
        common: take the clips that all have, where they do not have the same.

    Raises:
        DataError: ids that not all have, without `common`; a clip with two references; or no clip that all did.
    """
    shared = shared_ids(runs, common)
    failed = dict.fromkeys(id_ for id_ in shared if any(run.predictions[id_].error is not None for run in runs))
    done = [id_ for id_ in shared if id_ not in failed]
    if not done:
        raise DataError(f"{runs[0].file}: each of the {len(shared)} clips failed in one of the runs, so nothing can be compared: evaluate again")
    scored: list[list[ScoredClip]] = [[] for _ in runs]
    for id_ in done:
        for clips, clip in zip(scored, _score(runs, id_, normaliser), strict=True):
            clips.append(clip)
    tasks = [split_tasks(clips) for clips in scored]
    n_ids = len(set().union(*(run.predictions for run in runs)))
    return Paired(list(runs), [transcripts for transcripts, _ in tasks], [answers for _, answers in tasks], n_ids - len(shared), list(failed))


def _score(runs: Sequence[Run], id_: str, normaliser: Normaliser) -> list[ScoredClip]:
    rows = [run.predictions[id_] for run in runs]
    first = normaliser.apply(rows[0].reference)
    for run, row in zip(runs, rows, strict=True):
        if normaliser.apply(row.reference) != first:
            texts = f"{_cut(row.reference)}, and {runs[0].file} {_cut(rows[0].reference)}"
            raise DataError(f"{run.file}: id {id_!r} expects {texts}: compare runs of one manifest")
    tasks = {row.task for row in rows}
    task: Task = next((task for task in _FIRST if task in tasks), "transcript")
    speaker = next((row.speaker for row in rows if row.speaker is not None), None)
    recording = next((row.recording for row in rows if row.recording is not None), None)
    return [score_clip(replace(row, task=task, speaker=speaker, recording=recording), normaliser) for row in rows]


def shared_ids(runs: Sequence[Run], common: bool) -> list[str]:
    """Ids that all have, in the order of the base.

    Raises:
        DataError: ids that not all have, without `common`; or none that all have.
    """
    base, *others = runs
    shared = [id_ for id_ in base.predictions if all(id_ in run.predictions for run in others)]
    for run in others:
        missing = [id_ for id_ in base.predictions if id_ not in run.predictions]
        more = [id_ for id_ in run.predictions if id_ not in base.predictions]
        if (missing or more) and not common:
            parts = [f"lacks {_count(missing)} of {base.file}"] if missing else []
            parts += [f"has {_count(more)} that {base.file} lacks"] if more else []
            mend = f"--common compares the {len(shared)} that all have" if shared else "evaluate on one manifest"
            raise DataError(f"{run.file}: {' and '.join(parts)}: {mend}")
    if not shared:
        raise DataError(f"{base.file}: shares no id with all other runs: evaluate on one manifest")
    return shared


def _count(ids: Sequence[str]) -> str:
    return f"{len(ids)} {'id' if len(ids) == 1 else 'ids'} ({'' if len(ids) == 1 else 'the first '}{ids[0]!r})"


def _cut(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")


def _names(files: Sequence[Path]) -> list[str]:
    """As short as tells them apart: the run folder, or the file; whole paths where those are alike."""
    whole = [file.resolve() for file in files]
    short = [path.parent.name if path.name == PREDICTIONS_NAME else path.stem for path in whole]
    holders = {name: {path for path, other in zip(whole, short, strict=True) if other == name} for name in short}
    named = [name if len(holders[name]) == 1 else str(file) for name, file in zip(short, files, strict=True)]
    # One file given twice is told apart by its place.
    return [f"{name} ({place})" if named.count(name) > 1 else name for place, name in enumerate(named, 1)]


def _read_object(file: Path, name: str) -> dict[str, Any]:
    """What lies beside a run's predictions; a predictions file of another name, or from elsewhere, has none."""
    path = file.with_name(name)
    if file.name != PREDICTIONS_NAME or not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read ({error}): repeat the evaluation, or move the predictions elsewhere") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds no JSON object: repeat the evaluation, or move the predictions elsewhere")
    return found
