"""A stock audio language model behind the interface of a graft: training, engine and tools need not know which of the two they hold."""

from __future__ import annotations

import inspect
import os
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin

from audiograft.model.fusion import fuse
from audiograft.model.gating import LoraGate, through_gate
from audiograft.model.lora import lora_disabled, lora_modules
from audiograft.model.outputs import AudioGraftOutput, call, head_sees, unheard
from audiograft.model.stock.families import Family
from audiograft.model.stock.mel import MelSpec
from audiograft.types import AudiograftError


class StockAudioModel(nn.Module):
    """Holds a model of transformers as it is, under the name `stock`; whatever is not defined here is asked of it.

    Audio is embedded once, with the stock model's own tower and projector, and put in the place of its placeholders before the language model or
    its `generate` runs. So beams work with several clips in a prompt, which transformers' own `generate` would hand to the wrong rows.

    Attributes:
        stock: the model of transformers.
        family: what is particular to it.
        has_own_adapter: it came with LoRA weights, which work where there is audio and are off where there is none (Granite Speech).
        can_cache: False: the tower's outputs are not cached.
        lora_gate: under audio, LoRA that was trained here acts on rows whose prompt holds audio alone.
    """

    can_cache = False
    accepts_loss_kwargs = True
    lora_gate: LoraGate = "always"

    def __init__(self, stock: Any, family: Family, spec: MelSpec) -> None:
        super().__init__()
        self.stock = stock
        self.family = family
        self.has_own_adapter = bool(lora_modules(stock))
        self._spec = spec
        if not hasattr(stock.config, "note"):
            stock.config.note = None
        # The decoder alone has none; this one says where an answer ends.
        self.language_model.generation_config = stock.generation_config

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("stock"), name)

    @property
    def config(self) -> Any:
        return self.stock.config

    @property
    def device(self) -> torch.device:
        device: torch.device = self.stock.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.stock.dtype
        return dtype

    @property
    def audio_tower(self) -> nn.Module:
        tower: nn.Module = getattr(self.stock.model, self.family.audio_tower)
        return tower

    @property
    def projector(self) -> nn.Module:
        projector: nn.Module = getattr(self.stock.model, self.family.projector)
        return projector

    @property
    def language_model(self) -> Any:
        """The decoder; the head is beside it, as `get_output_embeddings()`."""
        return self.stock.model.language_model

    def _embed(self, input_ids: Tensor, input_features: Tensor | None, feature_lengths: Tensor | None) -> Tensor | None:
        """(batch, positions, width) with the clips in their places; None where there is no audio, so that the model embeds by itself."""
        is_audio = input_ids == self.config.audio_token_id
        if input_features is None:
            if bool(is_audio.any()):
                raise ValueError(f"{int(is_audio.sum())} audio placeholders in the prompt but 0 audio embeddings: pass input_features")
            return None
        lengths = [input_features.shape[-1]] * len(input_features) if feature_lengths is None else feature_lengths.tolist()
        audio_embeds = self.family.audio_embeds(self.stock, input_features[:, 0], lengths, self._spec)
        return fuse(self.stock.get_input_embeddings()(input_ids.masked_fill(is_audio, 0)), is_audio, audio_embeds)

    def _have_audio(self, input_ids: Tensor) -> Tensor:
        """(batch,) whether there is audio in a row."""
        is_audio: Tensor = input_ids == self.config.audio_token_id
        return is_audio.any(1)

    def _adapter(self, heard: bool) -> AbstractContextManager[None]:
        """The model's own LoRA is for audio. Stock code switches it in `generate` alone, by whether there are features; here they are embeddings."""
        return nullcontext() if heard or not self.has_own_adapter else lora_disabled(self.stock)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        input_features: Tensor | None = None,
        feature_lengths: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> AudioGraftOutput:
        """Loss, or logits.

        Args:
            input_ids: (batch, positions) with one placeholder per audio token.
            attention_mask: (batch, positions).
            labels: (batch, positions), -100 where there is no loss; logits are then computed at labelled positions alone.
            input_features: (clips, 1, samples) waveforms of all clips of the batch in order of their placeholders, zero behind each clip's end.
            feature_lengths: (clips,) samples of each clip; all of them where None.
            num_items_in_batch: labelled tokens in the whole accumulated batch, by which the loss is divided.
            **kwargs: for the stock model; with labels there is no cache.

        Raises:
            ValueError: placeholders and audio embeddings differ in number; both counts are named.
        """
        inputs_embeds = self._embed(input_ids, input_features, feature_lengths)
        heard = inputs_embeds is not None
        if inputs_embeds is None and labels is not None and self.training:
            # Where audio comes in too, so that the backward pass takes the same way in all processes.
            inputs_embeds = self.stock.get_input_embeddings()(input_ids) + unheard(self.audio_tower, self.projector)
        text = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
        inputs = {"attention_mask": attention_mask, **kwargs, **text}
        with self._adapter(heard=heard):
            compute = partial(call, self.stock, inputs, labels, num_items_in_batch)
            return through_gate(self.lora_gate, self._have_audio(input_ids), compute, kwargs.get("past_key_values"))

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        feature_lengths: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """transformers' `generate` behind the fused prompt: greedy, beams, sampling, streamers, static caches.

        Args:
            input_ids: (batch, positions), left-padded.
            attention_mask: (batch, positions).
            input_features: as in `forward`.
            feature_lengths: as in `forward`.
            **kwargs: whatever the stock model's `generate` takes.

        Returns:
            What it returns; sequences begin with the prompt.
        """
        inputs_embeds = self._embed(input_ids, input_features, feature_lengths)
        if inputs_embeds is not None:
            kwargs["inputs_embeds"] = inputs_embeds
        # Where the stock class can't be asked for the last logits alone, a prompt of 30 s a row would take gigabytes.
        keeps_all = "logits_to_keep" not in inspect.signature(self.stock.forward).parameters
        last = head_sees(self.stock.get_output_embeddings(), lambda hidden: hidden[:, -1:]) if keeps_all else nullcontext()
        with self._adapter(heard=inputs_embeds is not None), last:
            # Not the class's own: Granite Speech's switches its adapter off where it sees no features.
            compute = partial(GenerationMixin.generate, self.stock, input_ids, attention_mask=attention_mask, **kwargs)
            return through_gate(self.lora_gate, self._have_audio(input_ids), compute, kwargs.get("past_key_values"))

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Write a whole stock checkpoint, without this wrapper.

        Raises:
            AudiograftError: the model has an adapter of its own, which transformers writes into the base weights in a form it can't read.
        """
        if self.has_own_adapter:
            raise AudiograftError(f"{self.config.model_type} with its own adapter can't be saved whole: save what was trained, with save: adapter")
        self.stock.save_pretrained(save_directory, **kwargs)
