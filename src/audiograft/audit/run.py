"""A run as its review sees it: the clips, their audio, and how each hypothesis differs from its reference."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from audiograft.data.paths import clip_path
from audiograft.evaluate.folder import RUN_NAME, VERDICTS_NAME
from audiograft.evaluate.predictions import PREDICTIONS_NAME, Prediction, find_predictions, read_predictions
from audiograft.metrics.alignment import WordEdit, diff_words
from audiograft.metrics.matches import match
from audiograft.metrics.normalisers import Normaliser, get_normaliser
from audiograft.metrics.word_errors import ErrorCounts, count_words
from audiograft.types import DataError

SAMPLE_NAME = "audit.json"
_FINGERPRINT_DIGITS = 16
"""64 bits: no two runs that anybody keeps will share them by chance."""
_DEFAULT_NORMALISER = "lower"
MatchKind = Literal["exact", "partial", "mismatch"]


@dataclass(frozen=True)
class AuditClip:
    """A clip to be judged.

    Attributes:
        index: its place in `AuditRun.clips`.
        prediction: its row.
        path: its files; empty where the row has no audio, or where one of them is missing.
        wer: errors per word of the reference, both normalised.
        errors: what `wer` counts.
        kind: how the texts match by system A's rule.
        confidence: geometric mean of the tokens' probabilities; None where they are not known.
    """

    index: int
    prediction: Prediction
    path: tuple[Path, ...]
    wer: float
    errors: ErrorCounts
    kind: MatchKind
    confidence: float | None

    @cached_property
    def diff(self) -> Sequence[WordEdit]:
        """The words as they were written, aligned: reference against hypothesis. For thousands of clips it is most of the work of showing them."""
        return diff_words(self.prediction.reference, self.prediction.hypothesis)

    @property
    def audio(self) -> tuple[str, ...]:
        """Its clips as the manifest names them."""
        return audio_names(self.prediction)


@dataclass(frozen=True)
class Stratum:
    """The clips of a range of WER, and how many of them were drawn.

    Attributes:
        wer: the range in words, such as `0` or `up to 10 %`.
        clips: in the run.
        drawn: in the sample.
    """

    wer: str
    clips: int
    drawn: int


@dataclass(frozen=True)
class DrawnSample:
    """What was drawn from what.

    Attributes:
        n: clips drawn.
        seed: same seed, same clips.
        of: clips of the run that could be drawn.
        strata: the ranges of WER, each drawn from in proportion to its size, so that shares need no weights; one range alone where the whole run
            was drawn from at once.
        ids: what was drawn, in the run's order.
    """

    n: int
    seed: int
    of: int
    strata: tuple[Stratum, ...]
    ids: tuple[str, ...]

    @property
    def is_stratified(self) -> bool:
        """Whether each range of WER was drawn from by itself."""
        return len(self.strata) > 1


@dataclass(frozen=True)
class AuditRun:
    """A run under review.

    Attributes:
        folder: where its predictions lie.
        name: of the folder, or of a predictions file that lies in no run folder.
        fingerprint: the first 16 hex digits of the SHA-256 of the predictions file; verdicts belong to it.
        clips: those to be judged, in the order of the predictions; after `sample_clips` those that were drawn.
        normaliser: what is done to texts before words are counted: that of the run.
        failed: rows without a hypothesis, which can't be judged.
        predictions: the predictions file.
        manifest: what was evaluated, where run.json names it.
        missing: clips with audio that is not there.
        sample: what was drawn; None where `clips` are all.
        notes: a line each for what the user should know.
        telling_notes: the same, of what tells which text is the label: nothing for a blind session.
    """

    folder: Path
    name: str
    fingerprint: str
    clips: tuple[AuditClip, ...]
    normaliser: Normaliser
    failed: tuple[Prediction, ...]
    predictions: Path
    manifest: Path | None
    missing: int
    sample: DrawnSample | None = None
    notes: tuple[str, ...] = ()
    telling_notes: tuple[str, ...] = ()

    @property
    def verdicts_path(self) -> Path:
        """Where its verdicts are kept: in the run folder, or beside a lone predictions file and named after it."""
        return self._beside(VERDICTS_NAME)

    @property
    def sample_path(self) -> Path:
        """Where it is kept which clips were drawn."""
        return self._beside(SAMPLE_NAME)

    def _beside(self, name: str) -> Path:
        return self.folder / (name if self.predictions.name == PREDICTIONS_NAME else f"{self.predictions.stem}.{name}")


def load_run(path: str | Path, allow_outside: bool = False, *, audio_root: str | Path | None = None, needs_audio: bool = True) -> AuditRun:
    """Read a run for review. No audio is opened.

    Args:
        path: a run folder, or a predictions file.
        allow_outside: also take clips that do not lie below the folder to which they are relative.
        audio_root: the folder to which clips are relative, in place of that of the manifest that run.json names; by default, without a run.json,
            that of the predictions file.
        needs_audio: refuse a run none of whose clips is there.

    Raises:
        ConfigError: run.json names an unknown normaliser.
        DataError: the predictions or run.json can't be used, no row has a hypothesis, a clip lies outside, or all audio is missing.
    """
    file = find_predictions(path)
    predictions = read_predictions(file)
    settings = _settings(file)
    manifest = file.parent / settings["manifest"] if "manifest" in settings else None
    failed = tuple(prediction for prediction in predictions if prediction.error is not None)
    heard = [prediction for prediction in predictions if prediction.error is None]
    if not heard:
        raise DataError(f"{file}: all {len(failed)} clips failed, so there is nothing to judge; the first: {failed[0].error}")
    root = Path(audio_root) if audio_root is not None else file.parent if manifest is None else manifest.parent
    paths = _find_audio(file, heard, root, manifest, allow_outside)
    normaliser = get_normaliser(settings.get("normaliser", {}).get("name", _DEFAULT_NORMALISER))
    clips = tuple(_clip(index, prediction, found, normaliser) for index, (prediction, found) in enumerate(zip(heard, paths, strict=True)))
    missing = [clip for clip in clips if clip.prediction.audio and not clip.path]
    if needs_audio and missing and not any(clip.path for clip in clips):
        raise DataError(
            f"{file}: the audio of all {len(missing)} clips is missing (the first: {root / missing[0].audio[0]}): "
            "if it has moved, name its folder with --audio-root"
        )
    in_folder = file.name == PREDICTIONS_NAME
    return AuditRun(
        folder=file.parent,
        name=file.resolve().parent.name if in_folder else file.name,
        fingerprint=hashlib.sha256(file.read_bytes()).hexdigest()[:_FINGERPRINT_DIGITS],
        clips=clips,
        normaliser=normaliser,
        failed=failed,
        predictions=file,
        manifest=manifest,
        missing=len(missing),
        notes=_notes(clips, missing, failed, root),
        telling_notes=_telling_notes(clips),
    )


def _settings(file: Path) -> dict[str, Any]:
    """What run.json says beside a predictions file of that folder; nothing where there is none."""
    told = file.parent / RUN_NAME
    if file.name != PREDICTIONS_NAME or not told.is_file():
        return {}
    try:
        settings = json.loads(told.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{told}: can't be read ({error}): mend it, or take it away and name the clips' folder with --audio-root") from error
    fits = isinstance(settings, dict) and isinstance(settings.get("manifest", ""), str)
    normaliser = settings.get("normaliser", {}) if fits else None
    if not isinstance(normaliser, dict) or not isinstance(normaliser.get("name", ""), str):
        raise DataError(f'{told}: "manifest" must be a path and "normaliser" an object with a "name": mend it, or take it away')
    return dict(settings)


def audio_names(prediction: Prediction) -> tuple[str, ...]:
    """Its clips as the manifest names them."""
    return (prediction.audio,) if isinstance(prediction.audio, str) else prediction.audio or ()


def _find_audio(file: Path, predictions: Sequence[Prediction], root: Path, manifest: Path | None, allow_outside: bool) -> list[tuple[Path, ...]]:
    """The files of each row; none where any of them is missing."""
    for prediction in predictions:
        if not all(isinstance(name, str) and name for name in audio_names(prediction)):
            raise DataError(f'{file}: row {prediction.id!r}: "audio" must be a path or a list of paths: correct the row')
    moved_from = _former_folder(predictions, manifest) if manifest is None or root != manifest.parent else None
    found = []
    for prediction in predictions:
        place = f"{file}: row {prediction.id!r}"
        names = [_below(name, moved_from) for name in audio_names(prediction)]
        paths = [clip_path(name, root, place, allow_outside) for name in names]
        found.append(tuple(map(Path, paths)) if all(os.path.isfile(path) for path in paths) else ())
    return found


def _former_folder(predictions: Sequence[Prediction], manifest: Path | None) -> str | None:
    """The folder in which clips with an absolute path lay, for finding them below another: the manifest's, or the one that they share."""
    if manifest is not None:
        return str(manifest.parent)
    folders = {os.path.dirname(name) for prediction in predictions for name in audio_names(prediction) if os.path.isabs(name)}
    return os.path.commonpath(folders) if folders else None


