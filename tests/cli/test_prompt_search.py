"""What `audiograft prompt-search` prints, hands on and ends with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import soundfile

from audiograft.cli import main
from audiograft.prompt_search import run as run_module
from audiograft.prompt_search.run import Plan
from audiograft.prompt_search.search import Limits


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A manifest of eight clips."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(8):
        waveform = builders.tone(0.2, 300 + 50 * number) if number % 2 else 0.1 * rng.standard_normal(3200)
        soundfile.write(tmp_path / f"{number}.wav", waveform, 16_000, subtype="FLOAT")
        rows.append({"id": str(number), "audio": f"{number}.wav", "label": "SPEECH" if number % 2 else "NONSPEECH", "recording": f"r{number}"})
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "dev.jsonl"


def test_a_search_is_told_in_a_table_and_a_few_lines(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = bench.parent / "out"
    words = ["prompt-search", "tiny", "--dev", str(bench), "--out", str(out), "--rounds", "2", "--candidates", "2", "--device", "cpu"]
    assert main(words) == 0
    told = capsys.readouterr().out
    for part in ("reward", "Choose one", "5 prompts in 2 rounds, 40 clips scored", "all rounds were made", "balanced accuracy", "best_prompt.txt"):
        assert part in told
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((out / "result.json").read_text())


def test_every_option_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def search(model: str, dev: Path, out: Path, plan: Plan, **others: Any) -> dict[str, Any]:
        seen.update(model=model, dev=dev, out=out, plan=plan, test=others["test"])
        return {"stopped": "rounds"}

    monkeypatch.setattr(run_module, "run_search", search)
    options = (
        "--dev d --test t --out o --optimiser http://x/v1 --optimiser-model m --temperature 0.5 --candidates 3 --memory 4 --prompt p --question q "
        "--clips 6 --condition-weight 0.7 --length-weight 0.8 --rounds 9 --patience 10 --budget 11 --batch-size 12 --device cpu "
        "--allow-outside --seed 13"
    )
    assert main(["prompt-search", "tiny", *options.split(), "--json"]) == 0
    plan = Plan("http://x/v1", "m", 0.5, "p", Path("q"), Limits(9, 3, 4, 10, 11), 6, 0.7, 0.8, 12, "cpu", 13, True)
    assert seen == {"model": "tiny", "dev": Path("d"), "out": Path("o"), "plan": plan, "test": Path("t")}


def test_errors_are_one_line(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prompt-search", "tiny", "--dev", str(bench), "--out", str(bench.parent / "out")]
    for extra, complaint in (
        (["--prompt", "Speech?"], "the prompt to start with, 'Speech?', can't be used"),
        (["--optimiser", "http://localhost:9/v1"], "--optimiser-model is missing"),
        (["--test", str(bench)], "the winner was chosen on these clips"),
        (["--dev", str(bench.parent / "none.jsonl")], "no such manifest"),
    ):
        assert main([*words, *extra]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert told.count("\n") == 1
        assert complaint in told


def test_an_optimiser_that_was_given_up_ends_with_1(monkeypatch: pytest.MonkeyPatch, bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run_module, "run_search", lambda *args, **kwargs: {"stopped": "optimiser", "why": "3 rounds in a row without a prompt"})
    assert main(["prompt-search", "tiny", "--dev", str(bench), "--out", "out", "--json"]) == 1
    assert capsys.readouterr().err == "error: 3 rounds in a row without a prompt: the best prompt so far stands\n"


def test_a_winner_that_is_worse_on_test_is_not_recommended(monkeypatch: pytest.MonkeyPatch, bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored = {"reward": 1.0, "balanced_accuracy": 0.5, "condition_accuracy": 0.5, "round": 0, "prompt": "new"}
    difference = {"balanced_accuracy": -0.1, "interval": {"low": -0.2, "high": 0.1}}
    figures = {"clips": 8, "failed": 0, "difference": difference, "mcnemar": {"p_value": 1.0}}
    figures |= {"start": {"balanced_accuracy": 0.6}, "winner": {"balanced_accuracy": 0.5}}
    result = {"refused": {}, "prompts_scored": 2, "rounds": 1, "clips_scored": 16, "duplicates": 0, "why": "all", "stopped": "rounds"}
    result |= {"start": scored, "best": scored, "test": {"prompts": {"start": "old", "winner": "new"}, "figures": figures}}
    (bench.parent / "memory.json").write_text(json.dumps({"best": [scored]}))
    monkeypatch.setattr(run_module, "run_search", lambda *args, **kwargs: result)
    assert main(["prompt-search", "tiny", "--dev", str(bench), "--out", str(bench.parent)]) == 0
    *_, verdict, last = capsys.readouterr().out.splitlines()
    assert verdict == "the best prompt of dev is worse on test: keep the old prompt"
    assert "to use it all the same: audiograft detect" in last
