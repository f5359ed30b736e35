"""`audiograft transcribe`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from audiograft.bulk import EngineName, check_engine
from audiograft.cli.listening import checked_decoding, find_clips, in_order, load_engine, with_manifests, with_terms, writable
from audiograft.cli.options import (
    AddressOption,
    AllowOutsideOption,
    BatchSizeOption,
    ContextOption,
    DeviceOption,
    EngineOption,
    MaxNewTokensOption,
    ModelOption,
    NumBeamsOption,
    SeedOption,
    TemperatureOption,
    TopPOption,
    WorkersOption,
)
from audiograft.cli.terminal import print_error, progress, quiet_libraries
from audiograft.types import TRANSCRIBE_PROMPT, AudioError, Transcript

Format = Literal["text", "json", "jsonl", "srt", "vtt"]
Result = Transcript | AudioError
Decode = Callable[..., list[Result]]
"""`Engine.transcribe_many` with its prompt and its options of decoding."""
_STREAMED = ("text", "jsonl")
"""Formats in which each clip has a line of its own, so that none has to wait for the last one."""

app = typer.Typer(add_completion=False)


@app.command()
def transcribe(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Audio files, folders (searched for audio files), globs, manifests (.jsonl).")],
    model: ModelOption = "tiny",
    file_format: Annotated[Format, typer.Option("--format", "-f", help="What to write; srt and vtt are subtitles.")] = "text",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write one file a clip into this folder, as each is done.")] = None,
    batch_size: BatchSizeOption = 8,
    device: DeviceOption = "auto",
    prompt: Annotated[str, typer.Option(help="The instruction to the language model.")] = TRANSCRIBE_PROMPT,
    context: ContextOption = None,
    num_beams: NumBeamsOption = 1,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = None,
    max_new_tokens: MaxNewTokensOption = None,
    seed: SeedOption = 0,
    allow_outside: AllowOutsideOption = False,
    engine: EngineOption = "local",
    address: AddressOption = None,
    workers: WorkersOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    timing: Annotated[bool, typer.Option("--timing", help="One clip at a time, each with its duration and real-time factor.")] = False,
) -> None:
    """Write down what is said in audio files.

    Text and jsonl are printed as clips are done, in the order given. A clip that can't be used gives an error line, the others are still
    done, and the exit code is 1. With --engine ray the clips are shared among the workers of a cluster, which have to see them under the same paths.

    Example: audiograft transcribe talk.mp3 recordings/ --format srt --out subtitles
    """
    if as_json and file_format not in ("text", "json"):
        raise typer.BadParameter(f"--json and --format {file_format} exclude each other: leave one out")
    if timing and (as_json or out or file_format != "text"):
        raise typer.BadParameter("--timing prints text: leave out --format, --json and --out")
    if timing and engine != "local":
        raise typer.BadParameter("--timing times one clip after the other on this machine: leave out --engine")
    check_engine(engine, address)
    quiet_libraries()
    decoding = checked_decoding({"num_beams": num_beams, "temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed})
    prompt = with_terms(prompt, context)
    files, complete = find_clips(with_manifests(paths, allow_outside))
    if files:
        if out:
            out.mkdir(parents=True, exist_ok=True)
        decode = partial(_decode_with(model, device, engine, address, workers), prompt=prompt, **decoding)
        if timing:
            complete &= _print_timed(decode, files)
        else:
            complete &= _transcribe(decode, files, "json" if as_json else file_format, out, batch_size)
    if not complete:
        raise typer.Exit(1)


def _decode_with(model: str, device: str, engine: EngineName, address: str | None, workers: int | None) -> Decode:
    if engine == "local":
        return load_engine(model, device).transcribe_many
    from audiograft.inference.engine import Engine
    from audiograft.inference.spreading import transcribe_spread

    options: dict[str, Any] = {"engine": engine, "address": address, "workers": workers, "on_gpus": device != "cpu"}
    return partial(transcribe_spread, partial(Engine.load, model, device), **options)


def _transcribe(decode: Decode, files: list[str], file_format: str, out: Path | None, batch_size: int) -> bool:
    """Decode in batches and write, each clip as soon as the format allows, so that little is lost to an interrupt; whether all went well."""
    from audiograft.data.manifest import replace_text
    from audiograft.inference.writers import extension, render

    targets = list(_targets(files, out, extension(file_format))) if out else []
    streamed = not out and file_format in _STREAMED

    def show(result: Result) -> None:
        if isinstance(result, AudioError):
            return
        if file_format == "text" and len(files) > 1:
            # Named even where a single one of several clips was left.
            typer.echo(writable(f"{result.audio}: {result.text}"))
        else:
            typer.echo(render([result], file_format), nl=False)

    show_in_order = in_order(show)

    def finish(index: int, result: Result) -> None:
        advance()
        if isinstance(result, AudioError):
            print_error(str(result))
        elif targets:
            replace_text(targets[index], render([result], file_format))
        if streamed:
            show_in_order(index, result)

    # On a terminal the lines themselves show how far it is, and a bar would be drawn into them.
    with progress("transcribing", 0 if streamed and sys.stdout.isatty() else len(files)) as advance:
        results = decode(files, batch_size=batch_size, on_result=finish)
    transcripts = [result for result in results if isinstance(result, Transcript)]
    if transcripts and not out and not streamed:
        typer.echo(render(transcripts, file_format), nl=False)
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


def _print_timed(decode: Decode, files: list[str]) -> bool:
    """Decode clip by clip and print each with its cost; whether all went well. The time includes reading the file."""
    complete = True
    for file in files:
        start_s = time.perf_counter()
        [result] = decode([file], batch_size=1)
        wall_s = time.perf_counter() - start_s
        if isinstance(result, AudioError):
            print_error(str(result))
            complete = False
            continue
        factor = wall_s / result.duration_s
        typer.echo(writable(f"{result.audio}\n  text              {result.text}"))
        typer.echo(f"  duration          {result.duration_s:.2f} s")
        typer.echo(f"  real-time factor  {factor:.3f} ({1 / factor:.0f} s of audio a second)\n")
    return complete
