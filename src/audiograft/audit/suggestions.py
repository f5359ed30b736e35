"""Which labels are likely wrong: a ranking by signals that can be told in words, and how good it was."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from audiograft.audit.run import AuditClip, AuditRun
from audiograft.audit.settled import settle
from audiograft.audit.verdicts import Verdict
from audiograft.evaluate.predictions import Prediction
from audiograft.metrics.detectors import find_refusal, find_repetition, is_empty
from audiograft.metrics.intervals import wilson
from audiograft.metrics.normalisers import Normaliser
from audiograft.metrics.word_errors import count_words
from audiograft.types import DataError

WEIGHTS: Mapping[str, float] = {"likelihood": 3.0, "second_opinion": 2.0, "confidence": 1.0, "distance": 0.5, "pace": 0.5, "length": 0.5}
"""What a signal counts. Set by hand: evidence from listening before evidence from the form of the texts (`benchmarks/label_noise.py` measures it)."""
CUT_OFFS = (5, 10, 20, 50)
_Z_USUAL, _Z_ODD = 2.0, 6.0
"""Robust z-scores up to which a pace is nothing special, and from which it could not be odder."""
_TELLING = 0.25
"""A signal below this is no reason to look at a clip."""


@dataclass(frozen=True)
class Suggestion:
    """A clip whose label may be wrong.

    Attributes:
        score: 0 to 1, higher is likelier: the mean of the signals that are known, weighted by `WEIGHTS`. It is a rank and no probability.
        reasons: one sentence a signal that speaks for it.
        signals: each known signal, 0 to 1.
    """

    score: float
    reasons: list[str]
    signals: dict[str, float]


def suggest(run: AuditRun, second: Sequence[Prediction] | None = None) -> dict[str, Suggestion]:
    """Rank the labels of a run by how likely they are wrong, the likeliest first.

    Only transcripts whose normalised hypothesis differs from the normalised label can be suggested, and none that is empty, loops or refuses: it
    says nothing of the label. A signal that is not known is left out of the mean, so runs of other systems, without token probabilities, have
    fewer. Each lies between 0 and 1:

    - `likelihood`: how many nats a token of the label the model finds it less likely than its own text, by teacher forcing; as a rank: the share of
      the clips that can be suggested for which that is less, and 0 where the label is the likelier of the two. Where the probability of its own text
      is not known, it counts as 1.
    - `second_opinion`: (e(label, second) - e(hypothesis, second)) / e(label, hypothesis), not below 0, where e is the edit distance in words. By the
      triangle inequality it is 1 where a second model wrote the hypothesis too, and 0 where it sides with the label, or with neither.
    - `confidence`: the probability that the model gives to its whole text, which differs from the label.
    - `distance`: the words in which label and hypothesis differ, over those of the longer one.
    - `pace`: how far the label's words a second lie from the run's median, as a robust z-score (median absolute deviation): 0 up to a z of 2, and 1
      from a z of 6.
    - `length`: 1 - the shorter over the longer of label and hypothesis, in words.

    Args:
        run: the clips.
        second: predictions of another model for the same clips; clips that it does not have, or failed on, go without its opinion.

    Raises:
        DataError: the second predictions share no clip with the run.
    """
    opinions = _opinions(run, second) if second is not None else {}
    candidates = [clip for clip in run.clips if clip.errors.errors and _is_evidence(clip.prediction)]
    typical = _Typical.of(run, candidates)
    suggestions = {clip.prediction.id: _suggestion(_evidence(clip, run.normaliser, opinions.get(clip.prediction.id), typical)) for clip in candidates}
    return dict(sorted(suggestions.items(), key=lambda item: -item[1].score))


def _is_evidence(prediction: Prediction) -> bool:
    """Whether a hypothesis is a transcript that can speak against the label."""
    said = (prediction.hypothesis, prediction.reference)
    return prediction.task == "transcript" and not (is_empty(prediction.hypothesis) or find_repetition(*said) or find_refusal(*said))


def _opinions(run: AuditRun, second: Sequence[Prediction]) -> dict[str, str]:
    known = {clip.prediction.id for clip in run.clips}
    shared = {prediction.id: prediction.hypothesis for prediction in second if prediction.id in known and prediction.error is None}
    if not shared:
        raise DataError(f"the second predictions share no clip with {run.name}: name those of another model on the same manifest")
    return shared


@dataclass(frozen=True)
class _Typical:
    """What is usual in a run.

    Attributes:
        surplus: nats a token of each label that can be suggested, beyond those of the hypothesis; sorted.
        pace: median of the labels' words a second; None where durations are not known.
        spread: of the pace: 1.4826 times the median absolute deviation, the standard deviation where paces are normal.
    """

    surplus: tuple[float, ...]
    pace: float | None
    spread: float

    @classmethod
    def of(cls, run: AuditRun, candidates: Sequence[AuditClip]) -> _Typical:
        surplus = sorted(surplus for clip in candidates if (surplus := _surplus(clip)) is not None)
        paces = [pace for clip in run.clips if (pace := _pace(clip)) is not None]
        if not paces:
            return cls(tuple(surplus), None, 0.0)
        middle = median(paces)
        return cls(tuple(surplus), middle, 1.4826 * median(abs(pace - middle) for pace in paces))


def _surplus(clip: AuditClip) -> float | None:
    """Nats a token of the label by which it is less likely than the hypothesis."""
    nats, tokens = clip.prediction.reference_nats, clip.prediction.reference_tokens
    return (nats + math.fsum(clip.prediction.token_logprobs)) / tokens if nats is not None and tokens else None


def _pace(clip: AuditClip) -> float | None:
    """Words of the label a second."""
    seconds = clip.prediction.duration_s
    return clip.errors.reference_length / seconds if seconds else None


Evidence = dict[str, tuple[float, str]]
"""Each known signal with its sentence."""


def _evidence(clip: AuditClip, normaliser: Normaliser, opinion: str | None, typical: _Typical) -> Evidence:
    errors, label = clip.errors, clip.errors.reference_length
    hypothesis = len(normaliser.apply(clip.prediction.hypothesis).split())
    longer = max(label, hypothesis)
    found: Evidence = {
        "distance": (min(1.0, errors.errors / longer), f"{errors.errors} of {longer} words differ from the label"),
        "length": (1 - min(label, hypothesis) / longer, f"the label has {label} words, the model heard {hypothesis}"),
    }
    if opinion is not None:
        found["second_opinion"] = _second_opinion(clip, normaliser, opinion)
    if clip.prediction.token_logprobs:
        whole = math.exp(min(0.0, math.fsum(clip.prediction.token_logprobs)))
        found["confidence"] = (whole, f"the model gives its own text, as a whole, a probability of {whole:.0%}")
    surplus = _surplus(clip)
    if surplus is not None and len(typical.surplus) > 1:
        below = bisect_left(typical.surplus, surplus) / (len(typical.surplus) - 1) if surplus > 0 else 0.0
        found["likelihood"] = (below, f"the model finds the label {surplus:.2f} nats a token less likely than its own text")
    pace = _pace(clip)
    if pace is not None and typical.pace is not None and typical.spread > 0:
        z = abs(pace - typical.pace) / typical.spread
        found["pace"] = (
            min(1.0, max(0.0, (z - _Z_USUAL) / (_Z_ODD - _Z_USUAL))),
            f"the label has {pace:.1f} words a second, where {typical.pace:.1f} is usual",
        )
    return found


def _second_opinion(clip: AuditClip, normaliser: Normaliser, opinion: str) -> tuple[float, str]:
    from_label = count_words(normaliser, clip.prediction.reference, opinion).errors
    from_hypothesis = count_words(normaliser, clip.prediction.hypothesis, opinion).errors
    sides = min(1.0, max(0.0, (from_label - from_hypothesis) / clip.errors.errors))
    if not from_hypothesis:
        return sides, "a second model wrote the same as the first"
    return sides, f"words by which a second model differs: {from_hypothesis} from the first, {from_label} from the label"


def _suggestion(evidence: Evidence) -> Suggestion:
    weight = sum(WEIGHTS[name] for name in evidence)
    score = sum(WEIGHTS[name] * signal for name, (signal, _) in evidence.items()) / weight
    telling = sorted((name for name, (signal, _) in evidence.items() if signal >= _TELLING), key=lambda name: -WEIGHTS[name] * evidence[name][0])
    return Suggestion(round(score, 4), [evidence[name][1] for name in telling], {name: round(signal, 4) for name, (signal, _) in evidence.items()})


def suggestion_quality(suggestions: Mapping[str, Suggestion], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """How good a ranking was, by verdicts that were given since. Right is a clip whose verdict, of most raters, is `label_noise`.

    Verdicts that were given with the suggestions in sight may follow them: those in `blind` can't.

    Args:
        suggestions: of `suggest`, the likeliest first.
        verdicts: those in force.

    Returns:
        `judged`: judged clips with a settled verdict, suggested or not; of these `label_noise`, and `ambiguous`, which is counted as not right, and
            `blind`: judged blind by all. `tied`: clips without a settled verdict, left out.
        `at`: {k: {judged, right, ambiguous, precision, recall}} for the first k suggestions: how many of them are judged; `precision` is right over
            judged, `recall` right over all `label_noise`; each {rate, low, high} with its Wilson interval, or null where there is nothing to divide.
        `average_precision`: mean, over all `label_noise`, of the precision at its rank among the judged clips, 0 where it was not suggested (the area
            under precision and recall without interpolation); null where there is none. `chance`: the share of `label_noise` among the judged clips,
            which a random ranking would reach.
    """
    settled = settle(verdicts)
    truth = {id: one.verdict for id, one in settled.items() if one.verdict is not None}
    n_right = list(truth.values()).count("label_noise")
    ranked = [id for id in suggestions if id in truth]
    precisions = [sum(truth[id] == "label_noise" for id in ranked[:rank]) / rank for rank, id in enumerate(ranked, 1) if truth[id] == "label_noise"]
    return {
        "judged": len(truth),
        "label_noise": n_right,
        "ambiguous": list(truth.values()).count("ambiguous"),
        "blind": sum(settled[id].is_blind for id in truth),
        "tied": len(settled) - len(truth),
        "at": {str(k): _at(list(suggestions)[:k], truth, n_right) for k in CUT_OFFS},
        "average_precision": sum(precisions) / n_right if n_right else None,
        "chance": n_right / len(truth) if truth else None,
    }


def telling_cut_offs(at: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """`at` of `suggestion_quality` without the cut-offs that add no judged suggestion to the one before, and so would repeat its figures."""
    told: dict[str, Mapping[str, Any]] = {}
    n_judged = -1
    for first, cut in at.items():
        if cut["judged"] > n_judged:
            told[first] = cut
            n_judged = cut["judged"]
    return told


def _at(first: Sequence[str], truth: Mapping[str, str], n_right: int) -> dict[str, Any]:
    judged = [truth[id] for id in first if id in truth]
    right = judged.count("label_noise")
    return {
        "judged": len(judged),
        "right": right,
        "ambiguous": judged.count("ambiguous"),
        "precision": _share(right, len(judged)),
        "recall": _share(right, n_right),
    }


def _share(part: int, whole: int) -> dict[str, float | None] | None:
    if not whole:
        return None
    interval = wilson(part, whole)
    return {"rate": part / whole, "low": interval.low, "high": interval.high}
