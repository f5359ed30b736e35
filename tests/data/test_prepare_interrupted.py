"""`prepare` goes on where it was interrupted, whatever interrupted it, to the same bytes; and writes over nothing."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from listed import Listed, contents, lines, options, write_clip

from audiograft.data import prepare
from audiograft.data.folder import made_by
from audiograft.data.options import PrepareOptions
from audiograft.data.sources.base import SourceRow, option
from audiograft.types import ConfigError, DataError, Rejection, Sample

FILES = ("manifest.jsonl", "rejected.jsonl", "manifest.traces", "card.json", "card.html")


def interrupted(source: Listed, chosen: PrepareOptions, at: int, error: BaseException) -> None:
    Listed.fail_at[at] = error
    with pytest.raises((DataError, KeyboardInterrupt)):
        prepare.prepare(source, chosen)
    assert not any((chosen.out / name).exists() for name in FILES)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reading_that_breaks_anywhere_goes_on_to_the_same_bytes(mixed: Listed, tmp_path: Path, workers: int) -> None:
    whole = tmp_path / "whole/corpus"
    prepare.prepare(mixed, options(whole, max_repeats=2, audio="flac"))
    for at in range(0, len(Listed.found), 3 if workers == 1 else 1):
        broken = tmp_path / f"broken-{at:02d}" / "corpus"
        chosen = options(broken, max_repeats=2, audio="flac", workers=workers)
        interrupted(mixed, chosen, at, ConnectionResetError("peer went away"))
        if at + 2 < len(Listed.found):
            interrupted(mixed, chosen, at + 2, KeyboardInterrupt())
        Listed.read.clear()
        prepare.prepare(mixed, chosen)
        assert min(Listed.read, default=99) >= at - 1  # what was done is not done again; its last row is looked at
        assert contents(broken) == contents(whole)


def test_the_error_of_a_broken_stream_is_one_line_that_says_how_far_it_came(mixed: Listed, tmp_path: Path) -> None:
    Listed.fail_at[7] = ConnectionResetError("peer went away")
    with pytest.raises(DataError, match=r"listed: broke off behind row 7 \(ConnectionResetError: peer went away\): run the same command again"):
        prepare.prepare(mixed, options(tmp_path / "out"))
    assert len(lines(tmp_path / "out/manifest.jsonl.part")) + len(lines(tmp_path / "out/rejected.jsonl.part")) == 7


@pytest.mark.parametrize("at", [3, 9])
def test_a_source_that_was_changed_meanwhile_is_refused(mixed: Listed, tmp_path: Path, at: int) -> None:
    """Behind a row that was kept, and behind one that was rejected."""
    interrupted(mixed, options(tmp_path / "out"), at, OSError("stop"))
    before, clip = list(Listed.found), mixed.found[0].sample.audio
    new = SourceRow(Sample("new", (clip,), text="t"))
    for found, named in (([new, *before], "now"), (before[: at - 1], "is gone"), (before[1:], "now")):
        Listed.found = found
        with pytest.raises(DataError, match=rf"listed: was changed since .*out was begun: row {at}, .*{named}.*--overwrite"):
            prepare.prepare(mixed, options(tmp_path / "out"))
    Listed.found = before
    assert prepare.prepare(mixed, options(tmp_path / "out")).rows == len(before)


def test_a_row_that_got_another_text_meanwhile_is_refused(mixed: Listed, tmp_path: Path) -> None:
    interrupted(mixed, options(tmp_path / "out", text_case="upper"), 1, OSError("stop"))
    first = Listed.found[0]
    assert isinstance(first, SourceRow)
    Listed.found = [replace(first, sample=replace(first.sample, text="edited")), *Listed.found[1:]]
    with pytest.raises(DataError, match="has another text now"):
        prepare.prepare(mixed, options(tmp_path / "out", text_case="upper"))
    Listed.found = [first, *Listed.found[1:]]
    assert prepare.prepare(mixed, options(tmp_path / "out", text_case="upper")).kept


def test_a_package_that_is_missing_is_named_with_its_command(mixed: Listed, tmp_path: Path) -> None:
    Listed.fail_at[0] = ModuleNotFoundError("No module named 'urllib3.util'", name="urllib3.util")
    with pytest.raises(ConfigError, match=r"listed: No module named 'urllib3.util': run pip install --upgrade urllib3$"):
        prepare.prepare(mixed, options(tmp_path / "out"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=8)
@given(at=st.integers(1, 13), cut=st.integers(0, 60), extra=st.binary(max_size=20))
def test_a_half_written_line_is_written_again(mixed: Listed, tmp_path_factory: pytest.TempPathFactory, at: int, cut: int, extra: bytes) -> None:
    """As a killed process leaves it: the trace is written, its line of the manifest in part or not at all."""
    folder = tmp_path_factory.mktemp("half")
    prepare.prepare(mixed, options(folder / "whole/corpus", workers=1))
    broken = folder / "broken/corpus"
    interrupted(mixed, options(broken, workers=1), at, OSError("stop"))
    part = broken / "manifest.jsonl.part"
    rows = part.read_bytes().splitlines(keepends=True)
    outcome_of_last = Listed.found[at - 1]
    if isinstance(outcome_of_last, SourceRow) and rows and json.loads(rows[-1])["id"] == outcome_of_last.sample.id:
        part.write_bytes(b"".join(rows[:-1]) + rows[-1][: max(0, len(rows[-1]) - 1 - cut)])
    else:
        with (broken / "rejected.jsonl.part").open("ab") as file:
            file.write(extra.replace(b"\n", b""))
    with (broken / "manifest.traces.part").open("ab") as file:
        file.write(extra)
    prepare.prepare(mixed, options(broken, workers=1))
    assert contents(broken) == contents(folder / "whole/corpus")


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from dataclasses import dataclass
from typing import ClassVar
from audiograft.data.options import PrepareOptions
from audiograft.data.prepare import prepare
from audiograft.data.sources.base import SourceRow, option
from audiograft.types import Sample

@dataclass(frozen=True)
class Killing:
    name: ClassVar[str] = "killing"
    folder: Path = option("Of the clips.")

    def rows(self, skip=0):
        for n in range(skip, 40):
            if n == int(sys.argv[4]):
                os.kill(os.getpid(), signal.SIGKILL)
            name = "gone" if n % 7 == 3 else str(n % 5)
            yield SourceRow(Sample(str(n), (str(self.folder / f"{name}.wav"),), text=f"text {n}"))

prepare(Killing(Path(sys.argv[2])), PrepareOptions(out=Path(sys.argv[3]), workers=2, audio="flac"))
"""


