"""What a result was made with, for the records that runs leave. Imports nothing of the package but its version."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import audiograft


def versions() -> dict[str, str]:
    """Of audiograft, Python and the libraries that decide numbers."""
    libraries = {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")}
    return {"audiograft": audiograft.__version__, "python": platform.python_version(), **libraries}


def commit() -> str | None:
    """Commit of audiograft's source, with -dirty where files differ from it; None where it was not run from a git checkout."""
    here = Path(__file__)
    try:
        # An installation below somebody else's checkout is not tracked by it.
        subprocess.run(["git", "ls-files", "--error-unmatch", here.name], cwd=here.parent, capture_output=True, check=True)
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, cwd=here.parent, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
