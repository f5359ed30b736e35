"""Several seeds and splits of one recipe: what is split, what is skipped, and what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from audiograft.cli import main
from audiograft.evaluate import repeating
from audiograft.evaluate.repeating import draw_runs, repeat
from audiograft.evaluate.resplitting import read_bench, resplit
from audiograft.model import assemble
from audiograft.types import ConfigError, DataError

LABELS = ("SPEECH", "NONSPEECH")


def write_bench(folder: Path, n_clips: int = 100) -> Path:
    """Tones are speech of twenty speakers, noise is of as many recordings as there are clips of it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1000)
    rows: list[dict[str, Any]] = []
    for number in range(n_clips):
        speech = number % 2 == 0
        waveform = builders.tone(0.2, 400.0 + 10 * number, number) if speech else 0.1 * rng.standard_normal(3200)
        soundfile.write(folder / f"{number}.wav", waveform, 16_000, subtype="FLOAT")
        groups = {"speaker": f"s{number // 4 % 20}", "recording": f"r{number // 4}"} if speech else {"speaker": None, "recording": f"n{number}"}
        label = LABELS[0] if speech else LABELS[1]
        rows.append(
            {"id": f"c{number}", "audio": f"{number}.wav", "label": label, "duration_s": 0.2, "duration_ms": 200, "target_snr_db": 10} | groups
        )
    for name, part in (("train", rows[: n_clips - 8]), ("dev", rows[n_clips - 8 :])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bench(tmp_path_factory.mktemp("repeat") / "bench")


@pytest.fixture(scope="module")
def recipe(bench: Path) -> Path:
    _, processor = builders.graft()
    folder = bench.parent / "graft"
    assemble(builders.audio_tower(), builders.language_model(initializer_range=0.3), processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    path = bench.parent / "recipe.yaml"
    path.write_text(
        f"stage: finetune\nmodel: {folder}\noutput_dir: {bench.parent / 'out'}\ndata: {{train: {bench / 'train.jsonl'}, "
        f"validation: {bench / 'dev.jsonl'}}}\nprompt: 'speech?'\ndetection: {{answers: {{SPEECH: A, NONSPEECH: B}}, loss_on: answer}}\n"
        "max_steps: 8\nlearning_rate: 5e-3\nlora: {rank: 2, language_model: attention}\nsave: adapter\nlogging_steps: 4\nsample_transcripts: 0\n"
        "deafness: {clips: 8, permutations: 100}\n",
        encoding="utf-8",
    )
    return path


def ids(path: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def rows_of(bench: Path) -> list[dict[str, Any]]:
    return read_bench([str(bench / "train.jsonl"), str(bench / "dev.jsonl")], LABELS)


def test_no_group_is_on_two_sides_and_no_row_is_lost(bench: Path, tmp_path: Path) -> None:
    seen = set()
    for seed in range(4):
        parts = resplit(rows_of(bench), repeating.SHARES, seed, tmp_path / str(seed))
        rows = {name: ids(path) for name, path in parts.items()}
        assert sum(map(len, rows.values())) == 100
        for key in ("speaker", "recording"):
            groups = [{row[key] for row in part.values() if row[key]} for part in rows.values()]
            assert len(set.union(*groups)) == sum(map(len, groups))
        assert all(row["split"] == name and Path(row["audio"]).is_absolute() for name, part in rows.items() for row in part.values())
        seen.add(frozenset(rows["test"]))
    assert len(seen) > 1
    again = resplit(rows_of(bench), repeating.SHARES, 3, tmp_path / "again")
    assert again["test"].read_bytes() == (tmp_path / "3" / "test.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        ({"speaker": None, "recording": None}, "neither speaker nor recording"),
        ({"label": None}, "what is repeated are detections"),
        ({"text": "hello"}, "what is repeated are detections"),
        ({"label": "MUSIC"}, "'MUSIC' has no answer"),
        ({"id": "c1"}, "another row has the id 'c1'"),
    ],
)
def test_rows_that_can_not_be_split_are_named(bench: Path, tmp_path: Path, change: dict[str, Any], needle: str) -> None:
    rows = [json.loads(line) for line in (bench / "train.jsonl").read_text().splitlines()][:4]
    manifest = bench / f"{tmp_path.name}.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in [*rows[:3], rows[3] | change]))
    with pytest.raises(DataError, match=needle) as caught:
        read_bench([str(manifest)], LABELS)
    assert ":4: " in str(caught.value)


def test_a_part_without_a_label_is_refused(bench: Path, tmp_path: Path) -> None:
    rows = sorted((row for row in rows_of(bench) if row["label"] == "SPEECH" or row["id"] == "c1"), key=lambda row: row["label"], reverse=True)
    with pytest.raises(DataError, match="has no row with the label NONSPEECH"):
        resplit([*rows, {**rows[-1], "id": "c1-too", "label": "SPEECH"}], repeating.SHARES, 0, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        (([0, 0], 1, ()), "different numbers"),
        (([], 1, ()), "different numbers"),
        (([0, -1], 1, ()), "seeds must be from 0 to 4294967295, not -1"),
        (([0], 0, ()), "splits must be 1 or more"),
        (([0], 1, ("detection=null",)), "a section detection"),
        (([0], 1, ("data.train=[{source: esc50, path: x}]",)), "manifests without weights"),
    ],
)
def test_what_can_not_be_repeated_is_one_line(recipe: Path, tmp_path: Path, arguments: Any, needle: str) -> None:
    seeds, splits, overrides = arguments
    with pytest.raises(ConfigError, match=needle):
        repeat(recipe, seeds, splits, tmp_path, overrides=overrides)


def test_runs_are_trained_tested_and_told_once(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, quiet = tmp_path / "out", Console(quiet=True)
    found = repeat(recipe, [0], 1, out, console=quiet)
    [only] = found["runs"]
    test_clips = ids(out / "split-0" / "test.jsonl")
    assert only["n_clips"] == len(test_clips)
    assert found["one_clip"] == 1 / len(test_clips)
    assert (out / "split-0" / "seed-0" / "detection.json").is_file()
    # Computed from the predictions alone.
    said = ids(out / "split-0" / "seed-0" / "test" / "predictions.jsonl")
    assert said.keys() == test_clips.keys()
    assert only["accuracy"] == np.mean([row["predicted"] == test_clips[name]["label"] for name, row in said.items()])

    trained = []
    train = repeating.train
    monkeypatch.setattr(repeating, "train", lambda own, **options: (trained.append(own.output_dir), train(own, **options)))
    found = repeat(recipe, [0, 1], 1, out, console=quiet)
    # What was done is not done again.
    assert trained == [str(out / "split-0" / "seed-1")]
    assert [(row["seed"], row["split"]) for row in found["runs"]] == [(0, 0), (1, 0)]
    assert found["runs"][0] == only
    assert found["variance"]["accuracy"]["mean"] == pytest.approx(np.mean([row["accuracy"] for row in found["runs"]]))
    assert json.loads((out / "repeat.json").read_text()) == json.loads(json.dumps(found))
    clips = ids(out / "clips.jsonl")
    assert clips.keys() == test_clips.keys()
    assert {row["runs"] for row in clips.values()} == {2}
    assert found["disagreement"]["differing"] == sum(len(row["said"]) > 1 for row in clips.values())
    assert (out / "repeat.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="another learning_rate"):
        repeat(recipe, [0, 1], 1, out, overrides=["learning_rate=1e-3"], console=quiet)


@pytest.mark.slow
def test_the_command_tests_on_a_fixed_manifest(recipe: Path, bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_bench(tmp_path / "other", 16)
    command = ["repeat", str(recipe), "--seeds", "0", "--splits", "2", "--out", str(tmp_path / "out"), "--test", str(other / "train.jsonl")]
    assert main([*command, "--set", "data.allow_leakage=[speakers, recordings, texts, audio]"]) == 0
    printed = capsys.readouterr().out
    assert "sd by seed" in printed
    assert "one clip more or less is 12 points" in printed
    assert not (tmp_path / "out" / "split-0" / "test.jsonl").exists()


def test_wrong_seeds_are_a_wrong_usage(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repeat", str(recipe), "--seeds", "one"]) == 2
    assert "write whole numbers" in capsys.readouterr().err


@settings(max_examples=5, deadline=None)
@given(rates=st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_any_runs_can_be_drawn(rates: list[float], tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [
        {"seed": number % 2, "split": number // 2, "accuracy": rate, "wilson": {"low": max(rate - 0.1, 0), "high": min(rate + 0.1, 1)}, "n_clips": 9}
        for number, rate in enumerate(rates)
    ]
    assert draw_runs(rows).save(tmp_path_factory.mktemp("drawn") / "runs.png").stat().st_size > 1000
