"""Batches of similar length under a token budget. The partition is fixed per run; epochs only reorder it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset, Sampler

from audiograft.model.outputs import IGNORE_INDEX
from audiograft.types import ConfigError


@dataclass(frozen=True, eq=False)
class Batches(Sequence[list[int]]):
    """Row numbers of each batch, 8 bytes a row.

    Attributes:
        rows: (rows,) numbers, one batch behind the other.
        ends: (batches,) where in `rows` each batch ends.
    """

    rows: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, number: int) -> list[int]: ...
    @overload
    def __getitem__(self, number: slice) -> list[list[int]]: ...
    def __getitem__(self, number: int | slice) -> list[int] | list[list[int]]:
        if isinstance(number, slice):
            return [self[index] for index in range(len(self))[number]]
        number = range(len(self))[number]
        batch: list[int] = self.rows[self.ends[number - 1] if number else 0 : self.ends[number]].tolist()
        return batch


def partition(positions: npt.ArrayLike, tokens_per_batch: int, seed: int) -> Batches:
    """Split rows into batches whose padded size, rows times longest row, stays within the budget.

    Rows are sorted by length, which makes pads rare, and cut greedily; the seed decides which of equally long rows come together.

    Args:
        positions: (rows,) of each row in the language model.
        tokens_per_batch: the budget.
        seed: of the run.

    Returns:
        Row numbers of each batch; every row is in exactly one.

    Raises:
        ConfigError: a row that is longer than the budget.
    """
    lengths = np.asarray(positions, dtype=np.int64)
    if lengths.max() > tokens_per_batch:
        raise ConfigError(f"tokens_per_batch: {tokens_per_batch} is less than the longest row takes: set it to {lengths.max()} or more")
    rows = np.random.default_rng(seed).permutation(len(lengths))
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    lengths = lengths[rows]
    ends: list[int] = []
    start = 0
    while start < len(rows):
        # Sorted upwards, so that the newest row is the longest of its batch, and no batch has more rows than its first row allows.
        most = lengths[start : start + tokens_per_batch // int(lengths[start])]
        start += int(np.searchsorted(most * np.arange(1, len(most) + 1), tokens_per_batch, side="right"))
        ends.append(start)
    return Batches(rows, np.array(ends))


class BatchSource(Protocol):
    """Where a run's batches come from, in the order in which one process would take them."""

    def start_at(self, epoch: int, batch: int) -> None:
        """Go on at a batch of an epoch, without a look at those before it."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def batches(self, process: int, processes: int) -> Iterator[list[Any]]:
        """The rest of the epoch: of each turn of as many batches as there are processes, that of this one."""


class TokenBatchSampler:
    """Yields the batches of `partition` in an order that depends on seed and epoch alone, so that a resumed run sees the same."""

    def __init__(self, batches: Batches, seed: int, n_rows: int | None = None) -> None:
        self._batches = batches
        self._seed = seed
        self._epoch = 0
        self._first = 0
        self._n_rows = len(batches.rows)

    def start_at(self, epoch: int, batch: int) -> None:
        """Choose the order, and how many batches of it are done. Nothing before is looked at, so that it costs the same anywhere."""
        self._epoch, self._first = epoch, batch

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        return self.batches(0, 1)
