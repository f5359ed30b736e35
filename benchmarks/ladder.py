"""System C's ladder climbed again on `tiny`: what each of its changes is worth, one at a time, and what its own protocol would have shown.

    python benchmarks/ladder.py          # needs espeak-ng and flite; writes benchmarks/results/ladder.json and docs/images/ladder.png

System C (a LoRA detector of speech in clips of 200 and 1000 ms) tells of 62.5 to 96.9 %, and its documents disagree which change gave what. Here
all steps learn from the same 3,000 clips for as many optimiser steps, and all are measured on the same 1,000 test clips, of other voices and of
other kinds of sounds, each with two seeds. Levels are the exception, since that step is about them: clips are the same but for a gain, and every
step is measured on both, on levels drawn at random and on clips scaled to one peak.

Then the protocol. System C's negatives were white noise alone, and its rows were split at random, so that the voices and sentences of its test were
trained on. The first step is trained again on such clips, and measured both ways: on a test of its own kind, and on the honest one.

All figures are computed from the predictions files, which stay in the work folder. Intervals: Wilson's of a single run, and of both seeds together a
bootstrap over recordings. Neighbours are compared by exact McNemar tests, with Holm's correction for all of them.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.console import Console
from tiny import machine

from audiograft import load, provenance
from audiograft.data.augment.effects import coloured_noise
from audiograft.data.detection.bench import prepare_detection
from audiograft.data.detection.grid import SPLITS, Design, generator
from audiograft.data.detection.mixing import Normalisation, set_level
from audiograft.data.manifest import read_manifest, read_rows, write_manifest
from audiograft.evaluate.comparison_plots import draw_ladder
from audiograft.evaluate.detecting import detect
from audiograft.evaluate.options import Options
from audiograft.evaluate.plots import Share
from audiograft.evaluate.predictions import Prediction, read_predictions
from audiograft.inference.choices import ClosedQuestion
from audiograft.metrics.intervals import cluster_share, wilson
from audiograft.metrics.paired import holm, mcnemar
from audiograft.train.detection import DetectionRecipe
from audiograft.train.recipe import MIN_DEAFNESS_CLIPS, DataRecipe, DeafnessRecipe, LoraRecipe, Recipe
from audiograft.train.run import train
from audiograft.types import NONSPEECH, SAMPLE_RATE_HZ, SPEECH

ROOT = Path(__file__).resolve().parent.parent
RANDOM_LEVELS, ONE_PEAK = "rms-random", "peak"
LEVELS: tuple[Normalisation, ...] = (RANDOM_LEVELS, ONE_PEAK)
UNTUNED = "untuned"
QUESTION = ClosedQuestion("Speech?", {SPEECH: "a", NONSPEECH: "b"})
"""System C's own has six times as many tokens, which costs time and says nothing to a model that never met such words; nor did it meet A and B."""
_BATCH = 64


@dataclass(frozen=True)
class Size:
    """How much is made, learnt and measured.

    Attributes:
        design: of the bench with levels drawn at random.
        steps: of the optimiser.
        seeds: each step is trained with each.
    """

    design: Design = Design(clips_per_cell=80, splits="train=0.75,test=0.25", seed=6)
    steps: int = 140
    seeds: tuple[int, ...] = (0, 1)


@dataclass(frozen=True)
class Rung:
    """A step of the ladder.

    Attributes:
        name: short, of files.
        change: what is new against the step before.
        levels: of the training clips.
        loss_on: of the recipe.
        train_projector: of the recipe.
        scopes: of LoRA.
    """

    name: str
    change: str
    levels: Normalisation = ONE_PEAK
    loss_on: Any = "response"
    train_projector: bool = False
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"language_model": ("attention",)})


def ladder() -> list[Rung]:
    """All that are trained, each like the one before but for one change."""
    first = Rung("lora-attention", "LoRA on attention, loss on answer and end of turn, one peak")
    answer = replace(first, name="answer-alone", change="loss on the answer alone", loss_on="answer")
    level = replace(answer, name="random-levels", change="levels drawn at random", levels=RANDOM_LEVELS)
    mlp = replace(level, name="lora-mlp", change="LoRA on the MLPs too", scopes={"language_model": ("all",)})
    encoder = replace(mlp, name="lora-encoder", change="LoRA on the encoder too", scopes={"language_model": ("all",), "audio_tower": ("all",)})
    return [first, answer, level, mlp, encoder, replace(encoder, name="projector", change="the projector learns too", train_projector=True)]


@dataclass(frozen=True)
class Protocol:
    """Data that the first step of the ladder is trained on, and what it shows of itself.

    Attributes:
        name: short, of files.
        told: in words.
        white_noise: whether white noise is the only negative.
        random_rows: whether rows are split at random, instead of by voice and recording.
    """

    name: str
    told: str
    white_noise: bool
    random_rows: bool


PROTOCOLS = (
    Protocol("published", "negatives are white noise, rows split at random: as published", True, True),
    Protocol("white-noise", "negatives are white noise, voices and recordings kept apart", True, False),
    Protocol("random-rows", "negatives are sounds of many kinds, rows split at random", False, True),
)


