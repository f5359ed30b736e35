"""The report of a detection run: drawn from its predictions alone, whatever they lack."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from detected import Row, detections, write_run

from audiograft.cli import main
from audiograft.evaluate import detection_scoring
from audiograft.evaluate.plots import Share, axis_start, plain
from audiograft.evaluate.report import save_figures, write_reports
from audiograft.evaluate.scoring import score_again
from audiograft.metrics.psychometric import psychometric_curves

FIGURES = {
    "reliability",
    "roc",
    "log-odds",
    "confidence-of-decisions",
    "grid",
    "conditions",
    "psychometric-accuracy-by-duration",
    "psychometric-accuracy-by-snr",
    "psychometric-hit-rate-by-duration",
    "contour",
    "errors",
}

Report = tuple[str, str, dict[str, Any]]
"""The texts of report.md and report.html, and the detection metrics."""


@pytest.fixture(autouse=True, scope="module")
def few_draws() -> Iterator[None]:
    """Curves are as good for a plot, with rough intervals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection_scoring, "psychometric_curves", partial(psychometric_curves, resamples=20))
        yield


def written(folder: Path, rows: Sequence[Row]) -> Report:
    """The texts of report.md and report.html of a folder that held nothing but predictions, and its detection metrics."""
    run = write_run(folder, rows)
    metrics = score_again(run)
    markdown, page = write_reports(run)
    return markdown.read_text(encoding="utf-8"), page.read_text(encoding="utf-8"), metrics["detection"]


def titles(markdown: str) -> list[str]:
    return re.findall(r"^## (.*)$", markdown, re.MULTILINE)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return detections(5, durations_ms=(200, 400, 800), snrs_db=(0, 5, 10))


@pytest.fixture(scope="module")
def few() -> list[Row]:
    """Of durations and SNRs too few for curves, whose plots take most of the time."""
    return detections(6, durations_ms=(200, 800), snrs_db=(0, 5))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, rows: list[Row], few_draws: None) -> Report:
    """Of all rows; see `written`."""
    return written(tmp_path_factory.mktemp("report") / "run", rows)


