"""Manifests: one JSON object a line, one line a row.

Keys: `audio` (path relative to the manifest's folder, a list of paths, or absent in a row of text alone), and optionally `image` and `video` (paths
likewise; `images` and `videos` mean the same), `id`, `text`, `prompt` or `messages`, `response`, `speaker`, `recording`, `language`, `label`,
`source` and `duration_s`. The rows of two published systems are read as they are, see `audiograft.data.foreign`.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from audiograft.data.foreign import is_foreign, own_row
from audiograft.data.json_array import BrokenArrayError, array_elements
from audiograft.data.paths import clip_path
from audiograft.messages import check_messages, conversation
from audiograft.types import TRANSCRIBE_PROMPT, DataError, Sample

MANIFEST_NAME = "manifest.jsonl"
"""The file that is read where a folder is named."""
TABLE_SUFFIXES = (".csv", ".tsv")
_TEXT_KEYS = ("id", "text", "prompt", "response", "speaker", "recording", "language", "label", "source")
PICTURE_KEYS = {"image": "images", "video": "videos"}
"""What is to be seen, and the other name of each."""
MANIFEST_KEYS = frozenset({*_TEXT_KEYS, "audio", *PICTURE_KEYS, *PICTURE_KEYS.values(), "messages", "duration_s"})
"""All others of a row are its `extra`."""
SPAN_STARTS = ("offset", "offset_s", "start", "start_s")
SPAN_ENDS = ("end", "end_s")
"""Keys, in capitals or not, by which other systems make a row a part of its clip. Manifests that are learnt from have whole clips alone."""
_MEND = "write one with `audiograft prepare`"
_BLANKS = b" \t\r\n\v\f"
_HEAD_BYTES = 4096
"""Enough to see how a file begins."""


def find_manifest(path: str | Path) -> Path:
    """Return the manifest that `path` names: the file itself, or a folder's `manifest.jsonl`.

    Raises:
        DataError: nothing is there, the folder holds no manifest, or the file is a table.
    """
    path = Path(path)
    manifest = path / MANIFEST_NAME if path.is_dir() else path
    if manifest.is_file():
        if manifest.suffix.lower() in TABLE_SUFFIXES:
            raise DataError(f"{path}: a table is no manifest: make one of it with `audiograft prepare csv {path} --out FOLDER`")
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
    return [(number, row) for number, _, row in iterate_rows(path)]


def iterate_rows(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """What `read_rows` reads, one row at a time, in the memory of one row.

    Yields:
        Line number, byte offset for `row_at`, and row.

    Raises:
        DataError: as `read_rows`, when its place is reached.
    """
    for number, offset, row in scan_rows(path):
        if isinstance(row, DataError):
            raise row
        yield number, offset, row


def row_at(file: BinaryIO, offset: int) -> dict[str, Any]:
    """Read one row again.

    Args:
        file: a manifest, opened in binary mode.
        offset: of the row, from `iterate_rows`.

    Raises:
        DataError: no row begins there; the file has changed since.
    """
    file.seek(offset)
    text, tried = "", 0
    while line := file.readline():
        text += line.decode("utf-8-sig", errors="replace")
        if len(text) < 2 * tried:  # a row of an array may have many lines, and each try costs the whole
            continue
        tried = len(text)
        with suppress(ValueError, RecursionError):
            return _first_object(text)
    with suppress(ValueError, RecursionError):
        return _first_object(text)
    raise DataError(f"{file.name}: no row at byte {offset}: the file has changed since it was indexed, so start again")


def _first_object(text: str) -> dict[str, Any]:
    row, _ = json.JSONDecoder().raw_decode(text)
    if not isinstance(row, dict):
        raise ValueError
    return row


def scan_rows(path: Path, skip: int = 0) -> Iterator[tuple[int, int, dict[str, Any] | DataError]]:
    """Read rows and go on behind those that are broken.

    Args:
        path: as in `read_rows`.
        skip: rows, broken ones too, to pass over as cheaply as can be.

    Yields:
        Line number, byte offset, and the row, or the error that names it; its `__cause__` is a `UnicodeDecodeError` where the line is no UTF-8.

    Raises:
        DataError: the file can't be read, is UTF-16 or UTF-32, has no row, or is an array with an error of syntax, behind which nothing is certain.
    """
    n_rows = 0
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if not (encoding := json.detect_encoding(head[:4])).startswith("utf-8"):
                raise DataError(f"{path}: its text is {encoding.upper()}: save it as UTF-8")
            file.seek(0)
            is_array = path.suffix == ".json" and head.removeprefix(codecs.BOM_UTF8).lstrip(_BLANKS).startswith(b"[")
            for number, offset, row in _array(file, path) if is_array else _lines(file, path, skip):
                n_rows += 1
                if n_rows > skip:
                    yield number, offset, row
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}): correct the path or its permissions") from error
    if not n_rows:
        raise DataError(f"{path}: no rows: it needs one JSON object a line")


def _lines(file: BinaryIO, path: Path, skip: int) -> Iterator[tuple[int, int, dict[str, Any] | DataError]]:
    """Lines end at line feeds alone: str.splitlines would also cut at U+2028, which JSON allows inside a string."""
    offset = n_rows = 0
    for number, line in enumerate(file, start=1):
        # Files that begin with a byte order mark are joined by `cat` too, so it may stand in front of any line.
        if line.removeprefix(codecs.BOM_UTF8).strip(_BLANKS):
            n_rows += 1
            yield number, offset, parse_line(line, f"{path}:{number}") if n_rows > skip else {}
        offset += len(line)


def parse_line(line: bytes, place: str) -> dict[str, Any] | DataError:
    """The object that a line holds, or the error that names `place`, its file and line."""
    try:
        return _object(json.loads(line.decode("utf-8-sig")), place)
    except DataError as error:
        return error
    except UnicodeDecodeError as error:
        refusal = DataError(f"{place}: not UTF-8 text: name a JSONL file, one object a line")
        refusal.__cause__ = error
        return refusal
    except (ValueError, RecursionError) as error:
        if b"\0" in line:
            return DataError(f"{place}: holds NUL bytes, as where a crash cut a file off: write the line again or take it out")
        # Its own words name the line within the line.
        why = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
        return DataError(f"{place}: not valid JSON ({why}): write one object a line")


def _array(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, dict[str, Any] | DataError]]:
    try:
        for line, offset, element in array_elements(file):
            try:
                row: dict[str, Any] | DataError = _object(element, f"{path}:{line}")
            except DataError as error:
                row = error
            yield line, offset, row
    except BrokenArrayError as error:
        raise DataError(f"{path}:{error.line}: not valid JSON ({error}): write an array of objects") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: name a JSONL file, one object a line") from error


def _object(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(f'{place}: a row is a JSON object such as {{"audio": "a.wav", "text": "hello"}}, not {_shown(row)}')
    return row


def read_manifest(path: str | Path, allow_outside: bool = False) -> list[Sample]:
    """Read a manifest.

    A row without `id` takes the path of its clip as id (of several, and of pictures, all of them, with + between; without any, its line). A value
    of null counts as absent. Clips and pictures are not opened.

    Args:
        path: the file, or a folder that holds `manifest.jsonl`.
        allow_outside: also take clips and pictures that do not lie below the manifest's folder.

    Returns:
        One `Sample` a row, in order; clips and pictures are joined to the manifest's folder, unknown keys are in `extra`. Where the assistant has
        the last word in `messages`, it is the `response`, and the conversation ends before it.

    Raises:
        DataError: a missing or empty file, or a row that does not fit; names the line, the key and the mend.
    """
    manifest = find_manifest(path)
    lines: dict[str, int] = {}
    samples = []
    for number, _, row in iterate_rows(manifest):
        sample = row_to_sample(row, number, manifest.parent, f"{manifest}:{number}", allow_outside)
        if sample.id in lines:
            raise DataError(f'{manifest}:{number}: "id" {sample.id!r} is taken by line {lines[sample.id]}: give each row its own')
        lines[sample.id] = number
        samples.append(sample)
    return samples


def audio_as_given(row: Mapping[str, Any]) -> str | list[str] | None:
    """The clips of a row of `read_rows` as its writer named them."""
    given: str | list[str] | None = row.get("audio") or row.get("audio_paths")
    return given


def pictures_as_given(row: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The `images` and `videos` of a row of `read_rows` as its writer named them; kinds of which it has none are left out."""
    found = {plural: tuple(_paths(row, key, "")) for key, plural in PICTURE_KEYS.items()}
    return {plural: paths for plural, paths in found.items() if paths}


