"""Memory and time against rows: what it takes to know the rows of a run, and to find them again when it is resumed.

    python benchmarks/memory.py           # a table for 1k, 10k and 100k rows

Ours is the index of `audiograft.train.index`: arrays of lengths, the rows themselves staying in their manifest. The reference holds each row as an
object in a list, as audiograft did before it had an index, and as systems A and B do. Both look at a corpus as `audiograft prepare` leaves it; the
reference decodes the clips, which the index need not, since the traces beside the manifest say what they are.

Each figure is of a process of its own. Peak memory is what /proc says, so this runs on Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = (1_000, 10_000, 100_000)
LARGEST_LIST = 10_000
"""The reference decodes every clip, which takes minutes for more rows; its growth a row is known from these."""
_WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs", "away")


def write_corpus(folder: Path, n_rows: int, n_clips: int = 8) -> Path:
    """A manifest of so many rows about a few clips of 1 to 3 s, with its traces."""
    import numpy as np
    import soundfile

    from audiograft.audio import load_audio
    from audiograft.data.traces import TraceWriter, describe_row, make_trace, traces_path
    from audiograft.types import Sample

    (folder / "audio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    clips = []
    for clip in range(n_clips):
        path = folder / "audio" / f"{clip}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(16_000 + 4_000 * clip), 16_000)
        clips.append(make_trace(Sample("", (str(path),)), [load_audio(path).waveform]).clips)
    manifest = folder / "manifest.jsonl"
    time.sleep(0.05)  # traces have to be younger than the clips
    with manifest.open("w", encoding="utf-8") as file, TraceWriter(traces_path(manifest)) as writer:
        for row in range(n_rows):
            own = clips[row % n_clips]
            sample = Sample(f"corpus-{row:09d}", text=" ".join(rng.choice(_WORDS, 8)), speaker=f"speaker-{row % 999}")
            values = {"id": sample.id, "audio": f"audio/{row % n_clips}.wav", "text": sample.text, "speaker": sample.speaker}
            file.write(json.dumps({**values, "duration_s": own[0].n_samples / 16_000}) + "\n")
            writer.append(describe_row(sample, own))
    return manifest


def know_rows(manifest: Path, how: str) -> dict[str, float]:
    """Get to know the rows of a corpus, in this process.

    Args:
        manifest: of the corpus.
        how: `index` builds one and keeps it beside the manifest, `again` opens that one, and `list` holds each row in memory.

    Returns:
        Peak memory in MB before and after, and seconds.
    """
    from bench import resident_peak_bytes

    from audiograft.model import load_processor
    from audiograft.train.batching import partition
    from audiograft.train.index import ManifestFile, Rules, build_index
    from audiograft.train.kept_index import index_key, load_index, save_index, unchanged
    from audiograft.train.rows import Wording, index_rows, read_samples

    processor = load_processor("tiny")
    rules = Rules(processor, Wording(), 0.0, 0, lambda row: None)
    processor.training_inputs([{"role": "user", "content": "a"}], "b", [])
    before = resident_peak_bytes()
    started = time.perf_counter()
    if how == "list":
        rows, _ = index_rows(read_samples([str(manifest)]), processor)
        positions: Any = [row.positions for row in rows]
    else:
        opened = ManifestFile.open(manifest)
        kept, key = manifest.with_suffix(".npz"), index_key([opened], [])
        if how == "index":
            index, *_ = build_index([opened], rules, None, 0.2)
            save_index(kept, index, key, 0)
        else:
            stored = load_index(kept, key, [opened], rules.wording)
            assert stored is not None
            found = unchanged(stored[0], rules, keep_lost=True)
            assert found is not None
            index = found
        positions = index.positions
    batches = partition(positions, 4096, seed=0)
    assert sum(map(len, batches)) == len(positions)
    return {"before_mb": before / 1e6, "peak_mb": resident_peak_bytes() / 1e6, "seconds": time.perf_counter() - started}


def measure(manifest: Path, how: str) -> dict[str, float]:
    """`know_rows` in a process of its own."""
    code = f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import memory, pathlib; "
    code += f"print(json.dumps(memory.know_rows(pathlib.Path({str(manifest)!r}), {how!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_all(sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """One line for each number of rows and each way."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for n_rows in sizes:
            manifest = write_corpus(Path(folder) / str(n_rows), n_rows)
            for how in ("index", "again", *(["list"] if n_rows <= LARGEST_LIST else [])):
                lines.append({"rows": n_rows, "how": how, **measure(manifest, how)})
    return lines


def growth_bytes(lines: list[dict[str, Any]], how: str) -> float:
    """How much the peak grows with each row, from the fewest rows to the most."""
    own = [line for line in lines if line["how"] == how]
    return float(1e6 * (own[-1]["peak_mb"] - own[0]["peak_mb"]) / (own[-1]["rows"] - own[0]["rows"]))


def bench_memory() -> list[dict[str, Any]]:
    """For `bench.py`: growth of the peak a row, and time to know 10k rows at first and again, against the list."""
    from bench import row

    lines = measure_all()
    print(draw(lines) + "\n")
    seconds = {line["how"]: line["seconds"] for line in lines if line["rows"] == LARGEST_LIST}
    ours, reference = growth_bytes(lines, "index"), growth_bytes(lines, "list")
    return [
        row("rows_memory: growth a row", ours, reference, reference / ours, "bytes"),
        row("rows_time: 10k rows at first", seconds["index"], seconds["list"], seconds["list"] / seconds["index"], "s"),
        row("rows_time: 10k rows when resumed", seconds["again"], seconds["list"], seconds["list"] / seconds["again"], "s"),
    ]


def draw(lines: list[dict[str, Any]]) -> str:
    """A table for the terminal."""
    names = {"index": "index, made", "again": "index, opened again", "list": "list of rows (reference)"}
    table = [f"{'rows':>8}  {'':<26}{'process':>10}{'peak':>10}{'above it':>10}{'time':>9}"]
    for line in lines:
        before, peak = line["before_mb"], line["peak_mb"]
        sizes = f"{before:>7.0f} MB{peak:>7.0f} MB{peak - before:>7.1f} MB"
        table.append(f"{line['rows']:>8}  {names[line['how']]:<26}{sizes}{line['seconds']:>7.2f} s")
    return "\n".join(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    lines = measure_all(tuple(parser.parse_args().rows))
    print(draw(lines))
    for how in ("index", "list"):
        if sum(line["how"] == how for line in lines) > 1:
            print(f"growth a row, {how}: {growth_bytes(lines, how):.0f} bytes")


if __name__ == "__main__":
    main()
