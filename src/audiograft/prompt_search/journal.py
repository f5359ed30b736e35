"""The file that keeps a search: append-only, one line a step, on the disk before the next step begins.

The search asks it before it asks the optimiser or the model. So a search that is begun again walks through what was done, draws nothing and scores
nothing twice, and goes on where the file ends.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Self

from audiograft.data.manifest import parse_line
from audiograft.prompt_search.optimisers import Scored
from audiograft.prompt_search.rules import normalise
from audiograft.types import DataError

HISTORY_NAME = "history.jsonl"


class Journal:
    """What was proposed and what was scored, by round and by prompt.

    Attributes:
        path: of the file.
        n_clips_scored: by all prompts so far.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """Read what is there. See `open_journal`."""
        self.path = path
        self._file = file
        self._replies: dict[int, list[str]] = {}
        self._scored: dict[str, Scored] = {}
        self.n_clips_scored = 0
        end = 0
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break  # it was being written when the process died
            self._take(parse_line(line, f"{path}:{number}"), f"{path}:{number}")
            end += len(line)
        file.truncate(end)

    @property
    def n_rounds(self) -> int:
        """In which the optimiser was asked."""
        return len(self._replies)

    def clear(self) -> None:
        """Forget all."""
        self._file.truncate(0)
        self._replies, self._scored, self.n_clips_scored = {}, {}, 0

    def replies(self, round_number: int) -> list[str] | None:
        """What the optimiser wrote in a round; None where it was not asked yet."""
        return self._replies.get(round_number)

    def add_replies(self, round_number: int, replies: list[str]) -> None:
        """Keep what the optimiser wrote."""
        self._append({"event": "proposed", "round": round_number, "replies": replies})
        self._replies[round_number] = replies

    def find(self, prompt: str) -> Scored | None:
        """The score of this prompt, or of one that differs in case and white space alone; None where there is none."""
        return self._scored.get(normalise(prompt))

    def add_score(self, scored: Scored, n_clips: int) -> None:
        """Keep a score that took so many clips."""
        self._append({"event": "scored", **asdict(scored), "clips": n_clips})
        self._keep(scored, n_clips)

    def _keep(self, scored: Scored, n_clips: int) -> None:
        self._scored[normalise(scored.prompt)] = scored
        self.n_clips_scored += n_clips

    def _take(self, row: dict[str, Any] | DataError, place: str) -> None:
        if isinstance(row, DataError):
            raise row
        try:
            if row.pop("event") == "proposed":
                self._replies[int(row["round"])] = [str(reply) for reply in row["replies"]]
            else:
                n_clips = int(row.pop("clips"))
                self._keep(Scored(**row), n_clips)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{place}: no step of a search: take the line out, or choose another --out") from error

    def _append(self, row: Mapping[str, Any]) -> None:
        self._file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace"))
        self._file.flush()
        os.fsync(self._file.fileno())

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Open the file, or begin it; no other process may have it open.

        Raises:
            DataError: another process has it, or it has a broken line; names the line.
        """
        with path.open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise DataError(f"{path}: another process searches here: wait for it, or choose another --out") from error
            file.seek(0)
            yield cls(path, file)
