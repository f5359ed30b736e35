from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import audiograft
from audiograft import provenance


def test_versions_name_the_package_and_what_decides_numbers() -> None:
    found = provenance.versions()
    assert found["audiograft"] == audiograft.__version__
    assert found.keys() == {"audiograft", "python", "torch", "transformers", "peft", "accelerate"}


def test_the_commit_is_that_of_the_source_wherever_it_is_called_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    source.mkdir()
    elsewhere.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setattr(provenance, "__file__", str(source / "provenance.py"))
    monkeypatch.chdir(elsewhere)

    def git(*words: str, folder: Path = source) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    (source / "provenance.py").touch()
    assert provenance.commit() is None
    git("init", folder=elsewhere)
    git("commit", "--allow-empty", "-m", "the user's own", folder=elsewhere)
    git("init")
    git("commit", "--allow-empty", "-m", "a checkout around an installation that it does not track")
    assert provenance.commit() is None
    git("add", "provenance.py")
    git("commit", "-m", "first")
    head = git("rev-parse", "HEAD")
    assert provenance.commit() == head
    (source / "provenance.py").write_text("changed", encoding="utf-8")
    assert provenance.commit() == f"{head}-dirty"
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None  # no git
