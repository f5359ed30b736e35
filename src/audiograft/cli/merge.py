"""`audiograft merge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from audiograft.cli.terminal import quiet_libraries

Dtype = Literal["fp32", "bf16", "fp16"]

app = typer.Typer(add_completion=False)


@app.command()
def merge(
    folder: Annotated[str, typer.Argument(metavar="ADAPTER", help="Folder or hub id of an adapter, or system B's checkpoint.pt.")],
    out: Annotated[Path, typer.Option(help="Folder of the whole model.")],
    dtype: Annotated[Dtype | None, typer.Option(help="Precision of its weights; the base's own by default.")] = None,
    base: Annotated[str | None, typer.Option(help="Where the model is that the adapter was trained on, if it has moved.")] = None,
    language_model: Annotated[str | None, typer.Option(help="Likewise, of one that was trained on parts.")] = None,
    audio_encoder: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print merge.json on stdout.")] = False,
) -> None:
    """Write an adapter and its base as one whole model.

    LoRA is merged into the base's 16- or 32-bit weights, never into 4-bit ones, also where it was trained on those. What was written is opened
    and compared with the unmerged model on a synthetic clip; merge.json keeps the difference. The exit code is 1 where it is too large.

    Example: audiograft merge runs/finetune --out models/mine --dtype bf16
    """
    quiet_libraries()
    from audiograft.model.load import Bases
    from audiograft.model.merge import GATE_GIVEN_UP, merge_adapter

    report = merge_adapter(folder, out, dtype, Bases(base, language_model, audio_encoder))
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        typer.echo(f"{report.merged_layers} layers merged, saved in {out} as {report.dtype}")
        allowed = report.tolerance * report.logit_std
        typer.echo(f"max abs logit difference {report.max_abs_logit_difference:.2e} at {report.positions} positions; up to {allowed:.2e} passes")
        typer.echo(f"rms logit difference     {report.rms_logit_difference:.2e}; what LoRA does to the logits is {report.lora_rms_effect:.2e}")
        typer.echo(f"top-1 agreement          {report.top1_agreement:.1%}")
    if report.gate_given_up:
        typer.echo(GATE_GIVEN_UP, err=True)
    if not report.passed:
        typer.echo(f"merging changed what the model says, or lost what LoRA had learnt: do not use {out}; try --dtype fp32", err=True)
        raise typer.Exit(1)
