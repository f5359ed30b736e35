from __future__ import annotations

from pathlib import Path

import builders
import numpy as np
import pytest
import soundfile
import torch

from audiograft.model import AudioGraftProcessor
from audiograft.train.feature_cache import build_cache
from audiograft.train.rows import index_rows, load_clips, read_samples
from audiograft.types import AudiograftError


@pytest.fixture
def made(tmp_path: Path):
    manifest = builders.write_clips(tmp_path / "made", [builders.tone(length) for length in (0.5, 0.13, 1.1, 0.3)], ["one"] * 4)

    def build(projector: str = "swiglu"):
        model, processor = builders.graft(projector=projector)
        rows, _ = index_rows(read_samples([str(manifest)], None), processor, pad_share=0.4, seed=3)
        computed: list[None] = []
        cache = build_cache(tmp_path / "cache", model, processor, rows, on_clip=lambda: computed.append(None))
        return model, processor, rows, cache, len(computed)

    return build


@pytest.mark.parametrize("projector", ["swiglu", "pool-linear"])
def test_cached_states_are_the_towers_of_each_clip_alone(made, projector: str) -> None:
    model, processor, rows, cache, computed = made(projector)
    assert computed == 4
    assert len({row.padded for row in rows}) == 2
    for index, row in enumerate(rows):
        [clip], [cached] = load_clips(row), cache.states(index)
        with torch.no_grad():
            states = model.encode_audio(**processor.pad_features([processor.features(clip, pad_to_window=row.padded)]))[0]
        assert cached.shape == states.shape
        np.testing.assert_allclose(cached.astype(np.float32), states.numpy(), atol=4e-3)


def test_a_cache_is_reused_until_a_clip_changes(made) -> None:
    rows, first = made()[2], made()[3]
    before = first.states(0)[0]
    *_, computed = made()
    assert computed == 0
    soundfile.write(rows[0].sample.audio, builders.tone(0.5, 1234.0), 16_000)
    *_, second, computed = made()
    assert computed == 4
    assert not np.array_equal(second.states(0)[0], before)


def test_a_cache_of_another_tower_is_not_used(made, tmp_path: Path) -> None:
    model, processor, rows, _, _ = made()
    with torch.no_grad():
        model.audio_tower.conv1.weight[0, 0, 0] += 1
    computed: list[None] = []
    build_cache(tmp_path / "cache", model, processor, rows, on_clip=lambda: computed.append(None))
    assert len(computed) == 4


def test_states_beyond_float16_are_refused(made, tmp_path: Path) -> None:
    model, processor, rows, _, _ = made()
    assert isinstance(processor, AudioGraftProcessor)
    with torch.no_grad():
        model.audio_tower.layer_norm.weight.fill_(1e6)
    with pytest.raises(AudiograftError, match="clip-1: its features overflow float16: set feature_cache to null"):
        build_cache(tmp_path / "other", model, processor, rows)
