from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.train.batching import TokenBatchSampler, partition
from audiograft.types import ConfigError


@given(positions=st.lists(st.integers(1, 200), min_size=1, max_size=80), slack=st.integers(0, 500), seed=st.integers(0, 2**31))
def test_each_row_is_in_one_batch_and_no_batch_is_over_budget(positions: list[int], slack: int, seed: int) -> None:
    budget = max(positions) + slack
    batches = partition(positions, budget, seed)
    assert sorted(row for batch in batches for row in batch) == list(range(len(positions)))
    assert all(len(batch) * max(positions[row] for row in batch) <= budget for batch in batches)


def test_batches_hold_rows_of_similar_length() -> None:
    positions = [10, 100] * 20
    batches = partition(positions, 200, seed=1)
    assert sum(len({positions[row] for row in batch}) > 1 for batch in batches) <= 1


def test_epochs_only_reorder_the_batches() -> None:
    sampler = TokenBatchSampler(partition([7] * 60, 21, seed=3), seed=3)
    epochs = []
    for epoch in range(3):
        sampler.start_at(epoch)
        epochs.append(list(sampler))
    assert epochs[0] != epochs[1] != epochs[2]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    sampler.start_at(1)
    assert list(sampler) == epochs[1]
    assert len(sampler) == len(epochs[0]) == 20


def test_the_seed_decides_which_rows_come_together() -> None:
    first, again, other = (list(partition([7] * 60, 21, seed)) for seed in (3, 3, 4))
    assert first == again != other


def test_a_row_over_the_budget_is_an_error_that_says_what_would_do() -> None:
    with pytest.raises(ConfigError, match="tokens_per_batch: 100 is less than the longest row takes: set it to 101 or more"):
        partition([5, 101], 100, seed=0)
