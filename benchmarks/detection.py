"""What the shipped detector reaches beside others on the same clips: accuracy, calibration, short clips, and what is known from a clip's length.

    python benchmarks/detection.py          # needs espeak-ng, flite and the extra detectors; writes benchmarks/results/detection.json

1,800 test clips of the bench of recipes/tiny/detect.sh: 200 to 1000 ms at 0 to 20 dB, in white, pink or brown noise, half speech. Voices and kinds of
sounds are none that the detector was trained or tuned on. The voice activity detectors run at their own thresholds, and once more with temperature
and threshold fitted on the same dev clips as ours; silero also with each clip made loud first, since it hears quiet clips less well. A second set has
babble in place of noise, where it is a matter of definition what is speech.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tiny import machine

from audiograft import provenance
from audiograft.data.detection.bench import prepare_detection
from audiograft.data.detection.grid import Design
from audiograft.data.detection.leaks import CUES
from audiograft.data.leakage import compare_manifests
from audiograft.evaluate.calibrating import calibrate
from audiograft.evaluate.comparing import compare
from audiograft.evaluate.detection_comparison import COMPARISON_NAME, write_comparison
from audiograft.evaluate.run import evaluate
from audiograft.evaluate.trivial import write_trivial_run

ROOT = Path(__file__).resolve().parent.parent
OURS = "tiny-detect"
SILERO, SILERO_LOUD = "silero-vad", "silero-vad:loud"
VADS = (SILERO, SILERO_LOUD, "webrtc-vad", "energy-vad")
BENCH = Design(clips_per_cell=60, splits="dev=0.4,test=0.6", seed=1)
"""As recipes/tiny/detect.sh makes it."""
BABBLE = Design(clips_per_cell=10, noises=("babble",), splits="test=1", seed=4)


def figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """What the table says of a run."""
    found = metrics["detection"]
    by_duration = {row["duration_ms"]: row for row in found["conditions"]["duration_ms"]}
    return {
        "accuracy": found["accuracy"],
        "accuracy_200_ms": {key: by_duration[200][key] for key in ("n", "accuracy", "wilson")},
        "hit_rate": found["per_class"]["SPEECH"]["rate"],
        "rejection_rate": found["per_class"]["NONSPEECH"]["rate"],
        **{key: found[key] for key in ("roc_auc", "eer", "brier", "nll", "ece")},
        "decode_s": metrics["decode_s"],
        "clips": metrics["n_clips"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=OURS)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "detection")
    parser.add_argument("--train", type=Path, default=None, help="The detector's training manifest, to say what it shares with the test.")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "detection.json")
    args = parser.parse_args()
    runs = args.work / "results"
    for folder, design in (("bench", BENCH), ("babble", BABBLE)):
        if not (args.work / folder / "test.jsonl").is_file():
            prepare_detection(args.work / folder, design)
    dev, test, babble = (args.work / name for name in ("bench/dev.jsonl", "bench/test.jsonl", "babble/test.jsonl"))

    def run(name: str, manifest: Path, folder: str, **options: Any) -> dict[str, Any]:
        return figures(evaluate(name, manifest, runs / folder.replace(":", "-"), batch_size=64, overwrite=True, deafness_clips=0, **options))

    found = {name: run(name, test, name) for name in (args.model, "tiny", *VADS)}
    for cue in CUES:
        found[f"{cue}-cue"] = figures(write_trivial_run(cue, dev, test, runs / f"{cue}-cue"))
    tuned = {}
    for name in VADS:
        folder = runs / f"{name}-question".replace(":", "-")
        calibrate(name, dev, folder=folder)
        tuned[name] = run(name, test, f"{name}-tuned", question=folder)
    in_babble = {name: run(name, babble, f"{name}-babble") for name in (args.model, SILERO, SILERO_LOUD)}

    others = {name: runs / name.replace(":", "-") for name in (SILERO, SILERO_LOUD)}
    others |= {f"{name}, fitted on dev": folder.with_name(f"{folder.name}-tuned") for name, folder in others.items()}
    result = {
        "machine": machine(),
        "commit": provenance.commit(),
        "bench": {"clips": found[args.model]["clips"], "design": vars(BENCH) | {"counts": BENCH.counts}},
        "models": found,
        "tuned_on_dev": tuned,
        "babble": in_babble,
        "differences": {name: difference(folder, runs / args.model, runs / "pages") for name, folder in others.items()},
        "shared_with_training": None if args.train is None else compare_manifests([args.train], test).counts,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def difference(base: Path, ours: Path, pages: Path) -> dict[str, Any]:
    """Accuracy of ours less that of the other: on all clips, on those of 200 ms, and with each voice and each kind of sound as one observation."""
    keys = ("accuracy_difference", "accuracy_interval", "p_value", "p_from", "mcnemar", "clustered_by", "clusters")
    found = compare([base, ours], by="duration_ms")
    [short] = [row for row in found["parts"] if row["value"] in (200, "200")]
    write_comparison([base, ours], pages / base.name)
    over_groups = json.loads((pages / base.name / COMPARISON_NAME).read_text(encoding="utf-8"))["over_groups"][0]
    rows = {"all": {key: found[key] for key in keys}, "200_ms": {key: short[key] for key in keys if key in short}}
    return rows | {"over_voices_and_kinds": over_groups}


if __name__ == "__main__":
    main()
