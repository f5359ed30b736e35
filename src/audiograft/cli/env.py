"""`audiograft env`."""

from __future__ import annotations

import json
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

import audiograft

_PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "numpy", "scipy", "safetensors", "soundfile", "soxr", "av", "jiwer", "typer", "rich",
)  # fmt: skip
_ENGINES = ("espeak-ng", "flite")

app = typer.Typer(add_completion=False)


@app.command()
def env(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the versions that belong into a bug report.

    Example: audiograft env --json
    """
    rows = {"audiograft": audiograft.__version__, "python": platform.python_version(), "platform": platform.platform()}
    rows |= {package: _version(package) for package in _PACKAGES}
    rows["gpu"] = _gpu()
    rows |= {engine: shutil.which(engine) or "not found" for engine in _ENGINES}
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{name:<{width}}  {value}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _gpu() -> str:
    try:
        import torch
    except (ImportError, OSError) as error:
        # A broken installation is what this verb is there to show.
        return f"torch can't be imported: {error}"
    if not torch.cuda.is_available():
        return "none"
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
