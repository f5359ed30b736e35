"""One training stage from recipe to a loadable model."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from transformers import set_seed
from transformers.trainer_callback import TrainerState

from audiograft.data.manifest import replace_text
from audiograft.model import AudioGraftProcessor
from audiograft.model.lora import merge_lora
from audiograft.train.batching import TokenBatchSampler, partition
from audiograft.train.callbacks import LogLine
from audiograft.train.checkpoints import STATE, find_checkpoint, load_trained, run_identity, steps_done, writing
from audiograft.train.collator import Collator
from audiograft.train.dataset import SpeechDataset
from audiograft.train.deafness import DeafnessReport, check_deafness, require_clips
from audiograft.train.feature_cache import build_cache
from audiograft.train.finish import conclude, export, summary
from audiograft.train.kl import RESPONSES, DistillationCollator, DistillationDataset, can_be_taught, responses_sha256, with_responses
from audiograft.train.parallel import check_parallel, is_main_process, join_processes, process_count, require_same_checkpoint, shards
from audiograft.train.preview import draw_batch
from audiograft.train.recipe import Recipe
from audiograft.train.rows import Row, index_rows, read_samples
from audiograft.train.setup import DTYPES, Start, open_model, open_processor, prepare, training_device
from audiograft.train.stages import frozen_parts
from audiograft.train.trainer import GraftTrainer
from audiograft.train.validation import Validator, draw
from audiograft.types import ConfigError, DataError, Rejection


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
    check_parallel(recipe)
    console = console or Console(stderr=True, quiet=not is_main_process())
    output_dir = Path(recipe.output_dir)
    with writing(output_dir, "the output folder"):
        output_dir.mkdir(parents=True, exist_ok=True)
    set_seed(recipe.seed)
    start = open_model(recipe, console)
    processor = start.processor
    data = _read_data(recipe, processor, console)
    identity = run_identity(recipe, data.train)
    if recipe.loss == "kl":
        data = _taught(start.model, processor, data, output_dir, identity["model_sha256"], console)
        identity["responses_sha256"] = responses_sha256(data.train)
    checkpoint = find_checkpoint(output_dir, identity)
    counts = prepare(start, recipe, console)
    join_processes(training_device())
    trainer = _build_trainer(recipe, start.model, processor, data, identity, console, on_log)
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
    with torch.compiler.set_stance("force_eager"):
        start, deafness = _finish(trainer, start, data)
    result = summary(recipe, start, counts, trainer.state, deafness) | {
        "rows": {"train": len(data.train), "validation": len(data.validation), "rejected": data.n_rejected},
        "data_fingerprint": identity["data_fingerprint"],
        "wall_time_s": round(time.perf_counter() - started, 1),
    }
    if trainer.is_world_process_zero():
        export(start, recipe, result, console)
        conclude(console, deafness, output_dir)
    # A launcher ends all processes when one fails, and a deaf model counts as a failure: not before it is written.
    trainer.accelerator.wait_for_everyone()
    return result


def dry_run(recipe: Recipe, colour: bool = False) -> str:
    """The run's first batch, drawn; nothing is trained and no weights are loaded.

    Raises:
        AudiograftError: as in `train`.
    """
    processor = open_processor(recipe)
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
    samples = read_samples(manifests, recipe.prompt, recipe.data.prompts, recipe.seed)
    with _counting(console, "checking clips", len(samples)) as advance:
        rows, rejected = index_rows(samples, processor, pad_share, recipe.seed, on_row=advance)
    if recipe.loss == "kl":
        useless = {row.sample.id: reason for row in rows if (reason := can_be_taught(row)) is not None}
        rows, rejected = [row for row in rows if row.sample.id not in useless], [*rejected, *useless.values()]
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
    if is_main_process():
        replace_text(path, "".join(json.dumps(vars(item), ensure_ascii=False) + "\n" for item in rejected))
    if rejected and is_main_process():
        console.print(f"{len(rejected)} rows are left out, see {path}; the first: {rejected[0].audio}: {rejected[0].reason}")
    source = "validation" if validation else "training"
    heard = require_clips(validation or rows, source)
    return _Data(
        train=rows,
        validation=draw(validation, recipe.data.validation_clips, recipe.seed),
        scored=draw(heard, recipe.deafness.clips, recipe.seed),
        scored_source=source,
        n_rejected=len(rejected),
    )


def _taught(model: Any, processor: Any, data: _Data, output_dir: Path, teacher: str, console: Console) -> _Data:
    """The rows with what the teacher answers to them; the main process asks it, and the others read what it wrote."""
    parts = (data.train, data.validation, data.scored)
    rows = [row for part in parts for row in part]
    unanswered = len({id(row.sample) for row in rows if row.sample.response is None})
    if unanswered and is_main_process():
        console.print(f"the teacher answers {unanswered} rows that have no response, see {output_dir / RESPONSES}", soft_wrap=True)
    with _main_process_first(), _counting(console, "asking the teacher", unanswered) as advance:
        answered = iter(with_responses(model.to(training_device()), processor, rows, output_dir, teacher, is_main_process(), advance))
    train, validation, scored = ([next(answered) for _ in part] for part in parts)
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
    return TokenBatchSampler(partition([row.positions for row in rows], recipe.tokens_per_batch, recipe.seed), recipe.seed)


def _build_trainer(
    recipe: Recipe,
    model: Any,
    processor: Any,
    data: _Data,
    identity: dict[str, Any],
    console: Console,
    on_log: Callable[[LogLine], None],
) -> GraftTrainer:
    kl = recipe.loss == "kl"
    dataset = (DistillationDataset if kl else SpeechDataset)(data.train, processor)
    trainer = GraftTrainer(
        model,
        recipe,
        dataset=dataset,
        collator=(DistillationCollator if kl else Collator)(processor),
        sampler=_sampler(recipe, data.train),
        frozen=frozen_parts(model),
        identity=identity,
        validator=Validator(processor, data.validation) if data.validation else None,
        console=console,
        on_log=on_log,
    )
    if recipe.feature_cache is not None:
        # Here the model is on its device, unless it is to be sharded.
        model.audio_tower.to(trainer.args.device)
        n_clips = sum(len(row.n_samples) for row in data.train)
        with _counting(console, "caching features", n_clips) as advance, trainer.accelerator.main_process_first():
            dataset.cache = build_cache(Path(recipe.feature_cache), model, processor, data.train, DTYPES[recipe.precision], on_clip=advance)
    return trainer


def _finish(trainer: GraftTrainer, start: Start, data: _Data) -> tuple[Start, DeafnessReport]:
    """The trained model as it is to be saved, and what the deafness check says of it. A model in shards is checked before it is put together."""
    recipe = trainer.recipe
    check = partial(check_deafness, processor=start.processor, rows=data.scored, source=data.scored_source)
    check = partial(check, permutations=recipe.deafness.permutations, seed=recipe.seed)
    # Whole, it may be larger than what a process can compute with.
    deafness = check(trainer.model) if trainer.sharded else None
    start = replace(start, model=trainer.gathered_model() if trainer.sharded else trainer.finished_model())
    if recipe.save == "merged" and not start.quantised and (is_main_process() or not trainer.sharded):
        merge_lora(start.model)
    return start, deafness or check(start.model)


def _train_or_resume(trainer: GraftTrainer, checkpoint: Path | None, console: Console) -> None:
    """Train from the start, from a checkpoint, or not at all where the checkpoint is the run's last."""
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
