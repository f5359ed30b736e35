"""Every figure of a run, computed from its predictions file alone."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from audiograft.evaluate.clips import MAX_IDS, ScoredClip, answer_rate, score_clips, split_tasks, word_rate
from audiograft.evaluate.controls import check_blindness, check_deafness, compare_baseline
from audiograft.evaluate.detection_scoring import run_question, score_detections
from audiograft.evaluate.folder import BLINDNESS_NAME, DEAFNESS_NAME, METRICS_NAME, write_json
from audiograft.evaluate.predictions import find_predictions, read_predictions
from audiograft.evaluate.slices import count_without, further_slices, group_clips, score_answers, score_transcripts
from audiograft.metrics.answers import corpus_chrf, exact_match, rouge_l, token_f1
from audiograft.metrics.detectors import find_refusal, find_repetition, is_empty
from audiograft.metrics.matches import Match, match
from audiograft.metrics.normalisers import NORMALISERS, Normaliser, get_normaliser
from audiograft.metrics.terms import term_recall
from audiograft.types import DataError

RUN_KEYS = ("wall_s", "leakage", "checkpoint", "context")
"""Keys of metrics.json that predictions can't tell; the run writes them, and scoring again keeps them."""
_DETECTORS: Mapping[str, Callable[[str, str], object]] = {
    "empty": lambda reference, hypothesis: is_empty(hypothesis) and not is_empty(reference),
    "repetition": lambda reference, hypothesis: find_repetition(hypothesis, reference),
    "refusal": lambda reference, hypothesis: find_refusal(hypothesis, reference),
}


def score(
    predictions: Path,
    normaliser: str = "lower",
    *,
    terms: Sequence[str] | None = None,
    slice_by: Sequence[str] = (),
    baseline: Path | None = None,
    deafness: Path | None = None,
    blindness: Path | None = None,
) -> dict[str, Any]:
    """Compute the metrics of a predictions file. `docs/evaluation.md` explains them key by key.

    Rows that failed are listed and left out of every rate. Rows that do not state what a figure needs are counted in `rows_without`.

    Args:
        predictions: the file, or its run folder.
        normaliser: of the headline and of all parts; the others stand beside it under `normalisers`.
        terms: names and rare words, whose recall in transcripts is measured.
        slice_by: keys of the rows to slice by, besides the usual ones.
        baseline: a second predictions file of the same clips.
        deafness: predictions of the same clips on shuffled and on silent audio.
        blindness: likewise with the pictures of other rows.

    Returns:
        What metrics.json holds, but for `RUN_KEYS`.

    Raises:
        ConfigError: an unknown normaliser.
        DataError: a file or row that can't be used, detections beside texts, a key of `slice_by` that no row has, or no clip to score.
    """
    chosen = get_normaliser(normaliser)
    rows = read_predictions(predictions)
    failed = [{"id": row.id, "error": row.error} for row in rows if row.error is not None]
    clips = score_clips(rows, chosen)
    if not clips:
        raise DataError(f"{predictions}: all {len(failed)} clips failed, so there is nothing to score; the first: {failed[0]['error']}")
    is_detection = _all_detections(clips, predictions)
    (transcripts, answers), groups = split_tasks(clips), group_clips(clips, slice_by)
    return {
        "wer": word_rate(transcripts),
        "cer": word_rate(transcripts, "characters"),
        "utterance_mean_wer": math.fsum(clip.words.rate for clip in transcripts) / len(transcripts) if transcripts else None,
        "matches": _matches(transcripts),
        "normalisers": {} if is_detection else _side_by_side(clips, chosen),
        "slices": score_transcripts(groups),
        "detectors": {} if is_detection else _detect(clips),
        "accuracy": (answer_rate(answers) or {}) | {"slices": score_answers(groups)} if answers else None,
        "answers": None if is_detection else _answer_texts(answers),
        "loss": None if is_detection else _loss(clips),
        "detection": _score_labels(clips, find_predictions(predictions)) if is_detection else None,
        "terms": _terms(transcripts, terms, chosen) if terms else None,
        "empty_references": _empty_references(transcripts),
        "n_clips": len(clips),
        "failed": failed,
        "rows_without": _rows_without(clips) | count_without(clips, groups),
        "normaliser": {"name": chosen.name, "version": chosen.version},
        **_times(clips),
        "baseline": compare_baseline(predictions, baseline, chosen) if baseline else None,
        **_controls(clips, deafness, blindness, chosen),
    }


