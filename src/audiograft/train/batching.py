"""Batches of similar length under a token budget. The partition is fixed per run; epochs only reorder it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

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
