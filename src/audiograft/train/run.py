"""One training stage from recipe to a loadable model."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from transformers import set_seed
from transformers.trainer_callback import TrainerState

from audiograft import provenance
from audiograft.data.manifest import replace_text
from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor, load_graft
from audiograft.model.checkpoint import load_processor, save_graft
from audiograft.train.batching import TokenBatchSampler, partition
from audiograft.train.callbacks import LogLine
from audiograft.train.checkpoints import STATE, data_fingerprint, find_checkpoint, load_trained, run_identity, steps_done, writing
from audiograft.train.collator import Collator
from audiograft.train.dataset import SpeechDataset
from audiograft.train.deafness import DeafnessReport, check_deafness, require_clips
from audiograft.train.feature_cache import build_cache
from audiograft.train.preview import draw_batch
from audiograft.train.recipe import Recipe
from audiograft.train.rows import Rejection, Row, index_rows, read_samples
from audiograft.train.stages import ParameterCounts, frozen_parts, merge_stage, prepare_stage
from audiograft.train.trainer import GraftTrainer
from audiograft.train.validation import Validator, draw
from audiograft.types import ConfigError, DataError

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class _Data:
    """Usable rows; `scored` are those of the deafness check, from validation data or, where there is none, from training data."""

    train: list[Row]
    validation: list[Row]
    scored: list[Row]
    scored_source: str
    n_rejected: int


def train(recipe: Recipe, on_log: Callable[[LogLine], None] = lambda line: None, console: Console | None = None) -> dict[str, Any]:
    """Run one stage, resuming from the newest checkpoint of the same run where there is one.

    Args:
        recipe: from `load_recipe`, or built in Python.
        on_log: called with each log line: numbers by name, among them `step`.
        console: where progress and transcripts are printed; stderr by default.

    Returns:
        What stands in output_dir/train.json, with `deaf`: whether the deafness check failed. The model is saved either way.

    Raises:
        AudiograftError: what the user can mend: recipe, data, disk, or a loss that is not finite.
    """
    started = time.perf_counter()
    console = console or Console(stderr=True)
    output_dir = Path(recipe.output_dir)
    with writing(output_dir, "the output folder"):
        output_dir.mkdir(parents=True, exist_ok=True)
    set_seed(recipe.seed)
    model, processor = load_graft(recipe.model)
    data = _read_data(recipe, processor, console)
    identity = run_identity(recipe, data.train)
    checkpoint = find_checkpoint(output_dir, identity)
    counts = prepare_stage(model, recipe)
    trainer = _build_trainer(recipe, model, processor, data, identity, console, on_log)
    try:
        with warnings.catch_warnings():
            # In mixed precision the projector's norms are fed bf16 or fp16 and hold fp32, which is as it should be.
            warnings.filterwarnings("ignore", "Mismatch dtype between input and weight", UserWarning)
            _train_or_resume(trainer, checkpoint, console)
    except DataError as error:
        # A DataLoader's worker wraps the message in its traceback.
        raise DataError(str(error).splitlines()[-1].removeprefix("audiograft.types.DataError: ")) from error
    finally:
        trainer.display.close()
    model = trainer.finished_model()
    merge_stage(model)
    deafness = check_deafness(model, processor, data.scored, data.scored_source, recipe.deafness.permutations, recipe.seed)
    result = _summary(recipe, data, counts, trainer.state, deafness, time.perf_counter() - started)
    if trainer.is_world_process_zero():
        _export(model, processor, recipe, result)
        _conclude(console, deafness, output_dir)
    return result


def dry_run(recipe: Recipe, colour: bool = False) -> str:
    """The run's first batch, drawn; nothing is trained and no weights are loaded.

    Raises:
        AudiograftError: as in `train`.
    """
    processor = load_processor(recipe.model)
    rows, _ = _index(recipe, recipe.data.train, recipe.pad_to_window_share, processor, Console(stderr=True))
    sampler = _sampler(recipe, rows)
    first = next(iter(sampler))
    dataset = SpeechDataset(rows, processor)
    batch = Collator(processor)([dataset[index] for index in first])
    return draw_batch(batch, [rows[index] for index in first], len(sampler), processor, colour)


@contextmanager
def _counting(console: Console, what: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar; yields what to call after each item."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


def _index(
    recipe: Recipe, manifests: Sequence[str], pad_share: float, processor: AudioGraftProcessor, console: Console
) -> tuple[list[Row], list[Rejection]]:
    """Read and check the rows of manifests.

    Raises:
        ConfigError: the recipe's prompt holds the audio token.
        DataError: no row is usable.
    """
    if recipe.prompt is not None and processor.audio_token in recipe.prompt:
        raise ConfigError(f"prompt contains {processor.audio_token}, which stands for a clip: take it out of the recipe")
    samples = read_samples(manifests, recipe.prompt)
    with _counting(console, "checking clips", len(samples)) as advance:
        rows, rejected = index_rows(samples, processor, pad_share, recipe.seed, on_row=advance)
    if not rows:
        raise DataError(f"{', '.join(manifests)}: no usable clip; the first of {len(rejected)}: {rejected[0].audio}: {rejected[0].reason}")
    return rows, rejected


def _read_data(recipe: Recipe, processor: AudioGraftProcessor, console: Console) -> _Data:
    """Index training and validation data, and name what can't be used in rejected.jsonl."""
    rows, rejected = _index(recipe, recipe.data.train, recipe.pad_to_window_share, processor, console)
    validation: list[Row] = []
    if recipe.data.validation is not None:
        validation, unusable = _index(recipe, [recipe.data.validation], 0.0, processor, console)
        rejected += unusable
    path = Path(recipe.output_dir) / "rejected.jsonl"
    if _is_main_process():
        replace_text(path, "".join(json.dumps(vars(item), ensure_ascii=False) + "\n" for item in rejected))
    if rejected and _is_main_process():
        console.print(f"{len(rejected)} rows are left out, see {path}; the first: {rejected[0].audio}: {rejected[0].reason}")
    source = "validation" if validation else "training"
    require_clips(validation or rows, source)
    return _Data(
        train=rows,
        validation=draw(validation, recipe.data.validation_clips, recipe.seed),
        scored=draw(validation or rows, recipe.deafness.clips, recipe.seed),
        scored_source=source,
        n_rejected=len(rejected),
    )


