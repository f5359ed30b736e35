"""Manifests: one JSON object a line, one line a clip.

Keys: `audio` (path relative to the manifest's folder), and optionally `id`, `text`, `prompt`, `response`, `speaker` and `duration_s`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from audiograft.types import TRANSCRIBE_PROMPT, DataError, Sample

MANIFEST_NAME = "manifest.jsonl"
"""The file that is read where a folder is named."""
_TEXT_KEYS = ("id", "audio", "text", "prompt", "response", "speaker")
_KEYS = frozenset({*_TEXT_KEYS, "duration_s"})
_MEND = "write one with `audiograft prepare`"


def find_manifest(path: str | Path) -> Path:
    """Return the manifest that `path` names: the file itself, or a folder's `manifest.jsonl`.

    Raises:
        DataError: nothing is there, or the folder holds no manifest.
    """
    path = Path(path)
    manifest = path / MANIFEST_NAME if path.is_dir() else path
    if manifest.is_file():
        return manifest
    if path.is_dir():
        raise DataError(f"{path}: this folder has no {MANIFEST_NAME}: name another folder or {_MEND}")
    raise DataError(f"{path}: no such manifest: correct the path or {_MEND}")


def read_rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Read a JSONL file of objects, such as a manifest or a predictions file.

    Returns:
        Line numbers, counted from 1, and rows. Blank lines are left out.

    Raises:
        DataError: the file can't be read, has no row, or a line is no JSON object.
    """
    try:
        # Lines end at line feeds alone: str.splitlines would also cut at U+2028, which JSON allows inside a string.
        with path.open(encoding="utf-8-sig") as file:
            rows = [(number, _parse(line, f"{path}:{number}")) for number, line in enumerate(file, start=1) if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: name a JSONL file, one object a line") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}): correct the path or its permissions") from error
    if not rows:
        raise DataError(f"{path}: no rows: it needs one JSON object a line")
    return rows


def _parse(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: not valid JSON ({error}): write one object a line") from error
    if not isinstance(row, dict):
        raise DataError(f'{place}: a row is a JSON object such as {{"audio": "a.wav", "text": "hello"}}, not {_shown(row)}')
    return row


def read_manifest(path: str | Path) -> list[Sample]:
    """Read a manifest.

    A row without `id` takes its `audio` as id. A value of null counts as absent. Clips are not opened.

    Args:
        path: the file, or a folder that holds `manifest.jsonl`.

    Returns:
        One `Sample` a row, in order; `audio` is joined to the manifest's folder, unknown keys are in `extra`.

    Raises:
        DataError: a missing or empty file, or a row that does not fit; names the line, the key and the mend.
    """
    manifest = find_manifest(path)
    lines: dict[str, int] = {}
    samples = []
    for number, row in read_rows(manifest):
        sample = _sample(row, manifest.parent, f"{manifest}:{number}")
        if sample.id in lines:
            raise DataError(f'{manifest}:{number}: "id" {sample.id!r} is taken by line {lines[sample.id]}: give each row its own')
        lines[sample.id] = number
        samples.append(sample)
    return samples


def _sample(row: dict[str, Any], folder: Path, place: str) -> Sample:
    known = {key: value for key, value in row.items() if key in _KEYS and value is not None}
    for key in _TEXT_KEYS:
        if not isinstance(known.get(key, ""), str):
            raise DataError(f'{place}: "{key}" must be a string, not {_shown(known[key])}: put it in quotes')
    if not known.get("audio"):
        raise DataError(f'{place}: "audio" is missing: give the clip\'s path, relative to {folder}')
    return Sample(
        id=known.get("id") or known["audio"],
        audio=str(folder / known["audio"]),
        text=known.get("text"),
        prompt=known.get("prompt", TRANSCRIBE_PROMPT),
        response=known.get("response"),
        speaker=known.get("speaker"),
        duration_s=_duration_s(known.get("duration_s"), place),
        extra={key: value for key, value in row.items() if key not in _KEYS},
    )


def _duration_s(value: Any, place: str) -> float | None:
    if value is None:
        return None
    # bool is a subclass of int; `true` is no duration.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise DataError(f'{place}: "duration_s" must be 0 or more seconds, not {_shown(value)}: correct it or leave the key out')
    return float(value)


def _shown(value: Any) -> str:
    """The value as JSON, cut to fit into a message."""
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def write_manifest(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSONL, whole or not at all.

    Args:
        path: the file; its folder exists.
        rows: what `json` can write, one mapping a line.

    Raises:
        DataError: the file can't be written; what was there before is left as it was.
    """
    replace_text(Path(path), "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows))


def replace_text(path: Path, text: str) -> None:
    """Put text in the place of a file in one step, so that a reader or a crash never meets half of it.

    Raises:
        DataError: the file can't be written; what was there before is left as it was.
    """
    staged = path.with_name(path.name + ".part")
    try:
        # Half of a surrogate pair, from a file name that is not UTF-8, can't be encoded; escaped like this it is valid JSON and reads back.
        staged.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        staged.replace(path)
    except OSError as error:
        with suppress(OSError):
            staged.unlink()
        raise DataError(f"{path}: can't be written ({error.strerror}): free space, or correct the path or its permissions") from error
