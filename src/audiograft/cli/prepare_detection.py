"""`audiograft prepare detection`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from audiograft.cli.terminal import progress, quiet_libraries

if TYPE_CHECKING:
    from audiograft.data.detection.bench import BenchSummary

_Value = TypeVar("_Value")
_ORIGIN = "synthetic, a manifest, or NAME:PATH of a source such as"
_SHARES = "Repeatable; @0.5 behind each gives its share."


def detection(
    out: Annotated[Path, typer.Option(help="Folder for train.jsonl, dev.jsonl, test.jsonl, audio/ and a data card.")],
    speech: Annotated[list[str] | None, typer.Option(help=f"{_ORIGIN} voxconverse:PATH. {_SHARES} By default synthetic.")] = None,
    negatives: Annotated[list[str] | None, typer.Option(help=f"{_ORIGIN} esc50:PATH. {_SHARES} By default synthetic.")] = None,
    durations_ms: Annotated[str, typer.Option(help="Of clips.")] = "200,400,600,800,1000",
    snrs_db: Annotated[str, typer.Option(help="Signal-to-noise ratios, over the whole clip.")] = "0,5,10,15,20",
    clips_per_cell: Annotated[
        int, typer.Option(help="Clips of each duration, ratio and class, in all splits together; each split needs one: by default 10 or more.")
    ] = 20,
    noises: Annotated[str, typer.Option(help="What is mixed in: white, pink, brown, babble.")] = "white,pink,brown",
    bands: Annotated[str, typer.Option(help="What sounds go through first: none, telephone, lowpass, highpass.")] = "none",
    t60_s: Annotated[str, typer.Option(help="Reverberation times that sounds get first; 0 is none.")] = "0",
    cross: Annotated[
        bool, typer.Option("--cross", help="Every noise, band and reverberation gets cells of its own; else clips draw theirs.")
    ] = False,
    normalisation: Annotated[
        Literal["rms-random", "peak", "none"], typer.Option(help="rms-random: loudness drawn alike for both classes; peak: each clip to one peak.")
    ] = "rms-random",
    splits: Annotated[str, typer.Option(help="Shares of train, dev and test; or train=0.8,test=0.2.")] = "80/10/10",
    clips_per_recording: Annotated[int, typer.Option(help="Clips that are cut from one sentence or one row of a source, at most.")] = 4,
    allow_leaks: Annotated[bool, typer.Option("--allow-leaks", help="Keep a bench whose durations or levels give the class away.")] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run left in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print card.json on stdout at the end.")] = False,
) -> None:
    """Make a bench of speech detection: clips of speech and of other sounds in noise.

    Duration x signal-to-noise ratio x class, as many clips of each; what a ratio came to is measured and written into its row. Splits share neither
    speaker nor recording. A bench whose classes can be told by length or loudness alone is refused.

    Example: audiograft prepare detection --out bench --clips-per-cell 50 --seed 1
    """
    quiet_libraries()
    from audiograft.data.detection.bench import prepare_detection
    from audiograft.data.detection.grid import Design

    design = Design(
        durations_ms=_listed(durations_ms, int, "--durations-ms"), snrs_db=_listed(snrs_db, float, "--snrs-db"), clips_per_cell=clips_per_cell,
        noises=_listed(noises, str, "--noises"), bands=_listed(bands, str, "--bands"), t60s_s=_listed(t60_s, float, "--t60-s"), cross=cross,
        normalisation=normalisation, splits=splits, seed=seed,
    )  # fmt: skip
    summary = prepare_detection(
        out, design, speech=speech or ["synthetic"], negatives=negatives or ["synthetic"], clips_per_recording=clips_per_recording,
        allow_leaks=allow_leaks, workers=workers, overwrite=overwrite, progress=progress,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(summary.card, indent=1, ensure_ascii=False))
    else:
        _print_summary(summary, out)


def _listed(text: str, kind: Callable[[str], _Value], flag: str) -> tuple[_Value, ...]:
    """Values between commas."""
    try:
        return tuple(kind(word.strip()) for word in text.split(",") if word.strip())
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise typer.BadParameter(f"{flag} {text}: give {what} with commas between them") from None


def _print_summary(summary: BenchSummary, out: Path) -> None:
    typer.echo(f"clips     {', '.join(f'{summary.manifests[name]} {rows}' for name, rows in summary.rows.items())}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in summary.rejected.items())
    typer.echo(f"rejected  {sum(summary.rejected.values())} recordings{f' ({kinds})' if kinds else ''}: {out / 'rejected.jsonl'}")
    cues = summary.card["detection"]["cues"]
    if not cues["checked"]:
        typer.echo(f"cues      not checked, {cues['why']}")
    elif cues["leaky"]:
        typer.echo(f"cues      {cues['why']}")
    else:
        found = ", ".join(f"{name} {cue['accuracy']:.1%}" for name, cue in cues["cues"].items())
        typer.echo(f"cues      {found} (chance {cues['chance']:.0%})")
    for splits, leakage in summary.card["leakage"].items():
        if leakage["touches"]:
            typer.echo(f"touching  {splits} share {', '.join(leakage['touches'])}: card.html has more")
    typer.echo(f"card      {out / 'card.html'}")
