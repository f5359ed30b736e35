"""Corrected labels as a new manifest. The one that was judged stays as it is."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiograft.audit.relabelled import AMBIGUOUS, Label, corrected_label
from audiograft.audit.run import AuditClip, AuditRun
from audiograft.audit.settled import Settled, settle
from audiograft.audit.verdicts import CATEGORIES, Verdict
from audiograft.data.manifest import MANIFEST_NAME, PICTURE_KEYS, find_manifest, iterate_rows, row_to_sample, write_manifest
from audiograft.types import ConfigError, DataError

_CLIP_KEYS = ("audio", "audio_paths", *PICTURE_KEYS, *PICTURE_KEYS.values())
_WHY = {
    "tied": "raters differ, and no category has the most of them",
    "texts differ": "raters typed different texts",
    AMBIGUOUS: "judged ambiguous, and nobody typed what is said",
}
_MEND = "name the manifest that the run was made from"


@dataclass
class CorrectedSummary:
    """What became of each row: `typed`, `from_hypothesis`, `kept`, `unjudged`, `unsettled` and `dropped` add up to `rows`.

    Attributes:
        out: the new manifest.
        rows: of the source.
        typed: corrected rows, with a text that was typed by raters.
        from_hypothesis: corrected rows, with the hypothesis as text, since the raters found the model right and typed nothing.
        kept: rows as they were, whose label stands by the verdict.
        unjudged: rows as they were, without a verdict.
        unsettled: rows as they were, though their label is in doubt: id, and why.
        dropped: ids of rows that were left out on demand.
        outside: clips with verdicts that are not in the run, or not in its sample: their rows are among the unjudged.
        needs_allow_outside: whether a clip lies outside the new manifest's folder, so that it can be read with --allow-outside alone.
    """

    out: Path
    rows: int = 0
    typed: int = 0
    from_hypothesis: int = 0
    kept: int = 0
    unjudged: int = 0
    unsettled: dict[str, str] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    outside: int = 0
    needs_allow_outside: bool = False


def write_corrected(
    run: AuditRun, verdicts: Sequence[Verdict], manifest: str | Path, out: str | Path, drop: Collection[str] = ()
) -> CorrectedSummary:
    """Write the manifest of a run again, with the labels that its audit corrected.

    A corrected row has the new text in the place of the old one, and more keys: `original_text`, `corrected_by` (the raters), `verdict` (their
    category) and `correction` (`typed`, or `hypothesis` where the model was found right and nothing was typed). Every other row and key is as it
    was, and clips are found from the new place.

    Args:
        run: what was judged.
        verdicts: those in force.
        manifest: the one that the run was made from.
        out: the new file, or a folder, which gets a `manifest.jsonl`.
        drop: categories; their clips are left out where no text was typed for them.

    Raises:
        ConfigError: a category that does not exist.
        DataError: the new file exists or can't be written, the manifest can't be read, a judged clip is not in it or has another reference there, or
            a label that is to be corrected can't be replaced in its row.
    """
    if unknown := sorted(set(drop) - set(CATEGORIES)):
        raise ConfigError(f"unknown category {unknown[0]!r} to drop: use {', '.join(CATEGORIES)}")
    source = find_manifest(manifest)
    target = _new_file(Path(out), source)
    clips = {clip.prediction.id: clip for clip in run.clips}
    judged = settle(verdicts)
    settled = {id_: one for id_, one in judged.items() if id_ in clips}
    correction = _Correction(clips, settled, frozenset(drop), CorrectedSummary(target, outside=len(judged) - len(settled)))
    rows = [new for number, _, row in iterate_rows(source) if (new := correction.new_row(row, number, source)) is not None]
    if correction.missing:
        raise DataError(f"{source}: row {next(iter(correction.missing))!r}, which was judged, is not in it: {_MEND}")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_manifest(target, [_moved(row, source.parent, target.parent, correction.summary) for row in rows])
    return correction.summary


def _new_file(out: Path, source: Path) -> Path:
    target = out if out.suffix in (".jsonl", ".json") else out / MANIFEST_NAME
    if target.exists():
        what = "is the manifest that was judged, which stays as it is" if target.samefile(source) else "exists already"
        raise DataError(f"{target}: {what}: name another file or folder")
    return target


class _Correction:
    """Corrects rows one after another and counts what becomes of them."""

    def __init__(self, clips: Mapping[str, AuditClip], settled: Mapping[str, Settled], drop: frozenset[str], summary: CorrectedSummary) -> None:
        self.clips = clips
        self.settled = settled
        self.drop = drop
        self.summary = summary
        self.missing = dict.fromkeys(settled)

    def new_row(self, row: dict[str, Any], number: int, source: Path) -> dict[str, Any] | None:
        """The row for the new manifest; None where it is left out."""
        place = f"{source}:{number}"
        sample = row_to_sample(row, number, source.parent, place, allow_outside=True)
        self.summary.rows += 1
        if sample.id not in self.settled:
            self.summary.unjudged += 1
            return row
        self.missing.pop(sample.id, None)
        judged, settled = self.clips[sample.id].prediction, self.settled[sample.id]
        if sample.target != judged.reference:
            raise DataError(f"{place}: row {sample.id!r} has another label than the one that was judged: {_MEND}")
        label = corrected_label(judged.reference, judged.hypothesis, settled)
        if settled.verdict in self.drop and (not isinstance(label, Label) or label.origin != "typed"):
            self.summary.dropped.append(sample.id)
            return None
        if not isinstance(label, Label):
            self.summary.unsettled[sample.id] = _WHY[label]
            return row
        if label.origin == "kept" or label.text == judged.reference:
            self._keep(sample.id, label, settled)
            return row
        self.summary.typed += label.origin == "typed"
        self.summary.from_hypothesis += label.origin == "hypothesis"
        return self._corrected(row, judged.reference, label, settled, place)

    def _keep(self, id: str, label: Label, settled: Settled) -> None:
        if settled.verdict == AMBIGUOUS and label.origin == "kept":
            self.summary.unsettled[id] = _WHY[AMBIGUOUS]
        else:
            self.summary.kept += 1

    def _corrected(self, row: dict[str, Any], old: str, label: Label, settled: Settled, place: str) -> dict[str, Any]:
        new = {**row, **{key: label.text for key in ("text", "response") if row.get(key) == old}}
        if row_to_sample(new, 0, Path(), place, allow_outside=True).target != label.text:
            raise DataError(f'{place}: its label is not in "text" or "response" alone, and can\'t be replaced: write it so with `audiograft prepare`')
        first = row.get("original_text", old)
        return {**new, "original_text": first, "corrected_by": list(label.raters), "verdict": settled.verdict, "correction": label.origin}


def _moved(row: dict[str, Any], old: Path, new: Path, summary: CorrectedSummary) -> dict[str, Any]:
    """The row with its clips as they are named from the new folder."""
    moved = dict(row)
    for key in _CLIP_KEYS:
        if given := row.get(key):
            clips = [_from(clip, old, new) for clip in ([given] if isinstance(given, str) else given)]
            summary.needs_allow_outside |= any(os.path.isabs(clip) or clip.startswith("..") for clip in clips)
            moved[key] = clips[0] if isinstance(given, str) else clips
    return moved


def _from(clip: str, old: Path, new: Path) -> str:
    if os.path.isabs(clip) or os.path.abspath(old) == os.path.abspath(new):
        return clip
    return os.path.relpath(old / clip, new)
