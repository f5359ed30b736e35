"""What all verbs share: error lines, a progress bar, and quiet libraries."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

_MIN_ITEMS_FOR_BAR = 11
"""Below this a bar is gone before it can be read."""
_LINE_EVERY_S = 30.0
"""How often a log, which has no bar, is told how far the work is."""


def print_error(message: str, exit_code: int = 2) -> int:
    """Print one `error:` line on stderr and hand the exit code back."""
    typer.echo(f"error: {' '.join(message.split())}", err=True)
    return exit_code


def quiet_libraries() -> None:
    """Keep the chatter and the bars of transformers and the hub off the terminal, unless the user's environment asks for them.

    Has to be called before either is imported.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # PEFT imports it where it is installed, and it warns of a faster kernel that nobody asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr, where that is a terminal and there is enough to do.

    Yields:
        What to call after each finished item.
    """
    if total < _MIN_ITEMS_FOR_BAR or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Standard output may be piped into a file: only stderr goes through the bar.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def row_progress(description: str, total: int | None) -> Iterator[Callable[[bool], None]]:
    """A progress bar on stderr for rows of which some are rejected and whose number need not be known; where that is no terminal, lines now and then.

    Yields:
        What to call after each row, with whether it was rejected.
    """
    if not sys.stderr.isatty():
        yield _row_lines(description, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[n]} rejected"), TimeElapsedColumn())
    n_rejected = 0
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(description, total=total, n=0)

        def advance(rejected: bool) -> None:
            nonlocal n_rejected
            n_rejected += rejected
            bar.update(task, advance=1, n=n_rejected)

        yield advance


def _row_lines(description: str, total: int | None) -> Callable[[bool], None]:
    """What to call after each row, with whether it was rejected, to have a line on stderr every now and then."""
    started_s = last_s = time.monotonic()
    n_rows = n_rejected = 0

    def advance(rejected: bool) -> None:
        nonlocal last_s, n_rows, n_rejected
        n_rows += 1
        n_rejected += rejected
        now_s = time.monotonic()
        if now_s - last_s >= _LINE_EVERY_S:
            last_s = now_s
            of = "" if total is None else f" of {total}"
            typer.echo(f"{description}: {n_rows}{of} rows, {n_rejected} rejected, {now_s - started_s:.0f} s", err=True)

    return advance
