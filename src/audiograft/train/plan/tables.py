"""A plan as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from audiograft.train.plan.memory import NEW_TOKENS


def draw(plan: dict[str, Any]) -> RenderableType:
    """What `plan_recipe` or `plan_folder` returned."""
    stages = plan.get("stages", [plan])
    parts = [part for stage in stages for part in _stage(stage)]
    if len(stages) > 1:
        parts += ["", "[bold]all stages[/bold]", _gpus(plan["total"]["gpus"])]
    return Group(*parts)


def _stage(plan: dict[str, Any]) -> Iterator[RenderableType]:
    model = " + ".join(plan["model"][key] for key in ("model", "audio_encoder", "language_model") if key in plan["model"])
    yield f"\n[bold]{plan['recipe']}[/bold] ({plan['stage']}): {model}"
    yield _components(plan)
    if plan["lora_gate"] is not None:
        yield gate_in_words(plan)
    yield _lengths(plan)
    yield _memory(plan)
    yield in_words(plan)
    yield _flops(plan)
    yield _gpus(plan["gpus"])
    yield f"At {plan['mfu']:.0%} of the GPU's dense bf16 products (MFU), in hours of one GPU; without validation, checkpoints and waiting for data."


def gate_in_words(plan: dict[str, Any]) -> str:
    """Where LoRA of the language model acts, and what becomes of answers without audio."""
    of = "text and pictures" if plan["has_eyes"] else "text"
    if plan["gate_given_up"]:
        return f"lora_gate: audio, which save: merged gives up: answers to {of} alone change in the end; save: adapter leaves them as they are."
    if plan["lora_gate"] == "audio":
        return f"lora_gate: audio: LoRA acts on rows with audio alone, and answers to {of} stay as they are."
    return f"lora_gate: always: LoRA acts on all rows, and answers to {of} alone change; lora_gate: audio with save: adapter leaves them as they are."


def in_words(plan: dict[str, Any]) -> str:
    """The three figures that system C's README gives, said in full."""
    return (
        f"The adapter's {shown_bytes(plan['adapter_bytes'])} are no model by themselves: they need the base, "
        f"{shown_bytes(plan['checkpoint_bytes'])} in 16 bits. "
        f"Training takes {shown_bytes(plan['train_memory_bytes'])}; answering takes {shown_bytes(plan['infer_memory_bytes'])}, "
        f"or {shown_bytes(plan['infer_memory_nf4_bytes'])} with the decoder in 4 bits."
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _components(plan: dict[str, Any]) -> Table:
    table = _table("component", "parameters", "of them train", "LoRA")
    table.add_column("LoRA targets")
    projector_trains = plan["trainable_params"] > plan["lora_params"]
    for name, params in plan["components"].items():
        own = params if name == "projector" and projector_trains else 0
        targets = ", ".join(f"{target} x {n}" for target, n in plan["lora_targets_by_scope"][name].items())
        table.add_row(name, f"{params:,}", f"{own:,}", f"{plan['lora_params_by_scope'][name]:,}", targets)
    table.add_row("total", f"{plan['total_params']:,}", f"{plan['trainable_params'] - plan['lora_params']:,}", f"{plan['lora_params']:,}", "")
    return table


def _lengths(plan: dict[str, Any]) -> Table:
    table = _table("sizes", "")
    table.add_row("trainable parameters", f"{plan['trainable_params']:,}")
    table.add_row("tensors in the merged checkpoint", f"{plan['checkpoint_tensors']:,}")
    table.add_row("audio tokens per 30 s", f"{plan['audio_tokens_per_30s']:,} ({plan['ms_per_audio_token']:g} ms each)")
    table.add_row("positions per example", f"{plan['positions_per_example']:,g} (longest {plan['longest_example_positions']:,})")
    if plan["picture_tokens_per_example"]:
        table.add_row("picture tokens per example", f"{plan['picture_tokens_per_example']:,g}")
    table.add_row("examples per step", f"{plan['rows_per_step']:,g} of {plan['audio_s_per_example']:g} s")
    if plan["steps"] is not None:
        table.add_row("steps", f"{plan['steps']:,}")
    if plan["rows_left_out"]:
        blind = "" if plan["has_eyes"] else ", or with pictures for a model without eyes"
        table.add_row("rows left out", f"{plan['rows_left_out']:,} (unreadable, without an answer, longer than 30 s{blind})")
    table.caption = plan["workload"]
    table.caption_justify = "left"
    return table


def _memory(plan: dict[str, Any]) -> Table:
    table = _table("memory", "training", f"30 s + {NEW_TOKENS} tokens", "the same, NF4")
    columns = (plan["train_memory"], plan["infer_memory"], plan["infer_memory_nf4"])
    for term in dict.fromkeys(term for column in columns for term in column):
        table.add_row(term.replace("_", " "), *(shown_bytes(column[term]) if column.get(term) else "" for column in columns))
    totals = (plan["train_memory_bytes"], plan["infer_memory_bytes"], plan["infer_memory_nf4_bytes"])
    table.add_row("total", *map(shown_bytes, totals), style="bold")
    return table


def _flops(plan: dict[str, Any]) -> Table:
    table = _table("arithmetic", "TFLOP per example", "share")
    terms = plan["flops_per_example"]
    whole = sum(terms.values())
    for name, flops in terms.items():
        if flops:
            table.add_row(name.replace("_", " "), f"{flops / 1e12:,.3f}", f"{flops / whole:.1%}")
    table.add_row("total", f"{whole / 1e12:,.3f}", "", style="bold")
    table.add_row("one step", f"{plan['flops_per_step'] / 1e12:,.1f}", "")
    if plan["run_flops"] is not None:
        table.add_row("the run", f"{plan['run_flops'] / 1e12:,.0f}", "")
    return table


def _gpus(gpus: list[dict[str, Any]]) -> Table:
    table = _table("GPU", "memory", "fits", "step", "the run", "on 8", "1000 h of audio")
    for gpu in gpus:
        step = "" if gpu["step_s"] is None else f"{gpu['step_s']:.2f} s"
        fits = "yes" if gpu["fits"] else "[red]no[/red]"
        hours = [_shown_hours(gpu[key]) for key in ("gpu_hours", "wall_time_8_gpus_h", "gpu_hours_per_1000_h")]
        table.add_row(gpu["name"], f"{gpu['memory_bytes'] / 2**30:.0f} GiB", fits, step, *hours)
    return table


def _shown_hours(hours: float | None) -> str:
    return "needs --data" if hours is None else f"{hours:,.2f} h" if hours < 10 else f"{hours:,.0f} h"


def shown_bytes(n_bytes: float) -> str:
    """In the unit that leaves three figures: 82.8 MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}" if n_bytes < 1000 * size else f"{n_bytes / size:,.0f} {unit}"
    return f"{n_bytes:.0f} B"
