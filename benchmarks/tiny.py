"""What the shipped `tiny` reaches, measured anew: word error rates with intervals, and the start-up time of the command line.

    python benchmarks/tiny.py             # needs espeak-ng and flite; writes benchmarks/results/tiny.json

Four sets of 500 unseen sentences: training voices, held-out voices, training voices with augmentation (noise, reverberation, band limits, shifted
voices), and training voices with the clips shuffled, so that each transcript is scored against another clip's audio.

Then 500 questions about as many unseen sentences in training voices, beside three baselines: the same with another clip, the same without any audio
(what the model answers from the question alone), and chance: each question's most frequent answer among 50,000 training sentences.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from audiograft import load, provenance
from audiograft.data.manifest import read_rows, write_manifest
from audiograft.data.synthetic.generate import prepare_synthetic
from audiograft.data.synthetic.grammar import sentences
from audiograft.data.synthetic.questions import ask
from audiograft.evaluate.run import evaluate
from audiograft.metrics.normalisers import get_normaliser
from audiograft.metrics.word_errors import corpus, word_errors

ROOT = Path(__file__).resolve().parent.parent
ROWS = 500
SEED = 99
QUESTION_SEED = 98
CHANCE_SENTENCES = 50_000
NORMALISER = "lower"
measure = partial(evaluate, batch_size=32, normaliser=NORMALISER, overwrite=True, deafness_clips=0)
"""No table of deafness, since the sets on shuffled audio are larger than it."""


def shuffle_audio(manifest: Path, out: Path) -> Path:
    """A manifest in which every row has another row's audio."""
    rows = [dict(row) for _, row in read_rows(manifest)]
    order = list(range(len(rows)))
    random.Random(0).shuffle(order)
    audio = {row["id"]: str((manifest.parent / row["audio"]).resolve()) for row in rows}
    following = {rows[a]["id"]: audio[rows[b]["id"]] for a, b in zip(order, order[1:] + order[:1], strict=True)}
    out.mkdir(parents=True, exist_ok=True)
    write_manifest(out / "manifest.jsonl", [{**row, "audio": following[row["id"]]} for row in rows])
    return out / "manifest.jsonl"


def rate_of(predictions: Path, speakers: set[str]) -> float:
    """Corpus WER over the rows of some speakers."""
    rows = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()]
    normalise = get_normaliser(NORMALISER).apply
    return corpus(word_errors(normalise(row["reference"]), normalise(row["hypothesis"])) for row in rows if row["speaker"] in speakers).rate


def frequent_answers() -> dict[str, str]:
    """The most frequent answer to each question in the training split."""
    rng = random.Random(0)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence in islice(sentences("train", 0), CHANCE_SENTENCES):
        question = ask(sentence, rng)
        answers[question.text][question.answer] += 1
    return {text: counts.most_common(1)[0][0] for text, counts in answers.items()}


def questions(engine: Any, work: Path) -> dict[str, Any]:
    """Share of right answers, on true, shuffled and no audio, and by chance."""
    manifest = prepare_synthetic(work / "questions", split="test", voices="training", rows=ROWS, seed=QUESTION_SEED, questions=1.0)
    found = {}
    for audio in ("true", "shuffled", "none"):
        accuracy = measure(engine, manifest, work / f"questions-{audio}-run", audio=audio)["accuracy"]
        found[audio] = {"accuracy": accuracy["rate"], "low": accuracy["interval"]["low"], "high": accuracy["interval"]["high"]}
        if audio == "true":
            found["by_question"] = {name: row["rate"] for name, row in accuracy["by_question"].items()}
    frequent = frequent_answers()
    rows = [row for _, row in read_rows(manifest)]
    found["chance"] = {"accuracy": sum(frequent.get(row["prompt"]) == row["response"] for row in rows) / len(rows)}
    return found | {"questions": len(rows)}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cores": os.cpu_count(), "cpu": names[0] if names else platform.processor() or platform.machine()}


def seconds_of_three_clips() -> float:
    """Wall time of the whole process for three clips of about 3 s."""
    clips = sorted((ROOT / "examples").glob("*.wav"))[:3]
    times = []
    for _ in range(4):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "audiograft", "transcribe", *map(str, clips)], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "tiny-results")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "tiny.json")
    args = parser.parse_args()
    made_with = {"machine": machine(), "torch": provenance.versions()["torch"], "commit": provenance.commit()}
    engine = load(args.model)
    sets = {
        "training": prepare_synthetic(args.work / "training", split="test", voices="training", rows=ROWS, seed=SEED),
        "held-out": prepare_synthetic(args.work / "held-out", split="test", voices="held-out", rows=ROWS, seed=SEED),
        "augmented": prepare_synthetic(args.work / "augmented", split="test", voices="training", rows=ROWS, seed=SEED, augmented=True),
    }
    sets["shuffled"] = shuffle_audio(sets["training"], args.work / "shuffled")
    metrics = {name: measure(engine, manifest, args.work / f"{name}-run", allow_outside=True) for name, manifest in sets.items()}
    predictions = args.work / "held-out-run" / "predictions.jsonl"
    espeak = {speaker for speaker in metrics["held-out"]["slices"]["speaker"] if speaker.startswith("espeak-ng")}

    def figure(name: str) -> dict[str, Any]:
        wer = metrics[name]["wer"]
        return {"wer": wer["rate"], "low": wer["interval"]["low"], "high": wer["interval"]["high"], "clips": metrics[name]["n_clips"]}

    result: dict[str, Any] = {
        "model": args.model,
        **made_with,
        "training_voices": figure("training"),
        "held_out_voices": figure("held-out"),
        "held_out_espeak": rate_of(predictions, espeak),
        "held_out_flite_slt": rate_of(predictions, {"flite:slt"}),
        "held_out_by_speaker": {name: row["wer"] for name, row in metrics["held-out"]["slices"]["speaker"].items()},
        "augmented": figure("augmented"),
        "shuffled": figure("shuffled"),
        "questions": questions(engine, args.work),
        "three_clips_s": round(seconds_of_three_clips(), 2),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