def _below(name: str, folder: str | None) -> str:
    """A clip's path relative to the folder, where it is absolute and lies below it."""
    is_moved = folder is not None and os.path.isabs(name) and name.startswith(os.path.join(folder, ""))
    return os.path.relpath(name, folder) if is_moved else name


def _clip(index: int, prediction: Prediction, path: tuple[Path, ...], normaliser: Normaliser) -> AuditClip:
    reference, hypothesis = prediction.reference, prediction.hypothesis
    errors = count_words(normaliser, reference, hypothesis)
    return AuditClip(index, prediction, path, errors.rate, errors, match(reference, hypothesis), prediction.confidence)


def _notes(clips: Sequence[AuditClip], missing: Sequence[AuditClip], failed: Sequence[Prediction], root: Path) -> tuple[str, ...]:
    notes = []
    if failed:
        notes.append(f"{len(failed)} of {len(failed) + len(clips)} clips failed and can't be judged; the first: {failed[0].error}")
    if missing:
        first = root / missing[0].audio[0]
        notes.append(f"{len(missing)} of {len(clips)} clips: audio missing (the first: {first}): if it has moved, name its folder with --audio-root")
    return tuple(notes)


def _telling_notes(clips: Sequence[AuditClip]) -> tuple[str, ...]:
    notes = []
    if not any(clip.prediction.hypothesis.strip() for clip in clips):
        notes.append(f"all {len(clips)} hypotheses are empty: the model wrote nothing, which is no question of labels: look at its run first")
    if empty := sum(not clip.errors.reference_length for clip in clips):
        notes.append(f"{empty} of {len(clips)} references have no words once normalised: their WER is the number of words that the model wrote")
    return tuple(notes)
