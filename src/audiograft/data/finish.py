"""The end of a preparation: the rows are put into splits, counted, and given their final names."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from typing import Any

from audiograft.data.card import write_card
from audiograft.data.examine import unwritable
from audiograft.data.folder import Folder
from audiograft.data.leakage import compare
from audiograft.data.ledger import in_progress
from audiograft.data.options import PrepareOptions
from audiograft.data.splits import RowKeys, assign, row_keys
from audiograft.data.traces import TraceWriter, read_traces, traces_path
from audiograft.types import ConfigError, DataError

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_RESERVED = ("manifest", "rejected")
_GROUP_BY = ("speaker", "recording")


def parse_shares(splits: Sequence[str]) -> dict[str, float]:
    """`train=0.9,test=0.1`, in one word or several, as shares by name.

    Raises:
        ConfigError: no such pair, a name that is taken, or shares that don't come to 1.
    """
    shares: dict[str, float] = {}
    for pair in words(splits):
        name, _, share = pair.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise ConfigError(f"splits {pair}: write names with their shares, such as train=0.9,test=0.1") from None
        if not _NAME.fullmatch(name) or name in _RESERVED or not 0 < shares[name] < 1:
            raise ConfigError(f"splits {pair}: give a name of letters and digits other than {', '.join(_RESERVED)}, and a share between 0 and 1")
    if shares and abs(sum(shares.values()) - 1) > 1e-6:
        raise ConfigError(f"splits {','.join(splits)}: the shares come to {sum(shares.values()):g}: make them 1 together")
    return shares


def words(given: Sequence[str]) -> list[str]:
    """What was given in several options, or between commas in one."""
    return [word.strip() for words in given for word in words.split(",") if word.strip()]


def finish(folder: Folder, options: PrepareOptions, shares: Mapping[str, float], n_rows: int, made_by: Mapping[str, Any]) -> dict[str, Any]:
    """Make what is left to make of a folder in which all rows are written down.

    Args:
        folder: opened.
        options: of the run.
        shares: by the name of the split; none leaves one manifest.
        n_rows: that were read.
        made_by: for the card.

    Returns:
        What is in `card.json`.

    Raises:
        DataError: rows can't be shared out, or files can't be written.
    """
    parts = {name: in_progress(path) for name, path in folder.manifests.items()}
    leakage = None
    if shares:
        _write_splits(folder, options, shares)
        leakage = _compare_splits(folder, shares)
    card = write_card(folder.path, parts, in_progress(folder.rejected), n_read=n_rows, leakage=leakage, made_by=made_by)
    try:
        folder.publish(made_by)
    except OSError as error:
        raise unwritable(folder.path, error) from error
    return card


def _write_splits(folder: Folder, options: PrepareOptions, shares: Mapping[str, float]) -> None:
    """Write the manifest and the traces of each split from those of the whole."""
    whole = in_progress(folder.whole)
    group_by = words(options.group_by)
    keys = (_keys(json.loads(line), group_by, options.stratify_by) for line in _lines(whole))
    has_audio = any(json.loads(line).get("duration_s") for line in _lines(whole))
    splits = assign(keys, shares, seed=options.seed, measure="hours" if has_audio else "rows")
    with ExitStack() as stack:
        try:
            manifests = {name: stack.enter_context(in_progress(path).open("wb")) for name, path in folder.manifests.items()}
            traces = {name: stack.enter_context(TraceWriter(in_progress(traces_path(path)))) for name, path in folder.manifests.items()}
            for line, trace in zip(_lines(whole), read_traces(in_progress(folder.traces)), strict=True):
                name = splits.of(_keys(json.loads(line), group_by, options.stratify_by))
                manifests[name].write(line)
                traces[name].append(trace)
            for file in manifests.values():
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(folder.path, error) from error


def _keys(row: Mapping[str, Any], group_by: Sequence[str], stratify_by: str | None) -> RowKeys:
    """Of a row; where no keys are named, those of speaker and recording that it has."""
    chosen = group_by or [key for key in _GROUP_BY if row.get(key)]
    if not chosen:
        raise DataError(
            f"row {row['id']!r} has neither speaker nor recording, so nothing tells which rows must not part: "
            "name a key that does with --group-by, or id where every row stands for itself"
        )
    return row_keys(row, chosen, stratify_by)


def _compare_splits(folder: Folder, shares: Mapping[str, float]) -> dict[str, Any]:
    """What each two splits share, by their names. Of each two the smaller is held in memory."""

    def traces(name: str) -> Path:
        return in_progress(traces_path(folder.manifests[name]))

    by_size = sorted(shares, key=lambda name: -shares[name])
    return {
        f"{larger} and {smaller}": compare(read_traces(traces(larger)), read_traces(traces(smaller)), larger).as_dict()
        for larger, smaller in combinations(by_size, 2)
    }


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file
