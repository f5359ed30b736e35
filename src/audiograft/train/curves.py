"""Training curves: one picture of what a run wrote into its own log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from transformers.trainer_utils import get_last_checkpoint

from audiograft.model.records import TRAIN_NAME, read_json
from audiograft.train.checkpoints import STATE
from audiograft.types import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES_NAME = "curves.png"

_DPI = 110
_SIZE_INCHES = (11.0, 6.2)
_MANY_POINTS = 40
"""Above this, a line has no marks at its points."""


@dataclass(frozen=True)
class _Panel:
    """One of the small pictures.

    Attributes:
        title: above it, with the unit.
        curves: key of the log, and what the legend calls it.
        scale: of the vertical axis.
    """

    title: str
    curves: Mapping[str, str]
    scale: Literal["linear", "log"] = "linear"


_PANELS = (
    _Panel("loss (nats per token)", {"loss": "training", "eval_loss": "validation"}, "log"),
    _Panel("validation", {"eval_wer": "word error rate", "eval_accuracy": "accuracy"}),
    _Panel("learning rate", {"learning_rate": "learning rate"}),
    _Panel("norm of the gradient, before it is clipped", {"grad_norm": "gradient"}, "log"),
    _Panel("tokens a second", {"tokens_per_s": "tokens"}),
    _Panel("seconds of audio a second", {"audio_s_per_s": "audio"}),
)


def draw_curves(run_folder: Path) -> Path:
    """Draw loss, validation, learning rate, gradient norm and speed of a training run against its steps.

    Args:
        run_folder: output_dir of the run: one that has ended, or one that goes on and has written a checkpoint.

    Returns:
        The picture, `curves.png` in the run's folder.

    Raises:
        ConfigError: the folder holds no log of a training run, or a damaged one.
        OSError: the picture can't be written.
    """
    # The object interface: pyplot would keep the figure, and look for a window system.
    from matplotlib.figure import Figure

    log, progress = read_log(run_folder)
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    for panel, axes in zip(_PANELS, figure.subplots(2, 3).flat, strict=True):
        _draw(panel, axes, log)
    # The name may hold what matplotlib takes for a formula.
    figure.suptitle(f"{run_folder.resolve().name}: {progress}", fontsize="medium", parse_math=False)
    path = run_folder / CURVES_NAME
    staged = path.with_name(f"{path.name}.part")
    figure.savefig(staged, format="png", dpi=_DPI)
    staged.replace(path)
    return path


def _draw(panel: _Panel, axes: Axes, log: Sequence[Mapping[str, float]]) -> None:
    drawn: list[float] = []
    for key, label in panel.curves.items():
        points = [(line["step"], line[key]) for line in log if isinstance(line.get(key), int | float)]
        finite = [(step, value) for step, value in points if math.isfinite(value)]
        if not points:
            continue
        lost = len(points) - len(finite)
        steps, values = [step for step, _ in finite], [value for _, value in finite]
        marker = "." if len(finite) <= _MANY_POINTS else ""
        axes.plot(steps, values, marker=marker, linewidth=1.2, label=f"{label} ({lost} not finite)" if lost else label)
        drawn += values
    axes.set_title(panel.title, fontsize="small")
    axes.tick_params(labelsize="x-small")
    axes.set_xlabel("step", fontsize="x-small")
    axes.grid(visible=True, alpha=0.3)
    axes.set_xlim(0, max((line["step"] for line in log), default=1))
    if not drawn:
        why = "not finite" if axes.lines else "not in the log"
        axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", fontsize="small", color="0.5")
        axes.set_xticks([])
        axes.set_yticks([])
        return
    if panel.scale == "log" and min(drawn) > 0:
        axes.set_yscale("log")
    elif min(drawn) >= 0:
        axes.set_ylim(bottom=0)
    if len(panel.curves) > 1 or any("not finite" in str(line.get_label()) for line in axes.lines):
        axes.legend(fontsize="x-small")


def is_training_run(folder: Path) -> bool:
    """Whether a folder is that of a training run, which has ended or goes on."""
    return _log_file(folder) is not None


def _log_file(folder: Path) -> Path | None:
    """The newest of train.json and the last checkpoint's state: in a folder that is trained into again, the checkpoint."""
    newest = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    files = [folder / TRAIN_NAME, *([Path(newest) / STATE] if newest else [])]
    return max((file for file in files if file.is_file()), key=lambda file: file.stat().st_mtime, default=None)


def read_log(run_folder: Path) -> tuple[list[dict[str, float]], str]:
    """The lines of a run's log, and how far the run is, in words.

    Args:
        run_folder: output_dir of the run.

    Raises:
        ConfigError: there is no log, or a damaged one.
    """
    file = _log_file(run_folder)
    if file is None:
        raise ConfigError(f"{run_folder}: holds no {TRAIN_NAME} and no checkpoint of a training run: name the output_dir of one")
    stored = read_json(file)
    ended = file.name == TRAIN_NAME
    lines = stored.get("log" if ended else "log_history")
    if not isinstance(lines, list) or not all(isinstance(line, dict) and isinstance(line.get("step"), int) for line in lines):
        raise ConfigError(f"{file}: has no log as training writes it: repeat the run, or name another folder")
    steps = stored.get("steps" if ended else "global_step")
    return lines, f"{steps} steps" if ended else f"step {steps} of {stored.get('max_steps')}"