def test_everything_is_drawn_from_the_predictions_alone(tmp_path: Path, few: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", few)
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_bytes()
    for path in run.iterdir():
        if path.name != "predictions.jsonl":
            path.unlink()
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_bytes() == page
    assert capsys.readouterr().out.splitlines()[-3:] == [str(run / name) for name in ("metrics.json", "report.md", "report.html")]


def test_both_reports_say_what_was_found(report: Report) -> None:
    markdown, page, found = report
    low, high = (100 * found["accuracy"]["interval"][end] for end in ("low", "high"))
    for text in (markdown, page):
        assert f"{100 * found['accuracy']['rate']:.2f} %" in text
        assert f"{low:.2f}-{high:.2f} %" in text
        for part in ("200 ms alone", "ROC AUC", "Brier", "whether the threshold was chosen on these clips is not known", "45 SPEECH, 45 NONSPEECH"):
            assert part in text
    assert page.count("<svg") == page.count("</svg>") >= len(FIGURES)
    assert page.count("aria-label=") >= len(FIGURES)
    assert "://" not in re.sub(r"http://www\.w3\.org/\S+", "", page)  # nothing is fetched


def test_other_thresholds_are_there_to_be_looked_at(report: Report, rows: list[Row]) -> None:
    for threshold in (0.25, 0.5):
        said = [row["speech_prob"] >= threshold for row in rows if row["label"] == "SPEECH"]
        assert f"| {threshold:.2f} | {100 * sum(said) / len(said):.2f} % |" in report[0]
    assert "threshold (to look at; choose on dev)" in report[0]


def test_less_confidence_where_it_is_right_is_called_so(tmp_path: Path, few: list[Row]) -> None:
    rows = [row | {"speech_prob": 0.6 if row["label"] == row["predicted"] == "SPEECH" else 0.1, "scores": None} for row in few]
    rows = [row | {"speech_prob": 0.99} if row["predicted"] == "SPEECH" != row["label"] else row for row in rows]
    rows = [row | {"speech_prob": 0.4} if row["predicted"] == "NONSPEECH" == row["label"] else row for row in rows]
    assert re.search(r"It is [\d.]+ points lower where the model is right", written(tmp_path / "run", rows)[0])


def test_a_detection_has_no_word_errors(report: Report) -> None:
    markdown, page, _ = report
    for text in (markdown, page):
        for part in ("WER", "CER", "ormaliser", "refus", "hypothesis", ", answers", "right answers", "RTFx"):
            assert part not in re.sub(r"metrics\.json", "", text), part


def test_the_threshold_and_what_it_was_chosen_on_are_told(tmp_path: Path, few: list[Row]) -> None:
    run = write_run(tmp_path / "run", [without(row, *NAMED) for row in few])
    question = {"threshold": 0.31, "temperature": 1.5, "threshold_from": "m/detection.json", "prompt": "Which?"}
    chosen = {"chosen_on": {"manifest": "dev.jsonl", "sha256": "ab", "clips": 77}}
    told = {}
    for name, sha in (("other", "cd"), ("same", "ab")):
        about = {"model": "m", "manifest": "/data/test.jsonl", "manifest_sha256": sha, "batch_size": 64, "question": question | chosen}
        (run / "run.json").write_text(json.dumps(about))
        score_again(run)
        told[name] = [path.read_text(encoding="utf-8") for path in write_reports(run)]
    assert "✓ temperature and threshold were chosen on other clips: 77 of dev.jsonl" in told["other"][0]
    assert "✗ not a test result" in told["same"][0]
    assert "threshold: 0.31" in told["other"][1]
    assert "audiograft evaluate --model m --data /data/test.jsonl --out" in told["other"][0]
    assert "--prompt" not in told["other"][0]


def test_the_worst_condition_stands_first(report: Report) -> None:
    markdown, _, found = report
    section = markdown.split("## By condition")[1].split("\n## ")[0]
    listed = re.findall(r"^\| (white|pink|brown|babble) \| ([\d.]+) %", section, re.MULTILINE)
    assert len(listed) == 4
    assert [rate for _, rate in listed] == [f"{100 * rate:.2f}" for rate in sorted(row["accuracy"] for row in found["conditions"]["noise"])]


def test_the_errors_that_the_model_was_surest_of_are_listed(report: Report, rows: list[Row]) -> None:
    markdown, _, found = report
    section = markdown.split("## The most confident errors")[1].split("\n## ")[0]
    wrong = {row["id"]: max(row["speech_prob"], 1 - row["speech_prob"]) for row in rows if row["label"] != row["predicted"]}
    listed = re.findall(r"^\| (clip-\d+) ", section, re.MULTILINE)
    assert listed == sorted(wrong, key=lambda name: -wrong[name])[:20]
    assert found["accuracy"]["n"] - found["accuracy"]["right"] == len(wrong)


def bare(rows: Sequence[Row], *keys: str) -> list[Row]:
    return [{key: row[key] for key in ("id", "label", *keys)} for row in rows]


def without(row: Row, *keys: str) -> Row:
    return {key: value for key, value in row.items() if key not in keys}


NAMED = ("duration_ms", "target_snr_db", "noise", "band", "t60_s", "kind")
"""What most plots are about, and what takes most of the time."""
EDGES = {
    "speech alone": lambda rows: [row for row in rows if row["label"] == "SPEECH"],
    "sounds alone": lambda rows: [row for row in rows if row["label"] == "NONSPEECH"],
    "all right": lambda rows: [row | {"predicted": row["label"], "speech_prob": 0.99 if row["label"] == "SPEECH" else 0.01} for row in rows],
    "all wrong": lambda rows: [row | {"predicted": "SPEECH" if row["label"] == "NONSPEECH" else "NONSPEECH"} for row in rows],
    "all certain": lambda rows: [row | {"speech_prob": 1.0, "predicted": "SPEECH"} for row in rows],
    "one SNR": lambda rows: [row for row in rows if row["target_snr_db"] == 5],
    "one duration": lambda rows: [row for row in rows if row["duration_ms"] == 800],
    "one clip": lambda rows: rows[:1],
    "two clips": lambda rows: [rows[0], rows[-1]],
    "labels alone": lambda rows: bare(rows, "predicted"),
    "probabilities alone": lambda rows: bare(rows, "speech_prob"),
    "one without a probability": lambda rows: [without(rows[0], "speech_prob", "scores"), *rows[1:]],
    "keys in some rows": lambda rows: [
        {k: v for k, v in row.items() if i % 3 or k not in ("noise", "duration_ms", "kind")} for i, row in enumerate(rows)
    ],
    "a failed clip": lambda rows: [*rows, {"id": "bad", "task": "detection", "label": "SPEECH", "error": "bad.wav: no such file"}],
}


SLOW = (
    "sounds alone",
    "all wrong",
    "two clips",
    "probabilities alone",
    "all certain",
    "one duration",
    "keys in some rows",
    "one without a probability",
)
"""Much like others."""


@pytest.mark.parametrize("edge", [pytest.param(edge, marks=[pytest.mark.slow] if edge in SLOW else []) for edge in EDGES])
def test_what_is_missing_is_said_and_the_rest_is_drawn(tmp_path: Path, few: list[Row], edge: str) -> None:
    chosen = EDGES[edge](few)
    markdown, page, found = written(tmp_path / "run", chosen)
    assert found["n_clips"] == len([row for row in chosen if "error" not in row])
    assert page.count("<svg") == page.count("</svg>")
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL).lower().split()
    assert not re.search(r'="[^"]*\bnan\b', page)
    named = titles(markdown)
    assert named[0] == "Detection"
    expected = {
        "all right": ["All 48 clips are right: there is no error to break down", "no clip is wrong"],
        "speech alone": ["No curves: all 24 clips are positive"],
        "labels alone": ["No curves and no calibration"],
        "one without a probability": ["No curves and no calibration"],
        "one SNR": ["No curve of all clips"],
        "a failed clip": ["bad.wav: no such file", "1 failed"],
    }
    for part in expected.get(edge, ()):
        assert part in page


