"""An index that is kept on the disk, so that a run which is resumed decodes and tokenises nothing again; what changed since is looked at anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audiograft.data.manifest import row_at
from audiograft.train.index import ROW, ManifestFile, RowIndex, Rules, files_of, files_state
from audiograft.train.rows import Row, Wording
from audiograft.types import AudiograftError


def save_index(path: Path, index: RowIndex, key: str, n_rejected: int) -> None:
    """Keep an index in a file, whole or not at all.

    Raises:
        OSError: it can't be written.
    """
    staged = path.with_name(path.name + ".part")
    meta = np.frombuffer(json.dumps({"key": key, "rejected": n_rejected}).encode(), dtype=np.uint8)
    with staged.open("wb") as file:
        np.savez(file, rows=index.rows, clips=index.clips, meta=meta)
    staged.replace(path)


def load_index(path: Path, key: str, manifests: Sequence[ManifestFile], wording: Wording) -> tuple[RowIndex, int] | None:
    """An index that was kept, and how many rows were rejected; None where there is none, or that of other rows."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            meta = json.loads(stored["meta"].tobytes())
            if meta["key"] != key:
                return None
            return RowIndex(tuple(manifests), wording, stored["rows"], stored["clips"]), meta["rejected"]
    except (OSError, ValueError, KeyError, EOFError):
        return None


def index_key(manifests: Sequence[ManifestFile], settings: Any) -> str:
    """What an index depends on besides the clips: what is in the manifests, and settings that JSON can hold."""
    known = [[manifest.sha256, manifest.allow_outside] for manifest in manifests]
    return hashlib.sha256(json.dumps([known, settings, ROW.descr]).encode()).hexdigest()


def unchanged(index: RowIndex, rules: Rules, keep_lost: bool) -> RowIndex | None:
    """The index, after a look at the clips and pictures whose files are not as they were.

    Args:
        index: as it was kept.
        rules: what decided about its rows.
        keep_lost: rows whose clips or pictures can't be read any more stay in it, since the order of those around them must not change.

    Returns:
        None where it is not right any more: a clip sounds or a picture looks different, or one is lost and shall not be kept.
    """
    moved: dict[int, int] = {}
    for number, manifest in enumerate(index.manifests):
        with manifest.path.open("rb") as file:
            for at in map(int, np.flatnonzero(index.rows["manifest"] == number)):
                entry = index.rows[at]
                try:
                    sample = manifest.sample(int(entry["line"]), row_at(file, int(entry["offset"])))
                except AudiograftError:
                    return None
                files, _ = files_state(files_of(sample))
                if files == entry["files"]:
                    continue
                row = rules.check(sample)
                if isinstance(row, Row) and row.checksum == entry["checksum"]:
                    moved[at] = files
                elif isinstance(row, Row) or not keep_lost:
                    return None
    if not moved:
        return index
    rows = index.rows.copy()
    rows["files"][list(moved)] = list(moved.values())
    return replace(index, rows=rows)
