"""What the leakage gate remembers of a row: who speaks, what it was cut from, what is said, and what its clips sound like.

A file of traces lies beside each manifest, `train.traces` beside `train.jsonl`, so that clips are decoded once. It is written by appending, and
holds no text and no sound: texts are digests, clips are digests and the peaks of `audiograft.data.fingerprint`.

The file is a header, then for each row its length in bytes, the CRC-32 of what follows, and: the length of its JSON, the JSON, the peaks of its
clips as 32-bit numbers. All numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np

from audiograft.audio import Waveform, is_silent, load_audio
from audiograft.bulk import spread
from audiograft.data.fingerprint import Peaks, find_peaks
from audiograft.data.manifest import find_manifest, row_to_sample, scan_rows
from audiograft.types import AudioError, DataError, Sample

TRACES_SUFFIX = ".traces"
SHORT_TEXT_BYTES = 16
"""Texts shorter than this in UTF-8, once normalised, are said by many people on many occasions: that two rows share one tells nothing."""
_HEADER = b"audiograft traces 1\n"
_PARTIAL_HEADER = b"audiograft traces 1+\n"
"""The number changes with the layout of the file and with what peaks are; + says that there are rows of which nothing is known."""
_RECORD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = 16
_HALF_RANGE = 1 << 15


@dataclass(frozen=True)
class ClipTrace:
    """What is remembered of one clip.

    Attributes:
        digest: of its samples at 16 kHz, rounded to 16 bits, in hexadecimal; None where the clip is silent, since silence is nobody's.
        n_samples: at 16 kHz; 0 where the clip could not be read.
        peaks: uint32 (n_peaks,), from `find_peaks`.
    """

    digest: str | None
    n_samples: int
    peaks: Peaks


@dataclass(frozen=True)
class Trace:
    """What is remembered of one row.

    Attributes:
        id: of the row.
        source: its corpus, where it names one.
        speaker: its speaker, where it names one.
        recording: what it was cut from, where it says so.
        text: digest of its normalised text in hexadecimal; None where nothing is left of it.
        text_bytes: length of the normalised text in UTF-8.
        clips: its clips, in order; none in a row of text alone.
    """

    id: str
    source: str | None
    speaker: str | None
    recording: str | None
    text: str | None
    text_bytes: int
    clips: tuple[ClipTrace, ...]


def traces_path(manifest: Path) -> Path:
    """Where the traces of a manifest lie: beside it, under its stem."""
    return manifest.with_suffix(TRACES_SUFFIX)


def normalise(text: str) -> str:
    """The text without case, punctuation and white space, in Unicode's compatibility form: letters, marks and digits."""
    return "".join(char for char in unicodedata.normalize("NFKC", text).casefold() if unicodedata.category(char)[0] in "LMN")


def audio_digest(waveform: Waveform) -> str | None:
    """Digest of samples (n_samples,) at 16 kHz, or None where they are silent.

    They are rounded to 16 bits first, so that a clip which was resampled and kept as 16-bit FLAC has the digest of what it was made from.
    """
    if is_silent(waveform):
        return None
    samples = np.clip(np.rint(waveform * np.float32(_HALF_RANGE)), -_HALF_RANGE, _HALF_RANGE - 1).astype("<i2")
    return hashlib.blake2b(samples.tobytes(), digest_size=_DIGEST_BYTES).hexdigest()


def describe_row(sample: Sample, clips: Sequence[ClipTrace]) -> Trace:
    """The trace of a row whose clips are known.

    Its text is the transcript; of a row without one, the response.
    """
    normalised = normalise(sample.text if sample.text is not None else sample.target or "").encode(errors="surrogatepass")
    digest = hashlib.blake2b(normalised, digest_size=_DIGEST_BYTES).hexdigest() if normalised else None
    return Trace(sample.id, sample.source, sample.speaker, sample.recording, digest, len(normalised), tuple(clips))


def make_trace(sample: Sample, waveforms: Sequence[Waveform]) -> Trace:
    """The trace of a row.

    Args:
        sample: the row.
        waveforms: its clips, each (n_samples,) at 16 kHz, as `load_audio` gives them.
    """
    return describe_row(sample, [_trace_waveform(waveform) for waveform in waveforms])


def _trace_waveform(waveform: Waveform) -> ClipTrace:
    return ClipTrace(audio_digest(waveform), len(waveform), find_peaks(waveform))


