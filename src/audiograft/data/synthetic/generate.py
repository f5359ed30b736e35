"""Write a synthetic corpus: `manifest.jsonl` and 16-bit WAV files. Same arguments, same bytes, on any number of workers."""

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

import numpy as np
import soundfile

from audiograft.data.synthetic.augment import augment
from audiograft.data.synthetic.grammar import SPLITS, Sentence, sentences
from audiograft.data.synthetic.questions import ask
from audiograft.data.synthetic.voices import VOICE_SETS, draw_delivery, draw_voice, require_engines, speak
from audiograft.types import SAMPLE_RATE_HZ, DataError


def drawn_question(sentence: Sentence, place: str, share: float) -> dict[str, str]:
    """Keys of a manifest row that asks about its sentence, or none.

    Args:
        sentence: of the row.
        place: corpus and row; everything random comes from it, and from nothing else, so that the clips are the same with and without questions.
        share: of rows that ask, 0 to 1.
    """
    rng = random.Random(f"{place}/question")
    if rng.random() >= share:
        return {}
    question = ask(sentence, rng)
    return {"prompt": question.text, "response": question.answer, "question": question.group}


def _render(job: tuple[int, Sentence], out: Path, key: str, voices: str, augmented: bool, questions: float) -> dict[str, Any]:
    """Speak one row, write its WAV, and return its manifest row. Everything random comes from (key, row)."""
    row, sentence = job
    rng = random.Random(f"{key}/{row}")
    voice = draw_voice(voices, row, rng)
    delivery = draw_delivery(rng)
    waveform = speak(sentence.text, voice, delivery)
    done: dict[str, float] = {}
    if augmented:
        waveform, done = augment(waveform, np.random.default_rng(rng.getrandbits(64)))
    name = f"audio/{row:06d}.wav"
    soundfile.write(out / name, waveform, SAMPLE_RATE_HZ, subtype="PCM_16")
    return {
        "id": f"{key.replace('/', '-')}-{row:06d}",
        "audio": name,
        "text": sentence.text,
        **drawn_question(sentence, f"{key}/{row}", questions),
        "speaker": voice.speaker,
        "duration_s": round(len(waveform) / SAMPLE_RATE_HZ, 4),
        "source": "synthetic",
        "pattern": sentence.pattern,
        "slots": [list(slot) for slot in sentence.slots],
        "rate": round(delivery.rate, 3),
        "pitch": round(delivery.pitch, 3),
        **({"augmentation": done} if augmented else {}),
    }


def prepare_synthetic(
    out: Path,
    *,
    split: str,
    voices: str,
    rows: int,
    seed: int,
    augmented: bool = False,
    questions: float = 0.0,
    workers: int | None = None,
    on_row: Callable[[], None] = lambda: None,
) -> Path:
    """Speak `rows` sentences of a split and write `out/manifest.jsonl`.

    Args:
        out: a folder that is made where it does not exist.
        split: train, dev or test.
        voices: training, held-out (for the test split alone) or languages (for the train split alone).
        rows: number of clips.
        seed: any whole number; another seed gives other sentences of the same split.
        augmented: apply `augment` to each clip.
        questions: share of rows that ask about the sentence and have the answer as `response`; the others are to be transcribed.
        workers: processes; as many as there are cores by default. Has no influence on the result.
        on_row: called after each finished row.

    Returns:
        The path of the manifest.

    Raises:
        DataError: a split or set of voices that does not exist, or held-out voices in training.
        AudiograftError: an engine is missing.
    """
    if split not in SPLITS or voices not in VOICE_SETS:
        raise DataError(f"unknown split or voices {split!r}, {voices!r}: use {'|'.join(SPLITS)} and {'|'.join(VOICE_SETS)}")
    if rows < 1:
        raise DataError(f"rows must be 1 or more, not {rows}")
    if voices == "held-out" and split != "test":
        raise DataError(f"held-out voices are for the test split alone, not for {split}: use --voices training")
    if voices == "languages" and split != "train":
        raise DataError(
            f"voices of other languages are for training detectors, not for {split}: their texts are not what they say: use --split train"
        )
    require_engines()
    (out / "audio").mkdir(parents=True, exist_ok=True)
    key = f"{split}/{voices}/{seed}" + ("/augmented" if augmented else "")
    jobs = enumerate(islice(sentences(split, seed), rows))
    render = partial(_render, out=out, key=key, voices=voices, augmented=augmented, questions=questions)
    manifest = out / "manifest.jsonl"
    staged = manifest.with_suffix(".jsonl.part")
    with staged.open("w", encoding="utf-8") as file, ProcessPoolExecutor(workers or os.cpu_count()) as pool:
        for row in pool.map(render, jobs, chunksize=16):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            on_row()
    staged.replace(manifest)
    return manifest
