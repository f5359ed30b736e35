"""What the leakage gate remembers of a row: who speaks, what it was cut from, what is said, what its clips sound and its pictures look like.

A file of traces lies beside each manifest, `train.traces` beside `train.jsonl`, so that clips and images are decoded once. It is written by
appending, and holds no text and no sound: texts are digests, clips are digests and the peaks of `audiograft.data.fingerprint`, pictures are digests
and the looks of `audiograft.data.looks`.

The file is a header, then for each row its length in bytes, the CRC-32 of what follows, and: the length of its JSON, the JSON, the peaks of its
clips as 32-bit numbers, the looks of its images. All numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import json
import struct
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from audiograft.audio import Waveform, is_silent
from audiograft.data.fingerprint import Peaks, find_peaks
from audiograft.data.looks import LOOK_BYTES, PictureTrace
from audiograft.types import DataError, Sample

TRACES_SUFFIX = ".traces"
SHORT_TEXT_BYTES = 16
"""Texts shorter than this in UTF-8, once normalised, are said by many people on many occasions: that two rows share one tells nothing."""
_HEADER = b"audiograft traces 1\n"
_PARTIAL_HEADER = b"audiograft traces 1+\n"
"""The number changes with the layout of the file and with what peaks are; + says that there are rows of which nothing is known. Rows from before
pictures were compared lack the last field of their JSON."""
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
        pictures: its images, and then its videos; None where that was written before pictures were compared, so that it is not known.
    """

    id: str
    source: str | None
    speaker: str | None
    recording: str | None
    text: str | None
    text_bytes: int
    clips: tuple[ClipTrace, ...]
    pictures: tuple[PictureTrace, ...] | None = ()


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


def describe_row(sample: Sample, clips: Sequence[ClipTrace], pictures: Sequence[PictureTrace] = ()) -> Trace:
    """The trace of a row whose clips and pictures are known.

    Its text is the transcript; of a row without one, the response.
    """
    normalised = normalise(sample.text if sample.text is not None else sample.target or "").encode(errors="surrogatepass")
    digest = hashlib.blake2b(normalised, digest_size=_DIGEST_BYTES).hexdigest() if normalised else None
    return Trace(sample.id, sample.source, sample.speaker, sample.recording, digest, len(normalised), tuple(clips), tuple(pictures))


def make_trace(sample: Sample, waveforms: Sequence[Waveform], pictures: Sequence[PictureTrace] = ()) -> Trace:
    """The trace of a row.

    Args:
        sample: the row.
        waveforms: its clips, each (n_samples,) at 16 kHz, as `load_audio` gives them.
        pictures: from `trace_pictures`.
    """
    return describe_row(sample, [trace_waveform(waveform) for waveform in waveforms], pictures)


def trace_waveform(waveform: Waveform) -> ClipTrace:
    """What is remembered of a clip: (n_samples,) at 16 kHz."""
    return ClipTrace(audio_digest(waveform), len(waveform), find_peaks(waveform))


def _encode(trace: Trace) -> bytes:
    fields: list[Any] = [trace.id, trace.source, trace.speaker, trace.recording, trace.text, trace.text_bytes]
    fields.append([[clip.digest, clip.n_samples, len(clip.peaks)] for clip in trace.clips])
    if trace.pictures is not None:
        fields.append([[picture.digest, picture.n_bytes, bool(picture.look)] for picture in trace.pictures])
    # Escaped as ASCII, since half of a surrogate pair in an id has no UTF-8.
    row = json.dumps(fields, separators=(",", ":")).encode()
    peaks = (clip.peaks.astype("<u4").tobytes() for clip in trace.clips)
    return _LENGTH.pack(len(row)) + row + b"".join(peaks) + b"".join(picture.look for picture in trace.pictures or ())


def _decode(record: bytes) -> Trace:
    (length,) = _LENGTH.unpack_from(record)
    start = _LENGTH.size + length
    row_id, source, speaker, recording, text, text_bytes, stored, *seen = json.loads(record[_LENGTH.size : start])
    ends = np.cumsum([n_peaks for _, _, n_peaks in stored], dtype=np.int64)
    peaks = np.frombuffer(record, "<u4", sum(n_peaks for _, _, n_peaks in stored), start).astype(np.uint32)
    clips = tuple(ClipTrace(digest, n_samples, peaks[end - n_peaks : end]) for (digest, n_samples, n_peaks), end in zip(stored, ends, strict=True))
    pictures, start = [], start + 4 * len(peaks)
    for digest, n_bytes, has_look in seen[0] if seen else ():
        pictures.append(PictureTrace(digest, n_bytes, record[start : start + LOOK_BYTES * has_look]))
        start += LOOK_BYTES * has_look
    if start != len(record):
        raise ValueError("not as long as its clips and pictures are")
    return Trace(row_id, source, speaker, recording, text, text_bytes, clips, tuple(pictures) if seen else None)


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
