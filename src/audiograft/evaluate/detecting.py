"""Detections of a manifest: which of a few labels a model, or a voice activity detector, gives each clip, and how sure it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from audiograft.audio import load_audio
from audiograft.data.manifest import write_manifest
from audiograft.data.shuffling import shuffle_clips
from audiograft.evaluate.calibrating import log_odds
from audiograft.evaluate.folder import DEAFNESS_NAME
from audiograft.evaluate.options import Options, task
from audiograft.evaluate.predictions import Prediction
from audiograft.evaluate.work import SHUFFLE_SEED, base_row
from audiograft.inference.batching import BATCHES_IN_FLIGHT
from audiograft.inference.choices import DEFAULT_QUESTION, ClosedQuestion, choice_probs, find_question, score_choices
from audiograft.inference.engine import Engine
from audiograft.inference.transcribing import a_second_of_noise
from audiograft.inference.vads import VADS, Vad, is_vad, open_vad
from audiograft.inference.whisper import WhisperEngine, open_engine
from audiograft.model.checkpoint import resolve_model
from audiograft.types import DETECTION_FILE, TRANSCRIBE_PROMPT, WINDOW_SAMPLES, AudioError, ConfigError, DataError, Sample

Detector = Engine | Vad
_DIGITS = 6
"""Of log-probabilities."""
_DETECTORS = ("tiny-detect", "tiny")
"""Models in the package that can be asked."""


@dataclass(frozen=True)
class Asked:
    """The question that all clips of a run are asked, and where it comes from.

    Attributes:
        question: with its temperature and threshold.
        named: whether the detector reads it; of a voice activity detector labels, temperature and threshold alone count.
        threshold_from: `by hand`, the file that it stands in, or `default`.
    """

    question: ClosedQuestion
    named: bool
    threshold_from: str

    def as_dict(self) -> dict[str, Any]:
        """For run.json."""
        told = asdict(self.question)
        if not self.named:
            told |= {"prompt": None, "system": None, "answers": dict.fromkeys(self.question.labels)}
        return told | {"threshold_from": self.threshold_from}


def check_rows(samples: Sequence[Sample], manifest: Path) -> None:
    """Raises DataError where some rows want a label and others a text, or one has not just one clip, or pictures, or asks a question of its own."""
    if others := [sample for sample in samples if task(sample) != "detection"]:
        raise DataError(
            f"{manifest}: {len(samples) - len(others)} rows have a label alone, to be detected, and {len(others)} a text, such as "
            f"{others[0].id!r}: put them into two manifests"
        )
    for sample in samples:
        if len(sample.clips) != 1:
            raise DataError(f"{manifest}: row {sample.id!r} has {len(sample.clips)} clips, and a label is detected in one: give it one")
        if sample.images or sample.videos:
            raise DataError(f"{manifest}: row {sample.id!r} has pictures, and a label is detected in a clip alone: take them out of it")
        if sample.messages:
            raise DataError(f"{manifest}: row {sample.id!r} has a conversation, and all labels are detected by one question: put it into --prompt")


def find_asked(model: Detector | WhisperEngine | str | Path, chosen: Options) -> Asked:
    """What the clips will be asked: the model's own question, or that of a folder or of the options.

    Temperature and threshold were fitted to one prompt: another one has neither.

    Raises:
        ConfigError: a question that can't be read, or options that have no place in it.
    """
    if chosen.context or chosen.audio == "none":
        raise ConfigError("labels are detected in clips, by one question: leave --context and --audio none out")
    name = str(model if isinstance(model, str | Path) else model.name)
    if isinstance(model, str):
        _refuse_unknown(model)
    vad = model if not isinstance(model, str | Path | Engine | WhisperEngine) else open_vad(name) if is_vad(name) else None
    named = vad is None
    if isinstance(chosen.question, ClosedQuestion):
        question, source = chosen.question, "by hand"
    elif chosen.question is not None:
        question, source = _of_folder(chosen.question, name), str(chosen.question / DETECTION_FILE)
    elif vad is not None:
        question, source = replace(DEFAULT_QUESTION, threshold=vad.threshold), "default"
    else:
        own = find_question(name) if isinstance(model, str | Path) or _is_known(name) else None
        question, source = own or DEFAULT_QUESTION, f"{name}/{DETECTION_FILE}" if own else "default"
    if chosen.prompt is not None and not named:
        raise ConfigError(f"{name} takes no instruction: leave --prompt out")
    if chosen.prompt not in (None, question.prompt):
        question, source = replace(DEFAULT_QUESTION, prompt=chosen.prompt, answers=question.answers, system=question.system), "default"
    if chosen.threshold is not None:
        if len(question.labels) > 2:
            raise ConfigError(
                f"a threshold is between two labels, and here are {len(question.labels)}, of which the likeliest is taken: leave it out"
            )
        question, source = replace(question, threshold=chosen.threshold), "by hand"
    return Asked(question, named, source)


def _of_folder(folder: Path, name: str) -> ClosedQuestion:
    """The question of a folder, whose two numbers, where they were fitted, were fitted to this very model."""
    question = ClosedQuestion.read(folder)
    fitted = (question.chosen_on or {}).get("model", name)
    if fitted != name and Path(fitted).expanduser().resolve() != Path(name).expanduser().resolve():
        raise ConfigError(
            f"{folder / DETECTION_FILE}: temperature and threshold were fitted to {fitted}, not to {name}: fit them to it with audiograft calibrate"
        )
    return question


def _refuse_unknown(name: str) -> None:
    """Raises ConfigError for the name of no model, with that of the detector that was meant."""
    if is_vad(name) or _is_known(name) or Path(name).expanduser().exists():
        return
    near = get_close_matches(name, (*_DETECTORS, *VADS), n=1, cutoff=0.4)
    meant = f"did you mean {near[0]}? " if near else ""
    raise ConfigError(f"unknown model {name}: {meant}give a model's folder, a hub id, {', '.join(_DETECTORS)}, or one of {', '.join(VADS)}")


def _is_known(name: str) -> bool:
    """Whether a model has that name; what was put together in memory has any."""
    try:
        resolve_model(name)
    except ConfigError:
        return False
    return True


def check_labels(samples: Sequence[Sample], asked: Asked, manifest: Path) -> None:
    """Raises DataError where a row has a label that can't be detected, or a question of its own."""
    labels = asked.question.labels
    for sample in samples:
        if sample.label not in labels:
            near = next((label for label in labels if label.casefold() == str(sample.label).strip().casefold()), None)
            mend = f": spell it {near}" if near else ""
            raise DataError(
                f"{manifest}: row {sample.id!r} is labelled {sample.label!r}, and the labels to choose from are {', '.join(labels)}{mend}"
            )
        if asked.named and sample.prompt not in (TRANSCRIBE_PROMPT, asked.question.prompt):
            raise DataError(f"{manifest}: row {sample.id!r} has a prompt of its own, and all labels are detected by one: give it as --prompt")


