"""What `lora_gate: audio` asks of a run: rows with audio, and a start whose own gate is not merged away."""

from __future__ import annotations

from collections.abc import Callable

from audiograft.model.adapters import read_adapter
from audiograft.model.load import find_adapter
from audiograft.train.recipe import Recipe
from audiograft.train.rows import Row
from audiograft.types import ConfigError, DataError, Rejection

Use = Callable[[Row], Rejection | None]
"""Why a row is of no use, None where it is."""


def with_gate(recipe: Recipe, useless: Use) -> Use:
    """`useless`, and under `lora_gate: audio` an error at the first row without audio, which would train and show nothing.

    The error is a DataError that names the row and the switch. It is no rejection: a mixed corpus is not to lose half of its rows in silence.
    """
    if recipe.lora_gate == "always":
        return useless

    def check(row: Row) -> Rejection | None:
        if not row.n_samples:
            raise DataError(f"row {row.sample.id}: no clip, and lora_gate: audio keeps LoRA from rows without: set lora_gate: always, or take it out")
        return useless(row)

    return check


def require_no_gate(recipe: Recipe) -> None:
    """Refuse to go on from an adapter with a gate: its LoRA would be merged, and from then on act on rows without audio too.

    Raises:
        ConfigError: the recipe's model is one.
    """
    folder = find_adapter(recipe.model) if recipe.model else None
    if folder is not None and read_adapter(folder).lora_gate == "audio":
        mend = f"train anew from its base, or give the gate up and start from the output of `audiograft merge {recipe.model} --out DIR`"
        raise ConfigError(f"model: {recipe.model} has lora_gate: audio, and to train on merges its LoRA: {mend}")
