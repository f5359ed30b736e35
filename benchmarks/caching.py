"""What the cache of encoder features saves, in one run: a pass of training from a cache against one that listens.

    python benchmarks/caching.py          # `make bench` runs it too, as part of bench.py

The model is the shipped `tiny` in the stage `align`, in batches of 8 clips, on the 20 clips of 1.5 to 4.2 s in tests/data/clips, 4 times over under
different gains, so that no two are the same to the cache. A pass does what a training process does for each batch: read the row, decode and
compute mel frames (or read the cache), run the model forwards and backwards, take a step of AdamW. Decoding counts: on two cores no worker does it
for free.

The larger the encoder is beside the language model, the more the cache saves; `tiny` is a small encoder beside a small language model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
COPIES = 4
BATCH_CLIPS = 8


def write_corpus(folder: Path, copies: int = COPIES) -> Path:
    """The clips at different gains, and their manifest."""
    import soundfile

    from audiograft.audio import load_audio
    from audiograft.data.manifest import read_manifest

    rows = []
    for sample in read_manifest(ROOT / "tests" / "data" / "clips"):
        for copy in range(copies):
            name = f"{sample.id}-{copy}.wav".replace("/", "-")
            soundfile.write(folder / name, load_audio(sample.audio).waveform * 0.95**copy, 16_000, subtype="PCM_16")
            rows.append({"id": name, "audio": name, "text": sample.text})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def measure(rounds: int, copies: int = COPIES) -> dict[str, float]:
    """Seconds of a pass, cached and not, and of filling the cache; bytes of the cache and of the clips; the losses of the first pass of each."""
    import torch

    from audiograft.inference.caching import fill_cache, open_cache
    from audiograft.model import load_model
    from audiograft.train.collator import Collator
    from audiograft.train.dataset import SpeechDataset
    from audiograft.train.recipe import DataRecipe, Recipe
    from audiograft.train.rows import index_rows, read_samples
    from audiograft.train.stages import prepare_stage

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_corpus(folder, copies)
        model, processor = load_model("tiny")
        rows, _ = index_rows(read_samples([str(manifest)]), processor)
        started = time.perf_counter()
        cache = open_cache(folder / "cache", model, processor, torch.float32)
        done = fill_cache(cache, [(row.sample.audio, row.padded) for row in rows], lambda: (model, processor), torch.float32)
        fill_s = time.perf_counter() - started
        prepare_stage(model, Recipe("align", "none", DataRecipe(train=("none",))))
        collate = Collator(processor)

        def one_pass(dataset: Any, learning_rate: float) -> tuple[float, float]:
            """Seconds and mean loss."""
            optimiser = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], lr=learning_rate)
            losses = []
            begun = time.perf_counter()
            for start in range(0, len(rows), BATCH_CLIPS):
                batch = collate([dataset[index] for index in range(start, min(start + BATCH_CLIPS, len(rows)))])
                loss = model(**{key: value for key, value in batch.items() if key not in ("ids", "audio_s")}).loss
                loss.backward()
                optimiser.step()
                optimiser.zero_grad()
                losses.append(float(loss.detach()))
            return time.perf_counter() - begun, sum(losses) / len(losses)

        datasets = {"cached": SpeechDataset(rows, processor, cache), "uncached": SpeechDataset(rows, processor)}
        # At a learning rate of 0 both see the same model; later passes change it, as training does.
        losses = {f"{kind}_loss": one_pass(dataset, 0.0)[1] for kind, dataset in datasets.items()}
        times: dict[str, list[float]] = {kind: [] for kind in datasets}
        for _ in range(rounds):
            for kind, dataset in datasets.items():
                times[kind].append(one_pass(dataset, 1e-5)[0])
        return {
            **losses,
            **{f"{kind}_s": median(values) for kind, values in times.items()},
            "fill_s": fill_s,
            "clips": len(rows),
            "audio_s": done.duration_s,
            "cache_bytes": float(sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())),
            "clips_bytes": float(sum(path.stat().st_size for path in folder.glob("*.wav"))),
        }


def bench_caching(rounds: int) -> list[dict[str, Any]]:
    """Rows for bench.py."""
    from bench import row

    found = measure(rounds)
    cached, uncached = found["clips"] / found["cached_s"], found["clips"] / found["uncached_s"]
    steps = found["clips"] / BATCH_CLIPS
    cache_mb, clips_mb = found["cache_bytes"] / 1e6, found["clips_bytes"] / 1e6
    return [
        row("cache: training from it over listening", cached, uncached, cached / uncached, "clips/s"),
        row("cache: a step of 8 clips", 1e3 * found["cached_s"] / steps, 1e3 * found["uncached_s"] / steps, cached / uncached, "ms"),
        row("cache: filling it over a pass that listens", found["fill_s"], found["uncached_s"], found["fill_s"] / found["uncached_s"], "s"),
        row("cache: size over 16-bit clips", cache_mb, clips_mb, cache_mb / clips_mb, "MB"),
        row("cache: loss", found["cached_loss"], found["uncached_loss"], found["cached_loss"] / found["uncached_loss"], "nats a token"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    for name, value in measure(parser.parse_args().rounds).items():
        print(f"{name:<16}{value:>14,.4f}")


if __name__ == "__main__":
    main()
