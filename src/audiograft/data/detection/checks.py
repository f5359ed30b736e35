"""What a bench is checked for before it gets its name: that splits share nobody, that the class is told by nothing trivial, that ratios are right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from audiograft.data.detection.grid import LABELS, Design
from audiograft.data.folder import Folder
from audiograft.data.leakage import compare
from audiograft.data.ledger import in_progress
from audiograft.data.traces import read_traces, traces_path
from audiograft.types import DataError

MIN_LEAK_CLIPS = 200
"""Of either split, below which an accuracy of 54 % is no surprise."""
_MAX_FITTED_CLIPS = 5_000
"""That the trivial classifiers are fitted on at most; more don't change what a small tree can see."""
_SNR_EDGES_DB = (0.0, 0.001, 0.01, 0.1, 1.0)
_FORBIDDEN = ("speakers", "recordings")

Rows = Sequence[Mapping[str, Any]]


def compare_splits(folder: Folder) -> dict[str, Any]:
    """What each two splits share, by the leakage gate.

    Raises:
        DataError: they share a speaker or a recording.
    """
    found = {}
    for larger, smaller in combinations(folder.manifests, 2):
        first, second = (read_traces(in_progress(traces_path(folder.manifests[name]))) for name in (larger, smaller))
        report = compare(first, second, larger)
        if shared := [kind for kind in _FORBIDDEN if kind in report.touches]:
            raise DataError(
                f"{folder.path}: {larger} and {smaller} share {report.count(shared[0])} {shared[0]}, such as row {report.first(shared[0])}: "
                "give each source a name of its own in `source`, or mend the names of its speakers and recordings"
            )
        found[f"{larger} and {smaller}"] = report.as_dict()
    return found


def check_cues(folder: Path, rows: Mapping[str, Rows], allow: bool) -> dict[str, Any]:
    """How well length, level and crest factor alone tell the class of test clips, to what learnt it on train or, without one, on dev.

    Args:
        folder: of the bench.
        rows: by split.
        allow: tell it, and refuse nothing.

    Returns:
        For JSON: `checked`, and what was found, or `why` not.

    Raises:
        LeakError: duration or level gives the class away, and it is not allowed to.
    """
    from audiograft.data.detection.leaks import LeakError, check_leaks

    fitted_on = "train" if rows.get("train") else "dev"
    train, test = (list(rows.get(name, ())) for name in (fitted_on, "test"))
    for name, part in ((fitted_on, train), ("test", test)):
        if len(part) < MIN_LEAK_CLIPS:
            return {"checked": False, "why": f"too few: {name} has {len(part)} clips, and {MIN_LEAK_CLIPS} are needed"}
    try:
        report = check_leaks(train[:_MAX_FITTED_CLIPS], test, folder)
    except LeakError as error:
        if allow:
            return {"checked": True, "leaky": True, "fitted_on": fitted_on, "why": str(error), **error.report.as_row()}
        raise LeakError(f"{error}; or keep it with --allow-leaks", error.report) from error
    return {"checked": True, "leaky": False, "fitted_on": fitted_on, **report.as_row()}


def describe(design: Design, rows: Mapping[str, Rows]) -> dict[str, Any]:
    """What a bench holds, for its card: clips by cell, conditions by class, kinds, levels, and how far ratios are from what was wanted."""
    every = [row for part in rows.values() for row in part]
    errors_db = np.array([abs(row["snr_db"] - row["target_snr_db"]) for row in every])
    return {
        "clips": {split: _grid(design, part) for split, part in rows.items()},
        "conditions": {key: _by_label(every, key) for key in ("noise", "band", "t60_s")},
        "kinds": {split: _count(row["kind"] for row in part if row["kind"] is not None) for split, part in rows.items()},
        "sources": _by_label(every, "source"),
        "level_db": {label: _spread([row["level_db"] for row in every if row["label"] == label]) for label in LABELS},
        "snr_error_db": {"mean": float(errors_db.mean()), "most": float(errors_db.max()), "clips_by_error": _histogram(errors_db)},
    }


def _grid(design: Design, rows: Rows) -> dict[str, dict[str, dict[str, int]]]:
    """Clips by class, duration and ratio."""
    counts = Counter((row["label"], row["duration_ms"], row["target_snr_db"]) for row in rows)
    return {
        label: {
            f"{duration_ms} ms": {f"{snr_db:g} dB": counts[label, duration_ms, snr_db] for snr_db in design.snrs_db}
            for duration_ms in design.durations_ms
        }
        for label in LABELS
    }


def _by_label(rows: Rows, key: str) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        found[str(row[key])][row["label"]] += 1
    return {value: {label: counts[label] for label in LABELS} for value, counts in sorted(found.items())}


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return {"mean": round(float(np.mean(values)), 2), "5%": round(low, 2), "50%": round(middle, 2), "95%": round(high, 2)}


def _histogram(errors_db: np.typing.NDArray[np.float64]) -> dict[str, int]:
    counts, _ = np.histogram(errors_db, [*_SNR_EDGES_DB, np.inf])
    names = [*(f"below {edge:g} dB" for edge in _SNR_EDGES_DB[1:]), f"{_SNR_EDGES_DB[-1]:g} dB and more"]
    return dict(zip(names, counts.tolist(), strict=True))
