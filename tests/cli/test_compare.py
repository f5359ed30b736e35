"""What `compare` and `power` print, and what they end with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from audiograft.cli import main

ROWS = [("one two three", f"s{i % 12}") for i in range(120)]


def write(path: Path, wrong_every: int, error: bool = False) -> Path:
    rows = [
        {"id": str(i), "reference": text, "hypothesis": "one too three" if i % wrong_every == 0 else text, "speaker": speaker}
        for i, (text, speaker) in enumerate(ROWS)
    ]
    if error:
        rows[0] |= {"hypothesis": "", "error": "gone"}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return str(write(tmp_path / "[red]before.jsonl", 5)), str(write(tmp_path / "after.jsonl", 7))


def test_compare_prints_rates_tests_notes_and_last_the_claim(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *files]) == 0
    printed = capsys.readouterr().out
    for part in ("[red]before", "6.67 %", "5.00 %", "-1.67 points", "paired bootstrap", "permutation", "MAPSSWE", "McNemar", "12 speakers", "note: "):
        assert part in printed, part
    assert printed.splitlines()[-1].startswith("no difference shown between after and [red]before (p = 0.")
    assert printed.count("(the claim rests on it)") == 1


def test_compare_of_three_prints_adjusted_values_and_a_claim_each(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *files, str(write(tmp_path / "last.jsonl", 1))]) == 0
    printed = capsys.readouterr().out
    assert "p, adjusted (Holm)" in printed
    assert [line.split(" (")[0] for line in printed.splitlines()[-2:]] == [
        "no difference shown between after and [red]before",
        "last makes more errors than [red]before: WER higher by 26.7 points",
    ]


def test_compare_as_json_has_the_keys_that_are_promised(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *files, "--json", "--confidence", "0.9", "--normaliser", "none"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"wer_difference", "wer_interval", "mcnemar_p", "claim"} <= set(found)
    assert found["wer_interval"]["confidence"] == 0.9
    assert found["normaliser"]["name"] == "none"
    assert {key: found["comparisons"][0][key] for key in ("claim", "mcnemar_p")} == {key: found[key] for key in ("claim", "mcnemar_p")}


def test_compare_of_answers_prints_accuracies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for name, n_right in (("a", 92), ("b", 95)):
        rows = [{"id": str(i), "task": "answer", "reference": "yes", "hypothesis": "yes" if i < n_right else "no"} for i in range(96)]
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["compare", *map(str, paths)]) == 0
    printed = capsys.readouterr().out
    for part in ("right answers", "difference of accuracy", "+3.12 points", "0 in a, 3 in b", "96 answers, 96 clips drawn"):
        assert part in printed, part
    assert "MAPSSWE" not in printed
    assert printed.splitlines()[-1].startswith("no difference shown between b and a (p = 0.250); to detect 1 point")


def test_an_interval_without_0_says_why_it_is_no_basis_where_nothing_is_claimed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    paths = []
    for name, wrong in (("a", 1), ("b", 8)):
        rows = [
            {"id": str(i), "reference": "one two", "hypothesis": "one too" if i % 10 < wrong else "one two", "speaker": f"s{i // 10}"}
            for i in range(50)
        ]
        rows[0] |= {"hypothesis": "one two"}
        paths.append(tmp_path / f"{name}.jsonl")
        paths[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["compare", *map(str, paths)]) == 0
    printed = capsys.readouterr().out
    assert " points (no basis for a claim: 5 speakers are too few)" in printed
    assert re.search(r"clips to detect 1 point +│ about [\d,]+ clips of [\d,]+ speakers \(80 % power\)", printed)
    assert "; at least 6 speakers are needed" in printed.splitlines()[-1]
    assert main(["compare", *map(str, paths), "--confidence", "0.9"]) == 0
    assert "no basis" not in capsys.readouterr().out


def test_compare_of_ids_that_differ_is_one_line_unless_common(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    after = Path(files[1])
    after.write_text("".join(after.read_text().splitlines(keepends=True)[:100]))
    assert main(["compare", *files]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert "lacks 20 ids (the first '100')" in error
    assert main(["compare", *files, "--common"]) == 0
    assert "note: 20 ids are not in all runs and left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"), [([], "Missing argument"), (["a"], "two runs at least"), (["none", "there"], "no such predictions file")]
)
def test_compare_of_nothing_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_compare_loads_no_torch(files: tuple[str, str]) -> None:
    code = (
        f"import sys; from audiograft.cli import main; main(['compare', *{files!r}]); sys.exit(bool({{'torch', 'statsmodels'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["power", *words]) == 0
    return capsys.readouterr().out


def test_power_of_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "--wer", "0.05", "--difference", "0.01", "--words", "15")
    assert out.splitlines()[-1] == "about 526 clips find a difference of 1 point of WER with 80 % power"
    assert out.count("assumed") == 3


def test_power_of_given_clips(capsys: pytest.CaptureFixture[str]) -> None:
    last = printed(capsys, "--wer", "0.05", "--clips", "526").splitlines()[-1]
    assert last == "526 clips find a difference of 1 point of WER with 80.1 % power; with 80 % power the smallest that they find is 1 point"
    assert "no difference is found" in printed(capsys, "--accuracy", "0.9", "--clips", "4")


def test_power_with_speakers(capsys: pytest.CaptureFixture[str]) -> None:
    assert "about 1,675 clips of 40 speakers find" in printed(capsys, "--wer", "0.05", "--speakers", "40")
    few = printed(capsys, "--wer", "0.05", "--speakers", "40", "--difference", "0.003")
    assert "no number of clips of 40 speakers finds a difference of 0.3 points of WER" in few
    assert "speakers are needed" in few
    assert printed(capsys, "--wer", "0.05", "--speakers", "5", "--clips", "900").endswith("no difference is found: at least 6 speakers are needed\n")


def test_power_as_json_of_a_pilot(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "--pilot", files[0], "--pilot", files[1], "--json"))
    assert found["measure"] == "wer"
    assert all(row["measured"] for row in found["expected"].values())
    assert "measured" in printed(capsys, "--pilot", files[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of --wer, --accuracy or --pilot"),
        (["--wer", "0.1", "--accuracy", "0.9"], "one of --wer, --accuracy or --pilot"),
        (["--pilot", "a", "--pilot", "b", "--pilot", "c"], "one run, or two"),
        (["--accuracy", "0.9", "--difference", "0.3"], "can't be higher by 30 points"),
        (["--wer", "5"], "'--wer': 5 is above 1, and this is a rate: give 0.05 for 5 %"),
        (["--wer", "0.05", "--difference", "2"], "'--difference': 2 is above 1"),
        (["--accuracy", "90"], "'--accuracy': 90 is above 1"),
        (["--accuracy", "0.9", "--discordance", "10"], "'--discordance': 10 is above 1"),
        (["--wer", "0.1", "--difference", "0"], "--difference"),
        (["--wer", "0.1", "--discordance", "0.2"], "--discordance: not for --wer: leave it out"),
        (["--accuracy", "0.9", "--words", "20"], "--words: not for --accuracy: leave it out"),
        (["--pilot", "a", "--dispersion", "3"], "--dispersion: a pilot measures it: leave it out"),
        (["--pilot", "a", "--pilot", "b", "--correlation", "0.3"], "--correlation: a pilot measures it"),
        (["--wer", "0.1", "--intraclass", "0.1"], "--intraclass needs --speakers"),
    ],
)
def test_power_of_what_can_not_be_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
