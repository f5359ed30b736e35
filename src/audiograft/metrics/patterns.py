"""Which words are mistaken for which, how often, and in which clips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from audiograft.metrics.alignment import align_words
from audiograft.metrics.words import split_words

_EXAMPLES = 5


@dataclass(frozen=True)
class Pattern:
    """An error that recurs.

    Attributes:
        reference: the words that were said; empty for an insertion.
        hypothesis: the words that were written; empty for a deletion.
        count: how often.
        ids: the first clips in which it stands, 5 at most.
    """

    reference: str
    hypothesis: str
    count: int
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Patterns:
    """The commonest errors of a corpus, most frequent first; `dataclasses.asdict` makes it JSON.

    Attributes:
        substitutions: one word for another.
        deletions: words that were left out.
        insertions: words that nobody said.
        compounds: words written together here and apart there, which are in none of the other lists.
        totals: number of errors of each of the four kinds, also of those too rare to be listed.
    """

    substitutions: tuple[Pattern, ...]
    deletions: tuple[Pattern, ...]
    insertions: tuple[Pattern, ...]
    compounds: tuple[Pattern, ...]
    totals: dict[str, int]


def error_patterns(pairs: Iterable[tuple[str, str, str]], top: int = 50) -> Patterns:
    """Count the errors of a corpus by what was said and what was written.

    Args:
        pairs: id, reference and hypothesis of each clip, normalised.
        top: patterns to keep of each kind.
    """
    counts: dict[str, dict[tuple[str, str], int]] = {kind: defaultdict(int) for kind in ("substitutions", "deletions", "insertions", "compounds")}
    ids: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for clip, reference, hypothesis in pairs:
        for old, new in align_words(split_words(reference), split_words(hypothesis)):
            if old == new:
                continue
            error = " ".join(old), " ".join(new)
            counts[_kind(old, new)][error] += 1
            if len(ids[error]) < _EXAMPLES:
                ids[error][clip] = None

    def commonest(kind: str) -> tuple[Pattern, ...]:
        ranked = sorted(counts[kind].items(), key=lambda item: (-item[1], item[0]))
        return tuple(Pattern(*error, count, tuple(ids[error])) for error, count in ranked[:top])

    totals = {kind: sum(found.values()) for kind, found in counts.items()}
    return Patterns(commonest("substitutions"), commonest("deletions"), commonest("insertions"), commonest("compounds"), totals)


def _kind(old: list[str], new: list[str]) -> str:
    if not old:
        return "insertions"
    if not new:
        return "deletions"
    return "substitutions" if len(old) == len(new) == 1 else "compounds"
