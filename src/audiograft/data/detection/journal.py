"""The clips of a bench that are done: their rows and traces in one order, so that an interrupted run goes on behind the last."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from audiograft.data.examine import unwritable
from audiograft.data.folder import Folder
from audiograft.data.ledger import in_progress
from audiograft.data.traces import Trace, TraceWriter, read_traces, traces_path
from audiograft.types import DataError


class Journal:
    """Appends rows to the manifest of a bench in the making, as a context manager.

    Attributes:
        rows: that are written down, those of earlier runs too.

    Args:
        folder: of the bench, opened.

    Raises:
        DataError: files can't be read or written.
    """

    def __init__(self, folder: Folder) -> None:
        self._path, self._traces_path = in_progress(folder.whole), in_progress(folder.traces)
        self.rows = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                self._file: BinaryIO = stack.enter_context(self._path.open("a+b"))
                self._file.seek(0)
                whole = [line for line in self._file if line.endswith(b"\n")]
                self.rows = len(whole)
                self._file.truncate(sum(map(len, whole)))
            except OSError as error:
                raise unwritable(self._path, error) from error
            # Traces are written before their rows, so there are at least as many.
            self._traces = stack.enter_context(TraceWriter(self._traces_path, records=self.rows))
            self._stack = stack.pop_all()
        return self

    def append(self, block: Iterable[tuple[Mapping[str, Any], Trace]]) -> None:
        """Write some rows down; they are safe then from anything but a loss of power."""
        lines = []
        for row, trace in block:
            self._traces.append(trace)
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        self._traces.flush()
        try:
            self._file.write("".join(lines).encode(errors="backslashreplace"))
            self._file.flush()
        except OSError as error:
            raise unwritable(self._path, error) from error
        self.rows += len(lines)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stack.close()


def divide_rows(folder: Folder) -> dict[str, list[dict[str, Any]]]:
    """Write the manifest and the traces of each split from those of the whole; gives the rows of each.

    Raises:
        DataError: files can't be read or written.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in folder.manifests}
    with ExitStack() as stack:
        try:
            whole = stack.enter_context(in_progress(folder.whole).open("rb"))
            manifests = {name: stack.enter_context(in_progress(path).open("wb")) for name, path in folder.manifests.items()}
            traces = {name: stack.enter_context(TraceWriter(in_progress(traces_path(path)))) for name, path in folder.manifests.items()}
            for line, trace in zip(whole, read_traces(in_progress(folder.traces)), strict=True):
                row = json.loads(line)
                manifests[row["split"]].write(line)
                traces[row["split"]].append(trace)
                rows[row["split"]].append(row)
            for file in manifests.values():
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(folder.path, error) from error
        except ValueError as error:
            raise DataError(f"{folder.path}: what an earlier run left does not fit together: start anew with --overwrite") from error
    return rows


def write_rejections(path: Path, rejections: Sequence[Any]) -> None:
    """Write what can't be used, one JSON object a line.

    Raises:
        DataError: it can't be written.
    """
    try:
        path.write_text("".join(json.dumps(vars(rejection), ensure_ascii=False) + "\n" for rejection in rejections), "utf-8", "backslashreplace")
    except OSError as error:
        raise unwritable(path, error) from error
