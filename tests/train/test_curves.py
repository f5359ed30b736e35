"""Training curves: drawn from a run's own log, at its end and while it goes on, and never the reason why a run fails."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from audiograft.train.curves import CURVES_NAME, draw_curves, is_training_run, read_log
from audiograft.train.finish import draw
from audiograft.train.run import train
from audiograft.types import ConfigError


def line(step: int, **values: float) -> dict[str, float]:
    return {"step": step, **values}


LOG = [
    line(1, loss=3.0, learning_rate=1e-3, grad_norm=2.0, tokens_per_s=100.0, audio_s_per_s=5.0),
    line(2, loss=float("nan"), learning_rate=5e-4, grad_norm=float("inf"), tokens_per_s=110.0, audio_s_per_s=5.5),
    line(2, eval_loss=2.5, eval_wer=1.25),
    line(2, train_loss=2.0),
]


def run_folder(folder: Path, log: Any = LOG, steps: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.json").write_text(json.dumps({"log": log, "steps": steps}), encoding="utf-8")
    return folder


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    state = {"log_history": [line(number, loss=1.0 / number) for number in range(1, step + 1)], "global_step": step, "max_steps": 50}
    (path / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    return path


def size(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        image.load()
        return image.size


def test_a_run_leaves_its_curves(recipe, run_quietly, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # whoever imports it fails: it keeps figures, and looks for a window system
    result = run_quietly(recipe)
    picture = Path(recipe.output_dir) / CURVES_NAME
    assert size(picture) == (1210, 682)
    logged = [entry for entry in result["log"] if "loss" in entry]
    assert len(logged) == 6
    assert all(entry["tokens_per_s"] > entry["samples_per_s"] > 0 for entry in logged)


def test_each_curve_is_in_the_picture(tmp_path: Path) -> None:
    """A curve that is taken out of the log is taken out of the picture."""
    whole = draw_curves(run_folder(tmp_path / "run")).read_bytes()
    assert draw_curves(run_folder(tmp_path / "run")).read_bytes() == whole
    for key in ("loss", "eval_loss", "eval_wer", "learning_rate", "grad_norm", "tokens_per_s", "audio_s_per_s"):
        without = [{name: value for name, value in entry.items() if name != key} for entry in LOG]
        assert draw_curves(run_folder(tmp_path / "run", without)).read_bytes() != whole, key
    assert not list(tmp_path.rglob("*.part"))


def test_a_curve_without_a_finite_point_is_not_told_to_be_missing(tmp_path: Path) -> None:
    diverged = [entry | {key: math.nan for key in ("loss", "eval_loss") if key in entry} for entry in LOG]
    missing = [{key: value for key, value in entry.items() if key not in ("loss", "eval_loss")} for entry in LOG]
    pictures = [draw_curves(run_folder(tmp_path / "run", log)).read_bytes() for log in (diverged, missing)]
    assert pictures[0] != pictures[1]


def test_a_run_that_goes_on_is_drawn_from_its_last_checkpoint(tmp_path: Path) -> None:
    assert not is_training_run(tmp_path)
    checkpoint(tmp_path, 9)
    checkpoint(tmp_path, 10)
    assert is_training_run(tmp_path)
    log, progress = read_log(tmp_path)
    assert (len(log), progress) == (10, "step 10 of 50")
    assert size(draw_curves(tmp_path)) == (1210, 682)


def test_of_two_runs_in_one_folder_the_newer_is_drawn(tmp_path: Path) -> None:
    state = checkpoint(run_folder(tmp_path), 10) / "trainer_state.json"
    os.utime(state, (1e9, 1e9))
    assert read_log(tmp_path) == (LOG[:1] + read_log(tmp_path)[0][1:], "2 steps")
    os.utime(tmp_path / "train.json", (1e8, 1e8))
    assert read_log(tmp_path)[1] == "step 10 of 50"


def test_a_log_without_lines_and_a_name_with_signs_are_drawn(tmp_path: Path) -> None:
    assert size(draw_curves(run_folder(tmp_path / "$a_b^{$ %", log=[], steps=0))) == (1210, 682)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no train.json and no checkpoint of a training run: name the output_dir"),
        ("{", "is not valid JSON"),
        ("{}", "has no log as training writes it"),
        ('{"log": [{"loss": 1}]}', "has no log as training writes it"),
    ],
)
def test_what_is_no_log_is_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "train.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as raised:
        draw_curves(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_picture_that_can_not_be_drawn_costs_a_line_and_not_the_run(recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    console = Console(file=io.StringIO(), width=80)
    result = train(replace(recipe, max_steps=2), console=console)
    assert result["steps"] == 2
    assert (Path(recipe.output_dir) / "model.safetensors").is_file()
    assert not (Path(recipe.output_dir) / CURVES_NAME).exists()
    [warning] = [text for text in console.file.getvalue().splitlines() if "warning" in text]
    assert f"{CURVES_NAME} can't be drawn" in warning
    assert f"audiograft report {recipe.output_dir} tries again" in warning


def test_a_folder_that_can_not_be_written_costs_a_line(tmp_path: Path) -> None:
    (run_folder(tmp_path) / f"{CURVES_NAME}.part").mkdir()
    console = Console(file=io.StringIO(), width=80)
    draw(tmp_path, console)
    assert "can't be drawn" in console.file.getvalue()
