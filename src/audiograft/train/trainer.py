"""transformers' Trainer with our batches, our checkpoints, and a stop at the first loss that is not a number."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.trainer_utils import rotate_checkpoints

from audiograft.model import AudioGraftForConditionalGeneration
from audiograft.model.checkpoint import one_line
from audiograft.train.batching import ProcessShare, TokenBatchSampler, WithMutedRows
from audiograft.train.callbacks import EpochOrder, LogLine, ProgressDisplay
from audiograft.train.checkpoints import LOG_WINDOW, STAGING, load_trained, publish, save_trained, writing
from audiograft.train.collator import Collator
from audiograft.train.dataset import SpeechDataset
from audiograft.train.kl import taught
from audiograft.train.lost import LostRows
from audiograft.train.parallel import (
    all_processes,
    any_process,
    gather,
    put_optimizer_state,
    reshard,
    shard,
    shards,
    whole_optimizer_state,
    without_weights,
)
from audiograft.train.recipe import Recipe
from audiograft.train.stages import checkpointed_layers
from audiograft.train.streaming import StreamSampler, StreamShare
from audiograft.train.validation import Validator
from audiograft.train.weighting import weighed
from audiograft.types import AudiograftError, ConfigError


def training_arguments(recipe: Recipe, validate: bool) -> TrainingArguments:
    """The recipe in the Trainer's words.

    Raises:
        ConfigError: a precision that this machine can't compute in, or a tracker that isn't there.
    """
    try:
        for tracker in get_reporting_integration_callbacks(list(recipe.report_to)):
            tracker()
    except (ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(f"report_to: {', '.join(recipe.report_to)}: {one_line(error)}") from error
    has_accelerator = torch.accelerator.is_available()
    if recipe.precision == "fp16" and not has_accelerator:
        raise ConfigError("precision: fp16 needs a GPU: use bf16 or fp32")
    try:
        return TrainingArguments(
            output_dir=recipe.output_dir,
            num_train_epochs=recipe.epochs,
            max_steps=recipe.max_steps or -1,
            gradient_accumulation_steps=recipe.gradient_accumulation_steps,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type=recipe.lr_scheduler,
            warmup_steps=recipe.warmup_ratio,
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.max_grad_norm,
            bf16=recipe.precision == "bf16",
            fp16=recipe.precision == "fp16",
            use_cpu=not has_accelerator,
            eval_strategy="steps" if validate else "no",
            eval_steps=recipe.eval_steps,
            save_steps=recipe.save_steps,
            logging_steps=recipe.logging_steps,
            # Trainer would hide a loss that is not a number in the mean of the others.
            logging_nan_inf_filter=False,
            save_total_limit=recipe.save_total_limit,
            report_to=list(recipe.report_to) or "none",
            seed=recipe.seed,
            dataloader_num_workers=recipe.dataloader_workers,
            dataloader_pin_memory=has_accelerator,
            disable_tqdm=True,
            remove_unused_columns=False,
        )
    except ValueError as error:
        raise ConfigError(f"precision: {recipe.precision} is not supported here: {error}") from error


class GraftTrainer(Trainer):
    """One stage of training.

    Attributes:
        display: the progress bar; the caller closes it.
    """

    def __init__(
        self,
        model: AudioGraftForConditionalGeneration,
        recipe: Recipe,
        *,
        dataset: SpeechDataset,
        collator: Collator,
        sampler: TokenBatchSampler | StreamSampler,
        frozen: Sequence[nn.Module],
        identity: Mapping[str, Any],
        lost: LostRows,
        validator: Validator | None,
        class_weights: Mapping[str, float],
        console: Console,
        on_log: Callable[[LogLine], None],
    ) -> None:
        self.recipe = recipe
        self.console = console
        self.display = ProgressDisplay(console, on_log)
        self._sampler = sampler
        self._frozen = frozen
        self._checkpointed = checkpointed_layers(model) if recipe.gradient_checkpointing else []
        self._identity = identity
        self._lost = lost
        self._validator = validator
        self._class_weights = class_weights
        self._staging: Path | None = None
        self._skeleton: nn.Module | None = None
        self._step_ids: list[str] = []
        self._start_window()
        super().__init__(
            model=model,
            args=training_arguments(recipe, validator is not None),
            data_collator=collator,
            train_dataset=dataset,
            # Not a dataset, but only `evaluate` below reads it.
            eval_dataset=validator,
            callbacks=[EpochOrder(sampler, dataset), self.display],
        )
        self.remove_callback(PrinterCallback)
        # The Trainer's own mark, which has no place in a saved configuration.
        del model.config.use_cache

    @property
    def sharded(self) -> bool:
        """Whether the model is in shards by now."""
        return self._skeleton is not None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's own; with FSDP2 the model is cut first, so that the optimiser gets the shards. DeepSpeed's ZeRO-3 cuts it later."""
        if shards(self.recipe) and not self.sharded:
            self._skeleton = shard(self.finished_model(), self.args.device, self.recipe.precision)
            # Mixed precision from accelerate, without DDP around the shards.
            self.accelerator.prepare_model(self.model, device_placement=False, evaluation_mode=True)
        elif self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.zero_stage == 3:
            self._skeleton = without_weights(self.finished_model())
        return super().train(*args, **kwargs)

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        # Sharding moves it layer by layer: it need not fit as a whole.
        if not shards(self.recipe):
            super()._move_model_to_device(model, device)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's batches. `EpochOrder` says which come; accelerate, which can't deal batches of unequal size evenly, is left out."""
        place = (self.args.process_index, self.args.world_size)
        dataset: Any = self.train_dataset
        if isinstance(self._sampler, StreamSampler):
            share: Sampler[Any] = StreamShare(self._sampler, *place)
        else:
            share = ProcessShare(self._sampler, len(dataset), *place)
            dataset = WithMutedRows(dataset, len(dataset))
        return DataLoader(
            dataset,
            batch_sampler=share,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | int | None = None
    ) -> Any:
        """Loss of one batch as a share of the whole accumulated batch.

        Raises:
            AudiograftError: it is not finite; the ids of the batch are then in bad-batch.json.
        """
        ids, audio_s, classes = inputs.pop("ids"), inputs.pop("audio_s"), inputs.pop("classes", None)
        if "lost" in inputs:
            n_rows = self._sampler.n_rows if isinstance(self._sampler, StreamSampler) else len(self.train_dataset)  # type: ignore[arg-type]
            self._lost.add(inputs.pop("lost"), n_rows)
        if isinstance(num_items_in_batch, Tensor):
            # A step of lost rows alone has nothing to learn: its loss is 0, not 0 / 0.
            num_items_in_batch = num_items_in_batch.clamp(min=1)
        # The Trainer has just put the whole model in training mode.
        for part in self._frozen:
            part.eval()
        for layer in self._checkpointed:
            # They compute again in training mode alone; what is inside them, and may have dropout, stays as it is.
            layer.training = True
        if self.recipe.loss == "kl":
            student: Any = taught(model, self.model, inputs, self.recipe.kl_temperature)
            model = student
        detection = self.recipe.detection
        if detection is not None and not detection.is_plain and classes is not None:
            weighing: Any = weighed(model, classes, self._class_weights, detection.focal_gamma)
            model = weighing
        loss = super().compute_loss(model, inputs, return_outputs=False, num_items_in_batch=num_items_in_batch)
        assert isinstance(loss, Tensor)
        bad = not torch.isfinite(loss)
        if any_process(bad, loss.device):
            self._stop_at(ids if bad else [], "loss", loss.item())
        self._step_ids += ids
        self._window_samples += len(ids)
        self._window_audio_s += audio_s
        self._window_tokens += int(inputs["attention_mask"].sum())
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm of a step's gradients, which the Trainer asks for before each step of the optimiser.

        Raises:
            AudiograftError: it is not finite; the ids of the step's batches are then in bad-batch.json.
        """
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        ids, self._step_ids = self._step_ids, []
        # With fp16, such a step is skipped and the loss's scale lowered. Gradients are reduced by now, so that all processes see the same norm.
        if grad_norm is not None and self.recipe.precision != "fp16" and not math.isfinite(grad_norm):
            self._stop_at(ids, "grad_norm", float(grad_norm))
        return grad_norm

    def _stop_at(self, ids: Sequence[str], what: str, value: float) -> NoReturn:
        """Write down the bad batches of all processes, and stop in each, so that none waits for another."""
        step = self.state.global_step + 1
        path = Path(self.recipe.output_dir) / "bad-batch.json"
        reports = [(clips, number) for clips, number in all_processes((list(ids), value)) if clips]
        first = reports[0][1]
        # A process without a batch of its own computes on a row of another's.
        report = {"step": step, what: str(first), "ids": list(dict.fromkeys(name for clips, _ in reports for name in clips))}
        if self.is_world_process_zero():
            with writing(path, "the list of bad clips"):
                path.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
        name = {"loss": "loss", "grad_norm": "gradient norm"}[what]
        raise AudiograftError(f"the {name} is {first} at step {step}: lower learning_rate or max_grad_norm, or drop the clips in {path}")

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation loss, WER of what was transcribed and accuracy of what was classified; prints some answers."""
        assert self._validator is not None
        started = time.perf_counter()
        # Compiled layers would be compiled anew for each length of a growing cache.
        with torch.compiler.set_stance("force_eager"):
            result = self._validator(self.model)  # type: ignore[arg-type]
        reshard(self.model)  # type: ignore[arg-type]
        found = {"eval_loss": result.loss, "eval_wer": result.wer, "eval_accuracy": result.accuracy}
        metrics = {name: value for name, value in found.items() if value is not None}
        self.log(metrics)
        if self.is_world_process_zero():
            self.console.print(f"validation at step {self.state.global_step}: {result}")
            # Of a detection the answers are letters, and its labels say what they mean.
            meant = {answer: label for label, answer in self.recipe.detection.answers.items()} if self.recipe.detection else {}
            for row, hypothesis in list(zip(self._validator.rows, result.hypotheses, strict=True))[: self.recipe.sample_transcripts]:
                names = meant if row.label is not None and meant.get(row.target) == row.label else {}
                for line in (f"  reference:  {names.get(row.target, row.target)}", f"  hypothesis: {names.get(hypothesis, hypothesis)}"):
                    self.console.print(line, markup=False, highlight=False, no_wrap=True, overflow="ellipsis")
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        # Speeds are those of training.
        self._window_start += time.perf_counter() - started
        return metrics

    def _start_window(self) -> None:
        self._window_samples = 0
        self._window_audio_s = 0.0
        self._window_tokens = 0
        self._window_start = time.perf_counter()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds speeds, over all processes, to each line that has a training loss."""
        if "loss" in logs:
            elapsed_s = time.perf_counter() - self._window_start
            logs["samples_per_s"] = self._window_samples * self.args.world_size / elapsed_s
            logs["audio_s_per_s"] = self._window_audio_s * self.args.world_size / elapsed_s
            logs["tokens_per_s"] = self._window_tokens * self.args.world_size / elapsed_s
            self._start_window()
        super().log(logs, start_time)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """The Trainer's own checkpoint, written beside and moved to its place when it is whole."""
        output_dir = Path(self.recipe.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        self._staging = output_dir / STAGING
        try:
            with writing(output_dir, f"{name}, the newest whole one being kept,"):
                super()._save_checkpoint(model, trial)
                self.accelerator.wait_for_everyone()
                if self.args.should_save:
                    publish(self._staging / name, output_dir / name)
                    rotate_checkpoints(str(output_dir), save_total_limit=self.args.save_total_limit)
        finally:
            if self.args.should_save:
                shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What is trained and nothing else, whatever stands around the model."""
        save_trained(self.accelerator.unwrap_model(self.model), Path(output_dir or self.recipe.output_dir), self._identity)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not shards(self.recipe):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        # Whole, so that any number of processes can go on with it.
        state = whole_optimizer_state(self.optimizer)  # type: ignore[arg-type]
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)  # type: ignore[union-attr]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not shards(self.recipe) or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        put_optimizer_state(self.optimizer, torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True))  # type: ignore[arg-type]
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))  # type: ignore[union-attr]

    def _save_rng_state(self, output_dir: str) -> None:
        """Besides, the losses since the last log line, which the next one gives the mean of, and where a stream goes on."""
        super()._save_rng_state(output_dir)
        window = {"last_logged_step": self._globalstep_last_logged, "losses": all_processes(self._tr_loss.item())}
        if self.args.should_save:
            (Path(output_dir) / LOG_WINDOW).write_text(json.dumps(window), encoding="utf-8")
            if isinstance(self._sampler, StreamSampler):
                done = self.state.global_step * self.args.gradient_accumulation_steps * self.args.world_size
                self._sampler.cursor(done).write(Path(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            window = json.loads((Path(checkpoint) / LOG_WINDOW).read_text(encoding="utf-8"))
            losses = window["losses"]
            self._tr_loss.fill_(losses[self.args.process_index] if len(losses) == self.args.world_size else sum(losses) / len(losses))
            self._globalstep_last_logged = window["last_logged_step"]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_trained(model or self.model, Path(resume_from_checkpoint))  # type: ignore[arg-type]

    def finished_model(self) -> AudioGraftForConditionalGeneration:
        """The model without what the Trainer and accelerate put around it."""
        model: AudioGraftForConditionalGeneration = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        return model

    def gathered_model(self) -> Any:
        """The sharded model put together: on the CPU of the main process, and without weights elsewhere."""
        assert self._skeleton is not None
        return gather(self.model, self._skeleton, keep=self.is_world_process_zero())  # type: ignore[arg-type]
