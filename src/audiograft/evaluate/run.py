"""One evaluation: transcribe and answer a manifest, keep the predictions, and compute every figure from the kept file."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from audiograft import provenance
from audiograft.audio import load_audio
from audiograft.data.leakage import check_choice, check_model
from audiograft.data.manifest import find_manifest, read_manifest, read_rows
from audiograft.evaluate.controls import deafness_ids, draw_deafness_rows
from audiograft.evaluate.folder import BLINDNESS_NAME, DEAFNESS_NAME, METRICS_NAME, RunFolder, model_fingerprint, write_json
from audiograft.evaluate.options import EvaluateOptions, Options, is_plain, task
from audiograft.evaluate.predictions import Prediction, find_predictions, read_predictions
from audiograft.evaluate.report import write_reports
from audiograft.evaluate.scoring import score
from audiograft.evaluate.slices import FIXED_SLICES
from audiograft.images import load_image, load_video
from audiograft.inference.vads import is_vad
from audiograft.messages import conversation
from audiograft.types import ConfigError, DataError, MediaError, Sample

if TYPE_CHECKING:  # so that predictions can be scored without loading torch
    from audiograft.evaluate.detecting import Asked
    from audiograft.inference.engine import Engine
    from audiograft.inference.vads import Vad
    from audiograft.inference.whisper import WhisperEngine

    Model = Engine | WhisperEngine | Vad | str | Path


def evaluate(
    model: Model,
    manifest: str | Path,
    out: Path,
    *,
    on_clip: Callable[[], None] = lambda: None,
    **options: Unpack[EvaluateOptions],
) -> dict[str, Any]:
    """Transcribe and answer the rows of a manifest, or detect their labels; write `predictions.jsonl`, `run.json`, `metrics.json` and the reports.

    A row with a `response` other than its `text` wants an answer, one with a `label` and neither text a detection, all others a transcript. Where a
    clip or picture can't be read, the row has an `error` and an empty hypothesis in the predictions, is listed under `failed` in the metrics, and
    is left out of every rate: how many errors are unknown.

    The same call goes on where an interrupted one stopped. Where nothing is left to do it scores what is there, without opening the model.

    Args:
        model: an open engine; or what `open_engine` takes, a stock Whisper too, opened where something is to be done. For detections also the
            name of a voice activity detector, or one that is open.
        manifest: a file, or a folder with `manifest.jsonl`; each row has a reference `text` or a `response`, or each has a `label` and neither.
        out: the run folder; made where it does not exist.
        on_clip: called after each clip, of those that are done already too.
        **options: see `Options`.

    Returns:
        The metrics of `score`, with `wall_s` (reading and decoding; None where an interrupted run did a part), `leakage` of `check_model`: what
        the manifest shares with what the model was trained on, `checkpoint` of `check_choice`, and `context`: how many terms were in the prompts.

    Raises:
        ConfigError: an option that does not fit, or a model that can't be opened.
        DataError: a manifest, row, prompt or folder that can't be used, or no clip that can be read.
    """
    chosen = Options(**options)
    manifest = find_manifest(manifest)
    samples = _read(manifest, chosen)
    name = _name(model)
    asked = _asked(model, manifest, samples, chosen)
    folder = RunFolder(out, _settings(name, manifest, samples, chosen, asked), overwrite=chosen.overwrite)
    wall_s = _work(folder, samples, manifest, model, chosen, asked, on_clip)
    deafness, blindness = out / DEAFNESS_NAME, out / BLINDNESS_NAME
    metrics = score(
        find_predictions(out),
        chosen.normaliser,
        terms=list(chosen.terms or chosen.context) or None,
        slice_by=chosen.slice_by,
        baseline=chosen.baseline,
        deafness=deafness if chosen.deafness_clips and deafness.is_file() else None,
        blindness=blindness if chosen.deafness_clips and blindness.is_file() else None,
    )
    trained = Path(name).expanduser()
    metrics |= {
        "wall_s": wall_s,
        "leakage": check_model(trained, manifest, chosen.allow_outside),
        "checkpoint": check_choice(trained, manifest, chosen.allow_outside),
        "context": len(chosen.context),
    }
    write_json(out / METRICS_NAME, metrics)
    write_reports(out)
    return metrics


def _read(manifest: Path, chosen: Options) -> list[Sample]:
    """The rows, each of which has something to be compared with and a conversation that fits. What can't be sliced stops here, not after the work."""
    samples = read_manifest(manifest, chosen.allow_outside)
    without = next((sample for sample in samples if sample.target is None and sample.label is None), None)
    if without is not None:
        raise DataError(f'{manifest}: row {without.id!r} has no "text" and no "response": add its reference, or its label, or leave the row out')
    if chosen.prompt is not None:
        samples = [replace(sample, prompt=chosen.prompt) if sample.clips and not sample.messages else sample for sample in samples]
    for sample in samples:
        conversation(sample, chosen.audio != "none", chosen.pictures != "none")
    if chosen.pictures == "none" and not any(sample.images or sample.videos for sample in samples):
        raise DataError(f"{manifest}: no row has a picture, so none can be left out: leave --pictures out")
    known = {*FIXED_SLICES, *Prediction.__dataclass_fields__, "label", "predicted", *(key for sample in samples for key in sample.extra)}
    if unknown := [key for key in chosen.slice_by if key not in known]:
        raise DataError(f"{manifest}: no row has the key {unknown[0]!r}: take it out of --slice-by, or correct it")
    return samples


