"""Corrected labels go back as a new manifest, and every row is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from judged import audit_run, verdicts

from audiograft.audit.corrected import CorrectedSummary, write_corrected
from audiograft.audit.results import results
from audiograft.audit.run import AuditRun
from audiograft.audit.verdicts import Verdict
from audiograft.cli import main
from audiograft.data.manifest import read_manifest, read_rows, write_manifest
from audiograft.types import ConfigError, DataError

ROWS = [
    {"id": "typed", "audio": "clips/a.wav", "text": "the cat", "speaker": "ann", "quality": 3},
    {"id": "heard", "audio": "clips/b.wav", "text": "the dog", "response": "the dog"},
    {"id": "error", "audio": ["clips/c.wav", "clips/d.wav"], "text": "the cow"},
    {"id": "unclear", "audio": "clips/e.wav", "text": "the pig"},
    {"id": "tied", "audio": "clips/f.wav", "text": "the hen"},
    {"id": "unjudged", "audio": "clips/g.wav", "text": "the bee"},
]
JUDGED = [
    *verdicts("ann", typed="label_noise: a  cat sat", heard="label_noise", error="model_error", unclear="ambiguous", tied="perfect"),
    *verdicts("bob", typed="label_noise", heard="label_noise", tied="model_error"),
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_manifest(folder / "manifest.jsonl", ROWS)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> AuditRun:
    return audit_run(tmp_path / "run", *((str(row["id"]), str(row["text"]), f"{row['text']} heard") for row in ROWS))


def written(path: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for _, row in read_rows(path)}


def test_corrected_rows_have_the_new_text_and_what_they_were(run: AuditRun, corpus: Path) -> None:
    summary = write_corrected(run, JUDGED, corpus, corpus / "corrected.jsonl")
    rows = written(corpus / "corrected.jsonl")
    assert rows["typed"] == {
        **ROWS[0],
        "text": "a cat sat",
        "original_text": "the cat",
        "corrected_by": ["ann"],
        "verdict": "label_noise",
        "correction": "typed",
    }
    assert rows["heard"]["text"] == rows["heard"]["response"] == "the dog heard"
    assert rows["heard"]["corrected_by"] == ["ann", "bob"]
    assert rows["heard"]["correction"] == "hypothesis"
    for row in ROWS[2:]:
        assert rows[str(row["id"])] == row
    assert (summary.typed, summary.from_hypothesis, summary.kept, summary.unjudged) == (1, 1, 1, 1)
    assert list(summary.unsettled) == ["unclear", "tied"]
    assert summary.dropped == []
    assert accounted(summary) == summary.rows == len(ROWS)


def accounted(summary: CorrectedSummary) -> int:
    return summary.typed + summary.from_hypothesis + summary.kept + summary.unjudged + len(summary.unsettled) + len(summary.dropped)


def test_a_clip_in_which_nothing_is_said(run: AuditRun, corpus: Path) -> None:
    given = [Verdict("typed", "label_noise", "ann", corrected="")]
    summary = write_corrected(run, given, corpus, corpus / "corrected.jsonl")
    assert summary.typed == 1
    assert written(corpus / "corrected.jsonl")["typed"]["text"] == ""
    assert list(read_manifest(corpus / "corrected.jsonl"))[0].target == ""
    wer = results(run, given)["wer"]
    assert (wer["typed"], wer["corrected"]["insertions"], wer["corrected"]["reference_length"]) == (1, 3, 0)


def test_the_judged_manifest_stays_as_it_is(run: AuditRun, corpus: Path) -> None:
    before = (corpus / "manifest.jsonl").read_bytes()
    (corpus / "link.jsonl").symlink_to(corpus / "manifest.jsonl")
    for out in (corpus, corpus / "manifest.jsonl", corpus / "link.jsonl"):
        with pytest.raises(DataError, match="is the manifest that was judged"):
            write_corrected(run, JUDGED, corpus, out)
    write_corrected(run, JUDGED, corpus, corpus / "new.jsonl")
    with pytest.raises(DataError, match="exists already"):
        write_corrected(run, JUDGED, corpus, corpus / "new.jsonl")
    assert (corpus / "manifest.jsonl").read_bytes() == before


@pytest.mark.parametrize("out", ["corpus/deeper/new.jsonl", "elsewhere/corpus"])
def test_clips_are_found_from_the_new_place(run: AuditRun, corpus: Path, tmp_path: Path, out: str) -> None:
    summary = write_corrected(run, JUDGED, corpus, tmp_path / out)
    assert summary.needs_allow_outside
    assert summary.out == tmp_path / out / ("" if out.endswith("jsonl") else "manifest.jsonl")
    clips = [[Path(clip).resolve() for clip in sample.clips] for sample in read_manifest(summary.out, allow_outside=True)]
    assert clips == [[Path(clip).resolve() for clip in sample.clips] for sample in read_manifest(corpus)]
    assert not write_corrected(run, JUDGED, corpus, corpus / "beside.jsonl").needs_allow_outside


def test_absolute_clips_stay_and_are_told(tmp_path: Path) -> None:
    run = audit_run(tmp_path / "run", ("a", "x", "y"))
    write_manifest(tmp_path / "manifest.jsonl", [{"id": "a", "audio": "/data/a.wav", "text": "x"}])
    summary = write_corrected(run, verdicts("ann", a="label_noise"), tmp_path / "manifest.jsonl", tmp_path / "new")
    assert written(summary.out)["a"]["audio"] == "/data/a.wav"
    assert summary.needs_allow_outside


def test_only_what_is_asked_for_is_dropped_and_it_is_counted(run: AuditRun, corpus: Path) -> None:
    summary = write_corrected(run, JUDGED, corpus, corpus / "new.jsonl", drop=["ambiguous", "label_noise"])
    assert summary.dropped == ["heard", "unclear"]
    assert list(written(corpus / "new.jsonl")) == ["typed", "error", "tied", "unjudged"]
    assert accounted(summary) == summary.rows == len(ROWS)
    with pytest.raises(ConfigError, match="unknown category 'noise'"):
        write_corrected(run, JUDGED, corpus, corpus / "more.jsonl", drop=["noise"])


def test_different_texts_of_raters_of_one_mind_are_not_chosen_from(run: AuditRun, corpus: Path) -> None:
    given = [*verdicts("ann", typed="label_noise: one"), *verdicts("bob", typed="label_noise: two")]
    summary = write_corrected(run, given, corpus, corpus / "new.jsonl")
    assert summary.unsettled == {"typed": "raters typed different texts"}
    assert written(corpus / "new.jsonl")["typed"] == ROWS[0]


def test_a_second_audit_keeps_the_first_text(run: AuditRun, corpus: Path, tmp_path: Path) -> None:
    write_corrected(run, JUDGED, corpus, corpus / "new.jsonl")
    again = audit_run(tmp_path / "again", ("typed", "a cat sat", "the cat sat"))
    write_corrected(again, verdicts("cy", typed="label_noise"), corpus / "new.jsonl", corpus / "newer.jsonl")
    row = written(corpus / "newer.jsonl")["typed"]
    assert (row["text"], row["original_text"], row["corrected_by"]) == ("the cat sat", "the cat", ["cy"])


def test_answers_are_corrected_where_they_stand(tmp_path: Path) -> None:
    row = {"id": "a", "audio": "a.wav", "text": "it rains", "prompt": "Does it rain?", "response": "no"}
    run = audit_run(tmp_path / "run", {"id": "a", "reference": "no", "hypothesis": "yes", "task": "answer"})
    write_manifest(tmp_path / "manifest.jsonl", [row])
    write_corrected(run, verdicts("ann", a="label_noise"), tmp_path / "manifest.jsonl", tmp_path / "new.jsonl")
    found = written(tmp_path / "new.jsonl")["a"]
    assert (found["text"], found["response"], found["original_text"]) == ("it rains", "yes", "no")


FOREIGN = {
    "id": "a",
    "audio": "a.wav",
    "ground_truth": "hello",
    "conversations": [
        {"role": "user", "content": "<|audio_bos|><|AUDIO|><|audio_eos|>\nTranscribe this audio."},
        {"role": "assistant", "content": "hello"},
    ],
}


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"id": "b", "audio": "a.wav", "text": "hello"}, "row 'a', which was judged, is not in it"),
        ({"id": "a", "audio": "a.wav", "text": "hallo"}, "has another label than the one that was judged"),
        (FOREIGN, 'its label is not in "text" or "response" alone'),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(tmp_path: Path, row: dict[str, Any], error: str) -> None:
    run = audit_run(tmp_path / "run", ("a", "hello", "hello you"))
    write_manifest(tmp_path / "manifest.jsonl", [row])
    with pytest.raises(DataError, match=error) as caught:
        write_corrected(run, verdicts("ann", a="label_noise"), tmp_path / "manifest.jsonl", tmp_path / "new.jsonl")
    assert str(caught.value).startswith(str(tmp_path / "manifest.jsonl"))
    assert not (tmp_path / "new.jsonl").exists()


def test_rows_of_another_system_whose_labels_stand_are_kept(tmp_path: Path) -> None:
    run = audit_run(tmp_path / "run", ("a", "hello", "hello you"))
    write_manifest(tmp_path / "manifest.jsonl", [FOREIGN])
    assert write_corrected(run, verdicts("ann", a="model_error"), tmp_path / "manifest.jsonl", tmp_path / "new.jsonl").kept == 1


def test_verdicts_on_other_clips_are_counted(run: AuditRun, corpus: Path) -> None:
    assert write_corrected(run, [*JUDGED, Verdict("elsewhere", "perfect", "ann")], corpus, corpus / "new.jsonl").outside == 1


def test_the_command_line_drops_on_demand_and_names_what_is_in_doubt(corpus: Path, run: AuditRun, capsys: pytest.CaptureFixture[str]) -> None:
    (run.folder / "run.json").write_text(json.dumps({"manifest": str(corpus / "manifest.jsonl")}))
    run.verdicts_path.write_text("".join(json.dumps(verdict.as_row(run.fingerprint)) + "\n" for verdict in JUDGED))
    out = corpus / "new.jsonl"
    assert main(["audit", str(run.folder), "--corrected", str(out), "--drop", "ambiguous"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [f"{out}: 5 of 6 rows: 1 typed, 1 from the model, 1 kept, 1 in doubt, 1 unjudged, 1 dropped"]
    assert "tied: in doubt, label as it was: raters differ, and no category has the most of them" in told.err.splitlines()
    assert "unclear" not in written(out)
    assert main(["audit", str(run.folder), "--drop", "ambiguous"]) == 2
    assert "--drop needs --corrected" in capsys.readouterr().err
    assert main(["audit", str(run.folder), "--corrected", str(corpus / "more.jsonl"), "--drop", "noise"]) == 2
    assert "unknown category 'noise' to drop" in capsys.readouterr().err
