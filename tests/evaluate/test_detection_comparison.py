"""Several detectors on one page, and accuracy from run to run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from detected import detections, write_run

from audiograft.cli import main
from audiograft.evaluate.detection_comparison import draw_evolution, write_comparison
from audiograft.metrics.paired import holm, mcnemar
from audiograft.types import DataError

GRID: dict[str, Any] = {"durations_ms": (200, 800), "snrs_db": (0, 10)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A good detector, one a little worse, and one that guesses and states no probability."""
    folder = tmp_path_factory.mktemp("runs")
    chosen = {"good": {"skill": 1.5}, "fair": {"skill": 0.8, "decode_s": 0.0005}, "guess": {"skill": 0.0, "scores": False}}
    return [write_run(folder / name, detections(10, **GRID, **options)) for name, options in chosen.items()]


@pytest.fixture(scope="module")
def compared(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, dict[str, Any]]:
    """The texts of report.md and report.html, and comparison.json."""
    out = tmp_path_factory.mktemp("compared") / "new" / "folder"
    files = write_comparison(runs, out)
    assert [path.relative_to(out).name for path in files] == ["comparison.json", "report.md", "report.html"]
    told, markdown, page = (path.read_text(encoding="utf-8") for path in files)
    return markdown, page, json.loads(told)


def right(run: Path) -> list[bool]:
    return [row["label"] == row["predicted"] for row in map(json.loads, (run / "predictions.jsonl").read_text().splitlines())]


def test_each_run_has_its_row_with_intervals(compared: tuple[str, str, dict[str, Any]], runs: list[Path]) -> None:
    markdown, page, told = compared
    for run in runs:
        rate = sum(right(run)) / len(right(run))
        assert told["runs"][run.name]["accuracy"]["rate"] == pytest.approx(rate)
        assert re.search(rf"^\| {run.name} \| {100 * rate:.2f} % \([\d.]+-[\d.]+\) \|", markdown, re.MULTILINE)
    for part in ("200 ms alone", "ROC AUC", "ECE", "False alarms by kind", "Accuracy by condition", "clips a second"):
        assert part in markdown
        assert part in page
    assert page.count("<svg") == page.count("</svg>") == 5
    assert "WER" not in page


def test_the_tests_are_exact_and_adjusted(compared: tuple[str, str, dict[str, Any]], runs: list[Path]) -> None:
    markdown, _, told = compared
    base, *others = map(right, runs)
    expected = [mcnemar(base, other) for other in others]
    assert [row["mcnemar"]["p_value"] for row in told["tests"]["comparisons"]] == pytest.approx([one.p_value for one in expected])
    assert told["mcnemar_holm_p"] == pytest.approx(holm([one.p_value for one in expected]))
    for run, one in zip(runs[1:], expected, strict=True):
        assert re.search(rf"^\| {run.name} \| -[\d.]+ \| -[\d.]+ to ", markdown, re.MULTILINE)
        assert re.search(rf"^\| {run.name} \| {one.only_a} \| {one.only_b} \|", markdown, re.MULTILINE)


