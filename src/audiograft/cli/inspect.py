"""`audiograft inspect`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from audiograft.cli.terminal import progress, quiet_libraries

if TYPE_CHECKING:
    from audiograft.model.inspect import Inspection

app = typer.Typer(add_completion=False)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="tiny, a folder, a hub id, or system B's checkpoint.pt: a graft, an adapter, a stock model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, the shape of each tensor with it.")] = False,
) -> None:
    """Show what a model consists of, and whether it is whole.

    Components with their sizes, config keys, files, the processor, LoRA, and whether the projector looks trained or random: a random matrix has no
    singular value above rms * (sqrt(rows) + sqrt(columns)), a trained one has. The exit code is 1 where the model is broken.

    Example: audiograft inspect runs/finetune
    """
    quiet_libraries()
    from audiograft.model.inspect import inspect_model

    with progress("reading tensors", 100) as advance:
        shown = 0

        def on_tensor(done: int, total: int) -> None:
            nonlocal shown
            while shown < 100 * done // total:
                shown += 1
                advance()

        found = inspect_model(model, on_tensor)
    typer.echo(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if as_json else "\n".join(_lines(found)))
    if found.problems:
        raise typer.Exit(1)


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
