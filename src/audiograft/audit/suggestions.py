"""Which labels are likely wrong: a ranking by signals that can be told in words, and how good it was."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from audiograft.audit.run import AuditClip, AuditRun
from audiograft.audit.settled import settle
from audiograft.audit.verdicts import Verdict
from audiograft.evaluate.predictions import Prediction
from audiograft.metrics.intervals import wilson
from audiograft.metrics.normalisers import Normaliser
from audiograft.metrics.word_errors import count_words
from audiograft.types import DataError

WEIGHTS: Mapping[str, float] = {"second_opinion": 3.0, "likelihood": 2.0, "confidence": 2.0, "distance": 1.0, "pace": 1.0, "length": 1.0}
"""What a signal counts. Set by hand: evidence from listening before evidence from the form of the texts."""
CUT_OFFS = (5, 10, 20, 50)


@dataclass(frozen=True)
class Suggestion:
    """A clip whose label may be wrong.

    Attributes:
        score: 0 to 1, higher is likelier: the mean of the signals that are known, weighted by `WEIGHTS`. It is a rank and no probability.
        reasons: one sentence a signal that speaks for it.
        signals: each known signal, 0 to 1.
    """

    score: float
    reasons: list[str]
    signals: dict[str, float]
