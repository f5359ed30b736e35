"""Blind judging: which of the two texts stands as X, and what a choice between them means."""

from __future__ import annotations

import hashlib
from typing import Any

from audiograft.audit.run import AuditClip
from audiograft.audit.verdicts import Verdict
from audiograft.metrics.alignment import diff_words
from audiograft.metrics.normalisers import Normaliser

_AS_CHOSEN = {"neither": "ambiguous", "normalisation": "normalisation", "same": "perfect"}


def blind_order(fingerprint: str, rater: str, id: str) -> bool:
    """Whether X is the reference: as good as a coin's toss for each rater and clip, and the same after a restart.

    Args:
        fingerprint: of the run.
        rater: who judges.
        id: of the clip.
    """
    told = "\0".join((fingerprint, rater, id)).encode("utf-8", errors="surrogatepass")
    return bool(hashlib.sha256(told).digest()[0] & 1)


def category_of(choice: str, x_is_reference: bool) -> str:
    """The category that a choice between X and Y means.

    Args:
        choice: a key of `CHOICES`.
        x_is_reference: from `blind_order`.
    """
    if choice in _AS_CHOSEN:
        return _AS_CHOSEN[choice]
    return "model_error" if (choice == "x") == x_is_reference else "label_noise"


def blind_texts(fingerprint: str, rater: str, clip: AuditClip, normaliser: Normaliser | None = None) -> tuple[str, str]:
    """The texts of a clip as X and Y: normalised where a normaliser is given, so that capitals and punctuation hint at nothing."""
    texts = clip.prediction.reference, clip.prediction.hypothesis
    if normaliser is not None:
        texts = normaliser.apply(texts[0]), normaliser.apply(texts[1])
    return texts if blind_order(fingerprint, rater, clip.prediction.id) else (texts[1], texts[0])


def blind_payload(fingerprint: str, rater: str, clip: AuditClip, normaliser: Normaliser | None = None) -> dict[str, Any]:
    """What of a clip's texts may be told to a rater who judges blind.

    Returns:
        `x`, `y`, `diff` [[kind, word of x, word of y], ...] and `wer`: their errors over the words of the longer, the same either way round.
    """
    x, y = blind_texts(fingerprint, rater, clip, normaliser)
    # Aligned anew rather than turned round: of equally good alignments the one that is chosen would tell which text came first.
    diff = [[edit.kind, edit.reference, edit.hypothesis] for edit in diff_words(x, y)]
    longer = max(clip.errors.reference_length, clip.errors.hits + clip.errors.substitutions + clip.errors.insertions)
    return {"x": x, "y": y, "diff": diff, "wer": clip.errors.errors / max(longer, 1)}


def blind_choice(verdict: Verdict) -> str | None:
    """A rater's verdict as a choice that tells nothing of which text is which; None where it was given openly and would tell."""
    if verdict.choice is not None:
        return verdict.choice
    return next((choice for choice, category in _AS_CHOSEN.items() if category == verdict.verdict), None)
