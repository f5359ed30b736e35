"""Input that does not fit, at the command line: one clear line each, the right exit code, and no clip that leaves a figure uncounted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from judged import verdicts

from audiograft.audit.run import load_run
from audiograft.audit.verdicts import Verdict
from audiograft.cli import main
from audiograft.data.manifest import write_manifest

ROWS = [
    {"id": "a", "audio": "a.wav", "reference": "red green blue", "hypothesis": "red green bloom", "duration_s": 1.0, "speaker": "ann"},
    {"id": "b", "audio": "b.wav", "reference": "old and new", "hypothesis": "old and new", "duration_s": 1.0, "speaker": "bob"},
]
Told = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Runs a command: its exit code and the lines of stderr."""

    def run(*words: object) -> tuple[int, list[str]]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, capsys.readouterr().err.splitlines()

    return run


def write_run(folder: Path, rows: list[dict[str, Any]] | None = None, text: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder / "predictions.jsonl", ROWS if rows is None else rows)
    for name in ("a.wav", "b.wav"):  # nothing here opens them
        (folder / name).touch()
    if text is not None:
        (folder / "predictions.jsonl").write_text(text, encoding="utf-8", errors="surrogateescape")
    return folder


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found


def judge(folder: Path, given: list[Verdict], fingerprint: str | None = None) -> Path:
    """A log of verdicts on a run."""
    run = load_run(folder, needs_audio=False)
    run.verdicts_path.write_text("".join(json.dumps(verdict.as_row(fingerprint or run.fingerprint)) + "\n" for verdict in given), encoding="utf-8")
    return run.verdicts_path


LINES = [json.dumps(row) for row in ROWS]
BROKEN = {
    "doubled id": ("\n".join([*LINES, LINES[0]]), "predictions.jsonl:3: id 'a' stands in line 1 already"),
    "half-written last line": ("\n".join([LINES[0], LINES[1][:40]]), "predictions.jsonl:2: the last line is cut off"),
    "half a character last": ('{"id": "a", "reference": "\udcc3', "predictions.jsonl:1: the last line is cut off"),
    "a line that is cut off before others": ("\n".join([LINES[0][:40], LINES[1]]), "predictions.jsonl:1: not valid JSON"),
    "a whole line that is broken": (LINES[0][:40] + "\n", "predictions.jsonl:1: not valid JSON"),
    "no object in the last line": (f"{LINES[0]}\n12", "predictions.jsonl:2: a row is a JSON object"),
    "ids that are the same as text": (
        '{"id": 1, "reference": "x", "hypothesis": "x"}\n{"id": "1", "reference": "x", "hypothesis": "x"}',
        ":2: id '1' stands",
    ),
    "no bytes": ("", "predictions.jsonl: no rows"),
    "blank lines": ("\n\n", "predictions.jsonl: no rows"),
    "no reference": ('{"id": "a", "hypothesis": "x"}', 'predictions.jsonl:1: "reference" is missing'),
    "no hypothesis": ('{"id": "a", "reference": "x"}', 'predictions.jsonl:1: "hypothesis" is missing'),
    "a number for text": ('{"id": "a", "reference": 3, "hypothesis": "x"}', 'predictions.jsonl:1: "reference" must be a string'),
}


@pytest.mark.parametrize("verb", ["report", "compare", "audit"])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_predictions_file_is_one_line(tmp_path: Path, told: Told, verb: str, broken: str) -> None:
    text, error = BROKEN[broken]
    run = write_run(tmp_path / "run", text=text)
    more = {"compare": [write_run(tmp_path / "other")], "audit": ["--results"], "report": []}[verb]
    code, lines = told(verb, run, *more)
    assert code == 2
    assert len(lines) == 1
    assert error in lines[0]


@pytest.mark.parametrize("verb", ["report", "compare", "audit"])
def test_a_run_that_is_not_there_is_one_line(tmp_path: Path, told: Told, verb: str) -> None:
    more = [write_run(tmp_path / "other")] if verb == "compare" else []
    code, lines = told(verb, tmp_path / "nowhere", *more)
    assert code == 2
    assert len(lines) == 1
    assert "nowhere" in lines[0]


def test_compared_runs_without_a_common_clip_are_one_line(tmp_path: Path, told: Told) -> None:
    others = [{**row, "id": f"other {row['id']}"} for row in ROWS]
    code, lines = told("compare", write_run(tmp_path / "run"), write_run(tmp_path / "other", others))
    assert code == 2
    assert len(lines) == 1


def test_compared_runs_with_other_references_are_one_line(tmp_path: Path, told: Told) -> None:
    others = [{**row, "reference": "something else"} for row in ROWS]
    code, lines = told("compare", write_run(tmp_path / "run"), write_run(tmp_path / "other", others))
    assert code == 2
    assert len(lines) == 1
    assert "id 'a' expects 'something else'" in lines[0]


