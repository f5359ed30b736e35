"""Manifests: one JSON object a line, one line a row.

Keys: `audio` (path relative to the manifest's folder, a list of paths, or absent in a row of text alone), and optionally `id`, `text`, `prompt` or
`messages`, `response`, `speaker`, `recording`, `language`, `label`, `source` and `duration_s`. The rows of two published systems are read as they are, see `audiograft.data.foreign`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from audiograft.data.foreign import is_foreign, own_row
from audiograft.messages import check_messages, conversation
from audiograft.types import TRANSCRIBE_PROMPT, DataError, Sample

MANIFEST_NAME = "manifest.jsonl"
"""The file that is read where a folder is named."""
_TEXT_KEYS = ("id", "text", "prompt", "response", "speaker", "recording", "language", "label", "source")
_KEYS = frozenset({*_TEXT_KEYS, "audio", "messages", "duration_s"})
_MEND = "write one with `audiograft prepare`"
_BETWEEN_ROWS = re.compile(r"[\s,]*")


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
    """Read a file of objects, such as a manifest or a predictions file: one object a line, or in a `.json` file an array of objects.

    Returns:
        Line numbers, counted from 1, and rows. Blank lines are left out.

    Raises:
        DataError: the file can't be read, has no row, or a line is no JSON object.
    """
    try:
        # Lines end at line feeds alone: str.splitlines would also cut at U+2028, which JSON allows inside a string.
        with path.open(encoding="utf-8-sig") as file:
            if path.suffix == ".json" and (text := file.read()).lstrip().startswith("["):
                rows = list(_array(text, path))
            else:
                file.seek(0)
                rows = [(number, _parse(line, f"{path}:{number}")) for number, line in enumerate(file, start=1) if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: name a JSONL file, one object a line") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}): correct the path or its permissions") from error
    if not rows:
        raise DataError(f"{path}: no rows: it needs one JSON object a line")
    return rows


def _array(text: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON array, each with the line on which it begins."""
    try:
        n_rows = len(json.loads(text))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}): write an array of objects") from error
    decoder = json.JSONDecoder()
    line, end = 1, text.index("[") + 1
    for _ in range(n_rows):
        start = _end_of_match(text, end)
        row, after = decoder.raw_decode(text, start)
        line += text.count("\n", end, start)
        yield line, _object(row, f"{path}:{line}")
        line += text.count("\n", start, after)
        end = after


def _end_of_match(text: str, position: int) -> int:
    match = _BETWEEN_ROWS.match(text, position)
    assert match is not None
    return match.end()


def _parse(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: not valid JSON ({error}): write one object a line") from error
    return _object(row, place)


def _object(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f'{place}: a row is a JSON object such as {{"audio": "a.wav", "text": "hello"}}, not {_shown(row)}')
    return row


def read_manifest(path: str | Path) -> list[Sample]:
    """Read a manifest.

    A row without `id` takes the path of its clip as id (of several, all of them, with + between; without any, its line). A value of null counts
    as absent. Clips are not opened.

    Args:
        path: the file, or a folder that holds `manifest.jsonl`.

    Returns:
        One `Sample` a row, in order; clips are joined to the manifest's folder, unknown keys are in `extra`. Where the assistant has the last
        word in `messages`, it is the `response`, and the conversation ends before it.

    Raises:
        DataError: a missing or empty file, or a row that does not fit; names the line, the key and the mend.
    """
    manifest = find_manifest(path)
    lines: dict[str, int] = {}
    samples = []
    for number, row in read_rows(manifest):
        place = f"{manifest}:{number}"
        sample = _sample(own_row(row, number, place) if is_foreign(row) else row, number, manifest.parent, place)
        if sample.id in lines:
            raise DataError(f'{manifest}:{number}: "id" {sample.id!r} is taken by line {lines[sample.id]}: give each row its own')
        lines[sample.id] = number
        samples.append(sample)
    return samples


def audio_as_given(row: Mapping[str, Any]) -> str | list[str] | None:
    """The clips of a row of `read_rows` as its writer named them."""
    given: str | list[str] | None = row.get("audio") or row.get("audio_paths")
    return given


def _sample(row: dict[str, Any], number: int, folder: Path, place: str) -> Sample:
    known = {key: value for key, value in row.items() if key in _KEYS and value is not None}
    for key in _TEXT_KEYS:
        if not isinstance(known.get(key, ""), str):
            raise DataError(f'{place}: "{key}" must be a string, not {_shown(known[key])}: put it in quotes')
    clips = _clips(known.get("audio"), place)
    messages, said = _messages(known, place)
    sample = Sample(
        id=known.get("id") or "+".join(clips) or f"line-{number}",
        clips=tuple(str(folder / clip) for clip in clips),
        text=known.get("text"),
        prompt=known.get("prompt", TRANSCRIBE_PROMPT),
        messages=messages,
        response=known.get("response", said),
        speaker=known.get("speaker"),
        recording=known.get("recording"),
        language=known.get("language"),
        label=known.get("label"),
        source=known.get("source"),
        duration_s=_duration_s(known.get("duration_s"), place),
        extra={key: value for key, value in row.items() if key not in _KEYS},
    )
    if not clips and (sample.response is None or not (messages or known.get("prompt"))):
        raise DataError(
            f'{place}: "audio" is missing: give the clip\'s path, relative to {folder}; or, for a row of text alone, "prompt" and "response"'
        )
    try:
        conversation(sample)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    return sample


def _clips(value: Any, place: str) -> list[str]:
    clips = value if isinstance(value, list) else [] if value in (None, "") else [value]
    if not all(isinstance(clip, str) and clip for clip in clips):
        raise DataError(f'{place}: "audio" must be a path or a list of paths, not {_shown(value)}: put each in quotes')
    return clips


def _messages(known: Mapping[str, Any], place: str) -> tuple[tuple[dict[str, Any], ...], str | None]:
    """The conversation to be answered, and the answer where it is part of it."""
    if "messages" not in known:
        return (), None
    if "prompt" in known:
        raise DataError(f'{place}: "prompt" and "messages" exclude each other: leave one out')
    try:
        messages = check_messages(known["messages"])
    except DataError as error:
        raise DataError(f'{place}: "messages": {error}') from error
    if messages[-1]["role"] == "user":
        return tuple(messages), None
    if "response" in known:
        raise DataError(f'{place}: "response" and an assistant with the last word exclude each other: leave one out')
    return tuple(messages[:-1]), messages[-1]["content"]


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
