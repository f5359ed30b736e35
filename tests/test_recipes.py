"""The recipes: each one's code path at miniature size, and as a whole, from nothing, for `make test-all`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import builders
import pytest
import torch
import yaml
from rich.console import Console
from transformers import WhisperFeatureExtractor

from audiograft.model import load_model
from audiograft.train.plan.gpus import find_gpus
from audiograft.train.plan.report import Options, plan_recipe
from audiograft.train.plan.tables import shown_bytes
from audiograft.train.recipe import Recipe, load_recipe
from audiograft.train.run import train

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


FOLDERS = {
    "reference/system-a": "qwen2_vl",
    "reference/system-b": "llama",
    "reference/system-c": "qwen2_audio",
    "qwen2-vl-7b": "qwen2_vl",
    "llama-3.2-3b": "llama",
    "qwen3-1.7b": "qwen3",
    "wavlm": "wavlm",
    "qwen2-audio-7b-detect": "qwen2_audio",
}
"""Recipes for published backbones, with the layout that stands in for each."""
SMALL = (
    "lora.rank=4",
    "max_steps=2",
    "data.validation_clips=2",
    "deafness.clips=8",
    "deafness.permutations=100",
    "logging_steps=1",
    "sample_transcripts=0",
)
VISION_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|im_end|>")

VISION_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_every_recipe_runs_here() -> None:
    elsewhere = {"tiny", "distributed"}
    folders = {path.parent.relative_to(ROOT / "recipes") for path in (ROOT / "recipes").rglob("*.yaml")}
    assert {str(folder) for folder in folders if folder.parts[0] not in elsewhere} == FOLDERS.keys()


def _language_model(folder: Path, layout: str) -> Path:
    if layout != "qwen2_vl":
        return builders.lm_checkpoint(folder, layout)
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    model = builders.qwen2_vl(image_token_id=4, video_token_id=5, vision_start_token_id=2, vision_end_token_id=3)
    model.generation_config.eos_token_id = 6
    model.save_pretrained(folder)
    builders.tokenizer(VISION_TEMPLATE, VISION_TOKENS).save_pretrained(folder)
    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=56 * 56).save_pretrained(folder)
    return folder


def _backbones(folder: Path, layout: str) -> dict[str, str]:
    """Overrides that put miniature checkpoints of the same layout in the place of the recipe's hub ids."""
    if layout in builders.STOCK:
        return {"model": str(builders.stock_checkpoint(folder / "model", layout))}
    if layout == "wavlm":
        encoder, lm = builders.encoder_checkpoint(folder / "encoder", layout), builders.lm_checkpoint(folder / "lm", "qwen3")
        return {"graft.audio_encoder": str(encoder), "graft.language_model": str(lm)}
    builders.audio_tower().save_pretrained(folder / "encoder")
    WhisperFeatureExtractor().save_pretrained(folder / "encoder")
    return {"graft.audio_encoder": str(folder / "encoder"), "graft.language_model": str(_language_model(folder / "lm", layout))}


def _clips(folder: Path, labelled: bool) -> str:
    """Eight tones with texts, or with labels."""
    manifest = builders.write_clips(folder, [builders.tone(0.4, 200.0 * 1.4**n, n) for n in range(8)], ["one two", "three"] * 4)
    if labelled:
        rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        labels = ["SPEECH", "NONSPEECH"] * 4
        lines = [json.dumps({"id": row["id"], "audio": row["audio"], "label": label}) for row, label in zip(rows, labels, strict=True)]
        manifest.write_text("\n".join(lines), encoding="utf-8")
    return str(manifest)


def _shrink(path: Path, overrides: dict[str, str]) -> Recipe:
    stage = yaml.safe_load(path.read_text())
    keys = {key: value for key, value in overrides.items() if key.partition(".")[0] in ("model", *stage)}
    # Without a GPU there is no fp16.
    small = [*SMALL, "precision=bf16"] if stage["precision"] == "fp16" else SMALL
    small = [item for item in small if stage["stage"] == "finetune" or not item.startswith("lora")]
    return load_recipe(path, [*small, *(f"{key}={value}" for key, value in keys.items())])


@pytest.mark.parametrize("name", FOLDERS)
def test_the_code_path_of_a_recipe(name: str, tmp_path: Path) -> None:
    """All its stages, one on the other: two steps each, and a model that opens again."""
    overrides = _backbones(tmp_path, FOLDERS[name])
    detects = any("detection" in yaml.safe_load(path.read_text()) for path in (ROOT / "recipes" / name).glob("*.yaml"))
    data = _clips(tmp_path / "clips", detects)
    overrides |= {"data.train": data, "data.validation": data, "feature_cache": str(tmp_path / "cache")}
    for path in sorted((ROOT / "recipes" / name).glob("*.yaml")):
        output = tmp_path / "runs" / path.stem
        recipe = _shrink(path, overrides | {"output_dir": str(output)})
        result: dict[str, Any] = train(recipe, console=Console(quiet=True))
        assert result["steps"] == 2
        assert result["parameters"]["trainable"] > 0
        assert bool(result["quantised"]) == (recipe.quantisation is not None)
        assert (output / "adapter.json").exists() == (recipe.save == "adapter")
        assert (output / "detection.json").exists() == detects
        overrides["model"] = str(output)
    model, _ = load_model(str(output), torch.device("cpu"), torch.float32)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_the_readme_tells_what_plan_tells() -> None:
    """One row of its table of costs, and that every recipe has one; the test below has the others."""
    rows = _cost_rows()
    assert rows.keys() == {str(path.relative_to(ROOT / "recipes")) for name in FOLDERS for path in (ROOT / "recipes" / name).glob("*.yaml")}
    assert rows["qwen3-1.7b/align.yaml"] == _cost_row("qwen3-1.7b/align.yaml")


@pytest.mark.slow
def test_the_whole_table_of_costs() -> None:
    rows = _cost_rows()
    assert rows == {name: _cost_row(name) for name in rows}


def _cost_rows() -> dict[str, list[str]]:
    lines = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if ".yaml` |" in line]
    return {name.strip("`"): rest for name, *rest in cells}


def _cost_row(name: str) -> list[str]:
    options = Options(find_gpus("a100-80"), clip_s=1.0 if name.startswith(("reference/system-c", "qwen2-audio")) else 10.0)
    plan = plan_recipe(ROOT / "recipes" / name, (), options)
    sizes = [shown_bytes(plan[key]) for key in ("adapter_bytes", "train_memory_bytes", "infer_memory_bytes")]
    hours = f"{plan['gpus'][0]['gpu_hours_per_1000_h']:.1f}"
    return [f"{plan['trainable_params']:,}", sizes[0], str(plan["audio_tokens_per_30s"]), sizes[1], sizes[2], hours]
