"""Two processes on the CPU (gloo) do what one does with twice the accumulation: DDP and FSDP2."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import builders
import processes
import pytest
import torch
import yaml
from accelerate import PartialState
from safetensors.torch import load_file
from torch import nn

from audiograft.model import AudioGraftProcessor
from audiograft.train.batching import ProcessShare, TokenBatchSampler, WithMutedRows, partition
from audiograft.train.checkpoints import STAGING, WEIGHTS
from audiograft.train.parallel import check_parallel, gather, require_sharded, without_weights
from audiograft.train.recipe import DataRecipe, DeafnessRecipe, LoraRecipe, Recipe
from audiograft.train.rows import index_rows, read_samples
from audiograft.types import AudiograftError, ConfigError

FINETUNE: dict[str, Any] = {"stage": "finetune", "lora": LoraRecipe(rank=2)}


@pytest.fixture
def recipe(graft_folder: Path, tmp_path: Path) -> Recipe:
    """Five batches: the last step of an epoch has one for the first process and none for the other. One batch has no audio."""
    waveforms = [builders.tone(0.3, 200.0 * 1.3**number, number) for number in range(8)]
    clips = builders.write_clips(tmp_path / "clips", waveforms, ["one two three four five"[: 3 + 2 * number] for number in range(8)])
    mixed = clips.with_name("mixed.jsonl")
    silent = [{"id": f"text-{number}", "prompt": "say", "response": "six seven"[: 3 + number]} for number in range(2)]
    mixed.write_text(clips.read_text(encoding="utf-8") + "".join(json.dumps(row) + "\n" for row in silent), encoding="utf-8")
    return Recipe(
        stage="align",
        model=str(graft_folder),
        output_dir=str(tmp_path / "one"),
        data=DataRecipe(train=(str(mixed),), validation=str(clips), validation_clips=8),
        max_steps=7,
        tokens_per_batch=90,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        logging_steps=1,
        save_steps=4,
        eval_steps=4,
        max_grad_norm=0.5,
        deafness=DeafnessRecipe(clips=8, permutations=100),
    )


def command(recipe: Recipe, folder: Path, **changes: Any) -> list[str]:
    """Of half the accumulation, for two processes."""
    folder.mkdir(parents=True, exist_ok=True)
    halved = replace(recipe, output_dir=str(folder / "out"), gradient_accumulation_steps=recipe.gradient_accumulation_steps // 2)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(replace(halved, **changes))))), encoding="utf-8")
    return ["train", str(path)]


def finish(pair: list[processes.Running], codes: tuple[int, ...] = (0, 1)) -> None:
    for running in pair:
        assert running.wait() in codes, running.log.read_text(encoding="utf-8")[-3000:]


def log_of(folder: Path) -> dict[int, dict[str, float]]:
    log = json.loads((folder / "train.json").read_text(encoding="utf-8"))["log"]
    return {line["step"]: line for line in log if "loss" in line}


def largest_difference(folder: Path, other: Path) -> tuple[float, float, float]:
    """Of two runs' losses, gradient norms and weights."""
    one, two = log_of(folder), log_of(other)
    assert one.keys() == two.keys()
    weights, weights_two = (load_file(path / "model.safetensors") for path in (folder, other))
    assert weights.keys() == weights_two.keys()
    return (
        max(abs(one[step]["loss"] - two[step]["loss"]) for step in one),
        max(abs(one[step]["grad_norm"] - two[step]["grad_norm"]) / one[step]["grad_norm"] for step in one),
        max(float((weights[name] - weights_two[name]).abs().max()) for name in weights),
    )


def test_the_data_are_what_is_needed_below(recipe) -> None:
    processor = AudioGraftProcessor.from_pretrained(recipe.model)
    rows, _ = index_rows(read_samples(recipe.data.train), processor)
    batches = partition([row.positions for row in rows], recipe.tokens_per_batch, recipe.seed)
    assert len(batches) == 5
    assert [all(not rows[number].sample.clips for number in batch) for batch in batches].count(True) == 1