def _encode(trace: Trace) -> bytes:
    clips = [[clip.digest, clip.n_samples, len(clip.peaks)] for clip in trace.clips]
    # Escaped as ASCII, since half of a surrogate pair in an id has no UTF-8.
    row = json.dumps([trace.id, trace.source, trace.speaker, trace.recording, trace.text, trace.text_bytes, clips], separators=(",", ":")).encode()
    return _LENGTH.pack(len(row)) + row + b"".join(clip.peaks.astype("<u4").tobytes() for clip in trace.clips)


def _decode(record: bytes) -> Trace:
    (length,) = _LENGTH.unpack_from(record)
    start = _LENGTH.size + length
    row_id, source, speaker, recording, text, text_bytes, stored = json.loads(record[_LENGTH.size : start])
    peaks = np.frombuffer(record, "<u4", offset=start).astype(np.uint32)
    ends = np.cumsum([n_peaks for _, _, n_peaks in stored], dtype=np.int64)
    if len(peaks) != sum(n_peaks for _, _, n_peaks in stored):
        raise ValueError("clips without their peaks")
    clips = tuple(ClipTrace(digest, n_samples, peaks[end - n_peaks : end]) for (digest, n_samples, n_peaks), end in zip(stored, ends, strict=True))
    return Trace(row_id, source, speaker, recording, text, text_bytes, clips)


class TraceWriter:
    """Appends traces to a file, as a context manager.

    Args:
        path: the file; made where it does not exist.
        records: how many of the traces that are in it already to keep; what is behind them is cut off.
        complete: whether it will hold all rows that it should; that is said in a new file.

    Raises:
        DataError: it can't be written, is no file of traces, or holds fewer than `records`.
    """

    def __init__(self, path: Path, records: int = 0, complete: bool = True) -> None:
        self.path = path
        try:
            end = _end_of_record(path, records) if records else 0
            self._file = path.open("r+b" if records else "wb")
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._file.truncate(end)
            self._file.seek(end)
            if not records:
                self._file.write(_HEADER if complete else _PARTIAL_HEADER)
                self._file.flush()
        except OSError as error:
            with suppress(OSError):
                self._file.close()
            raise self._unwritable(error) from error

    def append(self, trace: Trace) -> None:
        """Write one trace."""
        record = _encode(trace)
        try:
            self._file.write(_RECORD.pack(len(record), zlib.crc32(record)) + record)
        except OSError as error:
            raise self._unwritable(error) from error

    def flush(self) -> None:
        """Hand what was appended to the operating system."""
        try:
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            self._file.close()
        except OSError as unwritten:
            raise self._unwritable(unwritten) from unwritten

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(f"{self.path}: can't be written ({error.strerror}): free space, or correct the path or its permissions")


def read_traces(path: Path) -> Iterator[Trace]:
    """The traces of a file, in order, one at a time.

    Raises:
        DataError: the file can't be read, is of another version, or is broken; that may be found behind traces that are whole.
    """
    try:
        with path.open("rb") as file:
            _read_header(file, path)
            number = 0
            while (record := _read_record(file, path, number + 1)) is not None:
                number += 1
                try:
                    trace = _decode(record)
                except (ValueError, TypeError, struct.error) as error:
                    raise _broken(path, number) from error
                yield trace
    except OSError as error:
        raise _unreadable(path, error) from error


def are_complete(path: Path) -> bool:
    """Whether a file of traces holds all rows that it should, as whoever wrote it said.

    Raises:
        DataError: the file can't be read, or is of another version.
    """
    try:
        with path.open("rb") as file:
            return _read_header(file, path) == _HEADER
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_header(file: BinaryIO, path: Path) -> bytes:
    header = file.readline(len(_PARTIAL_HEADER))
    if header not in (_HEADER, _PARTIAL_HEADER):
        raise DataError(f"{path}: no traces, or those of another version of audiograft: remove the file, and they are made again from the clips")
    return header


def _read_record(file: BinaryIO, path: Path, number: int) -> bytes | None:
    """What the next record holds, or None at the end of the file."""
    head = file.read(_RECORD.size)
    if not head:
        return None
    if len(head) < _RECORD.size:
        raise _broken(path, number)
    length, checksum = _RECORD.unpack(head)
    record = file.read(length)
    if len(record) < length or zlib.crc32(record) != checksum:
        raise _broken(path, number)
    return record


