"""Clips and pictures given to other rows than their own, to find out what is answered by listening and looking, and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, cycle, islice
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def derangement(count: int, seed: int) -> list[int]:
    """A random cyclic permutation: no clip keeps its own audio.

    Sattolo, "An algorithm to generate a random cyclic permutation" (1986).
    """
    rng = np.random.default_rng(seed)
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = int(rng.integers(last))
        order[last], order[other] = order[other], order[last]
    return order


def shuffle_clips(clips: Sequence[Sequence[Item]], seed: int) -> list[list[Item]]:
    """Clips of each row -> as many clips of other rows.

    Where each row has one clip it is a derangement. No row keeps a clip of its own, unless it has more than half of all clips.
    """
    order = derangement(len(clips), seed)
    cycle = list(islice(accumulate(order, lambda row, _: order[row], initial=0), len(order)))
    flat = [clip for row in cycle for clip in clips[row]]
    longest = max(map(len, clips), default=0)
    others = iter(flat[longest:] + flat[:longest])
    drawn = {row: list(islice(others, len(clips[row]))) for row in cycle}
    return [drawn[row] for row in range(len(clips))]


def shuffle_pictures(pictures: Sequence[Sequence[str]], seed: int) -> list[list[str]]:
    """Paths of the pictures of each row -> as many of other rows that have others.

    Several questions may be about one picture: rows with the same pictures count as one, so that none of them gets its own from another. Where
    there is no other picture, or one row has more than half of all, some are kept.
    """
    together: dict[tuple[str, ...], list[int]] = {}
    for number, own in enumerate(pictures):
        if own:
            together.setdefault(tuple(own), []).append(number)
    drawn = shuffle_clips([[path for _ in rows for path in own] for own, rows in together.items()], seed)
    shuffled: list[list[str]] = [[] for _ in pictures]
    for (own, rows), others in zip(together.items(), drawn, strict=True):
        for place, number in enumerate(rows):
            shuffled[number] = others[place * len(own) : (place + 1) * len(own)]
    return shuffled


def swap_classes(clips: Sequence[Sequence[Item]], labels: Sequence[str], seed: int) -> list[list[Item]]:
    """The clips of each row -> those of a row with another label.

    Of two classes of one size each clip is given away once; else those of a rarer one come several times.

    Args:
        clips: of each row.
        labels: of each row, two different ones at least.
        seed: decides which.
    """
    order = np.random.default_rng(seed).permutation(len(clips)).tolist()
    others = {label: cycle([row for row in order if labels[row] != label]) for label in sorted(set(labels))}
    given = {row: next(others[labels[row]]) for row in order}
    return [list(clips[given[row]]) for row in range(len(clips))]
