"""How much audio is decoded in a second by two workers: ours against `datasets` + `librosa`, in one run.

    python benchmarks/decoding.py         # `make bench` runs it too, as part of bench.py

The corpus: 204 clips of 3 to 16 s, cut from the voices in examples/ and tests/data/clips, a third each as FLAC at 16 kHz (as LibriSpeech has it),
16-bit WAV at 44.1 kHz (as ESC-50) and MP3 at 48 kHz and 64 kbit/s (as Common Voice); it is read five times over, so that starting workers counts
for little. All of it is mono, lies in the page cache, and becomes float32 at 16 kHz.

Ours: `load_audio` in the two threads of `spread`, as `prepare` and `cache-features` do it. It checks each clip for what is missing or broken, which
the others don't.

The others, each with two processes:
- map: `dataset.map(function, num_proc=2)`, where the function sets `row["speech"]` to `librosa.load(row["path"], sr=16_000)[0]`; then each row is
  read once and made an array. `datasets` writes the samples to its cache, and gives them back as lists of Python's floats unless told otherwise.
- map, read as NumPy: the same with `dataset.with_format("numpy")`, and so without the lists.
- transform: `dataset.with_transform(...)` with the same function, read by a torch DataLoader of two workers; nothing is written.
- librosa: `librosa.load` alone, in a pool of two processes that give back lengths, so that not even the samples have to travel.

All four are ways to use `datasets` and `librosa` together or apart, from the one that costs most to the one that costs least; how often which of
them is used was not counted, so none is more of a reference than another. The aim was 3 times as much as `datasets` and `librosa`. The first
reaches it and the others do not: what they have in common with ours, decoding and resampling, is most of the work there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
FORMATS = {"FLAC 16 kHz": ".flac", "WAV 44.1 kHz": ".wav", "MP3 48 kHz": ".mp3"}
CLIPS_EACH = 68
PASSES = 5
WORKERS = 2
RATE_HZ = 16_000
ALL = "all"
"""All formats together."""


def make_corpus(folder: Path, clips_each: int = CLIPS_EACH) -> dict[str, list[str]]:
    """Write the clips; gives their paths by format."""
    import soundfile
    import soxr

    from audiograft.audio import find_audio, load_audio

    voices = np.concatenate([load_audio(path).waveform for path in find_audio([ROOT / "examples", ROOT / "tests" / "data" / "clips" / "audio"])])
    draws = np.random.default_rng(0)
    paths: dict[str, list[str]] = {name: [] for name in FORMATS}
    for number in range(clips_each):
        n_samples = int(draws.uniform(3, 16) * RATE_HZ)
        start = draws.integers(len(voices) - n_samples)
        clip = voices[start : start + n_samples]
        for name, suffix in FORMATS.items():
            path = folder / f"{number:03}{suffix}"
            paths[name].append(str(path))
            if suffix == ".flac":
                soundfile.write(path, clip, RATE_HZ)
            elif suffix == ".wav":
                soundfile.write(path, soxr.resample(clip, RATE_HZ, 44_100), 44_100)
            else:
                write_mp3(path, soxr.resample(clip, RATE_HZ, 48_000), 48_000)
    return paths


def write_mp3(path: Path, waveform: npt.NDArray[np.float32], rate_hz: int) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libmp3lame", rate=rate_hz, layout="mono")
        stream.bit_rate = 64_000
        stream.codec_context.open()
        step = stream.codec_context.frame_size
        for start in range(0, len(waveform), step):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform[None, start : start + step]), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate_hz, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def ours(paths: Sequence[str], folder: Path) -> int:
    """Each way gives the number of samples that it decoded, so that none can leave any out."""
    from audiograft.audio import load_audio
    from audiograft.bulk import spread

    return sum(len(clip.waveform) for clip in spread(lambda: load_audio, paths, workers=WORKERS))


def speech_file_to_array(row: dict[str, Any]) -> dict[str, Any]:
    import librosa

    row["speech"], _ = librosa.load(row["path"], sr=RATE_HZ)
    return row


def with_map(paths: Sequence[str], folder: Path, numpy: bool = False) -> int:
    import datasets

    cache = Path(tempfile.mkdtemp(dir=folder))
    dataset = datasets.Dataset.from_dict({"path": list(paths)})
    dataset = dataset.map(speech_file_to_array, num_proc=WORKERS, cache_file_name=str(cache / "speech.arrow"))
    n_samples = sum(len(np.asarray(row["speech"], np.float32)) for row in (dataset.with_format("numpy") if numpy else dataset))
    shutil.rmtree(cache)
    return n_samples


def speech_files_to_arrays(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    import librosa

    rows["speech"] = [librosa.load(path, sr=RATE_HZ)[0] for path in rows["path"]]
    return rows


def with_transform(paths: Sequence[str], folder: Path) -> int:
    import datasets
    import torch

    dataset: Any = datasets.Dataset.from_dict({"path": list(paths)}).with_transform(speech_files_to_arrays)
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=WORKERS, collate_fn=list)
    return sum(len(row["speech"]) for batch in loader for row in batch)


def n_samples_by_librosa(path: str) -> int:
    import librosa

    return len(librosa.load(path, sr=RATE_HZ)[0])


def librosa_alone(paths: Sequence[str], folder: Path) -> int:
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        return sum(pool.imap(n_samples_by_librosa, paths, chunksize=8))


WAYS: dict[str, Callable[[Sequence[str], Path], int]] = {
    "ours": ours,
    "datasets map + librosa": with_map,
    "datasets map + librosa, read as NumPy": partial(with_map, numpy=True),
    "datasets transform + librosa": with_transform,
    "librosa alone": librosa_alone,
}


def rates(rounds: int = 3, clips_each: int = CLIPS_EACH, passes: int = PASSES) -> dict[str, dict[str, float]]:
    """Seconds of audio a second, by way and format. A round of all ways after a round of all, and medians."""
    import datasets

    datasets.disable_progress_bars()
    taken: dict[str, dict[str, list[float]]] = {way: {name: [] for name in FORMATS} for way in WAYS}
    lengths_s = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        corpus = make_corpus(folder, clips_each)
        for name, paths in corpus.items():
            n_samples_by_librosa(paths[0])  # imports what is imported lazily, before processes are forked
            lengths_s[name] = passes * ours(paths, folder) / RATE_HZ
            for _ in range(rounds):
                for way, decode in WAYS.items():
                    start = time.perf_counter()
                    n_samples = decode(paths * passes, folder)
                    taken[way][name].append(time.perf_counter() - start)
                    # Lengths at 16 kHz may be rounded in two ways.
                    assert abs(n_samples / RATE_HZ - lengths_s[name]) < 1e-3 * lengths_s[name], (way, name)
    found = {}
    for way, times in taken.items():
        taken_s = {name: median(values) for name, values in times.items()}
        found[way] = {name: lengths_s[name] / taken_s[name] for name in FORMATS} | {ALL: sum(lengths_s.values()) / sum(taken_s.values())}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    found = rates(parser.parse_args().rounds)
    names = [*FORMATS, ALL]
    print(f"{'seconds of audio a second, two workers':<40}" + "".join(f"{name:>14}" for name in names))
    for way, by_format in found.items():
        print(f"{way:<40}" + "".join(f"{by_format[name]:>14.0f}" for name in names))
    for way in list(found)[1:]:
        print(f"{'ours against ' + way:<40}" + "".join(f"{found['ours'][name] / found[way][name]:>13.2f}x" for name in names))


if __name__ == "__main__":
    main()