def test_speakers_and_kinds_are_observations_of_their_own(runs: list[Path], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (runs[0] / "predictions.jsonl").read_text().splitlines()]
    heard = [row | ({"speaker": f"s{i % 4}"} if row["label"] == "SPEECH" else {}) for i, row in enumerate(rows)]
    # Of speaker s0 the second run has nothing right, and the file of the third names neither speakers nor kinds.
    worse = [row | {"predicted": "NONSPEECH"} if row.get("speaker") == "s0" else row for row in heard]
    bare = [{key: row[key] for key in ("id", "label", "predicted")} for row in worse]
    paths = [write_run(tmp_path / name, part) for name, part in (("heard", heard), ("worse", worse), ("bare", bare))]
    write_comparison(paths, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    lost = [row for row in heard if row.get("speaker") == "s0"]
    rate = sum(row["predicted"] == "SPEECH" for row in lost) / len(lost)
    for told in found["over_groups"]:
        assert told["difference"] == pytest.approx(-rate / 4 / 2)
        assert told["interval"]["low"] < told["difference"] < 0 < told["interval"]["high"]
    named = {row["kind"] for row in heard if row["label"] == "NONSPEECH"}
    assert f"each of 4 speakers and {len(named)} kinds for one observation" in (tmp_path / "out" / "report.md").read_text()


def test_predictions_are_all_it_takes_and_the_runs_stay_as_they_are(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for run in runs for path in run.iterdir()}
    assert main(["report", *map(str, runs[:2]), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out" / name) for name in ("comparison.json", "report.md", "report.html")]
    assert {path: path.read_bytes() for run in runs for path in run.iterdir()} == before
    assert {path.name for path in before} == {"predictions.jsonl"}


def test_clips_that_not_all_have_are_refused_or_left_out_by_name(runs: list[Path], tmp_path: Path) -> None:
    fewer = write_run(tmp_path / "fewer", detections(10, **GRID)[5:])
    with pytest.raises(DataError, match="lacks 5 ids.*--common compares the 75"):
        write_comparison([runs[0], fewer], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    _, markdown, _ = write_comparison([runs[0], fewer], tmp_path / "out", common=True)
    assert "75 clips that all runs did" in markdown.read_text(encoding="utf-8")


def test_bare_predictions_can_be_compared(runs: list[Path], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (runs[1] / "predictions.jsonl").read_text().splitlines()]
    bare = [write_run(tmp_path / name, [{key: row[key] for key in ("id", "label", "predicted")} for row in rows]) for name in ("a", "b")]
    _, markdown, page = write_comparison(bare, tmp_path / "out")
    assert "No run states its times" in markdown.read_text(encoding="utf-8")
    assert page.read_text(encoding="utf-8").count("<svg") == 2


@pytest.mark.parametrize("n_runs", [1, 8])
def test_too_few_and_too_many_runs_are_refused(runs: list[Path], tmp_path: Path, n_runs: int) -> None:
    with pytest.raises(DataError, match=f"2 to 7 runs: {n_runs} are named"):
        write_comparison(runs[:1] * n_runs, tmp_path / "out")


def test_runs_of_texts_are_sent_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [write_run(tmp_path / name, [{"id": str(i), "reference": "a", "hypothesis": "a"} for i in range(3)]) for name in "ab"]
    assert main(["report", *map(str, texts), "--out", str(tmp_path / "out")]) == 2
    assert "audiograft compare" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--common"], ["--out", "x", "--normaliser", "none"], ["--out", "x", "--slice-by", "kind"]])
def test_options_that_do_nothing_are_refused(runs: list[Path], options: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *map(str, runs), *options]) != 0
    assert not (tmp_path / "x").exists()


def test_accuracy_is_drawn_from_run_to_run(runs: list[Path], tmp_path: Path) -> None:
    names = ("as it was published, with all that is wrong with it", "$x_y$", "loss on the answer")
    steps = list(zip(names, reversed(runs), strict=True))
    picture = draw_evolution(steps, tmp_path / "new" / "evolution.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    vector = draw_evolution(steps, tmp_path / "evolution.svg").read_text(encoding="utf-8")
    for run in runs:
        assert f"{100 * sum(right(run)) / len(right(run)):.1f} %" in vector
    assert "n 80" in vector
    assert "all on the same clips" in vector
    assert "axis begins at" in vector or ">0<" in vector
    draw_evolution([("alone", runs[0] / "predictions.jsonl")], tmp_path / "one.png")


def test_a_ladder_of_other_clips_says_so(runs: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", detections(3, **GRID))
    vector = draw_evolution([("a", runs[0]), ("b", other)], tmp_path / "evolution.svg").read_text(encoding="utf-8")
    assert "not all on the same clips" in vector


def test_a_ladder_needs_detections(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no run"):
        draw_evolution([], tmp_path / "x.png")
    texts = write_run(tmp_path / "texts", [{"id": "1", "reference": "a", "hypothesis": "a"}])
    with pytest.raises(DataError, match="holds no detections"):
        draw_evolution([("a", texts)], tmp_path / "x.png")
