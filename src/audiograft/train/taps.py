"""Sources that are read over and over, and how several share a window."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audiograft.data.options import PrepareOptions
from audiograft.data.sources.base import Source, SourceRow, missing_package
from audiograft.types import AudiograftError, ConfigError, DataError, Rejection

UNREAD = ("audio", "max_rejected", "skip_missing", "workers", "engine", "address", "max_repeats")
"""Options of `prepare` that mean nothing to a stream: it writes no clips, has one share of rejected rows for all sources, and remembers no texts."""
_TRIES = 4
_FIRST_WAIT_S = 1.0


@dataclass(frozen=True)
class Streamed:
    """A source of a stream.

    Attributes:
        source: is read from its front again when it has ended.
        options: which of its rows are taken, and in which form.
        weight: its share of the rows against those of the others.
    """

    source: Source
    options: PrepareOptions
    weight: float


class Tap:
    """The rows of a source, over and over.

    Attributes:
        place: how often it was read to its end, and how many rows were read since.
    """

    def __init__(self, streamed: Streamed, place: tuple[int, int]) -> None:
        self.place = place
        self._source, self._options = streamed.source, streamed.options
        self._rows: Iterator[SourceRow | Rejection] | None = None
        self._failed = 0

    def take(self, count: int) -> Iterator[SourceRow | Rejection]:
        """So many rows.

        Raises:
            DataError: the source has none, or broke off again and again.
        """
        while count:
            n_passes, row_number = self.place
            try:
                if self._rows is None:
                    left = None if self._options.limit is None else self._options.limit - row_number
                    self._rows = itertools.islice(self._source.rows(skip=self._options.skip + row_number), left)
                row = next(self._rows)
            except StopIteration:
                if not row_number:
                    raise DataError(f"{self._source.name}: no rows: the source is empty, or skip passes over all of it") from None
                self.place, self._rows = (n_passes + 1, 0), None
            except AudiograftError:
                raise
            except ImportError as error:
                raise missing_package(self._source, error) from error
            except Exception as error:  # whatever a network or a library may raise
                self._wait(error)
            else:
                self.place, self._failed = (n_passes, row_number + 1), 0
                count -= 1
                yield row

    def _wait(self, error: Exception) -> None:
        self._rows, self._failed = None, self._failed + 1
        if self._failed == _TRIES:
            reason = f"{type(error).__name__}: {error}"
            raise DataError(
                f"{self._source.name}: broke off behind row {self.place[1]} ({reason}): the same command goes on from the last checkpoint"
            ) from error
        time.sleep(_FIRST_WAIT_S * 2 ** (self._failed - 1))


def apportioned(weights: Sequence[float], count: int) -> list[int]:
    """`count` rows in proportion to the weights, by the largest remainders.

    Raises:
        ConfigError: one would get none.
    """
    exact = [count * weight / sum(weights) for weight in weights]
    quotas = [int(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda number: quotas[number] - exact[number])
    for number in by_remainder[: count - sum(quotas)]:
        quotas[number] += 1
    if not all(quotas):
        raise ConfigError(f"data.train: a weight of {min(weights):g} beside {max(weights):g} is less than one row in {count}: bring them closer")
    return quotas
