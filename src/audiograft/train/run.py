"""One training stage from recipe to a loadable model."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import set_seed
from transformers.trainer_callback import TrainerState

from audiograft.data.augment.chain import Augmenter
from audiograft.inference.caching import fill_cache, open_cache
from audiograft.inference.choices import ClosedQuestion
from audiograft.model.lora import merge_lora
from audiograft.train.batching import TokenBatchSampler, partition
from audiograft.train.callbacks import LogLine
from audiograft.train.checkpoints import STATE, find_checkpoint, load_trained, recipe_identity, run_identity, steps_done, writing
from audiograft.train.collator import Collator
from audiograft.train.dataset import SpeechDataset
from audiograft.train.deafness import DeafnessReport, check_deafness
from audiograft.train.finish import conclude, draw, export, summary
from audiograft.train.index import RowIndex
from audiograft.train.kl import RESPONSES, DistillationCollator, DistillationDataset, responses_sha256, unanswered, with_responses
from audiograft.train.lost import LostRows
from audiograft.train.parallel import check_parallel, is_main_process, join_processes, process_count, require_same_checkpoint, shards
from audiograft.train.preview import draw_batch
from audiograft.train.question import alike, trained_question
from audiograft.train.recipe import Recipe
from audiograft.train.rows import Row
from audiograft.train.setup import DTYPES, Start, check_output, open_model, open_processor, prepare, training_device
from audiograft.train.sources import REJECTED, RunData, check_leakage, counting, index_training_rows, open_data, tell_touches, training_manifests
from audiograft.train.stages import frozen_parts
from audiograft.train.streaming import StreamedDataset
from audiograft.train.trainer import GraftTrainer
from audiograft.train.validation import Validator
from audiograft.train.weighting import class_weights
from audiograft.types import ConfigError, DataError


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
    check_parallel(recipe)
    console = console or Console(stderr=True, quiet=not is_main_process())
    output_dir = Path(recipe.output_dir)
    check_output(recipe)
    with writing(output_dir, "the output folder"):
        output_dir.mkdir(parents=True, exist_ok=True)
    set_seed(recipe.seed)
    newest = find_checkpoint(output_dir, recipe_identity(recipe), whole=False)
    with _main_process_first():
        manifests = training_manifests(recipe, console)
        leakage = check_leakage(recipe, manifests, console)
    tell_touches(leakage, console)
    start = open_model(recipe, console)
    processor = start.processor
    question = trained_question(recipe, processor)
    if question is not None and (warning := alike(question, start.model, processor)):
        console.print(warning, soft_wrap=True, markup=False)
    with _main_process_first():
        data = open_data(recipe, processor, manifests, console, newest)
    identity = run_identity(recipe, data.fingerprint)
    if recipe.loss == "kl":
        data = _taught(start.model, processor, data, output_dir, identity["model_sha256"], console)
        identity["responses_sha256"] = responses_sha256(data.train)
    checkpoint = find_checkpoint(output_dir, identity)
    counts = prepare(start, recipe, console)
    join_processes(training_device())
    lost = LostRows(output_dir / REJECTED, recipe.data.max_rejected)
    trainer = _build_trainer(recipe, start.model, processor, data, identity, lost, question, console, on_log)
    _train_or_resume(trainer, checkpoint, console)
    with torch.compiler.set_stance("force_eager"):
        start, deafness = _finish(trainer, start, data, question)
    result = summary(recipe, start, counts, trainer.state, deafness) | {
        "rows": data.counts(len(lost)),
        "leakage": leakage,
        "data_fingerprint": identity["data_fingerprint"],
        "wall_time_s": round(time.perf_counter() - started, 1),
    }
    if trainer.is_world_process_zero():
        export(start, recipe, result, question, console)
        draw(output_dir, console)
        conclude(console, deafness, output_dir)
    # A launcher ends all processes when one fails, and a deaf model counts as a failure: not before it is written.
    trainer.accelerator.wait_for_everyone()
    return result


def dry_run(recipe: Recipe, colour: bool = False) -> str:
    """The run's first batch, drawn; nothing is trained and no weights are loaded.

    Raises:
        AudiograftError: as in `train`.
    """
    if recipe.data.streaming:
        raise ConfigError(
            "--dry-run draws a batch of what is indexed, and data.streaming indexes nothing: set it to false, and a manifest of a few rows"
        )
    processor = open_processor(recipe)
    trained_question(recipe, processor)
    console = Console(stderr=True)
    rows = index_training_rows(recipe, processor, training_manifests(recipe, console), console)
    sampler = _sampler(recipe, rows)
    first = next(iter(sampler))
    dataset = SpeechDataset(rows, processor, augmenter=_augmenter(recipe))
    items = [dataset[index] for index in first]
    return draw_batch(items, [rows[index] for index in first], len(sampler), processor, colour)


def _taught(model: Any, processor: Any, data: RunData, output_dir: Path, teacher: str, console: Console) -> RunData:
    """The rows with what the teacher answers to them; the main process asks it, and the others read what it wrote."""
    parts = (data.train, data.validation, data.scored)
    count = unanswered(itertools.chain(*parts))
    if count and is_main_process():
        console.print(f"the teacher answers {count} rows that have no response, see {output_dir / RESPONSES}", soft_wrap=True)
    with _main_process_first(), counting(console, "asking the teacher", count) as advance:
        model.to(training_device())
        train, validation, scored = (with_responses(model, processor, part, output_dir, teacher, is_main_process(), advance) for part in parts)
    return replace(data, train=train, validation=validation, scored=scored)


@contextmanager
def _main_process_first() -> Iterator[None]:
    """The Trainer's own is not there yet."""
    if process_count() == 1:
        yield
        return
    with join_processes(training_device()).main_process_first():
        yield


