"""The recipes as a whole, from nothing: slow, for `make test-all`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.mark.slow
def test_both_halves_can_be_made_from_nothing_and_grafted(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    shutil.copytree(ROOT / "tests" / "data" / "clips", clips)
    for script, options in (
        ("pretrain_encoder.py", ["--train", clips, "--dev", clips, "--width", "64", "--layers", "1"]),
        ("pretrain_lm.py", []),
    ):
        command = [sys.executable, ROOT / "recipes" / "tiny" / script, *options, "--out", tmp_path / script, "--minutes", "0.1"]
        subprocess.run(list(map(str, command)), env=ENVIRONMENT, check=True)
    halves = ["--audio-encoder", tmp_path / "pretrain_encoder.py", "--language-model", tmp_path / "pretrain_lm.py"]
    command = [sys.executable, "-m", "audiograft", "graft", *halves, "--out", tmp_path / "graft"]
    subprocess.run(list(map(str, command)), env=ENVIRONMENT, check=True)
    assert (tmp_path / "graft" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.needs_engines
def test_the_speedrun_ends_with_a_model_that_hears(tmp_path: Path) -> None:
    subprocess.run(["bash", "recipes/speedrun.sh", str(tmp_path / "out")], cwd=ROOT, env=ENVIRONMENT, check=True)
    result = json.loads((tmp_path / "out" / "speedrun.json").read_text())
    assert result["wer"] <= 0.10
    assert not json.loads((tmp_path / "out" / "finetune" / "train.json").read_text())["deaf"]
