"""One batch drawn for the terminal: tokens with their positions, spans of audio and of pictures, and which positions carry loss."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.text import Text

from audiograft.model import AudioGraftProcessor
from audiograft.model.outputs import IGNORE_INDEX
from audiograft.train.collator import Collator
from audiograft.train.rows import Row

_STYLES = {"text": "", "audio": "cyan", "image": "magenta", "video": "magenta", "loss": "bold green", "pad": "dim"}
_WIDTH = 140
_MARK = "*"
_DRAWN_ROWS = 3
"""A batch of short clips may have a hundred rows, which are drawn alike."""


def _kinds(batch: dict[str, Any], index: int, feature_frames: Sequence[int], processor: AudioGraftProcessor) -> Iterator[tuple[str, int]]:
    """What each position of a row is: text, audio, image, video, loss or pad; and to which of its clips it belongs, -1 for none."""
    eyes = processor.vision_processor
    seen = {getattr(eyes, f"{kind}_token_id", None): kind for kind in ("image", "video")} if eyes is not None else {}
    clips = (number for number, frames in enumerate(feature_frames) for _ in range(processor.front_end.audio_tokens(frames)))
    for token, label, real in zip(batch["input_ids"][index], batch["labels"][index], batch["attention_mask"][index], strict=True):
        if not real:
            yield "pad", -1
        elif label != IGNORE_INDEX:
            yield "loss", -1
        elif token == processor.audio_token_id:
            yield "audio", next(clips)
        else:
            yield seen.get(int(token), "text"), -1


def _draw_row(batch: dict[str, Any], index: int, feature_frames: Sequence[int], processor: AudioGraftProcessor) -> Text:
    """One line per clip and per span of another kind: positions, mark, tokens."""
    ids = batch["input_ids"][index].tolist()
    drawing = Text()
    kinds = list(enumerate(_kinds(batch, index, feature_frames, processor)))
    for (kind, _), span in groupby(kinds, key=lambda item: item[1]):
        positions = [position for position, _ in span]
        if kind in ("audio", "image", "video", "pad"):
            shown = f"<{kind} x {len(positions)}>"
        else:
            # repr shows line feeds and blanks for what they are.
            shown = "|".join(repr(processor.tokenizer.decode([ids[position]]))[1:-1] for position in positions)
        mark = _MARK if kind == "loss" else " "
        drawing.append(f"  {positions[0]:>5}-{positions[-1]:<5}{mark} {shown}\n", style=_STYLES[kind])
    return drawing


def draw_batch(items: Sequence[dict[str, Any]], rows: Sequence[Row], batches: int, processor: AudioGraftProcessor, colour: bool) -> str:
    """The first batch of a run as text: its first rows, and how many more there are.

    Args:
        items: the examples of one batch.
        rows: theirs.
        batches: in one epoch.
        processor: to decode the ids.
        colour: with terminal colours; what they say is said by marks too.
    """
    batch = Collator(processor)(items)
    positions = batch["input_ids"].shape[1]
    carrying = int((batch["labels"] != IGNORE_INDEX).sum())
    heading = f"batch 1 of {batches}: {len(rows)} rows of {positions} positions, pads included; {carrying} carry loss, marked {_MARK}"
    drawing = Text(heading + "\n")
    for index, (item, row) in enumerate(zip(items[:_DRAWN_ROWS], rows[:_DRAWN_ROWS], strict=True)):
        padded = ", padded to 30 s" if row.padded and row.n_samples else ""
        clips = f"{' and '.join(row.sample.clips)}, {row.duration_s:.2f} s" if row.n_samples else "no audio"
        pictures = "".join(f", {path}" for path in (*row.sample.images, *row.sample.videos))
        drawing.append(f"{row.sample.id}: {clips}{padded}{pictures}\n", style="bold")
        for done in filter(None, item.get("augmentation", ())):
            drawing.append(f"  augmented: {', '.join(f'{name} {value}' for name, value in done.items())}\n", style="dim")
        drawing.append(_draw_row(batch, index, item["feature_frames"], processor))
    if (more := len(rows) - _DRAWN_ROWS) > 0:
        drawing.append(f"and {more} more row{'' if more == 1 else 's'}, not drawn\n")
    page = io.StringIO()
    Console(file=page, force_terminal=colour, width=_WIDTH, highlight=False).print(drawing, end="")
    return page.getvalue()
