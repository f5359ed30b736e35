"""The books of a preparation: one line for each row read, in the manifest or among the rejected, appended in the order of the source.

So the number of lines is the place to go on from after an interruption, whatever ended the run.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from audiograft.data.clips import row_number
from audiograft.data.examine import Kept, Rejected, unwritable
from audiograft.data.filters import TextRepeats
from audiograft.data.manifest import MANIFEST_KEYS
from audiograft.data.traces import TraceWriter
from audiograft.types import TRANSCRIBE_PROMPT, DataError, Rejection, Sample

PART = ".part"
"""Ends the names of files that are not whole yet."""


class Ledger:
    """Appends rows to the files of a corpus in the making, as a context manager; goes on where they end.

    Attributes:
        kept: rows in the manifest.
        rejected: rows rejected, by kind.
        examples: the first reason of each kind.
        duration_s: of the rows kept.
        last: id of the last row that earlier runs wrote down, and its text where it was kept; None where they wrote none.

    Args:
        manifest: its final path; it is written with `.part` behind it.
        rejected: of the rejected rows, likewise.
        traces: likewise.
        skipped: rows of the source before the first; rejected rows are numbered behind them.
        max_repeats: of `Filters`.

    Raises:
        DataError: the files can't be written, or are not what this wrote.
    """

    def __init__(self, manifest: Path, rejected: Path, traces: Path, skipped: int, max_repeats: int | None) -> None:
        self._manifest_path, self._rejected_path = in_progress(manifest), in_progress(rejected)
        self._traces_path = in_progress(traces)
        self._skipped = skipped
        self._repeats = None if max_repeats is None else TextRepeats(max_repeats)
        # A data base of SQLite's own, which it keeps on disk as it grows, so that memory doesn't grow with the corpus.
        self._ids = sqlite3.connect("")
        self._ids.execute("create table ids (id blob primary key) without rowid")
        self.kept = 0
        self.rejected: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.duration_s = 0.0
        self.last: tuple[str, str | None] | None = None

    @property
    def rows(self) -> int:
        """Rows read."""
        return self.kept + self.rejected.total()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._ids.close)
            self._rejected_file = _opened(self._rejected_path, stack)
            self._manifest_file = _opened(self._manifest_path, stack)
            self._recover()
            # The trace of a row is written before its line, so there are at least as many.
            self._traces = stack.enter_context(TraceWriter(self._traces_path, records=self.kept))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, traceback)

    def _recover(self) -> None:
        """Count what earlier runs wrote."""
        last, rejected = 0, None
        for row in _whole_rows(self._manifest_file, self._manifest_path):
            if self._repeats is not None:
                self._repeats.reject(Sample(row["id"], text=row.get("text")))
            self.last = row["id"], row.get("text")
            self._count_kept(row["id"], row.get("duration_s", 0.0))
            if found := row.get("audio"):
                last = row_number(found if isinstance(found, str) else found[0])
        for row in _whole_rows(self._rejected_file, self._rejected_path):
            self._count_rejected(row["kind"], row["reason"])
            last = max(last, row["row"])
            rejected = row
        if rejected is not None and rejected["row"] == self._skipped + self.rows:
            self.last = rejected["id"], None
        if last > self._skipped + self.rows:
            folder = self._manifest_path.parent
            raise DataError(f"{folder}: lines are missing from its .part files, as after a power failure: start anew with --overwrite")

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        """The ids of the rows kept. What SQLite holds of them on disk lies with other temporary files, perhaps on another disk."""
        try:
            yield self._ids
        except sqlite3.Error as error:
            mend = "free space there or set TMPDIR, then run the same command again, and it goes on from here"
            raise DataError(f"{tempfile.gettempdir()}: the ids of the rows can't be held there ({error}): {mend}") from error

    def append(self, outcome: Kept | Rejected, out: Path) -> Rejection | None:
        """Write a row down; why it was rejected, or None.

        Args:
            outcome: of its examination. A row whose id or text was seen too often is rejected here, and its clips and pictures are removed.
            out: the folder of the corpus.
        """
        if isinstance(outcome, Kept) and (verdict := self._verdict(outcome.sample)) is not None:
            sample = outcome.sample
            for clip in (*sample.clips, *sample.images, *sample.videos):
                (out / clip).unlink(missing_ok=True)
            kind, reason = verdict
            outcome = Rejected(Rejection(sample.id, outcome.given or sample.id, reason, kind), sample.target)
        if isinstance(outcome, Rejected):
            self._reject(outcome)
            return outcome.rejection
        sample = outcome.sample
        self._traces.append(outcome.trace)
        self._traces.flush()
        _append(self._manifest_file, manifest_row(sample), self._manifest_path)
        self._count_kept(sample.id, sample.duration_s or 0.0)
        return None

    def make_durable(self) -> None:
        """Wait until all that was written is on the disk.

        Raises:
            DataError: it is full or fails.
        """
        try:
            for file in (self._manifest_file, self._rejected_file):
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self._manifest_path, error) from error

    def _verdict(self, sample: Sample) -> tuple[str, str] | None:
        with self._index() as ids:
            is_taken = ids.execute("select 1 from ids where id = ?", (_key(sample.id),)).fetchone() is not None
        if is_taken:
            return "duplicate", f"the id {sample.id!r} is taken by an earlier row: give each row its own (one without an id has its clip's path)"
        return None if self._repeats is None else self._repeats.reject(sample)

    def _reject(self, outcome: Rejected) -> None:
        found = outcome.rejection
        row = {"id": found.id, "audio": found.audio, "kind": found.kind, "reason": found.reason, "row": self._skipped + self.rows + 1}
        _append(self._rejected_file, row if outcome.text is None else {**row, "text": outcome.text}, self._rejected_path)
        self._count_rejected(found.kind, found.reason)

    def _count_kept(self, row_id: str, duration_s: float) -> None:
        with self._index() as ids:
            ids.execute("insert or ignore into ids values (?)", (_key(row_id),))
        self.kept += 1
        self.duration_s += duration_s

    def _count_rejected(self, kind: str, reason: str) -> None:
        self.rejected[kind] += 1
        self.examples.setdefault(kind, reason)


def in_progress(path: Path) -> Path:
    """Where a file is until it is whole."""
    return path.with_name(path.name + PART)


def manifest_row(sample: Sample) -> dict[str, Any]:
    """The line of a manifest that `read_manifest` reads as this sample; keys without a value are left out."""
    row = {
        "id": sample.id,
        "audio": one_or_all(sample.clips),
        "image": one_or_all(sample.images),
        "video": one_or_all(sample.videos),
        "text": sample.text,
        "prompt": None if sample.messages or (sample.clips and sample.prompt == TRANSCRIBE_PROMPT) else sample.prompt,
        "messages": list(sample.messages) or None,
        "response": sample.response,
        "speaker": sample.speaker,
        "recording": sample.recording,
        "language": sample.language,
        "label": sample.label,
        "source": sample.source,
        "duration_s": sample.duration_s,
    }
    known = {key: value for key, value in row.items() if value is not None}
    return known | {key: value for key, value in sample.extra.items() if key not in MANIFEST_KEYS}


def one_or_all(paths: Sequence[str]) -> str | list[str] | None:
    """A path as such, several as a list, None for none."""
    return paths[0] if len(paths) == 1 else list(paths) or None


def to_line(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON. NaN and infinity, which JSON lacks, become null; what JSON can't hold becomes text."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(_without_nan(row), ensure_ascii=False, default=str)
    # Half of a surrogate pair, from a file name that is not UTF-8, can't be encoded; escaped like this it is valid JSON and reads back.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _key(row_id: str) -> bytes:
    return row_id.encode("utf-8", "surrogatepass")


def _append(file: BinaryIO, row: Mapping[str, Any], path: Path) -> None:
    try:
        file.write(to_line(row))
        file.flush()
    except OSError as error:
        raise unwritable(path, error) from error


def _opened(path: Path, stack: ExitStack) -> BinaryIO:
    """A file to be read from its start and appended to."""
    try:
        file = path.open("a+b")
    except OSError as error:
        raise unwritable(path, error) from error

    def close() -> None:
        # Each line was handed over when it was written; what is left is half a line that had no space, which was reported then.
        with suppress(OSError):
            file.close()

    stack.callback(close)
    return file


def _whole_rows(file: BinaryIO, path: Path) -> Iterator[dict[str, Any]]:
    """The rows that are in a file already; a last line that is not whole is cut off."""
    file.seek(0)
    end = 0
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            break
        end += len(line)
        try:
            row: dict[str, Any] = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: broken: start anew with --overwrite") from error
        yield row
    file.truncate(end)
