"""`audiograft prepare`: sub-verbs made from sources, what they print, and what they end with."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from audiograft.cli import declared, main, terminal
from audiograft.data.manifest import read_manifest
from audiograft.data.sources import SOURCES, find_source
from audiograft.data.sources.base import SourceRow, option
from audiograft.types import Rejection, Sample

NAMES = {
    "huggingface", "large-scale-asr", "pseudo-labelled", "librispeech", "common-voice", "voxconverse", "esc50", "musan", "manifest", "csv",
    "kaldi", "nemo", "lhotse", "webdataset",
}  # fmt: skip


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten rows as CSV, of which one has no clip."""
    monkeypatch.chdir(tmp_path)
    for number in range(9):
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, 3200).astype(np.float32)
        soundfile.write(tmp_path / f"{number}.wav", samples, 16_000)
    lines = ["audio,text,speaker"] + [f"{number}.wav,[row] {number},s{number % 3}" for number in range(10)]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def test_every_source_of_the_brief_is_registered_under_its_own_name() -> None:
    assert set(SOURCES) == NAMES
    assert {name: source.name for name, source in SOURCES.items()} == {name: name for name in NAMES}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_source_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", name, "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"audiograft prepare {name}" in printed
    assert "--out" in printed
    # The options in the example are ones that there are.
    example = inspect.cleandoc(SOURCES[name].__doc__ or "").split("\n\n")[-1]
    for word in example.split():
        if word.startswith("--"):
            assert f"{word} " in printed, word


def test_help_lists_all_sources_without_loading_what_is_heavy() -> None:
    heavy = "('torch', 'numpy', 'soundfile', 'av', 'scipy', 'datasets', 'pyarrow', 'lhotse', 'ray')"
    code = f"import sys; from audiograft.cli import main; main(['prepare', '--help']); print('heavy:', [m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"
    for name in (*NAMES, "synthetic"):
        assert f" {name} " in done.stdout


def test_a_corpus_is_written_and_summed_up(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "csv", "rows.csv", "--out", "corpus", "--workers", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "read      10 rows",
        "kept      9 rows, 1.8 s: corpus/manifest.jsonl",
        "rejected  1 rows (1 missing): corpus/rejected.jsonl",
        "card      corpus/card.html",
    ]
    assert printed.err == ""
    assert len(read_manifest("corpus")) == 9
    assert json.loads(Path("corpus/card.json").read_text(encoding="utf-8"))["made_by"]["csv.path"] == "rows.csv"


