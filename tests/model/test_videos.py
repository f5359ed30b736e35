"""Videos beside images and clips, with the torchvision that transformers needs for them, which the environment of the other tests does not have."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import builders
import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def torchvision() -> Path:
    """A folder with torchvision alone, fetched once for each version, beside what the environment holds and not in it."""
    [version] = re.findall(r"^torchvision==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    folder = Path(sys.prefix) / "cache" / f"torchvision-{version}"
    if not (folder / "torchvision" / "version.py").exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), f"torchvision=={version}"], check=True)
    return folder


@pytest.mark.slow
def test_videos_images_and_clips_in_one_conversation(torchvision: Path, tmp_path: Path) -> None:
    builders.vlm_graft(tmp_path, initializer_range=0.4)
    paths = os.pathsep.join(map(str, (ROOT / "tests", torchvision)))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "watching.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
