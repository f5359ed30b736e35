"""`audiograft leakage`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from audiograft.cli.options import AllowOutsideOption
from audiograft.cli.terminal import row_progress

if TYPE_CHECKING:
    from audiograft.data.gate import LeakageReport, Side

_SHOWN = {
    "speakers": "speakers",
    "recordings": "recordings",
    "texts": "texts",
    "short_texts": "short texts (no leakage)",
    "same_audio": "clips, same samples",
    "near_audio": "clips, near copies",
    "same_pictures": "pictures, same file",
    "near_pictures": "pictures, near copies",
}
_MENDS = {
    "speakers": "split by speaker (audiograft prepare ... --splits train=0.9,test=0.1 --group-by speaker), or pass --allow speakers",
    "recordings": "split by recording (--group-by speaker,recording), or pass --allow recordings",
    "texts": "leave these rows out on one side (--examples 1000 names more), or pass --allow texts where both sides are to read the same sentences",
    "audio": "take these clips out on one side (--examples 1000 --json names more of them): a test on clips that were learnt measures memory",
    "pictures": "take them out on one side (--examples 1000 names more), or pass --allow pictures where both sides are to ask about the same ones",
}

app = typer.Typer(add_completion=False)


@app.command()
def leakage(
    manifests: Annotated[
        list[Path],
        typer.Argument(metavar="TRAIN... TEST", help="Manifests, or the folder of a trained model in place of its training data; the last is TEST."),
    ],
    allow: Annotated[str, typer.Option(metavar="KIND,...", help="What may be shared: any of speakers, recordings, texts, audio, pictures.")] = "",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that decode; one a core by default.")] = None,
    allow_outside: AllowOutsideOption = False,
    examples: Annotated[int, typer.Option(min=1, help="How many of each kind to name.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of the table.")] = False,
) -> None:
    """Find what training and test data share.

    Speakers, recordings, texts; audio: the same samples, or near copies (resampled, louder, coded, trimmed) by an acoustic fingerprint; and pictures:
    the same files, or images that look the same (coded anew, scaled).
    The exit code is 1 where something is shared that is not allowed.

    Example: audiograft leakage corpus/train.jsonl corpus/test.jsonl --allow texts
    """
    from audiograft.data.gate import LEAKAGE_KINDS
    from audiograft.data.leakage import compare_manifests

    *train, test = manifests
    if not train:
        raise typer.BadParameter("name training data and test data: TRAIN TEST")
    allowed = [kind.strip() for kind in allow.split(",") if kind.strip()]
    for kind in allowed:
        if kind not in LEAKAGE_KINDS:
            raise typer.BadParameter(f"--allow {kind}: choose among {', '.join(LEAKAGE_KINDS)}")
    with row_progress("listening", None) as advance:
        report = compare_manifests(train, test, workers=workers, allow_outside=allow_outside, n_examples=examples, on_row=lambda: advance(False))
    forbidden = [kind for kind in report.touches if kind not in allowed]
    if as_json:
        typer.echo(json.dumps(report.as_dict() | {"allowed": allowed, "forbidden": forbidden}, indent=1, ensure_ascii=False))
    else:
        _print_report(report, forbidden)
    if forbidden:
        raise typer.Exit(1)


def _print_report(report: LeakageReport, forbidden: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("shared", "how many", "test rows")
    for kind, shown in _SHOWN.items():
        table.add_row(shown, str(report.counts[kind]), str(report.rows[kind]))
    Console(markup=False, highlight=False).print(table)
    for kind, touches in report.examples.items():
        for touch in touches:
            typer.echo(f"{kind.replace('_', ' ')}: test row {touch}")
    for name, side in (("training", report.train), ("test", report.test)):
        pictures = f", {side.pictures} pictures" if side.pictures else ""
        typer.echo(f"{name} data: {side.rows} rows, {side.clips} clips{pictures}{_not_compared(side, report.test.pictures)}")
        for example in side.examples:
            typer.echo(f"  {example}")
    for kind in forbidden:
        typer.echo(f"shared {kind}: {_MENDS[kind]}")
    partly = any(side.refused or side.unreadable or side.unreadable_pictures or side.partial_records for side in (report.train, report.test))
    partly |= bool(report.test.pictures and report.train.pictures_unknown)
    clean = f"nothing is shared that is not allowed{', as far as it could be compared' if partly else ''}"
    typer.echo("test data touches training data" if forbidden else clean)


def _not_compared(side: Side, n_pictures: int) -> str:
    """What could not be compared, so that nobody takes it for clean, with so many pictures in the test data."""
    missing = {
        "rows do not fit": side.refused,
        "clips can't be read": side.unreadable,
        "clips are silent": side.silent,
        "pictures can't be read": side.unreadable_pictures,
        "pictures are blank": side.blank_pictures,
        "rows name no speaker": side.without_speaker,
        "rows name no recording": side.without_recording,
        "rows have no text": side.without_text,
        "rows are of a record that is older than the comparison of pictures": side.pictures_unknown if n_pictures else 0,
        "models were trained from one without a record": side.partial_records,
    }
    parts = [f"{count} {what}" for what, count in missing.items() if count]
    return f"; not compared: {', '.join(parts)}" if parts else ""
