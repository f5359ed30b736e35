"""Which requests share a batch, and how many are under way at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from audiograft.types import AudioError

Item = TypeVar("Item")
Result = TypeVar("Result")

BATCHES_IN_FLIGHT = 8
"""So many batches are collected before decoding, to be sorted by length."""


def similar_batches(kinds: Sequence[tuple[int, bool]], n_samples: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Numbers of requests of one kind and of similar length, the shortest first.

    Text alone must never be mixed with audio: a model whose own LoRA works on audio alone (Granite Speech) has it on or off for a whole batch.

    Args:
        kinds: of each request, by what must be equal in a batch; whether it has audio is part of it.
        n_samples: of all clips of each request.
        batch_size: requests in a batch at most.
    """
    batch: list[int] = []
    for i in sorted(range(len(kinds)), key=lambda i: (kinds[i], n_samples[i])):
        if batch and (len(batch) == batch_size or kinds[i] != kinds[batch[0]]):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def in_flight(
    count: int,
    prepare_item: Callable[[int], Item],
    run: Callable[[list[Item]], Iterable[Result]],
    size: Callable[[Item], int],
    batch_size: int,
    on_result: Callable[[int, Result | AudioError], None],
) -> list[Result | AudioError]:
    """Prepare items and run some batches of them together; one that can't be prepared gives its error and the others go on.

    Args:
        count: of all items.
        prepare_item: from its number; may raise AudioError.
        run: gives one result an item, in order.
        size: of an item, in rows of a batch.
        batch_size: rows in a batch.
        on_result: called with number and result of each item as it is done, which need not be in order.

    Returns:
        One result an item, in order.
    """
    results: dict[int, Result | AudioError] = {}
    waiting: dict[int, Item] = {}

    def finish(index: int, result: Result | AudioError) -> None:
        results[index] = result
        on_result(index, result)

    def run_waiting() -> None:
        for index, result in zip(waiting, run(list(waiting.values())), strict=True):
            finish(index, result)
        waiting.clear()

    for index in range(count):
        try:
            waiting[index] = prepare_item(index)
        except AudioError as error:
            finish(index, error)
        if sum(map(size, waiting.values())) >= batch_size * BATCHES_IN_FLIGHT:
            run_waiting()
    run_waiting()
    return [results[index] for index in range(count)]
