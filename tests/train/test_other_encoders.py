"""Aligning and listening with ears that are not Whisper's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from audiograft.inference.caching import fill_cache, open_cache
from audiograft.inference.engine import Engine
from audiograft.model import graft_in_memory
from audiograft.model.checkpoint import save_graft
from audiograft.train.recipe import DataRecipe
from audiograft.train.rows import index_rows, read_samples
from audiograft.types import ConfigError

KINDS = ("wavlm", "hubert-base", "wav2vec2-bert")


@pytest.fixture(scope="module")
def grafts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A graft folder a kind of encoder."""
    folder = tmp_path_factory.mktemp("grafts")
    lm = builders.lm_checkpoint(folder / "lm")
    for kind in KINDS:
        encoder = builders.encoder_checkpoint(folder / f"{kind}-encoder", kind)
        save_graft(*graft_in_memory(encoder, lm, frame_stack=2), folder / kind)
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of unequal length, one shorter than what an encoder reads at once."""
    lengths_s = (0.4, 0.51, 0.3, 0.72, 0.4, 0.6, 0.33, 0.01)
    waveforms = [builders.tone(length, 200.0 * 1.4**number, number) for number, length in enumerate(lengths_s)]
    return builders.write_clips(tmp_path_factory.mktemp("mixed"), waveforms, ["one two", "three", "four five", "six", "seven", "eight", "two", "one"])


@pytest.mark.parametrize(("kind", "cached"), [("wavlm", False), ("wav2vec2-bert", True)])
def test_two_steps_of_aligning_and_a_transcript(recipe, run_quietly, grafts, mixed: Path, tmp_path: Path, kind: str, cached: bool) -> None:
    cache = str(tmp_path / "cache") if cached else None
    result = run_quietly(
        recipe, model=str(grafts[kind]), data=DataRecipe((str(mixed),)), max_steps=2, tokens_per_batch=400, feature_cache=cache, learning_rate=1e-2
    )
    assert [line["loss"] for line in result["log"] if "loss" in line]
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (grafts[kind], recipe.output_dir))
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"projector"}
    engine = Engine.load(recipe.output_dir, device="cpu")
    clips = [builders.tone(0.5), builders.tone(0.9, 700.0), builders.tone(1e-4)]
    together = engine.transcribe_waveforms(clips, ["Transcribe the audio."] * 3, batch_size=3)
    assert together == [engine.transcribe_waveforms([clip], ["Transcribe the audio."])[0] for clip in clips]
    # Longer than 30 s is cut into windows, as for Whisper.
    assert len(engine.transcribe((np.tile(builders.tone(10), 4), 16_000), max_new_tokens=2).segments) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_holds_what_the_tower_gives(grafts, mixed: Path, tmp_path: Path, kind: str) -> None:
    engine = Engine.load(grafts[kind], device="cpu")
    rows, rejected = index_rows(read_samples([str(mixed)]), engine.processor)
    assert not rejected
    cache = open_cache(tmp_path / "cache", engine.model, engine.processor, torch.float32)
    fill_cache(cache, [(row.sample.audio, False) for row in rows], lambda: (engine.model, engine.processor), torch.float32)
    for row in rows:
        waveform = builders.soundfile.read(row.sample.audio, dtype="float32")[0]
        features = engine.processor.features(waveform)
        assert (features.shape[1],) == row.feature_frames
        with torch.no_grad():
            expected = engine.model.encode_audio(torch.from_numpy(features)[None])[0].to(torch.float16)
        torch.testing.assert_close(cache.states(row.sample.audio, False), expected, rtol=0, atol=2e-3)


def test_losses_with_and_without_a_cache_agree(recipe, run_quietly, grafts, mixed: Path, tmp_path: Path) -> None:
    logs = []
    for name, cache in (("plain", None), ("cached", str(tmp_path / "cache"))):
        changes = {"model": str(grafts["hubert-base"]), "data": DataRecipe((str(mixed),)), "max_steps": 3, "tokens_per_batch": 100}
        result = run_quietly(recipe, output_dir=str(tmp_path / name), feature_cache=cache, **changes)
        logs.append([line["loss"] for line in result["log"] if "loss" in line])
    np.testing.assert_allclose(*logs, rtol=1e-3)


def test_a_share_of_clips_padded_to_30_s_is_refused(recipe, run_quietly, grafts) -> None:
    with pytest.raises(ConfigError, match="only Whisper's encoder is trained on clips padded to 30 s: .*pad_to_window_share at 0") as raised:
        run_quietly(replace(recipe, model=str(grafts["wavlm"]), pad_to_window_share=1.0))
    assert "\n" not in str(raised.value)