def _controls(clips: Sequence[ScoredClip], deafness: Path | None, blindness: Path | None, normaliser: Normaliser) -> dict[str, Any]:
    return {
        "deafness": check_deafness(clips, deafness, normaliser) if deafness else None,
        "blindness": check_blindness(clips, blindness, normaliser) if blindness else None,
    }


def _all_detections(clips: Sequence[ScoredClip], predictions: Path) -> bool:
    """Whether the rows are detections. Texts have nothing in common with them but the file."""
    n_detections = sum(clip.is_detection for clip in clips)
    if 0 < n_detections < len(clips):
        other = next(clip.prediction.id for clip in clips if not clip.is_detection)
        raise DataError(f"{predictions}: {n_detections} rows are detections, and others such as {other!r} texts: keep them in two files")
    return bool(n_detections)


def _score_labels(clips: Sequence[ScoredClip], file: Path) -> dict[str, Any]:
    question = run_question(file)
    try:
        return score_detections([clip.prediction for clip in clips], *question)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error


def score_again(
    run: Path,
    normaliser: str | None = None,
    *,
    terms: Sequence[str] | None = None,
    slice_by: Sequence[str] = (),
    baseline: Path | None = None,
) -> dict[str, Any]:
    """Score a run folder anew and rewrite its metrics.json.

    What is not given stays as it was: the normaliser, terms, slices and baseline of the metrics.json that is there, and its `RUN_KEYS`.

    Raises:
        ConfigError: see `score`.
        DataError: see `score`; or the old metrics.json can't be read, or its baseline is gone.
    """
    old = _old_metrics(run / METRICS_NAME)
    deafness, blindness = run / DEAFNESS_NAME, run / BLINDNESS_NAME
    known_terms, known_baseline = old.get("terms") or {}, old.get("baseline") or {}
    if baseline is None and "path" in known_baseline:
        baseline = Path(known_baseline["path"])
        if not baseline.exists():
            raise DataError(f"{run}: its baseline {baseline} is gone: name it with --baseline, or take it out of {METRICS_NAME}")
    metrics = score(
        find_predictions(run),
        normaliser or (old.get("normaliser") or {}).get("name", "lower"),
        terms=terms or list(known_terms.get("terms", ())),
        slice_by=[*dict.fromkeys([*further_slices(old), *slice_by])],
        baseline=baseline,
        deafness=deafness if deafness.is_file() else None,
        blindness=blindness if blindness.is_file() else None,
    )
    metrics |= {key: old[key] for key in RUN_KEYS if key in old}
    write_json(run / METRICS_NAME, metrics)
    return metrics


def _old_metrics(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read ({error}): remove it, and what only it says is lost") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds no JSON object: remove it")
    return found


def _matches(transcripts: Sequence[ScoredClip]) -> dict[str, dict[str, Any]] | None:
    if not transcripts:
        return None
    counts = Counter(match(clip.prediction.reference, clip.prediction.hypothesis) for clip in transcripts)
    return {kind: {"clips": counts[kind], "share": counts[kind] / len(transcripts)} for kind in get_args(Match)}


def _side_by_side(clips: Sequence[ScoredClip], chosen: Normaliser) -> dict[str, dict[str, Any]]:
    """The headline under each normaliser."""
    found = {}
    for name in NORMALISERS:
        normaliser = chosen if name == chosen.name else get_normaliser(name)
        again = clips if name == chosen.name else score_clips([clip.prediction for clip in clips], normaliser)
        transcripts, answers = split_tasks(again)
        wer, cer = word_rate(transcripts), word_rate(transcripts, "characters", with_interval=False)
        found[name] = {
            "version": normaliser.version,
            "wer": wer["rate"] if wer else None,
            "cer": cer["rate"] if cer else None,
            "interval": wer["interval"] if wer else None,
            "accuracy": sum(clip.right for clip in answers) / len(answers) if answers else None,
        }
    return found