def test_clips_of_one_run_alone_are_refused_or_counted(tmp_path: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = write_run(tmp_path / "run", [*ROWS, {**ROWS[0], "id": "c"}]), write_run(tmp_path / "other")
    code, lines = told("compare", run, other)
    assert code == 2
    assert len(lines) == 1
    assert "--common" in lines[0]
    assert main(["compare", str(run), str(other), "--common", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["not_shared"] == 1
    assert found["comparisons"][0]["n_clips"] == 2


@pytest.mark.parametrize("ids", [("c", "d"), ("a", "c")])
def test_a_baseline_of_other_clips_is_one_line_or_counted(tmp_path: Path, told: Told, ids: tuple[str, str]) -> None:
    baseline = write_run(tmp_path / "baseline", [{**row, "id": id_} for row, id_ in zip(ROWS, ids, strict=True)])
    run = write_run(tmp_path / "run")
    code, lines = told("report", run, "--baseline", baseline)
    if "a" in ids:
        assert (code, lines) == (0, [])
        found = metrics_of(run)["baseline"]
        assert (found["n_shared"], found["only_here"], found["only_there"]) == (1, 1, 1)
    else:
        assert code == 2
        assert len(lines) == 1
        assert "baseline" in lines[0]


def test_a_second_opinion_on_other_clips_is_one_line(tmp_path: Path, told: Told) -> None:
    second = write_run(tmp_path / "second", [{**row, "id": f"other {row['id']}"} for row in ROWS])
    code, lines = told("audit", write_run(tmp_path / "run"), "--second", second, "--results")
    assert code == 2
    assert len(lines) == 1
    assert "share no clip" in lines[0]


def test_hypotheses_that_are_all_empty_are_counted_and_told(tmp_path: Path, told: Told) -> None:
    run = write_run(tmp_path / "run", [{**row, "hypothesis": ""} for row in ROWS])
    assert told("report", run) == (0, [])
    found = metrics_of(run)
    assert found["wer"]["rate"] == 1.0
    assert found["wer"]["deletions"] == 6
    assert found["detectors"]["empty"] == {"clips": 2, "share": 1.0, "ids": ["a", "b"]}
    code, lines = told("audit", run, "--results")
    assert code == 0
    assert len(lines) == 1
    assert "all 2 hypotheses are empty" in lines[0]


def test_a_reference_that_normalises_to_nothing_is_counted(tmp_path: Path, told: Told) -> None:
    run = write_run(tmp_path / "run", [ROWS[0], {**ROWS[1], "reference": "[noise]", "hypothesis": "hm yes"}])
    assert told("report", run, "--normaliser", "whisper-english") == (0, [])
    found = metrics_of(run)
    assert found["empty_references"]["clips"] == 1
    assert found["n_clips"] == 2
    assert found["wer"]["reference_length"] == 3
    assert found["wer"]["insertions"] == found["empty_references"]["insertions"] > 0


def test_where_no_reference_has_a_word_there_is_no_rate(tmp_path: Path, told: Told) -> None:
    run = write_run(tmp_path / "run", [{**row, "reference": "[noise]"} for row in ROWS])
    assert told("report", run, "--normaliser", "whisper-english") == (0, [])
    found = metrics_of(run)
    assert found["wer"]["rate"] is None
    assert found["empty_references"]["clips"] == 2
    code, lines = told(
        "compare", run, write_run(tmp_path / "other", [{**row, "reference": "[noise]"} for row in ROWS]), "--normaliser", "whisper-english"
    )
    assert code in (0, 2)
    assert len(lines) == (1 if code else 0)


def test_rows_that_all_failed_are_one_line(tmp_path: Path, told: Told) -> None:
    run = write_run(tmp_path / "run", [{**row, "hypothesis": "", "error": "a.wav: no such file"} for row in ROWS])
    for words in (["report", run], ["audit", run, "--results"], ["compare", run, write_run(tmp_path / "other")]):
        code, lines = told(*words)
        assert code == 2, words
        assert len(lines) == 1, words


def test_failed_rows_are_listed_and_in_no_rate(tmp_path: Path, told: Told) -> None:
    run = write_run(tmp_path / "run", [ROWS[0], {**ROWS[1], "hypothesis": "", "error": "b.wav: no such file"}])
    assert told("report", run) == (0, [])
    found = metrics_of(run)
    assert [row["id"] for row in found["failed"]] == ["b"]
    assert found["wer"]["reference_length"] == 3


def test_verdicts_of_another_run_are_one_line(tmp_path: Path, told: Told) -> None:
    run = write_run(tmp_path / "run")
    log = judge(run, verdicts("ann", a="label_noise"), fingerprint="0123456789abcdef")
    before = log.read_bytes()
    code, lines = told("audit", run, "--results")
    assert code == 2
    assert len(lines) == 1
    assert "verdicts.jsonl:1: belongs to another run" in lines[0]
    assert log.read_bytes() == before


def test_verdicts_on_clips_that_are_not_in_the_run_are_one_line(tmp_path: Path, told: Told) -> None:
    run = write_run(tmp_path / "run")
    judge(run, [Verdict("elsewhere", "perfect", "ann")])
    code, lines = told("audit", run, "--results")
    assert code == 2
    assert len(lines) == 1
    assert "elsewhere" in lines[0]


def test_a_half_written_last_verdict_is_told_and_the_others_stand(tmp_path: Path, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    log = judge(run, verdicts("ann", a="label_noise", b="perfect"))
    log.write_bytes(log.read_bytes()[:-30])
    code = main(["audit", str(run), "--results", "--json"])
    found = capsys.readouterr()
    assert code == 0
    assert json.loads(found.out)["clips"]["judged"] == 1
    (line,) = found.err.splitlines()
    assert "verdicts.jsonl" in line


def test_a_broken_verdict_in_the_middle_is_one_line(tmp_path: Path, told: Told) -> None:
    run = write_run(tmp_path / "run")
    log = judge(run, verdicts("ann", a="label_noise", b="perfect"))
    first, second = log.read_text(encoding="utf-8").splitlines()
    log.write_text(f"{first[:-30]}\n{second}\n", encoding="utf-8")
    code, lines = told("audit", run, "--results")
    assert code == 2
    assert len(lines) == 1
    assert "verdicts.jsonl:1" in lines[0]


def test_audio_that_has_moved_is_one_line_with_the_mend(tmp_path: Path, told: Told) -> None:
    run = write_run(tmp_path / "run")
    for clip in run.glob("*.wav"):
        clip.unlink()
    code, lines = told("audit", run, "--export", tmp_path / "page.html")
    assert code == 2
    assert len(lines) == 1
    assert "--audio-root" in lines[0]
    assert not (tmp_path / "page.html").exists()
    code, lines = told("audit", run, "--results")
    assert code == 0
    assert len(lines) == 1
    assert "2 of 2 clips: audio missing" in lines[0]


def corpus(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """A manifest, named by run.json as the one that the run was made from."""
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder / "manifest.jsonl", rows)
    return folder / "manifest.jsonl"


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([{"id": "b", "audio": "b.wav", "text": "old and new"}], "row 'a', which was judged, is not in it"),
        ([{"id": "a", "audio": "a.wav", "text": "another label"}], "has another label than the one that was judged"),
        ([{"id": "a", "audio": "a.wav", "text": "x"}, {"id": "a", "audio": "a.wav", "text": "x"}], "another label"),
    ],
)
def test_labels_of_another_manifest_are_not_corrected(tmp_path: Path, told: Told, rows: list[dict[str, Any]], error: str) -> None:
    run = write_run(tmp_path / "run")
    manifest = corpus(tmp_path / "corpus", rows)
    (run / "run.json").write_text(json.dumps({"manifest": str(manifest)}), encoding="utf-8")
    judge(run, verdicts("ann", a="label_noise"))
    code, lines = told("audit", run, "--corrected", tmp_path / "new.jsonl", "--audio-root", run)
    assert code == 2
    assert len(lines) == 1
    assert error in lines[0]
    assert not (tmp_path / "new.jsonl").exists()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no rows"),
        ('{"id": "a", "audio": "a.wav", "text": "x"}\n' * 2, "'a' is taken by line 1"),
        ('{"id": "a", "audio": "a.wav"}\n', 'row \'a\' has no "text" and no "response"'),
        ('{"id": "a", "audio": "a.wav", "text"', "not valid JSON"),
        ('{"id": "a", "audio": "../a.wav", "text": "x"}\n', "leaves the folder"),
    ],
)
def test_a_manifest_that_can_not_be_evaluated_is_one_line(tmp_path: Path, told: Told, text: str, error: str) -> None:
    manifest = corpus(tmp_path / "corpus", [])
    manifest.write_text(text, encoding="utf-8")
    code, lines = told("evaluate", "--data", manifest, "--out", tmp_path / "run")
    assert code == 2
    assert len(lines) == 1
    assert error in lines[0]
    assert not (tmp_path / "run" / "predictions.jsonl").exists()


def test_an_evaluation_whose_audio_has_moved_is_one_line(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    # As the verb would have it, had no test imported the library before.
    monkeypatch.setattr("transformers.utils.logging._tqdm_active", False)
    manifest = corpus(tmp_path / "corpus", [{"id": id_, "audio": f"{id_}.wav", "text": "x"} for id_ in "ab"])
    code, lines = told("evaluate", "--data", manifest, "--out", tmp_path / "run")
    assert code == 2
    assert len(lines) == 1
    assert "a.wav" in lines[0]
