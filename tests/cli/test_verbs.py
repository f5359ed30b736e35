"""What `evaluate`, `graft`, `prepare`, `train` and `env` hand on, print, and end with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiograft.cli import main
from audiograft.data.manifest import read_manifest, write_manifest
from audiograft.evaluate import run as evaluate_run
from audiograft.evaluate.scoring import score
from audiograft.inference.engine import Engine
from audiograft.model import graft as model_graft_function
from audiograft.train import run as train_run
from audiograft.types import DataError

LINES = [
    {
        "id": "1",
        "reference": "one two three four five six seven eight",
        "hypothesis": "one two three four five six seven",
        "speaker": "anna",
        "duration_s": 6.0,
        "decode_s": 1,
    },
    {"id": "2", "reference": "go", "hypothesis": "go", "speaker": "[bold]", "duration_s": 6.0},
]


def metrics(folder: Path, lines: list[dict[str, Any]], failed: list[dict[str, str]]) -> dict[str, Any]:
    """What an evaluation of these predictions hands back."""
    write_manifest(folder / "predictions.jsonl", lines)
    leakage = {"checked": False, "why": "the model has no record"}
    return score(folder) | {
        "failed": failed,
        "leakage": leakage,
        "checkpoint": {"known": False, "chosen_on_this_data": None, "why": "not known who chose"},
    }


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A manifest, and what the fake evaluation was called with; its result is the key `returns`."""
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text('{"id": "1", "audio": "a.wav", "text": "one"}\n')
    seen: dict[str, Any] = {"returns": metrics(tmp_path, LINES, [])}

    def evaluate(engine: object, manifest: Path, out: Path, *, on_clip: Callable[[], None], **options: Any) -> dict[str, Any]:
        on_clip()
        seen.update(options, manifest=manifest, out=out)
        return dict(seen["returns"])

    monkeypatch.setattr(Engine, "load", lambda *args: None)
    monkeypatch.setattr(evaluate_run, "evaluate", evaluate)
    return manifest, seen


