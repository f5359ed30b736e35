"""What runs leave beside a model, read back as plain JSON: how it was trained, and what evaluations found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from audiograft.types import ConfigError

TRAIN_NAME = "train.json"
ADAPTER_NAME = "adapter.json"
MERGE_NAME = "merge.json"
CONFIG_NAME = "config.json"
_METRICS_NAME = "metrics.json"
_RUN_NAME = "run.json"
_CLOCK_SLACK_S = 2.0
"""A run's date has whole seconds, and file systems differ in theirs."""

Role = Literal["training", "validation", "other", "unknown"]


@dataclass(frozen=True)
class Figure:
    """One rate of an evaluation run.

    Attributes:
        measure: wer of transcripts, or accuracy of answers.
        rate: over all of them, 0 and up.
        low: lower end of its interval; None where it is not known.
        high: upper end, likewise.
        confidence: of the interval, 0 to 1.
        rows: transcripts or answers that it is of.
    """

    measure: Literal["wer", "accuracy"]
    rate: float
    low: float | None
    high: float | None
    confidence: float
    rows: int


@dataclass(frozen=True)
class Evaluation:
    """The figures of one evaluation run.

    Attributes:
        folder: the run folder as it was named.
        metrics_sha256: of its metrics.json, from which all figures here come.
        data: name of the data.
        manifest_sha256: fingerprint of the data.
        role: what the data was to the training of this model; unknown where the training manifests can't be found.
        touches: what the data shares with training data by the leakage gate, such as speakers; None where it was not checked.
        audio: the clips that were given: true, or for a baseline shuffled or none.
        figures: one or two.
        failed: rows that could not be done, and are in no rate.
        normaliser: name and version.
        prompt: the instruction; None where it differed from clip to clip.
        pictures: the images and videos that were given, as for `audio`.
    """

    folder: str
    metrics_sha256: str
    data: str
    manifest_sha256: str
    role: Role
    touches: tuple[str, ...] | None
    audio: str
    figures: tuple[Figure, ...]
    failed: int
    normaliser: str
    prompt: str | None
    pictures: str = "true"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ConfigError: the file is missing, unreadable, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: can't be read ({error.strerror}): name the right folder, or make the file again") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not valid JSON: make the file again") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: is not a JSON object: make the file again")
    return value


