"""What is shown during a run, and to whom the log goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from audiograft.train.batching import TokenBatchSampler
from audiograft.train.dataset import SpeechDataset
from audiograft.train.streaming import StreamSampler

LogLine = dict[str, float]


class EpochOrder(TrainerCallback):
    """Tells sampler and data set which epoch it is, and how much of it is done where a run is resumed. The Trainer itself only counts batches off."""

    def __init__(self, sampler: TokenBatchSampler | StreamSampler, dataset: SpeechDataset) -> None:
        self.sampler = sampler
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        steps_in_epoch = -(-len(train_dataloader) // args.gradient_accumulation_steps)
        epoch, steps_done = divmod(state.global_step, steps_in_epoch)
        self.sampler.start_at(epoch, steps_done * args.gradient_accumulation_steps)
        self.dataset.epoch = epoch


class ProgressDisplay(TrainerCallback):
    """A progress bar with loss and speed where the console is a terminal, a line per log where it is not; `on_log` hears every log line."""

    def __init__(self, console: Console, on_log: Callable[[LogLine], None]) -> None:
        self.console = console
        self.on_log_line = on_log
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self.progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.progress.add_task("starting", total=None)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.update(self.task, total=state.max_steps, completed=state.global_step)
        if state.is_world_process_zero:
            self.progress.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: LogLine | None = None, **kwargs: Any) -> None:
        if not logs or not state.is_world_process_zero:
            return
        self.on_log_line({**logs, "step": state.global_step})
        if "loss" not in logs:
            return
        line = f"loss {logs['loss']:.4f}  {logs['samples_per_s']:.1f} samples/s  {logs['audio_s_per_s']:.0f} audio-s/s"
        self.progress.update(self.task, description=line)
        if not self.console.is_terminal:
            self.console.print(f"step {state.global_step}/{state.max_steps}  {line}")

    def close(self) -> None:
        """Take the bar away, also after an error."""
        self.progress.stop()
