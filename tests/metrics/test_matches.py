"""The three steps of a match."""

from __future__ import annotations

import pytest

from audiograft.metrics.matches import match


@pytest.mark.parametrize(
    ("reference", "hypothesis", "kind"),
    [
        ("The cat", "the CAT", "exact"),
        ("the cat", "so the cat sat", "partial"),
        ("cat", "concatenate", "partial"),  # of characters, not of words
        ("the cat sat", "the cat", "mismatch"),
        ("the cat.", "the cat", "mismatch"),
        ("", "", "exact"),
        ("", "thank you", "mismatch"),
        ("the cat", "", "mismatch"),
    ],
)
def test_match(reference: str, hypothesis: str, kind: str) -> None:
    assert match(reference, hypothesis) == kind
