"""One evaluation: transcribe and answer a manifest, keep the predictions, and compute every figure from the kept file."""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from audiograft import provenance
from audiograft.data.leakage import check_model
from audiograft.data.manifest import audio_as_given, find_manifest, read_manifest, read_rows, replace_text, write_manifest
from audiograft.data.shuffling import shuffle_clips
from audiograft.messages import Message, conversation
from audiograft.metrics.intervals import Interval, cluster_bootstrap
from audiograft.metrics.normalisers import Normaliser, get_normaliser
from audiograft.metrics.word_errors import ErrorCounts, character_errors, corpus, word_errors
from audiograft.types import Answer, AudioError, DataError, Sample, Transcript

if TYPE_CHECKING:  # so that a predictions file can be scored without loading torch
    from audiograft.inference.engine import Engine

PREDICTIONS_NAME = "predictions.jsonl"
METRICS_NAME = "metrics.json"
RUN_NAME = "run.json"
TRANSCRIPT, ANSWER = "transcript", "answer"
"""What a row wants; the key `task` of a prediction, a transcript where it is absent."""
Audio = Literal["true", "shuffled", "none"]
"""Which clips a model is given: each row's own, other rows', or none. What it gets right without its own, it does not get from listening."""
_SHUFFLE_SEED = 0


