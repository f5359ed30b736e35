"""The results table of the README, from the files under benchmarks/results: `python benchmarks/tables.py` prints it, `--write` puts it there.

A test compares both, so that no number in the README can go stale unnoticed.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL)


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def coverage(method: str) -> str:
    """Lowest and highest share of intervals that hold the truth, where there are speakers enough for any method."""
    settings = json.loads((RESULTS / "interval_coverage.json").read_text(encoding="utf-8"))["word_error_rates"].values()
    shares = [shares[method] for setting in settings for speakers, shares in setting.items() if int(speakers) >= 20]
    return f"{percent(min(shares))} to {percent(max(shares))}"


def suggestions() -> str:
    """How well wrong labels are found."""
    rankings = json.loads((RESULTS / "label_noise.json").read_text(encoding="utf-8"))["sets"]["augmented"]
    found = [rankings["rankings"][name]["all"]["average_precision"] for name in ("suggest", "by WER")]
    return "; ".join(f"{value:.2f}" for value in (*found, rankings["wrong_labels"] / rankings["clips"]))


def read(name: str) -> Any:
    """A file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def detection_rows() -> list[tuple[str, str, str]]:
    """Figure, value and command of what is known of the detector."""
    found, speed, curves = read("detection"), read("detect_speed"), read("psychometric_coverage")
    models = found["models"]

    def accuracy(row: dict[str, Any]) -> str:
        interval = row["accuracy"]["interval"]
        return f"{percent(row['accuracy']['rate'])} ({percent(interval['low'])} to {percent(interval['high'])})"

    def told(interval: dict[str, float]) -> str:
        return f"{100 * interval['low']:+.1f} to {100 * interval['high']:+.1f}"

    def points(row: dict[str, Any]) -> str:
        interval = row["accuracy_interval"]
        return f"{100 * row['accuracy_difference']:+.1f} points ({told(interval)})"

    def shares(*names: str) -> str:
        return "; ".join(percent(models[name]["accuracy"]["rate"]) for name in names)

    covered = [share for shares in curves["coverage"].values() for name, share in shares.items() if name in ("threshold", "slope")]
    ours, *silero = (found["babble"][name] for name in ("tiny-detect", "silero-vad", "silero-vad:loud"))
    ladder = read("ladder")
    published = next(row for row in ladder["protocols"] if row["name"] == "published")
    first, last = (ladder["ladder"][place]["on rms-random"]["rate"] for place in (0, -1))
    return [
        (
            f"`tiny-detect`, speech or not in {found['bench']['clips']:,} clips of 200 to 1000 ms at 0 to 20 dB, unseen voices and kinds of sounds",
            accuracy(models["tiny-detect"]),
            "detection",
        ),
        (
            "the same clips: silero-vad 6.2; with each clip made loud first; WebRTC's detector; `tiny` untuned",
            shares("silero-vad", "silero-vad:loud", "webrtc-vad", "tiny"),
            "detection",
        ),
        *(
            (
                f"`tiny-detect` less {name}: all clips; those of 200 ms alone; were voices and kinds of sounds drawn anew",
                "; ".join([points(row["all"]), points(row["200_ms"]), told(row["over_voices_and_kinds"]["interval"])]),
                "detection",
            )
            for name, row in zip(("silero-vad", "the same, each clip made loud first"), found["differences"].values(), strict=False)
        ),
        ("told by length alone; by loudness alone; by crest factor alone", shares("duration-cue", "rms-cue", "crest-factor-cue"), "detection"),
        ("`tiny-detect`, expected calibration error", percent(models["tiny-detect"]["ece"]), "detection"),
        (
            f"in babble of 6 to 12 talkers, {ours['clips']} other clips: `tiny-detect`; silero-vad; with clips made loud",
            "; ".join(percent(row["accuracy"]["rate"]) for row in (ours, *silero)),
            "detection",
        ),
        (
            "a detector trained as published (System C: negatives are white noise, rows split at random): its own test; an honest one",
            f"{percent(published['its own test']['rate'])}; {percent(published['honest test, one peak']['rate'])}",
            "python benchmarks/ladder.py",
        ),
        (
            f"its ladder climbed again, negatives of many kinds, voices kept apart: untuned; {len(ladder['ladder']) - 1} steps later",
            f"{percent(first)}; {percent(last)}",
            "python benchmarks/ladder.py",
        ),
        (
            "`detect`, 64 clips of 1 s, against the same model padded to 30 s with `generate`, in a batch; one by one: clips per second",
            "; ".join(f"{speed['times_as_fast'][f'padded to 30 s + generate, {way}']:.0f}x" for way in ("batch 64", "one by one")),
            "python benchmarks/detect_speed.py",
        ),
        (
            "95 % intervals of psychometric thresholds and slopes that hold the truth, simulated observers (aim: 93 % or more)",
            f"{percent(min(covered))} to {percent(max(covered))}",
            "python benchmarks/psychometric_coverage.py",
        ),
    ]


