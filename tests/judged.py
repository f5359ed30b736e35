"""Runs and verdicts for the tests of the audit's results, in a few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audiograft.audit.run import AuditRun, load_run
from audiograft.audit.verdicts import Verdict
from audiograft.data.manifest import write_manifest


def audit_run(folder: Path, *rows: tuple[str, str, str] | dict[str, Any]) -> AuditRun:
    """A run of rows without audio: (id, reference, hypothesis), or whole rows of a predictions file."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = [row if isinstance(row, dict) else dict(zip(("id", "reference", "hypothesis"), row, strict=True)) for row in rows]
    write_manifest(folder / "predictions.jsonl", whole)
    return load_run(folder)


def verdicts(rater: str, blind: bool = False, **given: str) -> list[Verdict]:
    """One rater's verdicts in force: id=category, or id="category: corrected text"; ten seconds apart."""
    found = []
    for place, (id_, what) in enumerate(given.items()):
        category, _, corrected = what.partition(": ")
        found.append(Verdict(id_, category, rater, blind, corrected=corrected or None, time=f"2026-01-01T00:00:{10 * place:02d}+00:00"))
    return found
