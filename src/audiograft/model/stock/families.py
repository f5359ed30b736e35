"""The stock audio language models of transformers: one `Family` each, which holds all that differs between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    AudioFlamingo3ForConditionalGeneration,
    AutoTokenizer,
    GraniteSpeechForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2AudioForConditionalGeneration,
    VoxtralForConditionalGeneration,
)
from transformers.masking_utils import create_bidirectional_mask

from audiograft.model.fusion import concatenate_real
from audiograft.model.lengths import mel_frames
from audiograft.model.stock.mel import MelSpec, stacked_log_mel, window_log_mel
from audiograft.types import HOP_SAMPLES, WINDOW_FRAMES


@dataclass(frozen=True)
class Family:
    """What one kind of stock model has of its own.

    Attributes:
        model_class: the class of transformers.
        audio_token: the placeholder, one per audio token.
        encoder_frames: samples of a clip -> frames that leave the tower.
        audio_tokens: configuration and those frames -> positions in the language model.
        audio_embeds: model, (clips, samples) waveforms, their lengths in samples, spectrogram -> (audio tokens of all clips, width).
        min_samples: a shorter clip is followed by zeros up to here; from here on it has an audio token.
        before_clip: stands before a clip's placeholder; {number} counts the clips of a conversation.
        after_clip: stands behind it.
        audio_tower: name of the encoder inside the stock model.
        projector: name of the projector there.
        mel_scale: whose mel filters the encoder was trained on, Whisper's or torchaudio's.
        chat_template: taken where the checkpoint has none.
        tokenizer_class: what opens the tokenizer.
        tokenizer_options: passed to it.
    """

    model_class: Any
    audio_token: str
    encoder_frames: Callable[[int], int]
    audio_tokens: Callable[[Any, int], int]
    audio_embeds: Callable[[Any, Tensor, Sequence[int], MelSpec], Tensor]
    min_samples: int
    before_clip: str = ""
    after_clip: str = ""
    audio_tower: str = "audio_tower"
    projector: str = "multi_modal_projector"
    mel_scale: Literal["slaney", "htk"] = "slaney"
    chat_template: str | None = None
    tokenizer_class: Any = AutoTokenizer
    tokenizer_options: Mapping[str, Any] = field(default_factory=dict)


def _pooled_frames(n_samples: int) -> int:
    """Whisper's encoder frames (20 ms), averaged two by two; an odd last one is left out."""
    convolved = (mel_frames(n_samples) - 1) // 2 + 1
    return (convolved - 2) // 2 + 1


def _real(lengths: Sequence[int], frames: int, device: torch.device) -> Tensor:
    """(clips, frames) True where a clip is."""
    return torch.arange(frames, device=device) < torch.tensor(lengths, device=device)[:, None]


def _qwen2_audio(stock: Any, waveforms: Tensor, lengths: Sequence[int], spec: MelSpec) -> Tensor:
    tower = stock.model.audio_tower
    mel = window_log_mel(waveforms, spec).to(tower.conv1.weight.dtype)
    real = _real([(mel_frames(n) - 1) // 2 + 1 for n in lengths], WINDOW_FRAMES // 2, mel.device)
    mask = create_bidirectional_mask(config=tower.config, inputs_embeds=mel.new_zeros(*real.shape, 1), attention_mask=real)
    states = tower(mel, attention_mask=mask).last_hidden_state
    return concatenate_real(stock.model.multi_modal_projector(states), torch.tensor([_pooled_frames(n) for n in lengths]))


def _voxtral(stock: Any, waveforms: Tensor, lengths: Sequence[int], spec: MelSpec) -> Tensor:
    embeds: Tensor = stock.get_audio_features(window_log_mel(waveforms, spec)).pooler_output
    return embeds


def _audio_flamingo3(stock: Any, waveforms: Tensor, lengths: Sequence[int], spec: MelSpec) -> Tensor:
    mel = window_log_mel(waveforms, spec).to(stock.model.audio_tower.conv1.weight.dtype)
    real = _real([mel_frames(n) for n in lengths], WINDOW_FRAMES, mel.device)
    embeds: Tensor = stock.get_audio_features(mel, input_features_mask=real).pooler_output
    return embeds


def _granite_speech(stock: Any, waveforms: Tensor, lengths: Sequence[int], spec: MelSpec) -> Tensor:
    # The stock encoder has no mask: clips of other lengths would be heard through their pads. Clips of one length share a batch.
    embeds: dict[int, Tensor] = {}
    for length in set(lengths):
        group = [index for index, own in enumerate(lengths) if own == length]
        mel = stacked_log_mel(waveforms[group, :length], spec).to(next(stock.model.encoder.parameters()).dtype)
        embeds |= zip(group, stock.get_audio_features(mel).pooler_output, strict=True)
    return torch.cat([embeds[index] for index in range(len(lengths))])


_QWEN2_AUDIO_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The format of transformers' own default, whose clips are written by `before_clip` and `after_clip`."""

_VOXTRAL_TEMPLATE = (
    "{{ '<s>' }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}{{ '[INST]' + m['content'] + '[/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] + '</s>' }}"
    "{% else %}{{ raise_exception('Voxtral takes no ' + m['role'] + ' turn: put it into the question') }}{% endif %}{% endfor %}"
)
"""As mistral-common 1.9.1 writes conversations with audio; it refuses system turns there too."""

FAMILIES: dict[str, Family] = {
    "qwen2_audio": Family(
        Qwen2AudioForConditionalGeneration,
        audio_token="<|AUDIO|>",
        encoder_frames=_pooled_frames,
        audio_tokens=lambda config, frames: frames,
        audio_embeds=_qwen2_audio,
        min_samples=2 * HOP_SAMPLES + 1,
        before_clip="Audio {number}: <|audio_bos|>",
        after_clip="<|audio_eos|>\n",
        chat_template=_QWEN2_AUDIO_TEMPLATE,
    ),
    "voxtral": Family(
        VoxtralForConditionalGeneration,
        audio_token="[AUDIO]",
        encoder_frames=lambda n_samples: WINDOW_FRAMES // 2,
        # The projector stacks frames up to the width of the encoder's feed-forward layers: four of them.
        audio_tokens=lambda config, frames: frames * config.audio_config.hidden_size // config.audio_config.intermediate_size,
        audio_embeds=_voxtral,
        min_samples=1,
        before_clip="[BEGIN_AUDIO]",
        chat_template=_VOXTRAL_TEMPLATE,
        # Checkpoints have tekken.json alone, which transformers turns into a plain tokenizer with the ids of mistral-common, that package or not.
        tokenizer_class=PreTrainedTokenizerFast,
        tokenizer_options={"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"},
    ),
    "audioflamingo3": Family(
        AudioFlamingo3ForConditionalGeneration,
        audio_token="<sound>",
        encoder_frames=_pooled_frames,
        audio_tokens=lambda config, frames: frames,
        audio_embeds=_audio_flamingo3,
        min_samples=2 * HOP_SAMPLES + 1,
    ),
    "granite_speech": Family(
        GraniteSpeechForConditionalGeneration,
        audio_token="<|audio|>",
        encoder_frames=lambda n_samples: (n_samples // HOP_SAMPLES + 1) // 2,
        audio_tokens=lambda config, frames: -(-frames // config.window_size) * (config.window_size // config.downsample_rate),
        audio_embeds=_granite_speech,
        # More than half of its Fourier transform of 512 samples, which is reflected at both ends.
        min_samples=257,
        audio_tower="encoder",
        projector="projector",
        mel_scale="htk",
    ),
}
"""By `model_type` of the configuration."""
