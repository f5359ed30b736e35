"""Verdicts from elsewhere: taken in once, all or none, and never over what was said since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audiograft.audit.blind import blind_order
from audiograft.audit.importing import Imported, import_verdicts
from audiograft.audit.log import VerdictLog
from audiograft.audit.verdicts import Verdict
from audiograft.types import DataError

RUN = "0123456789abcdef"
IDS = frozenset("abc")


@pytest.fixture
def log(tmp_path: Path) -> VerdictLog:
    return VerdictLog(tmp_path / "verdicts.jsonl", RUN, IDS)


def row(id_: str, second: int, **change: Any) -> dict[str, Any]:
    given = Verdict(id_, "perfect", "ann", time=f"2026-01-01T00:00:{second:02d}.000Z").as_row(RUN)
    return given | change


def written(folder: Path, *rows: dict[str, Any], end: str = "") -> Path:
    path = folder / "theirs.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows) + end)
    return path


def test_verdicts_are_taken_in_once(tmp_path: Path, log: VerdictLog) -> None:
    theirs = written(tmp_path, row("a", 1), row("b", 2, tags=["name"], corrected="so"), row("b", 3, verdict="ambiguous"))
    assert import_verdicts(log, theirs, IDS) == Imported(added=2, known=0, older=0, half_written=0)
    assert {verdict.id: verdict.verdict for verdict in log.current("ann")} == {"a": "perfect", "b": "ambiguous"}
    content = log.path.read_bytes()
    assert import_verdicts(log, theirs, IDS) == Imported(added=0, known=2, older=0, half_written=0)
    assert import_verdicts(log, log.path, IDS).added == 0
    assert log.path.read_bytes() == content


def test_an_undo_there_takes_nothing_back_here(tmp_path: Path, log: VerdictLog) -> None:
    log.append(Verdict("c", "perfect", "ann"))
    undo = {"event": "undo", "run": RUN, "time": "2026-01-01T00:00:09Z", "rater": "ann"}
    done = import_verdicts(log, written(tmp_path, undo, row("a", 1), row("b", 2), undo), IDS)
    assert (done.added, [verdict.id for verdict in log.current("ann")]) == (1, ["c", "a"])


def test_what_the_rater_said_since_stands(tmp_path: Path, log: VerdictLog) -> None:
    log.append(Verdict("a", "model_error", "ann", time="2026-01-01T00:00:05+00:00"))
    log.append(Verdict("b", "model_error", "ann", time="2026-01-01T02:00:01+02:00"))
    done = import_verdicts(log, written(tmp_path, row("a", 4), row("b", 2), row("a", 4, rater="bob")), IDS)
    assert done == Imported(added=2, known=0, older=1, half_written=0)
    assert {verdict.id: verdict.verdict for verdict in log.current("ann")} == {"a": "model_error", "b": "perfect"}


@pytest.mark.parametrize("choice", ["x", "y"])
def test_a_blind_choice_alone_is_given_its_meaning(tmp_path: Path, log: VerdictLog, choice: str) -> None:
    import_verdicts(log, written(tmp_path, row("a", 1, verdict=None, blind=True, choice=choice, rater=" ann ")), IDS)
    (verdict,) = log.current("ann")
    assert verdict.verdict == ("model_error" if (choice == "x") == blind_order(RUN, "ann", "a") else "label_noise")
    assert (verdict.blind, verdict.choice) == (True, choice)


def test_a_name_is_one_however_its_accents_are_written(tmp_path: Path, log: VerdictLog) -> None:
    log.append(Verdict("a", "model_error", "Zo\u00eb", time="2026-01-01T00:00:00+00:00"))
    blind = row("b", 2, verdict=None, blind=True, choice="x", rater="Zoe\u0308")
    import_verdicts(log, written(tmp_path, row("a", 1, rater="Zoe\u0308"), blind), IDS)
    assert log.raters() == ["Zo\u00eb"]
    said = {verdict.id: verdict.verdict for verdict in log.current("Zo\u00eb")}
    assert said == {"a": "perfect", "b": "model_error" if blind_order(RUN, "Zo\u00eb", "b") else "label_noise"}


@pytest.mark.parametrize(
    ("second", "line"),
    [
        (row("z", 1), r'theirs.jsonl:2: "id" must be that of a clip'),
        (row("b", 1, run="f" * 16), r"theirs.jsonl:2: belongs to another run"),
        (row("b", 1, verdict=None), r'theirs.jsonl:2: "verdict" must be one of'),
        (row("b", 1, verdict=None, blind=True, choice=["x"]), r'theirs.jsonl:2: "verdict" must be one of'),
        (row("b", 1, verdict="label_noise", blind=True, choice="x", run="f" * 16), r"theirs.jsonl:2: belongs to another run"),
        (row("b", 1, verdict="model_error", blind=True, choice="x", run="f" * 16), r"theirs.jsonl:2: belongs to another run"),
        (row("b", 1, verdict="perfect", blind=True, choice="x"), r'theirs.jsonl:2: "verdict" \'perfect\' is not what its blind "choice" means'),
    ],
)
def test_a_line_that_does_not_fit_refuses_the_whole_file(tmp_path: Path, log: VerdictLog, second: dict[str, Any], line: str) -> None:
    with pytest.raises(DataError, match=line):
        import_verdicts(log, written(tmp_path, row("a", 1), second, row("c", 1)), IDS)
    assert not log.path.exists()


def test_a_half_written_last_line_is_left_out_and_counted_and_one_in_the_middle_refused(tmp_path: Path, log: VerdictLog) -> None:
    assert import_verdicts(log, written(tmp_path, row("a", 1), end='{"event": "ver'), IDS) == Imported(1, 0, 0, 1)
    for end in ('{"event": "ver\n', '{"event": "ver\n' + json.dumps(row("b", 1))):
        with pytest.raises(DataError, match=r"theirs\.jsonl:2: not valid JSON"):
            import_verdicts(log, written(tmp_path, row("a", 1), end=end), IDS)
    with pytest.raises(DataError, match="no rows"):
        import_verdicts(log, written(tmp_path), IDS)
