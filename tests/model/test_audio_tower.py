"""The tower equals stock Whisper where that is defined, and pads change nothing."""

from __future__ import annotations

import builders
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.whisper.modeling_whisper import WhisperEncoder


def test_equals_the_stock_encoder_at_30_s_bit_for_bit() -> None:
    tower = builders.audio_tower()
    stock = WhisperEncoder(tower.config).eval()
    stock.load_state_dict(tower.state_dict())
    mel = torch.randn(2, 80, 3000)
    assert torch.equal(tower(mel, torch.tensor([3000, 3000])), stock(mel).last_hidden_state)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 400), min_size=2, max_size=4))
def test_padding_inside_a_batch_changes_nothing(lengths: list[int]) -> None:
    tower = builders.audio_tower()
    torch.manual_seed(len(lengths))
    mels = [torch.randn(80, n) for n in lengths]
    batch = torch.zeros(len(mels), 80, max(lengths))
    for row, mel in enumerate(mels):
        batch[row, :, : mel.shape[1]] = mel
    together = tower(batch, torch.tensor(lengths))
    for row, mel in enumerate(mels):
        alone = tower(mel[None])[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-5, rtol=1e-4)


def test_more_than_30_s_is_refused() -> None:
    with pytest.raises(ValueError, match="3002 mel frames are too many"):
        builders.audio_tower()(torch.zeros(1, 80, 3002))
