"""How much of a reference a hypothesis holds, in three steps."""

from __future__ import annotations

from typing import Literal

Match = Literal["exact", "partial", "mismatch"]


def match(reference: str, hypothesis: str) -> Match:
    """Compare two raw texts, lower-cased and otherwise as they are: `exact` where they are equal, `partial` where the hypothesis holds the reference.

    Punctuation counts, so one comma makes a mismatch: these shares are for comparison with work that reports them, not in place of an error rate.
    An empty reference is held by every text and matches only an empty one; what was invented over silence is no part of it.
    """
    old, new = reference.lower(), hypothesis.lower()
    if old == new:
        return "exact"
    return "partial" if old and old in new else "mismatch"
