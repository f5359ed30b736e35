"""`audiograft inspect`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from audiograft.cli.options import DeviceOption
from audiograft.cli.terminal import progress, quiet_libraries
from audiograft.types import TRANSCRIBE_PROMPT, MediaError

if TYPE_CHECKING:
    from audiograft.model.difference import Difference
    from audiograft.model.inspect import Inspection

_MAX_TENSORS_SHOWN = 20
_MAX_NAMES_SHOWN = 3
"""More are left to --json."""

app = typer.Typer(add_completion=False)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="tiny, a folder, a hub id, or system B's checkpoint.pt: a graft, an adapter, a stock model.")],
    other: Annotated[
        str | None, typer.Argument(help="Another one, for what changed from the first to it; here an encoder or a language model will do too.")
    ] = None,
    clip: Annotated[str | None, typer.Option(help="A clip: what does the model make of each token of --text, having heard it?")] = None,
    text: Annotated[str | None, typer.Option(help="What is said in --clip, or the right answer.")] = None,
    prompt: Annotated[str, typer.Option(help="The instruction that goes with --clip.")] = TRANSCRIBE_PROMPT,
    device: DeviceOption = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, the shape of each tensor with it.")] = False,
) -> None:
    """Show what a model consists of, and whether it is whole.

    Components with their sizes, config keys, files, the processor, LoRA, and whether the projector looks trained or random: a random matrix has no
    singular value above rms * (sqrt(rows) + sqrt(columns)), a trained one has. The exit code is 1 where the model is broken.

    With a second model: which tensors differ and by how much, component by component. Adapters are compared as the models that they make of their
    bases; where element types differ, a copy counts as unchanged.

    With --clip and --text: the probability and rank of each token of the text, behind the true ones before it, and the likeliest token there.

    \b
    Example: audiograft inspect runs/finetune
             audiograft inspect runs/graft runs/align
             audiograft inspect tiny --clip examples/code.wav --text "the code for the office safe is two five two nine"
    """
    if (clip is None) != (text is None):
        raise typer.BadParameter("--clip and --text go together: give the clip, and what is said in it")
    if clip is not None and other is not None:
        raise typer.BadParameter("--clip looks into one model: leave the second one out")
    quiet_libraries()
    if clip is not None and text is not None:
        _show_tokens(model, clip, text, prompt, device, as_json)
    elif other is not None:
        _show_difference(model, other, as_json)
    else:
        _show_model(model, as_json)


def _show_model(model: str, as_json: bool) -> None:
    from audiograft.model.inspect import inspect_model

    with _reading() as on_tensor:
        found = inspect_model(model, on_tensor)
    _print(found.as_dict(), _lines(found), as_json)
    if found.problems:
        raise typer.Exit(1)


def _show_difference(model: str, other: str, as_json: bool) -> None:
    from audiograft.model.difference import compare_models

    with _reading() as on_tensor:
        found = compare_models(model, other, on_tensor)
    _print(found.as_dict(), _difference_lines(found), as_json)


def _show_tokens(model: str, clip: str, text: str, prompt: str, device: str, as_json: bool) -> None:
    from audiograft.cli.listening import load_engine
    from audiograft.inference.questions import Question

    engine = load_engine(model, device)
    [score] = engine.score_references([Question([clip], prompt)], [text])
    if isinstance(score, MediaError):
        raise score
    spell = engine.processor.tokenizer.convert_tokens_to_string
    rows = [
        {"token": spell([token]), "probability": math.exp(logprob), "logprob": logprob, "rank": rank, "best": spell([best])}
        for token, logprob, rank, best in zip(score.tokens, score.logprobs, score.ranks, score.best, strict=True)
    ]
    perplexity = math.exp(min(score.nats / score.n_tokens, 700))
    facts = {"model": model, "clip": clip, "text": text, "prompt": prompt, "nats": score.nats, "n_tokens": score.n_tokens, "perplexity": perplexity}
    lines = [f"{'token':<24} {'probability':>12} {'rank':>6}  likeliest instead"]
    for row in rows:
        instead = "" if row["rank"] == 1 else json.dumps(row["best"], ensure_ascii=False)
        probability = f"{row['probability']:.4f}" if row["probability"] >= 5e-5 else f"{row['probability']:.0e}"
        lines.append(f"{json.dumps(row['token'], ensure_ascii=False):<24} {probability:>12} {row['rank']:>6}  {instead}".rstrip())
    first = sum(row["rank"] == 1 for row in rows)
    lines += ["", f"{score.n_tokens} tokens, {first} of them the likeliest; {score.nats:.3f} nats in all, perplexity {perplexity:.3f}"]
    _print(facts | {"tokens": rows}, lines, as_json)


@contextmanager
def _reading() -> Iterator[Callable[[int, int], None]]:
    """A progress bar for tensors, of which many are read in no time: it moves by hundredths."""
    with progress("reading tensors", 100) as advance:
        shown = 0

        def on_tensor(done: int, total: int) -> None:
            nonlocal shown
            while shown < 100 * done // total:
                shown += 1
                advance()

        yield on_tensor


def _print(facts: dict[str, Any], lines: list[str], as_json: bool) -> None:
    typer.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else "\n".join(lines))


def _difference_lines(found: Difference) -> list[str]:
    lines = [f"A  {found.a}: {found.kind_a}", f"B  {found.b}: {found.kind_b}", ""]
    lines.append(f"{'tensors':<16} {'unchanged':>10} {'changed':>10} {'only in A':>10} {'only in B':>10}   relative change")
    for name, part in found.components.items():
        counts = f"{part.unchanged:>10,} {part.changed:>10,} {part.only_in_a:>10,} {part.only_in_b:>10,}"
        lines.append(f"{name:<16} {counts}   {_relative(part.relative_change) if part.changed else ''}".rstrip())
    for pair, count in found.other_dtypes.items():
        lines += ["", f"{count:,} tensors have another element type ({pair.replace(', ', ' in A, ')} in B): a copy counts as unchanged"]
    if found.changed:
        lines += ["", f"{'changed most':<64} {'relative change':>16} {'largest':>10}"]
    for change in found.changed[:_MAX_TENSORS_SHOWN]:
        largest = "-" if change.largest_difference is None else f"{change.largest_difference:.3g}"
        notes = [change.adapter] if change.adapter else []
        if change.shape_a != change.shape_b:
            notes.append(" against ".join(" x ".join(map(str, shape)) for shape in (change.shape_a, change.shape_b)))
        lines.append(f"  {change.name:<62} {_relative(change.relative_change):>16} {largest:>10}  {', '.join(notes)}".rstrip())
    if len(found.changed) > _MAX_TENSORS_SHOWN:
        lines.append(f"  and {len(found.changed) - _MAX_TENSORS_SHOWN:,} more: --json lists them all")
    for which, names in (("A", found.only_in_a), ("B", found.only_in_b)):
        if names:
            more = f" and {len(names) - _MAX_NAMES_SHOWN:,} more" if len(names) > _MAX_NAMES_SHOWN else ""
            lines += ["", f"only in {which}: {', '.join(names[:_MAX_NAMES_SHOWN])}{more}"]
    return [*lines, "", found.verdict()]


def _relative(change: float | None) -> str:
    return "not comparable" if change is None else f"{change:.3%}" if change >= 1e-4 else f"{change:.2g}"


def _lines(found: Inspection) -> list[str]:
    lines = [f"{found.model}: {found.kind}", ""]
    for name, part in found.components.items():
        kinds = ", ".join(f"{dtype} {count:,}" for dtype, count in part.dtypes.items()) if len(part.dtypes) > 1 else next(iter(part.dtypes))
        lines.append(f"{name:<16} {part.parameters:>16,} parameters {part.n_bytes / 1e6:>12,.1f} MB  {kinds}")
    for name, part in found.components.items():
        lines += ["", name]
        lines += [
            f"  {tensor.strip():<58} {entry['count']:>4} x {' x '.join(map(str, entry['shape'])) or 'scalar'}"
            for tensor, entry in part.tensors.items()
        ]
    for title, entries in (("config.json", found.config), ("processor", found.processor), ("adapter", found.adapter)):
        if entries:
            lines += ["", title, *(f"  {key:<32} {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items())]
    if found.quantised:
        lines += ["", f"{len(found.quantised)} modules in 4 bits: {found.quantised[0]} to {found.quantised[-1]}"]
    lines += ["", "files", *(f"  {name:<48} {size:>16,} bytes" for name, size in found.files.items())]
    if found.tied_head is not None:
        lines += ["", f"the head is {'the embedding table (tied)' if found.tied_head else 'a matrix of its own'}"]
    if found.projector is not None:
        lines += ["", f"the projector looks {'trained' if found.projector.trained else 'random'}"]
        lines += [
            f"  {name:<40} spectral edge {edge:.3f}, random up to {found.projector.threshold[name]:.3f}"
            for name, edge in found.projector.edge.items()
        ]
        lines += [f"  {name:<40} {'has moved' if moved else 'stands at its start'}" for name, moved in found.projector.norms.items()]
    lines += ["", *(f"broken: {problem}" for problem in found.problems)] if found.problems else ["", "whole: nothing is missing, extra or not finite"]
    return lines
