"""Which requests share a batch, and how many are under way at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from audiograft.types import MediaError

Item = TypeVar("Item")
Result = TypeVar("Result")
Refusal = TypeVar("Refusal", bound=MediaError)

BATCHES_IN_FLIGHT = 8
"""So many batches are collected before decoding, to be sorted by length."""
MAX_BATCH_VALUES = 2**26
"""Of the pictures in a batch, as the model takes them: 256 MB, or eleven images of a megapixel for Qwen2-VL; one that has more is alone."""


def similar_batches(
    kinds: Sequence[tuple[int, ...]], n_samples: Sequence[int], batch_size: int, n_values: Sequence[int] | None = None
) -> Iterator[list[int]]:
    """Numbers of requests of one kind and of similar length, the shortest first.

    Text alone must never be mixed with audio: a model whose own LoRA works on audio alone (Granite Speech) has it on or off for a whole batch.

    Args:
        kinds: of each request, by what must be equal in a batch; whether it has audio is part of it, and whether it has pictures, since these take
            far more positions than a question.
        n_samples: of all clips of each request.
        batch_size: requests in a batch at most.
        n_values: numbers that the pictures of each request are, of which a batch has at most `MAX_BATCH_VALUES`; none by default.
    """
    values = n_values or [0] * len(kinds)
    batch: list[int] = []
    for i in sorted(range(len(kinds)), key=lambda i: (kinds[i], values[i], n_samples[i])):
        full = len(batch) == batch_size or sum(values[row] for row in batch) + values[i] > MAX_BATCH_VALUES
        if batch and (full or kinds[i] != kinds[batch[0]]):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def rows_worth(n_values: int, batch_size: int) -> int:
    """Rows of a batch for which a request with so many numbers in its pictures counts while it waits: what it takes of the memory of a batch."""
    return max(1, math.ceil(batch_size * n_values / MAX_BATCH_VALUES))


def in_flight(
    count: int,
    prepare_item: Callable[[int], Item],
    run: Callable[[list[Item]], Iterable[Result]],
    size: Callable[[Item], int],
    batch_size: int,
    refusal: type[Refusal],
    on_result: Callable[[int, Result | Refusal], None],
) -> list[Result | Refusal]:
    """Prepare items and run some batches of them together; one that can't be prepared gives its error and the others go on.

    Args:
        count: of all items.
        prepare_item: from its number; may raise `refusal`.
        run: gives one result an item, in order.
        size: of an item, in rows of a batch; what has large pictures may count for several.
        batch_size: rows in a batch.
        refusal: the error that stands for an item.
        on_result: called with number and result of each item as it is done, which need not be in order.

    Returns:
        One result an item, in order.
    """
    results: dict[int, Result | Refusal] = {}
    waiting: dict[int, Item] = {}

    def finish(index: int, result: Result | Refusal) -> None:
        results[index] = result
        on_result(index, result)

    def run_waiting() -> None:
        for index, result in zip(waiting, run(list(waiting.values())), strict=True):
            finish(index, result)
        waiting.clear()

    for index in range(count):
        try:
            waiting[index] = prepare_item(index)
        except refusal as error:
            finish(index, error)
        if sum(map(size, waiting.values())) >= batch_size * BATCHES_IN_FLIGHT:
            run_waiting()
    run_waiting()
    return [results[index] for index in range(count)]
