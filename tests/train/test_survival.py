"""`kill -9` in real processes: what goes on afterwards is the same run, bit for bit."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import processes
import pytest
import torch
import yaml
from safetensors.torch import load_file

from audiograft.train.checkpoints import STAGING
from audiograft.train.recipe import DataRecipe, DeafnessRecipe, LoraRecipe, Recipe

STEPS = 7
SETTINGS = {
    "align": {},
    "lora with dropout": {"stage": "finetune", "lora": LoraRecipe(rank=2, dropout=0.3)},
    # Four batches an epoch: the second step of each epoch has one. Checkpoints fall between two log lines.
    "lora with dropout, accumulating": {
        "stage": "finetune",
        "lora": LoraRecipe(rank=2, dropout=0.3),
        "gradient_accumulation_steps": 3,
        "logging_steps": 2,
        "save_steps": 3,
    },
    "read by a worker": {"stage": "finetune", "lora": LoraRecipe(rank=2, dropout=0.3), "dataloader_workers": 1, "save_steps": 4},
}

QUICK = ("align", "lora with dropout, accumulating")


def write_recipe(recipe: Recipe, path: Path) -> Path:
    path.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(recipe)))), encoding="utf-8")
    return path


def outcome(folder: Path) -> tuple[list[tuple[int, float, float]], dict[str, torch.Tensor]]:
    """Steps, losses and norms of the log, and the final weights."""
    log = json.loads((folder / "train.json").read_text(encoding="utf-8"))["log"]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in log if "loss" in line], load_file(folder / "model.safetensors")


@pytest.fixture
def recipe(graft_folder: Path, clips: Path, tmp_path: Path) -> Recipe:
    return Recipe(
        stage="align",
        model=str(graft_folder),
        output_dir=str(tmp_path / "run"),
        data=DataRecipe(train=(str(clips),)),
        max_steps=STEPS,
        tokens_per_batch=80,
        logging_steps=1,
        save_steps=2,
        deafness=DeafnessRecipe(clips=8, permutations=100),
    )


# The second has all that could differ at once; the slow ones say which of it does.
@pytest.mark.parametrize("setting", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SETTINGS])
def test_killed_twice_and_resumed_equals_uninterrupted(recipe: Recipe, tmp_path: Path, setting: str) -> None:
    recipe = replace(recipe, **SETTINGS[setting])
    whole = replace(recipe, output_dir=str(tmp_path / "whole"))
    command = ["train", str(write_recipe(recipe, tmp_path / "recipe.yaml"))]
    command_whole = ["train", str(write_recipe(whole, tmp_path / "whole.yaml"))]
    if setting == "align":
        # As a user would, once: what is forked below must be the same thing.
        done = subprocess.run([sys.executable, "-m", "audiograft", *command_whole], capture_output=True, text=True, timeout=processes.PATIENCE_S)
        assert done.returncode in (0, 1), done.stderr
    else:
        processes.start(command_whole, tmp_path / "whole.log").wait()

    # At any logged step, before or behind the first checkpoint.
    step = random.randrange(recipe.logging_steps, STEPS, recipe.logging_steps)
    running = processes.start(command, tmp_path / "first.log")
    running.kill_at(f"step {step}/{STEPS}")
    assert running.process.exitcode == -9
    # While the last checkpoint is written: weights and optimiser are there, the rest is not.
    written = processes.start(command, tmp_path / "second.log", kill_before=("open", f"checkpoint-{STEPS}/trainer_state.json"))
    assert written.wait() == -9
    output_dir = Path(recipe.output_dir)
    assert (output_dir / STAGING / f"checkpoint-{STEPS}" / "optimizer.pt").is_file()
    assert not (output_dir / f"checkpoint-{STEPS}").exists()
    last = processes.start(command, tmp_path / "third.log")
    assert last.wait() in (0, 1), last.log.read_text(encoding="utf-8")
    assert "resuming from" in last.log.read_text(encoding="utf-8")

    (log, weights), (log_whole, weights_whole) = outcome(output_dir), outcome(tmp_path / "whole")
    assert log == log_whole, f"killed at step {step}"
    assert len({loss for _, loss, _ in log}) == STEPS // recipe.logging_steps
    assert weights.keys() == weights_whole.keys()
    assert all(torch.equal(weights[name], weights_whole[name]) for name in weights), f"killed at step {step}"


def test_killed_between_two_files_loses_nothing(recipe: Recipe, tmp_path: Path) -> None:
    """Just before a checkpoint gets its name, before an old one goes, before the run's last file: one after another."""
    recipe = replace(recipe, save_total_limit=1, max_steps=4)
    command = ["train", str(write_recipe(recipe, tmp_path / "recipe.yaml"))]
    whole = replace(recipe, output_dir=str(tmp_path / "whole"))
    unkilled = processes.start(["train", str(write_recipe(whole, tmp_path / "whole.yaml"))], tmp_path / "whole.log")
    for number, moment in enumerate([("os.rename", STAGING), ("shutil.rmtree", "checkpoint-2"), ("open", "train.json")]):
        assert processes.start(command, tmp_path / f"{number}.log", kill_before=moment).wait() == -9
    last = processes.start(command, tmp_path / "last.log")
    assert last.wait() in (0, 1), last.log.read_text(encoding="utf-8")
    assert unkilled.wait() in (0, 1)
    assert STAGING not in [path.name for path in Path(recipe.output_dir).iterdir()]
    (log, weights), (log_whole, weights_whole) = outcome(Path(recipe.output_dir)), outcome(tmp_path / "whole")
    assert log == log_whole
    assert all(torch.equal(weights[name], weights_whole[name]) for name in weights_whole)
