"""`audiograft ask`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiograft.cli.listening import checked_decoding, find_clips, in_order, load_engine, writable
from audiograft.cli.options import (
    BatchSizeOption,
    DeviceOption,
    MaxNewTokensOption,
    NumBeamsOption,
    SeedOption,
    TemperatureOption,
    TopPOption,
)
from audiograft.cli.terminal import print_error, progress, quiet_libraries
from audiograft.images import check_video, image_size
from audiograft.messages import Message, media_messages
from audiograft.types import DEFAULT_WITH_EYES, Answer, DataError, MediaError

if TYPE_CHECKING:
    from audiograft.inference.decoding import DecodingOptions
    from audiograft.inference.engine import Engine

QuestionOption = Annotated[
    str,
    typer.Option(
        help="The question. <audio>, <image> and <video> mark places; what has no marks comes first: images, videos, clips. "
        "Without a prompt the clips ask."
    ),
]
ImageOption = Annotated[list[str] | None, typer.Option(metavar="FILE", help="A picture to look at; may be given several times.")]
VideoOption = Annotated[list[str] | None, typer.Option(metavar="FILE", help="A video to watch, without its sound; likewise.")]
AskedModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="A model folder, a hub id, or what ships: tiny, and where there are pictures tiny-vl.")
]

app = typer.Typer(add_completion=False)


@app.command()
def ask(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Clips that the question is about: audio files, folders, or globs. May be left out."),
    ] = None,
    prompt: QuestionOption = "",
    image: ImageOption = None,
    video: VideoOption = None,
    each: Annotated[bool, typer.Option("--each", help="Ask about each clip by itself, in batches.")] = False,
    chat: Annotated[
        bool, typer.Option("--chat", help="Go on with the questions on standard input, one a line; a line that is an audio file is a spoken one.")
    ] = False,
    system: Annotated[str, typer.Option(help="What the model is told before the conversation.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Each answer as a JSON object on a line of its own.")] = False,
    model: AskedModelOption = None,
    batch_size: BatchSizeOption = 8,
    device: DeviceOption = "auto",
    num_beams: NumBeamsOption = 1,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = None,
    max_new_tokens: MaxNewTokensOption = None,
    seed: SeedOption = 0,
) -> None:
    """Answer a question about clips and pictures, or about none.

    Several paths are several clips of one question; with --each the question is asked about each of them. On a terminal the words are shown as they
    come. A clip of more than 30 s is heard window by window. What can't be used gives an error line and exit code 1. Pictures need a model with eyes.

    \b
    Example: audiograft ask clip.wav --prompt "Which room is mentioned?"
             audiograft ask a.wav b.wav --prompt "Is <audio> like <audio>?"
             audiograft ask calls/ --each --prompt "How many lamps?" --json
             audiograft ask clip.wav --chat
             audiograft ask --image scene.png question.wav
             audiograft ask --image a.png --image b.png --prompt "Which is darker?"
    """
    if each and (chat or not paths):
        raise typer.BadParameter("--each needs paths, and --chat has one conversation: name clips, or leave --each out")
    if not (paths or prompt or chat):
        raise typer.BadParameter("there is no question: give a clip, --prompt, or both")
    quiet_libraries()
    decoding = checked_decoding({"num_beams": num_beams, "temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed})
    clips, complete = find_clips(paths or [])
    pictures = _Pictures(image or [], video or [])
    model = model or (DEFAULT_WITH_EYES if image or video else "tiny")
    if prompt:
        media_messages(prompt, clips=1 if each else len(clips), **pictures.counts)  # wrong markers are told before the model is loaded
    if not pictures.look():  # nothing can be answered without them, and a model may take minutes to load
        raise typer.Exit(1)
    told: list[Message] = [{"role": "system", "content": system}] if system else []
    if each:
        complete &= not clips or _ask_each(load_engine(model, device), clips, pictures, told, prompt, as_json, batch_size, decoding)
    elif complete:
        conversation = _Conversation(load_engine(model, device), told, clips, pictures, decoding, as_json)
        complete = conversation.go_on(prompt) if chat else conversation.put(prompt)
    if not complete:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Pictures:
    """What is to be seen, as it was named."""

    images: list[Any]
    videos: list[Any]

    @property
    def counts(self) -> dict[str, int]:
        """For `audiograft.messages`."""
        return {"images": len(self.images), "videos": len(self.videos)}

    def look(self) -> bool:
        """Read the headers and name what can't be used; whether all can."""
        complete = True
        for check, sources in ((image_size, self.images), (check_video, self.videos)):
            for source in sources:
                if Path(source).is_fifo():
                    continue  # what is read of a pipe is gone
                try:
                    check(source)
                except MediaError as error:
                    print_error(str(error))
                    complete = False
        return complete


