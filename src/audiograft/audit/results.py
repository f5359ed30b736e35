"""What the verdicts on a run say: shares, agreement, and error rates against the labels as they were and as they were corrected."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import combinations, pairwise
from statistics import median
from typing import Any, Literal

from audiograft.audit.relabelled import relabelled_wer
from audiograft.audit.run import AuditRun
from audiograft.audit.settled import Settled, settle
from audiograft.audit.verdicts import CATEGORIES, Verdict
from audiograft.metrics.agreement import Agreement, cohen_kappa, fleiss_kappa
from audiograft.metrics.intervals import wilson

Scope = Literal["all", "sample", "unsettled", "part"]


def results(run: AuditRun, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The results of an audit, ready for JSON.

    Shares are fractions between 0 and 1. Each has its own Wilson interval, which takes clips for independent. `percent` is the share in percent,
    rounded by itself to one decimal: equal counts have equal percentages, and the five may add up to some tenths more or less than 100. A share of
    clips is never an error rate: those stand under `wer` alone.

    Args:
        run: the clips that are judged: the whole run, or a sample of it.
        verdicts: those in force: one a rater and clip.

    Returns:
        `run`: name. `fingerprint`. `normaliser`: {name, version}.
        `clips`: {run, sample, judged, failed}: clips of the run that can be judged; those drawn for the sample, all where none was drawn; those of
            them that anybody has judged; rows of the run without a hypothesis, which can't be judged.
        `scope`: what the shares speak for: `all` clips of the run; the run, by a random `sample` of it that is judged to the end; `unsettled`:
            either, but for ties, which are not drawn at random; or `part`: the judged clips alone, since raters chose where to begin.
        `sample`: null, or {n, seed, of, strata: [{wer, clips, drawn}]}. Strata are drawn in proportion, so that shares need no weights.
        `outside`: verdicts in force on clips that are not in the sample, left out of all that follows.
        `pooled`: a table as below of one vote a clip, the category with the most raters, and `ties`: ids of the clips without one, which are in no
            share until they are settled.
        `raters`: {name: table}, with `blind`, how many of these verdicts were given blind, and `seconds_a_clip`, the median time between two
            verdicts (null below two), for information.
        `blind`, `open`: a table of the verdicts, not clips, that were given blind, and of those given with sight of which text is the label.
            A table: {clips, categories: {key: {clips, share, percent, low, high}}}; the last four are null where the table has no clip.
        `agreement`: {pairs: [{raters: [a, b], clips, both_blind, agreed, kappa, low, high, reason}], fleiss: {raters, clips, kappa, low, high,
            reason}}: Cohen's kappa on clips that both judged, Fleiss' on clips that all raters judged; where it can't be computed it is null and
            `reason` says why. `both_blind` and `agreed` count clips. `fleiss` is null below three raters, whose one pair says it all.
        `wer`: see `audiograft.audit.relabelled.relabelled_wer`.
        `disagreements`: [{id, verdicts: {rater: category}, tied}]: the clips on which raters differ, to be settled.
        `tags`: {tag: clips to which any rater gave it}, most frequent first.
    """
    known = {clip.prediction.id for clip in run.clips}
    inside = [verdict for verdict in verdicts if verdict.id in known]
    settled = settle(inside)
    return {
        "run": run.name,
        "fingerprint": run.fingerprint,
        "normaliser": {"name": run.normaliser.name, "version": run.normaliser.version},
        "clips": _clips(run, len(settled)),
        "scope": _scope(run, settled.values()),
        "sample": _sample(run),
        "outside": len(verdicts) - len(inside),
        "pooled": {
            **_table(one.verdict for one in settled.values() if one.verdict is not None),
            "ties": [one.id for one in settled.values() if one.verdict is None],
        },
        "raters": {rater: _rater(given) for rater, given in _by_rater(inside).items()},
        "blind": _table(verdict.verdict for verdict in inside if verdict.blind),
        "open": _table(verdict.verdict for verdict in inside if not verdict.blind),
        "agreement": _agreement(inside),
        "wer": relabelled_wer(run, settled),
        "disagreements": [
            {"id": one.id, "verdicts": one.votes, "tied": one.verdict is None} for one in settled.values() if len(set(one.votes.values())) > 1
        ],
        "tags": dict(Counter(tag for _, tag in dict.fromkeys((verdict.id, tag) for verdict in inside for tag in verdict.tags)).most_common()),
    }


