"""`audiograft selftest`."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from audiograft.cli.options import AllowOutsideOption, DeviceOption
from audiograft.cli.terminal import quiet_libraries

app = typer.Typer(add_completion=False)


@app.command()
def selftest(
    target: Annotated[str, typer.Argument(metavar="RECIPE|MODEL", help="A recipe's YAML file, or tiny, a model's folder, a hub id.")],
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Wins over the recipe; repeatable.")] = None,
    data: Annotated[str | None, typer.Option(help="Manifest of clips with references; the recipe's validation data by default.")] = None,
    clips: Annotated[int, typer.Option(min=8, help="So many of them are heard.")] = 20,
    allow_outside: AllowOutsideOption = False,
    device: DeviceOption = "auto",
    dtype: Annotated[Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="Of the weights; auto: fp32 on a CPU, bf16 elsewhere.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check that a model is, on this machine, what it should be.

    Made for the first run with real weights. Counts parameters against `plan`, compares the encoder with transformers' own and the logits
    without audio with the language model's own, lists what is in 4 bits, merges LoRA and compares, runs the deafness check, and measures the
    word error rate on 20 clips. A recipe that has trained a model has that one tested, else what it would start from. The report is Markdown,
    made to be pasted into an issue; the exit code is 1 where a check failed.

    Example: audiograft selftest recipes/qwen3-1.7b/align.yaml

    Example: audiograft selftest tiny --data corpus/test
    """
    quiet_libraries()
    import torch

    from audiograft.evaluate.selftest import Check
    from audiograft.evaluate.selftest import selftest as run_selftest
    from audiograft.inference.engine import find_device

    def show(check: Check) -> None:
        typer.echo(f"{check.outcome:<8} {check.name}", err=True)

    place = find_device(device)
    precisions = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    precisions["auto"] = precisions["fp32" if place.type == "cpu" else "bf16"]
    report = run_selftest(
        target,
        overrides=overrides or [],
        data=data,
        clips=clips,
        allow_outside=allow_outside,
        device=place,
        dtype=precisions[dtype],
        on_check=show,
    )
    typer.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False) if as_json else report.markdown())
    if not report.passed:
        raise typer.Exit(1)
