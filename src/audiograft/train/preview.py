"""One batch drawn for the terminal: tokens with their positions, audio spans, and which positions carry loss."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from audiograft.model import AudioGraftProcessor
from audiograft.model.modeling import IGNORE_INDEX
from audiograft.train.rows import Row

_STYLES = {"text": "", "audio": "cyan", "loss": "bold green", "pad": "dim"}
_WIDTH = 140
_MARK = "*"


def _kinds(batch: dict[str, Any], index: int, audio_token_id: int) -> Iterator[str]:
    """What each position of a row is: text, audio, loss or pad."""
    for token, label, real in zip(batch["input_ids"][index], batch["labels"][index], batch["attention_mask"][index], strict=True):
        if not real:
            yield "pad"
        elif label != IGNORE_INDEX:
            yield "loss"
        else:
            yield "audio" if token == audio_token_id else "text"


def _draw_row(batch: dict[str, Any], index: int, processor: AudioGraftProcessor) -> Text:
    """One line per span of a kind: positions, mark, tokens."""
    ids = batch["input_ids"][index].tolist()
    drawing = Text()
    kinds = list(enumerate(_kinds(batch, index, processor.audio_token_id)))
    for kind, span in groupby(kinds, key=lambda item: item[1]):
        positions = [position for position, _ in span]
        if kind in ("audio", "pad"):
            shown = f"<{kind} x {len(positions)}>"
        else:
            # repr shows line feeds and blanks for what they are.
            shown = "|".join(repr(processor.tokenizer.decode([ids[position]]))[1:-1] for position in positions)
        mark = _MARK if kind == "loss" else " "
        drawing.append(f"  {positions[0]:>5}-{positions[-1]:<5}{mark} {shown}\n", style=_STYLES[kind])
    return drawing


def draw_batch(batch: dict[str, Any], rows: list[Row], batches: int, processor: AudioGraftProcessor, colour: bool) -> str:
    """The first batch of a run as text.

    Args:
        batch: from `Collator`.
        rows: of the batch, in order.
        batches: in one epoch.
        processor: to decode the ids.
        colour: with terminal colours; what they say is said by marks too.
    """
    positions = batch["input_ids"].shape[1]
    carrying = int((batch["labels"] != IGNORE_INDEX).sum())
    heading = f"batch 1 of {batches}: {len(rows)} rows of {positions} positions, pads included; {carrying} carry loss, marked {_MARK}"
    drawing = Text(heading + "\n")
    for index, row in enumerate(rows):
        padded = ", padded to 30 s" if row.padded else ""
        drawing.append(f"{row.sample.id}: {row.sample.audio}, {row.duration_s:.2f} s{padded}\n", style="bold")
        drawing.append(_draw_row(batch, index, processor))
    page = io.StringIO()
    Console(file=page, force_terminal=colour, width=_WIDTH, highlight=False).print(drawing, end="")
    return page.getvalue()