def test_evaluate_prints_rates_counts_and_speakers(evaluation: Any, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, seen = evaluation
    assert main(["evaluate", "--data", str(manifest), "--out", "run", "--normaliser", "none", "--batch-size", "2"]) == 0
    assert {key: seen[key] for key in ("manifest", "out", "normaliser", "batch_size", "prompt", "audio", "allow_outside")} == {
        "manifest": manifest, "out": Path("run"), "normaliser": "none", "batch_size": 2, "prompt": None, "audio": "true", "allow_outside": False,
    }  # fmt: skip
    printed = capsys.readouterr().out
    for part in (
        "WER",
        "CER",
        "11.11 %",
        "deletions",
        "anna",
        "[bold]",
        "2 rows",
        "RTFx 6 (s of audio a second",
        "leakage not checked",
        "not known who chose",
    ):
        assert part in printed


def test_evaluate_prints_answers_where_there_are_some(evaluation: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    manifest, seen = evaluation
    asked = [line | {"task": "answer", "question": "who"} for line in LINES]
    seen["returns"] = metrics(tmp_path, asked, [])
    assert main(["evaluate", "--data", str(manifest), "--out", "run", "--audio", "none"]) == 0
    assert seen["audio"] == "none"
    printed = capsys.readouterr().out
    assert "WER" not in printed
    for part in ("50.00 %", "who", "right", "token F1"):
        assert part in printed


def test_evaluate_names_failed_clips_and_ends_with_1(evaluation: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    manifest, seen = evaluation
    seen["returns"] = metrics(tmp_path, LINES, [{"id": "1", "error": "a.wav: no such file"}])
    assert main(["evaluate", "--data", str(manifest), "--out", "run", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out) == seen["returns"]
    assert printed.err == "error: a.wav: no such file\n"


def test_evaluate_looks_at_the_manifest_before_it_loads_the_model(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(Engine, "load", lambda *args: pytest.fail("the model was loaded"))
    assert main(["evaluate", "--data", "nowhere.jsonl", "--out", "run"]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err


def test_graft_hands_on_its_options_and_prints_parameters(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: dict[str, Any] = {}

    def graft(**options: Any) -> dict[str, int]:
        seen.update(options)
        return {"audio_tower": 1_000_000, "projector": 2_000, "language_model": 30}

    # `audiograft.model.graft` names the function there; its module is reached through it.
    monkeypatch.setitem(model_graft_function.__globals__, "graft", graft)
    words = ["graft", "--audio-encoder", "enc", "--language-model", "lm", "--projector", "mlp", "--frame-stack", "2", "--out", "new"]
    assert main([*words, "--pad-to-window", "--seed", "7"]) == 0
    assert seen == {
        "audio_encoder": "enc", "language_model": "lm", "projector": "mlp", "frame_stack": 2, "pad_to_window": True, "seed": 7,
        "out": Path("new"),
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "1,002,030" in printed
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["projector"] == 2_000


@pytest.mark.needs_engines
def test_prepare_synthetic_writes_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "synthetic", "--split", "test", "--voices", "held-out", "--rows", "4", "--seed", "5", "--workers", "1"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    assert "4 clips" in capsys.readouterr().out
    assert len({sample.speaker for sample in read_manifest(tmp_path / "manifest.jsonl")}) == 4


def test_prepare_synthetic_without_engines_says_how_to_install_them(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "audiograft", "prepare", "synthetic", "--split", "train", "--rows", "1", "--out", str(tmp_path)]
    done = subprocess.run(words, env={**os.environ, "PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: espeak-ng is not installed")
    assert "apt-get install espeak-ng flite" in done.stderr


RECIPE = "stage: align\nmodel: tiny\noutput_dir: out\ndata: {train: manifest.jsonl}\n"


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "align.yaml"
    path.write_text(RECIPE)
    return str(path)


@pytest.mark.parametrize(("deaf", "merge_failed", "code"), [(False, False, 0), (True, False, 1), (False, True, 1)])
def test_train_ends_with_1_where_the_model_is_deaf_or_was_not_merged(
    deaf: bool, merge_failed: bool, code: int, recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def train(recipe: Any) -> dict[str, Any]:
        seen.append(recipe)
        return {"deaf": deaf, "merge_failed": merge_failed}

    monkeypatch.setattr(train_run, "train", train)
    assert main(["train", recipe, "--set", "seed=3", "--set", "learning_rate=1e-4", "--json"]) == code
    assert (seen[0].seed, seen[0].learning_rate) == (3, 1e-4)
    assert json.loads(capsys.readouterr().out) == {"deaf": deaf, "merge_failed": merge_failed}


def test_train_dry_run_prints_the_drawing_and_trains_nothing(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_run, "train", lambda recipe: pytest.fail("it trained"))
    monkeypatch.setattr(train_run, "dry_run", lambda recipe, colour: f"{recipe.stage}, colour {colour}\n")
    assert main(["train", recipe, "--dry-run"]) == 0
    assert capsys.readouterr().out == "align, colour False\n"


@pytest.mark.parametrize(("override", "named"), [("lerning_rate=1", "learning_rate"), ("seed=x", "seed"), ("seed", "key=value")])
def test_train_names_the_key_that_is_wrong(override: str, named: str, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", recipe, "--set", override]) == 2
    assert named in capsys.readouterr().err


def test_train_reports_bad_data_in_one_line(recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def train(recipe: Any) -> dict[str, Any]:
        raise DataError("manifest.jsonl:3: no audio")

    monkeypatch.setattr(train_run, "train", train)
    assert main(["train", recipe]) == 2
    assert capsys.readouterr().err == "error: manifest.jsonl:3: no audio\n"


def test_env_tells_versions_engines_and_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "flite" else f"/bin/{name}")
    assert main(["env", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows["flite"] == "not found"
    assert rows["espeak-ng"] == "/bin/espeak-ng"
    assert {"audiograft", "python", "platform", "torch", "transformers", "peft", "gpu"} <= set(rows)
    assert main(["env"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(rows)
