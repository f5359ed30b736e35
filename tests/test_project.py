"""The project's own files agree with each other, and the package is quick to import."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import audiograft
from audiograft.cli import VERBS

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "scipy", "av", "numpy")


def normalised(requirement: str) -> str:
    """The name in a requirement, as package indexes compare it."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_changelog_tops_with_the_version() -> None:
    versions = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert versions[0] == audiograft.__version__


def test_every_direct_dependency_is_pinned_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    direct = {normalised(item) for group in (project["dependencies"], *project["optional-dependencies"].values()) for item in group}
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9-]+==[0-9.]+(post[0-9]+)?", line) for line in lines)
    pinned = [normalised(line) for line in lines]
    assert len(pinned) == len(set(pinned))
    # One group may name others of the package's own.
    assert direct - set(pinned) == {project["name"]}


@pytest.mark.parametrize(
    "code",
    [
        "import audiograft",
        "from audiograft.cli import main; main(['--help'])",
        "from audiograft.cli import main; main(['--version'])",
        f"from audiograft.cli import main; [main([verb, '--help']) for verb in {list(VERBS)}]",
        "from audiograft.cli import main; main(['prepare', 'synthetic', '--help'])",
    ],
)
def test_nothing_heavy_is_imported_for(code: str) -> None:
    script = f"{code}\nimport sys\nprint('heavy:', *sorted(set(sys.modules) & set({HEAVY})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"
