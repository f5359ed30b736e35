"""Transcribing with many engines at once, each in a process of a cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Unpack

from audiograft.bulk import EngineName, spread
from audiograft.inference.batching import BATCHES_IN_FLIGHT
from audiograft.inference.decoding import DecodingOptions
from audiograft.inference.engine import Engine
from audiograft.types import TRANSCRIBE_PROMPT, AudioError, Transcript

log = logging.getLogger(__name__)
_Results = list[Transcript | AudioError]


def transcribe_spread(
    open_engine: Callable[[], Engine],
    sources: Sequence[str],
    *,
    engine: EngineName,
    address: str | None = None,
    workers: int | None = None,
    on_gpus: bool = True,
    batch_size: int = 8,
    prompt: str = TRANSCRIBE_PROMPT,
    on_result: Callable[[int, Transcript | AudioError], None] = lambda index, result: None,
    **decoding: Unpack[DecodingOptions],
) -> _Results:
    """What `Engine.transcribe_many` does, with an engine in each worker. Answers that are drawn may differ from those of one engine.

    Args:
        open_engine: called in each worker; for `ray` it has to go through cloudpickle.
        sources: paths of clips, which the workers have to see too.
        engine: see `audiograft.bulk.spread`.
        address: likewise.
        workers: likewise.
        on_gpus: likewise.
        batch_size: chunks that each worker decodes at once.
        prompt: the instruction.
        on_result: called with the index and result of each clip as it is done, in order.
        **decoding: as for `Engine.transcribe`.

    Returns:
        One result per source, in order.

    Raises:
        ConfigError: options of decoding that are out of range or exclude each other, or the engine can't be used.
        DataError: the prompt contains the audio placeholder.
    """
    # As many as an engine takes before it sorts them by length, so that the batches are those of one engine.
    size = batch_size * BATCHES_IN_FLIGHT
    parts = (sources[start : start + size] for start in range(0, len(sources), size))
    make_worker = partial(_worker, open_engine, partial(_transcribe, batch_size=batch_size, prompt=prompt, decoding=decoding))
    results: _Results = []
    told: set[str] = set()
    for done, messages in spread(make_worker, parts, engine=engine, address=address, workers=workers, on_gpus=on_gpus):
        for message in messages:
            if message not in told:
                log.warning("%s", message)
                told.add(message)
        for result in done:
            results.append(result)
            on_result(len(results) - 1, result)
    return results


def _worker(
    open_engine: Callable[[], Engine], work: Callable[[Engine, Sequence[str]], tuple[_Results, list[str]]]
) -> Callable[[Sequence[str]], tuple[_Results, list[str]]]:
    return partial(work, open_engine())


def _transcribe(engine: Engine, sources: Sequence[str], batch_size: int, prompt: str, decoding: DecodingOptions) -> tuple[_Results, list[str]]:
    """Results, and what has to be said about them: a worker's own stderr is read by nobody."""
    with _heard() as messages:
        results = engine.transcribe_many(list(sources), batch_size=batch_size, prompt=prompt, **decoding)
    return results, [*([f"note: {engine.note}"] if engine.note else []), *messages]


class _Collector(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What the package logs as warnings meanwhile."""
    handler = _Collector(logging.WARNING)
    logger = logging.getLogger("audiograft")
    logger.addHandler(handler)
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)
