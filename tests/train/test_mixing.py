"""Several corpora in one recipe: how often each row comes, sources that are prepared first, and the leakage gate."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from audiograft.train.batching import mixed
from audiograft.train.recipe import Corpus, DataRecipe, DeafnessRecipe, load_recipe
from audiograft.train.run import dry_run, train
from audiograft.train.sources import index_training_rows, training_manifests
from audiograft.types import AudiograftError, ConfigError, DataError


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0.01, 4)), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_each_row_comes_as_often_as_its_weight_says(corpora: list[tuple[int, float]], seed: int) -> None:
    manifest_of = np.repeat(np.arange(len(corpora)), [n_rows for n_rows, _ in corpora])
    weights = [weight for _, weight in corpora]
    numbers = mixed(manifest_of, weights, seed)
    assert np.array_equal(numbers, mixed(manifest_of, weights, seed))
    counts = np.bincount(numbers, minlength=len(manifest_of))
    for corpus, (n_rows, weight) in enumerate(corpora):
        own = counts[manifest_of == corpus]
        assert ((own == int(weight)) | (own == int(weight) + 1)).all()
        assert abs(own.sum() - n_rows * weight) <= 0.5 + 1e-9


def test_exact_counts() -> None:
    manifest_of = np.repeat([0, 1, 2], [10, 5, 3])
    counts = Counter(manifest_of[mixed(manifest_of, [2, 0.5, 1], seed=1)].tolist())
    # Half a row counts as one.
    assert counts == {0: 20, 1: 3, 2: 3}
    drawn = {tuple(mixed(manifest_of, [0, 0.5, 0], seed).tolist()) for seed in range(20)}
    assert len(drawn) > 3


@pytest.fixture
def corpora(tmp_path: Path) -> tuple[Path, Path]:
    """Eight clips called clip-0 and so on, and four called other-0 and so on."""
    first = builders.write_clips(tmp_path / "first", [builders.tone(0.4, 200.0 * 1.4**n, n) for n in range(8)], ["one two"] * 8)
    second = builders.write_clips(tmp_path / "second", [builders.tone(0.4, 230.0 * 1.4**n, 9 + n) for n in range(4)], ["two one"] * 4)
    second.write_text(second.read_text(encoding="utf-8").replace("clip-", "other-"), encoding="utf-8")
    return first, second


def test_weights_of_a_recipe_are_those_of_an_epoch(graft, recipe, corpora: tuple[Path, Path]) -> None:
    entries = (Corpus(manifest=str(corpora[0]), weight=0.5), Corpus(manifest=str(corpora[1]), weight=2.0))
    console = Console(quiet=True)

    def epoch(seed: int) -> list[str]:
        changed = replace(recipe, data=DataRecipe(entries), seed=seed)
        rows = index_training_rows(changed, graft[1], training_manifests(changed, console), console)
        return [row.sample.id for row in rows]

    first = Counter(name.partition("-")[0] for name in epoch(1))
    assert first == {"clip": 4, "other": 8}
    assert epoch(1) == epoch(1)
    assert len({tuple(sorted(epoch(seed))) for seed in range(5)}) > 1


def test_a_mixed_run_counts_and_scores_no_clip_twice(recipe, run_quietly: Callable[..., Any], corpora: tuple[Path, Path]) -> None:
    data = DataRecipe((str(corpora[0]), Corpus(manifest=str(corpora[1]), weight=3.0)))
    result = run_quietly(recipe, data=data, max_steps=2, deafness=DeafnessRecipe(clips=100, permutations=300))
    assert result["rows"] == {"train": 20, "validation": 0, "rejected": 0, "lost": 0}
    assert result["deafness"]["clips"] == 12
    assert result["recipe"]["data"]["train"] == (str(corpora[0]), {"manifest": str(corpora[1]), "weight": 3.0})
    with pytest.raises(AudiograftError, match="belongs to a run with data"):
        run_quietly(recipe, data=replace(data, train=(str(corpora[0]), Corpus(manifest=str(corpora[1]), weight=2.0))))


def test_a_source_is_prepared_once_and_learnt_from(recipe, run_quietly: Callable[..., Any], corpora: tuple[Path, Path]) -> None:
    source = Corpus(source="manifest", weight=2.0, options={"path": str(corpora[1]), "limit": 3})
    result = run_quietly(recipe, data=DataRecipe((str(corpora[0]), source)), max_steps=1)
    assert result["rows"]["train"] == 8 + 2 * 3
    [folder] = (Path(recipe.output_dir) / "data").iterdir()
    assert folder.name.startswith("manifest-")
    card = (folder / "card.json").stat().st_mtime_ns
    again = run_quietly(recipe, data=DataRecipe((str(corpora[0]), source)), max_steps=1)
    assert again["data_fingerprint"] == result["data_fingerprint"]
    assert (folder / "card.json").stat().st_mtime_ns == card
    # Other options are another corpus.
    other = replace(source, options={"path": str(corpora[1]), "limit": 2})
    result = run_quietly(recipe, data=DataRecipe((str(corpora[0]), other)), max_steps=1, output_dir=f"{recipe.output_dir}-2")
    assert result["rows"]["train"] == 8 + 2 * 2


def test_rows_that_preparing_rejected_are_told_in_one_line(recipe, corpora: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (corpora[1].parent / "1.wav").unlink()
    source = Corpus(source="manifest", options={"path": str(corpora[1]), "max_rejected": 1})
    data = DataRecipe((str(corpora[0]), source))
    page = io.StringIO()
    train(replace(recipe, data=data, max_steps=1), console=Console(file=page, width=80))
    [folder] = (Path(recipe.output_dir) / "data").iterdir()
    line = f"manifest: 1 of 4 rows are rejected, see {folder / 'rejected.jsonl'}"
    assert page.getvalue().splitlines().count(line) == 1
    assert "share" not in page.getvalue()
    # It is told too where the corpus was there already.
    dry_run(replace(recipe, data=data))
    assert capsys.readouterr().err.splitlines().count(line) == 1


def test_what_training_and_validation_data_share_is_told_in_one_line(recipe, corpora: tuple[Path, Path]) -> None:
    page = io.StringIO()
    data = DataRecipe((str(corpora[0]),), validation=str(corpora[0]))
    result = train(replace(recipe, data=data, max_steps=1), console=Console(file=page, width=80))
    shared = result["leakage"]["validation"]["shared"]
    assert shared["same_audio"]["shared"] == 8
    assert result["leakage"]["validation"]["touches"] == ["audio"]
    assert page.getvalue().splitlines().count("training and validation data share: audio 8; see leakage in train.json") == 1


def test_a_source_with_a_wrong_option_is_one_line(recipe, corpora: tuple[Path, Path]) -> None:
    entry = Corpus(source="manifest", options={"path": str(corpora[0]), "limt": 3})
    with pytest.raises(ConfigError, match="limt: the closest valid one is limit") as caught:
        dry_run(replace(recipe, data=DataRecipe((entry,))))
    assert "\n" not in str(caught.value)


def written(folder: Path, train: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"stage": "align", "model": "tiny", "output_dir": "out", "data": {"train": train}}), encoding="utf-8")
    return path


def test_entries_are_read_and_written(tmp_path: Path) -> None:
    mappings = [{"manifest": "b.jsonl", "weight": 2}, {"source": "librispeech", "weight": 0.5, "path": "LibriSpeech", "limit": 10}]
    recipe = load_recipe(written(tmp_path, ["a.jsonl", *mappings]))
    assert recipe.data.train == (
        "a.jsonl",
        Corpus(manifest="b.jsonl", weight=2.0),
        Corpus(source="librispeech", weight=0.5, options={"path": "LibriSpeech", "limit": 10}),
    )
    assert [corpus.weight for corpus in recipe.data.corpora] == [1.0, 2.0, 0.5]
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(json.loads(json.dumps(recipe.as_dict()))), encoding="utf-8")
    assert load_recipe(again) == recipe
    assert load_recipe(written(tmp_path, mappings[0])).data.train == (Corpus(manifest="b.jsonl", weight=2.0),)


@pytest.mark.parametrize(
    ("entry", "needle"),
    [
        ({"weight": 2}, "data.train: give either a manifest or a source"),
        ({"manifest": "a", "source": "musan"}, "data.train: give either a manifest or a source"),
        ({"manifest": "a", "wieght": 2}, "unknown key data.train.wieght: the closest valid one is data.train.weight"),
        ({"manifest": "a", "weight": 0}, "data.train.weight must be above 0, not 0.0"),
        ({"manifest": "a", "weight": "much"}, "data.train.weight must be a number, not 'much'"),
        ({"manifest": 3}, "data.train.manifest must be text, not 3"),
        ({"source": "librispeach"}, "source librispeach: there is none of this name: the closest is librispeech"),
    ],
)
def test_entries_that_do_not_fit_are_one_line(tmp_path: Path, entry: dict[str, Any], needle: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(written(tmp_path, ["a.jsonl", entry]))
    assert needle in str(caught.value)
    assert "\n" not in str(caught.value)


def test_held_out_data_stop_the_run_before_it_begins(recipe, run_quietly: Callable[..., Any], corpora: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = corpora
    copied = builders.write_clips(tmp_path / "copied", [builders.tone(0.4, 5000, 77), builders.tone(0.4, 200.0, 0)], ["other words", "more words"])
    copied.write_text(copied.read_text(encoding="utf-8").replace("clip-", "copy-"), encoding="utf-8")
    result = run_quietly(recipe, data=DataRecipe((str(train),), held_out=(str(test),)), max_steps=1)
    assert list(result["leakage"]["held_out"]) == [str(test)]
    assert (Path(recipe.output_dir) / "training.traces").is_file()
    data = DataRecipe((str(train),), held_out=(str(copied),))
    output_dir = f"{recipe.output_dir}-leaking"
    with pytest.raises(DataError, match="held out, but .* clips .*copy-1.*clip-0.*data.allow_leakage") as caught:
        run_quietly(recipe, data=data, output_dir=output_dir)
    assert "\n" not in str(caught.value)
    assert not (Path(output_dir) / "index" / "train.npz").exists()
    allowed = run_quietly(recipe, data=replace(data, allow_leakage=("audio",)), output_dir=output_dir, max_steps=1)
    assert allowed["leakage"]["allowed"] == ["audio"]
