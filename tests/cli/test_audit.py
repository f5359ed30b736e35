"""`audiograft audit`: the page from start to Ctrl-C, what it does without one, and what it refuses."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from reviewed import mistaken, write_run

from audiograft.audit.blind import blind_order
from audiograft.audit.log import VerdictLog
from audiograft.audit.run import AuditRun, load_run
from audiograft.audit.verdicts import Verdict
from audiograft.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", mistaken(8))


def judged(folder: Path, **given: str) -> AuditRun:
    """The run, with verdicts of ann: clip_0="perfect"."""
    run = load_run(folder)
    log = VerdictLog(run.verdicts_path, run.fingerprint)
    for clip, category in given.items():
        log.append(Verdict(f"clip-{int(clip.partition('_')[2]):05d}", category, "ann"))
    return run


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real process that serves, and its address."""
    command = [sys.executable, "-m", "audiograft", "audit", *arguments, "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found is not None, process.communicate()
        yield process, found[0]
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it says after Ctrl-C."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    return out, err


def test_the_page_is_served_a_verdict_kept_and_the_end_says_where(folder: Path) -> None:
    with started(str(folder), "--rater", "ann") as (process, url), httpx.Client(base_url=url) as client:
        token = re.search(r'audiograft-token" content="([^"]+)"', client.get("/").text)
        assert token is not None
        said = {"rater": "ann", "id": "clip-00003", "verdict": "model_error"}
        assert client.post("/api/verdicts", json=said, headers={"X-Audiograft-Token": token[1]}).status_code == 200
        assert client.get("/audio/3").content == (folder / "clip-003.wav").read_bytes()
        out, err = ended(process)
    assert out == f"1 verdict saved in {folder / 'verdicts.jsonl'}\n"
    assert err == ""
    assert [verdict.id for verdict in VerdictLog(folder / "verdicts.jsonl", load_run(folder).fingerprint).current()] == ["clip-00003"]


def test_a_second_server_takes_a_free_port_and_an_asked_for_one_is_refused(folder: Path) -> None:
    with started(str(folder)) as (_, first), started(str(folder)) as (_, second):
        assert first != second
        assert httpx.get(second + "api/run").json()["n_clips"] == 8
        port = first.rstrip("/").rpartition(":")[2]
        command = [sys.executable, "-m", "audiograft", "audit", str(folder), "--no-browser", "--port", port]
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: 127.0.0.1:{port}: can't listen there (")
    assert refused.stderr.endswith("leave --port out to have a free one chosen\n")


def test_other_machines_are_let_in_with_a_warning_and_the_token(folder: Path) -> None:
    with started(str(folder), "--host", "0.0.0.0") as (process, url):
        port = re.search(r":(\d+)/\?token=(\S+)", url)
        assert port is not None
        assert httpx.get(f"http://127.0.0.1:{port[1]}/").status_code == 403
        assert httpx.get(f"http://127.0.0.1:{port[1]}/?token={port[2]}").status_code == 200
        _, err = ended(process)
    assert err == "warning: other machines can reach this page, unencrypted: whoever has the whole address hears the clips and can judge\n"


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost"])
def test_every_address_of_this_machine_answers_under_its_name(folder: Path, host: str) -> None:
    with started(str(folder), "--host", host) as (_, url):
        assert "token" not in url
        assert httpx.get(url).status_code == 200
        assert httpx.get(url, headers={"Host": "evil.example"}).status_code == 400


def test_nothing_is_printed_in_a_blind_session_that_tells_the_texts_apart(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [("one", ""), ("", " ")])
    with started(str(folder)) as (process, url):
        assert len(httpx.get(url + "api/run").json()["notes"]) == 2
        assert "hypotheses are empty" in ended(process)[1]
    with started(str(folder), "--blind", "--normalised") as (process, url):
        assert httpx.get(url + "api/run").json()["normalised"] is True
        assert httpx.get(url + "api/run").json()["notes"] == []
        assert ended(process)[1] == ""


def test_a_table_takes_the_place_of_no_other_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged(folder, clip_0="perfect")
    predictions = folder / "predictions.jsonl"
    before = predictions.read_bytes()
    assert main(["audit", str(folder), "--csv", str(predictions)]) == 2
    assert "exists already and is no .csv: name another file" in capsys.readouterr().err
    assert predictions.read_bytes() == before


def test_results_are_printed_and_given_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged(folder, clip_0="label_noise", clip_1="perfect")
    assert main(["audit", str(folder), "--results"]) == 0
    assert "Label noise" in capsys.readouterr().out
    assert main(["audit", str(folder), "--results", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pooled"]["categories"]["label_noise"]["clips"] == 1
    assert found["suggestions"]["judged"] == 2
    assert list(found["suggestions"]["at"]) == ["5", "10"]


def test_notes_on_the_run_are_for_who_looks_at_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", [("one two", "one"), ("", "three"), ("four", "four")])
    log = judged(folder, clip_0="model_error").verdicts_path
    log.write_text(log.read_text() + '{"event": "ver')
    table, page = tmp_path / "verdicts.csv", tmp_path / "review.html"

    def told(*arguments: str) -> list[str]:
        assert main(["audit", str(folder), *arguments]) == 0
        return capsys.readouterr().err.splitlines()

    drawn = "2 of 3 clips, drawn with seed 0; --all shows all again"
    assert told("--sample", "2", "--csv", str(table))[0] == drawn  # what this very command drew
    assert told("--csv", str(table)) == []
    for looked in (["--results"], ["--export", str(page)]):
        lines = told(*looked)
        assert "the last line is half-written" in lines[0]
        assert lines[1].startswith("1 of 3 references have no words once normalised")
        assert lines[2] == drawn
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text(log.read_text().splitlines()[0] + "\n")
    assert told("--import", str(theirs)) == []
    # Beside JSON nothing else stands on standard output.
    assert f"1 verdict written to {table}" in told("--csv", str(table), "--results", "--json")


def test_a_sample_is_kept_until_all_are_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged(folder, **{f"clip_{number}": "perfect" for number in range(8)})

    def shown(*more: str) -> tuple[dict[str, int], str]:
        assert main(["audit", str(folder), "--results", "--json", *more]) == 0
        printed = capsys.readouterr()
        return json.loads(printed.out)["clips"], printed.err

    clips, told = shown("--sample", "3", "--seed", "5", "--stratify")
    assert clips == {"run": 8, "sample": 3, "judged": 3, "failed": 0}
    assert told.splitlines() == [
        "3 of 8 clips, drawn with seed 5; --all shows all again",
        "5 verdicts are about clips outside this sample; they are kept, and left out of its results",
    ]
    assert shown()[0]["sample"] == 3
    assert shown("--all") == ({"run": 8, "sample": 8, "judged": 8, "failed": 0}, "")
    assert shown()[0]["sample"] == 8


def test_verdicts_of_a_static_page_are_taken_in(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = load_run(folder)
    theirs = tmp_path / "theirs.jsonl"
    row = Verdict("clip-00001", "perfect", "bob", blind=True, choice="x").as_row(run.fingerprint) | {"verdict": None}
    theirs.write_text(json.dumps(row) + "\n")
    assert main(["audit", str(folder), "--import", str(theirs)]) == 0
    assert capsys.readouterr().out == f"{theirs}: 1 verdict taken in; saved in {folder / 'verdicts.jsonl'}\n"
    (kept,) = VerdictLog(run.verdicts_path, run.fingerprint).current("bob")
    assert kept.verdict == ("model_error" if blind_order(run.fingerprint, "bob", "clip-00001") else "label_noise")
    assert main(["audit", str(folder), "--import", str(theirs)]) == 0
    assert "0 verdicts taken in, 1 known already" in capsys.readouterr().out


def test_a_table_and_corrected_labels_are_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps({"id": row["id"], "audio": row["audio"], "text": row["reference"]}) + "\n" for row in rows))
    judged(folder, clip_0="label_noise", clip_1="perfect")
    table, out = tmp_path / "verdicts.csv", tmp_path / "new" / "manifest.jsonl"
    assert main(["audit", str(folder), "--corrected", str(out)]) == 2
    assert "no run.json names the manifest" in capsys.readouterr().err
    (folder / "run.json").write_text(json.dumps({"manifest": str(manifest)}))
    assert main(["audit", str(folder), "--corrected", str(out), "--csv", str(table)]) == 0
    told = capsys.readouterr().out
    assert f"{out}: 8 of 8 rows: 0 typed, 1 from the model, 1 kept, 0 in doubt, 6 unjudged" in told
    assert f"2 verdicts written to {table}" in told
    assert json.loads(out.read_text().splitlines()[0])["text"] == rows[0]["hypothesis"]
    assert "label_noise" in table.read_text()
    fewer = tmp_path / "fewer.jsonl"
    assert main(["audit", str(folder), "--corrected", str(fewer), "--drop", "label_noise", "--drop", "perfect"]) == 0
    assert f"{fewer}: 6 of 8 rows: 0 typed, 0 from the model, 0 kept, 0 in doubt, 6 unjudged, 2 dropped" in capsys.readouterr().out


def test_the_page_is_written_as_files(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "review.html"
    assert main(["audit", str(folder), "--export", str(page), "--blind", "--rater", "ann", "--normalised"]) == 0
    assert capsys.readouterr().out == f"8 clips written to {page}\n"
    text = page.read_text()
    assert '"x":' in text
    assert '"normalised":true' in text
    assert not re.search('"[xy]":"[^"]*[A-Z]', text)
    assert '"ref":' not in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--json"], "--json needs --results"),
        (["--normalised"], "--normalised needs --blind"),
        (["--drop", "ambiguous"], "--drop needs --corrected"),
        (["--seed", "3"], "--seed and --stratify need --sample"),
        (["--sample", "3", "--all"], "--sample and --all exclude each other"),
        (["--sample", "9", "--results"], "the run has 8 clips that can be judged"),
        (["--blind", "--results"], "--blind and --results exclude each other"),
        (["--blind", "--second", "x.jsonl"], "--blind and --second exclude each other"),
        (["--blind", "--csv", "x.csv"], "--blind and --csv exclude each other"),
        (["--rater", "a\nb"], "a rater's name has at most 64 characters"),
        (["--host", "no.such.host.invalid"], "no such host"),
        (["--second", "gone.jsonl"], "gone.jsonl: no such predictions file"),
        (["--import", "gone.jsonl"], "gone.jsonl: can't be read"),
        (["--audio-root", "/nowhere"], "the audio of all 8 clips is missing (the first: /nowhere/clip-000.wav)"),
        (["--export", "/proc/nothing/here"], "can't be written"),
        (["--export", "gone/e.pdf"], "gone/e.pdf: the page is no .pdf file: name gone/e.html, or a folder (gone/e)"),
    ],
)
def test_what_does_not_fit_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    assert main(["audit", str(folder), *arguments]) == 2
    (*_, told) = capsys.readouterr().err.splitlines()
    assert told.startswith("error: ")
    assert line in told


def test_bad_runs_and_verdicts_are_one_line_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told() -> str:
        assert main(["audit", str(folder), "--results"]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        return lines[0]

    log = judged(folder, clip_0="perfect", clip_1="perfect").verdicts_path
    good = log.read_text()
    log.write_text(re.sub('"run": "[0-9a-f]+"', '"run": "ffffffffffffffff"', good, count=1))
    assert f"{log}:1: belongs to another run" in told()
    log.write_text(good.replace("clip-00001", "clip-00099"))
    assert f'{log}:2: "id" must be that of a clip of the run, not "clip-00099"' in told()
    log.write_text("{\n" + good)
    assert f"{log}:1: not valid JSON" in told()
    log.write_text(good)
    predictions = folder / "predictions.jsonl"
    predictions.write_text(predictions.read_text() + predictions.read_text().splitlines()[0] + "\n")
    assert f"{predictions}:9: id 'clip-00000' stands in line 1 already" in told()


def test_a_half_written_last_line_and_empty_hypotheses_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", [("one two", ""), ("three", "")])
    log = judged(folder, clip_0="model_error").verdicts_path
    log.write_text(log.read_text() + '{"event": "ver')
    assert main(["audit", str(folder), "--results"]) == 0
    half, empty = capsys.readouterr().err.splitlines()
    assert half == f"{log}:2: the last line is half-written and no verdict: the next verdict takes its place"
    assert empty.startswith("all 2 hypotheses are empty")


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_without_the_extra_the_page_names_it_and_all_else_works(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    for module in [
        name for name in sys.modules if name.startswith(("audiograft.audit.server", "audiograft.audit.serving", "audiograft.audit.guard"))
    ]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(vars(sys)["modules"], package, None)
    assert main(["audit", str(folder)]) == 2
    assert capsys.readouterr().err == f"error: the page needs {package}: pip install 'audiograft[audit]'; --export and --results go without\n"
    assert main(["audit", str(folder), "--results"]) == 0


def test_no_model_is_loaded_for_it(folder: Path) -> None:
    command = f"import sys; from audiograft.cli import main; main(['audit', {str(folder)!r}, '--results']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