@pytest.mark.parametrize("changes", [{}, FINETUNE], ids=["align", "finetune"])
def test_ddp_equals_one_process_at_twice_the_accumulation(recipe, run_quietly, tmp_path: Path, changes: dict[str, Any]) -> None:
    recipe = replace(recipe, **changes)
    pair = processes.start_pair(command(recipe, tmp_path / "two"), tmp_path / "two", journal=tmp_path / "two" / "out")
    run_quietly(recipe)
    finish(pair)
    loss, norm, weight = largest_difference(Path(recipe.output_dir), tmp_path / "two" / "out")
    print(f"DDP: loss {loss:.2g}, norm {norm:.2g}, weights {weight:.2g}")
    assert loss < 1e-5
    assert norm < 1e-4
    assert weight < 1e-4
    # Validation and deafness check ran in both, writing and printing in the first alone; each keeps its own random state.
    assert "validation at step 4" in pair[0].log.read_text(encoding="utf-8")
    assert "validation" not in pair[1].log.read_text(encoding="utf-8")
    journal = tmp_path / "two" / "written-by-1"
    written = journal.read_text(encoding="utf-8").splitlines() if journal.exists() else []
    assert [line for line in written if STAGING not in line and not line.startswith("os.mkdir")] == []


def test_fsdp2_equals_one_process_and_its_checkpoint_is_anyones(recipe, run_quietly, tmp_path: Path) -> None:
    recipe = replace(recipe, **FINETUNE)
    pair = processes.start_pair(command(recipe, tmp_path / "two", parallel="fsdp2"), tmp_path / "two")
    run_quietly(recipe)
    finish(pair)
    one, two = Path(recipe.output_dir), tmp_path / "two" / "out"
    loss, norm, weight = largest_difference(one, two)
    print(f"FSDP2: loss {loss:.2g}, norm {norm:.2g}, weights {weight:.2g}")
    assert loss < 1e-5
    assert norm < 1e-4
    assert weight < 1e-4
    assert load_file(one / "checkpoint-4" / WEIGHTS).keys() == load_file(two / "checkpoint-4" / WEIGHTS).keys()
    # One goes on with what two began, and two with what one began.
    for folder in (one, two):
        for name in ("checkpoint-7", "train.json", "model.safetensors"):
            path = folder / name
            path.rename(folder.parent / f"{folder.name}-{name}")
    again = processes.start_pair(
        command(replace(recipe, output_dir=""), tmp_path / "again", parallel="fsdp2", output_dir=str(one)), tmp_path / "again"
    )
    resumed: list[float] = []
    run_quietly(replace(recipe, output_dir=str(two)), lambda line: resumed.append(line["step"]))
    finish(again)
    assert min(resumed) == 5
    assert "step 4 of 7" in " ".join(again[0].log.read_text(encoding="utf-8").split())
    loss, norm, weight = largest_difference(one, two)
    assert loss < 1e-5
    assert weight < 1e-4


@pytest.mark.slow
def test_fsdp2_distils_as_one_process_does(recipe, run_quietly, tmp_path: Path) -> None:
    recipe = replace(recipe, **FINETUNE, loss="kl", gradient_checkpointing=True, tokens_per_batch=400)
    pair = processes.start_pair(command(recipe, tmp_path / "two", parallel="fsdp2"), tmp_path / "two")
    run_quietly(recipe)
    finish(pair)
    loss, norm, weight = largest_difference(Path(recipe.output_dir), tmp_path / "two" / "out")
    print(f"FSDP2, kl: loss {loss:.2g}, norm {norm:.2g}, weights {weight:.2g}")
    assert loss < 1e-5
    assert norm < 1e-4
    assert weight < 1e-4


@pytest.mark.slow
def test_fsdp2_in_bf16_is_near_fp32(recipe, run_quietly, tmp_path: Path) -> None:
    pair = processes.start_pair(command(replace(recipe, **FINETUNE), tmp_path / "two", parallel="fsdp2", precision="bf16"), tmp_path / "two")
    run_quietly(replace(recipe, **FINETUNE))
    finish(pair)
    one, two = log_of(Path(recipe.output_dir)), log_of(tmp_path / "two" / "out")
    for step in one:
        assert one[step]["loss"] == pytest.approx(two[step]["loss"], rel=0.05)
    assert {tensor.dtype for tensor in load_file(tmp_path / "two" / "out" / "checkpoint-7" / WEIGHTS).values()} == {torch.float32}


def test_a_loss_that_is_no_number_stops_both_processes(recipe, tmp_path: Path) -> None:
    model, processor = builders.graft("llama")
    with torch.no_grad():
        # The embedding of a letter that one of the texts alone has, with a head of its own.
        (letter,) = processor.tokenizer("z", add_special_tokens=False)["input_ids"]
        model.get_input_embeddings().weight[letter] = math.nan
    broken = tmp_path / "broken"
    model.save_pretrained(broken)
    processor.save_pretrained(broken)
    manifest = builders.write_clips(tmp_path / "some", [builders.tone(0.3)] * 10, ["one"] * 9 + ["z"])
    changes = {"model": str(broken), "data": DataRecipe(train=(str(manifest),)), "parallel": "ddp"}
    pair = processes.start_pair(command(recipe, tmp_path / "two", **changes), tmp_path / "two")
    finish(pair, codes=(2,))
    for running in pair:
        lines = running.log.read_text(encoding="utf-8")
        assert "the loss is nan at step" in lines
        assert "Traceback" not in lines
    bad = json.loads((tmp_path / "two" / "out" / "bad-batch.json").read_text(encoding="utf-8"))
    assert "clip-9" in bad["ids"]
    assert len(bad["ids"]) <= 3


