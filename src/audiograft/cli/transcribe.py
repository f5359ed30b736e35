"""`audiograft transcribe`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from audiograft.cli.options import BatchSizeOption, DeviceOption, ModelOption
from audiograft.cli.terminal import print_error, progress, quiet_libraries
from audiograft.types import TRANSCRIBE_PROMPT, AudioError, Transcript

if TYPE_CHECKING:
    from audiograft.inference.engine import Engine

Format = Literal["text", "json", "jsonl", "srt", "vtt"]

app = typer.Typer(add_completion=False)


@app.command()
def transcribe(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Audio files, folders (searched for audio files), or globs.")],
    model: ModelOption = "tiny",
    file_format: Annotated[Format, typer.Option("--format", "-f", help="What to write; srt and vtt are subtitles.")] = "text",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write one file a clip into this folder, as each is done.")] = None,
    batch_size: BatchSizeOption = 8,
    device: DeviceOption = "auto",
    prompt: Annotated[str, typer.Option(help="The instruction to the language model.")] = TRANSCRIBE_PROMPT,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    timing: Annotated[bool, typer.Option("--timing", help="One clip at a time, each with its duration and real-time factor.")] = False,
) -> None:
    """Write down what is said in audio files.

    A clip that can't be used gives an error line, the others are still done, and the exit code is 1.

    Example: audiograft transcribe talk.mp3 recordings/ --format srt --out subtitles
    """
    if as_json and file_format not in ("text", "json"):
        raise typer.BadParameter(f"--json and --format {file_format} exclude each other: leave one out")
    if timing and (as_json or out or file_format != "text"):
        raise typer.BadParameter("--timing prints text: leave out --format, --json and --out")
    quiet_libraries()
    files, complete = _find(paths)
    if files:
        if out:
            out.mkdir(parents=True, exist_ok=True)
        engine = _load(model, device)
        if timing:
            complete &= _print_timed(engine, files, prompt)
        else:
            complete &= _transcribe(engine, files, "json" if as_json else file_format, out, batch_size, prompt)
    if not complete:
        raise typer.Exit(1)


def _find(paths: list[str]) -> tuple[list[str], bool]:
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


def _load(model: str, device: str) -> Engine:
    from audiograft.inference.engine import Engine

    engine = Engine.load(model, device)
    if engine.note:
        typer.echo(f"note: {engine.note}", err=True)
    return engine


def _transcribe(engine: Engine, files: list[str], file_format: str, out: Path | None, batch_size: int, prompt: str) -> bool:
    """Decode in batches and write; whether all went well."""
    from audiograft.inference.writers import extension, render

    targets = list(_targets(files, out, extension(file_format))) if out else []

    def finish(index: int, result: Transcript | AudioError) -> None:
        advance()
        if isinstance(result, AudioError):
            print_error(str(result))
        elif targets:
            targets[index].write_text(render([result], file_format), encoding="utf-8")

    with progress("transcribing", len(files)) as advance:
        results = engine.transcribe_many(files, batch_size=batch_size, prompt=prompt, on_result=finish)
    transcripts = [result for result in results if isinstance(result, Transcript)]
    if not out and transcripts:
        if file_format == "text" and len(files) > 1:
            # Named even where a single one of several clips was left.
            typer.echo("\n".join(f"{transcript.audio}: {transcript.text}" for transcript in transcripts))
        else:
            typer.echo(render(transcripts, file_format).removesuffix("\n"))
    return len(transcripts) == len(files)


def _targets(files: list[str], out: Path, extension: str) -> Iterator[Path]:
    """Where each transcript goes: the clip's stem, with a number where two clips share it."""
    taken: set[str] = set()
    for file in files:
        stem = Path(file).stem
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        yield out / f"{name}{extension}"


def _print_timed(engine: Engine, files: list[str], prompt: str) -> bool:
    """Decode clip by clip and print each with its cost; whether all went well. The time includes reading the file."""
    complete = True
    for file in files:
        start_s = time.perf_counter()
        [result] = engine.transcribe_many([file], batch_size=1, prompt=prompt)
        wall_s = time.perf_counter() - start_s
        if isinstance(result, AudioError):
            print_error(str(result))
            complete = False
            continue
        factor = wall_s / result.duration_s
        typer.echo(f"{result.audio}\n  text              {result.text}\n  duration          {result.duration_s:.2f} s")
        typer.echo(f"  real-time factor  {factor:.3f} ({1 / factor:.0f} s of audio a second)\n")
    return complete
