"""One length function for processor, model and collator."""

from __future__ import annotations

import builders
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiograft.model.configuration import FRAME_STACKS
from audiograft.model.features import log_mel
from audiograft.model.lengths import audio_tokens, encoder_frames, mel_frames, similar_lengths
from audiograft.train.collator import Collator

MODELS = {k: builders.graft(frame_stack=k) for k in FRAME_STACKS}


@settings(max_examples=25, deadline=None)
@given(n_samples=st.one_of(st.integers(1, 480_000), st.integers(1, 2_000), st.integers(479_000, 480_000)), k=st.sampled_from(FRAME_STACKS))
def test_processor_model_and_collator_agree(n_samples: int, k: int) -> None:
    model, processor = MODELS[k]
    waveform = np.full(n_samples, 0.1, dtype=np.float32)
    mel = processor.features(waveform)
    assert mel.shape[1] == mel_frames(n_samples)
    batch = processor([processor.audio_token], audio=[waveform])
    placeholders = int((batch["input_ids"] == processor.audio_token_id).sum())
    row = processor.training_inputs([{"role": "user", "content": [{"type": "audio"}]}], "x", [mel.shape[1]])
    states = torch.zeros(encoder_frames(mel.shape[1]), 16)
    item = {"id": "a", "audio_s": n_samples / 16_000, **row}
    counts = set()
    for features in ({"features": [mel]}, {"states": [states]}):
        training = Collator(processor)([item | features | {"feature_frames": [mel.shape[1]]}])
        encoder_states = training.get("encoder_states", states[None])
        counts.add(int((training["input_ids"] == processor.audio_token_id).sum()))
        counts.add(len(model.project_audio(encoder_states, training["feature_lengths"])))
    assert counts == {placeholders} == {audio_tokens(mel.shape[1], k)}
    assert placeholders >= 1


@given(n_samples=st.integers(1, 480_000), k=st.sampled_from(FRAME_STACKS))
def test_tokens_follow_the_clip(n_samples: int, k: int) -> None:
    tokens = audio_tokens(mel_frames(n_samples), k)
    assert tokens == max(1, -(-n_samples // (320 * k)))


@pytest.mark.parametrize("n_samples", [1, 159, 160, 161, 200, 201, 320, 3999, 16_000])
def test_tower_gives_as_many_frames_as_counted(n_samples: int) -> None:
    model, processor = MODELS[4]
    mel = torch.from_numpy(processor.features(np.ones(n_samples, dtype=np.float32)))
    assert model.audio_tower(mel[None]).shape[1] == encoder_frames(mel_frames(n_samples))


@pytest.mark.parametrize("n_samples", [0, 480_001])
def test_no_chunk_outside_the_window(n_samples: int) -> None:
    with pytest.raises(ValueError, match="1 to 480000 samples"):
        mel_frames(n_samples)


def test_pad_to_window_counts_3000_frames() -> None:
    front_end = MODELS[4][1].front_end
    assert front_end.feature_frames(5, pad_to_window=True) == 3000
    assert front_end.feature_frames(480_000) == 3000


@pytest.mark.parametrize("n_samples", [201, 5_000, 16_000, 100_000])
def test_features_equal_the_stock_extractors_for_the_padded_clip(n_samples: int) -> None:
    extractor = MODELS[4][1].feature_extractor
    waveform = np.random.default_rng(0).standard_normal(n_samples).astype(np.float32) * 0.1
    stock = extractor(waveform, sampling_rate=16_000, return_tensors="np")["input_features"][0]
    np.testing.assert_allclose(log_mel(extractor, waveform), stock[:, : mel_frames(n_samples)], atol=1e-6)
    np.testing.assert_array_equal(log_mel(extractor, waveform, pad_to_window=True), stock)


@given(lengths=st.lists(st.integers(1, 3000), max_size=30))
def test_groups_of_similar_length_hold_every_clip_once(lengths: list[int]) -> None:
    groups = similar_lengths(lengths)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        own = [lengths[index] for index in group]
        assert max(own) <= 1.15 * min(own)
