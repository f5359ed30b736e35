"""Fresh splits of the rows of a bench: no speaker and no recording is on two sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiograft.data.manifest import find_manifest, iterate_rows, row_to_sample, write_manifest
from audiograft.data.splits import RowKeys, assign, row_keys
from audiograft.types import DataError, Sample

GROUPS = ("speaker", "recording")
Row = dict[str, Any]
_TOGETHER = ""
"""Stands for all labels; no label is empty."""


def read_bench(manifests: Sequence[str], labels: Sequence[str], allow_outside: bool = False) -> list[Row]:
    """The rows of some manifests with clips that can be opened from anywhere.

    Args:
        manifests: files or folders.
        labels: that are learnt.
        allow_outside: also take clips that do not lie below the folder of their manifest.

    Raises:
        DataError: a row that is no detection, or without speaker and recording, or with an id that another has; a manifest that can't be read.
    """
    rows: dict[str, Row] = {}
    for path in map(find_manifest, manifests):
        for number, _, row in iterate_rows(path):
            place = f"{path}:{number}"
            sample = row_to_sample(row, number, path.parent, place, allow_outside)
            if fault := _fault(sample, labels):
                raise DataError(f"{place}: {fault}")
            if sample.id in rows:
                raise DataError(f"{place}: another row has the id {sample.id!r}: give each row its own, over all manifests")
            clips = [str(Path(clip).resolve()) for clip in sample.clips]
            rows[sample.id] = {**row, "id": sample.id, "audio": clips[0] if len(clips) == 1 else clips}
    return list(rows.values())


def _fault(sample: Sample, labels: Sequence[str]) -> str | None:
    """Why a row can't be split, learnt and tested."""
    if sample.label is None or sample.target is not None:
        return "what is repeated are detections: leave rows out that have no label, or a text or a response"
    if sample.label not in labels:
        return f"the label {sample.label!r} has no answer: add it to detection.answers"
    if not sample.speaker and not sample.recording:
        return "has neither speaker nor recording, so that no split could keep what belongs together on one side: name one of them"
    return None


def resplit(rows: Sequence[Row], shares: Mapping[str, float], seed: int, folder: Path) -> dict[str, Path]:
    """Write one split of the rows, a manifest a part.

    Args:
        rows: from `read_bench`.
        shares: of rows, by the name of the part, together 1.
        seed: another one gives another split.
        folder: where the manifests go; made where it is not there.

    Returns:
        The manifest of each part.

    Raises:
        DataError: the groups are too few, or leave a part without a label.
    """
    keys = [row_keys(row, [key for key in GROUPS if row.get(key)], "label") for row in rows]
    # Each label by itself, as long as no group has two: a few large groups of one would all go where most is to go.
    of_label = _by_label(keys)
    splits = {label: assign(own, shares, seed=seed) for label, own in of_label.items()}
    parts: dict[str, list[Row]] = {name: [] for name in shares}
    for row, own in zip(rows, keys, strict=True):
        name = splits[own.stratum if own.stratum in splits else _TOGETHER].of(own)
        parts[name].append({**row, "split": name})
    _check(parts, {own.stratum for own in keys}, seed)
    folder.mkdir(parents=True, exist_ok=True)
    manifests = {name: folder / f"{name}.jsonl" for name in parts}
    for name, path in manifests.items():
        write_manifest(path, parts[name])
    return manifests


def _by_label(keys: Sequence[RowKeys]) -> dict[str, list[RowKeys]]:
    """Rows by label where each group has but one; else all of them under one name."""
    labels: dict[tuple[str, str], str] = {}
    if any(labels.setdefault(group, own.stratum) != own.stratum for own in keys for group in own.groups):
        return {_TOGETHER: list(keys)}
    found: dict[str, list[RowKeys]] = {}
    for own in keys:
        found.setdefault(own.stratum, []).append(own)
    return found


def _check(parts: Mapping[str, Sequence[Row]], labels: Iterable[str], seed: int) -> None:
    for name, rows in parts.items():
        if missing := sorted(set(labels) - {row["label"] for row in rows}):
            raise DataError(f"split {seed}: its part {name} has no row with the label {missing[0]}: add speakers and recordings that have")