def test_a_killed_process_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    for n in range(5):
        write_clip(tmp_path / f"{n}.wav", 1600 + n, n)

    def run(out: str, kill_at: int) -> int:
        words = [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path), str(tmp_path / out / "corpus"), str(kill_at)]
        return subprocess.run(words, check=False).returncode

    assert run("whole", -1) == 0
    for kill_at in (17, 39):
        assert run("killed", kill_at) == -signal.SIGKILL
        assert not any((tmp_path / "killed/corpus" / name).exists() for name in FILES)
    assert run("killed", -1) == 0
    assert contents(tmp_path / "killed/corpus") == contents(tmp_path / "whole/corpus")


@pytest.mark.parametrize("splits", [(), ("train=0.5,test=0.5",)])
def test_an_end_that_is_interrupted_anywhere_is_made_again(
    mixed: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splits: tuple[str, ...]
) -> None:
    prepare.prepare(mixed, options(tmp_path / "whole/corpus", splits=splits))
    true_replace = Path.replace
    n_steps = 0
    for stop_at in range(1, 40):
        out = tmp_path / f"stop-{stop_at}" / "corpus"
        count = 0

        def replace_or_stop(path: Path, target: Path, stop_at: int = stop_at) -> Path:
            nonlocal count
            count += 1
            if count == stop_at:
                raise KeyboardInterrupt
            return true_replace(path, target)

        monkeypatch.setattr(Path, "replace", replace_or_stop)
        try:
            prepare.prepare(mixed, options(out, splits=splits))
            break
        except KeyboardInterrupt:
            n_steps += 1
        monkeypatch.setattr(Path, "replace", true_replace)
        prepare.prepare(mixed, options(out, splits=splits))
        assert contents(out) == contents(tmp_path / "whole/corpus")
    assert n_steps >= 6