def training_record(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """The file that says how the model in a folder was trained, and its content: train.json, else what adapter.json or merge.json keeps of it."""
    if (folder / TRAIN_NAME).is_file():
        return TRAIN_NAME, read_json(folder / TRAIN_NAME)
    for name in (ADAPTER_NAME, MERGE_NAME):
        if (folder / name).is_file():
            stored = read_json(folder / name)
            # What was merged from a checkpoint of another kind has nothing to say of its training.
            known = name == ADAPTER_NAME or bool(stored.get("recipe"))
            return (name, {"recipe": stored.get("recipe"), **(stored.get("provenance") or {})}) if known else None
    return None


def read_evaluation(run: Path, model: Path, repo: str, weights: list[Path]) -> Evaluation:
    """The figures of an evaluation run of a model.

    Args:
        run: folder with metrics.json and run.json, as `audiograft evaluate` leaves it.
        model: folder of the model.
        repo: the model's hub id, under which it may have been evaluated too.
        weights: the model's weight files, which must be older than the run.

    Raises:
        ConfigError: a file is missing or lacks a key, there is no rate, or the run is one of another model, or of older weights.
    """
    metrics, about = read_json(run / _METRICS_NAME), read_json(run / _RUN_NAME)
    try:
        _require_same_model(run, about, model, repo, weights)
        manifest, fingerprint = Path(about["manifest"]), str(about["manifest_sha256"])
        figures = _figures(metrics)
        if not figures:
            raise ConfigError(f"{run / _METRICS_NAME}: has no rate, since no reference has a word: leave the run out")
        leakage, choice = metrics.get("leakage") or {}, metrics.get("checkpoint") or {}
        role = _role(manifest, fingerprint, model)
        return Evaluation(
            folder=str(run),
            metrics_sha256=hashlib.sha256((run / _METRICS_NAME).read_bytes()).hexdigest(),
            data=manifest.parent.name if manifest.name == "manifest.jsonl" else manifest.stem,
            manifest_sha256=fingerprint,
            # Part of the validation data is another manifest, and was used for choosing all the same.
            role="validation" if choice.get("chosen_on_this_data") and role != "training" else role,
            touches=tuple(map(str, leakage["touches"])) if leakage.get("checked") else None,
            audio=about.get("audio", "true"),
            figures=figures,
            failed=len(metrics["failed"]),
            normaliser=f"{metrics['normaliser']['name']} {metrics['normaliser']['version']}",
            prompt=about["prompt"],
            pictures=about.get("pictures", "true"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{run}: {_METRICS_NAME} or {_RUN_NAME} lacks what a card needs ({error}): run audiograft evaluate again") from error


def _figures(metrics: dict[str, Any]) -> tuple[Figure, ...]:
    """None where there is no word to divide by. Raises KeyError, TypeError or ValueError where a key is missing or is of another kind."""
    answers = metrics.get("accuracy")
    asked = 0 if answers is None else int(answers["answers"])
    found: list[Figure] = []
    rows: tuple[tuple[Literal["wer", "accuracy"], Any, int], ...] = (
        ("wer", metrics["wer"], int(metrics["n_clips"]) - asked),
        ("accuracy", answers, asked),
    )
    for measure, value, count in rows:
        if value is not None and value["rate"] is not None:
            interval = value["interval"]
            low, high = (None if interval[end] is None else float(interval[end]) for end in ("low", "high"))
            found.append(Figure(measure, float(value["rate"]), low, high, float(interval["confidence"]), count))
    return tuple(found)


def _require_same_model(run: Path, about: dict[str, Any], model: Path, repo: str, weights: list[Path]) -> None:
    named = Path(str(about["model"])).expanduser()
    # The run may have been started elsewhere, where its relative path meant this folder.
    ends_alike = not named.is_absolute() and ".." not in named.parts and model.resolve().parts[-len(named.parts) :] == named.parts
    if str(about["model"]) != repo and named.resolve() != model.resolve() and not ends_alike:
        raise ConfigError(f"{run / _RUN_NAME}: is a run of the model {about['model']}, not of {model}: evaluate this one, or leave the run out")
    finished = datetime.fromisoformat(about["date"]).timestamp()
    newest = max(weights, key=lambda path: path.stat().st_mtime, default=None)
    if newest is not None and newest.stat().st_mtime > finished + _CLOCK_SLACK_S:
        raise ConfigError(f"{run / _RUN_NAME}: is older than {newest}, so its figures may be of other weights: evaluate again")


def _role(manifest: Path, fingerprint: str, model: Path) -> Role:
    """What the data was to training, by path and by content of the manifests that the recipes name."""
    recipes = list(_recipes(model))
    wanted: dict[Role, list[str]] = {"training": [], "validation": []}
    for recipe in recipes:
        data = recipe.get("data") or {}
        train = data.get("train") or []
        wanted["training"] += [train] if isinstance(train, str) else train
        wanted["validation"] += [data["validation"]] if data.get("validation") else []
    lost = not recipes
    for role, names in wanted.items():
        for name in names:
            path = Path(name) / "manifest.jsonl" if Path(name).is_dir() else Path(name)
            if path.resolve() == manifest.resolve():
                return role
            if not path.is_file():
                lost = True
            elif hashlib.sha256(path.read_bytes()).hexdigest() == fingerprint:
                return role
    return "unknown" if lost else "other"


def _recipes(model: Path) -> Iterator[dict[str, Any]]:
    """The recipe of each stage that made a model, the last stage first, as far back as the folders are there."""
    seen: set[Path] = set()
    while model.resolve() not in seen:
        seen.add(model.resolve())
        record = training_record(model)
        recipe = record[1].get("recipe") if record else None
        if not recipe:
            return
        yield recipe
        # A stage without a start model makes its own from parts.
        model = Path(recipe.get("model") or model)
