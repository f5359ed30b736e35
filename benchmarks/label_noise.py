"""How well `suggest` finds wrong labels, where it is known which ones are wrong.

    python benchmarks/label_noise.py             # needs espeak-ng and flite; writes benchmarks/results/label_noise.json

`tiny` hears 300 unseen sentences in training voices, as they are and augmented (noise, reverberation, band limits, shifted voices). Then a
tenth of the labels is corrupted, five times anew: a word dropped, a word put in, a word replaced by another of its kind (a name by a name), or the
label of another clip; how likely the model finds the new labels is computed again. The ranking of `suggest` is scored with and without a second
opinion. No second model ships: it is `tiny` on the same clips, played faster, so its mistakes are much like those of the first.

Beside it stand a ranking by WER alone, `suggest` without token probabilities, as for another system's predictions, and chance, which is the share of
wrong labels. What real corpora have wrong is not drawn at random: figures on these labels say that the signals work, not how well on yours.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import soundfile

from audiograft import load, provenance
from audiograft.audit.run import AuditRun, load_run
from audiograft.audit.suggestions import WEIGHTS, Suggestion, suggest, suggestion_quality
from audiograft.audit.verdicts import Verdict
from audiograft.data.augment.effects import change_speed
from audiograft.data.manifest import read_rows, write_manifest
from audiograft.data.synthetic.generate import prepare_synthetic
from audiograft.evaluate.predictions import Prediction
from audiograft.inference.engine import Engine
from audiograft.inference.questions import Question
from audiograft.metrics.word_errors import corpus, word_errors
from audiograft.types import TRANSCRIBE_PROMPT

ROOT = Path(__file__).resolve().parent.parent
ROWS = 300
SEED = 4711
"""Of the sentences. The weights of `suggest` were chosen on another."""
REPEATS = 5
"""Corruptions of the same clips, so that figures by kind rest on more than seven labels."""
SHARE = 0.1
KINDS = ("dropped word", "inserted word", "substituted word", "swapped label")
ALL = "all"
FASTER = 1.1


def corrupt(rows: Sequence[Mapping[str, Any]], share: float, seed: int) -> list[dict[str, Any]]:
    """Rows of `prepare_synthetic`, a share of them with a wrong `text`, the kinds of `KINDS` in turn.

    These keep the true text in `true_text` and have their kind in `corruption`.
    """
    rng = random.Random(seed)
    corruption = _Corruption(rows, rng)
    chosen = rng.sample(range(len(rows)), round(share * len(rows)))
    kinds = {row: KINDS[place % len(KINDS)] for place, row in enumerate(chosen)}
    return [
        {**row, "text": corruption.of(row, kinds[number]), "true_text": row["text"], "corruption": kinds[number]} if number in kinds else dict(row)
        for number, row in enumerate(rows)
    ]


class _Corruption:
    """Wrong labels in the words of a corpus."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], rng: random.Random) -> None:
        self.rng = rng
        self.texts = sorted({row["text"] for row in rows})
        self.words = sorted({word for text in self.texts for word in text.split()})
        self.values: dict[str, list[str]] = {}
        for slot, value in sorted({(slot, value) for row in rows for slot, value in row["slots"]}):
            self.values.setdefault(slot, []).append(value)

    def of(self, row: Mapping[str, Any], kind: str) -> str:
        """A wrong text for a row."""
        said = row["text"].split()
        place = self.rng.randrange(len(said))
        if kind == "dropped word":
            return " ".join(said[:place] + said[place + 1 :])
        if kind == "inserted word":
            return " ".join([*said[:place], self.rng.choice(self.words), *said[place:]])
        if kind == "substituted word":
            slot, value = self.rng.choice(row["slots"])
            return row["text"].replace(value, self.rng.choice([other for other in self.values[slot] if other != value]), 1)
        return self.rng.choice([text for text in self.texts if text != row["text"]])


def relabelled(engine: Engine, rows: Sequence[Mapping[str, Any]], predictions: Mapping[str, Prediction], folder: Path) -> list[Prediction]:
    """The predictions against other labels, with the likelihood of those that changed."""
    changed = [replace(predictions[row["id"]], reference=row["text"]) for row in rows if "corruption" in row]
    new = {prediction.id: prediction for prediction in scored(engine, changed, folder)}
    return [new.get(row["id"], predictions[row["id"]]) for row in rows]


def by_wer(run: AuditRun) -> dict[str, Suggestion]:
    """The clips with errors, those with the highest WER first."""
    wrong = sorted((clip for clip in run.clips if clip.errors.errors), key=lambda clip: -clip.wer)
    return {clip.prediction.id: Suggestion(min(1.0, clip.wer), [], {}) for clip in wrong}


def without_probabilities(run: AuditRun) -> AuditRun:
    """The run of a system that gives none."""
    bare = {"token_logprobs": (), "reference_nats": None, "reference_tokens": None}
    return replace(run, clips=tuple(replace(clip, prediction=replace(clip.prediction, **bare)) for clip in run.clips))


def rankings(run: AuditRun, second: Sequence[Prediction]) -> dict[str, dict[str, Suggestion]]:
    """The same run, ranked in each way."""
    return {
        "suggest": suggest(run),
        "suggest, second opinion": suggest(run, second),
        "suggest, second opinion, no probabilities": suggest(without_probabilities(run), second),
        "suggest, no probabilities": suggest(without_probabilities(run)),
        "by WER": by_wer(run),
    }


