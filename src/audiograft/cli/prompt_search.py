"""`audiograft prompt-search`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from audiograft.cli.options import AllowOutsideOption, DeviceOption, SeedOption
from audiograft.cli.terminal import print_error, progress, quiet_libraries

_OPTIMISER = "The optimiser"
_REWARD = "The reward"
_LENGTH = "How long it goes on"
_SHOWN = 5

app = typer.Typer(add_completion=False)


@app.command()
def prompt_search(
    model: Annotated[str, typer.Argument(help="The model that is asked: tiny-detect, tiny, a model folder, or a hub id.")],
    dev: Annotated[Path, typer.Option(help="Manifest with a label a row, on which prompts are scored.")],
    out: Annotated[Path, typer.Option(help="Folder of the search; the same command goes on in it.")],
    test: Annotated[Path | None, typer.Option(help="Manifest on which the winner is measured, once, at the end.")] = None,
    optimiser: Annotated[
        str,
        typer.Option(help="template (rules, offline), a language model's folder or hub id, or an endpoint's address.", rich_help_panel=_OPTIMISER),
    ] = "template",
    optimiser_model: Annotated[
        str | None, typer.Option(help="The endpoint's model; its key comes from OPENAI_API_KEY.", rich_help_panel=_OPTIMISER)
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.01, help="Of a language model's sampling.", rich_help_panel=_OPTIMISER)] = 0.9,
    candidates: Annotated[int, typer.Option(min=1, help="Prompts asked for in each round.", rich_help_panel=_OPTIMISER)] = 5,
    memory: Annotated[int, typer.Option(min=1, help="Best prompts that the optimiser is shown.", rich_help_panel=_OPTIMISER)] = 15,
    prompt: Annotated[str | None, typer.Option(help="To start with; the model's own by default.")] = None,
    question: Annotated[Path | None, typer.Option(help="Folder of a detection.json, in place of the model's own question.")] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Dev clips a prompt, of all conditions and classes alike; all by default.", rich_help_panel=_REWARD)
    ] = None,
    condition_weight: Annotated[float, typer.Option(min=0.0, help="Of the accuracy averaged over conditions.", rich_help_panel=_REWARD)] = 0.25,
    length_weight: Annotated[float, typer.Option(min=0.0, help="Taken off for each 100 characters.", rich_help_panel=_REWARD)] = 0.05,
    rounds: Annotated[int, typer.Option(min=1, help="At most.", rich_help_panel=_LENGTH)] = 30,
    patience: Annotated[int, typer.Option(min=1, help="Rounds without a better prompt.", rich_help_panel=_LENGTH)] = 6,
    budget: Annotated[int | None, typer.Option(min=1, help="Dev clips scored in all, by all prompts.", rich_help_panel=_LENGTH)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips scored at once. More is faster and takes more memory.")] = 64,
    device: DeviceOption = "auto",
    allow_outside: AllowOutsideOption = False,
    seed: SeedOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json instead of the tables.")] = False,
) -> None:
    """Let a language model look for a better prompt.

    The optimiser sees the best prompts so far with their scores and writes others (OPRO, Yang et al. 2023). Each is scored on the dev clips alone:
    balanced accuracy, that averaged over conditions times a weight, less a penalty for its length. The answers stay as they are. With --test the
    winner and the prompt it began with are measured on the test clips, once; a second time says what was measured.

    \b
    Example: audiograft prompt-search Qwen/Qwen2-Audio-7B-Instruct --dev bench/dev.jsonl --test bench/test.jsonl --out searches/first --clips 200
             audiograft prompt-search tiny-detect --prompt "Say a for SPEECH, b for NONSPEECH." --dev bench/dev.jsonl --out searches/trial --clips 50
    """
    quiet_libraries()
    from audiograft.prompt_search.run import Hooks, Plan, run_search
    from audiograft.prompt_search.search import Limits

    plan = Plan(
        optimiser, optimiser_model, temperature, prompt, question, Limits(rounds, candidates, memory, patience, budget), clips,
        condition_weight, length_weight, batch_size, device, seed, allow_outside,
    )  # fmt: skip
    with progress("scoring prompts", 1 + rounds * candidates) as advance:
        result = run_search(model, dev, out, plan, test=test, hooks=Hooks(on_scored=lambda scored: advance(), on_warning=_warn))
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        _print_result(result, out, model)
    if result["stopped"] == "optimiser":
        raise typer.Exit(print_error(f"{result['why']}: the best prompt so far stands", 1))


def _warn(text: str) -> None:
    typer.echo(f"warning: {text}", err=True)


def _print_result(result: dict[str, Any], out: Path, model: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from audiograft.prompt_search.held_out import doubt
    from audiograft.prompt_search.results import BEST_NAME, MEMORY_NAME, REPORT_NAME

    best = json.loads((out / MEMORY_NAME).read_text(encoding="utf-8"))["best"][:_SHOWN]
    table = Table("reward", "balanced accuracy", "by condition", "round", "prompt")
    for row in best:
        table.add_row(
            f"{row['reward']:.4f}", _percent(row["balanced_accuracy"]), _percent(row["condition_accuracy"]), str(row["round"]), row["prompt"]
        )
    Console(markup=False, highlight=False).print(table)
    refused = sum(result["refused"].values())
    typer.echo(
        f"{result['prompts_scored']} prompts in {result['rounds']} rounds, {result['clips_scored']:,} clips scored; "
        f"{result['duplicates']} proposals were known, {refused} could not be tried; ended: {result['why']}"
    )
    start, winner = result["start"], result["best"]
    typer.echo(f"dev: balanced accuracy {_percent(start['balanced_accuracy'])} at first, {_percent(winner['balanced_accuracy'])} of the best")
    if result["test"]:
        _print_test(result["test"]["figures"])
    why = doubt(result["test"])
    if why:
        typer.echo(why)
    command = f'audiograft detect CLIP --model {shlex.quote(model)} --prompt "$(cat {shlex.quote(str(out / BEST_NAME))})"'
    typer.echo(f"written to {out}; to look at it: {out / REPORT_NAME}; to use it{' all the same' if why else ''}: {command}")


def _print_test(figures: dict[str, Any]) -> None:
    interval, mcnemar = figures["difference"]["interval"], figures["mcnemar"]
    between = "no interval" if interval["low"] is None else f"95 % interval {100 * interval['low']:+.1f} to {100 * interval['high']:+.1f}"
    start, winner = (_percent(figures[name]["balanced_accuracy"]) for name in ("start", "winner"))
    more = f"{100 * figures['difference']['balanced_accuracy']:+.1f} points ({between}; McNemar p = {mcnemar['p_value']:.3g})"
    typer.echo(f"test: balanced accuracy {start} at first, {winner} of the best, {more}; {figures['clips']:,} clips")
    if figures["failed"]:
        print_error(f"{figures['failed']} test clips could not be read and are left out")
    typer.echo("the figure on dev tends to be too high, since it chose the prompt; that on test does not")


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"
