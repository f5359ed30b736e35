"""SNR, log duration and their product, with an intercept of each recording: a mixed model of being right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray


def fit_mixed_model(
    right: Sequence[bool] | Array,
    duration_ms: Sequence[float | None],
    snr_db: Sequence[float | None],
    recordings: Sequence[str | None],
) -> dict[str, Any]:
    """What `metrics.json` has under `mixed_model`, ready for JSON; `{"refused": why}` where the data can't carry it."""
    raise NotImplementedError