def row_to_sample(row: Mapping[str, Any], number: int, folder: Path, place: str, allow_outside: bool = False) -> Sample:
    """What a row means; those of two published systems too. Clips are not opened.

    Args:
        row: as `json` reads it.
        number: its line, for the id of a row that has neither id nor clip.
        folder: that of the manifest, to which its clips are relative.
        place: file and line, for errors.
        allow_outside: also take clips that do not lie below the folder.

    Raises:
        OutsideError: a clip leaves the folder.
        DataError: the row does not fit; names place, key and mend.
    """
    if asked := span_keys(row):
        raise DataError(
            f'{place}: "{asked[0]}" asks for a part of the clip, and here clips are whole: cut it with `audiograft prepare manifest`, or rename it'
        )
    if is_foreign(row):
        row = own_row(row, number, place)
    known = {key: value for key, value in row.items() if key in MANIFEST_KEYS and value is not None}
    for key in _TEXT_KEYS:
        if not isinstance(known.get(key, ""), str):
            raise DataError(f'{place}: "{key}" must be a string, not {_shown(known[key])}: put it in quotes')
    clips = _clips(known.get("audio"), place)
    images, videos = (_paths(known, key, place) for key in PICTURE_KEYS)
    messages, said = _messages(known, place)
    sample = Sample(
        id=known.get("id") or "+".join([*clips, *images, *videos]) or f"line-{number}",
        clips=tuple(clip_path(clip, folder, place, allow_outside) for clip in clips),
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
        extra={key: value for key, value in row.items() if key not in MANIFEST_KEYS},
        images=tuple(clip_path(path, folder, place, allow_outside, "image") for path in images),
        videos=tuple(clip_path(path, folder, place, allow_outside, "video") for path in videos),
    )
    if not clips and (sample.response is None or not (messages or known.get("prompt"))):
        raise DataError(
            f'{place}: "audio" is missing: give the clip\'s path, relative to {folder}; or, for a row without sound, "prompt" and "response"'
        )
    try:
        conversation(sample)
    except DataError as error:
        raise DataError(f"{place}: {error}") from error
    return sample


def span_keys(row: Mapping[str, Any]) -> list[str]:
    """The keys of a row that say which part of its clip it is."""
    return [key for key, value in row.items() if value is not None and key.casefold() in (*SPAN_STARTS, *SPAN_ENDS)]


def _paths(row: Mapping[str, Any], key: str, place: str) -> list[str]:
    """The pictures of one kind, under either of its names."""
    named = [name for name in (key, PICTURE_KEYS[key]) if row.get(name) is not None]
    if len(named) > 1:
        raise DataError(f'{place}: "{named[0]}" and "{named[1]}" are the same: leave one out')
    return _clips(row[named[0]], place, named[0]) if named else []


def _clips(value: Any, place: str, key: str = "audio") -> list[str]:
    clips = value if isinstance(value, list) else [] if value in (None, "") else [value]
    if not all(isinstance(clip, str) and clip for clip in clips):
        raise DataError(f'{place}: "{key}" must be a path or a list of paths, not {_shown(value)}: put each in quotes')
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
