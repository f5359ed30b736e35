"""Batches of similar length under a token budget. The partition is fixed per run; epochs only reorder it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from audiograft.model.outputs import IGNORE_INDEX
from audiograft.types import ConfigError


def partition(positions: Sequence[int], tokens_per_batch: int, seed: int) -> list[list[int]]:
    """Split rows into batches whose padded size, rows times longest row, stays within the budget.

    Rows are sorted by length, which makes pads rare, and cut greedily; the seed decides which of equally long rows come together.

    Args:
        positions: of each row in the language model.
        tokens_per_batch: the budget.
        seed: of the run.

    Returns:
        Row numbers of each batch; every row is in exactly one.

    Raises:
        ConfigError: a row that is longer than the budget.
    """
    if max(positions) > tokens_per_batch:
        raise ConfigError(f"tokens_per_batch: {tokens_per_batch} is less than the longest row takes: set it to {max(positions)} or more")
    shuffled = np.random.default_rng(seed).permutation(len(positions))
    batches: list[list[int]] = [[]]
    for row in sorted(shuffled.tolist(), key=lambda row: positions[row]):
        # Sorted upwards, so that the newest row is the longest of its batch.
        if positions[row] * (len(batches[-1]) + 1) > tokens_per_batch:
            batches.append([])
        batches[-1].append(row)
    return batches


class TokenBatchSampler(Sampler[list[int]]):
    """Yields the batches of `partition` in an order that depends on seed and epoch alone, so that a resumed run sees the same."""

    def __init__(self, batches: list[list[int]], seed: int) -> None:
        self.batches = batches
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; accelerate and the Trainer call this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in np.random.default_rng((self.seed, self.epoch)).permutation(len(self.batches)):
            yield self.batches[batch]


def _muted(item: dict[str, Any]) -> dict[str, Any]:
    """An example without labels, and what a teacher reads likewise."""
    changed: dict[str, Any] = {"labels": [IGNORE_INDEX] * len(item["labels"]), "audio_s": 0.0}
    return item | changed | ({"teacher": _muted(item["teacher"])} if "teacher" in item else {})


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
        return _muted(self.dataset[index - self.rows])


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
        batches = list(self.sampler)
        for turn in range(0, len(batches), self.processes):
            own = turn + self.process
            yield batches[own] if own < len(batches) else [self.rows + batches[turn][0]]