def _is_main_process() -> bool:
    """For what happens before there is a Trainer to ask; torchrun and accelerate set the variable."""
    return os.environ.get("RANK", "0") == "0"


def _sampler(recipe: Recipe, rows: Sequence[Row]) -> TokenBatchSampler:
    return TokenBatchSampler(partition([row.positions for row in rows], recipe.tokens_per_batch, recipe.seed), recipe.seed)


def _build_trainer(
    recipe: Recipe,
    model: AudioGraftForConditionalGeneration,
    processor: AudioGraftProcessor,
    data: _Data,
    identity: dict[str, Any],
    console: Console,
    on_log: Callable[[LogLine], None],
) -> GraftTrainer:
    dataset = SpeechDataset(data.train, processor)
    trainer = GraftTrainer(
        model,
        recipe,
        dataset=dataset,
        sampler=_sampler(recipe, data.train),
        frozen=frozen_parts(model, recipe),
        identity=identity,
        validator=Validator(processor, data.validation) if data.validation else None,
        console=console,
        on_log=on_log,
    )
    if recipe.feature_cache is not None:
        # Here the model is on its device.
        with _counting(console, "caching features", len(data.train)) as advance, trainer.accelerator.main_process_first():
            dataset.cache = build_cache(Path(recipe.feature_cache), model, processor, data.train, _DTYPES[recipe.precision], on_clip=advance)
    return trainer


def _train_or_resume(trainer: GraftTrainer, checkpoint: Path | None, console: Console) -> None:
    """Train from the start, from a checkpoint, or not at all where the checkpoint is the run's last."""
    if checkpoint is None:
        trainer.train()
        return
    done, total = steps_done(checkpoint)
    console.print(f"resuming from {checkpoint}, step {done} of {total}")
    if done < total:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    else:
        # The Trainer would train one step too many.
        load_trained(trainer.finished_model(), checkpoint)
        trainer.state = TrainerState.load_from_json(str(checkpoint / STATE))


def _summary(
    recipe: Recipe, data: _Data, counts: ParameterCounts, state: TrainerState, deafness: DeafnessReport, wall_time_s: float
) -> dict[str, Any]:
    validations = [line for line in state.log_history if "eval_wer" in line]
    return {
        "deaf": deafness.deaf,
        "deafness": deafness.as_dict(),
        "validation": validations[-1] if validations else None,
        "steps": state.global_step,
        "rows": {"train": len(data.train), "validation": len(data.validation), "rejected": data.n_rejected},
        "parameters": counts.as_dict(),
        "wall_time_s": round(wall_time_s, 1),
        "recipe": recipe.as_dict(),
        "data_fingerprint": data_fingerprint(recipe.data.train, data.train),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "log": state.log_history,
    }


def _export(model: AudioGraftForConditionalGeneration, processor: AudioGraftProcessor, recipe: Recipe, result: dict[str, Any]) -> None:
    """Write the whole model, then train.json, whose presence says that the run is complete."""
    output_dir = Path(recipe.output_dir)
    torch.nn.Module.to(model, _DTYPES[recipe.save_dtype])
    save_graft(model, processor, output_dir)
    replace_text(output_dir / "train.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")


def _conclude(console: Console, deafness: DeafnessReport, output_dir: Path) -> None:
    console.print(deafness.table(), deafness.verdict(), sep="\n")
    if deafness.deaf:
        console.print(f"this model does not listen: its answers hardly depend on the audio. It is saved all the same, in {output_dir}")
    else:
        console.print(f"saved in {output_dir}")
