"""The figures of a run on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table as RichTable

from audiograft.data.pages import printable
from audiograft.evaluate import tables
from audiograft.evaluate.slices import FIXED_SLICES
from audiograft.evaluate.tables import OF_ANSWERS, SMALL, SMALL_NOTE, Metrics, Table

_MAX_SLICES_SHOWN = 12
"""More are left to the report."""
_PARTS = (
    tables.headline,
    tables.answers,
    tables.answer_texts,
    tables.loss,
    tables.matches,
    tables.detectors,
    tables.terms,
    tables.deafness,
    tables.blindness,
    tables.baseline,
)
_CONTROLS = {"deafness": tables.deafness_line, "blindness": tables.blindness_line, "baseline": tables.baseline_line}


def print_metrics(metrics: Metrics, console: Console) -> None:
    """Print the figures of metrics.json, and below them whether the data touched training and chose the checkpoint.

    Args:
        metrics: of `score`, with those keys of the run that are known.
        console: without markup, since names of speakers and files are printed as they are.
    """
    found = metrics.get("detection")
    own = {key: table for key, table in tables.slices(metrics).items() if not found or key.removesuffix(OF_ANSWERS) not in FIXED_SLICES}
    few = [table for table in own.values() if 1 < len(table.rows) <= _MAX_SLICES_SHOWN]
    shown = [table for part in _PARTS if (table := part(metrics))]
    if found:
        shown = [*tables.detection_tables(found), *shown]
    else:
        shown.insert(1, tables.normalisers(metrics))
    if found and (line := tables.one_class_line(found)):
        console.print(printable(line), soft_wrap=True)
    for table in (*shown, *few):
        _print(table, console)
    if any(SMALL in cell for table in few for row in table.rows for cell in row[1:2]):
        console.print(SMALL_NOTE)
    lines = [tables.clips_line(metrics), tables.interval_line(metrics), tables.empty_line(metrics)]
    lines += [*found["notes"], *tables.groups_lines(found), found["choice"]] if found else []
    lines += [line(metrics) for key, line in _CONTROLS.items() if metrics.get(key)]
    for line in (*lines, tables.leakage_line(metrics), tables.checkpoint_line(metrics)):
        if line:
            console.print(printable(line), soft_wrap=True)


def _print(table: Table, console: Console) -> None:
    # What controls a terminal must not come from a name or a text.
    shown = RichTable(*map(printable, table.columns))
    for row in table.rows:
        shown.add_row(*map(printable, row))
    console.print(shown)