def test_json_prints_the_card_and_options_reach_the_run(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--splits", "train=0.5", "--splits", "test=0.5", "--group-by", "speaker", "--keys", "text=response", "--max-duration-s", "3", "--json"]
    assert main(["prepare", "csv", "rows.csv", "--out", "corpus", "--skip", "2", "--limit", "6", "--audio", "flac", *words]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["rows"] == {"read": 6, "kept": 6, "rejected": 0}
    assert set(card["splits"]) == {"train", "test"}
    assert card["made_by"]["max_duration_s"] == 3.0
    assert {sample.response for sample in read_manifest("corpus/test.jsonl")} <= {f"[row] {number}" for number in range(2, 8)}


def test_splits_that_touch_are_said(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["id,audio,text,speaker"] + [f"{number},{number % 2}.wav,the same long sentence again {number % 2},s{number}" for number in range(8)]
    Path("twins.csv").write_text("\n".join(lines), encoding="utf-8")
    assert main(["prepare", "csv", "twins.csv", "--out", "corpus", "--splits", "train=0.5,test=0.5"]) == 0
    [touching] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("touching")]
    assert re.fullmatch(r"touching  (train and test|test and train) share 2 texts, \d clips: card.html has more", touching)


def test_a_run_that_keeps_nothing_ends_with_1(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "csv", "rows.csv", "--skip", "9", "--max-rejected", "1", "--out", "corpus"]) == 1
    assert capsys.readouterr().err.startswith("error: corpus: none of 1 rows was kept: ")


def test_a_log_is_told_how_far_it_is(table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_LINE_EVERY_S", 0.0)
    assert main(["prepare", "csv", "rows.csv", "--out", "corpus", "--limit", "10"]) == 0
    assert capsys.readouterr().err.splitlines()[-1].startswith("preparing: 10 of 10, 1 rejected, ")


def test_too_many_rejected_rows_end_with_1_and_one_line_a_reason(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prepare", "csv", "rows.csv", "--out", "corpus", "--max-rejected", "0.05"]
    assert main(words) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    headline, reason = printed.err.splitlines()
    assert headline.startswith("error: corpus: 1 of 10 rows (10.0%) are rejected, more than --max-rejected 0.05")
    assert reason.startswith("  1 missing, such as: ")
    assert reason.endswith("9.wav: no such file: check the path (--skip-missing leaves them out of the share)")
    assert main([*words, "--skip-missing"]) == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["csv", "nowhere.csv", "--out", "x"], "nowhere.csv"),
        (["csv", "--out", "x"], "PATH"),
        (["csv", "rows.csv"], "--out"),
        (["cvs", "rows.csv", "--out", "x"], "cvs"),
        (["csv", "rows.csv", "--out", "x", "--limit", "0"], "limit 0"),
        (["csv", "rows.csv", "--out", "x", "--audio", "mp3"], "mp3"),
        (["csv", "rows.csv", "--out", "x", "--min-duration-s", "-1"], "--min-duration-s"),
        (["csv", "rows.csv", "--out", "rows.csv"], "rows.csv: is a file"),
    ],
)
def test_wrong_usage_is_one_line_and_ends_with_2(words: list[str], named: str, table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", *words]) == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert named in printed.err


@dataclass(frozen=True)
class EveryKind:
    """Fields of all types that are allowed."""

    name: ClassVar[str] = "every-kind"

    where: Path = option("of the corpus", argument=True)
    text: str = option("needed")
    number: int = option("whole.", 3)
    share: float | None = option("part", None)
    switch: bool = option("on", False)
    kept: bool = option("off", True)
    kind: Literal["one", "two"] = option("two: the other", "one")
    kinds: Literal["a", "b"] | None = option("any", None)
    several: tuple[str, ...] = option("many", ("x",))
    maybe: tuple[str, ...] | None = option("many or none", None)

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """None."""
        yield SourceRow(Sample("a"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["here", "--text", "t"], EveryKind(Path("here"), "t")),
        (
            ["here", "--text", "t", "--number", "5", "--share", "0.5", "--switch", "--no-kept", "--kind", "two", "--kinds", "b", "--several", "y",
             "--several", "z", "--maybe", "m"],
            EveryKind(Path("here"), "t", 5, 0.5, True, False, "two", "b", ("y", "z"), ("m",)),
        ),
    ],
)  # fmt: skip
def test_fields_of_every_kind_become_options_and_come_back(words: list[str], expected: EveryKind) -> None:
    made: list[EveryKind] = []
    app = typer.Typer()
    app.command()(declared.command(lambda values: made.append(declared.made_of(EveryKind, values)), declared.parameters(EveryKind), "Help."))
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert made == [expected]


def test_no_name_is_cut_at_80_columns_and_brackets_stay(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    for name in sorted(NAMES):
        assert main(["prepare", name, "--help"]) == 0
        printed = capsys.readouterr().out
        assert "…" not in printed, name
        assert "--max-words-per-second" in printed
        assert name != "lhotse" or "pip install 'audiograft[lhotse]'" in " ".join(printed.split())


def test_help_sentences_begin_with_a_capital_unless_they_name_what_is_typed() -> None:
    def help_of(name: str) -> Any:
        [parameter] = [item for item in declared.parameters(EveryKind) if item.name == name]
        assert parameter.annotation.__class__ is Annotated[int, 0].__class__
        return parameter.annotation.__metadata__[0].help

    assert [help_of(name) for name in ("number", "kind", "text")] == ["Whole.", "two: the other. One of one, two.", "Needed."]


def test_of_two_options_with_one_name_the_first_stays() -> None:
    function = declared.command(lambda values: None, [*declared.parameters(EveryKind), *declared.parameters(EveryKind, "Other")], "")
    shown = inspect.signature(function).parameters
    assert len(shown) == 10
    assert shown["number"].annotation.__metadata__[0].rich_help_panel is None


def test_an_unknown_source_names_the_closest() -> None:
    from audiograft.types import ConfigError

    with pytest.raises(ConfigError, match="source libri-speech: .* the closest is librispeech"):
        find_source("libri-speech")


@pytest.mark.needs_engines
def test_synthetic_writes_a_card_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "synthetic", "--split", "dev", "--rows", "2", "--out", str(tmp_path), "--workers", "1"]) == 0
    card = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    assert card["rows"] == {"read": 2, "kept": 2, "rejected": 0}
    assert card["made_by"]["source"] == "synthetic"