def seeing_rows() -> list[tuple[str, str, str]]:
    """Figure, value and command of what is known of the model that sees and hears."""
    found = read("tiny_vl")
    kept, heard = found["kept"], found["heard"]
    gated, merged = kept["gated"]["image"], kept["merged"]["image"]

    def interval(row: dict[str, Any]) -> str:
        return f"{percent(row['rate'])} ({percent(row['low'])} to {percent(row['high'])})"

    def share(row: dict[str, Any]) -> str:
        return interval({"rate": row["rate"], **{end: row["interval"][end] for end in ("low", "high")}})

    command = "seeing"
    return [
        (f"`tiny-vl`, {gated['rows']:,} written questions about unseen scenes, before grafting", share(gated["base"]), command),
        (
            "the same after graft, align and gated finetune: right; answers as before; rows whose logits are bit-equal",
            f"{percent(gated['model']['rate'])}; {percent(gated['same_answers'])}; {gated['bit_equal']:,} of {gated['rows']:,}",
            command,
        ),
        (
            "the same with its LoRA merged: right; answers as before; KL divergence",
            f"{percent(merged['model']['rate'])}; {percent(merged['same_answers'])}; {merged['kl']:.2g} nats a token",
            command,
        ),
        (f"`tiny-vl`, {heard['questions']:,} spoken questions about other unseen scenes, training voices", interval(heard["true"]), command),
        (
            "the same with another scene's picture; another row's audio; by each question's most frequent answer",
            "; ".join([percent(heard["other_picture"]["rate"]), percent(heard["other_audio"]["rate"]), percent(heard["chance"])]),
            command,
        ),
        (f"`tiny-vl`, word error rate, {heard['wer']['clips']} unseen sentences, training voices", interval(heard["wer"]), command),
    ]


