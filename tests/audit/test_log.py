"""The file of verdicts: nothing that was answered is lost, nothing half-written is taken, and several may write at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from audiograft.audit.log import UnsavedError, VerdictLog
from audiograft.audit.verdicts import CATEGORIES, Verdict, check_rater
from audiograft.types import DataError

RUN = "0123456789abcdef"
WRITER = """
import sys
from pathlib import Path
from audiograft.audit.log import VerdictLog
from audiograft.audit.verdicts import Verdict
log = VerdictLog(Path(sys.argv[1]), "0123456789abcdef")
for number in range(int(sys.argv[3])):
    log.append(Verdict(f"clip {number}", "perfect", sys.argv[2], note="x" * 2000))
    print(number, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "verdicts.jsonl"


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def log(path: Path, notes: list[str]) -> VerdictLog:
    return VerdictLog(path, RUN, on_note=notes.append)


def said(log: VerdictLog, rater: str | None = None) -> dict[str, str]:
    return {f"{verdict.rater}/{verdict.id}": verdict.verdict for verdict in log.current(rater)}


def writer(path: Path, rater: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), rater, str(count)], stdout=subprocess.PIPE, text=True)


def test_a_verdict_is_a_line_of_the_stated_form(log: VerdictLog, path: Path) -> None:
    assert not path.exists()
    verdict = Verdict("a/1", "label_noise", "ann", True, "y", "Ünï \u2028 text", ("name", "grammar"), "see \ud800", "2026-01-01T00:00:00+00:00", "e1")
    log.append(verdict)
    assert json.loads(path.read_bytes()) == {
        "event": "verdict", "event_id": "e1", "run": RUN, "time": "2026-01-01T00:00:00+00:00", "rater": "ann", "id": "a/1", "verdict": "label_noise",
        "blind": True, "choice": "y", "corrected": "Ünï \u2028 text", "tags": ["name", "grammar"], "note": "see \ud800",
    }  # fmt: skip
    assert path.read_bytes().count(b"\n") == 1
    assert VerdictLog(path, RUN).current() == [verdict]


def test_an_event_that_is_sent_again_is_written_once(path: Path) -> None:
    first = Verdict("a", "perfect", "ann", event_id="e1")
    VerdictLog(path, RUN).append(first)
    log = VerdictLog(path, RUN)  # as after a restart
    log.append(Verdict("a", "perfect", "ann", event_id="e1"))
    assert log.current() == [first]
    log.append(Verdict("b", "perfect", "ann", event_id="e2"))
    for _ in range(2):
        undone = VerdictLog(path, RUN).undo("ann", "u1")
        assert undone is not None
        assert undone.id == "b"
    log.append(Verdict("b", "perfect", "ann", event_id="e2"))  # it was taken back, and stays so
    assert said(log) == {"ann/a": "perfect"}
    assert len(path.read_text().splitlines()) == 3
    assert log.undo("ann", "u2") == first
    assert said(log) == {}


def test_nothing_said_and_nothing_typed_are_two_things(path: Path) -> None:
    log = VerdictLog(path, RUN)
    for id_, corrected in (("a", ""), ("b", None)):
        log.append(Verdict(id_, "label_noise", "ann", corrected=corrected))
    assert [verdict.corrected for verdict in VerdictLog(path, RUN).current()] == ["", None]


def test_the_last_verdict_of_a_rater_on_a_clip_is_in_force_and_undo_brings_back_the_one_before(log: VerdictLog, path: Path) -> None:
    for id_, category in (("a", "perfect"), ("b", "ambiguous"), ("a", "model_error")):
        log.append(Verdict(id_, category, "ann"))
    log.append(Verdict("a", "label_noise", "bob"))
    assert said(log) == {"ann/a": "model_error", "ann/b": "ambiguous", "bob/a": "label_noise"}
    gone = log.undo("ann")
    assert gone is not None
    assert (gone.id, gone.verdict) == ("a", "model_error")
    assert said(log, "ann") == {"ann/a": "perfect", "ann/b": "ambiguous"}
    assert [log.undo("ann") and log.raters() for _ in range(2)] == [["ann", "bob"], ["bob"]]
    assert log.undo("ann") is None
    assert log.undo("nobody") is None
    assert said(VerdictLog(path, RUN)) == {"bob/a": "label_noise"}
    assert path.read_bytes().count(b"\n") == 7  # nothing was taken out, and no undo of nothing was written


