"""One evaluation: transcribe a manifest, keep the predictions, and compute every figure from the kept file."""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiograft import provenance
from audiograft.data.manifest import find_manifest, read_manifest, read_rows, replace_text, write_manifest
from audiograft.metrics.intervals import cluster_bootstrap
from audiograft.metrics.normalisers import Normaliser, get_normaliser
from audiograft.metrics.word_errors import ErrorCounts, character_errors, corpus, word_errors
from audiograft.types import AudioError, DataError, Sample, Transcript

if TYPE_CHECKING:  # so that a predictions file can be scored without loading torch
    from audiograft.inference.engine import Engine

PREDICTIONS_NAME = "predictions.jsonl"
METRICS_NAME = "metrics.json"
RUN_NAME = "run.json"


def evaluate(
    engine: Engine,
    manifest: str | Path,
    out: Path,
    *,
    batch_size: int = 8,
    normaliser: str = "lower",
    prompt: str | None = None,
    on_clip: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Transcribe the clips of a manifest and write `predictions.jsonl`, `metrics.json` and `run.json`.

    A clip that can't be read has an `error` and an empty hypothesis in the predictions, is listed under `failed` in the metrics, and is
    left out of every rate: how many errors it would have had is unknown.

    Args:
        engine: the model.
        manifest: a file, or a folder with `manifest.jsonl`; each row has a reference `text`.
        out: the run folder; made where it does not exist.
        batch_size: clips in a batch.
        normaliser: one of `audiograft.metrics.normalisers.NORMALISERS`.
        prompt: the instruction for all clips; by default each row's own.
        on_clip: called after each clip.

    Returns:
        The metrics of `score`, with `wall_s` (reading and transcription, without loading the model) and `rtfx` (seconds of audio a second).

    Raises:
        ConfigError: an unknown normaliser.
        DataError: a manifest that can't be used, a row without a reference, a folder that can't be written, or no clip that can be read.
    """
    manifest = find_manifest(manifest)
    get_normaliser(normaliser)  # an unknown name is to stop the run here, not after the work
    samples = read_manifest(manifest)
    without = next((sample for sample in samples if sample.text is None), None)
    if without is not None:
        raise DataError(f'{manifest}: row {without.id!r} has no "text": add its reference or leave the row out')
    prompts = [sample.prompt if prompt is None else prompt for sample in samples]
    _clear_folder(out)

    start_s = time.perf_counter()
    results = _transcribe(engine, samples, prompts, batch_size, on_clip)
    wall_s = time.perf_counter() - start_s

    given = [row["audio"] for _, row in read_rows(manifest)]
    write_manifest(out / PREDICTIONS_NAME, map(_prediction, samples, given, results))
    metrics = score(out / PREDICTIONS_NAME, normaliser)
    metrics |= {"wall_s": wall_s, "rtfx": metrics["audio_s"] / wall_s}
    run = {
        "model": engine.name,
        "prompt": prompts[0] if len(set(prompts)) == 1 else None,
        "batch_size": batch_size,
        "manifest": str(manifest.resolve()),
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "normaliser": metrics["normaliser"],
        **_environment(),
    }
    _write_json(out / METRICS_NAME, metrics)
    _write_json(out / RUN_NAME, run)
    return metrics


def _transcribe(
    engine: Engine, samples: Sequence[Sample], prompts: Sequence[str], batch_size: int, on_clip: Callable[[], None]
) -> list[Transcript | AudioError]:
    """Transcribe the clips, those of one prompt together, and return the results in the order of the samples."""
    rows = defaultdict(list)
    for row, prompt in enumerate(prompts):
        rows[prompt].append(row)
    results: dict[int, Transcript | AudioError] = {}
    for prompt, group in rows.items():
        sources = [samples[row].audio for row in group]
        done = engine.transcribe_many(sources, batch_size=batch_size, prompt=prompt, on_result=lambda index, result: on_clip())
        results.update(zip(group, done, strict=True))
    return [results[row] for row in range(len(samples))]


def _prediction(sample: Sample, audio: str, result: Transcript | AudioError) -> dict[str, Any]:
    row = {"id": sample.id, "audio": audio, "reference": sample.text}
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
    """A clip that was transcribed, with its errors in words and in characters."""

    speaker: str | None
    duration_s: float
    words: ErrorCounts
    characters: ErrorCounts


def score(predictions: Path, normaliser: str = "lower") -> dict[str, Any]:
    """Compute the metrics of a predictions file.

    Returns:
        `wer` and `cer` over the whole corpus (rate, counts, 95 % interval clustered by speaker), `utterance_mean_wer`, `by_speaker`,
        `n_clips` (those scored), `failed` (id and error of those that were not), `normaliser`, and `audio_s` (of the clips scored).

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
    speakers = [clip.speaker for clip in clips]
    return {
        "wer": _rate([clip.words for clip in clips], speakers),
        "cer": _rate([clip.characters for clip in clips], speakers),
        "utterance_mean_wer": sum(clip.words.rate for clip in clips) / len(clips),
        "by_speaker": _by_speaker(clips),
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
    return _Scored(row.get("speaker"), row["duration_s"], word_errors(reference, hypothesis), character_errors(reference, hypothesis))


def _rate(counts: Sequence[ErrorCounts], speakers: Sequence[str | None]) -> dict[str, Any]:
    total = corpus(counts)
    interval = cluster_bootstrap(counts, speakers)
    return {
        "rate": total.rate,
        "hits": total.hits,
        "substitutions": total.substitutions,
        "insertions": total.insertions,
        "deletions": total.deletions,
        "reference_length": total.reference_length,
        "interval": {
            "low": interval.low,
            "high": interval.high,
            "confidence": interval.confidence,
            "method": interval.method,
            "clusters": interval.n_clusters,
        },
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


def _environment() -> dict[str, Any]:
    return {
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    replace_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