def make_benches(work: Path, design: Design) -> dict[str, Path]:
    """The same clips at both levels, and those of each protocol: folders with `train.jsonl` and `test.jsonl` by name."""
    folders = {levels: work / f"bench-{levels}" for levels in LEVELS}
    for levels, folder in folders.items():
        # One peak gives the class away: that is what is to be seen.
        prepare_detection(folder, replace(design, normalisation=levels), allow_leaks=True)
    return folders | {protocol.name: protocol_bench(protocol, folders[ONE_PEAK], design.seed) for protocol in PROTOCOLS}


def protocol_bench(protocol: Protocol, bench: Path, seed: int) -> Path:
    """Manifests of a protocol, beside the clips of a bench, whose rows and sizes of its parts they have."""
    parts = [_rows(bench / f"{split}.jsonl") for split in SPLITS if (bench / f"{split}.jsonl").is_file()]
    if protocol.white_noise:
        parts = [[_as_white_noise(row, bench, seed) if row["label"] == NONSPEECH else row for row in part] for part in parts]
    if protocol.random_rows:
        rows = [row for part in parts for row in part]
        random.Random(seed).shuffle(rows)
        n_train = len(parts[0])
        parts = [rows[:n_train], rows[n_train:]]
    folder = bench / protocol.name
    folder.mkdir(exist_ok=True)
    for name, part in (("train", parts[0]), ("test", parts[-1])):
        write_manifest(folder / f"{name}.jsonl", [row | {"audio": f"../{row['audio']}"} for row in part])
    return folder


def _rows(manifest: Path) -> list[dict[str, Any]]:
    return [row for _, row in read_rows(manifest)]


def _as_white_noise(row: Mapping[str, Any], bench: Path, seed: int) -> dict[str, Any]:
    """A negative of the published kind: as long as the row's own, and scaled to the same peak."""
    rng = generator(seed, "white noise", row["id"])
    waveform, gain_db, level_db = set_level(coloured_noise(round(row["duration_s"] * SAMPLE_RATE_HZ), 0.0, rng), ONE_PEAK, rng)
    audio = Path("white-noise-audio") / f"{row['id']}.wav"
    (bench / audio).parent.mkdir(exist_ok=True)
    soundfile.write(bench / audio, waveform, SAMPLE_RATE_HZ, subtype="PCM_16")
    return {**row, "audio": str(audio), "kind": "white noise alone", "noise": "white", "gain_db": round(gain_db, 2), "level_db": round(level_db, 2)}


def train_rung(rung: Rung, manifest: Path, out: Path, steps: int, seed: int) -> Path:
    """Train, unless just that was done before; the folder of the model."""
    recipe = Recipe(
        stage="finetune",
        output_dir=str(out),
        data=DataRecipe(train=(str(manifest),), allow_outside=True),
        model="tiny",
        prompt=QUESTION.prompt,
        detection=DetectionRecipe(QUESTION.answers, loss_on=rung.loss_on),
        max_steps=steps,
        tokens_per_batch=2048,
        learning_rate=1e-3,
        warmup_ratio=0.1,
        train_projector=rung.train_projector,
        lora=LoraRecipe(**{"language_model": (), **rung.scopes}),
        eval_steps=steps,
        save_steps=steps,
        save="adapter",
        deafness=DeafnessRecipe(clips=MIN_DEAFNESS_CLIPS, permutations=100),  # measured on a thousand clips soon enough
        seed=seed,
    )
    told = out / "train.json"
    kept = json.loads(told.read_text(encoding="utf-8"))["recipe"] if told.is_file() else None
    if kept != json.loads(json.dumps(recipe.as_dict())):
        shutil.rmtree(out, ignore_errors=True)
        train(recipe, console=Console(stderr=True, quiet=True))
    return out


def measure(model: str | Path, manifest: Path, out: Path) -> list[Prediction]:
    """Detect the clips of a manifest; the predictions are kept in `out` and read from there."""
    samples = read_manifest(manifest, allow_outside=True)
    heard = {sample.id: sample.clips for sample in samples}
    named = {sample.id: {"audio": sample.clips[0]} for sample in samples}
    blocks = detect(load(model), samples, heard, named, QUESTION, Options(batch_size=_BATCH))
    out.mkdir(parents=True, exist_ok=True)
    write_manifest(out / "predictions.jsonl", [row.as_row() for block in blocks for row in block])
    return read_predictions(out)


def accuracy(runs: Sequence[Sequence[Prediction]]) -> dict[str, Any]:
    """Of runs with several seeds on the same clips: each by itself, and all together with the recordings as units."""
    rights = [[row.reference == row.hypothesis for row in run] for run in runs]
    rows = [row for run in runs for row in run]
    together = [right for run in rights for right in run]
    interval = cluster_share(together, [row.cluster for row in rows], unit="recording")
    return {
        "rate": float(np.mean(together)),
        "interval": asdict(interval),
        "n_clips": len(runs[0]),
        "per_class": {label: float(np.mean([row.hypothesis == label for row in rows if row.reference == label])) for label in (SPEECH, NONSPEECH)},
        "by_seed": [{"rate": float(np.mean(right)), "wilson": [(ends := wilson(sum(right), len(right))).low, ends.high]} for right in rights],
    }