def test_one_of_three_choices_has_a_report_too(tmp_path: Path) -> None:
    names = ("dog", "car", "rain")
    rows = [
        {"id": str(i), "task": "detection", "label": names[i % 3], "predicted": names[(i * i) % 3], "duration_ms": 200 + 200 * (i % 2),
         "target_snr_db": 5 * (i % 3), "scores": dict(zip(names, (-0.2, -2.0, -3.0), strict=True)), "speech_prob": 0.8}
        for i in range(60)
    ]  # fmt: skip
    markdown, page, _ = written(tmp_path / "run", rows)
    assert re.search(r"^\| dog \| 100.00 % .* \| 20 \| 20 \| 0 \| 0 \|$", markdown, re.MULTILINE)
    assert "called rain" in page
    assert "hits" not in page.split("Duration by SNR")[1].split("<h2>")[0].split("<details>")[0]


def test_names_in_plots_are_nothing_but_text(tmp_path: Path, few: list[Row]) -> None:
    hostile = ("<script>alert(1)</script>", "$\\frac{1}{0}$", "]]></svg>", "日本語", "_hidden", "a\nb", "\u202eabc", "x" * 300, "&amp;")
    chosen = [without(row, *NAMED) | {"noise": hostile[i % len(hostile)], "kind": hostile[-i % len(hostile)]} for i, row in enumerate(few)]
    _, page, _ = written(tmp_path / "run", chosen)
    assert "<script" not in page
    assert "\u202e" not in page
    assert page.count("<svg") == page.count("</svg>")
    assert "日本語" in page


def test_plots_follow_the_page_and_have_ids_of_their_own(report: Report) -> None:
    _, page, _ = report
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", page))
    light = page.split("<style>")[1].split("</style>")[0]
    assert used <= set(re.findall(r"(--[a-z0-9-]+):", light))
    assert "--series-1" in used
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_figures_are_saved_for_pages_of_documentation(tmp_path: Path, rows: list[Row]) -> None:
    run = write_run(tmp_path / "run", rows)
    pictures = save_figures(run, tmp_path / "images")
    assert {path.stem.removeprefix("detection-") for path in pictures} >= FIGURES
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert [path.name for path in run.iterdir()] == ["predictions.jsonl"]


@pytest.mark.parametrize(("lows", "start"), [([0.97, 0.99], 0.9), ([0.55], 0.5), ([0.35], 0.0), ([0.0], 0.0), ([], 0.0), ([1.0], 0.9)])
def test_an_axis_begins_below_all_that_is_on_it(lows: list[float], start: float) -> None:
    assert axis_start(lows) == pytest.approx(start)


def test_names_are_cut_and_a_share_is_told_with_its_interval() -> None:
    assert len(plain("x" * 100)) == 26
    assert Share("", 0.5, 0.25, 0.75, 1_200).told() == "50.0 % (25.0-75.0), n 1,200"
