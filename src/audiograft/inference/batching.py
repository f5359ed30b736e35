"""Which requests share a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


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
