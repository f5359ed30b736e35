"""Batches of similar length under a token budget. The partition is fixed per run; epochs only reorder it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset, Sampler

from audiograft.model.outputs import IGNORE_INDEX
from audiograft.types import ConfigError


@dataclass(frozen=True, eq=False)
class Batches(Sequence[list[int]]):
    """Row numbers of each batch, 4 bytes a row.

    Attributes:
        rows: (rows,) numbers, one batch behind the other.
        ends: (batches,) where in `rows` each batch ends.
    """

    rows: npt.NDArray[np.uint32]
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


def partition(positions: npt.ArrayLike, tokens_per_batch: int, seed: int | tuple[int, ...], stretch: float = 1.0) -> Batches:
    """Split rows into batches whose padded size, rows times longest row, stays within the budget.

    Rows are sorted by length, which makes pads rare, and cut greedily; the seed decides which of equally long rows come together.

    Args:
        positions: (rows,) of each row in the language model.
        tokens_per_batch: the budget.
        seed: of the run, or of a part of it.
        stretch: by how much augmentation may make a row longer.

    Returns:
        Row numbers of each batch; every row is in exactly one.

    Raises:
        ConfigError: a row that is longer than the budget.
    """
    lengths = np.ceil(np.asarray(positions) * stretch).astype(np.uint32)
    if lengths.max() > tokens_per_batch:
        raise ConfigError(f"tokens_per_batch: {tokens_per_batch} is less than the longest row takes: set it to {lengths.max()} or more")
    rows = np.random.default_rng(seed).permutation(np.arange(len(lengths), dtype=np.uint32))
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


def mixed(manifest_of: npt.NDArray[Any], weights: Sequence[float], seed: int) -> npt.NDArray[np.int64]:
    """Numbers of the rows of an epoch, each as often as the weight of its manifest says; the same in each epoch.

    Of a manifest with n rows and the weight w, each row comes floor(w) times, and round(n * (w - floor(w))) rows, drawn by the seed, once more.

    Args:
        manifest_of: (rows,) number of the manifest of each row.
        weights: of the manifests.
        seed: of the run.
    """
    parts = []
    for number, weight in enumerate(weights):
        rows = np.flatnonzero(manifest_of == number)
        whole = int(weight)
        # Half up, where Python's round would go to the even number.
        more = int(np.floor(len(rows) * (weight - whole) + 0.5))
        drawn = np.random.default_rng((seed, number)).permutation(len(rows))[:more]
        parts.append(np.sort(np.concatenate([np.repeat(rows, whole), rows[drawn]])))
    return np.concatenate(parts)


class TokenBatchSampler(Sampler[list[int]]):
    """Yields the batches of `partition` in an order that depends on seed and epoch alone, so that a resumed run sees the same.

    Attributes:
        done: batches of the epoch that each process has had before the run was resumed.
    """

    def __init__(self, batches: Sequence[list[int]], seed: int) -> None:
        self.batches = batches
        self.seed = seed
        self.epoch = 0
        self.done = 0

    def start_at(self, epoch: int, done: int = 0) -> None:
        """Choose the order, and where in it to begin."""
        self.epoch, self.done = epoch, done

    def order(self) -> npt.NDArray[np.int64]:
        """(batches,) numbers of the batches of the whole epoch."""
        return np.random.default_rng((self.seed, self.epoch)).permutation(len(self.batches))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (self.batches[batch] for batch in self.order())


def muted(item: dict[str, Any]) -> dict[str, Any]:
    """An example without labels, and what a teacher reads likewise."""
    changed: dict[str, Any] = {"labels": [IGNORE_INDEX] * len(item["labels"]), "audio_s": 0.0}
    return item | changed | ({"teacher": muted(item["teacher"])} if "teacher" in item else {})


class WithMutedRows(Dataset[dict[str, Any]]):
    """A data set followed by itself without labels: row number `len + n` is row n, from which nothing is learnt."""

    def __init__(self, dataset: Dataset[dict[str, Any]], rows: int) -> None:
        self.dataset = dataset
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < self.rows:
            return self.dataset[index]
        return muted(self.dataset[index - self.rows])


class ProcessShare(Sampler[list[int]]):
    """One process's part of the batches: the first process takes the first batch, the second one the second, and so on in turns.

    So that n processes learn from the same batches in a step as one process with n times the accumulation. Where an epoch does not come out even,
    the processes behind get a muted row (see `WithMutedRows`), since all have to take each step together.
    """

    def __init__(self, sampler: TokenBatchSampler, rows: int, process: int, processes: int) -> None:
        self.sampler = sampler
        self.rows = rows
        self.process = process
        self.processes = processes

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.processes)

    def __iter__(self) -> Iterator[list[int]]:
        # The Trainer counts off what a resumed epoch has had: empty batches, so that it costs the same anywhere in an epoch.
        yield from itertools.repeat([], self.sampler.done)
        order = self.sampler.order()
        for turn in range(self.sampler.done * self.processes, len(order), self.processes):
            own = turn + self.process
            yield self.sampler.batches[order[own]] if own < len(order) else [self.rows + self.sampler.batches[order[turn]][0]]
