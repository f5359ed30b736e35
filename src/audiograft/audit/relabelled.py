"""Word error rates of the judged clips against the labels as they were and as they were corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from audiograft.audit.run import AuditClip, AuditRun
from audiograft.audit.settled import Settled
from audiograft.metrics.intervals import cluster_bootstrap
from audiograft.metrics.normalisers import Normaliser
from audiograft.metrics.word_errors import ErrorCounts, corpus, count_words

LABEL_NOISE, AMBIGUOUS = "label_noise", "ambiguous"
Origin = Literal["typed", "hypothesis", "kept"]
Unsettled = Literal["tied", "texts differ"]


@dataclass(frozen=True)
class Label:
    """The label of a clip after the audit.

    Attributes:
        text: what it says.
        origin: `typed` by the raters; the `hypothesis`, where they found the model right and typed nothing; or `kept` as it was.
        raters: who typed it, or found the model right; none where it was kept.
    """

    text: str
    origin: Origin
    raters: tuple[str, ...] = ()


def corrected_label(reference: str, hypothesis: str, settled: Settled) -> Label | Unsettled:
    """The label that a clip has after its verdicts, or why it has none: raters are `tied`, or those who agree typed `texts` that `differ`.

    A typed text stands over the hypothesis. Where the verdict is `ambiguous` and nobody typed what is said, the label is kept for want of a better.
    """
    if settled.verdict is None:
        return "tied"
    if len(settled.texts) > 1:
        return "texts differ"
    for text, raters in settled.texts.items():
        return Label(text, "typed", raters)
    if settled.verdict == LABEL_NOISE:
        return Label(hypothesis, "hypothesis", tuple(rater for rater, vote in settled.votes.items() if vote == LABEL_NOISE))
    return Label(reference, "kept")


def relabelled_wer(run: AuditRun, settled: Mapping[str, Settled]) -> dict[str, Any]:
    """Corpus WER of the judged clips against their original labels, beside that against their corrected labels on the same clips.

    Args:
        run: the clips and their normaliser.
        settled: the judged clips.

    Returns:
        `clips`: judged clips in both rates.
        `original`, `corrected`: {rate, hits, substitutions, insertions, deletions, reference_length, interval: {low, high, confidence, method,
            clusters}}, both null where no clip is left. Intervals draw speakers.
        `typed`: clips whose label was typed by raters. `hypothesis_as_label`: clips judged `label_noise` without a typed text, whose hypothesis is
            taken as the label, so that they have no errors; `corrected` is the lower for it. `kept`: clips with their original label, of these
            `ambiguous_kept` were judged ambiguous without a typed text, so that nobody has said what is right.
        `left_out`: {tied: [ids], texts_differ: [ids], answers: clips}, judged and in neither rate: no verdict with the most raters; raters of one
            mind typed different texts; or the row is an answer to a question, for which no word errors are counted.
    """
    clips = [clip for clip in run.clips if clip.prediction.id in settled]
    heard = [clip for clip in clips if clip.prediction.task == "transcript"]
    labels = {clip.prediction.id: corrected_label(clip.prediction.reference, clip.prediction.hypothesis, settled[clip.prediction.id]) for clip in heard}
    rated = [(clip, label) for clip in heard if isinstance(label := labels[clip.prediction.id], Label)]
    origins = [label.origin for _, label in rated]
    return {
        "clips": len(rated),
        "original": _rate([clip for clip, _ in rated], [clip.errors for clip, _ in rated]),
        "corrected": _rate([clip for clip, _ in rated], [_errors(clip, label, run.normaliser) for clip, label in rated]),
        "typed": origins.count("typed"),
        "hypothesis_as_label": origins.count("hypothesis"),
        "kept": origins.count("kept"),
        "ambiguous_kept": sum(label.origin == "kept" and settled[clip.prediction.id].verdict == AMBIGUOUS for clip, label in rated),
        "left_out": {
            "tied": [id for id, label in labels.items() if label == "tied"],
            "texts_differ": [id for id, label in labels.items() if label == "texts differ"],
            "answers": len(clips) - len(heard),
        },
    }


def _errors(clip: AuditClip, label: Label, normaliser: Normaliser) -> ErrorCounts:
    return clip.errors if label.origin == "kept" else count_words(normaliser, label.text, clip.prediction.hypothesis)


def _rate(clips: Sequence[AuditClip], counts: Sequence[ErrorCounts]) -> dict[str, Any] | None:
    if not clips:
        return None
    total = corpus(counts)
    interval = cluster_bootstrap(counts, [clip.prediction.speaker for clip in clips])
    return {
        "rate": total.rate,
        **asdict(total),
        "reference_length": total.reference_length,
        "interval": {
            "low": interval.low,
            "high": interval.high,
            "confidence": interval.confidence,
            "method": interval.method,
            "clusters": interval.n_clusters,
        },
    }
