"""`audiograft detect`."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from audiograft.cli.listening import find_clips, in_order, load_engine, with_manifests, writable
from audiograft.cli.options import AllowOutsideOption, DeviceOption
from audiograft.cli.terminal import print_error, progress, quiet_libraries
from audiograft.inference.segmentation import Segmentation
from audiograft.types import DEFAULT_DETECTOR, SPEECH, AudioError, Detection

if TYPE_CHECKING:
    from audiograft.inference.choices import ClosedQuestion
    from audiograft.inference.engine import Engine

Format = Literal["text", "jsonl", "csv"]
_SEGMENTS = "Segments of long clips"
_DEFAULTS = Segmentation()
_EVEN = 0.5
"""Where people expect the threshold to be."""

DetectorOption = Annotated[str, typer.Option("--model", "-m", help="The shipped detector, tiny, a model folder, or a hub id.")]
ThresholdOption = Annotated[float | None, typer.Option(min=0.0, max=1.0, help="SPEECH from this probability on; by default the model's own.")]
FlatteningOption = Annotated[float | None, typer.Option("--temperature", help="Divides the log-odds; by default the model's own.")]
ChoicesOption = Annotated[
    str | None, typer.Option(help="Ask which of these is in each clip in place of speech: words with commas between, as dog,car,rain.")
]
QuestionOption = Annotated[
    str | None, typer.Option("--prompt", help="The question, in place of the model's own; with --choices what stands in front of them.")
]
SegmentsOption = Annotated[
    bool | None,
    typer.Option(
        "--segments/--whole",
        help="Say where the speech is, or hear each clip at once, as evaluate does; by default by its length. Over 1 s the two can disagree.",
        rich_help_panel=_SEGMENTS,
    ),
]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Clips or windows at once. More is faster and takes more memory.")]
WindowOption = Annotated[float, typer.Option(help="Length of the windows that are heard.", rich_help_panel=_SEGMENTS)]
HopOption = Annotated[float, typer.Option(help="Between their starts; edges are found to about as much.", rich_help_panel=_SEGMENTS)]
MinSpeechOption = Annotated[float, typer.Option(help="Shorter segments are left out.", rich_help_panel=_SEGMENTS)]
MinSilenceOption = Annotated[float, typer.Option(help="Shorter gaps are filled.", rich_help_panel=_SEGMENTS)]
SpeechPadOption = Annotated[float, typer.Option(help="Added at both ends of a segment.", rich_help_panel=_SEGMENTS)]
MaxSpeechOption = Annotated[float, typer.Option(help="Longer segments are parted where speech is least likely.", rich_help_panel=_SEGMENTS)]

app = typer.Typer(add_completion=False)


@app.command()
def detect(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Audio files, folders (searched for audio files), globs, manifests (.jsonl).")],
    model: DetectorOption = DEFAULT_DETECTOR,
    threshold: ThresholdOption = None,
    temperature: FlatteningOption = None,
    file_format: Annotated[Format, typer.Option("--format", "-f", help="What to print: text, JSON lines, or CSV.")] = "text",
    choices: ChoicesOption = None,
    prompt: QuestionOption = None,
    segments: SegmentsOption = None,
    window_ms: WindowOption = _DEFAULTS.window_ms,
    hop_ms: HopOption = _DEFAULTS.hop_ms,
    min_speech_ms: MinSpeechOption = _DEFAULTS.min_speech_ms,
    min_silence_ms: MinSilenceOption = _DEFAULTS.min_silence_ms,
    speech_pad_ms: SpeechPadOption = _DEFAULTS.speech_pad_ms,
    max_speech_s: MaxSpeechOption = _DEFAULTS.max_speech_s,
    batch_size: BatchOption = 64,
    device: DeviceOption = "auto",
    allow_outside: AllowOutsideOption = False,
) -> None:
    """Say whether a clip holds speech, and how surely.

    The answer is read from one forward pass: nothing is generated. With --choices any other question is asked, of a model that can follow it.

    A clip of up to a second is heard at once. In a longer one segments with speech are looked for: it is SPEECH where there is one, and its
    probability is that of its likeliest moment. A clip that can't be used gives an error line, the others are still done, and the exit code is 1.

    \b
    Example: audiograft detect clip.wav recordings/ --threshold 0.7 --format jsonl
             audiograft detect meeting.mp3 --min-silence-ms 500
             audiograft detect sounds/ --choices "dog,car,rain" --model HUB_ID
    """
    from audiograft.inference.choices import find_question

    segmentation = Segmentation(window_ms, hop_ms, None, min_speech_ms, min_silence_ms, speech_pad_ms, max_speech_s)
    labels = None if choices is None else _labels(choices, threshold, segments)
    quiet_libraries()
    files, complete = find_clips(with_manifests(paths, allow_outside))
    if files:
        own = find_question(model)
        question = None if labels else _own_question(own, model, prompt)
        # The note of a graft is about its transcripts, and that of a detector stands in its question.
        engine = load_engine(model, device, say_note=own is None)
        question = question or _any_question(labels or [], own, model, prompt, engine.processor.tokenizer)
        if threshold is not None:
            question = replace(question, threshold=threshold)
        if temperature is not None:
            question = replace(question, temperature=temperature)
        cut = False if labels else segments
        complete &= _detect(engine, question, files, file_format, {"batch_size": batch_size, "cut": cut, "segmentation": segmentation})
    if not complete:
        raise typer.Exit(1)


def _labels(choices: str, threshold: float | None, segments: bool | None) -> list[str]:
    labels = [choice.strip() for choice in choices.split(",")]
    if len(labels) < 2 or not all(labels):
        raise typer.BadParameter(f"--choices {choices!r}: give two words or more with commas between, as dog,car,rain")
    if threshold is not None and len(labels) > 2:
        raise typer.BadParameter("--threshold is between two answers, and of more the likeliest is taken: leave it out")
    if segments:
        raise typer.BadParameter("--segments are of speech: leave out --choices")
    return labels


def _own_question(own: ClosedQuestion | None, model: str, prompt: str | None) -> ClosedQuestion:
    """What the model is asked, and on stderr what a user should know about that."""
    from audiograft.inference.choices import DEFAULT_QUESTION

    question = own or DEFAULT_QUESTION
    if prompt is not None:
        question = replace(question, prompt=prompt, temperature=1.0, threshold=0.5, chosen_on=None)
    if model == "tiny":
        _note(f"tiny was never trained to detect speech, so that its answers mean nothing: use --model {DEFAULT_DETECTOR}", "warning")
    if own is not None and own.note:
        _note(own.note)
    if own is None:
        _note(f'{model} has no detection.json: it is asked "{" ".join(question.prompt.split())}", and the probability is not calibrated')
    elif question.chosen_on is None:
        why = "with another prompt than its own" if prompt is not None else "before `audiograft calibrate`"
        _note(f"{model}: {why} the probability is not calibrated")
    return question


def _any_question(labels: list[str], own: ClosedQuestion | None, model: str, prompt: str | None, tokenizer: Any) -> ClosedQuestion:
    """Which of the labels it is, and on stderr whether the model can't know."""
    from audiograft.inference.choices import choice_question

    question = choice_question(labels, tokenizer, prompt)
    if own is not None:
        learnt = f"learnt to tell {', '.join(own.labels)} alone"
    elif model == "tiny":
        learnt = "never learnt to name sounds"
    else:
        return question
    _note(f"{model} {learnt}, so that its answers mean nothing: name a model that follows instructions with --model", "warning")
    return question


