from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import pytest
import torch

from audiograft.inference.caching import fill_cache, open_cache
from audiograft.train.collator import Collator
from audiograft.train.dataset import SpeechDataset
from audiograft.train.recipe import Recipe
from audiograft.train.rows import Row, index_rows, read_samples


@pytest.fixture
def made(tmp_path: Path) -> tuple[Any, Any, list[Row], Any]:
    """A model, its processor, rows of which some are padded, and their cache."""
    manifest = builders.write_clips(tmp_path / "made", [builders.tone(length) for length in (0.5, 0.13, 1.1, 0.3)], ["one"] * 4)
    model, processor = builders.graft()
    rows, _ = index_rows(read_samples([str(manifest)], None), processor, pad_share=0.4, seed=3)
    assert len({row.padded for row in rows}) == 2
    cache = open_cache(tmp_path / "cache", model, processor, torch.float32, "float32")
    fill_cache(cache, [(row.sample.audio, row.padded) for row in rows], lambda: (model, processor), torch.float32)
    return model, processor, rows, cache


def loss(model: Any, processor: Any, items: list[dict[str, Any]]) -> float:
    batch = Collator(processor)(items)
    with torch.no_grad():
        return float(model(**{key: value for key, value in batch.items() if key not in ("ids", "audio_s", "lost")}).loss)


def test_a_batch_of_cached_rows_has_the_loss_of_one_that_listens(made) -> None:
    model, processor, rows, cache = made
    usual, cached = SpeechDataset(rows, processor), SpeechDataset(rows, processor, cache)
    expected = loss(model, processor, [usual[index] for index in range(4)])
    assert loss(model, processor, [cached[index] for index in range(4)]) == pytest.approx(expected, rel=1e-5)


def test_a_cached_row_outlives_its_clip_and_one_that_changed_is_lost_alone(made) -> None:
    model, processor, rows, cache = made
    cached = SpeechDataset(rows, processor, cache)
    expected = loss(model, processor, [cached[2], cached[0]])
    Path(rows[2].sample.audio).unlink()
    assert loss(model, processor, [cached[2], cached[0]]) == expected
    builders.soundfile.write(rows[1].sample.audio, builders.tone(0.13, 999.0), 16_000)
    items = [cached[2], cached[0], cached[1]]
    assert [("lost" in item) for item in items] == [False, False, True]
    assert "1.wav: is not in the feature cache" in items[2]["lost"].reason
    assert len(items[2]["states"][0]) == processor.front_end.encoder_frames(rows[1].feature_frames[0])
    assert loss(model, processor, items) == pytest.approx(expected, rel=1e-5)


def test_a_run_uses_what_the_verb_made_and_both_stages_share_it(recipe: Recipe, run_quietly: Callable[..., Any], tmp_path: Path) -> None:
    from audiograft.cli import main

    folder, cache = Path(recipe.output_dir), tmp_path / "cache"
    losses = [line["loss"] for line in run_quietly(recipe)["log"] if "loss" in line]
    assert main(["cache-features", "--model", str(recipe.model), "--data", str(recipe.data.train[0]), "--out", str(cache)]) == 0
    shards = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.safetensors")}
    assert shards
    cached = run_quietly(recipe, output_dir=str(tmp_path / "cached"), feature_cache=str(cache))
    assert [line["loss"] for line in cached["log"] if "loss" in line] == pytest.approx(losses, rel=2e-3)
    run_quietly(recipe, stage="finetune", model=str(folder), output_dir=str(tmp_path / "tuned"), feature_cache=str(cache))
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*/*.safetensors")} == shards