def open_detector(model: str | Path, chosen: Options) -> Detector:
    """Open what detects, and let it hear something before the first row.

    Raises:
        ConfigError: it can't be opened, or does not detect.
    """
    if is_vad(str(model)):
        vad = open_vad(str(model))
        vad.speech_probs([a_second_of_noise()])
        return vad
    engine = open_engine(model, chosen.device, language=chosen.language)
    if isinstance(engine, WhisperEngine):
        raise ConfigError(f"{model}: a stock Whisper can't be asked for a label: name a graft, or a voice activity detector such as silero-vad")
    engine.warm_up()
    return engine


def detect(
    detector: Detector,
    samples: Sequence[Sample],
    heard: Mapping[str, Sequence[str]],
    named: Mapping[str, Mapping[str, Any]],
    question: ClosedQuestion,
    chosen: Options,
    on_clip: Callable[[], None] = lambda: None,
) -> Iterator[list[Prediction]]:
    """Detect the label of each row, in blocks.

    Args:
        detector: a model or a voice activity detector.
        samples: rows of the manifest.
        heard: by the row's id, the clip that it is heard with.
        named: see `as_named`, by the row's id.
        question: what is asked.
        chosen: the batch size.
        on_clip: called after each row.

    Yields:
        Predictions of some rows, in their order.
    """
    block = chosen.batch_size * BATCHES_IN_FLIGHT
    for start in range(0, len(samples), block):
        rows = samples[start : start + block]
        bases = [base_row(row, named[row.id]) for row in rows]
        clips = [heard[row.id][0] for row in rows]
        if isinstance(detector, Engine):
            yield _answered(detector, bases, clips, question, chosen, on_clip)
        else:
            yield _judged(detector, bases, clips, question, on_clip)


