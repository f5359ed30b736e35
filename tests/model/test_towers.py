"""Ears that are not Whisper's: WavLM, HuBERT, wav2vec 2.0 and Wav2Vec2-BERT behind the interface of the audio tower."""

from __future__ import annotations

from functools import cache
from typing import Any

import builders
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor, assemble
from audiograft.model.configuration import PROJECTORS, AudioGraftConfig, tower_config
from audiograft.model.front_end import build_front_end
from audiograft.model.lengths import audio_tokens
from audiograft.model.towers import TOWERS, build_tower, waveform_convolutions
from audiograft.types import ConfigError

LENGTHS = (16_000, 4_321, 25_600, 399, 1)
RAW = tuple(kind for kind in builders.ENCODERS if not kind.startswith("wav2vec2-bert"))


@cache
def stock(kind: str) -> Any:
    return builders.encoder(kind)


@cache
def tower(kind: str) -> Any:
    """The tower with the stock model's weights."""
    model = build_tower(stock(kind).config).eval()
    weights = {name: value for name, value in stock(kind).state_dict().items() if name != "masked_spec_embed"}
    model.load_state_dict(weights)
    return model


@cache
def grafted(kind: str, projector: str = "swiglu", frame_stack: int = 4) -> tuple[AudioGraftForConditionalGeneration, AudioGraftProcessor]:
    extractor = SeamlessM4TFeatureExtractor(padding_value=1) if kind.startswith("wav2vec2-bert") else Wav2Vec2FeatureExtractor()
    convolutions = None if kind.startswith("wav2vec2-bert") else waveform_convolutions(stock(kind).config)
    processor = AudioGraftProcessor(extractor, builders.tokenizer(), frame_stack=frame_stack, encoder_convolutions=convolutions)
    return assemble(tower(kind), builders.language_model(), processor, projector), processor


