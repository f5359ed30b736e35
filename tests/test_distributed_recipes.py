"""recipes/distributed: read by those that will read them, and started."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import builders
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.deepspeed import HfDeepSpeedConfig

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "recipes" / "distributed"
CONFIGS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_accelerate_reads_them(path: Path) -> None:
    # Raises at an unknown key.
    config = load_config_from_file(str(path))
    nodes = 2 if "2x8" in path.name else 1
    assert (config.num_machines, config.num_processes) == (nodes, 8 * nodes)
    if "deepspeed" not in path.name:
        assert config.distributed_type.value == "MULTI_GPU"
        return
    stage = int(path.name[len("deepspeed-zero")])
    deepspeed = HfDeepSpeedConfig(str(ROOT / config.deepspeed_config["deepspeed_config_file"]))
    assert deepspeed.is_zero2() is (stage == 2)
    assert deepspeed.is_zero3() is (stage == 3)
    assert not deepspeed.is_offload()


def test_each_file_is_in_the_readme_and_each_command_can_be_parsed() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in CONFIGS if path.name not in readme] == []
    commands = [part.split() for part in readme.split("`") if part.startswith("accelerate launch ")]
    assert len(commands) >= 5
    for command in commands:
        known = launch_command_parser().parse_args([word.replace("N", "1") if word == "N" else word for word in command[2:]])
        assert (ROOT / known.config_file).is_file()
        assert (known.module, known.training_script) == (True, "audiograft")


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_a_run_starts_through_accelerate_launch(tmp_path: Path, parallel: str) -> None:
    model, processor = builders.graft()
    model.save_pretrained(tmp_path / "graft")
    processor.save_pretrained(tmp_path / "graft")
    clips = builders.write_clips(tmp_path / "clips", [builders.tone(0.3, 300 + 50 * number) for number in range(8)], ["one two"] * 8)
    keys = {"stage": "align", "model": str(tmp_path / "graft"), "output_dir": str(tmp_path / "out"), "data": {"train": str(clips)}}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(keys | {"max_steps": 2, "logging_steps": 1, "tokens_per_batch": 90}), encoding="utf-8")
    launch = ["-m", "accelerate.commands.launch", "--config_file", str(FOLDER / "8-gpus.yaml"), "--num_processes", "2"]
    run = ["-m", "audiograft", "train", str(recipe), "--set", f"parallel={parallel}"]
    done = subprocess.run([sys.executable, *launch, *run], cwd=ROOT, capture_output=True, text=True, timeout=280)
    # 1 where the model is deaf, as it will be.
    assert done.returncode in (0, 1), done.stderr
    assert "step 2/2" in done.stderr
    result = json.loads((tmp_path / "out" / "train.json").read_text(encoding="utf-8"))
    assert (result["steps"], result["recipe"]["parallel"]) == (2, parallel)
    assert (tmp_path / "out" / "checkpoint-2" / "rng_state_1.pth").is_file()
