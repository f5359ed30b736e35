"""Runs over the same clips: whether they differ, and what may be claimed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

from audiograft.evaluate.claims import Verdict, caveats, run_notes, say
from audiograft.evaluate.clips import ScoredClip, answer_rate, as_dict, cluster_unit, word_rate
from audiograft.evaluate.pairing import Paired, Run, pair_runs, read_runs
from audiograft.evaluate.planning import Expectation, measure_answers, measure_words, need_of_measured
from audiograft.evaluate.slices import group_by
from audiograft.metrics.intervals import count_clusters, few_clusters
from audiograft.metrics.normalisers import get_normaliser
from audiograft.metrics.paired import PairedDifference, holm, mapsswe, mcnemar, paired_difference
from audiograft.metrics.permutation import cluster_permutation, lowest_p
from audiograft.metrics.word_errors import ErrorCounts
from audiograft.types import DataError

_LEAST_CLIPS = 2
POWER = 0.8
POINT = 0.01
"""What `needed_clips` is for: this difference, found with this power."""
_OF_PARTS = ("run", "clusters", "wer_difference", "wer_interval", "accuracy_difference", "accuracy_interval", "p_value", "p_from", "mcnemar")
"""What is told of the comparison of a part."""
_RIGHT, _WRONG = ErrorCounts(hits=1), ErrorCounts(substitutions=1)


def compare(
    paths: Sequence[Path], normaliser: str = "lower", *, common: bool = False, confidence: float = 0.95, by: str | None = None
) -> dict[str, Any]:
    """Compare runs with the first of them, on the same clips.

    Three tests ask whether two runs differ, and a claim rests on the most careful of them, that with the largest p-value: a paired bootstrap that
    draws speakers; a permutation test that swaps all clips of a speaker at once; and the field's usual test, which takes clips for independent:
    matched pairs (MAPSSWE) for transcripts, McNemar's for answers. Over several comparisons p-values are adjusted by Holm's method.

    Args:
        paths: run folders or predictions files, the base first.
        normaliser: of all texts.
        common: compare the clips that all runs have, where they do not have the same.
        confidence: of the intervals; a claim wants an adjusted p-value below one less this.
        by: a key of the rows, such as `duration_ms`: the runs are compared on the clips of each value alone too.

    Returns:
        For JSON; `docs/evaluation.md` explains it key by key. `comparisons` has a row for each other run and task, and `parts`, where there is a
        `by`, one for each value too, with p-values adjusted over all of them. With two runs its keys stand at
        the top as well, those of the transcripts where there are both transcripts and answers, and `claim` has all claims.

    Raises:
        ConfigError: an unknown normaliser.
        DataError: see `read_runs` and `pair_runs`; or too few clips, no word in the references, or no row with the key of `by`.
    """
    chosen = get_normaliser(normaliser)
    paired = pair_runs(read_runs(paths), chosen, common)
    tasks = _comparable(paired)
    rows = [_compare_pair(paired, index, task, confidence) for index in range(1, len(paired.runs)) for task in tasks]
    for row, adjusted in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row |= {"adjusted_p": adjusted}
    for row, limits in zip(rows, [_limits(rows, row, 1 - confidence) for row in rows], strict=True):
        row |= limits
        row |= _claim(paired, row, len(rows), confidence)
    found = {
        "base": paired.runs[0].name,
        "runs": [_describe(paired, index, confidence) for index in range(len(paired.runs))],
        "normaliser": {"name": chosen.name, "version": chosen.version},
        "confidence": confidence,
        "n_clips": len(paired.transcripts[0]) + len(paired.answers[0]),
        "not_shared": paired.not_shared,
        "failed": paired.failed,
        "notes": _notes(paired),
        "comparisons": rows,
        "by": by,
        "parts": _compare_parts(paired, tasks, by, confidence) if by else [],
    }
    return _at_the_top(rows, len(paired.runs)) | found


def _comparable(paired: Paired) -> list[str]:
    """The tasks with clips enough, and with words to divide by."""
    transcripts, answers = paired.transcripts[0], paired.answers[0]
    has_words = any(clip.words.reference_length for clip in transcripts)
    tasks = ["transcripts"] if has_words and len(transcripts) >= _LEAST_CLIPS else []
    tasks += ["answers"] if len(answers) >= _LEAST_CLIPS else []
    if not tasks and not has_words and len(transcripts) >= _LEAST_CLIPS:
        raise DataError(f"{paired.runs[0].file}: no reference has a word behind the normaliser, so there is no rate to compare: choose another one")
    if not tasks:
        raise DataError(f"{paired.runs[0].file}: one clip is left to compare, and {_LEAST_CLIPS} are the fewest: evaluate more")
    return tasks


def _compare_pair(paired: Paired, index: int, task: str, confidence: float) -> dict[str, Any]:
    """One run against the base, on its transcripts or its answers."""
    base, other = getattr(paired, task)[0], getattr(paired, task)[index]
    clusters = [clip.prediction.cluster for clip in base]
    rights = [[clip.right if task == "answers" else not clip.words.errors for clip in clips] for clips in (base, other)]
    counts = [[_count(clip, task) for clip in clips] for clips in (base, other)]
    measured = measure_answers(rights[0], rights[1], clusters) if task == "answers" else measure_words(counts[0], counts[1], clusters)
    difference = paired_difference(counts[0], counts[1], clusters, confidence=confidence)
    exact = mcnemar(rights[0], rights[1], confidence)
    errors = [[count.errors for count in side] for side in counts]
    p_values = {
        "bootstrap_p": difference.p_value,
        "permutation_p": cluster_permutation([b - a for a, b in zip(*errors, strict=True)], clusters),
        "mcnemar_p": exact.p_value,
    }
    if task == "transcripts":
        p_values["mapsswe_p"] = mapsswe(errors[0], errors[1]).p_value
    asked = {name: p for name, p in p_values.items() if task == "answers" or name != "mcnemar_p"}
    p_from = max(asked, key=asked.__getitem__)
    return {
        "run": paired.runs[index].name,
        "task": task,
        "n_clips": len(base),
        "clusters": difference.interval.n_clusters,
        "clustered_by": "clip" if count_clusters(clusters) == len(base) else cluster_unit(base),
        **_effects(difference, counts, task, confidence, bool(exact.only_a + exact.only_b)),
        **p_values,
        "p_value": asked[p_from],
        "p_from": p_from.removesuffix("_p"),
        "mcnemar": {
            "of": ("detections" if base[0].is_detection else "answers") if task == "answers" else "clips without an error",
            **asdict(exact),
        },
        **_power(difference, measured, len(base), confidence),
        "same_texts": all(a.prediction.hypothesis == b.prediction.hypothesis for a, b in zip(base, other, strict=True)),
    }


def _compare_parts(paired: Paired, tasks: Sequence[str], by: str, confidence: float) -> list[dict[str, Any]]:
    """The runs on the clips of each value of a key alone; where these are too few, the row says so in place of figures."""
    rows: list[dict[str, Any]] = []
    for task in tasks:
        groups = group_by([clips[0] for clips in zip(*getattr(paired, task), strict=True)], by)
        for value, members in groups.items():
            ids = {clip.prediction.id for clip in members}
            own = [[clip for clip in clips if clip.prediction.id in ids] for clips in getattr(paired, task)]
            part = replace(paired, transcripts=own) if task == "transcripts" else replace(paired, answers=own)
            about = {"task": task, "value": value, "n_clips": len(ids)}
            words = any(clip.words.reference_length for clip in own[0])
            if len(ids) < _LEAST_CLIPS or (task == "transcripts" and not words):
                rows.append(about | {"refused": "too few clips" if words else "no reference has a word"})
                continue
            for index in range(1, len(paired.runs)):
                rates = [word_rate(clips) if task == "transcripts" else answer_rate(clips) for clips in (own[0], own[index])]
                found = _compare_pair(part, index, task, confidence)
                rows.append(about | {"rates": [rate["rate"] for rate in rates if rate], **{key: found[key] for key in _OF_PARTS if key in found}})
    tested = [row for row in rows if "p_value" in row]
    for row, adjusted in zip(tested, holm([row["p_value"] for row in tested]) if tested else (), strict=True):
        row["adjusted_p"] = adjusted
    return rows


def _count(clip: ScoredClip, task: str) -> ErrorCounts:
    """An answer is a word, right or wrong."""
    if task == "transcripts":
        return clip.words
    return _RIGHT if clip.right else _WRONG


def _effects(difference: PairedDifference, counts: Sequence[Sequence[ErrorCounts]], task: str, confidence: float, differ: bool) -> dict[str, Any]:
    """The difference of the rates, other run less base: of WER, or of accuracy, which is that of the errors turned round."""
    interval = as_dict(difference.interval)
    if task == "answers" and not differ:
        interval |= {"low": None, "high": None, "method": "none", "warning": _no_discordance(len(counts[0]), confidence)}
    if task == "answers":
        turned = interval | {end: None if (value := interval[other]) is None else -value + 0.0 for end, other in (("low", "high"), ("high", "low"))}
        return {"accuracy_difference": -difference.difference + 0.0, "accuracy_interval": turned}
    relative = difference.relative_interval
    return {
        "wer_difference": difference.difference,
        "wer_interval": interval,
        "relative_difference": difference.relative,
        "relative_interval": as_dict(relative) if relative else None,
    }


def _no_discordance(n_clips: int, confidence: float) -> str:
    """Of clips of which none is right in one run only: an interval from 0 to 0 would claim that none ever is."""
    most = 100 * (1 - (1 - confidence) ** (1 / n_clips))  # exact; 3 / n at 95 %, nearly
    return f"no clip of {n_clips:,} on which they differ, so there is no interval: up to {most:.1f} points by the rule of three"


def _power(difference: PairedDifference, measured: Expectation, n_clips: int, confidence: float) -> dict[str, Any]:
    """What it takes to see a point, and what these clips can show, as `power` has it of the same runs.

    Both are None where all clips differ by the same, so that no spread is known.
    """
    known = difference.error > 0
    needed, detectable = need_of_measured(measured, POINT, n_clips, POWER, confidence) if known else (None, None)
    return {
        "standard_error": difference.error,
        "design_effect": (difference.error / difference.error_of_independent) ** 2 if known else None,
        "needed_clips": needed,
        "detectable_difference": detectable,
    }


def _limits(rows: Sequence[dict[str, Any]], row: dict[str, Any], alpha: float) -> dict[str, Any]:
    """What so few speakers can show at all, however many clips they have, and how many it takes to show anything, or a point."""
    place = next(i for i, other in enumerate(rows) if other is row)

    def lowest(clusters: int) -> float:
        return holm([lowest_p(clusters if other["task"] == row["task"] else other["clusters"]) for other in rows])[place]

    n_clusters = row["clusters"]
    fewest = next(n for n in count(n_clusters) if lowest(n) < alpha)
    of_needed = row["needed_clips"] and math.ceil(row["needed_clips"] * n_clusters / row["n_clips"])
    return {"lowest_p": lowest(n_clusters), "fewest_clusters": fewest, "needed_clusters": of_needed and max(of_needed, fewest)}


def _claim(paired: Paired, row: dict[str, Any], n_comparisons: int, confidence: float) -> dict[str, Any]:
    base = paired.runs[0]
    run = next(run for run in paired.runs if run.name == row["run"])
    clips = getattr(paired, row["task"])[0]
    few = few_clusters([clip.prediction.cluster for clip in clips], cluster_unit(clips))
    interval = row["accuracy_interval" if row["task"] == "answers" else "wer_interval"]
    if interval["low"] is None:
        few = interval["warning"] if few or row["task"] == "answers" else None
    verdict = Verdict(row, base.name, n_comparisons, confidence, POINT, POWER)
    claim = say(verdict, caveats(base, run, few if interval["low"] is not None else None), base.file.resolve() == run.file.resolve())
    return {"better": verdict.better, "claim": claim, "notes": run_notes(base, run, few)}


def _describe(paired: Paired, index: int, confidence: float) -> dict[str, Any]:
    run: Run = paired.runs[index]
    return {
        "name": run.name,
        "file": str(run.file),
        "model": run.settings.get("model"),
        "rows": len(run.predictions),
        "failed": len(run.failed),
        "wer": word_rate(paired.transcripts[index], confidence=confidence),
        "accuracy": answer_rate(paired.answers[index], confidence),
    }


def _notes(paired: Paired) -> list[str]:
    """What holds for all comparisons."""
    notes = []
    if paired.not_shared:
        notes.append(f"{paired.not_shared} ids are not in all runs and left out")
    if paired.failed:
        failed = "; ".join(f"{run.name} failed on {len(run.failed)}" for run in paired.runs if run.failed)
        notes.append(f"{len(paired.failed)} clips are left out, since a run failed on them ({failed})")
    clips = paired.transcripts[0] + paired.answers[0]
    unnamed = sum(clip.prediction.cluster is None for clip in clips)
    if unnamed:
        which = "no clip names" if unnamed == len(clips) else f"{unnamed} clips do not name"
        notes.append(f"{which} a {cluster_unit(clips)}: they are taken for independent, which makes intervals too narrow where they are not")
    for task, those in (("transcript", paired.transcripts[0]), ("answer", paired.answers[0])):
        if 0 < len(those) < _LEAST_CLIPS:
            notes.append(f"{len(those)} {task} is too few to compare and in no test")
    if len(paired.transcripts[0]) >= _LEAST_CLIPS and "transcripts" not in _comparable(paired):
        notes.append(f"no reference of the {len(paired.transcripts[0])} transcripts has a word behind the normaliser: they are in no test")
    return notes


def _at_the_top(rows: Sequence[dict[str, Any]], n_runs: int) -> dict[str, Any]:
    """The only comparison's keys. Where it has two tasks, the transcripts' with what the answers alone have, and both claims."""
    if n_runs > 2:
        return {}
    claims = {"claim": "; ".join(row["claim"] for row in rows)}
    missing = dict.fromkeys(("wer_difference", "wer_interval", "accuracy_difference", "accuracy_interval", "mapsswe_p"))
    promoted = missing | {key: value for row in reversed(rows) for key, value in row.items() if key not in ("notes", "same_texts")}
    return promoted | claims