def quality(ranking: Mapping[str, Suggestion], rows: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """`suggestion_quality` where the corrupted labels, of one kind or all, are wrong and all others right; other kinds count as not judged."""
    judged = [row for row in rows if kind in (ALL, row.get("corruption", kind))]
    verdicts = [Verdict(row["id"], "label_noise" if "corruption" in row else "model_error", "truth") for row in judged]
    return suggestion_quality(ranking, verdicts)


def summed_up(found: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """Means over the repeats, which share clips and the model's own errors; of the average precision the ends too.

    Of one kind there is no precision at a cut-off, since most of what stands above it is of other kinds.
    """
    precisions = [one["average_precision"] for one in found]
    rates = ("precision", "recall") if kind == ALL else ("recall",)
    return {
        "average_precision": round(fmean(precisions), 4),
        "lowest": round(min(precisions), 4),
        "highest": round(max(precisions), 4),
        "chance": round(fmean(one["chance"] for one in found), 4),
        "at": {k: {name: round(fmean(one["at"][k][name]["rate"] for one in found), 4) for name in rates} for k in found[0]["at"]},
    }


def faster(manifest: Path, out: Path) -> Path:
    """The same clips at another speed, pitch with it."""
    rows = [dict(row) for _, row in read_rows(manifest)]
    (out / "audio").mkdir(parents=True, exist_ok=True)
    for row in rows:
        waveform, rate_hz = soundfile.read(manifest.parent / row["audio"], dtype="float32")
        soundfile.write(out / row["audio"], change_speed(waveform, FASTER), rate_hz, subtype="PCM_16")
    write_manifest(out / "manifest.jsonl", rows)
    return out / "manifest.jsonl"


def heard(engine: Engine, manifest: Path) -> list[Prediction]:
    """What `evaluate` predicts, without the likelihood of the labels and without reports."""
    rows = [row for _, row in read_rows(manifest)]
    texts = engine.transcribe_many([manifest.parent / row["audio"] for row in rows], batch_size=32)
    return [
        Prediction(
            row["id"], row["text"], text.text, row["audio"], duration_s=text.duration_s, tokens=text.tokens, token_logprobs=text.token_logprobs
        )
        for row, text in zip(rows, texts, strict=True)
    ]


def scored(engine: Engine, predictions: Sequence[Prediction], folder: Path) -> list[Prediction]:
    """The same with how likely the model finds each label."""
    questions = [Question([folder / str(prediction.audio)], TRANSCRIBE_PROMPT) for prediction in predictions]
    scores = engine.score_references(questions, [prediction.reference for prediction in predictions], batch_size=32)
    return [
        replace(prediction, reference_nats=score.nats, reference_tokens=score.n_tokens) for prediction, score in zip(predictions, scores, strict=True)
    ]


def wer(predictions: Iterable[Prediction]) -> float:
    """Corpus WER on the true labels."""
    return corpus(word_errors(prediction.reference.lower(), prediction.hypothesis.lower()) for prediction in predictions).rate


def measure(engine: Engine, manifest: Path, work: Path, repeats: int) -> dict[str, Any]:
    """All rankings of one set of clips."""
    predictions = {prediction.id: prediction for prediction in scored(engine, heard(engine, manifest), manifest.parent)}
    second = heard(engine, faster(manifest, work / "faster"))
    clean = [row for _, row in read_rows(manifest)]
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for seed in range(repeats):
        rows = corrupt(clean, SHARE, seed)
        folder = work / f"corrupted-{seed}"
        folder.mkdir(exist_ok=True)
        write_manifest(folder / "predictions.jsonl", [prediction.as_row() for prediction in relabelled(engine, rows, predictions, manifest.parent)])
        for name, ranking in rankings(load_run(folder, needs_audio=False), second).items():
            for kind in (ALL, *KINDS):
                found.setdefault(name, {}).setdefault(kind, []).append(quality(ranking, rows, kind))
    return {
        "clips": len(clean),
        "wrong_labels": round(SHARE * len(clean)),
        "wer": wer(predictions.values()),
        "second_wer": wer(second),
        "rankings": {name: {kind: summed_up(each, kind) for kind, each in kinds.items()} for name, kinds in found.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "label-noise")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "label_noise.json")
    args = parser.parse_args()
    start_s = time.perf_counter()
    engine = load("tiny")
    sets = {}
    for name, augmented in (("as they are", False), ("augmented", True)):
        work = args.work / name.replace(" ", "-")
        manifest = prepare_synthetic(work / "clips", split="test", voices="training", rows=args.rows, seed=SEED, augmented=augmented)
        sets[name] = measure(engine, manifest, work, args.repeats)
    made_with = {"torch": provenance.versions()["torch"], "commit": provenance.commit(), "wall_s": round(time.perf_counter() - start_s)}
    result = {"model": "tiny", **made_with, "weights": dict(WEIGHTS), "repeats": args.repeats, "faster": FASTER, "sets": sets}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, found in sets.items():
        for ranking, kinds in found["rankings"].items():
            print(f"{name:12s} {ranking:44s}", *(f"{kind} {row['average_precision']:.3f}" for kind, row in kinds.items()), sep="  ")


if __name__ == "__main__":
    main()