def _ask_each(
    engine: Engine,
    clips: list[str],
    pictures: _Pictures,
    told: list[Message],
    prompt: str,
    as_json: bool,
    batch_size: int,
    decoding: DecodingOptions,
) -> bool:
    """Ask the same about each clip and print the answers in the order of the clips; whether all were answered."""
    from audiograft.inference.questions import Question

    asked: dict[str, Any] = {"messages": [*told, {"role": "user", "content": prompt}]} if told else {"prompt": prompt}
    asked |= {"images": pictures.images, "videos": pictures.videos}
    complete = True

    def show(answer: Answer | MediaError) -> None:
        nonlocal complete
        if isinstance(answer, MediaError):
            print_error(str(answer))
            complete = False
        elif as_json or len(clips) == 1:
            _print(answer, as_json)
        else:
            typer.echo(writable(f"{answer.clips[0]}: {answer.text}"))

    show_in_order = in_order(show)

    def finish(index: int, answer: Answer | MediaError) -> None:
        advance()
        show_in_order(index, answer)

    # On a terminal the lines themselves show how far it is.
    with progress("answering", 0 if sys.stdout.isatty() else len(clips)) as advance:
        engine.ask_many([Question([clip], **asked) for clip in clips], batch_size=batch_size, on_result=finish, **decoding)
    return complete


class _Conversation:
    """Questions that are answered one after the other, each with all that was said before it."""

    def __init__(self, engine: Engine, told: list[Message], clips: list[str], pictures: _Pictures, decoding: DecodingOptions, as_json: bool) -> None:
        self._engine = engine
        self._turns = told
        self._clips: list[Any] = clips
        self._pictures = pictures
        self._decoding = decoding
        self._as_json = as_json
        # Words with beams change until the last one is there.
        self._streams = sys.stdout.isatty() and not as_json and decoding.get("num_beams", 1) == 1

    def put(self, question: str, spoken: str | None = None) -> bool:
        """Ask, and print the answer; whether there is one.

        Args:
            question: what is asked in writing.
            spoken: a clip that asks.
        """
        first = not any(turn["role"] == "user" for turn in self._turns)
        clips = [*self._clips, spoken] if spoken else self._clips
        new = clips if first else clips[len(self._clips) :]
        turns = [*self._turns, *media_messages(question, clips=len(new), **(self._pictures.counts if first else {}))]
        seen, stream = self._pictures, self._show if self._streams else None
        try:
            answer = self._engine.ask(clips, images=seen.images, videos=seen.videos, messages=turns, stream=stream, **self._decoding)
        except MediaError as error:
            print_error(str(error))
            return False
        self._turns, self._clips = [*turns, {"role": "assistant", "content": answer.text}], clips
        if self._streams:
            typer.echo()
        else:
            _print(replace(answer, prompt=question or spoken or ""), self._as_json)
        return True

    def go_on(self, first: str) -> bool:
        """Ask the first question, where there is one, and those on standard input; whether all were answered."""
        complete = not first or self.put(first)
        for line in _lines():
            try:
                complete &= self.put("", spoken=line) if os.path.isfile(line) else self.put(line)
            except DataError as error:
                print_error(str(error))
                complete = False
        return complete

    @staticmethod
    def _show(word: str) -> None:
        typer.echo(writable(word), nl=False)


def _lines() -> Iterator[str]:
    """What is typed or piped in, without blank lines."""
    asks = sys.stdin.isatty()
    while True:
        if asks:
            typer.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _print(answer: Answer, as_json: bool) -> None:
    typer.echo(writable(json.dumps(answer.as_row(), ensure_ascii=False) if as_json else answer.text))
