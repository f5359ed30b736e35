"""What the page is told, from the server or in a static export: a run, its clips, its verdicts. In a blind session nothing tells the texts apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from audiograft.audit.blind import blind_choice, blind_payload
from audiograft.audit.results import results
from audiograft.audit.run import AuditClip, AuditRun
from audiograft.audit.suggestions import Suggestion, suggestion_quality, telling_cut_offs
from audiograft.audit.verdicts import CATEGORIES, CHOICES, TAGS, Described, Verdict


def run_row(run: AuditRun, *, blind: bool, rater: str, has_suggestions: bool, normalised: bool = False) -> dict[str, Any]:
    """The run as a whole.

    Args:
        run: what is judged.
        blind: the rater is not to know which text is the label.
        rater: the name that the page begins with; empty where it is to ask.
        has_suggestions: whether clips have a `suspicion`.
        normalised: a blind session shows the texts as they are after normalisation.
    """
    sample = run.sample
    return {
        "name": run.name,
        "fingerprint": run.fingerprint,
        "blind": blind,
        "rater": rater,
        "normaliser": {"name": run.normaliser.name, "version": run.normaliser.version},
        "n_clips": len(run.clips),
        "failed": [{"id": prediction.id, "error": prediction.error} for prediction in run.failed],
        "missing": run.missing,
        "sample": sample and {"n": sample.n, "of": sample.of, "seed": sample.seed, "stratified": sample.is_stratified},
        "notes": [*run.notes, *(() if blind else run.telling_notes)],
        "categories": _described(CHOICES if blind else CATEGORIES),
        "tags": list(TAGS),
        "has_suggestions": has_suggestions and not blind,
        "normalised": normalised,
    }


def clip_rows(
    run: AuditRun, *, blind: bool, rater: str, suggestions: Mapping[str, Suggestion] | None = None, normalised: bool = False
) -> list[dict[str, Any]]:
    """The clips in the run's order.

    Args:
        run: what is judged.
        blind: the rater is not to know which text is the label.
        rater: for the order of X and Y.
        suggestions: by id, the likeliest first; never told in a blind session.
        normalised: a blind session shows the texts as they are after normalisation.
    """
    if blind:
        normaliser = run.normaliser if normalised else None
        return [_common(clip) | blind_payload(run.fingerprint, rater, clip, normaliser) for clip in run.clips]
    suggested = {} if suggestions is None else suggestions
    ranks = {id_: rank for rank, id_ in enumerate(suggested, start=1)}
    return [_common(clip) | _open(clip, suggested.get(clip.prediction.id), ranks.get(clip.prediction.id)) for clip in run.clips]


def verdict_rows(verdicts: Iterable[Verdict], blind: bool) -> dict[str, dict[str, Any]]:
    """One rater's verdicts in force, by id."""
    return {verdict.id: verdict_row(verdict, blind) for verdict in verdicts}


def verdict_row(verdict: Verdict, blind: bool) -> dict[str, Any]:
    """A verdict; in a blind session without its category, which would tell which text is the label."""
    return {
        "verdict": None if blind else verdict.verdict,
        "choice": blind_choice(verdict) if blind else verdict.choice,
        "corrected": verdict.corrected,
        "tags": list(verdict.tags),
        "note": verdict.note,
        "time": verdict.time,
    }


def results_row(run: AuditRun, verdicts: Sequence[Verdict], suggestions: Mapping[str, Suggestion] | None) -> dict[str, Any]:
    """What the verdicts say: `audiograft.audit.results.results`, with how good the suggestions were under `suggestions`, null without any."""
    if suggestions is None:
        return results(run, verdicts) | {"suggestions": None}
    ids = {clip.prediction.id for clip in run.clips}
    quality = suggestion_quality(suggestions, [verdict for verdict in verdicts if verdict.id in ids])
    return results(run, verdicts) | {"suggestions": quality | {"at": telling_cut_offs(quality["at"])}}


def patterns_row(run: AuditRun) -> dict[str, Any]:
    """What goes wrong again and again, over the normalised texts of all transcripts."""
    from audiograft.metrics.patterns import error_patterns

    normalise = run.normaliser.apply
    heard = [clip.prediction for clip in run.clips if clip.prediction.task == "transcript"]
    return asdict(error_patterns((row.id, normalise(row.reference), normalise(row.hypothesis)) for row in heard))


def _described(what: Mapping[str, Described]) -> list[dict[str, str]]:
    return [{"key": key, "label": one.label, "hint": one.hint} for key, one in what.items()]


def _common(clip: AuditClip) -> dict[str, Any]:
    row = clip.prediction
    return {"i": clip.index, "id": row.id, "dur": row.duration_s, "speaker": row.speaker, "source": row.source, "parts": len(clip.audio)}


def _open(clip: AuditClip, suggestion: Suggestion | None, rank: int | None) -> dict[str, Any]:
    return {
        "ref": clip.prediction.reference,
        "hyp": clip.prediction.hypothesis,
        "diff": [[edit.kind, edit.reference, edit.hypothesis] for edit in clip.diff],
        "wer": clip.wer,
        "words": clip.errors.reference_length,
        "kind": clip.kind,
        "conf": clip.confidence,
        "suspicion": suggestion and suggestion.score,
        "rank": rank,
        "reasons": suggestion.reasons if suggestion else [],
    }
