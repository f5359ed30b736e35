"""What the verbs that hear clips share: finding the clips, loading the model, and the options of decoding."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from audiograft.cli.terminal import print_error
from audiograft.types import AudioError

if TYPE_CHECKING:
    from audiograft.inference.decoding import DecodingOptions
    from audiograft.inference.engine import Engine

Result = TypeVar("Result")


def find_clips(paths: list[str]) -> tuple[list[str], bool]:
    """Files behind the paths, each once, and whether every path led to some."""
    from audiograft.audio import find_audio

    files: dict[str, str] = {}
    complete = True
    for path in paths:
        try:
            for file in find_audio([path]):
                files.setdefault(os.path.abspath(file), str(file))
        except AudioError as error:
            print_error(str(error))
            complete = False
    return list(files.values()), complete


def with_manifests(paths: list[str], allow_outside: bool) -> list[str]:
    """The paths, with the clips of a manifest in its place.

    Raises:
        DataError: a table, or a manifest that can't be read.
    """
    from audiograft.data.manifest import TABLE_SUFFIXES, find_manifest, iterate_rows, row_to_sample

    found = []
    for path in paths:
        manifest = Path(path)
        if manifest.suffix.lower() in TABLE_SUFFIXES and manifest.is_file():
            find_manifest(manifest)  # which says what to do with it
        if manifest.suffix != ".jsonl" or not manifest.is_file():
            found.append(path)
            continue
        for number, _, row in iterate_rows(manifest):
            found += row_to_sample(row, number, manifest.parent, f"{path}:{number}", allow_outside).clips
    return found


def load_engine(model: str, device: str, say_note: bool = True) -> Engine:
    """The model, and, unless its note is of something else, what it has to say about itself on stderr."""
    from audiograft.inference.engine import Engine

    engine = Engine.load(model, device)
    if engine.note and say_note:
        typer.echo(f"note: {engine.note}", err=True)
    return engine


def checked_decoding(options: DecodingOptions) -> DecodingOptions:
    """The options as they are, refused before a model is loaded.

    Raises:
        ConfigError: out of range, or excluding each other.
    """
    from audiograft.inference.decoding import Decoding

    Decoding(**options)
    return options


def with_terms(prompt: str, context: Path | None) -> str:
    """The instruction with the terms of a file, where there is one.

    Raises:
        DataError: the file or a term can't be used.
    """
    from audiograft.inference.context import read_terms, with_context

    return prompt if context is None else with_context(prompt, read_terms(context))


def writable(text: str) -> str:
    """The text with what UTF-8 can't encode, as in a file name that is none, escaped as the writers do."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def in_order(use: Callable[[Result], None]) -> Callable[[int, Result], None]:
    """Take results as they come and hand each to `use` once all before it have been."""
    waiting: dict[int, Result] = {}
    place = 0

    def take(index: int, result: Result) -> None:
        nonlocal place
        waiting[index] = result
        while place in waiting:
            use(waiting.pop(place))
            place += 1

    return take