def _name(model: Model) -> str:
    return str(model if isinstance(model, str | Path) else model.name)


def _asked(model: Model, manifest: Path, samples: Sequence[Sample], chosen: Options) -> Asked | None:
    """The one question of a manifest of labels; None where texts are wanted.

    Raises:
        ConfigError: an option or a model that does not fit what is wanted.
        DataError: rows of both kinds, or a label that can't be chosen.
    """
    if not any(task(sample) == "detection" for sample in samples):
        if chosen.threshold is not None or chosen.question is not None:
            raise ConfigError(f"{manifest} has no rows with a label alone: leave --threshold and --question out")
        if is_vad(name := _name(model)):
            raise ConfigError(f"{name} detects speech and writes no text: evaluate it on rows with a label and neither text nor response")
        return None
    from audiograft.evaluate.detecting import check_labels, check_rows, find_asked

    check_rows(samples, manifest)
    asked = find_asked(model, chosen)
    check_labels(samples, asked, manifest)
    return asked


def _settings(name: str, manifest: Path, samples: Sequence[Sample], chosen: Options, asked: Asked | None) -> dict[str, Any]:
    """What run.json says: what the predictions come from."""
    prompts = {sample.prompt for sample in samples}
    question = asked.as_dict() if asked else None
    return {
        "model": name,
        "model_fingerprint": model_fingerprint(name),
        "manifest": str(manifest.resolve()),
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        # Rows without clips keep their own.
        "prompt": question["prompt"] if question else chosen.prompt or (prompts.pop() if len(prompts) == 1 else None),
        "question": question,
        "language": chosen.language,
        "audio": chosen.audio,
        "pictures": chosen.pictures,
        "context": list(chosen.context),
        "batch_size": chosen.batch_size,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _work(
    folder: RunFolder,
    samples: Sequence[Sample],
    manifest: Path,
    model: Model,
    chosen: Options,
    asked: Asked | None,
    on_clip: Callable[[], None],
) -> float | None:
    """Do what is left to do, and say how long the predictions took, where they were made at once."""
    folder.done |= {sample.id: folder.failed[sample.id] for sample in samples if sample.id in folder.failed and not _is_readable(sample)}
    todo = [sample for sample in samples if sample.id not in folder.done]
    for _ in range(len(samples) - len(todo)):
        on_clip()
    wall_s = _former_wall_s(folder.path)
    if todo or not folder.is_complete:
        from audiograft.evaluate.work import as_named, clips_heard

        model = _open(model, chosen, asked)
        _check_model(model, manifest, samples, chosen, asked)
        at_once = not folder.done
        folder.settings |= {"parameters": _count_parameters(model)}
        folder.start()
        start_s = time.perf_counter()
        named = {sample.id: as_named(row) for sample, (_, row) in zip(samples, read_rows(manifest), strict=True)}
        if chosen.pictures == "shuffled":
            seen = {sample.id: sample for sample in _seeing_others(samples, manifest)}
            todo = [seen[sample.id] for sample in todo]
        for block in _predict(model, todo, clips_heard(samples, chosen.audio), named, chosen, asked, on_clip):
            folder.append(block)
        wall_s = time.perf_counter() - start_s if at_once else None
        folder.finish(sample.id for sample in samples)
    if chosen.deafness_clips and (chosen.audio, chosen.pictures) == ("true", "true"):
        _hear_differently(folder.path, samples, model, chosen, asked)
        _look_differently(folder.path, samples, model, chosen)
    return wall_s


def _seeing_others(samples: Sequence[Sample], manifest: Path) -> list[Sample]:
    from audiograft.evaluate.work import other_pictures

    others = other_pictures(samples)
    if others == list(samples):
        raise DataError(f"{manifest}: no row has a picture that another row lacks, so none can be exchanged: leave --pictures out")
    return others


def _open(model: Model, chosen: Options, asked: Asked | None) -> Any:
    if not isinstance(model, str | Path):
        return model
    if asked is not None:
        from audiograft.evaluate.detecting import open_detector

        return open_detector(model, chosen)
    from audiograft.evaluate.work import open_warm

    return open_warm(model, chosen)


def _count_parameters(model: Any) -> int | None:
    """Of a model, those that are shared once; None of a voice activity detector, which does not say."""
    return int(model.model.num_parameters()) if hasattr(model, "model") else None


def _predict(model: Any, samples: Sequence[Sample], heard: Any, named: Any, chosen: Options, asked: Asked | None, on_clip: Any) -> Iterator[Any]:
    """Blocks of predictions."""
    if asked is not None:
        from audiograft.evaluate.detecting import detect

        return detect(model, samples, heard, named, asked.question, chosen, on_clip)
    from audiograft.evaluate.work import predict

    return predict(model, samples, heard, named, chosen, on_clip)


def _is_readable(sample: Sample) -> bool:
    try:
        for clip in sample.clips:
            load_audio(clip)
        for image in sample.images:
            load_image(image)
        for video in sample.videos:
            load_video(video)
    except MediaError:
        return False
    return True


def _hear_differently(run: Path, samples: Sequence[Sample], model: Model, chosen: Options, asked: Asked | None) -> None:
    """Make the deafness table, unless it is there already: of the rows that would be drawn now, and not of fewer.

    Of clips of one label there is none: with other clips of the same label a detector that hears is as good.
    """
    if asked and len({sample.label for sample in samples}) < 2:
        return
    by_id = {sample.id: sample for sample in samples if sample.clips}
    ids = draw_deafness_rows(read_predictions(run), by_id.keys(), chosen.deafness_clips)
    if not ids or deafness_ids(run / DEAFNESS_NAME) == set(ids):
        return

    from audiograft.evaluate import detecting, work
    from audiograft.inference.engine import Engine

    engine = _open(model, chosen, asked)
    rows = [by_id[id_] for id_ in ids]
    if not isinstance(engine, Engine):
        return
    if asked is not None:
        detecting.hear_differently(engine, rows, asked.question, run, chosen)
    else:
        work.hear_differently(engine, rows, run, chosen)


def _look_differently(run: Path, samples: Sequence[Sample], model: Model, chosen: Options) -> None:
    """Make the table of rows with pictures, seen with those of others, likewise; rows for which there is no other picture are left out of it."""
    if not any(sample.images or sample.videos for sample in samples):
        return

    from audiograft.evaluate import work
    from audiograft.inference.engine import Engine

    predictions = read_predictions(run)
    failed = {row.id for row in predictions if row.error is not None}
    # What a row that failed shows may be what can't be read: no other row is to get it.
    samples = [sample for sample in samples if sample.id not in failed]
    others = {other.id: other for other, own in zip(work.other_pictures(samples), samples, strict=True) if other != own}
    ids = draw_deafness_rows(predictions, others.keys(), chosen.deafness_clips)
    if not ids or deafness_ids(run / BLINDNESS_NAME) == set(ids):
        return
    engine = _open(model, chosen, None)
    if isinstance(engine, Engine):
        work.look_differently(engine, [others[id_] for id_ in ids], run, chosen)


def _check_model(model: Any, manifest: Path, samples: Sequence[Sample], chosen: Options, asked: Asked | None) -> None:
    """A stock Whisper is no graft: it transcribes and takes no instruction. A voice activity detector writes nothing."""
    from audiograft.inference.whisper import WhisperEngine

    if not isinstance(model, WhisperEngine):
        return
    wrong = next((sample for sample in samples if asked or not is_plain(sample, sample.clips)), None)
    if wrong is not None:
        raise DataError(
            f"{manifest}: row {wrong.id!r} asks more than a transcript of one clip, and a stock Whisper can't be asked: leave such rows out"
        )
    if chosen.context or chosen.prompt or chosen.audio == "none":
        raise ConfigError("a stock Whisper takes no instruction: leave --context, --prompt and --audio none out")


def _former_wall_s(path: Path) -> float | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        metrics: Mapping[str, float | None] = json.loads((path / METRICS_NAME).read_text(encoding="utf-8"))
        return metrics["wall_s"]
    return None
