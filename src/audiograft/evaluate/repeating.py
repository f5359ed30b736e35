"""One recipe trained over several seeds and splits: how far a result varies, and by which of the two."""

from __future__ import annotations

import gc
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from audiograft.data.manifest import find_manifest, write_manifest
from audiograft.evaluate.clips import as_dict
from audiograft.evaluate.folder import METRICS_NAME, write_json
from audiograft.evaluate.plots import MARKERS, SERIES, Drawing, Share, axis_start, margins, share_axis
from audiograft.evaluate.predictions import Prediction, read_predictions
from audiograft.evaluate.resplitting import read_bench, resplit
from audiograft.evaluate.run import evaluate
from audiograft.metrics.variance import VarianceParts, variance_parts
from audiograft.model.records import TRAIN_NAME, read_json
from audiograft.train.index import ManifestFile
from audiograft.train.recipe import Recipe, load_recipe
from audiograft.train.run import train
from audiograft.types import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPEAT_NAME, CLIPS_NAME, PLOT_NAME = "repeat.json", "clips.jsonl", "repeat.png"
SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}
SHARES_BESIDE_TEST = {"train": 0.9, "dev": 0.1}
_ROWS_NAME = "rows.json"
_RATES = ("accuracy", "balanced_accuracy")
_BATCH_SIZE = 64
_SIZE_INCHES = (5.6, 3.2)
_SPREAD = 0.5
"""How much of the room of a split its runs take in the picture."""


@dataclass(frozen=True)
class _Run:
    """One training with its test."""

    seed: int
    split: int
    folder: Path
    test: Path

    @property
    def tested(self) -> Path:
        """The run folder of its evaluation."""
        return self.folder / "test"