def _answered(
    engine: Engine, bases: Sequence[Prediction], clips: Sequence[str], question: ClosedQuestion, chosen: Options, on_clip: Callable[[], None]
) -> list[Prediction]:
    results = engine.choose_many(clips, question, batch_size=chosen.batch_size, on_result=lambda index, result: on_clip())
    found = []
    for base, result in zip(bases, results, strict=True):
        if isinstance(result, AudioError):
            found.append(replace(base, error=str(result)))
            continue
        scores = {label: round(score, _DIGITS) for label, score in result.scores.items()} or None
        found.append(
            replace(
                base,
                hypothesis=result.predicted,
                speech_prob=result.speech_prob,
                scores=scores,
                duration_s=result.duration_s,
                decode_s=None if result.decode_s is None else round(result.decode_s, 6),
            )
        )
    return found


def _judged(vad: Vad, bases: Sequence[Prediction], clips: Sequence[str], question: ClosedQuestion, on_clip: Callable[[], None]) -> list[Prediction]:
    """What a voice activity detector says; its probability is tempered where the question says so."""
    found = []
    for base, path in zip(bases, clips, strict=True):
        try:
            clip = load_audio(path)
        except AudioError as error:
            found.append(replace(base, error=str(error)))
            on_clip()
            continue
        start_s = time.perf_counter()
        raw = float(vad.speech_probs([clip.waveform])[0])
        decode_s = time.perf_counter() - start_s
        probability = tempered(raw, question.temperature)
        label = question.pick([probability, 1 - probability])
        found.append(
            replace(base, hypothesis=label, speech_prob=probability, duration_s=round(clip.duration_s, 4), decode_s=round(decode_s, _DIGITS))
        )
        on_clip()
    return found


def tempered(probability: float, temperature: float) -> float:
    """A probability whose log-odds are divided by the temperature."""
    if temperature == 1:
        return probability
    return 1 / (1 + math.exp(-log_odds(probability) / temperature))


def hear_differently(engine: Engine, rows: Sequence[Sample], question: ClosedQuestion, run: Path, chosen: Options) -> None:
    """Write `deafness.jsonl`: rows with the clips of others, and with zeros in the place of their own.

    Args:
        engine: the model.
        rows: of the manifest, whose clips can be read and fit one window.
        question: what is asked.
        run: the folder.
        chosen: the batch size.
    """
    own = [row.clips for row in rows]
    shuffled = shuffle_clips(own, SHUFFLE_SEED)
    lines = []
    for condition, paths in (("shuffled", shuffled), ("silence", own)):
        waveforms = [load_audio(clip).waveform[:WINDOW_SAMPLES] for (clip,) in paths]
        if condition == "silence":
            waveforms = [np.zeros_like(waveform) for waveform in waveforms]
        scores = score_choices(engine.model, engine.processor, question, waveforms, chosen.batch_size)
        lines += [_heard(row, question, own_scores).as_row() | {"heard": condition} for row, own_scores in zip(rows, scores, strict=True)]
    write_manifest(run / DEAFNESS_NAME, lines)


def _heard(row: Sample, question: ClosedQuestion, scores: npt.NDArray[np.float64]) -> Prediction:
    probabilities = choice_probs(scores, question.temperature).tolist()
    by_label = dict(zip(question.labels, np.round(scores, _DIGITS).tolist(), strict=True))
    return replace(base_row(row, {}), hypothesis=question.pick(probabilities), speech_prob=probabilities[0], scores=by_label)
