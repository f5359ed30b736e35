"""The last logits behind one prompt for many clips: a prefill of the prompt and nothing more.

All clips are asked the same. What stands in front of the clip is therefore run once, and its keys and values are used again for every clip; a prompt
that ends with `<audio>` costs little more than the clip.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from audiograft.inference.batching import similar_batches
from audiograft.inference.chunking import split_into_chunks
from audiograft.inference.decoding import Waveform
from audiograft.messages import Message, with_windows
from audiograft.model.gating import gate_open
from audiograft.model.outputs import head_sees
from audiograft.types import SAMPLE_RATE_HZ


class Prefill:
    """One conversation with one clip in it, made ready for any number of clips."""

    def __init__(self, model: Any, processor: Any, messages: Sequence[Message]) -> None:
        """
        Args:
            model: a graft or a stock model.
            processor: its processor.
            messages: up to the answer, with one audio part.

        Raises:
            DataError: the chat template refuses the conversation.
        """
        self._model = model
        self._processor = processor
        self._messages = messages
        self._prompts: dict[int, str] = {1: processor.build_prompt(messages)}
        self._ids: dict[tuple[int, ...], list[int]] = {}

    @torch.no_grad()
    def last_logits(self, waveforms: Sequence[Waveform], tokens: Sequence[int], batch_size: int) -> npt.NDArray[np.float64]:
        """Logits of the token behind the prompt. Clips of similar length share a batch; in float32 nothing depends on it.

        Args:
            waveforms: (n_samples,) at 16 kHz each; those of more than 30 s are cut into several windows in the place of one.
            tokens: ids of those that matter.
            batch_size: clips in one prefill.

        Returns:
            (clips, tokens).
        """
        # For a single clip two passes would take longer than one.
        before = self._before if len(waveforms) > 1 else None
        logits = np.zeros((len(waveforms), len(tokens)))
        for rows in similar_batches([(0, True)] * len(waveforms), [len(waveform) for waveform in waveforms], batch_size):
            logits[rows] = self._batch([waveforms[row] for row in rows], before)[:, list(tokens)].double().cpu().numpy()
        return logits

    def positions(self, waveform: Waveform) -> int:
        """That the prompt takes in the language model with this clip in it."""
        count = self._processor.front_end.feature_frames
        return len(self._prompt_ids([count(len(chunk.waveform), self._processor.pad_to_window) for chunk in split_into_chunks(waveform)]))

    def _batch(self, waveforms: Sequence[Waveform], before: DynamicCache | None) -> Tensor:
        """(clips, vocabulary) from one forward pass behind what is known."""
        features = [[self._processor.features(chunk.waveform) for chunk in split_into_chunks(waveform)] for waveform in waveforms]
        prompts = [self._prompt_ids([window.shape[1] for window in own]) for own in features]
        n_before = 0 if before is None else before.get_seq_length()
        # Padded on the right, where causal attention can't see: positions count as they do for one clip alone, whatever kind of positions these are.
        batch = self._processor.pad_tokens([ids[n_before:] for ids in prompts], [[]] * len(prompts))
        batch |= self._processor.pad_features([window for own in features for window in own])
        batch["attention_mask"] = torch.nn.functional.pad(batch["attention_mask"], (n_before, 0), value=1)
        inputs: dict[str, Any] = {name: tensor.to(self._model.device) for name, tensor in batch.items() if name != "labels"}
        if before is not None:
            inputs["past_key_values"] = _for_rows(before, len(prompts))
        last = torch.tensor([len(ids) - n_before - 1 for ids in prompts], device=self._model.device)
        rows = torch.arange(len(prompts), device=self._model.device)
        with head_sees(self._model.get_output_embeddings(), lambda hidden: hidden[rows, last]):
            logits: Tensor = self._model(**inputs, use_cache=before is not None).logits
        if logits.dim() != 2:
            raise RuntimeError(f"{type(self._model).__name__} does not call its output embeddings: {tuple(logits.shape)}")
        return logits

    def _prompt_ids(self, feature_frames: Sequence[int]) -> list[int]:
        """Of the whole prompt, with a clip in it whose windows have so many feature frames."""
        n_tokens = tuple(map(self._processor.front_end.audio_tokens, feature_frames))
        if n_tokens not in self._ids:
            n_windows = len(n_tokens)
            if n_windows not in self._prompts:
                self._prompts[n_windows] = self._processor.build_prompt(with_windows(self._messages, [n_windows]))
            text = self._processor.expand_audio(self._prompts[n_windows], feature_frames)
            self._ids[n_tokens] = self._processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._ids[n_tokens]

    @cached_property
    def _before(self) -> DynamicCache | None:
        """Keys and values of what stands in front of the clip; None where they can't be had apart from it."""
        ids = self._prompt_ids([self._processor.front_end.feature_frames(SAMPLE_RATE_HZ, self._processor.pad_to_window)])
        before = ids[: ids.index(self._processor.audio_token_id)]
        # A model with eyes counts positions over its whole prompt; one that came with LoRA has it off for a whole batch without audio.
        if not before or getattr(self._model, "has_eyes", False) or getattr(self._model, "has_own_adapter", False):
            return None
        # The audio is yet to come, but these are rows that have some.
        with gate_open(), head_sees(self._model.get_output_embeddings(), lambda hidden: hidden[:, -1:]):
            cache = self._model(input_ids=torch.tensor([before], device=self._model.device), use_cache=True).past_key_values
        # Windows that slide and states that are no keys and values can't be shared like this.
        return cache if isinstance(cache, DynamicCache) and all(type(layer) is DynamicLayer for layer in cache.layers) else None


def _for_rows(cache: DynamicCache, n_rows: int) -> DynamicCache:
    """The cache of one row as that of so many; nothing is copied until the model appends to it."""
    repeated = copy.copy(cache)
    repeated.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in repeated.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        layer.keys, layer.values = layer.keys.expand(n_rows, -1, -1, -1), layer.values.expand(n_rows, -1, -1, -1)
    return repeated