def _sampler(recipe: Recipe, rows: Sequence[Row]) -> TokenBatchSampler:
    assert isinstance(rows, RowIndex)
    return TokenBatchSampler(partition(rows.positions, recipe.tokens_per_batch, recipe.seed, recipe.stretch), recipe.seed)


def _augmenter(recipe: Recipe) -> Augmenter | None:
    return None if recipe.augment is None else Augmenter(recipe.augment, recipe.seed)


def _build_trainer(
    recipe: Recipe,
    model: Any,
    processor: Any,
    data: RunData,
    identity: dict[str, Any],
    lost: LostRows,
    question: ClosedQuestion | None,
    console: Console,
    on_log: Callable[[LogLine], None],
) -> GraftTrainer:
    kl = recipe.loss == "kl"
    augmenter = _augmenter(recipe)
    if data.stream is None:
        dataset = (DistillationDataset if kl else SpeechDataset)(data.train, processor, augmenter=augmenter)
    else:
        dataset = StreamedDataset(processor, augmenter)
    trainer = GraftTrainer(
        model,
        recipe,
        dataset=dataset,
        collator=(DistillationCollator if kl else Collator)(processor),
        sampler=data.stream or _sampler(recipe, data.train),
        frozen=frozen_parts(model),
        identity=identity,
        lost=lost,
        validator=Validator(processor, data.validation, question) if data.validation else None,
        class_weights=class_weights(recipe.detection, data.train) if recipe.detection is not None else {},
        console=console,
        on_log=on_log,
    )
    if recipe.feature_cache is not None:
        # Here the model is on its device, unless it is to be sharded.
        model.audio_tower.to(trainer.args.device)
        assert isinstance(data.train, RowIndex)
        n_clips = int(data.train.n_clips.sum())
        with counting(console, "caching features", n_clips) as advance, trainer.accelerator.main_process_first():
            precision = DTYPES[recipe.precision]
            dataset.cache = open_cache(recipe.feature_cache, model, processor, precision)
            clips = ((clip, row.padded) for row in data.train for clip in row.sample.clips)
            fill_cache(dataset.cache, clips, lambda: (model, processor), precision, on_clip=advance)
    return trainer


def _finish(trainer: GraftTrainer, start: Start, data: RunData, question: ClosedQuestion | None) -> tuple[Start, DeafnessReport]:
    """The trained model as it is to be saved, and what the deafness check says of it. A model in shards is checked before it is put together."""
    recipe = trainer.recipe
    check = partial(check_deafness, processor=start.processor, rows=data.scored, source=data.scored_source)
    check = partial(check, permutations=recipe.deafness.permutations, seed=recipe.seed, question=question)
    # Whole, it may be larger than what a process can compute with.
    deafness = check(trainer.model) if trainer.sharded else None
    start = replace(start, model=trainer.gathered_model() if trainer.sharded else trainer.finished_model())
    if recipe.save == "merged" and not start.quantised and (is_main_process() or not trainer.sharded):
        merge_lora(start.model)
    return start, deafness or check(start.model)


def _train_or_resume(trainer: GraftTrainer, checkpoint: Path | None, console: Console) -> None:
    """Train from the start, from a checkpoint, or not at all where the checkpoint is the run's last.

    Raises:
        DataError: something that was there when the run began is not any more.
    """
    try:
        with warnings.catch_warnings():
            # In mixed precision the projector's norms are fed bf16 or fp16 and hold fp32, which is as it should be.
            warnings.filterwarnings("ignore", "Mismatch dtype between input and weight", UserWarning)
            _go_on(trainer, checkpoint, console)
    except DataError as error:
        # A DataLoader's worker wraps the message in its traceback.
        raise DataError(str(error).splitlines()[-1].removeprefix("audiograft.types.DataError: ")) from error
    finally:
        trainer.display.close()


def _go_on(trainer: GraftTrainer, checkpoint: Path | None, console: Console) -> None:
    require_same_checkpoint(checkpoint.name if checkpoint else None, trainer.recipe.output_dir)
    if checkpoint is None:
        trainer.train()
        return
    done, total = steps_done(checkpoint)
    console.print(f"resuming from {checkpoint}, step {done} of {total}")
    if done < total:
        trainer.train(resume_from_checkpoint=str(checkpoint))
    else:
        # The Trainer would train one step too many.
        model: Any = trainer.finished_model()
        load_trained(model.to(trainer.args.device) if shards(trainer.recipe) else model, checkpoint)
        trainer.state = TrainerState.load_from_json(str(checkpoint / STATE))
