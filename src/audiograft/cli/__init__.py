"""The command line. One module a verb, loaded when the verb is called, so that `audiograft --help` answers at once.

The module of a verb has its name, with _ for -, and defines `app`, a Typer application; what a verb needs of the package is imported inside its
function.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import audiograft
from audiograft.cli.terminal import print_error
from audiograft.types import AudiograftError

VERBS = {
    "transcribe": "Write down what is said in audio files.",
    "ask": "Answer a question about clips and pictures, or about none.",
    "detect": "Say whether a clip holds speech, and how surely.",
    "evaluate": "Run a model over a manifest and score what it writes.",
    "report": "Write a run's report again; draw a training run's curves.",
    "compare": "Say whether runs differ, and what may be claimed.",
    "power": "Say how many clips a comparison needs, before a run.",
    "calibrate": "Fit a detector's temperature and threshold on a dev set.",
    "ensemble": "Join runs on the same clips into one, by averaged log-odds.",
    "audit": "Listen, compare and judge: the review of a run.",
    "graft": "Join an audio encoder and a language model into a new model.",
    "prepare": "Make a corpus: clips and their manifest.",
    "leakage": "Find what training and test data share.",
    "cache-features": "Run the frozen encoder over a corpus, once for all training.",
    "plan": "Say what a recipe costs: parameters, memory, FLOPs, hours.",
    "train": "Run one training stage from a recipe.",
    "repeat": "Train over seeds and splits, and say how far results vary.",
    "prompt-search": "Let a language model look for a better prompt.",
    "push": "Upload a model to the Hugging Face hub, with a card.",
    "selftest": "Check that a model is, on this machine, what it should be.",
    "inspect": "Show what a model consists of, and whether it is whole.",
    "merge": "Write an adapter and its base as one whole model.",
    "env": "Show the versions that belong into a bug report.",
}
"""Each verb with its summary, which is also the first line of its own help."""

_GOING_ON = {
    "prepare": "from here",
    "cache-features": "from here",
    "evaluate": "from here",
    "train": "from its last checkpoint",
    "repeat": "from here",
}
"""Where verbs go on that can be interrupted."""
_INTERRUPTED = 130

_MENDS = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EACCES: "check its permissions or choose another folder",
    errno.EEXIST: "choose another path",
    errno.ENOTDIR: "choose another path",
    errno.EROFS: "choose another folder",
}


class _LazyVerbs(TyperGroup):
    """Lists verbs by their summaries and loads the module of the one that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=summary) for name, summary in VERBS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, placeholder, rest = super().resolve_command(ctx, args)
        return name, get_command(import_module(f"audiograft.cli.{name.replace('-', '_')}").app) if name else placeholder, rest


app = typer.Typer(cls=_LazyVerbs, add_completion=False, context_settings={"help_option_names": ["-h", "--help"]})


@app.callback(invoke_without_command=True)
def _audiograft(ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    """Give a language model ears: graft an audio encoder onto it, train the graft, prove that it listens, run it.

    Start with: audiograft transcribe clip.wav
    """
    if version:
        typer.echo(f"audiograft {audiograft.__version__}")
    elif ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words behind `audiograft`; those of the process by default.

    Returns:
        The exit code: 0 done, 1 where some inputs failed or a trained model is deaf, 2 for wrong usage or what can't be used,
        130 when interrupted.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # A file name that is no UTF-8, or a terminal that is not, costs a character and not the run.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # Exit codes are returned; wrong usage is raised, to become one line as any other error.
        code = get_command(app).main(arguments, prog_name="audiograft", standalone_mode=False)
    except AudiograftError as error:
        return print_error(str(error))
    except typer.TyperException as error:
        return print_error(f"{error.format_message()} (--help shows the usage)", error.exit_code)
    except OSError as error:
        return print_error(_explain(error))
    except (MemoryError, RuntimeError) as error:
        # torch's out-of-memory error, by name: importing torch for it would slow every error down.
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise
        return print_error("out of memory: use a smaller --batch-size, or a smaller tokens_per_batch in the recipe")
    if code == _INTERRUPTED:
        words = sys.argv[1:] if arguments is None else arguments
        if words[0] in _GOING_ON and words[1:2] not in (["synthetic"], ["scenes"]):
            typer.echo(f"interrupted: the same command goes on {_GOING_ON[words[0]]}", err=True)
    return code or 0


def _explain(error: OSError) -> str:
    place = f"{error.filename}: " if error.filename else ""
    mend = f"; {_MENDS[error.errno]}" if error.errno in _MENDS else ""
    return f"{place}{error.strerror or error}{mend}"
