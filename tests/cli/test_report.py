"""`audiograft report`: which folders it takes, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiograft.cli import main
from audiograft.data.manifest import write_manifest
from audiograft.train import curves

ROWS = [{"id": f"{i}", "reference": "One Xeno", "hypothesis": "one Xeno", "accent": "north"} for i in range(4)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    write_manifest(folder / "predictions.jsonl", ROWS)
    return folder


def test_a_run_is_scored_again_and_every_file_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "terms.txt").write_text("Xeno\n")
    (run / "metrics.json").write_text('{"wall_s": 12.5}')
    assert main(["report", str(run), "--normaliser", "none", "--slice-by", "accent", "--terms", str(tmp_path / "terms.txt")]) == 0
    written = [run / name for name in ("metrics.json", "report.md", "report.html")]
    assert capsys.readouterr().out.splitlines() == list(map(str, written))
    metrics = json.loads(written[0].read_text())
    assert (metrics["wer"]["rate"], metrics["wall_s"], metrics["terms"]["found"]) == (0.5, 12.5, 4)
    assert "north" in metrics["slices"]["accent"]
    assert all("Xeno" in path.read_text() for path in written)


def test_runs_of_both_kinds_can_be_named_together(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, going_on = tmp_path / "trained", tmp_path / "going-on"
    trained.mkdir()
    (trained / "train.json").write_text("{}")
    (going_on / "checkpoint-5").mkdir(parents=True)
    (going_on / "checkpoint-5" / "trainer_state.json").write_text("{}")
    monkeypatch.setattr(curves, "draw_curves", lambda folder: folder / "curves.png")
    assert main(["report", str(trained), str(run), str(going_on)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-1], len(lines)) == (str(trained / "curves.png"), str(going_on / "curves.png"), 5)


@pytest.mark.parametrize("there", ["nothing", "an empty folder"])
def test_what_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], there: str) -> None:
    path = tmp_path / "run"
    if there == "an empty folder":
        path.mkdir()
    assert main(["report", str(path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors == [f"error: {path}: neither a run of evaluate (predictions.jsonl) nor of train (train.json): name the folder of one"]


def test_a_file_alone_is_told_where_to_go(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = (run / "predictions.jsonl").rename(tmp_path / "o.jsonl")
    assert main(["report", str(alone)]) == 2
    mend = "put this file into one as predictions.jsonl, and name the folder"
    assert capsys.readouterr().err == f"error: {alone}: a report is of a folder: {mend}\n"
    assert main(["report", str(alone.rename(run / "predictions.jsonl"))]) == 2
    assert capsys.readouterr().err.endswith(": a report is of a folder: name the folder\n")
    assert main(["report", str(run)]) == 0


def test_an_interrupted_run_says_how_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "predictions.jsonl.part").touch()
    assert main(["report", str(tmp_path)]) == 2
    assert "start the same evaluation again, it goes on from there" in capsys.readouterr().err


def test_a_baseline_that_has_gone_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.jsonl"
    write_manifest(other, ROWS)
    assert main(["report", str(run), "--baseline", str(other)]) == 0
    other.unlink()
    assert main(["report", str(run)]) == 2
    mend = "name it with --baseline, or take it out of metrics.json"
    assert capsys.readouterr().err == f"error: {run}: its baseline {other} is gone: {mend}\n"


def test_a_baseline_is_found_from_any_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_manifest(tmp_path / "other.jsonl", ROWS)
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(run), "--baseline", "other.jsonl"]) == 0
    monkeypatch.chdir("/")
    assert main(["report", str(run)]) == 0
