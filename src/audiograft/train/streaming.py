"""Rows that are learnt while they are read: for corpora that are too large to be prepared or indexed.

A window of rows is read from the sources, in their order and in proportion to their weights. Within it rows are checked, tokenised, sorted by
length, cut into batches and shuffled by seed and window. Where a run is resumed, the window that it was in is read again, and nothing before.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from audiograft.bulk import spread
from audiograft.data.augment.chain import Augmenter
from audiograft.data.clips import flac_bytes
from audiograft.data.counting import HashCounter
from audiograft.data.examine import Examiner
from audiograft.data.prompts import read_prompts
from audiograft.data.sources.base import SourceRow
from audiograft.data.traces import Trace, TraceWriter, are_complete, make_trace
from audiograft.train.batching import partition
from audiograft.train.checkpoints import writing
from audiograft.train.dataset import SpeechDataset
from audiograft.train.index import Rules
from audiograft.train.rows import Row
from audiograft.train.taps import Streamed, Tap, apportioned
from audiograft.types import ConfigError, DataError, Rejection

WINDOW_ROWS = 1024
"""Held in memory at once: of clips of 10 s that are no files of their own, as FLAC, some 200 MB."""
CURSOR = "stream.json"
"""In a checkpoint: where the stream goes on."""
_LEAKAGE = "leakage"


@dataclass(frozen=True)
class Cursor:
    """Where a window begins.

    Attributes:
        window: its number.
        first_batch: number of its first batch, over all processes.
        places: of each source, how often it was read to its end, and how many of its rows were read since.
        n_read: rows that were read before it.
        n_rejected: of these, rows that can't be used.
        n_traces: traces that training.traces held before it.
        checksum: of the window's rows, by which a stream that has changed is known; 0 before it was read.
        n_held_out: of the rejected rows, those that share with held-out data what is not allowed.
    """

    window: int = 0
    first_batch: int = 0
    places: tuple[tuple[int, int], ...] = ()
    n_read: int = 0
    n_rejected: int = 0
    n_traces: int = 0
    checksum: int = 0
    n_held_out: int = 0

    @classmethod
    def read(cls, checkpoint: Path) -> Cursor:
        """The cursor that a checkpoint holds.

        Raises:
            ConfigError: it holds none.
        """
        try:
            stored = json.loads((checkpoint / CURSOR).read_text(encoding="utf-8"))
            return cls(**stored | {"places": tuple((int(n_passes), int(row)) for n_passes, row in stored["places"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{checkpoint / CURSOR} can't be read: delete {checkpoint} to go on from the one before") from error

    def write(self, checkpoint: Path) -> None:
        """Put it into a checkpoint."""
        (checkpoint / CURSOR).write_text(json.dumps(asdict(self)), encoding="utf-8")


class _Listener:
    """Makes rows of what sources give; each worker has its own."""

    def __init__(self, streams: Sequence[Streamed], rules: Rules, forbidden: Callable[[Trace], str | None], most_positions: float) -> None:
        self._examiners = [Examiner(item.options, read_prompts(item.options.prompts) if item.options.prompts else []) for item in streams]
        self._names = [str(getattr(item.source, "path", item.source.name)) for item in streams]
        self._rules = rules
        self._forbidden = forbidden
        self._most_positions = most_positions

    def __call__(self, item: tuple[int, SourceRow | Rejection]) -> tuple[Row, Trace] | Rejection:
        number, given = item
        heard = self._examiners[number].listen(given)
        if isinstance(heard, Rejection):
            return heard
        assert isinstance(given, SourceRow)
        waveforms = [clip.waveform for clip in heard.clips]
        trace = make_trace(heard.sample, waveforms, heard.pictures)
        reject = partial(Rejection, heard.sample.id, heard.sample.audio or heard.sample.id)
        if (reason := self._forbidden(trace)) is not None:
            return reject(reason, _LEAKAGE)
        try:
            row = self._rules.check(heard.sample, trace.clips)
        except DataError as error:  # no rejection, but the end of the run
            raise DataError(f"{self._names[number]}: {error}") from error
        if isinstance(row, Rejection):
            return row
        if row.positions > self._most_positions:
            return reject(f"takes {row.positions} positions, more than the {self._most_positions:.0f} that tokens_per_batch leaves: raise it", "long")
        # A part of a clip is kept as such: an hour need not be decoded for each of its sentences.
        return replace(row, audio=given.audio if given.span is None else flac_bytes(waveforms[0])), trace


class StreamSampler(Sampler[list[Row]]):
    """Batches of a stream, one behind the other; there is one epoch, which ends with the run.

    Args:
        streams: what is read.
        rules: which rows are taken.
        forbidden: why a row may not be learnt, such as that it is held out; None where it may.
        tokens_per_batch: positions in one batch, pads included.
        stretch: by how much augmentation may make a row longer.
        seed: of the run.
        n_batches: that each process takes in the whole run.
        rejected: file to which rows that can't be used are appended; None for nowhere.
        max_rejected: share of such rows above which the run is given up; those that are forbidden don't count towards it.
        traces: file to which the traces of rows are appended when they come for the first time; None for nowhere.
        cursor: where the run begins, or goes on.
    """

    def __init__(
        self,
        streams: Sequence[Streamed],
        rules: Rules,
        forbidden: Callable[[Trace], str | None],
        *,
        tokens_per_batch: int,
        stretch: float,
        seed: int,
        n_batches: int,
        rejected: Path | None,
        max_rejected: float,
        traces: Path | None,
        cursor: Cursor,
    ) -> None:
        self._streams = streams
        self._quotas = apportioned([item.weight for item in streams], WINDOW_ROWS)
        self._make_worker = partial(_Listener, streams, rules, forbidden, tokens_per_batch / stretch)
        self._tokens_per_batch = tokens_per_batch
        self._stretch = stretch
        self._seed = seed
        self._n_batches = n_batches
        self._rejected = rejected
        self._max_rejected = max_rejected
        self._named = _names_in(rejected)
        self._traces = traces
        self._cursors = [replace(cursor, places=cursor.places or tuple((0, 0) for _ in streams))]
        self._done = 0

    @property
    def n_rows(self) -> int:
        """Usable rows that were read so far."""
        return self._cursors[-1].n_read - self._cursors[-1].n_rejected

    @property
    def n_rejected(self) -> int:
        """Rows that could not be used."""
        return self._cursors[-1].n_rejected

    def start_at(self, epoch: int, done: int = 0) -> None:
        """How many batches each process has had."""
        self._done = done

    def __len__(self) -> int:
        return self._n_batches

    def __iter__(self) -> Iterator[list[Row]]:
        return iter(StreamShare(self, 0, 1))

    def share_of(self, process: int, processes: int) -> Iterator[list[Row]]:
        """The batches of one process, which takes them in turns with the others; see `ProcessShare`."""
        # The Trainer counts off what was done: empty batches.
        yield from itertools.repeat([], self._done)
        number = self._cursors[0].first_batch
        left = self._n_batches - self._done
        for batch in self._batches():
            if number >= self._done * processes and number % processes == process:
                yield batch
                left -= 1
            if not left:
                return
            number += 1

    def cursor(self, batch: int) -> Cursor:
        """That of the window which holds a batch; those before are forgotten."""
        # Windows without a usable row begin at the same batch as the one behind them.
        own = max((item for item in self._cursors if item.first_batch <= batch), key=lambda item: item.window)
        self._cursors = [item for item in self._cursors if item.window >= own.window]
        return own

    def _batches(self) -> Iterator[list[Row]]:
        with nullcontext() if self._traces is None else _appending(self._traces, self._cursors[0].n_traces) as traces:
            taps = [Tap(streamed, place) for streamed, place in zip(self._streams, self._cursors[0].places, strict=True)]
            del self._cursors[1:]
            while True:
                yield from self._batches_of(taps, traces)

    def _batches_of(self, taps: Sequence[Tap], traces: TraceWriter | None) -> Iterator[list[Row]]:
        """Those of the next window."""
        start = self._cursors[-1]
        rows, counts = self._window(taps, traces)
        checksum = zlib.crc32(repr([(row.sample.id, row.checksum) for row in rows]).encode())
        if start.checksum not in (0, checksum):
            raise DataError("data.streaming: the sources give other rows than before the run was interrupted: start anew in another output_dir")
        self._cursors[-1] = replace(start, checksum=checksum)
        seed = (self._seed, start.window)
        batches = partition([row.positions for row in rows], self._tokens_per_batch, seed, self._stretch) if rows else ()
        after = Cursor(
            window=start.window + 1,
            first_batch=start.first_batch + len(batches),
            places=tuple(tap.place for tap in taps),
            n_read=start.n_read + WINDOW_ROWS,
            n_rejected=start.n_rejected + counts["rejected"],
            n_traces=start.n_traces + counts["new"],
            n_held_out=start.n_held_out + counts["held out"],
        )
        self._require_enough(after)
        self._cursors.append(after)
        for batch in np.random.default_rng(seed).permutation(len(batches)):
            yield [rows[row] for row in batches[batch]]

    def _window(self, taps: Sequence[Tap], traces: TraceWriter | None) -> tuple[list[Row], Counter[str]]:
        """The usable rows of a window; how many were rejected, how many of these held out, and how many of the usable ones are new."""
        passes: deque[int] = deque()
        rows: list[Row] = []
        counts: Counter[str] = Counter()
        with closing(spread(self._make_worker, self._items(taps, passes))) as results:
            for result in results:
                is_new = not passes.popleft()
                if isinstance(result, Rejection):
                    counts["rejected"] += 1
                    counts["held out"] += result.kind == _LEAKAGE
                    self._name(result)
                    continue
                row, trace = result
                rows.append(replace(row, window=self._cursors[-1].window))
                counts["new"] += is_new
                if is_new and traces is not None:
                    traces.append(trace)
        if traces is not None:
            traces.flush()
        return rows, counts

    def _items(self, taps: Sequence[Tap], passes: deque[int]) -> Iterator[tuple[int, SourceRow | Rejection]]:
        """The rows of a window by the number of their source; `passes` gets how often this was read to its end before."""
        for number, (tap, quota) in enumerate(zip(taps, self._quotas, strict=True)):
            for row in tap.take(quota):
                passes.append(tap.place[0])
                yield number, row

    def _name(self, rejection: Rejection) -> None:
        line = json.dumps(vars(rejection), ensure_ascii=False)
        # A source is read more than once, and so is a window where the run is resumed.
        if self._rejected is None or self._named.add(line) > 1:
            return
        with (
            writing(self._rejected, "the list of rejected rows"),
            self._rejected.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
        ):
            file.write(line + "\n")

    def _require_enough(self, after: Cursor) -> None:
        # That rows are held out is no fault of theirs, and nothing that could be mended.
        n_read, n_faulty = after.n_read, after.n_rejected - after.n_held_out
        if n_faulty > self._max_rejected * n_read:
            besides = f", besides {after.n_held_out} that are held out" if after.n_held_out else ""
            where = "" if self._rejected is None else f", see {self._rejected}"
            raise DataError(
                f"{n_faulty} of the {n_read} rows that were read can't be used{besides}{where}: "
                f"mend them, or allow more than data.max_rejected {self._max_rejected:g}"
            )
        if after.n_rejected == n_read:
            raise DataError(f"data.train: none of {n_read} rows can be used: see {self._rejected}")


def _appending(path: Path, records: int) -> TraceWriter:
    """Behind so many traces of a file; what was behind them comes again."""
    return TraceWriter(path, records, are_complete(path))


def _names_in(path: Path | None) -> HashCounter:
    """The lines of a file."""
    names = HashCounter()
    if path is not None and path.is_file():
        with path.open(encoding="utf-8") as file:
            for line in file:
                names.add(line.removesuffix("\n"))
    return names


class StreamShare(Sampler[list[Row]]):
    """One process's part of a stream's batches."""

    def __init__(self, sampler: StreamSampler, process: int, processes: int) -> None:
        self._sampler = sampler
        self._process = process
        self._processes = processes

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[list[Row]]:
        return self._sampler.share_of(self._process, self._processes)


class StreamedDataset(SpeechDataset):
    """Training examples of rows that were read: a row stands for its own number."""

    def __init__(self, processor: Any, augmenter: Augmenter | None = None) -> None:
        super().__init__(_Themselves(), processor, augmenter=augmenter)

    def _place(self, index: Any, row: Row) -> str:
        return f"{row.window}/{row.sample.id}"


class _Themselves(Sequence[Any]):
    """What is asked for."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, row: Any) -> Any:
        return row
