"""Write a corpus of scenes: `manifest.jsonl`, PNG pictures, spoken questions as WAV files. Same arguments, same bytes, on any number of workers."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import soundfile

from audiograft.data.scenes.questions import ask_about
from audiograft.data.scenes.scene import DEFAULT_MOST_SHAPES, SPLITS, Scene, render, scenes
from audiograft.data.synthetic.voices import draw_delivery, draw_voice, require_engines, speak
from audiograft.types import SAMPLE_RATE_HZ, DataError

VOICE_SETS = ("training", "held-out")


def _render(job: tuple[int, Scene], out: Path, key: str, voices: str, spoken: float) -> dict[str, Any]:
    """Draw one row, speak its question or write it, and return its manifest row. Everything random comes from (key, row)."""
    row, scene = job
    rng = random.Random(f"{key}/{row}")
    question = ask_about(scene, rng)
    picture = f"images/{row:06d}.png"
    render(scene, rng).save(out / picture, optimize=False)
    entry: dict[str, Any] = {"id": f"{key.replace('/', '-')}-{row:06d}", "image": picture}
    if rng.random() < spoken:
        voice = draw_voice(voices, row, rng)
        waveform = speak(question.text, voice, draw_delivery(rng))
        clip = f"audio/{row:06d}.wav"
        soundfile.write(out / clip, waveform, SAMPLE_RATE_HZ, subtype="PCM_16")
        duration_s = round(len(waveform) / SAMPLE_RATE_HZ, 4)
        entry |= {"audio": clip, "text": question.text, "prompt": "", "speaker": voice.speaker, "duration_s": duration_s}
    else:
        entry |= {"prompt": question.text}
    return entry | {"response": question.answer, "question": question.kind, "source": "scenes", "scene": scene.name}


def prepare_scenes(
    out: Path,
    *,
    split: str,
    rows: int,
    seed: int,
    spoken: float = 0.0,
    voices: str = "training",
    most_shapes: int = DEFAULT_MOST_SHAPES,
    workers: int | None = None,
    on_row: Callable[[], None] = lambda: None,
) -> Path:
    """Draw `rows` scenes of a split, ask one question about each, and write `out/manifest.jsonl`.

    Args:
        out: a folder that is made where it does not exist.
        split: train, dev or test; a scene is in one of them alone.
        rows: number of scenes.
        seed: any whole number; another seed gives other scenes of the same split.
        spoken: share of questions that are spoken, 0 to 1: these rows have `audio` and an empty `prompt`. The others have the question as `prompt`.
        voices: training, or held-out (for the test split alone).
        most_shapes: in a scene, 1 to 5.
        workers: processes; as many as there are cores by default. Has no influence on the result.
        on_row: called after each finished row.

    Returns:
        The path of the manifest.

    Raises:
        DataError: a split, number, share or set of voices that there is not, or held-out voices in training.
        AudiograftError: a speech engine is missing.
    """
    if split not in SPLITS or voices not in VOICE_SETS:
        raise DataError(f"unknown split or voices {split!r}, {voices!r}: use {'|'.join(SPLITS)} and {'|'.join(VOICE_SETS)}")
    if rows < 1 or not 0 <= spoken <= 1:
        raise DataError(f"rows must be 1 or more and spoken from 0 to 1, not {rows} and {spoken}")
    if voices == "held-out" and split != "test":
        raise DataError(f"held-out voices are for the test split alone, not for {split}: use --voices training")
    drawn = scenes(split, seed, most_shapes)
    if spoken:
        require_engines()
    for folder in ("images", "audio") if spoken else ("images",):
        (out / folder).mkdir(parents=True, exist_ok=True)
    key = f"scenes/{split}/{voices}/{seed}"
    draw = partial(_render, out=out, key=key, voices=voices, spoken=spoken)
    manifest = out / "manifest.jsonl"
    staged = manifest.with_suffix(".jsonl.part")
    with staged.open("w", encoding="utf-8") as file, ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        for row in pool.map(draw, enumerate(islice(drawn, rows)), chunksize=16):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            on_row()
    staged.replace(manifest)
    return manifest
