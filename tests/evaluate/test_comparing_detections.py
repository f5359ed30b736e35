"""Detection runs compared: McNemar's exact test, recordings that are drawn, and parts of the bench."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import detected
import pytest
from scipy import stats

from audiograft.cli import main
from audiograft.evaluate.comparing import compare
from audiograft.types import DataError

Row = dict[str, Any]
Write = Callable[..., list[Path]]


@pytest.fixture
def runs(tmp_path: Path) -> Write:
    def runs(*rows: Sequence[Row]) -> list[Path]:
        return [detected.write_run(tmp_path / name, some) for name, some in zip("abc", rows, strict=False)]

    return runs


def judged(right: Sequence[bool], n_recordings: int = 40) -> list[Row]:
    return [
        {"id": str(i), "label": "SPEECH", "predicted": "SPEECH" if one else "NONSPEECH", "recording": f"r{i % n_recordings}"}
        for i, one in enumerate(right)
    ]


def test_mcnemar_is_exact_and_recordings_are_drawn(runs: Write) -> None:
    base = judged([i >= 30 for i in range(200)])
    other = judged([i >= 8 and i != 199 for i in range(200)])
    found = compare(runs(base, other))
    assert found["accuracy_difference"] == pytest.approx(21 / 200)
    exact = found["mcnemar"]
    assert (exact["of"], exact["only_a"], exact["only_b"]) == ("detections", 1, 22)
    assert found["mcnemar_p"] == pytest.approx(stats.binomtest(1, 23).pvalue)
    assert (found["clusters"], found["clustered_by"]) == (40, "recording")
    assert found["accuracy_interval"]["low"] > 0
    assert found["better"] == "b"
    assert found["wer_difference"] is None
    assert found["parts"] == []


def test_alike_errors_of_a_recording_make_the_interval_wider(runs: Write) -> None:
    base = judged([i % 40 >= 8 for i in range(200)])
    other = judged([i % 40 >= 4 for i in range(200)])
    together = compare(runs(base, other))
    alone = compare(runs([row | {"recording": None} for row in base], [row | {"recording": None} for row in other]))
    assert alone["clustered_by"] == "clip"
    width, narrow = (found["accuracy_interval"]["high"] - found["accuracy_interval"]["low"] for found in (together, alone))
    assert width > 1.5 * narrow
    assert any("no clip names a recording" in note for note in alone["notes"])


def test_few_recordings_are_called_so(runs: Write) -> None:
    base, other = judged([i >= 10 for i in range(60)], 3), judged([True] * 60, 3)
    found = compare(runs(base, other))
    assert "with 3 recordings p can't fall below" in found["claim"]
    assert "3 recordings only: the interval is wide and rough" in found["notes"] or "3 recordings only" in str(found["comparisons"][0]["notes"])


def test_without_a_clip_on_which_they_differ_there_is_no_interval(runs: Write, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row | {"room": "a" if number < 10 else "b"} for number, row in enumerate(judged([True] * 20))]
    other = [row | ({"predicted": "NONSPEECH"} if number >= 15 else {}) for number, row in enumerate(rows)]
    paths = runs(rows, other)
    alike, differing = compare(paths, by="room")["parts"]
    why = "no clip of 10 on which they differ, so there is no interval: up to 25.9 points by the rule of three"
    assert alike["accuracy_interval"] == {**alike["accuracy_interval"], "low": None, "high": None, "method": "none", "warning": why}
    assert differing["accuracy_interval"]["low"] is not None
    assert main(["compare", *map(str, paths), "--by", "room"]) == 0
    assert f"note: room a, b: {why}" in capsys.readouterr().out


def test_parts_of_the_bench_are_compared_alone_and_adjusted(runs: Write) -> None:
    rows = detected.detections(8)
    better = [row | ({"predicted": row["label"]} if row["duration_ms"] == 200 else {}) for row in rows]
    found = compare(runs(rows, better), by="duration_ms")
    parts = {part["value"]: part for part in found["parts"]}
    assert list(parts) == ["200", "400", "600", "800", "1000"]
    wrong = sum(row["label"] != row["predicted"] for row in rows if row["duration_ms"] == 200)
    assert parts["200"]["n_clips"] == 80
    assert parts["200"]["accuracy_difference"] == pytest.approx(wrong / 80)
    assert parts["200"]["rates"][1] == 1
    assert parts["200"]["accuracy_interval"]["low"] > 0
    assert parts["200"]["adjusted_p"] == pytest.approx(min(1, 5 * parts["200"]["p_value"]))
    assert parts["1000"]["accuracy_difference"] == 0
    with pytest.raises(DataError, match="no row has the key 'weather' to slice by"):
        compare(runs(rows, better), by="weather")


def test_a_part_of_one_clip_says_so(runs: Write) -> None:
    rows = [row | {"room": "hall" if i else "yard"} for i, row in enumerate(judged([True, False] * 10))]
    found = compare(runs(rows, rows), by="room")["parts"]
    assert found[1]["value"] == "yard"
    assert found[1]["refused"] == "too few clips"


def test_the_files_of_others_take_their_recordings_from_the_first(runs: Write) -> None:
    base = judged([i >= 30 for i in range(200)])
    other = [{"id": row["id"], "reference": row["label"], "hypothesis": row["label"]} for row in base]
    found = compare(runs(base, other))
    assert (found["clustered_by"], found["accuracy_difference"]) == ("recording", pytest.approx(0.15))


def test_the_command_shows_the_parts(runs: Write, capsys: pytest.CaptureFixture[str]) -> None:
    rows = detected.detections(2)
    paths = [str(path) for path in runs(rows, [row | {"predicted": row["label"]} for row in rows])]
    assert main(["compare", *paths, "--by", "duration_ms"]) == 0
    told = capsys.readouterr().out
    assert "100 detections, " in told
    assert "1000" in told
    assert "b gives more right answers than a" in told