def test_shares_of_processes_are_the_batches_of_one() -> None:
    sampler = TokenBatchSampler(partition([7] * 20, 21, seed=3), seed=3)
    assert len(sampler) == 7
    shares = [ProcessShare(sampler, 20, process, 3) for process in range(3)]
    sampler.start_at(1)
    turns = list(zip(*shares, strict=True))
    assert [len(share) for share in shares] == [len(turns)] * 3 == [3, 3, 3]
    assert [batch for turn in turns for batch in turn][:7] == list(sampler)
    (_, *muted) = turns[-1]
    assert muted == [[20 + turns[-1][0][0]]] * 2
    assert list(ProcessShare(sampler, 20, 0, 1)) == list(sampler)


def test_a_muted_row_has_the_same_shape_and_nothing_to_learn() -> None:
    rows: Any = [{"id": "a", "labels": [-100, 7], "audio_s": 1.0}, {"id": "b", "labels": [3, 4], "audio_s": 2.0}]
    dataset = WithMutedRows(rows, 2)
    assert len(dataset) == 2
    assert dataset[1] == rows[1]
    assert dataset[3] == {"id": "b", "labels": [-100, -100], "audio_s": 0.0}


@pytest.mark.parametrize(
    ("environment", "changes", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true"}, {}, "distributed_type: FSDP: take MULTI_GPU there, and set parallel: fsdp2"),
        ({"ACCELERATE_USE_FSDP": "true"}, {"parallel": "fsdp2"}, "distributed_type: FSDP: take MULTI_GPU there"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {"parallel": "fsdp2"}, "DeepSpeed both shard: set parallel: ddp"),
        ({}, {"parallel": "fsdp2", "quantisation": "nf4"}, "can't shard nf4 weights"),
        ({}, {"parallel": "fsdp2", "precision": "fp16"}, "no loss scaling"),
    ],
)
def test_what_contradicts_itself_is_one_line(
    recipe, run_quietly, monkeypatch, environment: dict[str, str], changes: dict[str, str], message: str
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(ConfigError, match=message) as caught:
        run_quietly(recipe, **changes)
    assert "\n" not in str(caught.value)


def test_what_goes_together_passes(recipe, monkeypatch) -> None:
    check_parallel(replace(recipe, parallel="fsdp2", precision="bf16"))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    check_parallel(replace(recipe, quantisation="nf4"))


def test_a_parameter_that_was_left_whole_is_an_error() -> None:
    with pytest.raises(AudiograftError, match="left weight whole in every process"):
        require_sharded(nn.Linear(2, 2))


def test_the_number_of_processes_is_part_of_what_a_run_is(recipe, run_quietly, monkeypatch, tmp_path: Path) -> None:
    run_quietly(recipe, max_steps=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="belongs to a run with batches_in_a_step 2, not 4"):
        run_quietly(recipe, max_steps=1)


@pytest.mark.parametrize("loss", ["ce", "kl"])
def test_processes_wait_a_day_for_one_that_works_alone(recipe, run_quietly, monkeypatch, loss: str) -> None:
    class StoppedError(Exception): ...

    def init_process_group(*args: Any, **kwargs: Any) -> None:
        raise StoppedError(kwargs.get("timeout"))

    monkeypatch.setattr(torch.distributed, "init_process_group", init_process_group)
    several = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for key, value in (several | {"OMP_NUM_THREADS": "1"}).items():
        monkeypatch.setenv(key, value)
    PartialState._reset_state()
    try:
        with pytest.raises(StoppedError) as caught:
            run_quietly(recipe, loss=loss)
    finally:
        PartialState._reset_state()
    assert caught.value.args == (timedelta(days=1),)


def test_gathering_keeps_ties(graft: Callable[..., Any]) -> None:
    model, _ = graft
    skeleton = without_weights(model)
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    full = gather(model, skeleton, keep=True)
    assert full.get_input_embeddings().weight is full.get_output_embeddings().weight
    for (name, parameter), (other, copied) in zip(model.named_parameters(), full.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(parameter, copied)
