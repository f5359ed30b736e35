"""Word error rates of the judged clips against the labels as they were and as they were corrected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from audiograft.audit.run import AuditRun
from audiograft.audit.settled import Settled
from audiograft.evaluate.clips import score_clips, word_rate

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
        `original`, `corrected`: of `audiograft.evaluate.clips.word_rate`: {rate, hits, substitutions, insertions, deletions, reference_length,
            interval: {low, high, confidence, method, clusters, warning}}, clustered by speaker; null where no clip is left, and rate and interval
            null where no reference has a word.
        `typed`: clips whose label was typed by raters. `hypothesis_as_label`: clips judged `label_noise` without a typed text, whose hypothesis is
            taken as the label: they have no errors, and `corrected` is the lower for it. `kept`: clips with their original label; of these
            `ambiguous_kept` were judged ambiguous without a typed text, so that nobody has said what is right.
        `left_out`: {tied: [ids], texts_differ: [ids], answers: clips}, judged and in neither rate: no category has the most raters; raters of one
            mind typed different texts; or the row is an answer to a question, for which no word errors are counted.
    """
    clips = [clip.prediction for clip in run.clips if clip.prediction.id in settled]
    heard = [clip for clip in clips if clip.task == "transcript"]
    labels = {clip.id: corrected_label(clip.reference, clip.hypothesis, settled[clip.id]) for clip in heard}
    rated = [(clip, label) for clip in heard if isinstance(label := labels[clip.id], Label)]
    origins = [label.origin for _, label in rated]
    relabelled = [replace(clip, reference=label.text) for clip, label in rated]
    return {
        "clips": len(rated),
        "original": word_rate(score_clips([clip for clip, _ in rated], run.normaliser)),
        "corrected": word_rate(score_clips(relabelled, run.normaliser)),
        "typed": origins.count("typed"),
        "hypothesis_as_label": origins.count("hypothesis"),
        "kept": origins.count("kept"),
        "ambiguous_kept": sum(label.origin == "kept" and settled[clip.id].verdict == AMBIGUOUS for clip, label in rated),
        "left_out": {
            "tied": [id_ for id_, label in labels.items() if label == "tied"],
            "texts_differ": [id_ for id_, label in labels.items() if label == "texts differ"],
            "answers": len(clips) - len(heard),
        },
    }
