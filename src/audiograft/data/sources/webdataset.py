"""The source `webdataset`: tar archives whose members of one name are one row.

The `lhotse` library reads only tars that it has written itself, of pickled cuts, and unpickling runs whatever code the archive holds. So the
archives are read by Python's `tarfile`, and nothing in them is unpickled.
"""

from __future__ import annotations

import glob
import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from audiograft.data.sources.base import SourceRow, option
from audiograft.data.sources.rows import RowReader, guess_keys, key_pairs, keys_option, refusal, rename
from audiograft.data.sources.tars import Group, read_groups
from audiograft.types import DataError, Rejection

_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
_PICKLED = frozenset(("data", "pyd", "pkl", "pickle", "pth"))


@dataclass(frozen=True)
class WebDataset:
    """WebDataset tars: key.wav (or flac, mp3, ogg, m4a) with key.txt, key.json or key.cls beside it.

    A text is the transcript, a class the label, and a JSON object holds all else in the keys that manifests have, or as --keys says. Pickled
    members are never opened. Where a shard breaks off, its whole rows are kept; get it again, and the next run goes on from there.

    Example: audiograft prepare webdataset 'shards/train-{000000..000099}.tar' --out corpus
    """

    name: ClassVar[str] = "webdataset"
    path: str = option("A tar, a folder of tars, or a pattern such as 'train-*.tar' or 'train-{000..099}.tar'.", argument=True)
    keys: tuple[str, ...] = keys_option()

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """See `Source.rows`."""
        pairs = key_pairs(self.keys)
        shards = find_shards(self.path)
        position = 0
        for shard in shards:
            for group in read_groups(shard, skip - position):
                position += 1
                if position > skip:
                    yield _row(group, shard, pairs)


def find_shards(path: str) -> list[Path]:
    """The archives that a path, folder or pattern names, sorted; those of `{000..099}` in that order.

    Raises:
        DataError: there is none, or one of `{000..099}` is missing.
    """
    if Path(path).is_dir():
        shards = sorted(shard for shard in Path(path).iterdir() if shard.name.endswith(_TAR_SUFFIXES))
    elif found := _NUMBERS.search(path):
        first, last = found.groups()
        numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        return [shard for number in numbers for shard in find_shards(path[: found.start()] + number + path[found.end() :])]
    elif glob.has_magic(path) and not Path(path).exists():
        shards = [Path(shard) for shard in sorted(glob.glob(path))]
    else:
        shards = [Path(path)] if Path(path).is_file() else []
    if not shards:
        raise DataError(f"{path}: no tar archive here: name a tar, a folder of tars or a pattern")
    return shards


def _row(group: Group, shard: Path, pairs: dict[str, str]) -> SourceRow | Rejection:
    from audiograft.audio import AUDIO_SUFFIXES  # heavy, and `audiograft prepare --help` loads all sources

    # Keys are unique within their shard alone. `..` must not stay in an id, of which file names are made.
    key = posixpath.normpath("/" + group.key).lstrip("/") or "."
    row: dict[str, Any] = {"id": f"{shard.name.partition('.')[0]}/{key}"}
    place = f"{shard}: {group.key}"
    sounds = [suffix for suffix in group.members if "." + suffix.rpartition(".")[2] in AUDIO_SUFFIXES]
    if group.fault is None and not sounds and _PICKLED & group.members.keys():
        raise DataError(f"{place}: pickled, which may run any code when it is read: write Lhotse's cuts with cuts.to_shar, and use the source lhotse")
    why = group.fault or _complaint(group, sounds)
    if why:
        return refusal(place, DataError(f"{place}: {why}"), row)
    row["audio"] = f"{key}.{sounds[0]}"
    try:
        row = _said(group, place, pairs) | row
    except DataError as error:
        return refusal(place, error, row)
    read = RowReader(Path(), True).read(row, 1, place)
    return read if isinstance(read, Rejection) else SourceRow(read.sample, audio=group.members[sounds[0]])


def _complaint(group: Group, sounds: list[str]) -> str | None:
    found = ", ".join(group.members)
    if len(sounds) != 1:
        return f"has {len(sounds)} clips ({found}): a row needs one, such as {group.key}.flac"
    if not group.members.keys() & {"txt", "json", "cls"}:
        mend = f"put {group.key}.txt or .json right beside it; NeMo's tars, with their texts elsewhere, unpack for the source nemo"
        return f"has no text ({found}): {mend}"
    return None


def _said(group: Group, place: str, pairs: dict[str, str]) -> dict[str, Any]:
    """What stands beside a clip."""
    row: dict[str, Any] = {}
    if "json" in group.members:
        try:
            said = json.loads(_text(group, "json", place))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}.json: not valid JSON ({error}): write one object") from error
        if not isinstance(said, dict):
            raise DataError(f'{place}.json: must be one object such as {{"text": "hello"}}: write it again')
        row = rename(said, guess_keys(said, pairs))
    if "txt" in group.members:
        row["text"] = _text(group, "txt", place).strip()
    if "cls" in group.members:
        row["label"] = _text(group, "cls", place).strip()
    # The clip is the member: what the object calls it is where it came from.
    return {key: value for key, value in row.items() if key not in ("id", "audio")}


def _text(group: Group, suffix: str, place: str) -> str:
    try:
        return group.members[suffix].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}.{suffix}: not UTF-8 text: write it as UTF-8") from error
