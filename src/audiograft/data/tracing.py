"""The traces of a manifest: read from the file beside it, or made of its clips and pictures and left there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from audiograft.audio import load_audio
from audiograft.bulk import spread
from audiograft.data.looks import trace_readable_pictures
from audiograft.data.manifest import find_manifest, row_to_sample, scan_rows
from audiograft.data.traces import ClipTrace, Trace, TraceWriter, describe_row, read_traces, trace_waveform, traces_path
from audiograft.types import AudioError, DataError, Sample


def traces_of(
    manifest: str | Path,
    *,
    workers: int | None = None,
    allow_outside: bool = False,
    on_row: Callable[[], None] = lambda: None,
    on_refused: Callable[[DataError], None] = lambda error: None,
) -> Iterator[Trace]:
    """The traces of a manifest, one at a time, in order.

    They are read from the file beside it where that is fresh: where it says of each row what the manifest says, and is no older than any clip or
    picture. Else these are decoded, and the file is written, where the folder can be written to.

    Args:
        manifest: the file, or a folder that holds `manifest.jsonl`.
        workers: threads that decode; by default one a core.
        allow_outside: also take clips that do not lie below the manifest's folder.
        on_row: called after each row.
        on_refused: called for each row that does not fit, with what is wrong; it has no trace. A clip that can't be read has one without samples, a
            picture one without bytes.

    Raises:
        ConfigError: there are images, and Pillow is not installed.
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
        # What is fresh and says nothing of pictures is of a row without any.
        traces: Iterator[Trace] = (replace(trace, pictures=trace.pictures or ()) for trace in read_traces(known))
    else:
        refused.clear()
        traces = _kept(spread(lambda: _trace_files, _samples(manifest, allow_outside, refuse), workers=workers), known)
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
    pictures = trace.pictures or ()
    if len(trace.clips) != len(sample.clips) or len(pictures) != len(sample.images) + len(sample.videos):
        return False
    if replace(trace, pictures=pictures) != describe_row(sample, trace.clips, pictures):
        return False
    return all(_changed_s(path) <= written_s for path in (*sample.clips, *sample.images, *sample.videos))


def _changed_s(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0  # what is gone has not changed


def _trace_files(sample: Sample) -> Trace:
    return describe_row(sample, [_trace_clip(clip) for clip in sample.clips], trace_readable_pictures(sample))


def _trace_clip(path: str) -> ClipTrace:
    try:
        return trace_waveform(load_audio(path).waveform)
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
