"""The grafted model: audio tower -> projector -> fusion into the prompt's embeddings -> the language model's own forward or generate."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from audiograft.model.configuration import AudioGraftConfig
from audiograft.model.fusion import concatenate_real, fuse
from audiograft.model.gating import LoraGate, through_gate
from audiograft.model.lengths import encoder_frames, similar_lengths
from audiograft.model.outputs import AudioGraftOutput, call, unheard
from audiograft.model.positions import embeddings_give, forget_positions, n_cached
from audiograft.model.projector import build_projector, pool_frames, stack_frames
from audiograft.model.towers import build_tower

HUB_KEYWORDS = ("cache_dir", "force_download", "local_files_only", "token", "revision")
"""Keywords of `from_pretrained` that say where files come from, and so hold for every file of a model."""


def has_eyes(text_config: Any) -> bool:
    """Whether a language model of this configuration takes images too."""
    return type(text_config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING


def language_model_class(text_config: Any) -> Any:
    """The Auto class that loads a language model of this configuration: with eyes or without."""
    return AutoModelForImageTextToText if has_eyes(text_config) else AutoModelForCausalLM


class AudioGraftForConditionalGeneration(PreTrainedModel):
    """A language model with ears.

    The language model is a whole Hugging Face model, called through its public interface and changed in nothing: without audio, its outputs are
    the original's bit for bit. Audio is encoded once per generation, before the language model's own `generate` takes over.

    Attributes:
        lora_gate: under audio, the language model's LoRA acts on rows whose prompt holds audio alone.
    """

    lora_gate: LoraGate = "always"

    config_class = AudioGraftConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _no_split_modules: list[str] = []  # the parts bring their own

    def __init__(self, config: AudioGraftConfig) -> None:
        super().__init__(config)
        self.audio_tower = build_tower(config.audio_config)
        self.projector = build_projector(config)
        self.language_model = language_model_class(config.text_config).from_config(config.text_config)
        self.post_init()

    @property
    def has_eyes(self) -> bool:
        """Whether the language model takes images too."""
        return has_eyes(self.config.text_config)

    def get_input_embeddings(self) -> nn.Module:
        embeddings: nn.Module = self.language_model.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Module:
        head: nn.Module = self.language_model.get_output_embeddings()
        return head

    def encode_audio(self, input_features: Tensor, feature_lengths: Tensor | None = None) -> Tensor:
        """(clips, channels, frames) -> (clips, encoder frames, width): the frozen half, which can be cached.

        Clips of similar length go through the tower together: a batch of mixed lengths costs what its audio costs, not what its pads would.
        """
        final_norm = not self.projector.pools
        groups = similar_lengths([] if feature_lengths is None else feature_lengths.tolist())
        if feature_lengths is None or len(groups) < 2:
            together: Tensor = self.audio_tower(input_features, feature_lengths, final_norm=final_norm)
            return together
        rows = input_features.shape[0], self._encoder_frames(input_features.shape[-1]), self.audio_tower.width
        states: Tensor | None = None
        for group in groups:
            lengths = feature_lengths[group]
            encoded = self.audio_tower(input_features[group, :, : int(lengths.max())], lengths, final_norm=final_norm)
            states = encoded.new_zeros(rows) if states is None else states
            states[group, : encoded.shape[1]] = encoded
        assert states is not None
        return states

    def project_audio(self, encoder_states: Tensor, feature_lengths: Tensor) -> Tensor:
        """Audio tokens of all clips, one behind the other.

        Args:
            encoder_states: (clips, encoder frames, width) from `encode_audio`.
            feature_lengths: (clips,) feature frames of each clip.

        Returns:
            (sum of the clips' audio tokens, language-model width).
        """
        k = self.config.frame_stack
        frames = torch.tensor([self._encoder_frames(n) for n in feature_lengths.tolist()])
        real = (torch.arange(encoder_states.shape[1]) < frames[:, None]).to(encoder_states.device)
        if self.projector.pools:
            tokens = self.audio_tower.norm_pooled(pool_frames(encoder_states, real, k))
        else:
            # What the tower leaves at pads must not be stacked into a clip's last token.
            tokens = stack_frames(encoder_states * real[..., None].to(encoder_states.dtype), k)
        return concatenate_real(self.projector(tokens), -(-frames // k))

    def _encoder_frames(self, feature_frames: int) -> int:
        return encoder_frames(feature_frames, self.audio_tower.convolutions)

    def _have_audio(self, input_ids: Tensor) -> Tensor:
        """(batch,) whether there is audio in a row."""
        is_audio: Tensor = input_ids == self.config.audio_token_id
        return is_audio.any(1)

    def _embed(
        self, input_ids: Tensor, input_features: Tensor | None, feature_lengths: Tensor | None, encoder_states: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Ids that are safe to look up, and fused embeddings; None where there is no audio, so that the language model embeds by itself."""
        is_audio = input_ids == self.config.audio_token_id
        # The placeholder may lie behind the last row of the embedding table: nothing is resized, and its row is overwritten anyway.
        safe_ids = input_ids.masked_fill(is_audio, 0)
        if input_features is None and encoder_states is None:
            if bool(is_audio.any()):
                raise ValueError(f"{int(is_audio.sum())} audio placeholders in the prompt but 0 audio embeddings: pass input_features")
            return input_ids, None
        if encoder_states is None:
            assert input_features is not None
            encoder_states = self.encode_audio(input_features.to(self.audio_tower.dtype), feature_lengths)
            if feature_lengths is None:
                feature_lengths = torch.full((len(input_features),), input_features.shape[-1])
        elif feature_lengths is None:
            raise ValueError("encoder_states need feature_lengths: the feature frames of each clip")
        audio_embeds = self.project_audio(encoder_states.to(self.projector.last.weight.dtype), feature_lengths)
        return safe_ids, fuse(self.get_input_embeddings()(safe_ids), is_audio, audio_embeds)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        input_features: Tensor | None = None,
        feature_lengths: Tensor | None = None,
        encoder_states: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: Any,
    ) -> AudioGraftOutput:
        """Loss, or logits.

        Args:
            input_ids: (batch, positions) with one placeholder per audio token.
            attention_mask: (batch, positions).
            labels: (batch, positions), -100 where there is no loss; logits are then computed at labelled positions alone.
            input_features: (clips, channels, frames) of all clips of the batch in order of their placeholders, zero behind each clip's end.
            feature_lengths: (clips,) feature frames of each clip; all of them where None.
            encoder_states: (clips, encoder frames, width), cached output of `encode_audio`, in place of input_features.
            num_items_in_batch: labelled tokens in the whole accumulated batch, by which the loss is divided.
            **kwargs: for the language model (images, positions, cache); with labels there is no cache.

        Raises:
            ValueError: placeholders and audio embeddings differ in number; both counts are named.
        """
        safe_ids, inputs_embeds = self._embed(input_ids, input_features, feature_lengths, encoder_states)
        if inputs_embeds is None and labels is not None and self.training:
            # Where audio comes in too, so that the backward pass takes the same way in all processes.
            inputs_embeds = self.get_input_embeddings()(safe_ids) + unheard(self.audio_tower, self.projector)
        inputs: dict[str, Any] = {"attention_mask": attention_mask, **kwargs}
        looked_up: AbstractContextManager[None] = nullcontext()
        if inputs_embeds is None:
            inputs["input_ids"] = safe_ids
        elif self.has_eyes:
            inputs["input_ids"] = safe_ids
            looked_up = embeddings_give(self.get_input_embeddings(), inputs_embeds)
        else:
            inputs["inputs_embeds"] = inputs_embeds
        if self.has_eyes and not n_cached(kwargs.get("past_key_values")):
            forget_positions(self.language_model)
        compute = partial(call, self.language_model, inputs, labels, num_items_in_batch)
        with looked_up:
            return through_gate(self.lora_gate, self._have_audio(input_ids), compute, kwargs.get("past_key_values"))

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
        feature_lengths: Tensor | None = None,
        encoder_states: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The language model's own `generate` behind the fused prompt: greedy, beams, sampling, streamers, static caches.

        Args:
            input_ids: (batch, positions), left-padded.
            attention_mask: (batch, positions).
            input_features: as in `forward`.
            feature_lengths: as in `forward`.
            encoder_states: as in `forward`.
            **kwargs: whatever the language model's `generate` takes.

        Returns:
            What the language model's `generate` returns; sequences begin with the prompt.
        """
        safe_ids, inputs_embeds = self._embed(input_ids, input_features, feature_lengths, encoder_states)
        looked_up: AbstractContextManager[None] = nullcontext()
        if inputs_embeds is not None and self.has_eyes:
            looked_up = embeddings_give(self.get_input_embeddings(), inputs_embeds[:, n_cached(kwargs.get("past_key_values")) :])
            kwargs["use_cache"] = True  # without it the prompt is looked up again for each token
            if attention_mask is None:
                # `generate` would take the ids in the place of audio for pads, where these are 0 too.
                attention_mask = torch.ones_like(input_ids)
        elif inputs_embeds is not None:
            kwargs["inputs_embeds"] = inputs_embeds
        compute = partial(self.language_model.generate, input_ids=safe_ids, attention_mask=attention_mask, **kwargs)
        with looked_up:
            output: Any = through_gate(self.lora_gate, self._have_audio(input_ids), compute, kwargs.get("past_key_values"))
        sequences = output if isinstance(output, Tensor) else output.sequences
        sequences[:, : input_ids.shape[1]] = input_ids.repeat_interleave(len(sequences) // len(input_ids), dim=0)
        return output

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save configuration, weights and the language model's generation configuration, which knows where an answer ends."""
        super().save_pretrained(save_directory, *args, **kwargs)
        self.language_model.generation_config.save_pretrained(save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load what `save_pretrained` wrote, from a folder or a hub id, the generation configuration with it."""
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        where = {key: kwargs[key] for key in HUB_KEYWORDS if key in kwargs}
        # Without one, the language model keeps what its own configuration says.
        with suppress(OSError):
            model.language_model.generation_config = GenerationConfig.from_pretrained(pretrained_model_name_or_path, **where)
        return loaded
