"""Splits in which no group is torn apart: rows that share a speaker or a recording are all in one of them.

It takes two readings of a manifest, and the memory of its groups:

    splits = assign((row_keys(row, ("speaker", "recording"), "label") for row in rows), {"train": 0.8, "dev": 0.1, "test": 0.1}, seed=1)
    for row in rows:
        splits.of(row_keys(row, ("speaker", "recording"), "label"))  # "train"
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from audiograft.data.text import name_key
from audiograft.types import DataError

Measure = Literal["rows", "hours"]
"""Of what the shares are."""


@dataclass(frozen=True)
class RowKeys:
    """What of a row decides about its split.

    Attributes:
        id: of the row.
        groups: the groups that it is in, each (key, name), such as ("speaker", "19"); at least one.
        stratum: what is to be spread evenly; empty where nothing is.
        duration_ms: of its clips. A whole number, so that sums do not depend on the order of rows.
    """

    id: str
    groups: tuple[tuple[str, str], ...]
    stratum: str = ""
    duration_ms: int = 0


def row_keys(row: Mapping[str, Any], group_by: Sequence[str], stratify_by: str | None = None) -> RowKeys:
    """The keys of a manifest's row.

    Args:
        row: as it stands in the manifest; with an `id`.
        group_by: keys of which rows with the same value must not part.
        stratify_by: the key whose values are to be spread evenly.

    Raises:
        DataError: the row has none of a key.
    """
    groups = tuple((key, name_key(_value(row, key, f"group by other keys than {key}"))) for key in group_by)
    stratum = "" if stratify_by is None else _value(row, stratify_by, f"stratify by another key than {stratify_by}")
    return RowKeys(str(row["id"]), groups, stratum, round(1000 * (row.get("duration_s") or 0)))


def _value(row: Mapping[str, Any], key: str, mend: str) -> str:
    value = row.get(key)
    if value is None or value == "":
        raise DataError(f'row {row["id"]!r} has no "{key}": {mend}, or let the source name it')
    return str(value)


@dataclass(frozen=True)
class SplitSize:
    """One split.

    Attributes:
        asked: the share that was asked for, 0 to 1.
        reached: the share that the groups allowed.
        rows: how many.
        hours: of their clips.
        groups: that could not be divided.
        strata: rows by the value that was to be spread.
    """

    asked: float
    reached: float
    rows: int
    hours: float
    groups: int
    strata: dict[str, int]


@dataclass(frozen=True)
class Splits:
    """Which split each group is in.

    Attributes:
        sizes: of the splits, by name.
    """

    sizes: dict[str, SplitSize]
    _split_of: Mapping[tuple[str, str], str]

    def of(self, keys: RowKeys) -> str:
        """The split of a row that was assigned."""
        return self._split_of[keys.groups[0]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: what each split came to."""
        return {name: dict(vars(size)) for name, size in self.sizes.items()}


@dataclass
class _Group:
    """Rows that must not part: the weight by which they are shared out, their names, and rows by stratum."""

    weight: int
    duration_ms: int
    names: list[tuple[str, str]]
    strata: Counter[str]

    @property
    def stratum(self) -> str:
        """That of most of its rows; of several, the first by name."""
        return min(self.strata, key=lambda name: (-self.strata[name], name))

    def order(self, seed: int) -> tuple[int, bytes]:
        """Large ones first, since small ones even out what is left; those of about the same size in an order that is drawn."""
        name = f"{seed}\0{min(self.names)!r}"
        return -int(math.log2(max(self.weight, 1))), hashlib.blake2b(name.encode(errors="backslashreplace"), digest_size=8).digest()