def _clips(run: AuditRun, n_judged: int) -> dict[str, int]:
    n_run = run.sample.of if run.sample else len(run.clips)
    return {"run": n_run, "sample": len(run.clips), "judged": n_judged, "failed": len(run.failed)}


def _scope(run: AuditRun, judged: Collection[Settled]) -> Scope:
    if len(judged) < len(run.clips):
        return "part"
    if any(one.verdict is None for one in judged):
        return "unsettled"
    return "sample" if run.sample else "all"


def _sample(run: AuditRun) -> dict[str, Any] | None:
    if run.sample is None:
        return None
    return {"n": run.sample.n, "seed": run.sample.seed, "of": run.sample.of, "strata": [asdict(stratum) for stratum in run.sample.strata]}


def _table(categories: Iterable[str]) -> dict[str, Any]:
    counts = Counter(categories)
    n_clips = counts.total()
    return {"clips": n_clips, "categories": {key: _share(counts[key], n_clips) for key in CATEGORIES}}


def _share(count: int, n_clips: int) -> dict[str, Any]:
    if not n_clips:
        return {"clips": 0, "share": None, "percent": None, "low": None, "high": None}
    interval = wilson(count, n_clips)
    return {"clips": count, "share": count / n_clips, "percent": round(100 * count / n_clips, 1), "low": interval.low, "high": interval.high}


def _by_rater(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        found[verdict.rater].append(verdict)
    return dict(found)


def _rater(given: Sequence[Verdict]) -> dict[str, Any]:
    times = sorted(datetime.fromisoformat(verdict.time).timestamp() for verdict in given)
    pauses_s = [later - earlier for earlier, later in pairwise(times)]
    return {
        **_table(verdict.verdict for verdict in given),
        "blind": sum(verdict.blind for verdict in given),
        "seconds_a_clip": round(median(pauses_s), 1) if pauses_s else None,
    }


def _agreement(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    by_rater = {rater: {verdict.id: verdict for verdict in given} for rater, given in _by_rater(verdicts).items()}
    return {
        "pairs": [_pair(names, by_rater[names[0]], by_rater[names[1]]) for names in combinations(by_rater, 2)],
        "fleiss": _fleiss(list(by_rater.values())) if len(by_rater) > 2 else None,
    }


def _fleiss(by_rater: Sequence[Mapping[str, Verdict]]) -> dict[str, Any]:
    shared = [id for id in by_rater[0] if all(id in given for given in by_rater)]
    votes = [Counter(given[id].verdict for given in by_rater) for id in shared]
    found = fleiss_kappa([[vote[category] for category in CATEGORIES] for vote in votes])
    return {"raters": len(by_rater), "clips": len(shared), **_kappa(found)}


def _pair(names: tuple[str, str], a: Mapping[str, Verdict], b: Mapping[str, Verdict]) -> dict[str, Any]:
    shared = [id for id in a if id in b]
    return {
        "raters": list(names),
        "clips": len(shared),
        "both_blind": sum(a[id].blind and b[id].blind for id in shared),
        "agreed": sum(a[id].verdict == b[id].verdict for id in shared),
        **_kappa(cohen_kappa([a[id].verdict for id in shared], [b[id].verdict for id in shared])),
    }


def _kappa(found: Agreement) -> dict[str, Any]:
    low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
    return {"kappa": found.kappa, "low": low, "high": high, "reason": found.reason}
