"""What a model does in an evaluation: transcripts and answers, how likely the references are to it, what it says without their sound and sight."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audiograft.audio import load_audio
from audiograft.data.manifest import audio_as_given, pictures_as_given, write_manifest
from audiograft.data.shuffling import shuffle_clips, shuffle_pictures
from audiograft.evaluate.folder import BLINDNESS_NAME, DEAFNESS_NAME
from audiograft.evaluate.options import Audio, Options, is_plain, task
from audiograft.evaluate.predictions import Prediction
from audiograft.images import load_image, load_video
from audiograft.inference.batching import BATCHES_IN_FLIGHT
from audiograft.inference.context import with_context
from audiograft.inference.decoding import Request, Waveform, write_answers
from audiograft.inference.engine import Engine
from audiograft.inference.questions import Question
from audiograft.inference.teacher_forcing import Referenced, TokenScores, score_references
from audiograft.inference.transcribing import transcript_tokens
from audiograft.inference.whisper import WhisperEngine, open_engine
from audiograft.messages import Message, conversation
from audiograft.types import WINDOW_S, WINDOW_SAMPLES, Answer, MediaError, Sample, Transcript

SHUFFLE_SEED = 0
_DIGITS = 5
"""Of log-probabilities: more would make the file longer and nothing else."""
_OWN = frozenset({*Prediction.__dataclass_fields__, "predicted"})
"""Keys of a prediction, which no key of a manifest may overwrite."""
_ANSWER_TOKENS = 64
"""Budget of what is said without the right sound: enough to be wrong."""
Result = Transcript | Answer | MediaError


def open_warm(model: str | Path, chosen: Options) -> Engine | WhisperEngine:
    """Open a model and let it hear something before the first row.

    Raises:
        ConfigError: it can't be opened.
    """
    engine = open_engine(model, chosen.device, language=chosen.language)
    engine.warm_up()
    return engine


def predict(
    engine: Engine | WhisperEngine,
    samples: Sequence[Sample],
    heard: Mapping[str, Sequence[str]],
    named: Mapping[str, Mapping[str, Any]],
    chosen: Options,
    on_clip: Callable[[], None] = lambda: None,
) -> Iterator[list[Prediction]]:
    """Transcribe single clips, those of one prompt together, and answer all else.

    Args:
        engine: the model.
        samples: rows of the manifest, with the pictures that are to be seen, or their own where none are.
        heard: by the row's id, the clips that it is heard with.
        named: see `as_named`, by the row's id.
        chosen: prompt, context, audio, pictures and batch size.
        on_clip: called after each row.

    Yields:
        Predictions of some rows, in the order of the work and not of the manifest.
    """
    given = {sample.id: sample for sample in samples}
    block = chosen.batch_size * BATCHES_IN_FLIGHT
    for ids in _groups(samples, heard):
        for start in range(0, len(ids), block):
            rows = [given[id_] for id_ in ids[start : start + block]]
            own = [heard[row.id] for row in rows]
            results = _results(engine, rows, own, chosen, on_clip)
            scores = _reference_scores(engine, rows, own, results, chosen)
            yield [_prediction(row, named[row.id], result, scores.get(row.id)) for row, result in zip(rows, results, strict=True)]


def clips_heard(samples: Sequence[Sample], audio: Audio) -> dict[str, Sequence[str]]:
    """The clips that each row of a manifest is heard with, by its id: of all rows, so that what is left of a run is shuffled as the whole was."""
    clips: Sequence[Sequence[str]] = [() if audio == "none" else sample.clips for sample in samples]
    if audio == "shuffled":
        clips = shuffle_clips(clips, SHUFFLE_SEED)
    return {sample.id: own for sample, own in zip(samples, clips, strict=True)}


def as_named(row: Mapping[str, Any]) -> dict[str, Any]:
    """The clips and pictures of a row of a manifest as that names them, in the keys of a prediction."""
    audio = audio_as_given(row)
    return {"audio": tuple(audio) if isinstance(audio, list) else audio, **pictures_as_given(row)}


def other_pictures(samples: Sequence[Sample]) -> list[Sample]:
    """The rows with the images and videos of others in the place of their own, see `shuffle_pictures`."""
    images, videos = (shuffle_pictures([getattr(sample, kind) for sample in samples], SHUFFLE_SEED) for kind in ("images", "videos"))
    return [replace(sample, images=tuple(own), videos=tuple(seen)) for sample, own, seen in zip(samples, images, videos, strict=True)]


def _groups(samples: Sequence[Sample], heard: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Ids of rows that can be done together: transcripts of one prompt, and all that is asked."""
    by_prompt: dict[str | None, list[str]] = defaultdict(list)
    for sample in samples:
        by_prompt[sample.prompt if is_plain(sample, heard[sample.id]) else None].append(sample.id)
    return list(by_prompt.values())