def repeat(
    recipe: str | Path,
    seeds: Sequence[int],
    n_splits: int,
    out: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    test: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train and test a detector once a seed and a split; what is done already is not done again.

    Each split is a new one of all rows of `data.train` and `data.validation`, 80 : 10 : 10, by speaker and recording. The rows of `data.held_out` are
    not touched. All seeds of a split are tested on the same clips.

    Args:
        recipe: with `detection`, and manifests.
        seeds: of the runs.
        n_splits: how many.
        out: folder of all; `output_dir` of the recipe with `-repeat` by default.
        overrides: as for `load_recipe`.
        test: one manifest that all runs are tested on, in place of a part of each split.
        console: where progress goes.

    Returns:
        What is in out/repeat.json. Beside it are clips.jsonl (each test clip, with what the runs said of it), repeat.png, and in `split-K/seed-S` the
        models with their evaluations.

    Raises:
        ConfigError: a recipe that can't be repeated, or `out` is that of other runs.
        DataError: rows that can't be split.
        AudiograftError: as `train` and `evaluate`.
    """
    base = load_recipe(recipe, overrides)
    _check(base, str(recipe), seeds, n_splits)
    console = console or Console(stderr=True)
    out = out or Path(f"{base.output_dir}-repeat")
    runs = _plan(base, seeds, n_splits, out, test)
    for number, (run, own) in enumerate(runs, start=1):
        console.print(f"run {number} of {len(runs)}: split {run.split}, seed {run.seed}, in {run.folder}", soft_wrap=True, markup=False)
        done = _is_done(run, own)
        if not done:
            train(own, console=console)
            write_json(run.folder / _ROWS_NAME, _rows_of(run, own))
            gc.collect()
        if not done or not (run.tested / METRICS_NAME).is_file():
            evaluate(str(run.folder), run.test, run.tested, batch_size=_BATCH_SIZE, deafness_clips=0, allow_outside=True, overwrite=not done)
    found = collect([run for run, _ in runs], out) | {"recipe": str(recipe), "test": None if test is None else str(test)}
    write_json(out / REPEAT_NAME, found)
    return found


def _check(recipe: Recipe, source: str, seeds: Sequence[int], n_splits: int) -> None:
    if recipe.detection is None:
        raise ConfigError(f"{source}: what is repeated are detections: give the recipe a section detection, with answers for the labels")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError("seeds must be different numbers, one at least, such as 0,1,2")
    if wrong := [seed for seed in seeds if not 0 <= seed < 2**32]:  # numpy's range
        raise ConfigError(f"seeds must be from 0 to {2**32 - 1}, not {wrong[0]}")
    if n_splits < 1:
        raise ConfigError(f"splits must be 1 or more, not {n_splits}")
    if recipe.data.streaming or any(corpus.manifest is None or corpus.weight != 1 for corpus in recipe.data.corpora):
        raise ConfigError(f"{source}: data.train must be manifests without weights, not streamed, to be split anew: prepare sources first")


def _plan(base: Recipe, seeds: Sequence[int], n_splits: int, out: Path, test: str | Path | None) -> list[tuple[_Run, Recipe]]:
    """All runs with their recipes, splits written down."""
    assert base.detection is not None
    manifests = [corpus.manifest for corpus in base.data.corpora if corpus.manifest is not None]
    manifests += [base.data.validation] if base.data.validation else []
    rows = read_bench(manifests, tuple(base.detection.answers), base.data.allow_outside)
    fixed = None if test is None else find_manifest(test)
    if fixed is not None:
        read_bench([str(fixed)], tuple(base.detection.answers), True)  # a label without an answer stops here, and not behind the trainings
    planned = []
    for split in range(n_splits):
        folder = out / f"split-{split}"
        parts = resplit(rows, SHARES if fixed is None else SHARES_BESIDE_TEST, split, folder)
        tested = parts["test"] if fixed is None else fixed
        held_out = tuple(dict.fromkeys((*base.data.held_out, str(tested))))
        data = replace(base.data, train=(str(parts["train"]),), validation=str(parts["dev"]), held_out=held_out, allow_outside=True)
        for seed in seeds:
            run = _Run(seed, split, folder / f"seed-{seed}", tested)
            planned.append((run, replace(base, seed=seed, output_dir=str(run.folder), data=data)))
    return planned


def _is_done(run: _Run, recipe: Recipe) -> bool:
    """Whether the run has ended, with this recipe on these rows.

    Raises:
        ConfigError: it has ended with another recipe, or on other rows.
    """
    path = run.folder / TRAIN_NAME
    if not path.is_file():
        return False
    stored, own = read_json(path).get("recipe"), json.loads(json.dumps(recipe.as_dict()))
    if stored != own:
        key = next((key for key in own if not isinstance(stored, dict) or stored.get(key) != own[key]), "recipe")
        raise ConfigError(f"{path} is of a run with another {key}: choose another --out, or delete {run.folder}")
    if (run.folder / _ROWS_NAME).is_file() and read_json(run.folder / _ROWS_NAME) != _rows_of(run, recipe):
        raise ConfigError(
            f"{path} is of a run on other rows than those of {recipe.data.train[0]} and {run.test}: choose another --out, or delete {run.folder}"
        )
    return True


def _rows_of(run: _Run, recipe: Recipe) -> dict[str, Any]:
    """SHA-256 of what is learnt, validated and tested on."""
    assert recipe.data.validation is not None
    files = {"train": str(recipe.data.train[0]), "dev": recipe.data.validation, "test": str(run.test)}
    return {name: ManifestFile.open(path).sha256 for name, path in files.items()}


def collect(runs: Sequence[_Run], out: Path) -> dict[str, Any]:
    """Every figure, from the predictions and metrics of the runs; writes clips.jsonl and repeat.png."""
    told = [_told(run) for run in runs]
    predictions = [read_predictions(run.tested) for run in runs]
    fewest = min(row["n_clips"] for row in told)
    write_manifest(out / CLIPS_NAME, _clips(predictions))
    draw_runs(told).save(out / PLOT_NAME)
    return {
        "runs": told,
        "variance": {rate: _as_dict(_parts(told, rate, fewest)) for rate in _RATES},
        "disagreement": _disagreement(runs, predictions),
        "one_clip": 1 / fewest,
        "notes": _notes(told, fewest),
    }


def _told(run: _Run) -> dict[str, Any]:
    metrics = read_json(run.tested / METRICS_NAME)["detection"]
    trained = read_json(run.folder / TRAIN_NAME)
    return {
        "seed": run.seed,
        "split": run.split,
        "folder": str(run.folder),
        "n_clips": metrics["accuracy"]["n"],
        "errors": metrics["accuracy"]["n"] - metrics["accuracy"]["right"],
        "accuracy": metrics["accuracy"]["rate"],
        "wilson": metrics["wilson"],
        "balanced_accuracy": metrics["balanced_accuracy"]["rate"],
        "balanced_interval": metrics["balanced_accuracy"]["interval"],
        "roc_auc": metrics["roc_auc"]["value"],
        "ece": metrics["ece"],
        "deaf": trained["deaf"],
    }


def _parts(told: Sequence[Mapping[str, Any]], rate: str, fewest: int) -> VarianceParts | None:
    """None where a run has no such rate."""
    if any(row[rate] is None for row in told):
        return None
    seeds, splits = (list(dict.fromkeys(row[key] for row in told)) for key in ("seed", "split"))
    table = np.zeros((len(seeds), len(splits)))
    for row in told:
        table[seeds.index(row["seed"]), splits.index(row["split"])] = row[rate]
    return variance_parts(table, fewest)


def _as_dict(parts: VarianceParts | None) -> dict[str, Any] | None:
    return None if parts is None else asdict(parts) | {"interval": as_dict(parts.interval), "notes": list(parts.notes)}


def _clips(predictions: Sequence[Sequence[Prediction]]) -> list[dict[str, Any]]:
    """What the runs said of each clip, the hardest ones first."""
    of_clip: dict[str, list[Prediction]] = defaultdict(list)
    for row in (row for run in predictions for row in run if row.error is None):
        of_clip[row.id].append(row)
    told = []
    for id_, rows in of_clip.items():
        probs = [row.speech_prob for row in rows if row.speech_prob is not None]
        said = dict(sorted(Counter(row.hypothesis for row in rows).items()))
        right = sum(row.hypothesis == row.reference for row in rows)
        mean = round(float(np.mean(probs)), 6) if probs else None
        told.append(
            {"id": id_, "audio": rows[0].audio, "label": rows[0].reference, "runs": len(rows), "right": right, "said": said, "speech_prob": mean}
        )
    return sorted(told, key=lambda row: (row["right"] / row["runs"], row["id"]))


def _disagreement(runs: Sequence[_Run], predictions: Sequence[Sequence[Prediction]]) -> dict[str, Any]:
    """On clips that several runs were tested on: how often these do not all say the same, and how often two of them differ."""
    said = [{row.id: row.hypothesis for row in own if row.error is None} for own in predictions]
    by_pair: dict[str, list[float]] = {"of_one_split": [], "of_two_splits": []}
    for one, other in combinations(range(len(runs)), 2):
        shared = said[one].keys() & said[other].keys()
        if shared:
            kind = "of_one_split" if runs[one].split == runs[other].split else "of_two_splits"
            by_pair[kind].append(sum(said[one][id_] != said[other][id_] for id_ in shared) / len(shared))
    counts = [row for row in _clips(predictions) if row["runs"] > 1]
    return {
        "clips": len(counts),
        "differing": sum(len(row["said"]) > 1 for row in counts),
        "always_wrong": sum(row["right"] == 0 for row in counts),
        "share_of_two_runs": {kind: float(np.mean(shares)) if shares else None for kind, shares in by_pair.items()},
    }


def _notes(told: Sequence[Mapping[str, Any]], fewest: int) -> list[str]:
    notes = [f"one clip more or less is {100 / fewest:.2g} points: differences of that size are no finding"]
    if len({row["accuracy"] for row in told}) == 1 and len(told) > 1:
        notes.append("all runs have the same accuracy: too few test clips to tell them apart, or runs that are not independent")
    if deaf := [f"split {row['split']}, seed {row['seed']}" for row in told if row["deaf"]]:
        notes.append(f"these runs did not pass the deafness check: {'; '.join(deaf)}")
    return notes


def draw_runs(rows: Sequence[Mapping[str, Any]]) -> Drawing:
    """A point a run with Wilson's interval, side by side within its split, a colour a seed."""
    seeds, splits = (list(dict.fromkeys(row[key] for row in rows)) for key in ("seed", "split"))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, seed in enumerate(seeds):
            own = [row for row in rows if row["seed"] == seed]
            shares = [Share(f"seed {seed}", row["accuracy"], row["wilson"]["low"], row["wilson"]["high"], row["n_clips"]) for row in own]
            places = [splits.index(row["split"]) + _SPREAD * ((number + 0.5) / len(seeds) - 0.5) for row in own]
            heights = [share.rate for share in shares]
            colour, mark = SERIES[number % len(SERIES)], MARKERS[number % len(MARKERS)]
            axes.errorbar(places, heights, yerr=margins(shares), fmt=mark, color=colour, markersize=4, linewidth=1, label=f"seed {seed}")
        axes.set_xticks(range(len(splits)), [f"split {split}" for split in splits])
        axes.set_xlim(-0.6, len(splits) - 0.4)
        share_axis(axes, axis_start([row["wilson"]["low"] for row in rows]), "accuracy")
        axes.legend(loc="lower center", ncols=min(len(seeds), 5), bbox_to_anchor=(0.5, 1.0))

    return Drawing("repeat", _SIZE_INCHES, draw)