def table() -> str:
    """Markdown: what matters most, and the rest folded up beneath it."""
    tiny: dict[str, Any] = json.loads((RESULTS / "tiny.json").read_text(encoding="utf-8"))
    bench = {row["name"]: row for row in json.loads((RESULTS / "latest.json").read_text(encoding="utf-8"))}
    speedrun: dict[str, Any] = json.loads((RESULTS / "speedrun.json").read_text(encoding="utf-8"))

    def rate(key: str) -> str:
        row = tiny[key]
        return f"{percent(row['wer'])} ({percent(row['low'])} to {percent(row['high'])})"

    def share(audio: str) -> str:
        row = tiny["questions"][audio]
        return percent(row["accuracy"]) + (f" ({percent(row['low'])} to {percent(row['high'])})" if audio == "true" else "")

    def ratio(name: str) -> str:
        row = bench[name]
        return f"{row['ratio']:.1f}x ({row['ours']:.1f} against {row['reference']:.1f} {row['unit']})"

    rows = [
        ("`tiny`, word error rate, 500 unseen sentences, training voices", rate("training_voices"), "results"),
        ("the same, three held-out espeak-ng voices", percent(tiny["held_out_espeak"]), "results"),
        ("the same, held-out flite voice `slt`, built from a person's recordings", percent(tiny["held_out_flite_slt"]), "results"),
        ("the same, training voices with noise, reverberation, band limits", rate("augmented"), "results"),
        ("the same, each sentence with another's audio (it listens)", rate("shuffled"), "results"),
        ("`tiny`, right answers to 500 questions (who, where, when, how many, which colour) about other unseen sentences", share("true"), "results"),
        ("the same, without audio; by each question's most frequent answer", f"{share('none')}; {share('chance')}", "results"),
        ("`audiograft transcribe` of three clips, the whole process", f"{tiny['three_clips_s']:.1f} s", "results"),
        ("graft + align + finetune + evaluate from the two halves: time", f"{speedrun['minutes']:.1f} min", "speedrun"),
        ("its word error rate, 300 unseen sentences, training voices", percent(speedrun["wer"]), "speedrun"),
        ("training step against the published recipe: clips per second", ratio("train_samples_per_s"), "bench"),
        ("training step against the published recipe: peak memory", ratio("train_peak_memory"), "bench"),
        ("transcription against the published way: seconds of audio per second", ratio("transcribe_audio_s_per_s"), "bench"),
    ]
    rows += seeing_rows()
    more = []
    steps = (("LoRA", "align"), ("4-bit + LoRA", "LoRA"))
    for ours, reference in steps if f"step_cost: {steps[0][0]} over {steps[0][1]}" in bench else ():
        more.append((f"a step of {ours} in units of {reference}: time", ratio(f"step_cost: {ours} over {reference}"), "bench"))
        more.append((f"a step of {ours} in units of {reference}: memory", ratio(f"step_memory: {ours} over {reference}"), "bench"))
    more += detection_rows()
    leakage: dict[str, Any] = json.loads((RESULTS / "leakage.json").read_text(encoding="utf-8"))
    kinds = ("resampled to 8 kHz and back", "MP3, 32 kbit/s", "1 s of it", "white noise, 10 dB SNR")
    found = ", ".join(percent(leakage["copies"][kind]["recall"]) for kind in kinds)
    more += [
        (
            "a pass of training from cached features against one that listens: clips per second",
            ratio("cache: training from it over listening"),
            "bench",
        ),
        ("memory for each row of the training data, against a list of rows", ratio("rows_memory: growth a row"), "bench"),
        ("files to samples in two workers, against `datasets.map` with librosa", ratio("decode all: datasets map + librosa"), "bench"),
        ("the same, with the rows read as NumPy arrays", ratio("decode all: datasets map + librosa, read as NumPy"), "bench"),
        (
            "leakage gate, copies of 400 clips found: by way of 8 kHz, as MP3, one second of each, with noise at 10 dB",
            found,
            "python benchmarks/leakage.py",
        ),
    ]
    more += [
        (
            "95 % intervals that hold the true WER, 5 simulated settings, 20 to 100 speakers (aim: 93 to 97 %)",
            coverage("ours"),
            "python benchmarks/interval_coverage.py",
        ),
        (
            "the same with the usual percentile bootstrap over utterances",
            coverage("percentile, utterances"),
            "python benchmarks/interval_coverage.py",
        ),
        (
            "30 wrong labels among 300 noisy clips, ranked by `audit`: average precision; by WER alone; by chance",
            suggestions(),
            "python benchmarks/label_noise.py",
        ),
    ]
    cores = tiny["machine"]["cores"]
    summary = f"{len(more)} more figures: steps of training, speech detection, data, intervals, wrong labels"
    return f"{markdown(rows, cores)}\n<details>\n<summary>{summary}</summary>\n\n{markdown(more, cores)}\n</details>\n"


def markdown(rows: list[tuple[str, str, str]], cores: int) -> str:
    """A table, with the command that repeats each row."""
    lines = [f"| {figure} | {value} | `{target if ' ' in target else f'make {target}'}` |" for figure, value, target in rows]
    return "\n".join([f"| figure, on {cores} CPU cores | measured (95 % interval) | again with |", "|---|---|---|", *lines]) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv:
        readme = ROOT / "README.md"
        readme.write_text(BLOCK.sub(lambda _: table(), readme.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table(), end="")
