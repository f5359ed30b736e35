"""What the rows of detections say of the conditions of their clips: values that can be sorted, counted and drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from audiograft.evaluate.predictions import Prediction
from audiograft.types import DataError

CELLS = ("duration_ms", "target_snr_db")
"""The factors of the bench whose cells have figures of their own."""
CONDITIONS = (*CELLS, "noise", "band", "t60_s", "kind", "label")
"""Keys of the rows by which accuracy is told."""
_NUMBERS = (*CELLS, "t60_s")
_MOST_LEVELS, _N_GROUPS = 12, 8
"""A grid of more levels would hold hardly a clip a cell, and a plot of it nothing that can be read."""


def condition_values(predictions: Sequence[Prediction], key: str) -> list[Any]:
    """A key of each row, None where it is not stated; `duration_ms` follows from the duration where it is not.

    Raises:
        DataError: a value that is no number where there must be one, or is a list or an object.
    """
    return [_checked(prediction, key) for prediction in predictions]


def _checked(prediction: Prediction, key: str) -> Any:
    row = prediction.as_row()
    value = row.get(key, _milliseconds(prediction) if key == "duration_ms" else None)
    if value is None:
        return None
    if key in _NUMBERS:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and (value > 0 or key != "duration_ms")
        what = "a number above 0" if key == "duration_ms" else "a number"
    else:
        fits, what = isinstance(value, str | int | float), "a text or a number"
    if not fits:
        raise DataError(f"row {prediction.id!r}: {key} must be {what}, not {value!r}: correct it or leave the key out")
    return value


def _milliseconds(row: Prediction) -> float | None:
    return round(1000 * row.duration_s) or None if row.duration_s else None


def grouped_levels(values: Sequence[Any], key: str) -> tuple[list[Any], str | None]:
    """The values themselves; of numbers that take more than a few, the median of the group of like size in which each is.

    Returns:
        The values, None where there was None, and a line that says that they were put together, if they were.
    """
    levels = {value for value in values if value is not None}
    if key not in _NUMBERS or len(levels) <= _MOST_LEVELS:
        return list(values), None
    stated = np.array([np.nan if value is None else value for value in values], dtype=float)
    known = stated[np.isfinite(stated)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _N_GROUPS + 1)[1:-1]))
    places = np.searchsorted(edges, stated, side="right")
    medians = {place: float(f"{np.median(stated[places == place]):.4g}") for place in set(places[np.isfinite(stated)].tolist())}
    told = [None if value is None else medians[place] for value, place in zip(values, places.tolist(), strict=True)]
    return told, f"{key} takes {len(levels):,} values: tables and grids put them together in {len(medians)} groups, each told by its median"