def test_a_full_disk_is_one_line_and_the_run_goes_on(mixed: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare.prepare(mixed, options(tmp_path / "whole/corpus", audio="flac"))
    true_write, count = Path.write_bytes, 0

    def write_or_fail(path: Path, data: bytes) -> int:
        nonlocal count
        count += 1
        if count == 4:
            true_write(path, data[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return true_write(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_or_fail)
    out = tmp_path / "out/corpus"
    with pytest.raises(DataError, match=r"audio/0000/\S+\.flac: can't be written \(No space left on device\): free some space"):
        prepare.prepare(mixed, options(out, audio="flac"))
    prepare.prepare(mixed, options(out, audio="flac"))
    assert contents(out) == contents(tmp_path / "whole/corpus")


def test_a_full_disk_of_temporary_files_is_one_line(mixed: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(path: str) -> sqlite3.Connection:
        ids = true_connect(path)
        ids.execute("pragma max_page_count = 2")
        return ids

    true_connect = sqlite3.connect
    clip = mixed.found[0].sample.audio
    Listed.found = [SourceRow(Sample(f"{number}-" + "x" * 3000, (clip,), text="t")) for number in range(9)]
    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", connect)
        with pytest.raises(DataError, match=r"the ids of the rows can't be held there \(database or disk is full\): free space there or set TMPDIR"):
            prepare.prepare(mixed, options(tmp_path / "out"))
    assert prepare.prepare(mixed, options(tmp_path / "out")).kept == 9


@pytest.mark.parametrize("limit_bytes", [150, 700, 1_200, 4_000])
def test_a_file_that_can_grow_no_more_is_one_line_and_the_run_goes_on(mixed: Listed, tmp_path: Path, limit_bytes: int) -> None:
    """The system's own limit on the size of files cuts a line where it stands, as a full disk does."""
    prepare.prepare(mixed, options(tmp_path / "whole/corpus"))
    out = tmp_path / "out/corpus"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        with pytest.raises(DataError, match=r"corpus/\S+: can't be written \(File too large\)"):
            prepare.prepare(mixed, options(out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not any((out / name).exists() for name in FILES)
    prepare.prepare(mixed, options(out))
    assert contents(out) == contents(tmp_path / "whole/corpus")


def test_other_options_do_not_go_on_where_these_ended(mixed: Listed, tmp_path: Path) -> None:
    out = tmp_path / "out"
    interrupted(mixed, options(out), 5, OSError("stop"))
    for chosen, source, named in (
        ({"limit": 3}, mixed, "limit null, not 3"),
        ({"max_duration_s": 3.0}, mixed, "max_duration_s 30.0, not 3.0"),
        ({}, replace(mixed, scale=2.0), "listed.scale 1.0, not 2.0"),
    ):
        with pytest.raises(DataError, match=rf"{named}.*--overwrite"):
            prepare.prepare(source, options(out, **chosen))
    # How it runs may change.
    prepare.prepare(mixed, options(out, workers=1, max_rejected=0.9))


@dataclass(frozen=True)
class Fetched(Listed):
    """With the options of a source that can be fetched."""

    download: bool = option("Fetch it first.", False)
    mirror: str | None = option("Address.", None)
    streaming: bool = option("Read as it comes.", True)


def test_how_the_files_of_a_source_are_reached_may_change(mixed: Listed, tmp_path: Path) -> None:
    fetched, found = Fetched(mixed.folder, download=True, mirror="http://here"), Fetched(mixed.folder, streaming=False)
    assert made_by(fetched, options(tmp_path / "out"), []) == made_by(found, options(tmp_path / "out"), [])
    interrupted(fetched, options(tmp_path / "out"), 5, OSError("stop"))
    assert prepare.prepare(found, options(tmp_path / "out")).rows == 14


@pytest.mark.parametrize("splits", [(), ("train=0.5,test=0.5",)])
def test_a_run_that_came_to_no_row_binds_nobody(mixed: Listed, tmp_path: Path, splits: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="--skip 50 passes over all of it"):
        prepare.prepare(mixed, options(out, skip=50, splits=splits))
    assert prepare.prepare(mixed, options(out, skip=3, audio="flac")).rows == 11
    assert not list(out.rglob("*.part"))


def test_what_is_there_is_not_written_over(mixed: Listed, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare.prepare(mixed, options(out, limit=4))
    with pytest.raises(DataError, match="finished corpus.*--overwrite"):
        prepare.prepare(mixed, options(out))
    assert prepare.prepare(mixed, options(out, overwrite=True, limit=3)).kept == 3
    assert len(list((out / "audio").rglob("*.wav"))) == 3
    inside = Listed(out / "audio")
    with pytest.raises(DataError, match="the source lies in"):
        prepare.prepare(inside, options(out, overwrite=True))
    (tmp_path / "theirs").mkdir()
    for name in ("manifest.jsonl", "audio"):
        (tmp_path / "theirs" / name).mkdir()
        with pytest.raises(DataError, match=f"{name}: is there already.*choose another folder"):
            prepare.prepare(mixed, options(tmp_path / "theirs", overwrite=True))
        (tmp_path / "theirs" / name).rmdir()


@pytest.mark.parametrize(("name", "at"), [("manifest.jsonl.part", 6), ("rejected.jsonl.part", 9)])
def test_lines_that_a_power_failure_took_from_one_file_are_missed(name: str, at: int, mixed: Listed, tmp_path: Path) -> None:
    interrupted(mixed, options(tmp_path / "out"), at, OSError("stop"))
    part = tmp_path / "out" / name
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="lines are missing .*--overwrite"):
        prepare.prepare(mixed, options(tmp_path / "out"))
    assert prepare.prepare(mixed, options(tmp_path / "out", overwrite=True)).rows == 14


def test_a_file_in_place_of_the_folder_is_said(mixed: Listed, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(DataError, match="is a file, or lies below one: name a folder"):
            prepare.prepare(mixed, options(out))


def test_two_runs_do_not_share_a_folder(mixed: Listed, tmp_path: Path) -> None:
    def other_run(rejection: Rejection | None) -> None:
        with pytest.raises(DataError, match="another run"):
            prepare.prepare(mixed, options(tmp_path / "out"))

    prepare.prepare(mixed, options(tmp_path / "out", limit=1), other_run)
