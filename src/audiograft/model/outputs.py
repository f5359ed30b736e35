"""What a language model is asked for: logits everywhere, or a loss, and then logits at labelled positions alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

IGNORE_INDEX = -100
"""Label of a position that carries no loss."""


@dataclass
class AudioGraftOutput(ModelOutput):
    """What a forward pass gives.

    Attributes:
        loss: sum of token losses over the number of labelled tokens (or over `num_items_in_batch`), where labels were given.
        logits: (labelled tokens, vocabulary) where labels were given, else (batch, positions, vocabulary).
        past_key_values: the language model's cache.
        hidden_states: the language model's, where asked for without labels.
        attentions: likewise.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def unheard(*parts: nn.Module) -> Tensor | int:
    """0, by way of all that is trained in the parts: a batch of text alone then has the gradients that other processes wait for."""
    return sum(0 * parameter.float().sum() for part in parts for parameter in part.parameters() if parameter.requires_grad)


@contextmanager
def head_sees(head: nn.Module, choose: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a head see a choice of the (batch, positions, width) hidden states alone.

    A hook in front of the head, so that whatever else the language model does to its logits (scaling, soft-capping) stays its own business.
    """
    handle = head.register_forward_pre_hook(lambda _, args: (choose(args[0]),))
    try:
        yield
    finally:
        handle.remove()


def call(model: Any, inputs: Mapping[str, Any], labels: Tensor | None, num_items_in_batch: Tensor | int | None) -> AudioGraftOutput:
    """Run a language model.

    Args:
        model: any causal language model of transformers.
        inputs: its keywords.
        labels: (batch, positions), -100 where there is no loss; None for logits everywhere.
        num_items_in_batch: by which the loss is divided; the number of labels by default.

    Raises:
        RuntimeError: the model does not call its own output embeddings.
    """
    if labels is None:
        output = model(**inputs)
        return AudioGraftOutput(**{name: output.get(name) for name in ("logits", "past_key_values", "hidden_states", "attentions")})
    # The hidden state at position t predicts the token at t + 1.
    predicts = nn.functional.pad(labels[:, 1:] != IGNORE_INDEX, (0, 1))
    targets = labels[:, 1:][predicts[:, :-1]]
    with head_sees(model.get_output_embeddings(), lambda hidden: hidden[predicts.to(hidden.device)]):
        logits = model(**{**inputs, "use_cache": False}).logits
    if logits.shape[:-1] != targets.shape:
        raise RuntimeError(f"{type(model).__name__} does not call its output embeddings: {tuple(logits.shape)}")
    loss = nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    return AudioGraftOutput(loss=loss / (max(len(targets), 1) if num_items_in_batch is None else num_items_in_batch), logits=logits)
