"""Counts over a whole corpus in little memory."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import Any

_FIRST_SLOTS = 1 << 10
_QUANTILES = (5, 25, 50, 75, 95)
_TAIL_GROWTH = 1.01
_MAX_BARS = 25


class HashCounter:
    """How often each text came, in 18 to 36 bytes a text that differs: 8 of its BLAKE2b hash, 4 of its count, the rest is room.

    A dict of strings takes some 150, which is 1.5 GB for the ten million rows that a corpus may have. Two texts out of n share a hash with
    a probability of n^2 / 2^65: 3 in a million for ten million.
    """

    def __init__(self) -> None:
        self._hashes = array("Q", bytes(8 * _FIRST_SLOTS))  # 0: a free slot
        self._counts = array("I", bytes(4 * _FIRST_SLOTS))
        self._n_texts = 0

    def __len__(self) -> int:
        """How many texts differ."""
        return self._n_texts

    def count(self, text: str) -> int:
        """How often it was added."""
        return self._counts[self._slot(_hash(text))]

    def add(self, text: str) -> int:
        """Count it once more; gives how often it was added, this time included."""
        key = _hash(text)
        slot = self._slot(key)
        if not self._hashes[slot]:
            self._n_texts += 1
            if 3 * self._n_texts > 2 * len(self._hashes):
                self._grow()
                slot = self._slot(key)
            self._hashes[slot] = key
        self._counts[slot] += 1
        return self._counts[slot]

    def _slot(self, key: int) -> int:
        """Where a hash is, or the free slot where it would go. Collisions go to the next slot (linear probing)."""
        last = len(self._hashes) - 1
        slot = key & last
        while self._hashes[slot] not in (0, key):
            slot = slot + 1 & last
        return slot

    def _grow(self) -> None:
        old = zip(self._hashes, self._counts, strict=True)
        n_slots = 2 * len(self._hashes)
        self._hashes, self._counts = array("Q", bytes(8 * n_slots)), array("I", bytes(4 * n_slots))
        for key, count in old:
            if key:
                slot = self._slot(key)
                self._hashes[slot], self._counts[slot] = key, count


def _hash(text: str) -> int:
    # Half of a surrogate pair, from JSON's \ud800, can't be encoded otherwise. 0 means that a slot is free.
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") or 1


class TopCounts:
    """The most frequent of some strings, and how many differ; exact until `2 * limit` of them differ.

    Beyond that the rarer half is forgotten each time, so that a string which comes late or seldom may be counted too low; the frequent ones,
    which are in every part of a corpus, are not touched.
    """

    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._counts: Counter[str] = Counter()
        self._differing = HashCounter()
        self.total = 0
        self.exact = True

    @property
    def distinct(self) -> int:
        """How many strings differ; exact at any size."""
        return len(self._differing)

    def update(self, strings: Sequence[str]) -> None:
        """Count each of them once more; the strings of a text are its characters."""
        self.total += len(strings)
        for string in set(strings):
            if string not in self._counts and not self._differing.count(string):
                self._differing.add(string)
        self._counts.update(strings)
        if len(self._counts) > 2 * self._limit:
            self._counts = Counter(dict(self._counts.most_common(self._limit)))
            self.exact = False

    def top(self, count: int) -> list[tuple[str, int]]:
        """The most frequent, with how often they came; equal ones in the order of the alphabet."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))[:count]


class Spread:
    """How numbers from 0 up are spread: quantiles and a histogram, in bounded memory.

    Numbers are rounded down to whole steps, so that each falls into the bar that it belongs to where bars are whole steps wide; those above 10,000
    steps are rounded to 1 %, of which there are a few hundred.
    """

    def __init__(self, step: float) -> None:
        self._step = step
        self._linear = 10_000 * step
        self._counts: Counter[int] = Counter()
        self._least, self._most = math.inf, -math.inf

    def add(self, value: float) -> None:
        """Count a finite number, 0 or more."""
        self._least, self._most = min(self._least, value), max(self._most, value)
        tail = round(math.log(value / self._linear, _TAIL_GROWTH)) if value > self._linear else 0
        # 1.15 is 114.99999999999999 steps of 0.01, and belongs to 115.
        self._counts[10_000 + tail if value > self._linear else math.floor(round(value / self._step, 9))] += 1

    def summary(self) -> dict[str, Any] | None:
        """Least, most, quantiles and the bars of a histogram, ready for JSON; None of no numbers.

        Each bar holds the numbers from its `from` to below its `to`. Where a few numbers are far above the rest, the last bar has a `to` of
        None and holds all of them.
        """
        if not self._counts:
            return None
        return {
            "least": self._least,
            "quantiles": {f"{percent}%": self._quantile(percent / 100) for percent in _QUANTILES},
            "most": self._most,
            "histogram": self._histogram(),
        }

    def _value(self, key: int) -> float:
        value = key * self._step if key <= 10_000 else self._linear * _TAIL_GROWTH ** (key - 10_000)
        return min(max(round(value, 6), self._least), self._most)

    def _quantile(self, share: float) -> float:
        """The smallest number that at least this share of all does not exceed."""
        wanted = share * self._counts.total()
        reached = 0
        for key in sorted(self._counts):
            reached += self._counts[key]
            if reached >= wanted:
                break
        return self._value(key)

    def _histogram(self) -> list[dict[str, Any]]:
        usual = max(self._quantile(0.995), self._step)
        width = _round_up(usual / (_MAX_BARS - 1))
        n_bars = math.floor(round(usual / width, 9)) + 1
        rows = [0] * n_bars
        for key, count in self._counts.items():
            rows[min(n_bars - 1, math.floor(round(self._value(key) / width, 9)))] += count
        bars: list[dict[str, Any]] = [{"from": round(i * width, 9), "to": round((i + 1) * width, 9), "rows": n} for i, n in enumerate(rows)]
        if self._most >= bars[-1]["to"]:
            bars[-1]["to"] = None
        return bars


def _round_up(value: float) -> float:
    """To 1, 2, 2.5 or 5 times a power of ten."""
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))