def _end_of_record(path: Path, number: int) -> int:
    """Where the record of that number, counted from 1, ends in the file."""
    with path.open("rb") as file:
        _read_header(file, path)
        for count in range(1, number + 1):
            if _read_record(file, path, count) is None:
                raise DataError(f"{path}: holds {count - 1} traces where {number} are needed: remove the folder's .part files and prepare again")
        return file.tell()


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: can't be read ({error.strerror}): correct the path or its permissions")


def _broken(path: Path, number: int) -> DataError:
    return DataError(f"{path}: broken at trace {number}: remove the file, and it is made again from the clips")


def traces_of(
    manifest: str | Path,
    *,
    workers: int | None = None,
    allow_outside: bool = False,
    on_row: Callable[[], None] = lambda: None,
    on_refused: Callable[[DataError], None] = lambda error: None,
) -> Iterator[Trace]:
    """The traces of a manifest, one at a time, in order.

    They are read from the file beside it where that is fresh: where it says of each row what the manifest says, and is no older than any clip.
    Else the clips are decoded, and the file is written, where the folder can be written to.

    Args:
        manifest: the file, or a folder that holds `manifest.jsonl`.
        workers: threads that decode; by default one a core.
        allow_outside: also take clips that do not lie below the manifest's folder.
        on_row: called after each row.
        on_refused: called for each row that does not fit, with what is wrong; it has no trace. A clip that can't be read has one without samples.

    Raises:
        DataError: the manifest can't be read, or none of its rows fits: what is compared with nothing looks clean.
    """
    manifest = find_manifest(manifest)
    known = traces_path(manifest)
    refused: list[DataError] = []

    def refuse(error: DataError) -> None:
        refused.append(error)
        on_refused(error)

    if _are_fresh(known, _samples(manifest, allow_outside, refused.append)):
        for error in refused:
            on_refused(error)
        traces = read_traces(known)
    else:
        refused.clear()
        traces = _kept(spread(lambda: _trace_clips, _samples(manifest, allow_outside, refuse), workers=workers), known)
    n_rows = 0
    for trace in traces:
        n_rows += 1
        on_row()
        yield trace
    if not n_rows:
        raise DataError(f"{manifest}: none of its {len(refused)} rows fits, so there is nothing to compare; the first: {refused[0]}")


def _samples(manifest: Path, allow_outside: bool, on_refused: Callable[[DataError], None]) -> Iterator[Sample]:
    for number, _, row in scan_rows(manifest):
        try:
            if isinstance(row, DataError):
                raise row
            yield row_to_sample(row, number, manifest.parent, f"{manifest}:{number}", allow_outside)
        except DataError as error:
            on_refused(error)


def _are_fresh(path: Path, samples: Iterable[Sample]) -> bool:
    if not path.is_file():
        return False
    written_s = path.stat().st_mtime
    try:
        return all(
            trace is not None and sample is not None and _describes(trace, sample, written_s)
            for trace, sample in zip_longest(read_traces(path), samples)
        )
    except DataError as error:
        if str(error).startswith(f"{path}:"):
            return False  # broken or of another version: it is made again
        raise


def _describes(trace: Trace, sample: Sample, written_s: float) -> bool:
    if len(trace.clips) != len(sample.clips) or trace != describe_row(sample, trace.clips):
        return False
    return all(_changed_s(clip) <= written_s for clip in sample.clips)


def _changed_s(clip: str) -> float:
    try:
        return os.stat(clip).st_mtime
    except OSError:
        return 0.0  # what is gone has not changed


def _trace_clips(sample: Sample) -> Trace:
    return describe_row(sample, [_trace_clip(clip) for clip in sample.clips])


def _trace_clip(path: str) -> ClipTrace:
    try:
        return _trace_waveform(load_audio(path).waveform)
    except AudioError:
        return ClipTrace(None, 0, np.zeros(0, np.uint32))


def _kept(traces: Iterator[Trace], path: Path) -> Iterator[Trace]:
    """The traces as they come, written to a file that appears when all are there; a folder that can't be written to costs the file alone."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with ExitStack() as stack:
        try:
            writer: TraceWriter | None = stack.enter_context(TraceWriter(part))
            stack.callback(part.unlink, missing_ok=True)
        except DataError:
            writer = None
        for trace in traces:
            with suppress(DataError):
                if writer is not None:
                    writer.append(trace)
            yield trace
        with suppress(DataError, OSError):
            if writer is not None:
                writer.flush()
                part.replace(path)
