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
    """A progress bar on stderr where there is enough to do; where that is no terminal, lines now and then.

    Yields:
        What to call after each finished item.
    """
    if total < _MIN_ITEMS_FOR_BAR:
        yield lambda: None
        return
    if not sys.stderr.isatty():
        tell = _lines(description, total)
        yield lambda: tell(False)
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
        yield _lines(description, total, "rejected")
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


def _lines(description: str, total: int | None, marked: str | None = None) -> Callable[[bool], None]:
    """What to call after each item, with whether it is `marked`, to have a line on stderr every now and then."""
    started_s = last_s = time.monotonic()
    n_items = n_marked = 0

    def advance(mark: bool) -> None:
        nonlocal last_s, n_items, n_marked
        n_items += 1
        n_marked += mark
        now_s = time.monotonic()
        if now_s - last_s >= _LINE_EVERY_S:
            last_s = now_s
            of = "" if total is None else f" of {total}"
            count = f", {n_marked} {marked}" if marked else ""
            typer.echo(f"{description}: {n_items}{of}{count}, {now_s - started_s:.0f} s", err=True)

    return advance
