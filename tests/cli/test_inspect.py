"""inspect --clip: what a model makes of each token of a text, having heard a clip. (inspect A B: tests/model/test_difference.py.)"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import audiograft
from audiograft.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"
CLIP = EXAMPLES / "code.wav"
TEXT = (EXAMPLES / "code.txt").read_text(encoding="utf-8").strip()


def inspect(*arguments: str | Path) -> int:
    return main(["inspect", "tiny", *map(str, arguments)])


def facts(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict:
    assert inspect(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_each_token_has_its_probability_and_rank(capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, "--clip", CLIP, "--text", TEXT)
    rows = found["tokens"]
    assert "".join(row["token"] for row in rows) == f"{TEXT}<|im_end|>"
    assert found["n_tokens"] == len(rows)
    assert found["nats"] == pytest.approx(-sum(row["logprob"] for row in rows))
    assert found["perplexity"] == pytest.approx(math.exp(found["nats"] / len(rows)))
    assert all(row["probability"] == pytest.approx(math.exp(row["logprob"])) for row in rows)
    assert all((row["rank"] == 1) == (row["best"] == row["token"]) for row in rows)
    assert min(row["probability"] for row in rows) > 0.9


def test_a_wrong_word_stands_out_and_the_right_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = TEXT.replace("office", "garage")
    found = facts(capsys, "--clip", CLIP, "--text", wrong)
    first_wrong = next(row for row in found["tokens"] if row["rank"] > 1)
    assert first_wrong["best"] == " office"
    assert first_wrong["probability"] < 0.1
    assert found["nats"] > facts(capsys, "--clip", CLIP, "--text", TEXT)["nats"] + 5
    assert inspect("--clip", CLIP, "--text", wrong) == 0
    shown = capsys.readouterr().out
    assert '" office"' in shown
    last = shown.splitlines()[-1]
    assert f"{found['n_tokens']} tokens" in last
    assert f"{found['nats']:.3f} nats in all, perplexity {found['perplexity']:.3f}" in last


def test_another_clip_or_instruction_changes_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    true = facts(capsys, "--clip", CLIP, "--text", TEXT)["nats"]
    assert facts(capsys, "--clip", EXAMPLES / "music.wav", "--text", TEXT)["nats"] > true + 20
    answer = facts(capsys, "--clip", CLIP, "--text", "the office safe", "--prompt", "Which code is it?")
    assert answer["prompt"] == "Which code is it?"


def test_what_the_model_wrote_is_the_likeliest_throughout(capsys: pytest.CaptureFixture[str]) -> None:
    written = audiograft.load("tiny").transcribe(str(CLIP)).text
    assert {row["rank"] for row in facts(capsys, "--clip", CLIP, "--text", written)["tokens"]} == {1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--clip", CLIP), "--clip and --text go together"),
        (("--text", TEXT), "--clip and --text go together"),
        (("tiny-lm", "--clip", CLIP, "--text", TEXT), "leave the second one out"),
        (("--clip", "nowhere.wav", "--text", TEXT), "nowhere.wav"),
        (("nowhere/at-all/here",), "nowhere/at-all/here"),
        (("--clip", CLIP, "--text", "<|audio|>"), "<|audio|>"),
    ],
)
def test_what_can_not_be_used_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    assert inspect(*arguments) == 2
    shown = capsys.readouterr()
    assert not shown.out
    [line] = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in shown.err
