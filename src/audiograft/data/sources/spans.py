"""Rows that are a part of their clip: `offset` and `duration`, or `start` and `end`, in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from audiograft.data.manifest import SPAN_ENDS, SPAN_STARTS, span_keys
from audiograft.types import DataError


def take_span(row: Mapping[str, Any], place: str) -> tuple[dict[str, Any], tuple[float, float] | None]:
    """A row without the keys that say which part of its clip it is, and that part.

    Args:
        row: in the keys of a manifest; a length may also stand under `duration`.
        place: file and line, for errors.

    Returns:
        The row, and (start, end) in seconds, or None where it is its whole clip. All parts of one file have its path, so a row without an id gets
        one of path and start; without a recording, the file.

    Raises:
        DataError: times that make no sense, or that of several clips say one part.
    """
    keys = span_keys(row)
    audio = row.get("audio")
    if not keys or (audio is None and "audio_paths" not in row):
        return dict(row), None
    if not isinstance(audio, str):
        raise DataError(f"{place}: {keys[0]} asks for a part, but the row has several clips: cut these, and leave it out")
    lengths = [key for key in ("duration_s", "duration") if row.get(key) is not None]
    for key in (*keys, *lengths):
        if isinstance(row[key], bool) or not isinstance(row[key], int | float) or not 0 <= row[key] < math.inf:
            raise DataError(f"{place}: {key} must be 0 or more seconds: correct it or leave it out")
    start = next((key for key in keys if key.casefold() in SPAN_STARTS), None)
    end = next((key for key in keys if key.casefold() in SPAN_ENDS), None)
    own = {key: value for key, value in row.items() if key not in keys and value is not None}
    if start is None:
        raise DataError(f"{place}: {end} without start, so that the beginning is unknown: add start")
    if end is None and not lengths:
        if not row[start]:
            return own, None
        raise DataError(f"{place}: {start} without duration, so that the end is unknown: add duration")
    start_s = float(row[start])
    end_s = start_s + float(row[lengths[0]]) if end is None else float(row[end])
    if end_s <= start_s:
        raise DataError(f"{place}: the part from {start_s:g} s to {end_s:g} s holds nothing: correct its times")
    return {"id": f"{audio}@{row[start]}", "recording": audio} | own | {"duration_s": end_s - start_s}, (start_s, end_s)
