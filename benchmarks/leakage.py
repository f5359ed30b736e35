"""How well the acoustic fingerprint tells copies from other clips, and what it costs.

    python benchmarks/leakage.py            # prints the figures, writes benchmarks/results/leakage.json (some minutes; needs espeak-ng and flite)

Copies: clips of a synthetic corpus, each changed in one way and looked up among all clips of the corpus. Not copies: every pair of two other
clips; other sentences of one voice at one rate and pitch, where whole phrases are the same samples; noise of one level; silence. The thresholds
of audiograft.data.fingerprint were set on `--seed 11`, the figures are those of another seed.

Cost: seconds to fingerprint 10 s, and time and peak memory to compare 100,000 training clips with 1,000 test clips of 10 s, whose peaks are drawn
(bins and gaps in time as in the corpus), so that they are no copies. Peak memory is read from /proc, so this runs on Linux only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import soxr

from audiograft.audio import Waveform, load_audio
from audiograft.data.fingerprint import Index, Peaks, find_peaks
from audiograft.data.gate import Gate
from audiograft.data.manifest import read_manifest
from audiograft.data.synthetic.generate import prepare_synthetic
from audiograft.data.synthetic.grammar import sentences
from audiograft.data.synthetic.voices import Delivery, Voice, speak
from audiograft.data.traces import ClipTrace, Trace
from audiograft.types import SAMPLE_RATE_HZ

RESULTS = Path(__file__).resolve().parent / "results" / "leakage.json"
CLIPS = 400
SENTENCES = 60
VOICES = ("flite:slt", "flite:rms", "flite:awb", "flite:kal16", "espeak-ng:en-us", "espeak-ng:en-us+f3", "espeak-ng:en-gb+klatt2")
NOISES = 200
TRAIN_CLIPS, TEST_CLIPS, CLIP_S = 100_000, 1_000, 10

Change = Callable[[Waveform, np.random.Generator], Waveform]


def resampled(rate_hz: int) -> Change:
    return lambda clip, rng: soxr.resample(soxr.resample(clip, SAMPLE_RATE_HZ, rate_hz), rate_hz, SAMPLE_RATE_HZ)


def louder(gain_db: float) -> Change:
    """Rounded to 16 bits, and cut off at full scale where it does not fit."""
    return lambda clip, rng: (np.rint(np.clip(clip * 10 ** (gain_db / 20), -1, 1) * 32767) / 32768).astype(np.float32)


def trimmed(length_s: float) -> Change:
    """A stretch of this length from anywhere in the clip."""

    def trim(clip: Waveform, rng: np.random.Generator) -> Waveform:
        start = rng.integers(max(1, len(clip) - int(length_s * SAMPLE_RATE_HZ)))
        return clip[start : start + int(length_s * SAMPLE_RATE_HZ)]

    return trim


def noisy(snr_db: float) -> Change:
    def add(clip: Waveform, rng: np.random.Generator) -> Waveform:
        level = np.sqrt(np.mean(clip**2)) * 10 ** (-snr_db / 20)
        return (clip + level * rng.standard_normal(len(clip))).astype(np.float32)

    return add


def coded(codec: str, container: str, kbit_s: int) -> Change:
    rate_hz = 48_000 if codec == "libopus" else SAMPLE_RATE_HZ

    def code(clip: Waveform, rng: np.random.Generator) -> Waveform:
        file = io.BytesIO()
        with av.open(file, "w", format=container) as out:
            stream: Any = out.add_stream(codec, rate=rate_hz, layout="mono")
            stream.bit_rate = 1000 * kbit_s
            resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate_hz)
            samples = np.rint(np.clip(clip, -1, 1) * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE_HZ
            for part in [*resampler.resample(frame), *resampler.resample(None), None]:
                out.mux(stream.encode(part))
        return load_audio(file.getvalue()).waveform

    return code


def both(first: Change, second: Change) -> Change:
    return lambda clip, rng: second(first(clip, rng), rng)


CHANGES: dict[str, Change] = {
    "resampled to 8 kHz and back": resampled(8_000),
    "resampled to 22.05 kHz and back": resampled(22_050),
    "resampled to 44.1 kHz and back": resampled(44_100),
    "20 dB quieter": louder(-20),
    "20 dB louder, clipped": louder(20),
    "MP3, 32 kbit/s": coded("libmp3lame", "mp3", 32),
    "Opus, 16 kbit/s": coded("libopus", "ogg", 16),
    "white noise, 20 dB SNR": noisy(20),
    "white noise, 10 dB SNR": noisy(10),
    "2 s of it": trimmed(2),
    "1 s of it": trimmed(1),
    "1 s of it, MP3, 32 kbit/s": both(trimmed(1), coded("libmp3lame", "mp3", 32)),
    "1 s of it, Opus, 16 kbit/s": both(trimmed(1), coded("libopus", "ogg", 16)),
    "1 s of it, white noise, 20 dB SNR": both(trimmed(1), noisy(20)),
    "0.5 s of it": trimmed(0.5),
}


def copies(clips: list[Waveform], seed: int) -> dict[str, dict[str, float]]:
    """Of each change: how many copies were found, and how many other clips were taken for copies."""
    index = Index([find_peaks(clip) for clip in clips])
    results = {}
    for name, change in CHANGES.items():
        rng = np.random.default_rng(seed)
        pairs = {(match.query, match.indexed) for match in index.search([find_peaks(change(clip, rng)) for clip in clips])}
        found = sum(query == indexed for query, indexed in pairs)
        results[name] = {"copies": len(clips), "found": found, "recall": found / len(clips), "others_taken_for_it": len(pairs) - found}
        print(f"{name:36} found {found / len(clips):7.1%}, other clips taken for copies: {len(pairs) - found}", flush=True)
    return results


def taken_for_copies(name: str, clips: list[Waveform], texts: list[str]) -> dict[str, Any]:
    """Pairs of clips with different texts that are taken for copies."""
    peaks = [find_peaks(clip) for clip in clips]
    different = sum(first != second for first, second in combinations(texts, 2))
    wrong = {(m.query, m.indexed) for m in Index(peaks).search(peaks) if m.query < m.indexed and texts[m.query] != texts[m.indexed]}
    print(f"{name}: {len(wrong)} of {different} pairs are taken for copies", flush=True)
    return {
        "clips": len(clips),
        "pairs": different,
        "taken_for_copies": len(wrong),
        "examples": [[texts[query], texts[indexed]] for query, indexed in sorted(wrong)[:5]],
    }


def one_voice(seed: int) -> Iterator[tuple[str, str, Waveform]]:
    """(voice, text, clip): the same sentences by each voice, at one rate and pitch."""
    jobs = [(voice, sentence.text) for voice in VOICES for sentence in islice(sentences("train", seed), SENTENCES)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        clips = pool.map(lambda job: speak(job[1], Voice(*job[0].split(":")), Delivery(1.0, 1.0)), jobs)
        yield from ((voice, text, clip) for (voice, text), clip in zip(jobs, clips, strict=True))


def drawn_peaks(known: list[Peaks], rng: np.random.Generator) -> Peaks:
    """Peaks of 10 s that never sounded, with bins and gaps in time drawn from real ones."""
    bins = np.concatenate([peaks & 0xFF for peaks in known])
    gaps = np.concatenate([np.diff(peaks >> 8) for peaks in known])
    frames = np.cumsum(rng.choice(gaps, 2 * CLIP_S * 50))
    frames = frames[frames < CLIP_S * 100]
    return np.unique(frames.astype(np.uint32) << 8 | rng.choice(bins, len(frames)))


def cost_of_comparison(known: list[Peaks]) -> dict[str, float]:
    rng = np.random.default_rng(0)

    def traces(count: int, name: str) -> Iterable[Trace]:
        for number in range(count):
            clip = ClipTrace(f"{name}{number}", CLIP_S * SAMPLE_RATE_HZ, drawn_peaks(known, rng))
            yield Trace(f"{name}{number}", "drawn", f"{name}{number % 100}", None, f"{name}{number}", 50, (clip,))

    test = list(traces(TEST_CLIPS, "test"))
    start_s = time.perf_counter()
    gate = Gate(test)
    index_s = time.perf_counter() - start_s
    spent_s = 0.0
    source = iter(traces(TRAIN_CLIPS, "train"))
    while block := list(islice(source, 500)):  # drawing them is not what is measured
        start_s = time.perf_counter()
        gate.add(block, "train")
        spent_s += time.perf_counter() - start_s
    report = gate.report()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_kb = int(status.split("VmHWM:")[1].split()[0])
    return {
        "train_clips": TRAIN_CLIPS,
        "test_clips": TEST_CLIPS,
        "peaks_a_clip": float(np.mean([len(trace.clips[0].peaks) for trace in test])),
        "index_s": index_s,
        "compare_s": spent_s,
        "taken_for_copies": report.counts["near_audio"],
        "peak_memory_mb": peak_kb / 1024,
    }


def milliseconds_for_10_s(clips: list[Waveform]) -> float:
    """The fastest of some runs over one clip of 10 s, on one thread."""
    clip = np.concatenate(clips)[: CLIP_S * SAMPLE_RATE_HZ]
    times = []
    for _ in range(20):
        start_s = time.perf_counter()
        find_peaks(clip)
        times.append(time.perf_counter() - start_s)
    return 1000 * min(times)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        manifest = prepare_synthetic(Path(folder), split="train", voices="training", rows=CLIPS, seed=arguments.seed)
        samples = read_manifest(manifest)
        clips = [load_audio(sample.audio).waveform for sample in samples]
    peaks = [find_peaks(clip) for clip in clips]
    spoken = list(one_voice(arguments.seed))
    rng = np.random.default_rng(arguments.seed)
    noises = [(0.05 * rng.standard_normal(5 * SAMPLE_RATE_HZ)).astype(np.float32) for _ in range(NOISES)]
    silences = [np.zeros(5 * SAMPLE_RATE_HZ, np.float32) for _ in range(NOISES)]
    names = [str(number) for number in range(NOISES)]
    result = {
        "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
        "seed": arguments.seed,
        "milliseconds_for_10_s": milliseconds_for_10_s(clips),
        "peaks_per_s": sum(map(len, peaks)) * SAMPLE_RATE_HZ / sum(map(len, clips)),
        "copies": copies(clips, arguments.seed),
        "others": {
            "different sentences": taken_for_copies("different sentences", clips, [str(sample.text) for sample in samples]),
            "one voice at one rate and pitch": taken_for_copies(
                "one voice at one rate and pitch", [clip for _, _, clip in spoken], [text for _, text, _ in spoken]
            ),
            "white noise": taken_for_copies("white noise", noises, names),
            "silence": taken_for_copies("silence", silences, names),
        },
        "comparison": cost_of_comparison(peaks),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("milliseconds_for_10_s", "peaks_per_s", "comparison")}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
