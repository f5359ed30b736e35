"""One clip's errors, and the rates of several: what every figure of a run is made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from audiograft.evaluate.predictions import Prediction
from audiograft.metrics.intervals import Interval, cluster_bootstrap, cluster_share
from audiograft.metrics.normalisers import Normaliser
from audiograft.metrics.word_errors import ErrorCounts, character_errors, corpus, count_words

MAX_IDS = 20
"""How many ids are named in metrics.json where a count has examples."""


@dataclass(frozen=True)
class ScoredClip:
    """A row that was done, with its errors under one normaliser.

    Attributes:
        prediction: the row.
        reference: normalised.
        hypothesis: normalised.
        words: errors in words.
        characters: errors in characters.
    """

    prediction: Prediction
    reference: str
    hypothesis: str
    words: ErrorCounts
    characters: ErrorCounts

    @property
    def is_answer(self) -> bool:
        """Whether it is right or wrong as a whole, as answers and detections are."""
        return self.prediction.task != "transcript"

    @property
    def is_detection(self) -> bool:
        """Whether it is one of a few labels."""
        return self.prediction.task == "detection"

    @property
    def right(self) -> bool:
        """Whether hypothesis and reference are the same, both normalised; labels as they are."""
        return self.prediction.reference == self.prediction.hypothesis if self.is_detection else self.reference == self.hypothesis

    @property
    def error_rate(self) -> float:
        """WER of a transcript; of an answer 0 or 1."""
        return float(not self.right) if self.is_answer else self.words.rate

    @property
    def nats_per_token(self) -> float | None:
        """Mean loss over the tokens of the reference, where it was measured."""
        nats, n_tokens = self.prediction.reference_nats, self.prediction.reference_tokens
        return nats / n_tokens if nats is not None and n_tokens else None


def score_clip(prediction: Prediction, normaliser: Normaliser) -> ScoredClip:
    """Count a row's errors."""
    reference, hypothesis = normaliser.apply(prediction.reference), normaliser.apply(prediction.hypothesis)
    words = count_words(normaliser, prediction.reference, prediction.hypothesis)
    return ScoredClip(prediction, reference, hypothesis, words, character_errors(reference, hypothesis))


def score_clips(predictions: Iterable[Prediction], normaliser: Normaliser) -> list[ScoredClip]:
    """Count the errors of the rows that did not fail, in their order."""
    return [score_clip(prediction, normaliser) for prediction in predictions if prediction.error is None]


def split_tasks(clips: Iterable[ScoredClip]) -> tuple[list[ScoredClip], list[ScoredClip]]:
    """Transcripts, and all that is right or wrong: answers, or detections, which never stand beside answers."""
    tasks: dict[bool, list[ScoredClip]] = {False: [], True: []}
    for clip in clips:
        tasks[clip.is_answer].append(clip)
    return tasks[False], tasks[True]


def word_rate(
    clips: Sequence[ScoredClip], unit: Literal["words", "characters"] = "words", *, with_interval: bool = True, confidence: float = 0.95
) -> dict[str, Any] | None:
    """Corpus error rate with counts and interval.

    Args:
        clips: transcripts.
        unit: what is counted.
        with_interval: whether to draw the bootstrap, which costs far more than the rate.
        confidence: of the interval.

    Returns:
        None without clips. `rate` and `interval` are None where no reference has a word, since there is nothing to divide by; the insertions
        are counted all the same.
    """
    if not clips:
        return None
    counts = [clip.words if unit == "words" else clip.characters for clip in clips]
    total = corpus(counts)
    return {
        "rate": total.rate if total.reference_length else None,
        "hits": total.hits,
        "substitutions": total.substitutions,
        "insertions": total.insertions,
        "deletions": total.deletions,
        "reference_length": total.reference_length,
        "interval": as_dict(cluster_bootstrap(counts, _clusters(clips), confidence=confidence)) if with_interval and total.reference_length else None,
    }


def answer_rate(clips: Sequence[ScoredClip], confidence: float = 0.95) -> dict[str, Any] | None:
    """Share of answers that are right, with its interval and by kind of question; None without clips."""
    if not clips:
        return None
    right, interval = right_share(clips, confidence)
    kinds: dict[str, list[bool]] = defaultdict(list)
    for clip in clips:
        if clip.prediction.question is not None:
            kinds[clip.prediction.question].append(clip.right)
    return {
        "rate": right / len(clips),
        "right": right,
        "answers": len(clips),
        "interval": as_dict(interval),
        "by_question": {kind: {"rate": sum(hits) / len(hits), "answers": len(hits)} for kind, hits in sorted(kinds.items())},
    }


def right_share(clips: Sequence[ScoredClip], confidence: float = 0.95) -> tuple[int, Interval]:
    """How many answers are right, and the interval of their share."""
    right = [clip.right for clip in clips]
    return sum(right), cluster_share(right, _clusters(clips), confidence=confidence, unit=cluster_unit(clips))


def word_interval(clips: Sequence[ScoredClip]) -> Interval:
    """The interval of a corpus WER, clustered by speaker."""
    return cluster_bootstrap([clip.words for clip in clips], _clusters(clips))


def _clusters(clips: Sequence[ScoredClip]) -> list[str | None]:
    return [clip.prediction.cluster for clip in clips]


def cluster_unit(clips: Sequence[ScoredClip]) -> str:
    """What a cluster of theirs is called."""
    return "recording" if any(clip.is_detection for clip in clips) else "speaker"


def as_dict(interval: Interval) -> dict[str, Any]:
    """An interval for metrics.json. `low` and `high` are None where they can't be known, and `warning` says why."""
    return {
        "low": interval.low,
        "high": interval.high,
        "confidence": interval.confidence,
        "method": interval.method,
        "clusters": interval.n_clusters,
        "warning": interval.warning,
    }
