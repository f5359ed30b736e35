"""What the shipped `tiny-vl` reaches, measured anew: what grafting kept of the model that sees, and what it hears beside it.

    python benchmarks/tiny_vl.py          # needs espeak-ng and flite; writes benchmarks/results/tiny_vl.json

1,000 scenes that no training saw, each with one written question, and 500 written questions about sentences: the model before grafting
(tiny-vl-lm), a fresh graft, the shipped graft with its gate, and the same merged, each held against the first by `evaluate --retention`.
`--align FOLDER` adds the output of the stage `align`, which is not shipped.

1,000 other unseen scenes with a spoken question each, in training voices: as they are, with another row's picture, with another row's audio, without
audio, and by each question's most frequent answer in training scenes. 500 unseen sentences in training voices, to be transcribed.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter, defaultdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tiny import machine

from audiograft import load, provenance
from audiograft.data.manifest import read_rows, write_manifest
from audiograft.data.scenes.generate import prepare_scenes
from audiograft.data.scenes.questions import ask_about
from audiograft.data.scenes.scene import scenes
from audiograft.data.synthetic.generate import prepare_synthetic
from audiograft.data.synthetic.grammar import sentences
from audiograft.data.synthetic.questions import ask
from audiograft.evaluate.retention import retain
from audiograft.evaluate.run import evaluate
from audiograft.model import graft
from audiograft.model.merge import merge_adapter

ROOT = Path(__file__).resolve().parent.parent
BASE, GRAFT = "tiny-vl-lm", "tiny-vl"
SCENES, TEXTS = 1000, 500
WRITTEN_SEED, SPOKEN_SEED, SPEECH_SEED = 13, 12, 99
CHANCE_SCENES = 50_000
measure = partial(evaluate, batch_size=32, overwrite=True, deafness_clips=0)


def text_rows(count: int) -> list[dict[str, Any]]:
    """Unseen sentences of the grammar, written down, with a question about each: as in the lessons of recipes/tiny/pretrain_lm.py."""
    rng = random.Random(0)
    asked = ((sentence.text, ask(sentence, rng)) for sentence in islice(sentences("test", WRITTEN_SEED), count))
    return [{"id": f"text-{n}", "prompt": f"{text}\n{question.text}", "response": question.answer} for n, (text, question) in enumerate(asked)]


def without_audio(work: Path) -> Path:
    """A manifest of pictures with written questions and of texts."""
    pictures = prepare_scenes(work / "written", split="test", rows=SCENES, seed=WRITTEN_SEED)
    rows = [dict(row) for _, row in read_rows(pictures)]
    manifest = work / "written" / "all.jsonl"
    write_manifest(manifest, rows + text_rows(TEXTS))
    return manifest


def kept(model: str, manifest: Path, out: Path) -> dict[str, Any]:
    """What `evaluate --retention` says of a state, the parts that are shown."""
    found = retain(model, BASE, manifest, out, batch_size=32, slice_by=["question"], overwrite=True)

    def part(figures: dict[str, Any]) -> dict[str, Any]:
        accuracy = figures["accuracy"]
        return {
            "rows": figures["rows"],
            "base": accuracy["base"],
            "model": accuracy["model"],
            "same_answers": figures["same_answers"]["rate"],
            "kl": figures["kl"]["mean"],
            "top1": figures["top1"]["rate"],
            "bit_equal": figures["bit_equal"],
        }

    by_question = {name: figures["accuracy"]["model"]["rate"] for name, figures in found["slices"]["question"].items()}
    return {kind: part(figures) for kind, figures in found["kinds"].items()} | {"images_by_question": by_question}


def chance(manifest: Path) -> float:
    """Share of rows whose answer is their question's most frequent one in training scenes."""
    rng = random.Random(0)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for scene in islice(scenes("train", 0), CHANCE_SCENES):
        question = ask_about(scene, rng)
        answers[question.text][question.answer] += 1
    rows = [row for _, row in read_rows(manifest)]
    return sum(answers[row["text"]].most_common(1)[0][0] == row["response"] if answers[row["text"]] else 0 for row in rows) / len(rows)


def heard(work: Path, merged: Path) -> dict[str, Any]:
    """Spoken questions and transcripts."""
    spoken = prepare_scenes(work / "spoken", split="test", rows=SCENES, seed=SPOKEN_SEED, spoken=1.0)
    engine = load(GRAFT)
    conditions: dict[str, dict[str, Any]] = {
        "true": {},
        "other_picture": {"pictures": "shuffled"},
        "other_audio": {"audio": "shuffled"},
        "no_audio": {"audio": "none"},
    }
    found: dict[str, Any] = {"questions": SCENES, "chance": chance(spoken)}
    for name, options in conditions.items():
        accuracy = measure(engine, spoken, work / f"spoken-{name}-run", **options)["accuracy"]
        found[name] = {"rate": accuracy["rate"], **{end: accuracy["interval"][end] for end in ("low", "high")}}
        if name == "true":
            found["by_question"] = {kind: row["rate"] for kind, row in accuracy["by_question"].items()}
    found["merged"] = measure(str(merged), spoken, work / "spoken-merged-run")["accuracy"]["rate"]
    speech = prepare_synthetic(work / "speech", split="test", voices="training", rows=TEXTS, seed=SPEECH_SEED)
    wer = measure(engine, speech, work / "speech-run", normaliser="lower")["wer"]
    return found | {"wer": {"rate": wer["rate"], **{end: wer["interval"][end] for end in ("low", "high")}, "clips": TEXTS}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--align", type=Path, help="output of the stage align, where it is there")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "tiny-vl-results")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "tiny_vl.json")
    args = parser.parse_args()
    made_with = {"machine": machine(), "torch": provenance.versions()["torch"], "commit": provenance.commit()}
    manifest = without_audio(args.work)
    graft("tiny-encoder", BASE, args.work / "fresh")
    report = merge_adapter(GRAFT, args.work / "merged", "fp32")
    states = {
        "graft": str(args.work / "fresh"),
        "align": str(args.align) if args.align else None,
        "gated": GRAFT,
        "merged": str(args.work / "merged"),
    }
    result = {
        "base": BASE,
        "model": GRAFT,
        **made_with,
        "kept": {name: kept(model, manifest, args.work / f"kept-{name}") for name, model in states.items() if model is not None},
        "merge": {"max_abs_logit_difference": report.max_abs_logit_difference, "lora_rms_effect": report.lora_rms_effect},
        "heard": heard(args.work, args.work / "merged"),
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
