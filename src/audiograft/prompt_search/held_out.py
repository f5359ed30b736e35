"""The test of the end: the winner, and beside it the prompt that the search began with, measured once on clips that chose nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audiograft.evaluate.folder import write_json
from audiograft.evaluate.predictions import Prediction, find_predictions, read_predictions
from audiograft.evaluate.run import evaluate
from audiograft.inference.choices import ClosedQuestion
from audiograft.metrics.bootstrap import Array, Statistic, bootstrap
from audiograft.metrics.detection import score_detection
from audiograft.metrics.intervals import make_interval
from audiograft.metrics.paired import mcnemar
from audiograft.prompt_search.clips import LabelledClips
from audiograft.types import DataError

if TYPE_CHECKING:
    from audiograft.inference.engine import Engine

TEST_NAME = "test.json"
"""The lock: written before the first clip is heard, filled in when all are."""
_FOLDER = "test"
START, WINNER = "start", "winner"


def check_lock(out: Path, test: LabelledClips) -> dict[str, Any] | None:
    """What was measured before; None where nothing was.

    Args:
        out: folder of the search.
        test: clips that are to be heard.

    Raises:
        DataError: the winner was measured on other clips, or the record can't be read.
    """
    file = out / TEST_NAME
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        manifest, sha256, measured = found["manifest"], found["sha256"], found["measured"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: can't be read: restore it, or search again with another --out") from error
    if sha256 != test.sha256:
        raise DataError(f"{file}: the winner was measured on {manifest} already, and is measured once: for more use `audiograft evaluate`")
    return found if measured else None


def measure_once(
    out: Path,
    test: LabelledClips,
    start: ClosedQuestion,
    winner: str,
    engine: Callable[[], Engine],
    batch_size: int = 64,
    allow_outside: bool = False,
) -> dict[str, Any]:
    """Evaluate both prompts on the test clips, or return what was measured before.

    Both are run folders of `evaluate`, `test/start` and `test/winner`, and every figure comes from their predictions. The likeliest answer counts.

    Args:
        out: folder of the search.
        test: the clips.
        start: the question that the search began with.
        winner: the best prompt on dev.
        engine: gives the model.
        batch_size: clips in one prefill.
        allow_outside: also take clips that do not lie below the manifest's folder.

    Returns:
        `manifest`, `sha256`, `prompts`, `measured` (when), and `figures` of `compare_prompts`.

    Raises:
        DataError: as `check_lock`; or no clip can be read.
    """
    if (found := check_lock(out, test)) is not None:
        return found
    prompts = {START: start.prompt, WINNER: winner}
    lock: dict[str, Any] = {"manifest": str(test.manifest.resolve()), "sha256": test.sha256, "prompts": prompts, "measured": None}
    write_json(out / TEST_NAME, lock)
    runs: dict[str, list[Prediction]] = {}
    for name, prompt in prompts.items():
        if name == WINNER and prompt == start.prompt:
            runs[name] = runs[START]
            continue
        folder = out / _FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        unfitted(start, prompt).write(folder)
        evaluate(
            engine(),
            test.manifest,
            folder,
            question=folder,
            batch_size=batch_size,
            deafness_clips=0,
            allow_outside=allow_outside,
        )
        runs[name] = read_predictions(find_predictions(folder))
    lock |= {"measured": datetime.now(UTC).isoformat(timespec="seconds"), "figures": compare_prompts(runs[START], runs[WINNER], start.labels)}
    write_json(out / TEST_NAME, lock)
    return lock


def doubt(test: Mapping[str, Any] | None) -> str | None:
    """In words, why the winner should not take the first prompt's place; None where it is shown to be better, or nothing was measured.

    Args:
        test: what `measure_once` returned.
    """
    if test is None:
        return None
    if test["prompts"][WINNER] == test["prompts"][START]:
        return "no prompt was better on dev: keep the old prompt"
    difference = test["figures"]["difference"]
    low = difference["interval"]["low"]
    if difference["balanced_accuracy"] < 0:
        return "the best prompt of dev is worse on test: keep the old prompt"
    if low is None or low <= 0:
        why = "their difference has no interval" if low is None else "the interval of the difference holds zero"
        return f"the best prompt of dev is not shown to be better on test ({why}): keep the old prompt"
    return None


def unfitted(question: ClosedQuestion, prompt: str) -> ClosedQuestion:
    """The question with another prompt. Temperature and threshold were fitted to the old one, and go."""
    return replace(question, prompt=prompt, temperature=1.0, threshold=0.5, chosen_on=None)


def compare_prompts(start: Sequence[Prediction], winner: Sequence[Prediction], labels: Sequence[str]) -> dict[str, Any]:
    """Figures of two prompts on the same clips, for JSON.

    Args:
        start: predictions of the first prompt.
        winner: of the second, in the same order.
        labels: of the question.

    Returns:
        `clips`, `failed` (clips that can't be read, and are left out), `start` and `winner` (accuracy with Wilson's interval, balanced accuracy with
        one clustered by recording), `difference` of the balanced accuracies, winner less start, with a paired interval and p-value by a bootstrap
        that draws recordings, and `mcnemar`: exact.
    """
    pairs = [(a, b) for a, b in zip(start, winner, strict=True) if a.error is None and b.error is None]
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    truths = [prediction.reference for prediction in before]
    clusters = [prediction.recording or prediction.speaker for prediction in before]
    rights = [[prediction.hypothesis == prediction.reference for prediction in side] for side in (before, after)]
    test = mcnemar(rights[0], rights[1])
    return {
        "clips": len(pairs),
        "failed": len(start) - len(pairs),
        START: _figures(before, labels, clusters),
        WINNER: _figures(after, labels, clusters),
        "difference": _difference(np.array(rights, dtype=float), np.array(truths), clusters),
        "mcnemar": {"only_start": test.only_a, "only_winner": test.only_b, "p_value": test.p_value},
    }


def _figures(predictions: Sequence[Prediction], labels: Sequence[str], clusters: Sequence[str | None]) -> dict[str, Any]:
    scores = score_detection([row.reference for row in predictions], [row.hypothesis for row in predictions], labels, clusters=clusters)
    assert scores.accuracy.wilson is not None
    assert scores.balanced_accuracy_interval is not None
    return {
        "accuracy": scores.accuracy.rate,
        "wilson": {"low": scores.accuracy.wilson.low, "high": scores.accuracy.wilson.high},
        "balanced_accuracy": scores.balanced_accuracy,
        "interval": asdict(scores.balanced_accuracy_interval),
    }


def _difference(rights: Array, truths: Array, clusters: Sequence[str | None]) -> dict[str, Any]:
    """Of two balanced accuracies on the same clips: `rights` (2, clips) and the clips' labels (clips,)."""
    members = np.column_stack([truths == label for label in np.unique(truths)]).astype(float)
    n_classes = members.shape[1]
    sums = np.hstack([members * (rights[1] - rights[0])[:, None], members])

    def value(sums: Array) -> Array:
        mean: Array = (sums[..., :n_classes] / sums[..., n_classes:]).mean(axis=-1)
        return mean

    def gradient(sums: Array) -> Array:
        more, sizes = sums[..., :n_classes], sums[..., n_classes:]
        slopes: Array = np.concatenate([1 / sizes, -more / sizes**2], axis=-1) / n_classes
        return slopes

    drawn = bootstrap(sums, clusters, np.ones(len(truths)), Statistic(value, gradient))
    interval = make_interval(drawn, 0.95, clusters, np.asarray)
    if not drawn.error and not drawn.value:
        interval = replace(interval, low=0.0, high=0.0)
    return {"balanced_accuracy": drawn.value, "interval": asdict(interval), "p_value": drawn.p_value()}
