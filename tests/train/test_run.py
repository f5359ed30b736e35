"""Whole runs at the smallest size."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from audiograft.audio import load_audio
from audiograft.inference.engine import Engine
from audiograft.model import AudioGraftProcessor, load_graft
from audiograft.train.recipe import DataRecipe, DeafnessRecipe
from audiograft.train.run import dry_run, train
from audiograft.train.trainer import GraftTrainer
from audiograft.types import TRANSCRIBE_PROMPT, AudiograftError, ConfigError, DataError


@pytest.fixture
def overfit(recipe):
    return replace(
        recipe, stage="finetune", max_steps=120, tokens_per_batch=400, learning_rate=1e-2, feature_cache=f"{recipe.output_dir}-cache", save_steps=1000
    )


def test_overfitting_eight_clips_reaches_wer_0_and_listens(overfit, clips: Path) -> None:
    page = io.StringIO()
    recipe = replace(overfit, data=DataRecipe((str(clips),), validation=str(clips)), eval_steps=60, logging_steps=20, sample_transcripts=2)
    result = train(recipe, console=Console(file=page, width=140))
    assert result["deaf"] is False
    true, shuffled, silence = result["deafness"]["conditions"]
    assert true["wer"] == 0
    assert shuffled["wer"] > 0.5
    assert silence["wer"] > 0
    assert result["deafness"]["p_value"] < 0.01
    assert result["validation"]["eval_wer"] == 0
    # The saved folder is whole, and hears the same.
    manifest = [json.loads(line) for line in clips.read_text(encoding="utf-8").splitlines()]
    engine = Engine(*load_graft(recipe.output_dir))
    waveforms = [load_audio(clips.parent / row["audio"]).waveform for row in manifest]
    assert engine.transcribe_waveforms(waveforms, [TRANSCRIBE_PROMPT] * 8) == [row["text"] for row in manifest]
    printed = page.getvalue()
    assert "validation at step 60" in printed
    assert "validation at step 120" in printed
    assert printed.count("hypothesis: ") == 4
    assert "hypothesis: one two" in printed
    assert "samples/s" in printed
    assert "it listens" in printed


def test_a_model_trained_on_wrong_pairs_is_deaf_and_saved_all_the_same(overfit, clips: Path, tmp_path: Path) -> None:
    # One and the same clip with every text: there is nothing to be heard.
    same = builders.write_clips(
        tmp_path / "same", [builders.tone(0.4)] * 8, [json.loads(line)["text"] for line in clips.read_text(encoding="utf-8").splitlines()]
    )
    page = io.StringIO()
    recipe = replace(overfit, max_steps=40, data=DataRecipe((str(same),), validation=str(clips)))
    result = train(recipe, console=Console(file=page, width=140))
    assert result["deaf"] is True
    assert "does not listen" in page.getvalue()
    load_graft(recipe.output_dir)


def test_accumulated_batches_equal_the_same_batch_unsplit(recipe, run_quietly, tmp_path: Path) -> None:
    # Texts differ in length, so that a mean of means would be another number.
    def one_step(tokens_per_batch: int, accumulation: int) -> tuple[float, list[torch.Tensor]]:
        folder = tmp_path / f"run-{accumulation}"
        changes = {"max_steps": 1, "tokens_per_batch": tokens_per_batch, "gradient_accumulation_steps": accumulation, "max_grad_norm": 0.0}
        result = run_quietly(replace(recipe, stage="finetune"), output_dir=str(folder), **changes)
        state = torch.load(folder / "checkpoint-1" / "optimizer.pt", weights_only=True)["state"]
        # After one step, AdamW's first moment is a tenth of the gradient.
        return result["log"][0]["loss"], [state[key]["exp_avg"] for key in sorted(state)]

    whole_loss, whole_gradients = one_step(400, 1)
    split_loss, split_gradients = one_step(160, 2)
    assert math.isclose(whole_loss, split_loss, rel_tol=1e-6)
    assert max(gradient.abs().max() for gradient in whole_gradients) > 1e-3
    torch.testing.assert_close(split_gradients, whole_gradients, atol=1e-7, rtol=1e-4)


def test_cached_features_give_the_same_losses(recipe, run_quietly, tmp_path: Path) -> None:
    recipe = replace(recipe, pad_to_window_share=0.3, tokens_per_batch=1000)
    plain = run_quietly(recipe, output_dir=str(tmp_path / "plain"))
    cached = run_quietly(recipe, feature_cache=f"{recipe.output_dir}-cache")
    for line, other in zip(plain["log"], cached["log"], strict=True):
        if "loss" in line:
            assert line["loss"] == pytest.approx(other["loss"], rel=2e-3)
            assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=2e-2)
    assert len(list(Path(f"{recipe.output_dir}-cache").glob("*/*.safetensors"))) == 1


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_clips(recipe, run_quietly, tmp_path: Path) -> None:
    model, processor = builders.graft()
    with torch.no_grad():
        model.projector.linear_2.weight[0, 0] = math.nan
    broken = tmp_path / "broken"
    model.save_pretrained(broken)
    processor.save_pretrained(broken)
    with pytest.raises(AudiograftError, match=r"the loss is nan at step 1: .*bad-batch\.json") as caught:
        run_quietly(recipe, model=str(broken))
    assert "\n" not in str(caught.value)
    bad = json.loads((Path(recipe.output_dir) / "bad-batch.json").read_text(encoding="utf-8"))
    assert bad["step"] == 1
    assert len(bad["ids"]) == 2
    assert all(name.startswith("clip-") for name in bad["ids"])


def test_gradients_that_are_no_numbers_stop_before_the_step_they_belong_to(recipe, run_quietly, monkeypatch) -> None:
    seen: list[list[str]] = []
    compute_loss = GraftTrainer.compute_loss

    def root_of_nothing(self: Any, model: Any, inputs: dict[str, Any], **options: Any) -> Any:
        seen.append(list(inputs["ids"]))
        loss = compute_loss(self, model, inputs, **options)
        if len(seen) == 3:
            weights = next(parameter for parameter in model.parameters() if parameter.requires_grad).sum()
            loss = loss + (weights - weights.detach()).sqrt()
        return loss

    monkeypatch.setattr(GraftTrainer, "compute_loss", root_of_nothing)
    with pytest.raises(AudiograftError, match=r"the gradient norm is (inf|nan) at step 2: .*bad-batch\.json") as caught:
        run_quietly(recipe, gradient_accumulation_steps=2)
    assert "\n" not in str(caught.value)
    bad = json.loads((Path(recipe.output_dir) / "bad-batch.json").read_text(encoding="utf-8"))
    assert bad["step"] == 2
    assert bad["ids"] == seen[2] + seen[3]
    assert len(seen) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_lost_during_the_run_is_named_in_one_line(recipe, run_quietly, tmp_path: Path, workers: int) -> None:
    manifest = builders.write_clips(tmp_path / "made", [builders.tone(0.4)] * 8, ["one"] * 8)

    def lose(line: dict[str, float]) -> None:
        for path in manifest.parent.glob("*.wav"):
            path.unlink()

    with pytest.raises(DataError, match=r"row clip-\d: the clip was readable when the run began") as caught:
        run_quietly(recipe, lose, data=DataRecipe((str(manifest),)), dataloader_workers=workers, max_steps=40)
    assert "\n" not in str(caught.value)


def test_rejected_rows_are_counted_and_named(recipe, run_quietly, tmp_path: Path) -> None:
    tones = [builders.tone(0.4, 200.0 * 1.4**number) for number in range(8)]
    manifest = builders.write_clips(tmp_path / "made", [*tones, np.zeros(4000, np.float32), builders.tone(31)], ["one"] * 10)
    result = run_quietly(recipe, data=DataRecipe((str(manifest),)))
    assert result["rows"] == {"train": 8, "validation": 0, "rejected": 2, "lost": 0}
    rejected = [json.loads(line) for line in (Path(recipe.output_dir) / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rejected] == ["clip-8", "clip-9"]
    assert all(row["reason"] for row in rejected)


def test_data_that_can_not_be_used_is_told_before_training(recipe, run_quietly, tmp_path: Path) -> None:
    silent = builders.write_clips(tmp_path / "silent", [np.zeros(4000, np.float32)], ["one"])
    with pytest.raises(DataError, match="no usable clip; the first of 1: .*silence with a transcript"):
        run_quietly(recipe, data=DataRecipe((str(silent),)))
    few = builders.write_clips(tmp_path / "few", [builders.tone(0.4)] * 7, ["one"] * 7)
    with pytest.raises(DataError, match="training data has 7 usable rows with clips: the deafness check needs 8"):
        run_quietly(recipe, data=DataRecipe((str(few),)))


@pytest.mark.parametrize("run", ["train", "dry_run"])
def test_a_prompt_that_holds_the_audio_token_is_refused(recipe, run_quietly, run: str) -> None:
    recipe = replace(recipe, prompt="Transcribe <|audio|>.")
    with pytest.raises(ConfigError, match=r"prompt contains <\|audio\|>, which stands for a clip: take it out"):
        run_quietly(recipe) if run == "train" else dry_run(recipe)


@pytest.mark.parametrize(("key", "value", "needle"), [("report_to", ("boards",), "report_to: boards"), ("precision", "fp16", "needs a GPU")])
def test_what_this_machine_lacks_is_told_in_one_line(recipe, run_quietly, monkeypatch, key: str, value: object, needle: str) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=needle) as caught:
        run_quietly(recipe, **{key: value})
    assert "\n" not in str(caught.value)


def test_bf16_is_near_fp32_and_leaves_weights_in_fp32(recipe, run_quietly) -> None:
    fp32 = run_quietly(recipe, output_dir=recipe.output_dir + "-fp32", learning_rate=1e-2)
    bf16 = run_quietly(recipe, precision="bf16", learning_rate=1e-2)
    losses = [[line["loss"] for line in result["log"] if "loss" in line] for result in (fp32, bf16)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    weights = load_file(Path(recipe.output_dir) / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.parametrize(("save_dtype", "dtype"), [("fp32", torch.float32), ("fp16", torch.float16)])
def test_weights_are_saved_in_the_dtype_asked_for(recipe, run_quietly, save_dtype: str, dtype: torch.dtype) -> None:
    run_quietly(recipe, save_dtype=save_dtype)
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (recipe.model, recipe.output_dir))
    assert before.keys() == after.keys()
    assert {tensor.dtype for tensor in after.values()} == {dtype}
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name].to(dtype), after[name])}
    assert changed == {"projector"}
    configs = [json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")) for folder in (recipe.model, recipe.output_dir)]
    assert configs[0].keys() == configs[1].keys()


def test_a_model_with_a_folder_inside_replaces_an_earlier_one(recipe, run_quietly, monkeypatch) -> None:
    save = AudioGraftProcessor.save_pretrained
    written = "first"

    def save_with_eyes(processor: AudioGraftProcessor, folder: str) -> None:
        save(processor, folder)
        eyes = Path(folder) / "vision_processor"
        eyes.mkdir()
        (eyes / written).touch()

    monkeypatch.setattr(AudioGraftProcessor, "save_pretrained", save_with_eyes)
    run_quietly(recipe, max_steps=1)
    written = "second"
    run_quietly(recipe, max_steps=1, save_dtype="fp16")
    output_dir = Path(recipe.output_dir)
    assert [path.name for path in (output_dir / "vision_processor").iterdir()] == ["second"]
    assert {tensor.dtype for tensor in load_file(output_dir / "model.safetensors").values()} == {torch.float16}


def test_dropout_of_frozen_parts_is_off_in_align(recipe, run_quietly, tmp_path: Path) -> None:
    model, processor = builders.graft()
    model.config.audio_config.dropout = 0.5
    model.config.text_config.attention_dropout = 0.5
    folder = tmp_path / "dropping"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    changes = {"model": str(folder), "learning_rate": 1e-12, "tokens_per_batch": 400}
    log = run_quietly(recipe, **changes)["log"]
    losses = [line["loss"] for line in log if "loss" in line]
    assert max(losses) - min(losses) < 1e-6


def test_logs_reach_trackers(recipe, run_quietly, monkeypatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", recipe.output_dir + "/board")
    run_quietly(recipe, report_to=("tensorboard",))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(recipe.output_dir + "/board")
    events.Reload()
    assert {"train/loss", "train/samples_per_s", "train/audio_s_per_s"} <= set(events.Tags()["scalars"])


def test_dry_run_draws_the_first_batch(recipe) -> None:
    drawing = dry_run(replace(recipe, tokens_per_batch=80))
    lines = drawing.splitlines()
    assert lines[0].startswith("batch 1 of 4: 2 rows of ")
    # 0.4 s are 40 mel frames, 20 encoder frames, 5 audio tokens.
    assert drawing.count("<audio x 5>") == 2
    carrying = [line for line in lines if line[13:14] == "*"]
    assert len(carrying) == 2
    assert all(line.endswith("<|im_end|>") for line in carrying)
    assert not Path(recipe.output_dir).exists()
    assert "\x1b[" not in drawing
    assert "\x1b[" in dry_run(recipe, colour=True)


def test_dry_run_of_what_is_no_graft_is_one_line(recipe, tmp_path: Path) -> None:
    builders.language_model().save_pretrained(tmp_path / "plain")
    with pytest.raises(ConfigError, match="without a graft: make one with") as caught:
        dry_run(replace(recipe, model=str(tmp_path / "plain")))
    assert "\n" not in str(caught.value)


def test_the_deafness_check_uses_so_many_clips_as_the_recipe_says(recipe, run_quietly, tmp_path: Path) -> None:
    manifest = builders.write_clips(tmp_path / "made", [builders.tone(0.3, 300 + number) for number in range(12)], ["one two"] * 12)
    result = run_quietly(recipe, data=DataRecipe((str(manifest),)), deafness=DeafnessRecipe(clips=9, permutations=200), max_steps=1)
    assert (result["deafness"]["clips"], result["deafness"]["source"]) == (9, "training")