def neighbours(runs: Mapping[str, Sequence[Sequence[Prediction]]]) -> list[dict[str, Any]]:
    """McNemar's test of each step against the one before, seed by seed; p-values adjusted for all of them. Single runs stand for all seeds."""
    found = []
    names = list(runs)
    for before, after in zip(names, names[1:], strict=False):
        for seed, second in enumerate(runs[after]):
            first = runs[before][min(seed, len(runs[before]) - 1)]
            right_a, right_b = ([row.reference == row.hypothesis for row in run] for run in (first, second))
            found.append({"before": before, "after": after, "seed": seed, **asdict(mcnemar(right_a, right_b))})
    adjusted = holm([row["p_value"] for row in found])
    return [row | {"p_holm": p} for row, p in zip(found, adjusted, strict=True)]


def climb(work: Path, size: Size) -> dict[str, Any]:
    """Make the clips, train and measure everything; what goes into the file of results."""
    benches = make_benches(work, size.design)
    runs: dict[str, dict[str, list[list[Prediction]]]] = {}
    rungs = ladder()
    for rung in (None, *rungs):
        name = rung.name if rung else UNTUNED
        models: list[str | Path] = ["tiny"]
        if rung:
            models = [
                train_rung(rung, benches[rung.levels] / "train.jsonl", work / "models" / f"{name}-{seed}", size.steps, seed) for seed in size.seeds
            ]
        runs[name] = {
            levels: [measure(model, benches[levels] / "test.jsonl", work / "runs" / f"{name}-{seed}-{levels}") for seed, model in enumerate(models)]
            for levels in LEVELS
        }
        _tell(name, runs[name])
    changes = {UNTUNED: "as it ships"} | {rung.name: rung.change for rung in rungs}
    steps = [
        {"name": name, "change": changes[name], **{f"on {levels}": accuracy(found[levels]) for levels in LEVELS}} for name, found in runs.items()
    ]
    tests = {levels: neighbours({name: found[levels] for name, found in runs.items()}) for levels in LEVELS}
    return {"ladder": steps, "neighbours": tests, "protocols": [protocol_rows(protocol, rungs[0], benches, work, size) for protocol in PROTOCOLS]}


def protocol_rows(protocol: Protocol, rung: Rung, benches: Mapping[str, Path], work: Path, size: Size) -> dict[str, Any]:
    """What the first step shows where it is trained and tested by a protocol, and what the same models do on the honest test."""
    own = benches[protocol.name]
    models = [train_rung(rung, own / "train.jsonl", work / "models" / f"{protocol.name}-{seed}", size.steps, seed) for seed in size.seeds]
    tests = {"its own test": own, "honest test, one peak": benches[ONE_PEAK], "honest test, random levels": benches[RANDOM_LEVELS]}
    runs = {
        told: [measure(model, folder / "test.jsonl", work / "runs" / f"{protocol.name}-{seed}-{number}") for seed, model in enumerate(models)]
        for number, (told, folder) in enumerate(tests.items())
    }
    _tell(protocol.name, runs)
    return {"name": protocol.name, "told": protocol.told, **{told: accuracy(found) for told, found in runs.items()}}


def _tell(name: str, runs: Mapping[str, Sequence[Sequence[Prediction]]]) -> None:
    print(f"{name:16s}", *(f"{on} {100 * accuracy(found)['rate']:.1f} %" for on, found in runs.items()), sep="  ", flush=True)


def draw(result: Mapping[str, Any], figure: Path) -> None:
    """The accuracy evolution, with the published protocol's illusion left out: it is of other clips."""
    rows = [(step["change"], step[f"on {RANDOM_LEVELS}"]) for step in result["ladder"]]
    shares = [Share(change, row["rate"], row["interval"]["low"], row["interval"]["high"], row["n_clips"]) for change, row in rows]
    draw_ladder(shares, f"tiny on the same test clips, {len(result['seeds'])} seeds; 95 % intervals over recordings").save(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "ladder", help="models found there of the same recipe are not trained again")
    parser.add_argument("--steps", type=int, default=Size.steps)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "ladder.json")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "images" / "ladder.png")
    args = parser.parse_args()
    start_s = time.perf_counter()
    size = Size(steps=args.steps)
    found = climb(args.work, size)
    made_with = {"machine": machine(), "torch": provenance.versions()["torch"], "commit": provenance.commit()}
    about = {"model": "tiny", "design": asdict(size.design), "counts": size.design.counts, "steps": size.steps, "seeds": list(size.seeds)}
    result = {**about, **made_with, "wall_s": round(time.perf_counter() - start_s), **found}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(result, args.figure)
    print(f"written to {args.out} and {args.figure}")


if __name__ == "__main__":
    main()
