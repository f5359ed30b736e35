"""Gated LoRA: the language model's adapters act on rows whose prompt holds audio, and leave all others as the base has them, bit for bit.

The idea is that of Phi-4-multimodal's mixture of LoRAs (Microsoft 2025, arXiv:2503.01743), which takes whole batches. Here a hook behind the second
matrix of each adapter takes the update out of single rows, in training and in generation alike. (PEFT's own `adapter_names` raises in training.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from audiograft.model.lora import ADAPTER, lora_modules
from audiograft.types import AudiograftError

Out = TypeVar("Out")
LoraGate = Literal["audio", "always"]
"""Where the language model's LoRA acts: on rows whose prompt holds audio, or on all."""
NO_UPDATE = -0.0
"""Added to any number it gives that number, bit for bit; 0.0 would turn -0.0 into 0.0."""
_MARK = "rows_with_audio"
"""Attribute of a cache: the (rows,) whose keys and values were computed with LoRA."""


class _Batch(threading.local):
    """What is known of the batch that this thread computes. No attribute of a model, whose shapes torch.compile would take for fixed.

    Attributes:
        is_known: whether anything is; it is not where a language model is called past the model that listens.
        without_audio: (rows,) where the update is left out; None where it is in none.
        is_open: LoRA acts on all rows for now.
    """

    is_known = False
    without_audio: Tensor | None = None
    is_open = False


_batch = _Batch()


def _leave_out(layer: nn.Module, inputs: Any, update: Tensor) -> Tensor:
    """Forward hook of `lora_B`: (rows, positions, width) -> the same, without the update of rows without audio.

    Beams and several sequences for one prompt come as several rows behind each other.
    """
    if not _batch.is_known:
        raise AudiograftError("lora_gate: audio: the language model was called by itself, and can't tell which rows have audio: call the graft")
    without, is_whole = _batch.without_audio, update.dim() == 3
    if is_whole and without is None:
        return update
    # Not `len`, by which torch.compile would compile anew for each number of rows.
    if not is_whole or without is None or update.shape[0] % without.shape[0]:
        raise AudiograftError("lora_gate: audio needs layers that see whole rows, not single positions as in a mixture of experts: use always")
    if update.shape[0] != without.shape[0]:
        without = without.repeat_interleave(update.shape[0] // without.shape[0])
    return update.masked_fill(without[:, None, None].to(update.device), NO_UPDATE)


def gate_lora(model: Any) -> None:
    """Let the adapters of a model's language model act on rows with audio alone. Those of the audio tower and the projector hear nothing else anyway.

    Args:
        model: a graft or a stock model with LoRA that is not DoRA, whose scale is no update that could be left out; changed in place.
    """
    model.lora_gate = "audio"
    for layer in lora_modules(model.language_model).values():
        matrix: Any = layer.lora_B[ADAPTER]
        matrix.register_forward_hook(_leave_out)


def gate_of(model: Any) -> LoraGate:
    """Where a model's LoRA acts."""
    gate: LoraGate = getattr(model, "lora_gate", "always")
    return gate


@contextmanager
def _known(is_known: bool, without_audio: Tensor | None) -> Iterator[None]:
    before = _batch.is_known, _batch.without_audio
    _batch.is_known, _batch.without_audio = is_known, without_audio
    try:
        yield
    finally:
        _batch.is_known, _batch.without_audio = before


@contextmanager
def gate_open() -> Iterator[None]:
    """LoRA acts on all rows in the block, as it does once it is merged; without a gate nothing changes."""
    before, _batch.is_open = _batch.is_open, True
    try:
        yield
    finally:
        _batch.is_open = before


def for_checkpoint() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """`context_fn` of `torch.utils.checkpoint`: what is computed again in the backward pass is of the same rows, whatever ran in between."""
    return nullcontext(), _known(_batch.is_known, _batch.without_audio)


def through_gate(gate: LoraGate, with_audio: Tensor, compute: Callable[[], Out], cache: Any = None) -> Out:
    """Run a forward pass or a generation, its adapters being told which rows have audio.

    A cache that comes of it, or that it fills, remembers these rows: what is computed behind it later, by tokens that are no audio, is part of the
    same prompts.

    Args:
        gate: of the model.
        with_audio: (rows,) whose ids hold audio.
        compute: what is to be run.
        cache: that it goes on from.

    Raises:
        ValueError: audio behind a cache that was computed without LoRA.
    """
    if gate == "always":
        return compute()
    rows = torch.ones_like(with_audio) if _batch.is_open else _with_those_before(with_audio, cache)
    with _known(True, None if bool(rows.all()) else ~rows):
        output = compute()
    for filled in (cache, getattr(output, "past_key_values", None)):
        if filled is not None:
            setattr(filled, _MARK, rows)
    return output


def _with_those_before(with_audio: Tensor, cache: Any) -> Tensor:
    """Rows with audio, in what is to be computed or in what is cached of them."""
    before: Tensor | None = getattr(cache, _MARK, None)
    if before is None or int(cache.get_seq_length()) == 0:
        return with_audio
    # Of a prompt that was cached once for many rows.
    before = before.to(with_audio.device).repeat_interleave(max(len(with_audio) // len(before), 1))
    if bool((with_audio & ~before).any()):
        raise ValueError("lora_gate: audio: a row has audio behind a cache that was computed without LoRA: compute the whole prompt at once")
    return with_audio | before