def _messages(sample: Sample, chosen: Options) -> list[Message]:
    """The conversation as it is put to the model."""
    return conversation(_in_context(sample, chosen), chosen.audio != "none", chosen.pictures != "none")


def _in_context(sample: Sample, chosen: Options) -> Sample:
    return sample if sample.messages or not chosen.context else replace(sample, prompt=with_context(sample.prompt, chosen.context))


def _results(
    engine: Engine | WhisperEngine, rows: Sequence[Sample], clips: Sequence[Sequence[str]], chosen: Options, on_clip: Callable[[], None]
) -> Sequence[Result]:
    if isinstance(engine, WhisperEngine):
        return engine.transcribe_many([own[0] for own in clips], batch_size=chosen.batch_size, on_result=lambda index, result: on_clip())
    if is_plain(rows[0], clips[0]):
        prompt = _in_context(rows[0], chosen).prompt
        return engine.transcribe_many(
            [own[0] for own in clips], batch_size=chosen.batch_size, prompt=prompt, on_result=lambda index, result: on_clip()
        )
    questions = [_question(row, own, chosen) for row, own in zip(rows, clips, strict=True)]
    return engine.ask_many(questions, batch_size=chosen.batch_size, on_result=lambda index, result: on_clip())


def _question(row: Sample, clips: Sequence[str], chosen: Options) -> Question:
    images, videos = ((), ()) if chosen.pictures == "none" else (row.images, row.videos)
    return Question(clips, messages=_messages(row, chosen), images=images, videos=videos)


def _reference_scores(
    engine: Engine | WhisperEngine, rows: Sequence[Sample], clips: Sequence[Sequence[str]], results: Sequence[Result], chosen: Options
) -> dict[str, TokenScores]:
    """How likely each reference is, where its clips could be read. Not of transcripts of long clips, which are written chunk by chunk."""
    if isinstance(engine, WhisperEngine):
        return {}
    wanted = [
        (row, own)
        for row, own, result in zip(rows, clips, results, strict=True)
        if not isinstance(result, MediaError) and (task(row) == "answer" or result.duration_s <= WINDOW_S)
    ]
    if not wanted:
        return {}
    questions = [_question(row, own, chosen) for row, own in wanted]
    scores = engine.score_references(questions, [row.target or "" for row, _ in wanted], batch_size=chosen.batch_size)
    return {row.id: score for (row, _), score in zip(wanted, scores, strict=True) if isinstance(score, TokenScores)}


def _prediction(sample: Sample, named: Mapping[str, Any], result: Result, score: TokenScores | None) -> Prediction:
    row = base_row(sample, named)
    if isinstance(result, MediaError):
        return replace(row, error=str(result))
    return replace(
        row,
        hypothesis=result.text,
        duration_s=result.duration_s,
        decode_s=None if result.decode_s is None else round(result.decode_s, 6),
        tokens=result.tokens,
        token_logprobs=tuple(round(value, _DIGITS) for value in result.token_logprobs),
        reference_nats=None if score is None else round(score.nats, _DIGITS),
        reference_tokens=None if score is None else score.n_tokens,
    )


