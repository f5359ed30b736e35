"""Listing and loading verbs, and one line instead of a traceback."""

from __future__ import annotations

import errno
import subprocess
import sys
from importlib import import_module
from typing import get_args

import pytest
from typer.core import TyperGroup
from typer.main import get_command

import audiograft
from audiograft.cli import VERBS, env, evaluate, graft, main, transcribe
from audiograft.inference.writers import FORMATS
from audiograft.metrics.normalisers import NORMALISERS
from audiograft.model.configuration import PROJECTORS
from audiograft.types import ConfigError


def raise_in_env(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> str:
        raise error

    monkeypatch.setattr(env, "_gpu", fail)


def test_help_lists_each_verb_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for verb, summary in VERBS.items():
        assert verb in listed
        assert summary in listed
    assert main([]) == 0
    assert capsys.readouterr().out.split() == listed.split()


@pytest.mark.parametrize("verb", VERBS)
def test_summary_is_the_first_line_of_the_verbs_own_help(verb: str) -> None:
    command = get_command(import_module(f"audiograft.cli.{verb.replace('-', '_')}").app)
    assert command.help
    assert command.help.splitlines()[0] == VERBS[verb]


@pytest.mark.parametrize("words", [*([verb] for verb in VERBS if verb != "prepare"), ["prepare", "synthetic"]])
def test_each_verb_teaches_by_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    assert f"Example: audiograft {' '.join(words)}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"audiograft {audiograft.__version__}\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["transcrib"], "Did you mean 'transcribe'?"),
        (["transcribe"], "PATH"),
        (["transcribe", "--modle", "tiny", "a.wav"], "--modle"),
        (["transcribe", "a.wav", "--batch-size", "0"], "--batch-size"),
        (["transcribe", "a.wav", "--max-new-tokens", "0"], "--max-new-tokens"),
        (["transcribe", "a.wav", "--format", "doc"], "--format"),
        (["transcribe", "a.wav", "--format", "srt", "--json"], "--json"),
        (["transcribe", "a.wav", "--timing", "--out", "x"], "--timing"),
        (["evaluate", "--out", "x"], "--data"),
        (["train", "a.yaml", "--dry-run", "--json"], "--dry-run"),
        (["prepare"], "Missing command"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert named in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("recipe.yaml: unknown key"), "error: recipe.yaml: unknown key"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/x"),
            "error: out/x: No space left on device; free some space or choose another folder",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "x"),
            "error: x: Permission denied; check its permissions or choose another folder",
        ),
        (MemoryError(), "error: out of memory: use a smaller --batch-size, or a smaller tokens_per_batch in the recipe"),
    ],
)
def test_what_a_user_can_cause_is_one_line(error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    raise_in_env(monkeypatch, error)
    assert main(["env"]) == 2
    assert capsys.readouterr().err == f"{line}\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_in_env(monkeypatch, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["env"])


def test_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    raise_in_env(monkeypatch, KeyboardInterrupt())
    assert main(["env"]) == 130


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["prepare", "csv", "x"], "interrupted: the same command goes on from here\n"),
        (["evaluate", "--data", "x"], "interrupted: the same command goes on from here\n"),
        (["train", "x"], "interrupted: the same command goes on from its last checkpoint\n"),
        (["prepare", "synthetic"], ""),
        (["transcribe", "x"], ""),
    ],
)
def test_interrupt_of_what_goes_on_says_so(words: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TyperGroup, "invoke", interrupt)
    assert main(words) == 130
    assert capsys.readouterr().err.lstrip("\n") == line


def test_choices_are_those_of_the_package() -> None:
    assert get_args(transcribe.Format) == FORMATS
    assert get_args(evaluate.Normaliser) == NORMALISERS
    assert get_args(graft.Projector) == PROJECTORS


def test_runs_as_a_module_and_hands_the_exit_code_over() -> None:
    done = subprocess.run([sys.executable, "-m", "audiograft", "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
