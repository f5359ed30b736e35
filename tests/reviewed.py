"""Runs to be reviewed, and a server for them: real predictions files and sound, no model."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import uvicorn

from audiograft.audit.log import VerdictLog
from audiograft.audit.run import AuditRun
from audiograft.audit.server import create_app

_SENTENCES = (
    "the code for the office safe is two five two nine",
    "play some folk music for edward in the nursery after dinner",
    "go straight for thirty seven kilometres then turn left at the village",
    "lucy travels from lisbon to rome by tram on monday night",
)
WORDS = sorted({word for sentence in _SENTENCES for word in sentence.split()})
HOSTILE = (
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<svg/onload=window.pwned=1>",
    "';window.pwned=1//",
    "javascript:window.pwned=1",
    "{{window.pwned=1}}${window.pwned=1}",
    "line\u2028separated\u2029text",
    "\u202etxt.exe\u202c and \u202eopen",
    "half a pair \ud800",
    "<!--<script>",
)


def write_run(folder: Path, texts: Sequence[tuple[str, str]], *, clips_s: float = 1.5, **columns: Sequence[Any]) -> Path:
    """Write `predictions.jsonl` and its clips.

    Args:
        folder: for the run.
        texts: reference and hypothesis of each row.
        clips_s: length of the clips; one file for all of them where there are more than 100.
        columns: further keys of the rows; `id` and `audio` among them stand in place of made ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"clip-{row if len(texts) <= 100 else 0:03d}.wav" for row in range(len(texts))]
    for row, name in enumerate(dict.fromkeys(names)):
        soundfile.write(folder / name, _tones(row, clips_s), 16000)
    rows = [
        {
            "id": f"clip-{row:05d}",
            "audio": name,
            "reference": reference,
            "hypothesis": hypothesis,
            "duration_s": clips_s,
            "speaker": f"speaker {row % 7}",
        }
        | {key: values[row] for key, values in columns.items()}
        for row, ((reference, hypothesis), name) in enumerate(zip(texts, names, strict=True))
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def mistaken(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """References, and the same with words left out, put in and replaced."""
    draw = random.Random(seed)
    texts = []
    for _ in range(n):
        reference = [draw.choice(WORDS) for _ in range(draw.randint(4, 20))]
        hypothesis = []
        for word in reference:
            chance = draw.random()
            if chance < 0.06:
                continue
            hypothesis.append(draw.choice(WORDS) if chance < 0.12 else f"{word.capitalize()}," if chance < 0.18 else word)
            if chance > 0.96:
                hypothesis.append(draw.choice(WORDS))
        texts.append((" ".join(reference), " ".join(hypothesis)))
    return texts


def _tones(row: int, length_s: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    time_s = np.arange(int(16000 * length_s)) / 16000
    return (0.4 * np.sin(2 * np.pi * (220 + 20 * row) * time_s) * np.abs(np.sin(2 * np.pi * 1.5 * time_s))).astype(np.float32)


@contextmanager
def reviewing(run: AuditRun, port: int = 0, **options: Any) -> Iterator[str]:
    """Serve the review of a run; yields its address. Verdicts go where they belong, `options` are those of `create_app`."""
    log = VerdictLog(run.verdicts_path, run.fingerprint, {clip.prediction.id for clip in run.clips})
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(run, log, **options), host="127.0.0.1", port=port, log_level="error", ws="none", lifespan="off", timeout_graceful_shutdown=1
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