def _note(text: str, kind: str = "note") -> None:
    typer.echo(writable(f"{kind}: {text}"), err=True)


def _detect(engine: Engine, question: ClosedQuestion, files: list[str], file_format: Format, hearing: Any) -> bool:
    """Print each result as soon as those before it are there; whether all went well."""
    header, line = _writer(question, files, file_format)
    complete, begun, puzzling = True, False, False

    def show(result: Detection | AudioError) -> None:
        nonlocal complete, puzzling
        if isinstance(result, AudioError):
            print_error(str(result))
            complete = False
        else:
            typer.echo(writable(line(result)))
            puzzling |= question.about_speech and (result.speech_prob >= _EVEN) != (result.predicted == SPEECH)

    show_in_order = in_order(show)

    def finish(index: int, result: Detection | AudioError) -> None:
        nonlocal begun
        # Not before, so that a question that doesn't fit the model leaves standard output empty.
        if header and not begun:
            typer.echo(header)
        begun = True
        advance()
        show_in_order(index, result)

    # On a terminal the lines themselves show how far it is.
    with progress("detecting", 0 if sys.stdout.isatty() else len(files)) as advance:
        engine.choose_many(files, question, on_result=finish, **hearing)
    if puzzling and file_format == "text":
        _note(f"P(SPEECH) of {question.threshold:.3f} or more is called SPEECH: the threshold of this question")
    return complete


def _writer(question: ClosedQuestion, files: list[str], file_format: Format) -> tuple[str, Callable[[Detection], str]]:
    """The first line, empty where there is none, and what writes a result."""
    if file_format == "jsonl":
        return "", lambda result: json.dumps(_row(result, question), ensure_ascii=False)
    if file_format == "csv":
        probs = ["speech_prob"] if question.about_speech else [f"prob_{label}" for label in question.labels]
        spans = ["segments"] if len(question.labels) == 2 else []
        return _csv(["audio", "predicted", *probs, "duration_s", *spans]), lambda result: _csv(_cells(result, question))
    name_width, label_width = max(map(len, files)), max(map(len, question.labels))

    def text(result: Detection) -> str:
        of, prob = (SPEECH, result.speech_prob) if question.about_speech else (result.predicted, result.probabilities[result.predicted])
        spans = [f"\n  {span.start_s:9.2f} - {span.end_s:.2f} s  {span.speech_prob:.3f}" for span in result.segments or ()]
        return f"{result.audio:<{name_width}}  {result.predicted:<{label_width}}  P({of}) {prob:.3f}{''.join(spans)}"

    return "", text


def _row(result: Detection, question: ClosedQuestion) -> dict[str, Any]:
    """For users, as JSON."""
    row: dict[str, Any] = {"audio": result.audio, "predicted": result.predicted}
    if question.about_speech:
        row["speech_prob"] = round(result.speech_prob, 6)
    else:
        row["probabilities"] = {label: round(prob, 6) for label, prob in result.probabilities.items()}
    row["duration_s"] = result.duration_s
    if result.segments is not None:
        row["segments"] = [asdict(span) for span in result.segments]
    return row


def _cells(result: Detection, question: ClosedQuestion) -> list[Any]:
    row = _row(result, question)
    probs = [row["speech_prob"]] if question.about_speech else list(row["probabilities"].values())
    spans = [" ".join(f"{span.start_s:g}-{span.end_s:g}" for span in result.segments or ())] if len(question.labels) == 2 else []
    return [result.audio, result.predicted, *probs, result.duration_s, *spans]


def _csv(cells: list[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
