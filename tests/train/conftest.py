"""A tiny graft on disk, and clips that can be told apart by ear: one pitch a text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import pytest
from rich.console import Console

from audiograft.model import AudioGraftForConditionalGeneration, AudioGraftProcessor, assemble
from audiograft.train.recipe import DataRecipe, DeafnessRecipe, Recipe
from audiograft.train.run import train

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
TEXTS = tuple(f"{first} {second}" for first, second in zip(WORDS, (*WORDS[1:], WORDS[0]), strict=True))


@pytest.fixture(autouse=True)
def no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no picture at their end, which takes longer than their steps, except where curves are what is tested."""
    if request.node.path.stem != "test_curves":
        monkeypatch.setattr("audiograft.train.finish.draw_curves", lambda folder: None)


@pytest.fixture(scope="session")
def graft() -> tuple[AudioGraftForConditionalGeneration, AudioGraftProcessor]:
    """For tests that only read it."""
    return builders.graft()


@pytest.fixture(scope="session")
def graft_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    _, processor = builders.graft()
    # Larger weights than usual: with frozen embeddings, small ones would bound the logits and so the loss.
    model = assemble(builders.audio_tower(), builders.language_model(initializer_range=0.3), processor)
    folder = tmp_path_factory.mktemp("graft")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight tones of one length: nothing but their pitch tells them apart."""
    waveforms = [builders.tone(0.4, 200.0 * 1.4**number, number) for number in range(8)]
    return builders.write_clips(tmp_path_factory.mktemp("clips"), waveforms, TEXTS)


@pytest.fixture
def recipe(graft_folder: Path, clips: Path, tmp_path: Path) -> Recipe:
    """A few steps of aligning."""
    return Recipe(
        stage="align",
        model=str(graft_folder),
        output_dir=str(tmp_path / "run"),
        data=DataRecipe(train=(str(clips),)),
        max_steps=6,
        tokens_per_batch=80,
        logging_steps=1,
        save_steps=3,
        deafness=DeafnessRecipe(clips=8, permutations=300),
    )


@pytest.fixture
def run_quietly() -> Callable[..., dict[str, Any]]:
    """`train` with some keys of the recipe changed, and nothing printed."""

    def run(recipe: Recipe, on_log: Callable[[dict[str, float]], None] = lambda line: None, **changes: Any) -> dict[str, Any]:
        return train(replace(recipe, **changes), on_log, Console(quiet=True))

    return run