class Logged(RuleBasedStateMachine):
    """Two logs on one file against a plain model of stacks."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "verdicts.jsonl"
        self.logs = [VerdictLog(path, RUN), VerdictLog(path, RUN)]
        self.stacks: dict[str, list[Verdict]] = {"ann": [], "bob": []}

    @rule(
        which=st.sampled_from([0, 1]), rater=st.sampled_from(["ann", "bob"]), id_=st.sampled_from("abc"), category=st.sampled_from(sorted(CATEGORIES))
    )
    def judge(self, which: int, rater: str, id_: str, category: str) -> None:
        verdict = Verdict(id_, category, rater)
        self.logs[which].append(verdict)
        self.stacks[rater].append(verdict)

    @rule(which=st.sampled_from([0, 1]), rater=st.sampled_from(["ann", "bob"]))
    def undo(self, which: int, rater: str) -> None:
        stack = self.stacks[rater]
        assert self.logs[which].undo(rater) == (stack.pop() if stack else None)

    @invariant()
    def both_see_what_stands(self) -> None:
        for log in self.logs:
            for rater, stack in self.stacks.items():
                assert {verdict.id: verdict for verdict in log.current(rater)} == {verdict.id: verdict for verdict in stack}

    def teardown(self) -> None:
        self.folder.cleanup()


TestLogged = Logged.TestCase
TestLogged.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)


@pytest.mark.parametrize("after", [1, 40])
def test_nothing_that_was_answered_is_lost_by_a_kill(path: Path, after: int) -> None:
    process = writer(path, "ann", 100_000)
    assert process.stdout is not None
    answered = [process.stdout.readline() for _ in range(after)][-1]
    process.send_signal(signal.SIGKILL)
    answered = (process.stdout.readlines() or [answered])[-1]
    process.wait()
    process.stdout.close()
    log = VerdictLog(path, RUN)
    found = said(log)
    assert len(found) in (int(answered) + 1, int(answered) + 2)  # the last may be on the disk though the answer did not get out
    assert list(found) == [f"ann/clip {number}" for number in range(len(found))]
    log.append(Verdict("after", "perfect", "ann"))
    assert "ann/after" in said(VerdictLog(path, RUN))


def test_several_processes_and_threads_append_at_once(path: Path, log: VerdictLog) -> None:
    processes = [writer(path, rater, 30) for rater in ("ann", "bob")]
    threads = [threading.Thread(target=lambda name=name: [log.append(Verdict(str(i), "perfect", name)) for i in range(30)]) for name in ("cy", "di")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert len(path.read_bytes().splitlines()) == 120
    assert {rater: len(log.current(rater)) for rater in log.raters()} == dict.fromkeys(("ann", "bob", "cy", "di"), 30)


@pytest.mark.parametrize("rest", [b'{"event": "verdict", "run": "0123', b"\0\0\0\0", b"{", b'"\xc3'])
def test_a_half_written_last_line_is_told_passed_over_and_cut_off(path: Path, log: VerdictLog, notes: list[str], rest: bytes) -> None:
    log.append(Verdict("a", "perfect", "ann"))
    whole = path.read_bytes()
    path.write_bytes(whole + rest)
    again = VerdictLog(path, RUN, on_note=notes.append)
    assert said(again) == said(again) == {"ann/a": "perfect"}
    assert notes == [f"{path}:2: the last line is half-written and no verdict: the next verdict takes its place"]
    assert path.read_bytes() == whole + rest  # reading writes nothing
    again.append(Verdict("b", "perfect", "ann"))
    assert path.read_bytes().startswith(whole + b'{"event"')
    assert said(VerdictLog(path, RUN)) == {"ann/a": "perfect", "ann/b": "perfect"}


def test_a_whole_last_line_without_its_end_is_a_verdict(path: Path, log: VerdictLog, notes: list[str]) -> None:
    log.append(Verdict("a", "perfect", "ann"))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    again = VerdictLog(path, RUN, on_note=notes.append)
    again.append(Verdict("b", "perfect", "ann"))
    assert said(VerdictLog(path, RUN)) == {"ann/a": "perfect", "ann/b": "perfect"}
    assert notes == []
    path.write_bytes(path.read_bytes() + b"broken\n")
    with pytest.raises(DataError, match=r"verdicts\.jsonl:3: not valid JSON"):
        again.current()


@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere_can_be_gone_on_with(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("log") / "verdicts.jsonl"
    log = VerdictLog(path, RUN)
    for id_ in "ab":
        log.append(Verdict(id_, "perfect", "ann"))
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    log = VerdictLog(path, RUN, on_note=lambda line: None)
    before = said(log)
    assert len(before) in (content.count(b"\n"), content.count(b"\n") + 1)
    log.append(Verdict("c", "perfect", "ann"))
    assert said(VerdictLog(path, RUN)) == before | {"ann/c": "perfect"}


ROW = Verdict("a", "perfect", "ann").as_row(RUN)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{]", "not valid JSON"),
        ("7", "a row is a JSON object"),
        (json.dumps(ROW | {"run": "f" * 64}), "belongs to another run ('ffffffffffffffff'; this one is '0123456789abcdef')"),
        (json.dumps({**ROW, "run": None}), '"run" is missing'),
        (json.dumps(ROW | {"event": "guess"}), '"event" must be verdict or undo'),
        (json.dumps(ROW | {"verdict": "fine"}), '"verdict" must be one of label_noise, model_error, ambiguous, normalisation, perfect, not "fine"'),
        (json.dumps(ROW | {"verdict": ["perfect"]}), '"verdict" must be one of'),
        (json.dumps(ROW | {"id": "z"}), '"id" must be that of a clip of the run, not "z"'),
        (json.dumps(ROW | {"choice": "z"}), '"choice" must be one of x, y, neither'),
        (json.dumps(ROW | {"tags": ["nice"]}), '"tags" must be one of missing word'),
        (json.dumps(ROW | {"tags": 7}), '"tags" must be a list'),
        (json.dumps(ROW | {"corrected": 7}), '"corrected" must be a text'),
        (json.dumps(ROW | {"note": "x" * 20_001}), '"note" must be a text of at most 20000 characters'),
        (json.dumps(ROW | {"blind": "no"}), '"blind" must be true or false'),
        (json.dumps(ROW | {"rater": ""}), "give the rater a name"),
        (json.dumps(ROW | {"time": "yesterday"}), '"time" must be a date and time'),
    ],
)
def test_a_line_in_the_middle_that_does_not_fit_is_refused_by_its_number(path: Path, line: str, told: str) -> None:
    good = json.dumps(ROW)
    path.write_text(f"{good}\n\n{line}\n{good}\n")
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            VerdictLog(path, RUN, {"a"}).current()
        assert str(caught.value).startswith(f"{path}:3: ")
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_line_that_went_wrong_meanwhile_is_refused_each_time_and_nothing_is_written(path: Path, log: VerdictLog) -> None:
    log.append(Verdict("a", "perfect", "ann"))
    with path.open("a") as file:
        file.write("{]\n")
    content = path.read_bytes()
    for _ in range(2):
        with pytest.raises(DataError, match=r"verdicts\.jsonl:2"):
            log.append(Verdict("b", "perfect", "ann"))
    assert path.read_bytes() == content


def test_a_file_that_was_put_in_the_place_of_another_is_read_anew(path: Path, log: VerdictLog) -> None:
    log.append(Verdict("a", "perfect", "ann"))
    log.append(Verdict("b", "perfect", "ann"))
    other = VerdictLog(path.with_name("other"), RUN)
    other.append(Verdict("c", "perfect", "bob"))
    os.replace(other.path, path)
    assert said(log) == {"bob/c": "perfect"}
    path.write_bytes(path.read_bytes().replace(b'"c"', b'"d"'))
    assert said(log) == {"bob/d": "perfect"}
    path.unlink()
    assert said(log) == {}


def test_a_verdict_that_can_not_be_written_leaves_the_file_as_it_was(path: Path, log: VerdictLog, monkeypatch: pytest.MonkeyPatch) -> None:
    log.append(Verdict("a", "perfect", "ann"))
    content, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:10]))  # as on a full disk
    with pytest.raises(UnsavedError, match=r"verdicts\.jsonl: the verdict could not be saved"):
        log.append(Verdict("b", "perfect", "ann"))
    monkeypatch.undo()
    assert path.read_bytes() == content
    assert said(log) == {"ann/a": "perfect"}


def test_each_line_is_one_write_and_on_the_disk(log: VerdictLog, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda descriptor, line: calls.append(line) or write(descriptor, line))
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(b"fsync") or fsync(descriptor))
    log.append(Verdict("a", "perfect", "ann"))
    assert [call[:8] for call in calls] == [b'{"event"', b"fsync", b"fsync"]  # the last is the folder's, for the new file
    log.append(Verdict("b", "perfect", "ann"))
    assert [call[:8] for call in calls[3:]] == [b'{"event"', b"fsync"]


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\x1bb", "a\x7f", "\u202eevil", "\ud800", "x" * 65, 7, None])
def test_names_that_no_rater_can_have(name: object) -> None:
    with pytest.raises(DataError, match="rater") as caught:
        check_rater(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "kept"), [("ann", "ann"), ("  Jürgen Ö. ", "Jürgen Ö."), ("李", "李"), ("x" * 64, "x" * 64)])
def test_names_that_raters_can_have(name: str, kept: str) -> None:
    assert check_rater(name) == kept
