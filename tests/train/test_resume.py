"""Checkpoints: resuming is exact, and no failure to write one costs the one before."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from audiograft.data.augment.chain import AugmentRecipe
from audiograft.train import rows
from audiograft.train.checkpoints import STAGING, WEIGHTS, weights_sha256, writing
from audiograft.train.recipe import DataRecipe, LoraRecipe
from audiograft.types import AudiograftError, ConfigError

AUGMENTED = AugmentRecipe(speed=(0.8, 1.0, 1.2), noise=("white",), noise_share=0.8, gain_db=(-10, 0), codecs=("ulaw",), time_masks=1)


def losses(result) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in result["log"] if "loss" in line}


def stop_after(step: int):
    """A power cut: nothing behind the log line of this step is done."""

    def on_log(line: dict[str, float]) -> None:
        if line["step"] == step:
            raise KeyboardInterrupt

    return on_log


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if "checkpoint" in path.name}


@pytest.mark.parametrize(
    "changes",
    [
        # Two rows a batch, four batches an epoch.
        pytest.param({"save_steps": 3}, id="within an epoch"),
        pytest.param({"save_steps": 4}, id="between epochs"),
        pytest.param({"stage": "finetune", "lora": LoraRecipe(rank=2, dropout=0.3), "save_steps": 3}, id="with dropout"),
        pytest.param({"gradient_accumulation_steps": 3, "save_steps": 3}, id="accumulating, the last step of an epoch short"),
        pytest.param({"augment": AUGMENTED, "dataloader_workers": 1, "save_steps": 3}, id="augmented, by a worker"),
        pytest.param({"feature_cache": "cache", "dataloader_workers": 1, "save_steps": 3}, id="cached, read by a worker"),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(recipe, run_quietly, tmp_path: Path, changes) -> None:
    if "feature_cache" in changes:
        changes = changes | {"feature_cache": str(tmp_path / "cache")}
    recipe = replace(recipe, max_steps=7, **changes)
    whole = run_quietly(recipe, output_dir=str(tmp_path / "whole"))
    resumed_steps = []
    with pytest.raises(KeyboardInterrupt):
        run_quietly(recipe, stop_after(5))
    resumed = run_quietly(recipe, lambda line: resumed_steps.append(line["step"]))
    assert min(resumed_steps) == recipe.save_steps + 1
    assert losses(resumed) == losses(whole)
    assert len(set(losses(whole).values())) == 7
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "whole", Path(recipe.output_dir)))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_no_clip_before_the_cursor_is_opened(recipe, run_quietly, tmp_path: Path, monkeypatch) -> None:
    opened: list[str] = []
    load_audio = rows.load_audio

    def remembered(path: str):
        opened.append(Path(path).name)
        return load_audio(path)

    def until_step(step: int):
        """Stops at a log line: what was opened by then was opened for training."""
        opened.clear()
        with pytest.raises(KeyboardInterrupt):
            run_quietly(recipe, stop_after(step), max_steps=11)
        return list(opened)

    monkeypatch.setattr(rows, "load_audio", remembered)
    recipe = replace(recipe, save_steps=6)
    until_step(1)
    # Four batches of two rows an epoch: the checkpoint is in the middle of the second.
    shutil.rmtree(Path(recipe.output_dir) / "checkpoint-1", ignore_errors=True)
    whole = until_step(9)
    assert len(whole) == 2 * 9
    assert sorted(whole[:8]) == sorted(whole[8:16])
    assert until_step(9) == whole[2 * 6 :]


def test_a_clip_that_is_lost_is_named_and_neither_stops_nor_shifts_the_run(recipe, run_quietly, clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips.parent, tmp_path / "clips")
    data = DataRecipe((str(tmp_path / "clips" / clips.name),), validation=str(clips))
    recipe = replace(recipe, data=data, max_steps=9, save_steps=3)
    lost = tmp_path / "clips" / "3.wav"
    content = lost.read_bytes()

    def lose(stop: int):
        def on_log(line: dict[str, float]) -> None:
            if line["step"] == 4:
                lost.unlink(missing_ok=True)
            if line["step"] == stop:
                raise KeyboardInterrupt

        return on_log

    unharmed = run_quietly(recipe, output_dir=str(tmp_path / "unharmed"))
    whole = run_quietly(recipe, lose(0), output_dir=str(tmp_path / "whole"))
    assert whole["rows"] == {"train": 8, "validation": 8, "rejected": 0, "lost": 1}
    named = [json.loads(line) for line in (tmp_path / "whole" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["id"], row["kind"]) for row in named] == [("clip-3", "lost")]
    assert "the clip was readable when the run began and is not now" in named[0]["reason"]
    assert {step: loss for step, loss in losses(whole).items() if step <= 4} == {step: loss for step, loss in losses(unharmed).items() if step <= 4}
    assert losses(whole) != losses(unharmed)
    lost.write_bytes(content)
    with pytest.raises(KeyboardInterrupt):
        run_quietly(recipe, lose(8))
    resumed = run_quietly(recipe)
    assert losses(resumed) == losses(whole)
    assert resumed["rows"]["lost"] == 1
    assert resumed["data_fingerprint"] == unharmed["data_fingerprint"]
    assert len((Path(recipe.output_dir) / "rejected.jsonl").read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize("loss", ["cross_entropy", "kl"])
def test_a_step_of_lost_rows_alone_changes_no_loss_into_nan(recipe, run_quietly, clips: Path, tmp_path: Path, loss: str) -> None:
    shutil.copytree(clips.parent, tmp_path / "clips")
    manifest = tmp_path / "clips" / clips.name
    data = DataRecipe((str(manifest),), validation=str(clips), max_rejected=1.0)

    def lose_all(line: dict[str, float]) -> None:
        for path in manifest.parent.glob("*.wav"):
            path.unlink()

    # One row a batch.
    result = run_quietly(recipe, lose_all, data=data, tokens_per_batch=60 if loss == "cross_entropy" else 500, loss=loss, max_steps=3)
    assert losses(result)[2] == losses(result)[3] == 0
    assert result["rows"]["lost"] == 2


def test_a_finished_run_is_not_trained_further(recipe, run_quietly) -> None:
    first = run_quietly(recipe)
    steps: list[float] = []
    again = run_quietly(recipe, lambda line: steps.append(line["step"]))
    assert steps == []
    assert again["steps"] == first["steps"] == 6
    assert again["deafness"] == first["deafness"]
    assert losses(again) == losses(first)


def test_checkpoints_hold_what_is_trained_and_only_the_newest_are_kept(recipe, run_quietly) -> None:
    run_quietly(recipe, save_steps=2, save_total_limit=2)
    assert names(Path(recipe.output_dir)) == {"checkpoint-4", "checkpoint-6"}
    tensors = load_file(Path(recipe.output_dir) / "checkpoint-6" / WEIGHTS)
    assert tensors
    assert all(name.startswith("projector.") for name in tensors)


@contextmanager
def no_file_larger_than(n_bytes: int) -> Iterator[None]:
    """What a full disk is to a writer, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("n_bytes", [1_000, 15_000], ids=["while writing weights", "while writing the optimiser"])
