"""What `lora_gate: audio` asks of a run: rows with audio, and a start whose own gate is not merged away. And what a run without it does."""

from __future__ import annotations

from collections.abc import Callable

from audiograft.model.adapters import read_adapter
from audiograft.model.gating import LoraGate
from audiograft.model.load import find_adapter
from audiograft.train.recipe import Recipe
from audiograft.train.rows import Row
from audiograft.types import ConfigError, DataError, Rejection

Use = Callable[[Row], Rejection | None]
"""Why a row is of no use, None where it is."""
_MEND = "take the rows without audio out, or set lora_gate: always, which changes what the model answers without audio"


def with_gate(recipe: Recipe, useless: Use) -> Use:
    """`useless`, and under `lora_gate: audio` an error at the first training row without audio, from which nothing would be learnt.

    The error is a DataError that names the row and the switch. It is no rejection: a mixed corpus is not to lose half of its rows in silence.
    Validation data may have such rows.
    """
    if recipe.lora_gate == "always":
        return useless

    def check(row: Row) -> Rejection | None:
        if not row.n_samples:
            raise DataError(f"row {row.sample.id}: has no audio, and lora_gate: audio keeps LoRA from such rows: {_MEND}")
        return useless(row)

    return check


def gives_gate_up(recipe: Recipe) -> bool:
    """Whether LoRA that acted on rows with audio alone is merged, and so acts on all rows from then on."""
    return recipe.lora_gate == "audio" and recipe.save == "merged"


def gate_in(recipe: Recipe) -> LoraGate | None:
    """Where the language model's LoRA will act in training; None where it gets none."""
    return recipe.lora_gate if recipe.stage == "finetune" and recipe.lora.language_model else None


def warning_of_change(recipe: Recipe) -> str | None:
    """What to say before a model with eyes is trained: that it will not answer text and pictures as before. None where it will."""
    gate = gate_in(recipe)
    if gate is None or (gate == "audio" and recipe.save == "adapter"):
        return None
    cause, mend = ("lora_gate: always lets LoRA change", "lora_gate: audio with save: adapter leaves")
    if gives_gate_up(recipe):
        cause, mend = ("save: merged gives lora_gate: audio up and changes", "save: adapter leaves")
    return f"warning: {cause} what the model answers to text and pictures too: {mend} that as it is; audiograft evaluate --retention BASE measures it"


def require_no_gate(recipe: Recipe) -> None:
    """Refuse to go on from an adapter with a gate: its LoRA would be merged, and from then on act on rows without audio too.

    Raises:
        ConfigError: the recipe's model is one.
    """
    folder = find_adapter(recipe.model) if recipe.model else None
    if folder is not None and read_adapter(folder).lora_gate == "audio":
        mend = f"train anew from its base, or give the gate up and start from the output of `audiograft merge {recipe.model} --out DIR`"
        raise ConfigError(f"model: {recipe.model} has lora_gate: audio, and to train on merges its LoRA: {mend}")
