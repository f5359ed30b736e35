"""The file that keeps the verdicts: append-only, one line an event, on the disk before the answer is given."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from audiograft.audit.verdicts import Event, Undo, Verdict, read_event
from audiograft.data.manifest import parse_line
from audiograft.types import DataError

_LOGGER = logging.getLogger(__name__)


class UnsavedError(DataError):
    """A verdict that could not be written down."""


class VerdictLog:
    """The verdicts on one run, in a file to which several raters and processes may append at once.

    What was appended by others is seen at each call. A last line that was being written when a process died is no verdict; it is passed over, and
    cut off before the next one is written.
    """

    def __init__(self, path: Path, fingerprint: str, ids: Collection[str] | None = None, on_note: Callable[[str], None] = _LOGGER.warning) -> None:
        """Read what there is; the file is made by the first verdict.

        Args:
            path: of the file.
            fingerprint: of the run.
            ids: of its clips; a verdict about any other is refused. None knows none and takes all.
            on_note: told in a line of what was mended.

        Raises:
            DataError: the file can't be read, belongs to another run, or has a broken line; names the line.
        """
        self.path = path
        self.fingerprint = fingerprint
        self._ids = ids
        self._on_note = on_note
        self._thread_lock = threading.RLock()
        self._reset(None)
        with self._thread_lock:
            self._catch_up()

    def _reset(self, inode: int | None) -> None:
        self._inode = inode
        self._modified_ns = 0
        self._offset = 0  # behind the last line that was taken
        self._n_lines = 0
        self._standing: dict[str, list[Verdict]] = {}  # by rater: those not undone, oldest first
        self._events: set[Event] = set()
        self._arrived: dict[str, Verdict | None] = {}  # by event_id: of an undo, what it took back
        self._noted = False

    def append(self, verdict: Verdict) -> None:
        """Write a verdict down; it is on the disk when this returns. One whose `event_id` was written down before is not written again.

        Raises:
            UnsavedError: it could not be written; the file is as it was.
            DataError: the file does not fit any more, see `__init__`.
        """
        with self._thread_lock, self._locked_for_writing() as descriptor:
            if verdict.event_id is None or verdict.event_id not in self._arrived:
                self._write(descriptor, [verdict])

    def extend(self, events: Sequence[Event]) -> None:
        """Write several events down, as `append` does."""
        with self._thread_lock, self._locked_for_writing() as descriptor:
            self._write(descriptor, events)

    def undo(self, rater: str, event_id: str | None = None) -> Verdict | None:
        """Take back the rater's last verdict that stands; what the rater said of that clip before is in force again.

        Args:
            rater: whose.
            event_id: of the undo; where it was done before, nothing more is taken back.

        Returns:
            What was taken back; None where nothing stands.

        Raises:
            UnsavedError, DataError: as `append`.
        """
        with self._thread_lock:
            if not self.path.exists():
                return None
            with self._locked_for_writing() as descriptor:
                if event_id is not None and event_id in self._arrived:
                    return self._arrived[event_id]
                standing = self._standing.get(rater)
                if not standing:
                    return None
                last = standing[-1]
                self._write(descriptor, [Undo(rater, event_id=event_id)])
                return last

    def current(self, rater: str | None = None) -> list[Verdict]:
        """The verdicts in force, one a rater and clip: of one rater, or of all.

        Raises:
            DataError: as `__init__`.
        """
        with self._thread_lock:
            self._catch_up()
            raters = self._standing if rater is None else [rater]
            return [verdict for name in raters for verdict in {given.id: given for given in self._standing.get(name, [])}.values()]

    def raters(self) -> list[str]:
        """Who has verdicts in force, in order of their first.

        Raises:
            DataError: as `__init__`.
        """
        with self._thread_lock:
            self._catch_up()
            return [rater for rater, standing in self._standing.items() if standing]

    def holds(self, event: Event) -> bool:
        """Whether that very event was written down, undone or not."""
        return event in self._events

    def _catch_up(self) -> None:
        """Read what was appended since, by whomever."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            self._reset(None)
            return
        except OSError as error:
            raise DataError(f"{self.path}: can't be read ({error.strerror}): correct the path or its permissions") from error
        try:
            _lock(descriptor, fcntl.LOCK_SH)  # nobody is in the middle of a line then
            self._read(descriptor)
        finally:
            os.close(descriptor)

    def _read(self, descriptor: int) -> None:
        state = os.fstat(descriptor)
        is_other = state.st_ino != self._inode or state.st_size < self._offset
        if is_other or (state.st_size == self._offset and state.st_mtime_ns != self._modified_ns):  # somebody has put another there, or edited it
            self._reset(state.st_ino)
        self._modified_ns = state.st_mtime_ns
        try:
            self._take(os.pread(descriptor, state.st_size - self._offset, self._offset))
        except DataError:
            self._reset(None)  # the next call is to name the same line
            raise

    def _take(self, content: bytes) -> None:
        whole, _, rest = content.rpartition(b"\n")
        lines = whole.split(b"\n") if whole or rest != content else []
        for line in lines:
            self._take_line(line)
            self._offset += len(line) + 1
        # Without its line feed a line can still be whole, where somebody's editor left it out.
        if rest and not isinstance(parse_line(rest, ""), DataError):
            self._take_line(rest)
            self._offset += len(rest)
            self._n_lines -= 1  # its end is still to come
        elif rest and not self._noted:
            self._noted = True
            self._on_note(f"{self.path}:{self._n_lines + 1}: the last line is half-written and no verdict: the next verdict takes its place")

    def _take_line(self, line: bytes) -> None:
        self._n_lines += 1
        if not line.strip():
            return
        place = f"{self.path}:{self._n_lines}"
        row = parse_line(line, place)
        if isinstance(row, DataError):
            raise row
        event = read_event(row, place, self.fingerprint, self._ids)
        self._events.add(event)
        standing = self._standing.setdefault(event.rater, [])
        undone: Verdict | None = None
        if isinstance(event, Verdict):
            standing.append(event)
        elif standing:
            undone = standing.pop()
        if event.event_id is not None:
            self._arrived[event.event_id] = undone

    @contextmanager
    def _locked_for_writing(self) -> Iterator[int]:
        """The file, of which nobody else reads or writes anything meanwhile, with what it holds known."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise self._unsaved(error) from error
        try:
            _lock(descriptor, fcntl.LOCK_EX)
            self._read(descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    def _write(self, descriptor: int, events: Sequence[Event]) -> None:
        size = os.fstat(descriptor).st_size
        try:
            if size > self._offset:
                os.ftruncate(descriptor, self._offset)
                size = self._offset
                self._noted = False
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                os.write(descriptor, b"\n")
            for event in events:
                # Half of a surrogate pair, which JSON can name and UTF-8 can't hold, stays escaped.
                text = json.dumps(event.as_row(self.fingerprint), ensure_ascii=False) + "\n"
                line = text.encode("utf-8", errors="backslashreplace")
                if os.write(descriptor, line) != len(line):
                    raise OSError(0, "no space left for the whole line")
            os.fsync(descriptor)
            if not size:
                _sync_folder(self.path.parent)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise self._unsaved(error) from error
        self._read(descriptor)

    def _unsaved(self, error: OSError) -> UnsavedError:
        return UnsavedError(
            f"{self.path}: the verdict could not be saved ({error.strerror}): free space, or correct the permissions, and judge again"
        )


def _lock(descriptor: int, kind: int) -> None:
    with suppress(OSError):  # some network file systems have no locks
        fcntl.flock(descriptor, kind)


def _sync_folder(folder: Path) -> None:
    """So that a file that was just made is found after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
