"""What the raters together say of a clip: the one place where several verdicts become one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from audiograft.audit.verdicts import Verdict


@dataclass(frozen=True)
class Settled:
    """A judged clip.

    Attributes:
        id: of the clip.
        verdict: the category with the most raters; None where two or more have the most, which is for people to settle.
        votes: each rater's category.
        texts: corrected texts of the raters with that verdict, in single spaces, each with who typed it; the empty one says that nothing is said.
            The text of a rater who was outvoted is no correction.
        is_blind: whether every verdict of the clip was given blind.
    """

    id: str
    verdict: str | None
    votes: dict[str, str]
    texts: dict[str, tuple[str, ...]]
    is_blind: bool


def settle(verdicts: Sequence[Verdict]) -> dict[str, Settled]:
    """One entry a judged clip, in the order of their first verdicts.

    Args:
        verdicts: those in force: one a rater and clip.
    """
    by_clip: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_clip[verdict.id].append(verdict)
    return {id: _settle_clip(id, given) for id, given in by_clip.items()}


def _settle_clip(id: str, given: Sequence[Verdict]) -> Settled:
    (first, most), *others = Counter(verdict.verdict for verdict in given).most_common()
    winner = None if others and others[0][1] == most else first
    texts: dict[str, tuple[str, ...]] = {}
    for verdict in given:
        if verdict.corrected is not None and verdict.verdict == winner:
            text = " ".join(verdict.corrected.split())
            texts[text] = (*texts.get(text, ()), verdict.rater)
    return Settled(id, winner, {verdict.rater: verdict.verdict for verdict in given}, texts, all(verdict.blind for verdict in given))
