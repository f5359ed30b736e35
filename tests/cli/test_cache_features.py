from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import pytest
import yaml

from audiograft.cli import main


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return builders.write_clips(tmp_path / "made", [builders.tone(0.2 + 0.1 * number, 200.0 + 50 * number) for number in range(8)], ["one"] * 8)


@pytest.fixture
def verb(capsys: pytest.CaptureFixture[str], manifest: Path, tmp_path: Path) -> Callable[..., tuple[int, Any, str]]:
    """Runs it on the manifest with `tiny`, or as it is told; gives exit code, report, and what is on stderr."""

    def run(*words: str, own: bool = True) -> tuple[int, Any, str]:
        usual = ["--model", "tiny", "--data", str(manifest), "--out", str(tmp_path / "cache"), "--json"] if own else []
        code = main(["cache-features", *usual, *words])
        out, err = capsys.readouterr()
        # In the process of the tests transformers is there before it can be quieted.
        err = "".join(f"{line}\n" for line in err.splitlines() if line and "Loading weights" not in line)
        return code, json.loads(out) if out.startswith("{") else out, err

    return run


def test_it_counts_what_it_did_and_does_nothing_twice(verb, manifest: Path, tmp_path: Path) -> None:
    code, report, err = verb()
    assert (code, err) == (0, "")
    assert (report["computed"], report["known"], report["clips"], report["unusable"]) == (8, 0, 8, [])
    assert report["size_bytes"] == sum(path.stat().st_size for path in tmp_path.glob("cache/*/*.safetensors"))
    assert report["computed_audio_s"] == pytest.approx(sum(0.2 + 0.1 * number for number in range(8)), abs=0.01)
    with manifest.open("a") as file:
        file.write(json.dumps({"id": "pair", "audio": ["0.wav", "7.wav"], "prompt": "same?", "response": "no"}) + "\n")
    code, report, _ = verb()
    assert (code, report["computed"], report["known"]) == (0, 0, 10)
    code, text, _ = verb("--model", "tiny", "--data", str(manifest), "--out", str(tmp_path / "cache"), own=False)
    assert "computed  0 clips" in text
    assert "8 clips of this encoder in float16" in text


def test_clips_that_can_not_be_used_are_named_and_the_exit_code_is_1(verb, manifest: Path) -> None:
    (manifest.parent / "3.wav").write_text("no sound")
    code, report, err = verb()
    assert (code, report["computed"], len(report["unusable"])) == (1, 7, 1)
    assert err.startswith(f"error: {manifest.parent / '3.wav'}: ")
    assert err.count("\n") == 1


def test_a_recipe_is_cached_where_it_looks_for_it(verb, manifest: Path, tmp_path: Path) -> None:
    recipe = {"stage": "align", "model": "tiny", "output_dir": str(tmp_path / "run"), "data": {"train": str(manifest)}, "pad_to_window_share": 0.5}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    code, _, err = verb(str(tmp_path / "r.yaml"), own=False)
    assert (code, err) == (
        2,
        f"error: {tmp_path / 'r.yaml'}: has no feature_cache: add it, so that training finds what is cached, or give --out DIR\n",
    )
    code, report, _ = verb(str(tmp_path / "r.yaml"), "--set", f"feature_cache={tmp_path / 'c'}", "--json", own=False)
    assert (code, report["computed"], report["folder"]) == (0, 8, str(tmp_path / "c"))
    # Half of them are padded; the encoder is the one that --model opens.
    code, report, _ = verb("--out", str(tmp_path / "c"))
    assert 0 < report["known"] < 8
    assert report["computed"] == 8 - report["known"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "give either a RECIPE, or --model with --data and --out"),
        (("r.yaml", "--model", "tiny"), "give either a RECIPE"),
        (("--model", "tiny"), "--model needs --data and --out"),
        (("r.yaml", "--data", "m.jsonl"), "the recipe names its data and its precision itself"),
        (("--model", "tiny", "--data", "m", "--out", "o", "--set", "a=b"), "--set changes a recipe: name one"),
        (("--model", "tiny", "--data", "nowhere.jsonl", "--out", "{tmp}/o"), "nowhere.jsonl"),
        (("--model", "nowhere", "--data", "{tmp}/made", "--out", "{tmp}/o"), "nowhere"),
        (("--model", "tiny", "--data", "{tmp}/made", "--out", "{tmp}/o", "--address", "x"), "address x: it is that of a Ray cluster"),
    ],
)
def test_wrong_usage_is_one_line(verb, tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    code, _, err = verb(*(word.replace("{tmp}", str(tmp_path)) for word in words), own=False)
    assert code == 2
    assert expected in err
    assert err.count("\n") == 1


def test_its_help_names_itself() -> None:
    done = subprocess.run([sys.executable, "-m", "audiograft", "cache-features", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "cache-features" in done.stdout
    assert "Run the frozen encoder over a corpus, once for all training." in done.stdout


@pytest.mark.slow
def test_on_ray_it_writes_what_it_writes_here(manifest: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    command = [sys.executable, "-m", "audiograft", "cache-features", "--model", "tiny", "--data", str(manifest), "--json"]
    states = {}
    for engine in ("local", "ray"):
        words = [*command, "--out", str(tmp_path / engine), "--engine", engine]
        done = subprocess.run(words, capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["computed"] == 8
        [shard] = tmp_path.glob(f"{engine}/*/*.safetensors")
        states[engine] = shard.name, load_file(shard)
    assert states["local"][0] == states["ray"][0]
    assert all(torch.equal(tensor, states["ray"][1][name]) for name, tensor in states["local"][1].items())
