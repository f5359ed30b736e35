from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiograft.train.batching import ProcessShare, TokenBatchSampler, partition
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


class Counted(list[list[int]]):
    """Batches that remember how often one was asked for."""

    asked = 0

    def __getitem__(self, number):
        self.asked += 1
        return super().__getitem__(number)


@pytest.mark.parametrize("processes", [1, 3])
def test_what_is_done_of_an_epoch_is_passed_over_without_a_look(processes: int) -> None:
    batches = Counted([number] for number in range(1000))
    sampler = TokenBatchSampler(batches, seed=3)
    sampler.start_at(2)
    whole = [list(ProcessShare(sampler, 1000, process, processes)) for process in range(processes)]
    batches.asked = 0
    done = 1000 // processes - 10
    sampler.start_at(2, done)
    rest = [list(ProcessShare(sampler, 1000, process, processes)) for process in range(processes)]
    # The Trainer counts batches off, so they come, but empty.
    assert [share[:done] for share in rest] == [[[]] * done] * processes
    assert [share[done:] for share in rest] == [share[done:] for share in whole]
    assert batches.asked <= 3 * 11 * processes


def test_batches_are_a_sequence() -> None:
    batches = partition([3, 1, 2], 3, seed=0)
    assert [len(batch) for batch in batches] == [1, 1, 1]
    assert batches[-1] == batches[2] == [0]
    assert batches[1:] == [[2], [0]]
    with pytest.raises(IndexError):
        batches[3]
