"""Taking in verdicts that were given elsewhere: on a static page, or beside another copy of the run."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from audiograft.audit.blind import blind_order, category_of
from audiograft.audit.log import VerdictLog
from audiograft.audit.verdicts import CHOICES, Event, Verdict, check_rater, read_event
from audiograft.data.manifest import scan_rows
from audiograft.types import DataError


@dataclass(frozen=True)
class Imported:
    """What came of the verdicts of a file.

    Attributes:
        added: written to the log.
        known: in the log already.
        older: not written, since the rater has judged the clip again since.
        half_written: last lines that were no verdict.
    """

    added: int
    known: int
    older: int
    half_written: int


def import_verdicts(log: VerdictLog, path: Path, ids: Collection[str]) -> Imported:
    """Append the verdicts of a file in the log's format, all or none.

    Only what stands in the file at its end is taken, so that an undo there takes nothing back here. A blind row may give its choice alone.

    Args:
        log: of the run.
        path: of the file.
        ids: of the run's clips.

    Raises:
        DataError: a line is broken, belongs to another run or does not fit; names the line, and nothing is written.
        UnsavedError: the log can't be written.
    """
    events, half_written = _read(path, log.fingerprint, ids)
    standing: dict[str, list[Verdict]] = {}
    for event in events:
        given = standing.setdefault(event.rater, [])
        if isinstance(event, Verdict):
            given.append(event)
        elif given:
            given.pop()
    in_force = [verdict for given in standing.values() for verdict in {verdict.id: verdict for verdict in given}.values()]
    here = {(verdict.rater, verdict.id): verdict for verdict in log.current()}
    fresh = [verdict for verdict in in_force if not log.holds(verdict)]
    added = [verdict for verdict in fresh if _is_newer(verdict, here.get((verdict.rater, verdict.id)))]
    if added:
        log.extend(added)
    return Imported(len(added), len(in_force) - len(fresh), len(fresh) - len(added), half_written)


def _read(path: Path, fingerprint: str, ids: Collection[str]) -> tuple[list[Event], int]:
    events: list[Event] = []
    rows: Iterable[tuple[int, int, dict[str, Any] | DataError]] = list(scan_rows(path))
    is_cut = not path.read_bytes().endswith(b"\n")
    broken: DataError | None = None
    for number, _, row in rows:
        if broken is not None:
            raise broken
        if isinstance(row, DataError):
            broken = row
            continue
        events.append(read_event(_with_verdict(row, f"{path}:{number}", fingerprint), f"{path}:{number}", fingerprint, ids))
    if broken is not None and not is_cut:
        raise broken
    return events, int(broken is not None)


def _with_verdict(row: dict[str, Any], place: str, fingerprint: str) -> dict[str, Any]:
    """The row with the category that its blind choice means."""
    rater, id_, choice = row.get("rater"), row.get("id"), row.get("choice")
    is_text = all(isinstance(value, str) for value in (rater, id_, choice))
    if not row.get("blind") or not is_text or choice not in CHOICES or row.get("run") != fingerprint:
        return row  # and what does not fit, or is of another run, is refused with its line
    meant = category_of(str(choice), blind_order(fingerprint, check_rater(rater, place), str(id_)))
    if row.get("verdict") not in (None, meant):
        raise DataError(f'{place}: "verdict" {row["verdict"]!r} is not what its blind "choice" means ({meant}): remove one of the two')
    return {**row, "verdict": meant}


def _is_newer(verdict: Verdict, other: Verdict | None) -> bool:
    return other is None or _moment(verdict) > _moment(other)


def _moment(verdict: Verdict) -> float:
    return datetime.fromisoformat(verdict.time).timestamp()
