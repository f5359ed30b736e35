"""An index of the rows of manifests: lengths in arrays, 45 bytes a row of one clip.

The rows themselves stay in their files until they are asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from audiograft.bulk import spread
from audiograft.data.counting import HashCounter
from audiograft.data.manifest import find_manifest, row_at, row_to_sample, scan_rows
from audiograft.data.sources.rows import refusal
from audiograft.data.traces import ClipTrace, Trace, read_traces, traces_path
from audiograft.model import AudioGraftProcessor
from audiograft.train.rows import Row, Wording, check_row, told
from audiograft.types import DataError, Rejection, Sample

ROW = np.dtype(
    [
        ("manifest", "<u2"), ("line", "<u4"), ("offset", "<u8"), ("files", "<u8"), ("checksum", "<u4"), ("positions", "<u4"),
        ("first_clip", "<u4"), ("n_clips", "<u2"), ("padded", "?"),
    ]
)  # fmt: skip
_CLIP = np.dtype([("n_samples", "<u4"), ("feature_frames", "<u4")])
_CHUNK_ROWS = 4096
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class ManifestFile:
    """A manifest as it was when the run began.

    Attributes:
        path: the file.
        sha256: of its bytes.
        n_lines: its lines, blank ones too.
        state: its size in bytes and the time of its last change in nanoseconds.
        allow_outside: whether its clips may lie elsewhere than below its folder.
    """

    path: Path
    sha256: str
    n_lines: int
    state: tuple[int, int]
    allow_outside: bool

    @classmethod
    def open(cls, path: str | Path, allow_outside: bool = False) -> Self:
        """Read the file once.

        Raises:
            DataError: it is missing, or can't be read.
        """
        found = find_manifest(path)
        digest, n_lines = hashlib.sha256(), 0
        try:
            state = file_state(found)
            with found.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
                    n_lines += block.count(b"\n")
        except OSError as error:
            raise DataError(f"{found}: can't be read ({error.strerror}): correct the path or its permissions") from error
        return cls(found, digest.hexdigest(), n_lines, state, allow_outside)

    def sample(self, line: int, row: dict[str, Any]) -> Sample:
        """What a row of it means."""
        return row_to_sample(row, line, self.path.parent, f"{self.path}:{line}", self.allow_outside)


@dataclass(frozen=True)
class Answers:
    """Responses to rows that have none of their own.

    Attributes:
        path: JSON objects, one a line, with the response under the key `response`.
        offsets: (rows,) where in the file each row's begins; -1 where it has its own.
    """

    path: Path
    offsets: npt.NDArray[np.int64]

    def of(self, number: int) -> str | None:
        """The response to a row by its number."""
        if (offset := int(self.offsets[number])) < 0:
            return None
        with self.path.open("rb") as file:
            response: str = row_at(file, offset)["response"]
        return response


@dataclass(frozen=True, eq=False)
class RowIndex(Sequence[Row]):
    """Rows by number. Each is read from its manifest when it is asked for.

    Attributes:
        manifests: where the rows are.
        wording: the instructions that they get.
        rows: what is known of each row.
        clips: what is known of each clip.
        answers: a teacher's, where it was asked.
    """

    manifests: tuple[ManifestFile, ...]
    wording: Wording
    rows: npt.NDArray[np.void]
    clips: npt.NDArray[np.void]
    answers: Answers | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> RowIndex: ...
    def __getitem__(self, index: int | slice) -> Row | RowIndex:
        """A row, or an index of some of them.

        Raises:
            DataError: the manifest has changed since it was indexed.
        """
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        entry = self.rows[index]
        manifest = self.manifests[entry["manifest"]]
        changed = DataError(f"{manifest.path}: has changed since the run began: start it again")
        try:
            if file_state(manifest.path) != manifest.state:
                raise changed
            with manifest.path.open("rb") as file:
                sample = manifest.sample(int(entry["line"]), row_at(file, int(entry["offset"])))
        except OSError as error:
            raise changed from error
        sample = self.wording.apply(sample)
        if self.answers is not None and (response := self.answers.of(index)) is not None:
            sample = replace(sample, response=response)
        first = int(entry["first_clip"])
        clips = self.clips[first : first + int(entry["n_clips"])]
        return Row(
            sample=sample,
            n_samples=tuple(clips["n_samples"].tolist()),
            checksum=int(entry["checksum"]),
            padded=bool(entry["padded"]),
            feature_frames=tuple(clips["feature_frames"].tolist()),
            positions=int(entry["positions"]),
            answer_only=self.wording.answer_only,
        )

    @property
    def positions(self) -> npt.NDArray[np.uint32]:
        """(rows,) in the language model."""
        return self.rows["positions"]

    @property
    def n_clips(self) -> npt.NDArray[np.int64]:
        """(rows,) clips of each row."""
        return self.rows["n_clips"].astype(np.int64)

    def take(self, numbers: npt.NDArray[np.int64]) -> RowIndex:
        """An index of rows by their numbers, of which one may come several times."""
        answers = None if self.answers is None else replace(self.answers, offsets=self.answers.offsets[numbers])
        return replace(self, rows=self.rows[numbers], answers=answers)

    def with_answers(self, answers: Answers, positions: npt.NDArray[np.int64]) -> RowIndex:
        """The rows with a teacher's responses, and the (rows,) positions that they take with these."""
        rows = self.rows.copy()
        rows["positions"] = positions
        return replace(self, rows=rows, answers=answers)

    def fingerprint(self) -> str:
        """SHA-256 of the manifests, and of the rows in their order: which they are, their ids and their sound."""
        digest = hashlib.sha256(repr([manifest.sha256 for manifest in self.manifests]).encode())
        for key in ("manifest", "line", "checksum"):
            digest.update(np.ascontiguousarray(self.rows[key]).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Rules:
    """What decides which rows are taken, and how long they are.

    Attributes:
        processor: of the model to be trained.
        wording: the instructions.
        pad_share: share of rows whose clips are padded to 30 s.
        seed: decides which.
        useless: why a row is of no use for the loss, None where it is.
    """

    processor: AudioGraftProcessor
    wording: Wording
    pad_share: float
    seed: int
    useless: Callable[[Row], Rejection | None]

    def check(self, sample: Sample, known: Sequence[ClipTrace] | None = None) -> Row | Rejection:
        """See `check_row`."""
        row = check_row(self.wording.apply(sample), self.processor, self.pad_share, self.seed, known)
        if isinstance(row, Rejection):
            return row
        return self.useless(row) or replace(row, answer_only=self.wording.answer_only)


class Traces:
    """What is known of the clips of a manifest, from the traces beside it; asked in the order of its rows."""

    def __init__(self, manifest: Path) -> None:
        path = traces_path(manifest)
        try:
            self.made_ns = path.stat().st_mtime_ns
            self._traces = read_traces(path)
        except OSError:
            self.made_ns, self._traces = 0, iter(())

    def of(self, sample: Sample) -> Trace | None:
        """The trace of a row, as far as there is one and it is as old as its manifest; traces of other rows before it are passed over."""
        try:
            return next((trace for trace in self._traces if trace.id == sample.id), None) if sample.clips else None
        except DataError:  # half a file, or one of another version: the clips are decoded instead
            return None


@dataclass(frozen=True)
class _Found:
    """A row on its way into the index."""

    manifest: int
    line: int
    offset: int
    place: str
    sample: Sample | Rejection
    trace: Trace | None = None
    traced_ns: int = 0


def _found(manifests: Sequence[ManifestFile]) -> Iterator[_Found]:
    for number, manifest in enumerate(manifests):
        ids, traces = HashCounter(), Traces(manifest.path)
        for line, offset, row in scan_rows(manifest.path):
            place = f"{manifest.path}:{line}"
            if isinstance(row, DataError):
                yield _Found(number, line, offset, place, refusal(place, row))
                continue
            try:
                sample = manifest.sample(line, row)
            except DataError as error:
                yield _Found(number, line, offset, place, replace(refusal(place, error, row), reason=str(error)))
                continue
            if ids.add(sample.id) > 1:
                reason = f'{place}: "id" {sample.id!r} is taken by an earlier line: give each row its own'
                yield _Found(number, line, offset, place, Rejection(sample.id, sample.audio or sample.id, reason, "duplicate"))
            else:
                yield _Found(number, line, offset, place, sample, traces.of(sample), traces.made_ns)


def _examine(rules: Rules, found: _Found) -> tuple[_Found, Row | Rejection, int]:
    """A row, checked, and the state of its files."""
    if isinstance(found.sample, Rejection):
        return found, found.sample, 0
    files, newest_ns = files_state(files_of(found.sample))
    clips = found.trace.clips if found.trace is not None and files and newest_ns < found.traced_ns else ()
    # What could not be read has a trace without samples.
    known = clips if len(clips) == len(found.sample.clips) and all(clip.n_samples for clip in clips) else None
    try:
        return found, rules.check(found.sample, known), files
    except DataError as error:  # no rejection, but the end of the run
        raise DataError(f"{found.place}: {error}") from error


def files_of(sample: Sample) -> tuple[str, ...]:
    """All files that a row is made of."""
    return (*sample.clips, *sample.images, *sample.videos)


def files_state(clips: Sequence[str]) -> tuple[int, int]:
    """A hash of the sizes and times of change of files, 0 where one is missing; and the latest time in nanoseconds."""
    try:
        states = [file_state(Path(clip)) for clip in clips]
    except OSError:
        return 0, 0
    digest = hashlib.blake2b(repr(states).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1, max((changed_ns for _, changed_ns in states), default=0)


def file_state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


class _Table:
    """Records, gathered into an array in chunks, so that they never stand in memory as Python's objects all at once."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._dtype = dtype
        # Grows in place, where joining chunks at the end would hold everything twice.
        self._bytes = bytearray()
        self._records: list[tuple[Any, ...]] = []
        self.n_records = 0

    def append(self, record: tuple[Any, ...]) -> None:
        self._records.append(record)
        self.n_records += 1
        if len(self._records) == _CHUNK_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._bytes += np.array(self._records, dtype=self._dtype).tobytes()
        self._records = []

    def array(self) -> npt.NDArray[np.void]:
        """All records; none can be appended any more."""
        self._flush()
        return np.frombuffer(self._bytes, dtype=self._dtype)


def build_index(
    manifests: Sequence[ManifestFile], rules: Rules, rejected: Path | None, max_rejected: float, on_row: Callable[[], None] = lambda: None
) -> tuple[RowIndex, int, Rejection | None]:
    """Check and measure each row, several at once. Clips of which there are traces are not decoded, unless they have changed since.

    Args:
        manifests: in which rows are.
        rules: what decides about them.
        rejected: file into which rows that can't be used are written, one JSON object a line; None for nowhere.
        max_rejected: share of such rows above which it is given up.
        on_row: called after each row.

    Returns:
        The index, in the order of the manifests; the number of rows that can't be used, and the first of them.

    Raises:
        DataError: a manifest can't be read, has no row, or is an array with an error of syntax; or too many rows can't be used.
        OSError: `rejected` can't be written.
    """
    rows, clips = _Table(ROW), _Table(_CLIP)
    n_rejected, first = 0, None
    with nullcontext() if rejected is None else rejected.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        for found, row, files in spread(lambda: partial(_examine, rules), _found(manifests)):
            on_row()
            if isinstance(row, Row):
                rows.append(
                    (found.manifest, found.line, found.offset, files, row.checksum, row.positions, clips.n_records, len(row.n_samples), row.padded)
                )
                for record in zip(row.n_samples, row.feature_frames, strict=True):
                    clips.append(record)
                continue
            n_rejected, first = n_rejected + 1, first or row
            if file is not None:
                file.write(json.dumps(vars(row), ensure_ascii=False) + "\n")
            if (rows.n_records + n_rejected) % _CHUNK_ROWS == 0:
                _refuse_too_many(rows.n_records, n_rejected, first, rejected, max_rejected)
    if rows.n_records and first is not None:
        _refuse_too_many(rows.n_records, n_rejected, first, rejected, max_rejected)
    return RowIndex(tuple(manifests), rules.wording, rows.array(), clips.array()), n_rejected, first


def _refuse_too_many(n_rows: int, n_rejected: int, first: Rejection, rejected: Path | None, limit: float) -> None:
    if n_rejected <= limit * (n_rows + n_rejected):
        return
    where = "" if rejected is None else f"; all are in {rejected}"
    raise DataError(
        f"{n_rejected} of {n_rows + n_rejected} rows can't be used, more than data.max_rejected {limit:g} allows: mend them, or set it higher; "
        f"the first: {told(first)}{where}"
    )
