"""Rows that could be read when the run began and can't any more. One lost clip must not end a run of days, nor pass in silence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from audiograft.train.checkpoints import writing
from audiograft.types import DataError, Rejection

_KIND = "lost"


def lost_rows(path: Path) -> dict[str, bytes]:
    """The lines about lost rows in a file of rejected rows, by id; none where there is no file."""
    if not path.is_file():
        return {}
    found = {}
    with path.open("rb") as file:
        for line in file:
            # Half a line, of a run that was killed, is not kept.
            if line.endswith(b"\n") and (row := json.loads(line))["kind"] == _KIND:
                found[row["id"]] = line
    return found


class LostRows:
    """Names lost rows in rejected.jsonl, once each, and counts them.

    Args:
        path: of rejected.jsonl.
        limit: share of rows above which the run is given up.
    """

    def __init__(self, path: Path, limit: float) -> None:
        self._path = path
        self._limit = limit
        self._ids = set(lost_rows(path))

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, rows: Sequence[Rejection], n_rows: int) -> None:
        """Count rows of a batch.

        Args:
            rows: that were lost.
            n_rows: that the run has.

        Raises:
            DataError: they are too many by now.
        """
        new = {row.id: row for row in rows if row.id not in self._ids}
        self._ids |= new.keys()
        with writing(self._path, "the list of lost rows"), self._path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            for row in new.values():
                file.write(json.dumps(vars(row) | {"kind": _KIND}, ensure_ascii=False) + "\n")
        if new and len(self) > self._limit * n_rows:
            raise DataError(
                f"{next(iter(new.values())).reason}; {len(self)} of {n_rows} rows are lost, more than data.max_rejected {self._limit:g} allows: "
                "bring them back, and the same command goes on from the last checkpoint"
            )