def base_row(sample: Sample, named: Mapping[str, Any]) -> Prediction:
    """What a row of the manifest says of its prediction, before the model says anything; `named` is from `as_named`."""
    is_detection = task(sample) == "detection"
    extra = sample.extra if is_detection else sample.extra | {"label": sample.label}
    return Prediction(
        id=sample.id,
        reference=(sample.label if is_detection else sample.target) or "",
        hypothesis="",
        **named,
        task=task(sample),
        prompt=None if sample.messages or is_detection else sample.prompt,
        duration_s=sample.duration_s,
        speaker=sample.speaker,
        recording=sample.recording,
        source=sample.source,
        language=sample.language,
        question=_text_or_none(sample.extra.get("question")),
        snr_db=_snr_db(sample),
        extra={key: value for key, value in extra.items() if isinstance(value, str | int | float | bool) and key not in _OWN},
    )


def _snr_db(sample: Sample) -> float | None:
    """As the row states it, or what was measured when noise was put into its clip by `prepare`."""
    done = sample.extra.get("augmentation")
    found = sample.extra.get("snr_db", done.get("snr_db") if isinstance(done, dict) else None)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found) else None


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def hear_differently(engine: Engine, rows: Sequence[Sample], run: Path, chosen: Options) -> None:
    """Write `deafness.jsonl`: rows with the clips of others, and with zeros in the place of their own.

    Zeros are given to the model, which the engine itself would not do: it takes them for silence without asking.

    Args:
        engine: the model.
        rows: of the manifest, whose clips can be read and fit one window.
        run: the folder.
        chosen: prompt, context and batch size.
    """
    own = [row.clips for row in rows]
    heard: dict[str, Sequence[Sequence[str]]] = {"shuffled": shuffle_clips(own, SHUFFLE_SEED), "silence": own}
    lines = []
    block = chosen.batch_size * BATCHES_IN_FLIGHT
    for condition, named in heard.items():
        for start in range(0, len(rows), block):  # so that memory does not grow with their number
            clips = [[load_audio(clip).waveform[:WINDOW_SAMPLES] for clip in paths] for paths in named[start : start + block]]
            if condition == "silence":
                clips = [[np.zeros_like(clip) for clip in waveforms] for waveforms in clips]
            lines += [prediction.as_row() | {"heard": condition} for prediction in _heard_as(engine, rows[start : start + block], clips, chosen)]
    write_manifest(run / DEAFNESS_NAME, lines)


def look_differently(engine: Engine, rows: Sequence[Sample], run: Path, chosen: Options) -> None:
    """Write `blindness.jsonl`: rows with the pictures of others, and with their own clips.

    Args:
        engine: the model.
        rows: of the manifest with the pictures of others, whose clips can be read and fit one window.
        run: the folder.
        chosen: prompt, context and batch size.
    """
    lines = []
    block = chosen.batch_size * BATCHES_IN_FLIGHT
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        clips = [[load_audio(clip).waveform[:WINDOW_SAMPLES] for clip in row.clips] for row in part]
        lines += [prediction.as_row() | {"seen": "shuffled"} for prediction in _heard_as(engine, part, clips, chosen)]
    write_manifest(run / BLINDNESS_NAME, lines)


def _heard_as(engine: Engine, rows: Sequence[Sample], clips: Sequence[Sequence[Waveform]], chosen: Options) -> Iterator[Prediction]:
    """What is written, and how likely the references are, when other clips are heard."""
    messages = [_messages(row, chosen) for row in rows]
    budgets = [max(transcript_tokens(sum(map(len, waveforms))), _ANSWER_TOKENS) for waveforms in clips]
    seen: list[dict[str, Any]] = [{"images": tuple(map(load_image, row.images)), "videos": tuple(map(load_video, row.videos))} for row in rows]
    requests = [
        Request(message, waveforms, budget, **pictures) for message, waveforms, budget, pictures in zip(messages, clips, budgets, seen, strict=True)
    ]
    written = write_answers(engine.model, engine.processor, requests, batch_size=chosen.batch_size)
    references = [
        Referenced(message, waveforms, row.target or "", **pictures)
        for message, waveforms, row, pictures in zip(messages, clips, rows, seen, strict=True)
    ]
    scores = score_references(engine.model, engine.processor, references, chosen.batch_size)
    for row, answer, score in zip(rows, written, scores, strict=True):
        yield Prediction(
            id=row.id,
            reference=row.target or "",
            hypothesis=answer.text,
            task=task(row),
            speaker=row.speaker,
            reference_nats=round(score.nats, _DIGITS),
            reference_tokens=score.n_tokens,
        )
