"""The end of a run: what was done, the model on the disk, and the verdict."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.trainer_callback import TrainerState

from audiograft import provenance
from audiograft.data.manifest import replace_text
from audiograft.inference.choices import ClosedQuestion
from audiograft.model.adapters import save_adapter
from audiograft.model.checkpoint import one_line, save_graft
from audiograft.model.merge import GATE_GIVEN_UP, merge_adapter
from audiograft.train.curves import CURVES_NAME, draw_curves
from audiograft.train.deafness import DeafnessReport
from audiograft.train.gated import gives_gate_up
from audiograft.train.question import write_question
from audiograft.train.recipe import Recipe
from audiograft.train.setup import DTYPES, Start, other_kind
from audiograft.train.stages import ParameterCounts


def summary(recipe: Recipe, start: Start, counts: ParameterCounts, state: TrainerState, deafness: DeafnessReport) -> dict[str, Any]:
    """What stands in train.json, without what is known of the data."""
    validations = [line for line in state.log_history if "eval_loss" in line]
    accelerator = torch.accelerator.is_available()
    return {
        "deaf": deafness.deaf,
        "deafness": deafness.as_dict(),
        "merge_failed": False,
        "gate_given_up": gives_gate_up(recipe),
        "validation": validations[-1] if validations else None,
        "steps": state.global_step,
        "parameters": counts.as_dict(),
        "attention": start.attention,
        "quantised": start.quantised,
        "memory_peak_bytes": torch.accelerator.max_memory_allocated() if accelerator else None,
        "recipe": recipe.as_dict(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "log": state.log_history,
    }


def export(start: Start, recipe: Recipe, result: dict[str, Any], question: ClosedQuestion | None, console: Console) -> None:
    """Write the model, whole or as an adapter, then train.json, whose presence says that the run is complete.

    Where an earlier run ended in the same folder, what it left of the other kind of output goes.

    Args:
        start: the trained model.
        recipe: of the run.
        result: what `summary` gave; `merge_failed` is set where merging changed what the model says.
        question: that was taught, for detection.json.
        console: where is said what was merged.

    Raises:
        AudiograftError: it can't be written.
    """
    output_dir = Path(recipe.output_dir)
    if gives_gate_up(recipe):
        console.print(f"{GATE_GIVEN_UP}; save: adapter keeps the gate", soft_wrap=True)
    if recipe.save == "adapter":
        _save_adapter(start, recipe, result, output_dir)
    elif start.quantised:
        # First, since a folder with an adapter is opened as one, and what was merged is opened again to be compared.
        _remove_other_kind(recipe)
        _merge_into_base(start, recipe, result, question, console)
    else:
        torch.nn.Module.to(start.model, DTYPES[recipe.save_dtype])
        save_graft(start.model, start.processor, output_dir)
    _remove_other_kind(recipe)
    write_question(question, output_dir)
    replace_text(output_dir / "train.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")


def _remove_other_kind(recipe: Recipe) -> None:
    """Only what an earlier run wrote: anything else came into the folder from elsewhere."""
    if not (Path(recipe.output_dir) / "train.json").is_file():
        return
    for path in other_kind(recipe):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _save_adapter(start: Start, recipe: Recipe, result: dict[str, Any], folder: Path) -> None:
    origin = {key: result[key] for key in ("versions", "commit", "data_fingerprint")}
    save_adapter(start.model, start.processor, folder, start.base, recipe.as_dict(), origin, start.quantised)


def _merge_into_base(start: Start, recipe: Recipe, result: dict[str, Any], question: ClosedQuestion | None, console: Console) -> None:
    """After training on 4-bit weights: the base as it was before, opened again, with the adapter merged. One that can't be merged is kept."""
    output_dir = Path(recipe.output_dir)
    with tempfile.TemporaryDirectory(dir=output_dir, prefix="adapter-to-merge-") as folder:
        _save_adapter(start, recipe, result, Path(folder))
        console.print("opening the base again, without quantisation, to merge into it")
        report = merge_adapter(folder, output_dir, recipe.save_dtype)
    console.print(f"merged {report.merged_layers} layers; largest difference of a logit: {report.max_abs_logit_difference:.2g}")
    if report.passed:
        return
    result["merge_failed"] = True
    kept = output_dir / "adapter"
    if kept.exists():  # of whatever run
        kept = Path(tempfile.mkdtemp(dir=output_dir, prefix="adapter-"))
    _save_adapter(start, recipe, result, kept)
    write_question(question, kept)
    console.print(
        f"merging changed what the model says, or lost what LoRA had learnt: use {kept}, not the whole model in {output_dir}; "
        f"try audiograft merge {kept} --out DIR --dtype fp32",
        soft_wrap=True,
    )


def draw(output_dir: Path, console: Console) -> None:
    """Draw the run's curves beside its train.json."""
    try:
        draw_curves(output_dir)
    # The model is saved: whatever keeps matplotlib from drawing is not worth a failed run.
    except Exception as error:
        mend = f"audiograft report {output_dir} tries again"
        console.print(f"warning: {output_dir / CURVES_NAME} can't be drawn ({one_line(error)}): {mend}", soft_wrap=True, markup=False)


def conclude(console: Console, deafness: DeafnessReport, output_dir: Path) -> None:
    """Print the verdict."""
    console.print(deafness.table(), deafness.verdict(), sep="\n")
    if deafness.deaf:
        console.print(f"this model does not listen: its answers hardly depend on the audio. It is saved all the same, in {output_dir}")
    else:
        console.print(f"saved in {output_dir}")