def _detect(clips: Sequence[ScoredClip]) -> dict[str, dict[str, Any]]:
    """Hypotheses that do what their reference does not."""
    found = {}
    for name, detect in _DETECTORS.items():
        ids = [clip.prediction.id for clip in clips if detect(clip.prediction.reference, clip.prediction.hypothesis)]
        found[name] = {"clips": len(ids), "share": len(ids) / len(clips), "ids": ids[:MAX_IDS]}
    return found


def _answer_texts(answers: Sequence[ScoredClip]) -> dict[str, Any] | None:
    """How close answers come to their references, as texts."""
    if not answers:
        return None
    texts = [(clip.prediction.reference, clip.prediction.hypothesis) for clip in answers]
    chrf, signature = corpus_chrf([reference for reference, _ in texts], [hypothesis for _, hypothesis in texts])
    return {
        "exact_match": sum(exact_match(*pair) for pair in texts) / len(texts),
        "token_f1": math.fsum(token_f1(*pair) for pair in texts) / len(texts),
        "chrf": chrf,
        "chrf_signature": signature,
        "rouge_l": math.fsum(rouge_l(*pair) for pair in texts) / len(texts),
    }


def _loss(clips: Sequence[ScoredClip]) -> dict[str, Any] | None:
    """Over all tokens of the references that were scored; a token weighs the same in each row."""
    known = [
        (row.reference_nats, row.reference_tokens)
        for row in (clip.prediction for clip in clips)
        if row.reference_nats is not None and row.reference_tokens
    ]
    if not known:
        return None
    n_tokens = sum(tokens for _, tokens in known)
    nats = math.fsum(nats for nats, _ in known) / n_tokens
    return {"nats_per_token": nats, "perplexity": _exp(nats), "tokens": n_tokens, "rows": len(known)}


def _exp(nats: float) -> float | None:
    """JSON has no infinity."""
    try:
        return math.exp(nats)
    except OverflowError:
        return None


def _terms(transcripts: Sequence[ScoredClip], terms: Sequence[str], normaliser: Normaliser) -> dict[str, Any]:
    rows = [clip.prediction for clip in transcripts]
    found = term_recall(terms, [row.reference for row in rows], [row.hypothesis for row in rows], normaliser.apply)
    rates = {name: part.rate if part.reference_length else None for name, part in (("b_wer", found.listed), ("u_wer", found.unlisted))}
    return {"recall": found.recall, "precision": found.precision, **rates, **asdict(found)}


def _empty_references(transcripts: Sequence[ScoredClip]) -> dict[str, Any]:
    """Transcripts without a word to divide by: their insertions count as errors and add no length."""
    empty = [clip for clip in transcripts if not clip.words.reference_length]
    return {
        "clips": len(empty),
        "insertions": sum(clip.words.insertions for clip in empty),
        "normalised_to_nothing": sum(bool(clip.prediction.reference.strip()) for clip in empty),
        "ids": [clip.prediction.id for clip in empty[:MAX_IDS]],
    }


def _rows_without(clips: Sequence[ScoredClip]) -> dict[str, int]:
    """How many rows do not state what figures need."""
    rows = [clip.prediction for clip in clips]
    return {
        "duration_s": sum(row.duration_s is None for row in rows),
        "decode_s": sum(row.decode_s is None for row in rows),
        **(_stated_by_texts(clips) if not clips[0].is_detection else {"speech_prob": sum(row.speech_prob is None for row in rows)}),
    }


def _stated_by_texts(clips: Sequence[ScoredClip]) -> dict[str, int]:
    return {
        "token_logprobs": sum(clip.prediction.confidence is None for clip in clips),
        "reference_nats": sum(clip.nats_per_token is None for clip in clips),
    }


def _times(clips: Sequence[ScoredClip]) -> dict[str, float | None]:
    """Seconds of audio, and how many of them a second of decoding takes care of, over the rows that state both."""
    rows = [clip.prediction for clip in clips]
    timed = [(row.duration_s, row.decode_s) for row in rows if row.duration_s is not None and row.decode_s is not None]
    decode_s = math.fsum(decode_s for _, decode_s in timed)
    return {
        "audio_s": math.fsum(row.duration_s for row in rows if row.duration_s is not None),
        "decode_s": decode_s if timed else None,
        "rtfx": math.fsum(duration_s for duration_s, _ in timed) / decode_s if decode_s else None,
    }