def evaluate(
    engine: Engine,
    manifest: str | Path,
    out: Path,
    *,
    batch_size: int = 8,
    normaliser: str = "lower",
    prompt: str | None = None,
    audio: Audio = "true",
    allow_outside: bool = False,
    on_clip: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Transcribe and answer the rows of a manifest and write `predictions.jsonl`, `metrics.json` and `run.json`.

    A row with a `response` other than its `text` wants an answer, others a transcript. A clip that can't be read has an `error` and an empty
    hypothesis in the predictions, is listed under `failed` in the metrics, and is left out of every rate: how many errors are unknown.

    Args:
        engine: the model.
        manifest: a file, or a folder with `manifest.jsonl`; each row has a reference `text` or a `response`.
        out: the run folder; made where it does not exist.
        batch_size: clips in a batch.
        normaliser: one of `audiograft.metrics.normalisers.NORMALISERS`.
        prompt: the instruction for all rows with clips, in place of their own; conversations keep theirs.
        audio: which clips the model is given, for baselines.
        allow_outside: also take clips that do not lie below the manifest's folder.
        on_clip: called after each clip.

    Returns:
        The metrics of `score`, with `wall_s` (reading and transcription, without loading the model), `rtfx` (seconds of audio a second), and
        `leakage` of `check_model`: what the manifest shares with what the model was trained on.

    Raises:
        ConfigError: an unknown normaliser.
        DataError: a manifest, row, prompt or folder that can't be used, or no clip that can be read.
    """
    manifest = find_manifest(manifest)
    get_normaliser(normaliser)  # an unknown name is to stop the run here, not after the work
    samples = _read(manifest, prompt, allow_outside)
    heard = [conversation(sample, audio != "none") for sample in samples]  # a prompt that does not fit is to stop the run here too
    _clear_folder(out)
    leakage = check_model(Path(engine.name).expanduser(), manifest, allow_outside)

    start_s = time.perf_counter()
    results = _results(engine, samples, heard, audio, batch_size, on_clip)
    wall_s = time.perf_counter() - start_s

    given = [audio_as_given(row) for _, row in read_rows(manifest)]
    write_manifest(out / PREDICTIONS_NAME, map(_prediction, samples, given, results))
    metrics = score(out / PREDICTIONS_NAME, normaliser)
    metrics |= {"wall_s": wall_s, "rtfx": metrics["audio_s"] / wall_s, "leakage": leakage}
    settings = {"prompt": samples[0].prompt if len({sample.prompt for sample in samples}) == 1 else None, "audio": audio, "batch_size": batch_size}
    _write_json(out / METRICS_NAME, metrics)
    _write_json(out / RUN_NAME, {"model": engine.name, **settings, **_origin(manifest, metrics)})
    return metrics


def _read(manifest: Path, prompt: str | None, allow_outside: bool) -> list[Sample]:
    """The rows, each of which has something to be compared with."""
    samples = read_manifest(manifest, allow_outside)
    without = next((sample for sample in samples if sample.target is None), None)
    if without is not None:
        raise DataError(f'{manifest}: row {without.id!r} has no "text" and no "response": add its reference or leave the row out')
    if prompt is None:
        return samples
    return [replace(sample, prompt=prompt) if sample.clips and not sample.messages else sample for sample in samples]


def _results(
    engine: Engine, samples: Sequence[Sample], heard: Sequence[list[Message]], audio: Audio, batch_size: int, on_clip: Callable[[], None]
) -> list[Transcript | Answer | AudioError]:
    """Transcribe single clips, those of one prompt together, answer all else, and return the results in the order of the samples."""
    from audiograft.inference.questions import Question

    clips: Sequence[Sequence[str]] = [() if audio == "none" else sample.clips for sample in samples]
    if audio == "shuffled":
        clips = shuffle_clips(clips, _SHUFFLE_SEED)
    by_prompt = defaultdict(list)
    asked = []
    for row, sample in enumerate(samples):
        if _task(sample) == TRANSCRIPT and len(clips[row]) == 1 and not sample.messages:
            by_prompt[sample.prompt].append(row)
        else:
            asked.append(row)
    results: dict[int, Transcript | Answer | AudioError] = {}
    for prompt, rows in by_prompt.items():
        sources = [clips[row][0] for row in rows]
        done = engine.transcribe_many(sources, batch_size=batch_size, prompt=prompt, on_result=lambda index, result: on_clip())
        results.update(zip(rows, done, strict=True))
    questions = [Question(clips[row], messages=heard[row]) for row in asked]
    answers = engine.ask_many(questions, batch_size=batch_size, on_result=lambda index, result: on_clip()) if questions else []
    results.update(zip(asked, answers, strict=True))
    return [results[row] for row in range(len(samples))]


def _task(sample: Sample) -> str:
    return TRANSCRIPT if sample.response in (None, sample.text) else ANSWER


def _prediction(sample: Sample, audio: str | list[str] | None, result: Transcript | Answer | AudioError) -> dict[str, Any]:
    row = {"id": sample.id, "audio": audio, "task": _task(sample), "prompt": None if sample.messages else sample.prompt, "reference": sample.target}
    if "question" in sample.extra:
        row["question"] = sample.extra["question"]
    if isinstance(result, AudioError):
        return {**row, "hypothesis": "", "duration_s": sample.duration_s, "speaker": sample.speaker, "error": str(result)}
    return {**row, "hypothesis": result.text, "duration_s": result.duration_s, "speaker": sample.speaker}


_SCORED_KEYS = (
    ("reference", str, "a string"),
    ("hypothesis", str, "a string"),
    ("duration_s", int | float, "a number of seconds"),
    ("speaker", str | None, "a string or null"),
)


@dataclass(frozen=True)
class _Scored:
    """A row that was done, with its errors in words and in characters; an answer is right or an error, as a whole."""

    speaker: str | None
    duration_s: float
    words: ErrorCounts
    characters: ErrorCounts
    answer: ErrorCounts | None
    question: str | None


def score(predictions: Path, normaliser: str = "lower") -> dict[str, Any]:
    """Compute the metrics of a predictions file.

    Returns:
        `wer` and `cer` over all transcripts (rate, counts, 95 % interval clustered by speaker), their `utterance_mean_wer` and `by_speaker`;
        `accuracy` of all answers, which are right where they equal their reference, both normalised (rate, counts, 95 % interval, and
        `by_question` where rows say what kind of question they ask); null where there is none; `n_clips` (rows scored), `failed` (id and error of
        those that were not), `normaliser`, and `audio_s` (of the rows scored).

    Raises:
        ConfigError: an unknown normaliser.
        DataError: a file or row that can't be used, or no clip to score.
    """
    chosen = get_normaliser(normaliser)
    rows = read_rows(predictions)
    failed = [{"id": row.get("id"), "error": row["error"]} for _, row in rows if "error" in row]
    clips = [_scored(row, chosen, f"{predictions}:{number}") for number, row in rows if "error" not in row]
    if not clips:
        raise DataError(f"{predictions}: all {len(failed)} clips failed, so there is nothing to score; the first: {failed[0]['error']}")
    transcripts = [clip for clip in clips if clip.answer is None]
    speakers = [clip.speaker for clip in transcripts]
    return {
        "wer": _rate([clip.words for clip in transcripts], speakers) if transcripts else None,
        "cer": _rate([clip.characters for clip in transcripts], speakers) if transcripts else None,
        "utterance_mean_wer": sum(clip.words.rate for clip in transcripts) / len(transcripts) if transcripts else None,
        "by_speaker": _by_speaker(transcripts),
        "accuracy": _accuracy([clip for clip in clips if clip.answer is not None]),
        "n_clips": len(clips),
        "failed": failed,
        "normaliser": {"name": chosen.name, "version": chosen.version},
        "audio_s": sum(clip.duration_s for clip in clips),
    }


def _scored(row: dict[str, Any], normaliser: Normaliser, place: str) -> _Scored:
    for key, kind, what in _SCORED_KEYS:
        if not isinstance(row.get(key), kind):
            raise DataError(f'{place}: "{key}" must be {what}: repeat the evaluation or correct the row')
    reference, hypothesis = normaliser.apply(row["reference"]), normaliser.apply(row["hypothesis"])
    right = ErrorCounts(hits=1) if reference == hypothesis else ErrorCounts(substitutions=1)
    answer = right if row.get("task", TRANSCRIPT) == ANSWER else None
    words, characters = word_errors(reference, hypothesis), character_errors(reference, hypothesis)
    return _Scored(row.get("speaker"), row["duration_s"], words, characters, answer, row.get("question"))


def _rate(counts: Sequence[ErrorCounts], speakers: Sequence[str | None]) -> dict[str, Any]:
    total = corpus(counts)
    return {
        "rate": total.rate,
        "hits": total.hits,
        "substitutions": total.substitutions,
        "insertions": total.insertions,
        "deletions": total.deletions,
        "reference_length": total.reference_length,
        "interval": _interval(cluster_bootstrap(counts, speakers)),
    }


def _accuracy(clips: Sequence[_Scored]) -> dict[str, Any] | None:
    """Share of answers that are right."""
    answers = [clip.answer for clip in clips if clip.answer is not None]
    if not answers:
        return None
    interval = cluster_bootstrap(answers, [clip.speaker for clip in clips])
    kinds: dict[str, list[int]] = defaultdict(list)
    for clip, answer in zip(clips, answers, strict=True):
        if clip.question is not None:
            kinds[clip.question].append(answer.hits)
    total = corpus(answers)
    return {
        "rate": 1 - total.rate,
        "right": total.hits,
        "answers": len(answers),
        "interval": _interval(replace(interval, low=1 - interval.high, high=1 - interval.low)),  # that of the errors, upside down
        "by_question": {kind: {"rate": sum(hits) / len(hits), "answers": len(hits)} for kind, hits in sorted(kinds.items())},
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        "low": interval.low,
        "high": interval.high,
        "confidence": interval.confidence,
        "method": interval.method,
        "clusters": interval.n_clusters,
    }


def _by_speaker(clips: Sequence[_Scored]) -> dict[str, dict[str, Any]]:
    """WER of each named speaker, in order of name."""
    words = defaultdict(list)
    for clip in clips:
        if clip.speaker is not None:
            words[clip.speaker].append(clip.words)
    totals = {speaker: (corpus(counts), len(counts)) for speaker, counts in sorted(words.items())}
    return {
        speaker: {"wer": total.rate, "n_clips": n_clips, "reference_length": total.reference_length} for speaker, (total, n_clips) in totals.items()
    }


def _clear_folder(out: Path) -> None:
    """Make the run folder, without the figures of an earlier run, which must not come to lie beside other predictions."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in (METRICS_NAME, RUN_NAME):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{out}: can't be used as a run folder ({error.strerror}): choose another --out") from error


def _origin(manifest: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    """What the figures of a run come from, besides the model and its settings."""
    return {
        "manifest": str(manifest.resolve()),
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "normaliser": metrics["normaliser"],
        "leakage": metrics["leakage"],
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    replace_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
