"""What differs between two checkpoints: which tensors, in which component, and by how much. Two tensors are in memory at a time, never two models."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiograft.model.weights import ModelWeights, Weight, open_weights

_BLOCK = 1 << 22
"""Numbers that are compared at once, in 64 bits."""
_PRECISION = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
"""From the finest to the coarsest."""


@dataclass(frozen=True)
class TensorChange:
    """One tensor that differs.

    Attributes:
        name: as the first model stores it.
        component: that it belongs to.
        relative_change: Frobenius norm of the difference over that of the first model's tensor; None where that is zero or not finite.
        largest_difference: of one number; None where it is not finite.
        shape_a: dimensions in the first model.
        shape_b: dimensions in the second. Where only the first dimension differs, the rows that both have were compared.
        adapter: `lora` or `dora` where an adapter changes the stored weight, `replaced` where it brings its own.
    """

    name: str
    component: str
    relative_change: float | None
    largest_difference: float | None
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    adapter: str = ""


@dataclass
class ComponentChange:
    """What differs in one component.

    Attributes:
        unchanged: tensors that are the same number by number; of different element types: that one is a copy of the other.
        changed: tensors that differ.
        only_in_a: tensors that the second model lacks.
        only_in_b: tensors that the first model lacks.
        relative_change: Frobenius norm of all differences over that of the first model's tensors; None where that is zero or not finite.
    """

    unchanged: int = 0
    changed: int = 0
    only_in_a: int = 0
    only_in_b: int = 0
    relative_change: float | None = None


@dataclass
class Difference:
    """What differs between two models.

    Attributes:
        a: the first model as it was asked for.
        b: the second.
        kind_a: graft, adapter, system-a, system-b, stock, encoder, language-model or training-checkpoint.
        kind_b: likewise.
        components: by name.
        changed: what differs, the greatest relative change first.
        only_in_a: names of what the second model lacks.
        only_in_b: names of what the first model lacks.
        other_dtypes: tensors by pair of element types, where these differ: `F32, BF16`.
    """

    a: str
    b: str
    kind_a: str
    kind_b: str
    components: dict[str, ComponentChange] = field(default_factory=dict)
    changed: list[TensorChange] = field(default_factory=list)
    only_in_a: list[str] = field(default_factory=list)
    only_in_b: list[str] = field(default_factory=list)
    other_dtypes: dict[str, int] = field(default_factory=dict)

    @property
    def unchanged(self) -> int:
        """Number of tensors that are the same."""
        return sum(part.unchanged for part in self.components.values())

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"unchanged": self.unchanged}

    def verdict(self) -> str:
        """One line: what changed."""
        if not (self.unchanged or self.changed):
            return "the two have no tensor in common"
        touched = [name for name, part in self.components.items() if part.changed]
        apart = len(self.only_in_a) + len(self.only_in_b)
        also = f"; {_tensors(apart)} in one of them alone" if apart else ""
        if not touched:
            return f"no tensor changed: {self.unchanged} are the same{also}"
        only = "only " if len(touched) == 1 and len(self.components) > 1 else ""
        return f"{only}{' and '.join(touched)} changed: {_tensors(len(self.changed))}, and {self.unchanged} are the same{also}"


def _tensors(count: int) -> str:
    return f"{count} tensor{'' if count == 1 else 's'}"


@dataclass
class _Sums:
    """Squares, summed over a component."""

    difference: float = 0.0
    norm: float = 0.0


def compare_models(a: str | Path, b: str | Path, on_tensor: Callable[[int, int], None] = lambda done, total: None) -> Difference:
    """Compare two models tensor by tensor. Adapters are compared as the models that they make of their bases.

    Where element types differ, both are compared at the coarser one: a copy in 16 bits counts as unchanged. An adapter and its base are compared
    in full: an update that 16 bits would lose counts as a change.

    Args:
        a: a shipped name, a folder, a checkpoint.pt, or a hub id: a graft, an adapter, a stock model, an encoder, a language model.
        b: likewise.
        on_tensor: called after each tensor, with how many were compared and how many there are.

    Raises:
        ConfigError: there is no such model, it is damaged, or an adapter's base is gone.
    """
    one, two = open_weights(a), open_weights(b)
    found = Difference(one.model, two.model, one.kind, two.kind)
    names = list(dict.fromkeys([*one.tensors, *two.tensors]))
    sums: dict[str, _Sums] = {}
    for number, name in enumerate(names, 1):
        _compare(found, sums, one, two, name)
        on_tensor(number, len(names))
    for name, part in found.components.items():
        if name in sums:
            part.relative_change = _ratio(sums[name].difference, sums[name].norm)
    found.components = {name: found.components[name] for name in sorted(found.components)}
    found.changed.sort(key=lambda change: (-math.inf if change.relative_change is None else -change.relative_change, change.name))
    return found


def _compare(found: Difference, sums: dict[str, _Sums], one: ModelWeights, two: ModelWeights, name: str) -> None:
    first, second = one.tensors.get(name), two.tensors.get(name)
    if first is None or second is None:
        weight = first or second
        assert weight is not None
        part = found.components.setdefault(weight.component, ComponentChange())
        if second is None:
            part.only_in_a += 1
            found.only_in_a.append(weight.name)
        else:
            part.only_in_b += 1
            found.only_in_b.append(weight.name)
        return
    part = found.components.setdefault(first.component, ComponentChange())
    change, squares = _measure_pair(first, second)
    total = sums.setdefault(first.component, _Sums())
    total.difference += squares.difference
    total.norm += squares.norm
    if first.dtype != second.dtype:
        pair = f"{first.dtype}, {second.dtype}"
        found.other_dtypes[pair] = found.other_dtypes.get(pair, 0) + 1
    if change is None:
        part.unchanged += 1
    else:
        part.changed += 1
        found.changed.append(change)


def _measure_pair(first: Weight, second: Weight) -> tuple[TensorChange | None, _Sums]:
    """The change, None where there is none, and its squares."""
    tensor = first.read()
    same_place = first.place is not None and first.place == second.place
    if same_place and first.adapter == second.adapter in ("", "replaced"):
        return None, _Sums(0.0, _square(tensor))
    other = second.read()
    facts = (first.shape, second.shape, second.adapter or first.adapter)
    if first.shape != second.shape:
        if first.shape[1:] != second.shape[1:] or not first.shape:
            return TensorChange(first.name, first.component, None, None, *facts), _Sums()
        rows = min(first.shape[0], second.shape[0])
        tensor, other = tensor[:rows], other[:rows]
    elif not same_place and _is_copy(tensor, other):
        return None, _Sums(0.0, _square(tensor))
    # What an adapter does to one stored tensor is known exactly: rounding it would hide small updates.
    squares, largest = _measure(tensor, other) if same_place else _measure(*_at_the_coarser(tensor, other))
    if largest == 0 and first.shape == second.shape:
        return None, squares
    relative = _ratio(squares.difference, squares.norm)
    return TensorChange(first.name, first.component, relative, largest if math.isfinite(largest) else None, *facts), squares


def _is_copy(tensor: Tensor, other: Tensor) -> bool:
    """Whether one is the other, rounded to its element type or not."""
    return torch.equal(tensor.to(other.dtype), other) or (tensor.dtype != other.dtype and torch.equal(tensor, other.to(tensor.dtype)))


def _at_the_coarser(tensor: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    if tensor.dtype == other.dtype or tensor.dtype not in _PRECISION or other.dtype not in _PRECISION:
        return tensor, other
    coarser = max(tensor.dtype, other.dtype, key=_PRECISION.index)
    return tensor.to(coarser), other.to(coarser)


def _measure(tensor: Tensor, other: Tensor) -> tuple[_Sums, float]:
    """Squares of the difference and of the first, and the largest difference; where both are NaN they are the same."""
    squares, largest = _Sums(), 0.0
    for block, against in zip(tensor.flatten().split(_BLOCK), other.flatten().split(_BLOCK), strict=True):
        difference = against.double() - block.double()
        # Also where both are infinite, whose difference is no number.
        difference[(block == against) | (block.isnan() & against.isnan())] = 0.0
        squares.difference += float(difference.square().sum())
        squares.norm += float(block.double().square().sum())
        # Python's max would pass over NaN.
        largest = float(torch.tensor([largest, float(difference.abs().max())], dtype=torch.float64).max()) if len(block) else largest
    return squares, largest


def _square(tensor: Tensor) -> float:
    """Its numbers squared, summed in 64 bits."""
    return sum(float(block.double().square().sum()) for block in tensor.flatten().split(_BLOCK))


def _ratio(difference: float, norm: float) -> float | None:
    """Of the norms, from their squares; None where it says nothing."""
    return math.sqrt(difference / norm) if norm > 0 and math.isfinite(norm) and math.isfinite(difference) else None