def test_a_full_disk_costs_no_checkpoint(recipe, run_quietly, tmp_path: Path, n_bytes: int) -> None:
    whole = run_quietly(recipe, output_dir=str(tmp_path / "whole"))
    output_dir = Path(recipe.output_dir)
    with pytest.raises(KeyboardInterrupt):
        run_quietly(recipe, stop_after(5))
    with pytest.raises(AudiograftError) as caught, no_file_larger_than(n_bytes):
        run_quietly(recipe)
    assert str(output_dir) in str(caught.value)
    assert "checkpoint-6" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert names(output_dir) == {"checkpoint-3"}
    assert losses(run_quietly(recipe)) == losses(whole)


def test_a_half_written_checkpoint_is_ignored_and_removed(recipe, run_quietly) -> None:
    output_dir = Path(recipe.output_dir)
    with pytest.raises(KeyboardInterrupt):
        run_quietly(recipe, stop_after(5))
    # As kill -9 would leave it.
    shutil.copytree(output_dir / "checkpoint-3", output_dir / STAGING / "checkpoint-5")
    (output_dir / STAGING / "checkpoint-5" / WEIGHTS).write_bytes(b"half")
    steps: list[float] = []
    run_quietly(recipe, lambda line: steps.append(line["step"]))
    assert min(steps) == 4
    assert STAGING not in names(output_dir)


def test_another_recipe_does_not_continue_a_run(recipe, run_quietly) -> None:
    run_quietly(recipe)
    with pytest.raises(ConfigError, match=r"checkpoint-6 belongs to a run with learning_rate 0\.001, not 0\.5: .*--set output_dir=") as caught:
        run_quietly(recipe, learning_rate=0.5)
    assert "\n" not in str(caught.value)
    # Where it is saved in the end is no part of what was trained.
    assert run_quietly(recipe, save_dtype="fp16")["steps"] == 6