def clip(n_samples: int, seed: int = 0) -> np.ndarray:
    """Speech-like in that its level changes and its mean is not zero."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(n_samples) * np.linspace(0.02, 0.3, n_samples) + 0.05).astype(np.float32)


@pytest.mark.parametrize("kind", builders.ENCODERS)
@pytest.mark.parametrize("n_samples", [16_000, 16_161, 4_321])
def test_a_single_clip_gives_what_the_stock_encoder_gives(kind: str, n_samples: int) -> None:
    _, processor = grafted(kind)
    waveform = clip(n_samples)
    inputs = processor.feature_extractor(waveform, sampling_rate=16_000, return_tensors="pt")
    features = torch.from_numpy(processor.features(waveform))[None]
    with torch.no_grad():
        expected = stock(kind)(**inputs).last_hidden_state
        states = tower(kind)(features)
    # Stock Wav2Vec2-BERT masks the half of a stacked frame that is left over; we leave it out.
    expected = expected[:, : states.shape[1]]
    torch.testing.assert_close(states, expected, rtol=0, atol=0 if kind in RAW else 1e-5)
    assert states.shape[1] == processor.front_end.encoder_frames(features.shape[-1])


@pytest.mark.parametrize("kind", builders.ENCODERS)
def test_pads_change_nothing_and_a_batch_equals_its_clips(kind: str) -> None:
    model, processor = grafted(kind)
    clips = [processor.features(clip(n, seed)) for seed, n in enumerate(LENGTHS)]
    batch = processor.pad_features(clips)
    with torch.no_grad():
        together = tower(kind)(**batch)
        grouped = model.encode_audio(**batch)
        for number, features in enumerate(clips):
            alone = tower(kind)(torch.from_numpy(features)[None])[0]
            assert len(alone) == processor.front_end.encoder_frames(features.shape[1])
            torch.testing.assert_close(together[number, : len(alone)], alone, atol=2e-5, rtol=0)
            torch.testing.assert_close(grouped[number, : len(alone)], alone, atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", builders.ENCODERS)
def test_what_stands_at_pads_does_not_matter(kind: str) -> None:
    _, processor = grafted(kind)
    clips = [processor.features(clip(n, n)) for n in (9_000, 16_000)]
    batch = processor.pad_features(clips)
    loud = {**batch, "input_features": batch["input_features"].clone()}
    loud["input_features"][0, :, clips[0].shape[1] :] = 7.0
    frames = processor.front_end.encoder_frames(clips[0].shape[1])
    with torch.no_grad():
        torch.testing.assert_close(tower(kind)(**loud)[0, :frames], tower(kind)(**batch)[0, :frames], atol=1e-6, rtol=0)


@settings(max_examples=25)
@given(
    kind=st.sampled_from(builders.ENCODERS),
    n_samples=st.one_of(st.integers(1, 3_000), st.integers(1, 40_000)),
    k=st.sampled_from([1, 2, 4, 8]),
)
def test_lengths_are_those_of_the_real_model(kind: str, n_samples: int, k: int) -> None:
    front_end = build_front_end(grafted(kind)[1].feature_extractor, k, grafted(kind)[1].encoder_convolutions)
    features = front_end.features(clip(n_samples))
    assert features.dtype == np.float32
    assert features.shape == (front_end.channels, front_end.feature_frames(n_samples))
    assert np.isfinite(features).all()
    with torch.no_grad():
        states = tower(kind)(torch.from_numpy(features)[None])
    assert torch.isfinite(states).all()
    assert states.shape[1] == front_end.encoder_frames(features.shape[1]) >= 1
    assert front_end.audio_tokens(features.shape[1]) == -(-states.shape[1] // k) >= 1


@given(n_samples=st.integers(400, 480_000))
def test_waveforms_are_counted_as_transformers_counts_them(n_samples: int) -> None:
    config = stock("wavlm").config
    expected = int(stock("wavlm")._get_feat_extract_output_lengths(n_samples))
    assert audio_tokens(n_samples, 1, waveform_convolutions(config)) == expected


@given(n_samples=st.integers(1, 480_000))
def test_waveforms_take_20_ms_frames(n_samples: int) -> None:
    front_end = grafted("hubert")[1].front_end
    frames = front_end.encoder_frames(front_end.feature_frames(n_samples))
    assert abs(frames - n_samples / 320) <= 1.25


def test_a_clip_is_normalised_without_its_neighbours() -> None:
    processor = grafted("wavlm")[1]
    features = processor.features(clip(8_000))
    assert abs(float(features.mean())) < 1e-4
    assert abs(float(features.std()) - 1) < 1e-3
    short = processor.features(clip(100))
    # Zeros that fill a short clip up take no part in its mean.
    assert abs(float(short[0, :100].mean())) < 1e-4
    assert not short[0, 100:].any()
    processor = AudioGraftProcessor(
        Wav2Vec2FeatureExtractor(do_normalize=False), builders.tokenizer(), encoder_convolutions=processor.encoder_convolutions
    )
    np.testing.assert_array_equal(processor.features(clip(8_000))[0], clip(8_000))


@pytest.mark.parametrize("kind", builders.ENCODERS)
def test_no_masking_and_no_layer_drop_in_training_mode(kind: str) -> None:
    config = builders.encoder_config(kind, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0)
    if hasattr(config, "conformer_conv_dropout"):
        config.conformer_conv_dropout = 0.0
    model = build_tower(config)
    features = torch.from_numpy(grafted(kind)[1].features(clip(32_000)))[None]
    with torch.no_grad():
        expected = model.eval()(features)
        model.train()
        for _ in range(3):
            torch.testing.assert_close(model(features), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", builders.ENCODERS)
@pytest.mark.parametrize("projector", PROJECTORS)
def test_every_projector_starts_as_loud_as_text(kind: str, projector: str) -> None:
    model, processor = grafted(kind, projector, frame_stack=2)
    features = processor.pad_features([processor.features(clip(32_000))])
    with torch.no_grad():
        audio = model.project_audio(model.encode_audio(**features), features["feature_lengths"])
    text = model.get_input_embeddings().weight.detach()
    assert 0.3 < float(audio.pow(2).mean().sqrt() / text.pow(2).mean().sqrt()) < 3


@pytest.mark.parametrize("kind", builders.ENCODERS)
def test_answers_in_a_batch_are_those_of_single_clips(kind: str) -> None:
    model, processor = grafted(kind)
    clips = [clip(n, seed) for seed, n in enumerate(LENGTHS)]
    prompt = processor.build_prompt([{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "\nhi"}]}])
    batch = processor([prompt] * len(clips), audio=clips)
    output = model.generate(**batch, max_new_tokens=6, do_sample=False)
    for number, waveform in enumerate(clips):
        alone = processor([prompt], audio=[waveform])
        expected = model.generate(**alone, max_new_tokens=6, do_sample=False)[0, alone["input_ids"].shape[1] :]
        assert output[number, batch["input_ids"].shape[1] :][: len(expected)].tolist() == expected.tolist()


def test_gradients_reach_adapters_on_the_tower() -> None:
    """Padded clips, training mode and gradient checkpointing together, as LoRA on the encoder needs."""
    model = build_tower(builders.encoder_config("wavlm"))
    model.activation_checkpointing_enable()
    model.train()
    processor = grafted("wavlm")[1]
    batch = processor.pad_features([processor.features(clip(n)) for n in (9_000, 16_000)])
    model(**batch).pow(2).mean().backward()
    assert all(layer.attention.q_proj.weight.grad.abs().sum() > 0 for layer in model.encoder.layers)


def test_the_configuration_leaves_pretraining_behind() -> None:
    config = AudioGraftConfig(audio_config=builders.encoder_config("wavlm", add_adapter=True), text_config=builders.language_model().config)
    audio_config = AudioGraftConfig.from_dict(config.to_dict()).audio_config
    assert (audio_config.layerdrop, audio_config.mask_time_prob, audio_config.mask_feature_prob, audio_config.add_adapter) == (0, 0, 0, False)
    given = builders.encoder_config("wavlm")
    assert tower_config(given) is not given
    assert given.layerdrop == 0.5
    assert set(TOWERS) >= {"whisper", "wavlm", "hubert", "wav2vec2", "wav2vec2-bert"}


@pytest.mark.parametrize(
    ("model_type", "overrides", "message"),
    [
        ("data2vec-audio", {}, "data2vec-audio is no audio encoder that can be grafted: use one of Whisper, WavLM, HuBERT"),
        ("bert", {}, "bert is no audio encoder"),
        ("hubert", {"conv_pos_batch_norm": True}, "conv_pos_batch_norm"),
    ],
)
def test_other_encoders_are_refused(model_type: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AudioGraftConfig(audio_config=AutoConfig.for_model(model_type, **overrides), text_config=builders.language_model().config)


def test_only_whisper_pads_to_30_s() -> None:
    with pytest.raises(ConfigError, match="pad_to_window: WavLM takes clips of any length"):
        AudioGraftConfig(audio_config=builders.encoder_config("wavlm"), text_config=builders.language_model().config, pad_to_window=True)
    for kind in ("hubert", "wav2vec2-bert"):
        with pytest.raises(ConfigError, match="pad_to_window_share at 0"):
            grafted(kind)[1].features(clip(16_000), pad_to_window=True)


def test_front_ends_that_do_not_belong_are_refused() -> None:
    with pytest.raises(ConfigError, match="graft it again"):
        AudioGraftProcessor(Wav2Vec2FeatureExtractor(), builders.tokenizer())
    with pytest.raises(ConfigError, match="8000 Hz"):
        AudioGraftProcessor(Wav2Vec2FeatureExtractor(sampling_rate=8000), builders.tokenizer(), encoder_convolutions=[(10, 5)])
    for kind, other, message in (
        ("hubert", "wav2vec2-bert", "the feature extractor gives 160 values a frame, the encoder takes 1"),
        ("wav2vec2-bert", "hubert", "the feature extractor gives 1 values a frame, the encoder takes 160"),
    ):
        with pytest.raises(ConfigError, match=message):
            assemble(tower(kind), builders.language_model(), grafted(other)[1])
    shorter = AudioGraftProcessor(Wav2Vec2FeatureExtractor(), builders.tokenizer(), encoder_convolutions=[(10, 5), (3, 2)])
    with pytest.raises(ConfigError, match="counts other frames"):
        assemble(tower("hubert"), builders.language_model(), shorter)
