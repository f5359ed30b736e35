from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiograft.inference.engine import Engine
from audiograft.inference.spreading import transcribe_spread
from audiograft.types import AudioError, Transcript

CLIPS = sorted(map(str, (Path(__file__).parent.parent / "data" / "clips" / "audio").glob("*.wav")))


class Echo:
    """Hears the stem of a name, and warns of it."""

    note = "it echoes"

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def transcribe_many(self, sources: list[str], *, batch_size: int, prompt: str, **decoding: Any) -> list[Transcript | AudioError]:
        self.calls.append((len(sources), batch_size))
        logging.getLogger("audiograft.inference.engine").warning("warning: %s", Path(sources[0]).stem)
        return [AudioError(f"{name}: bad") if "007" in name else Transcript(name, f"{prompt} {Path(name).stem}", 1.0, "echo") for name in sources]


def test_parts_are_put_together_and_what_was_logged_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    echo, seen = Echo(), []
    work: Callable[..., Any] = transcribe_spread
    results = work(lambda: echo, CLIPS, engine="local", workers=1, batch_size=1, prompt="hear", on_result=lambda *result: seen.append(result))
    assert echo.calls == [(8, 1), (8, 1), (4, 1)]
    assert seen == list(enumerate(results))
    assert [result.text if isinstance(result, Transcript) else str(result) for result in results] == [
        f"{name}: bad" if "007" in name else f"hear {Path(name).stem}" for name in CLIPS
    ]
    own = [record.getMessage() for record in caplog.records if record.name == "audiograft.inference.spreading"]
    assert own == ["note: it echoes", "warning: 000000", "warning: 000008", "warning: 000016"]


def test_two_engines_write_what_one_does() -> None:
    engine = Engine.load("tiny", "cpu")
    alone = engine.transcribe_many(list(CLIPS), batch_size=1)
    assert transcribe_spread(lambda: engine, CLIPS, engine="local", workers=2, batch_size=1) == alone


def _kill_a_worker(parent: int, killed: list[int]) -> None:
    """Kill the first worker process that has been given its model, once."""
    while not killed:
        for entry in Path("/proc").iterdir():
            try:
                name = (entry / "cmdline").read_bytes()
                if name.startswith(b"ray::MapWorker") and f"AUDIOGRAFT_TEST={parent}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    time.sleep(1.0)
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed.append(int(entry.name))
                    return
            except (OSError, ValueError):
                continue
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the workers in /proc")
def test_on_ray_each_clip_comes_once_when_a_worker_is_killed(tmp_path: Path) -> None:
    links = []
    for number in range(6):
        for clip in CLIPS:
            links.append(tmp_path / f"{number}-{Path(clip).name}")
            links[-1].symlink_to(clip)
    (tmp_path / "zz.wav").write_text("no sound")
    command = [sys.executable, "-m", "audiograft", "transcribe", str(tmp_path), "--format", "jsonl", "--batch-size", "1", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "AUDIOGRAFT_TEST": str(os.getpid())}
    local = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    killed: list[int] = []
    killer = threading.Thread(target=_kill_a_worker, args=(os.getpid(), killed), daemon=True)
    killer.start()
    ray = subprocess.run([*command, "--engine", "ray", "--workers", "2"], env=environment, capture_output=True, text=True, timeout=300)
    killer.join(timeout=1)
    assert len(killed) == 1
    # How far the work is, is told every 30 s, and so by one of them perhaps.
    told, expected = ([line for line in done.stderr.splitlines() if not line.startswith("transcribing: ")] for done in (ray, local))
    assert (ray.returncode, ray.stdout, told) == (local.returncode, local.stdout, expected) == (1, local.stdout, expected)
    assert len([json.loads(line) for line in ray.stdout.splitlines()]) == len(links)
    assert ray.stderr.count("zz.wav") == 1