def test_another_start_model_at_the_same_path_does_not_continue_a_run(recipe, run_quietly, graft_folder: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(graft_folder, start)
    recipe = replace(recipe, model=str(start), max_steps=1)
    first = run_quietly(recipe)
    tensors = load_file(start / "model.safetensors")
    name = next(name for name in tensors if name.startswith("projector."))
    save_file(tensors | {name: tensors[name] + 1}, start / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"checkpoint-1 belongs to a run with model_sha256 '\w{64}', not '\w{64}': .*--set output_dir=") as caught:
        run_quietly(recipe)
    assert "\n" not in str(caught.value)
    shutil.copyfile(graft_folder / "model.safetensors", start / "model.safetensors")
    assert run_quietly(recipe)["deafness"] == first["deafness"]


def test_edited_audio_of_the_same_length_does_not_continue_a_run(recipe, run_quietly, clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips.parent, tmp_path / "clips")
    recipe = replace(recipe, data=DataRecipe((str(tmp_path / "clips" / clips.name),)), max_steps=1)
    first = run_quietly(recipe)
    # A copy of the same bytes, with another time, is the same audio.
    os.utime(tmp_path / "clips" / "3.wav", (1, 1))
    assert run_quietly(recipe)["data_fingerprint"] == first["data_fingerprint"]
    waveform, rate_hz = soundfile.read(tmp_path / "clips" / "3.wav", dtype="float32")
    waveform[1000] += 0.01
    soundfile.write(tmp_path / "clips" / "3.wav", waveform, rate_hz, subtype="FLOAT")
    with pytest.raises(ConfigError, match=r"checkpoint-1 belongs to a run with data_fingerprint '\w{64}', not '\w{64}': ") as caught:
        run_quietly(recipe)
    assert "\n" not in str(caught.value)


def test_losses_between_two_log_lines_survive(recipe, run_quietly, tmp_path: Path) -> None:
    recipe = replace(recipe, logging_steps=4, save_steps=3, max_steps=8)
    whole = run_quietly(recipe, output_dir=str(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        run_quietly(recipe, stop_after(4))
    resumed = run_quietly(recipe)
    assert losses(resumed) == losses(whole)
    assert list(losses(whole)) == [4, 8]


def test_a_start_model_from_the_hub_is_known_by_its_weights_too(graft_folder: Path, tmp_path: Path, monkeypatch) -> None:
    # As the hub's cache lies on the disk.
    cached = tmp_path / "models--someone--graft"
    shutil.copytree(graft_folder, cached / "snapshots" / "abc")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc", encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert weights_sha256("someone/graft") == weights_sha256(str(graft_folder))


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried to allocate 20 GiB", "[enforce fail at alloc_cpu.cpp:117] . can't allocate memory"])
def test_lack_of_memory_is_not_taken_for_a_full_disk(tmp_path: Path, message: str) -> None:
    with pytest.raises(RuntimeError, match="memory"), writing(tmp_path, "it"):
        raise RuntimeError(message)


@pytest.mark.parametrize("n_bytes", [10, 1_000])
def test_what_torch_can_not_write_is_one_line(tmp_path: Path, n_bytes: int) -> None:
    with pytest.raises(AudiograftError, match="it can't be written .*: free space") as caught, no_file_larger_than(n_bytes), writing(tmp_path, "it"):
        torch.save(torch.zeros(10_000), tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_something_else_is_not_touched(recipe, run_quietly) -> None:
    foreign = Path(recipe.output_dir) / "checkpoint-9"
    foreign.mkdir(parents=True)
    with pytest.raises(ConfigError, match="checkpoint-9 is no checkpoint of audiograft"):
        run_quietly(recipe)
    assert foreign.is_dir()


@pytest.mark.parametrize("damage", ["missing", "extra", "shape", "bytes"])
def test_a_checkpoint_that_does_not_fit_is_refused(recipe, run_quietly, damage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_quietly(recipe, stop_after(5))
    path = Path(recipe.output_dir) / "checkpoint-3" / WEIGHTS
    tensors = load_file(path)
    name = sorted(tensors)[0]
    if damage == "missing":
        del tensors[name]
    elif damage == "extra":
        tensors["projector.more"] = torch.zeros(1)
    elif damage == "shape":
        tensors[name] = torch.zeros(1)
    save_file(tensors, path)
    if damage == "bytes":
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ConfigError, match="checkpoint-3") as caught:
        run_quietly(recipe)
    assert "\n" not in str(caught.value)


def test_train_json_says_what_was_done(recipe, run_quietly) -> None:
    result = run_quietly(recipe)
    stored = json.loads((Path(recipe.output_dir) / "train.json").read_text(encoding="utf-8"))
    assert stored["recipe"]["learning_rate"] == recipe.learning_rate
    assert stored["deafness"]["conditions"][1]["audio"] == "shuffled"
    assert stored["rows"] == {"train": 8, "validation": 0, "rejected": 0, "lost": 0}
    assert stored["parameters"]["trainable"] == result["parameters"]["projector"]
    assert len(losses(stored)) == 6
    assert {"torch", "transformers", "audiograft"} <= stored["versions"].keys()
