"""A language model with eyes finds its pictures, and the positions of all tokens, by their ids: it gets ids where others get embeddings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def embeddings_give(embeddings: nn.Module, inputs_embeds: Tensor) -> Iterator[None]:
    """Whoever looks up the ids of the prompt in the block gets these embeddings; once, and in this thread alone.

    Most language models with eyes take either ids or embeddings; with ids alone their own code places pictures and counts positions, as it does
    without audio. Beams, and several sequences for one prompt, look up each of its rows several times, one behind the other.

    Args:
        embeddings: the input embeddings of the language model.
        inputs_embeds: (batch, positions, width), with audio in them.

    Raises:
        RuntimeError: nobody looked the prompt up as a whole, so that no audio came in.
    """
    given, thread = False, threading.get_ident()

    def give(_: nn.Module, args: Any, output: Tensor) -> Tensor:
        nonlocal given
        if given or threading.get_ident() != thread or output.shape[1:] != inputs_embeds.shape[1:] or len(output) % len(inputs_embeds):
            return output
        given = True
        return inputs_embeds if len(output) == len(inputs_embeds) else inputs_embeds.repeat_interleave(len(output) // len(inputs_embeds), dim=0)

    handle = embeddings.register_forward_hook(give)
    try:
        yield
    finally:
        handle.remove()
    if not given:
        raise RuntimeError("the language model did not look up its prompt as a whole: it can't be given audio like this")


def n_cached(cache: Any) -> int:
    """Positions that a cache holds; 0 without one."""
    return 0 if cache is None else int(cache.get_seq_length())


def forget_positions(language_model: Any) -> None:
    """Take away how far the pictures of the last batch moved what stood behind them.

    The Qwen-VL family keeps that on the model for the steps that follow (`rope_deltas`), and replaces it by the next batch with pictures alone: a
    prompt without any would go on with those of another.
    """
    core = getattr(language_model, "model", language_model)
    if getattr(core, "rope_deltas", None) is not None:
        core.rope_deltas = None
