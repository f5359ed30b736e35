"""What the rows of a retention run say: whether a model still answers as the one before grafting did. Opens no model: it reads the predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from audiograft.data.manifest import read_rows
from audiograft.evaluate.clips import MAX_IDS, as_dict
from audiograft.evaluate.predictions import find_predictions
from audiograft.metrics.answers import exact_match
from audiograft.metrics.divergence import mean_divergence
from audiograft.metrics.intervals import cluster_share
from audiograft.metrics.paired import mcnemar, paired_difference
from audiograft.metrics.word_errors import ErrorCounts
from audiograft.types import DataError

KINDS = ("text", "image", "video")
"""Of rows, by what is to be seen in them: one with a video is of that kind, whether it has an image or not."""
UNIT = "picture"
"""What is drawn by the bootstraps: several questions about one picture are not independent. A row of text alone is one by itself."""
_CONFIDENCE = 0.95
_RIGHT, _WRONG = ErrorCounts(hits=1), ErrorCounts(substitutions=1)
Row = Mapping[str, Any]


def retention_figures(path: str | Path, slice_by: Sequence[str] = ()) -> dict[str, Any]:
    """Compute every figure of a retention run from its predictions.

    Args:
        path: the run folder, or its predictions file.
        slice_by: keys of the rows by whose values the figures are told too.

    Returns:
        For JSON: `all`, `kinds` (by kind) and `slices` (by key and value) with the figures of `_figures`; `failed`; and `prompts_differ`, how many
        rows the two models' own processors write differently, with the first ids.

    Raises:
        DataError: the file can't be read or is no retention run's, every row of it failed, or no row has a key of `slice_by`.
    """
    file = find_predictions(path)
    read = [row for _, row in read_rows(file)]
    failed = [{"id": row["id"], "error": row["error"]} for row in read if row.get("error") is not None]
    rows = [row for row in read if row.get("error") is None]
    if not rows:
        raise DataError(f"{file}: every row failed, the first one with: {failed[0]['error']}")
    if missing := [key for key in ("base_hypothesis", "kl", "top1", "equal", "same_prompt", "kind") if any(key not in row for row in rows)]:
        raise DataError(f'{file}: a row has no "{missing[0]}": audiograft evaluate --retention BASE writes such files')
    if unknown := [key for key in slice_by if all(row.get(key) is None for row in rows)]:
        raise DataError(f"{file}: no row has the key {unknown[0]!r}: take it out of --slice-by, or correct it")
    differing = [row["id"] for row in rows if not row["same_prompt"]]
    return {
        "all": _figures(rows),
        "kinds": {kind: _figures(own) for kind, own in _by(rows, "kind").items()},
        "slices": {key: {value: _figures(own) for value, own in _by(rows, key).items()} for key in slice_by},
        "failed": failed,
        "prompts_differ": {"rows": len(differing), "ids": differing[:MAX_IDS]},
    }


def _by(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    """Rows by a value that they state, kinds in their order and all others sorted."""
    values = {str(row[key]) for row in rows if row.get(key) is not None}
    order = [kind for kind in KINDS if kind in values] if key == "kind" else sorted(values)
    return {value: [row for row in rows if row.get(key) is not None and str(row[key]) == value] for value in order}


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Of some rows: how many, of how many tokens; `accuracy` before and after with its difference; agreement; divergence; what is equal.

    Agreement and divergence are of the next-token distributions at each token of the reference and its end of turn, behind the true ones before it.
    """
    # A file name and an id are never the same cluster.
    pictures = [_picture(row) for row in rows]
    of_tokens = [f"picture {picture}" if picture else f"row {row['id']}" for row, picture in zip(rows, pictures, strict=True) for _ in row["kl"]]
    tokens = [len(row["kl"]) for row in rows]
    sums = [math.fsum(row["kl"]) for row in rows]
    before, after = ([exact_match(row["reference"], row[key]) for row in rows] for key in ("base_hypothesis", "hypothesis"))
    worst = max(rows, key=lambda row: max(row["kl"]))
    return {
        "rows": len(rows),
        "tokens": sum(tokens),
        "accuracy": {"base": _share(before, pictures), "model": _share(after, pictures), **_difference(before, after, pictures)},
        "same_answers": _share([row["hypothesis"] == row["base_hypothesis"] for row in rows], pictures),
        "top1": _share([agrees for row in rows for agrees in row["top1"]], of_tokens),
        "kl": {
            "mean": math.fsum(sums) / sum(tokens),
            "interval": as_dict(mean_divergence(sums, tokens, pictures, UNIT, _CONFIDENCE)),
            "largest": max(worst["kl"]),
            "largest_in": worst["id"],
        },
        "bit_equal": sum(is_equal(row) for row in rows),
    }


def is_equal(row: Row) -> bool:
    """Whether all logits are the same numbers, and would be in use: with another prompt they would not."""
    return bool(row["equal"] and row["same_prompt"])


def _picture(row: Row) -> str | None:
    seen = [*row.get("images", ()), *row.get("videos", ())]
    return " ".join(seen) or None


def _share(found: Sequence[bool], clusters: Sequence[str | None]) -> dict[str, Any]:
    """A share with its interval: Wilson's where each is of its own picture."""
    return {
        "rate": sum(found) / len(found),
        "count": sum(found),
        "of": len(found),
        "interval": as_dict(cluster_share(found, clusters, confidence=_CONFIDENCE, unit=UNIT)),
    }


def _difference(before: Sequence[bool], after: Sequence[bool], clusters: Sequence[str | None]) -> dict[str, Any]:
    """Accuracy after less that before, with a paired interval; and McNemar's exact test, which takes rows for independent."""
    test = mcnemar(before, after, _CONFIDENCE)
    counts = [[_RIGHT if right else _WRONG for right in rights] for rights in (before, after)]
    interval = as_dict(paired_difference(counts[0], counts[1], clusters, confidence=_CONFIDENCE).interval)
    # Of accuracies, which are error rates turned round.
    interval |= {end: None if (value := interval[other]) is None else -value + 0.0 for end, other in (("low", "high"), ("high", "low"))}
    if not test.only_a + test.only_b:
        # From 0 to 0 would claim that no row ever differs.
        most = 100 * (1 - (1 - _CONFIDENCE) ** (1 / len(before)))
        warning = f"no row of {len(before):,} is right by one model alone, so there is no interval: up to {most:.1f} points by the rule of three"
        interval |= {"low": None, "high": None, "method": "none", "warning": warning}
    return {"difference": (sum(after) - sum(before)) / len(before), "interval": interval, "mcnemar": asdict(test)}