def assign(rows: Iterable[RowKeys], shares: Mapping[str, float], *, seed: int = 0, measure: Measure = "rows") -> Splits:
    """Share rows out, whole groups at a time.

    Groups that have a row in common are one. Each goes, large ones first, to the split that lacks most, of its stratum and of everything together;
    and the last ones to splits that are still empty. The order of rows has no influence.

    Args:
        rows: their keys; read once.
        shares: by the name of the split, together 1.
        seed: another one gives another division.
        measure: of what the shares are.

    Raises:
        DataError: there are fewer groups than splits, or hours are to be shared out and no row has a duration.
    """
    groups = sorted(_connected(rows, measure), key=lambda group: group.order(seed))
    if len(groups) < len(shares):
        raise DataError(
            f"{len(groups)} groups of rows that must not part can't make {len(shares)} splits ({', '.join(shares)}): "
            f"ask for fewer splits, group by fewer keys, or add data"
        )
    total = sum(group.weight for group in groups)
    if not total:
        raise DataError("no row states its duration_s, so that hours can't be shared out: share out rows, or let `audiograft prepare` measure them")
    of_stratum = Counter[str]()
    for group in groups:
        of_stratum[group.stratum] += group.weight
    lacks = {name: share * total for name, share in shares.items()}
    lacks_of = {(name, stratum): share * weight for name, share in shares.items() for stratum, weight in of_stratum.items()}
    parts: dict[str, list[_Group]] = {name: [] for name in shares}
    for place, group in enumerate(groups):
        empty = [name for name, part in parts.items() if not part]
        names = empty if len(empty) == len(groups) - place else shares
        chosen = max(names, key=lambda name: lacks[name] + lacks_of[name, group.stratum])
        parts[chosen].append(group)
        lacks[chosen] -= group.weight
        lacks_of[chosen, group.stratum] -= group.weight
    sizes = {name: _size(part, shares[name], total) for name, part in parts.items()}
    return Splits(sizes, {key: name for name, part in parts.items() for group in part for key in group.names})


def _size(groups: Sequence[_Group], asked: float, total: int) -> SplitSize:
    strata = sum((group.strata for group in groups), Counter[str]())
    return SplitSize(
        asked=asked,
        reached=sum(group.weight for group in groups) / total,
        rows=strata.total(),
        hours=sum(group.duration_ms for group in groups) / 3_600_000,
        groups=len(groups),
        strata={name: count for name, count in sorted(strata.items()) if name},
    )


class _Forest:
    """Union-find over names, with path halving (Tarjan and van Leeuwen 1984)."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, str], int] = {}
        self._parents: list[int] = []

    def root(self, number: int) -> int:
        """The number that stands for all that are joined to one."""
        parents = self._parents
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number

    def join(self, names: Iterable[tuple[str, str]]) -> int:
        """Make one group of names, and of all that are joined to them."""
        roots = [self.root(self._number(name)) for name in names]
        for number in roots:
            self._parents[number] = roots[0]
        return roots[0]

    def _number(self, name: tuple[str, str]) -> int:
        if (number := self.numbers.setdefault(name, len(self._parents))) == len(self._parents):
            self._parents.append(number)
        return number


def _connected(rows: Iterable[RowKeys], measure: Measure) -> list[_Group]:
    """Groups, where those that share a row are one."""
    forest = _Forest()
    n_rows: dict[tuple[int, str], int] = defaultdict(int)
    durations_ms: dict[int, int] = defaultdict(int)
    for row in rows:
        number = forest.join(row.groups)
        n_rows[number, row.stratum] += 1
        durations_ms[number] += row.duration_ms
    groups: dict[int, _Group] = defaultdict(lambda: _Group(0, 0, [], Counter()))
    for name, number in forest.numbers.items():
        groups[forest.root(number)].names.append(name)
    for (number, stratum), count in n_rows.items():
        groups[forest.root(number)].strata[stratum] += count
    for number, duration_ms in durations_ms.items():
        groups[forest.root(number)].duration_ms += duration_ms
    for group in groups.values():
        group.weight = group.strata.total() if measure == "rows" else group.duration_ms
    return list(groups.values())
