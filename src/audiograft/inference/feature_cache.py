"""Outputs of a frozen tower on the disk, found by what a clip's file holds.

A folder serves several towers, each in a sub-folder that is named by its fingerprint, so that nothing of another tower is ever read:

    clips.npy                           of each file: its path, size, time of change, and the hash of its bytes
    3f0c9a5d12e4b768/tower.json         the fingerprint, the width, the type of the numbers
    3f0c9a5d12e4b768/<hash>.safetensors shards: `states` (encoder frames, width) of some clips, one behind the other, their `keys` and `frames`

A shard is written in one step and never changed, so that a run which is killed leaves whole ones; what it says of its clips is read from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from audiograft.data.manifest import replace_text
from audiograft.types import AudiograftError, ConfigError, DataError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_DIGEST_BYTES = 16
_ENTRY = np.dtype([("hash", "<u8", 2), ("shard", "<u4"), ("frames", "<u4"), ("start", "<i8")])
_FILE = np.dtype([("hash", "<u8", 2), ("size", "<i8"), ("changed_ns", "<i8"), ("content", "<u8", 2)])
_FILES_NAME = "clips.npy"
_TOWER_NAME = "tower.json"
_MAX_OPEN_SHARDS = 64
_STALE_S = 3600
"""Files half written that are older than this belong to a run that was killed."""


def content_hash(data: bytes) -> bytes:
    """Of a file's bytes."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def entry_key(content: bytes, padded: bool) -> bytes:
    """By which a clip's states are found: a clip that is padded to 30 s has other ones."""
    return content_hash(content + bytes([padded]))


class _ByHash:
    """Records sorted by the 128-bit hash that they begin with: 32 to 48 bytes each, where a dictionary takes some 200."""

    def __init__(self, records: npt.NDArray[np.void]) -> None:
        _, first = np.unique(records["hash"], axis=0, return_index=True)
        chosen = records[first]
        self.records = chosen[np.argsort(chosen["hash"][:, 0], kind="stable")]
        self._leading = np.ascontiguousarray(self.records["hash"][:, 0])

    def find(self, digest: bytes) -> Any | None:
        """The record of a hash, or None."""
        leading, trailing = np.frombuffer(digest, "<u8")
        place = int(np.searchsorted(self._leading, leading))
        while place < len(self.records) and self._leading[place] == leading:
            if self.records["hash"][place, 1] == trailing:
                return self.records[place]
            place += 1
        return None

    def with_first(self, records: npt.NDArray[np.void]) -> _ByHash:
        """Others besides, which win over those of the same hash."""
        return _ByHash(np.concatenate([records, self.records]))


def file_record(path: str, size: int, changed_ns: int, content: bytes) -> npt.NDArray[np.void]:
    """(1,) what `clips.npy` holds of a file."""
    record = np.zeros(1, _FILE)
    record["hash"], record["content"] = np.frombuffer(_path_hash(path), "<u8"), np.frombuffer(content, "<u8")
    record["size"], record["changed_ns"] = size, changed_ns
    return record


def _path_hash(path: str) -> bytes:
    return content_hash(os.fsencode(os.path.abspath(path)))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0].removeprefix("Error while serializing: ")
        raise AudiograftError(f"{folder}: the feature cache can't be written ({reason}): free space, or set feature_cache to null") from error


class FeatureCache:
    """Tower outputs of clips, by their paths. Goes through pickle, for the workers of a DataLoader and of a cluster.

    Attributes:
        folder: of all towers.
        fingerprint: of the tower, and of all else that decides about its outputs.
        width: of the tower.
        dtype: of the numbers.
    """

    def __init__(self, folder: str | Path, fingerprint: str, width: int, dtype: str | None = None) -> None:
        """Open the cache of a tower, or begin an empty one.

        Args:
            folder: of all towers.
            fingerprint: of the tower.
            width: of the tower.
            dtype: float16, bfloat16 or float32; by default that of what is there, float16 where there is nothing.

        Raises:
            ConfigError: what is there is of another dtype, or is damaged.
            AudiograftError: the folder can't be written.
        """
        self.folder = Path(folder)
        self.fingerprint = fingerprint
        self.width = width
        self._own = self.folder / fingerprint[:_DIGEST_BYTES]
        self.dtype = self._open_tower(dtype)
        self._handles: dict[int, Any] = {}
        self._shards: list[Path] = []
        self._entries = _ByHash(np.zeros(0, _ENTRY))
        self._files = _ByHash(self._read_files())
        self.refresh()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": {}}

    def __len__(self) -> int:
        """Clips that are in it."""
        return len(self._entries.records)

    @property
    def size_bytes(self) -> int:
        """Of its shards."""
        return sum(path.stat().st_size for path in self._shards)

    def content(self, path: str) -> bytes | None:
        """The hash of a file's bytes where it is known and the file has not changed since; also of a file that is gone."""
        if (record := self._files.find(_path_hash(path))) is None:
            return None
        try:
            stat = os.stat(path)
        except OSError:
            stat = None
        if stat is not None and (stat.st_size, stat.st_mtime_ns) != (record["size"], record["changed_ns"]):
            return None
        return bytes(record["content"].tobytes())

    def holds(self, path: str, padded: bool) -> bool:
        """Whether a clip is in it as it is now, as far as that is known without reading the clip."""
        content = self.content(path)
        return content is not None and self.has(entry_key(content, padded))

    def has(self, key: bytes) -> bool:
        """Whether there are states under this key."""
        return self._entries.find(key) is not None

    def states(self, path: str, padded: bool) -> torch.Tensor:
        """(encoder frames, width) of a clip, read from the disk; without copying them.

        Raises:
            DataError: the clip is not in the cache as it is now, or its shard is damaged or gone.
        """
        content = self.content(path)
        entry = None if content is None else self._entries.find(entry_key(content, padded))
        if entry is None:
            raise DataError(f"{path}: is not in the feature cache {self.folder} as it is now: start again, and it is computed")
        shard, start = int(entry["shard"]), int(entry["start"])
        try:
            states: torch.Tensor = self._handle(shard).get_slice("states")[start : start + int(entry["frames"])]
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self._shards[shard]}: can't be read: remove it, and start again") from error
        return states

    def write(self, keys: Sequence[bytes], states: Sequence[torch.Tensor]) -> None:
        """Put clips into a new shard. It is named by its keys, so that two workers that did the same write the same file.

        Args:
            keys: of `entry_key`.
            states: (encoder frames, width) of each clip.

        Raises:
            AudiograftError: the disk is full.
        """
        path = self._own / f"{content_hash(b''.join(keys)).hex()}.safetensors"
        tensors = {
            "states": torch.cat(list(states)).to(DTYPES[self.dtype]),
            "keys": torch.from_numpy(np.frombuffer(b"".join(keys), "<i8").reshape(-1, 2).copy()),
            "frames": torch.tensor([len(clip) for clip in states]),
        }
        with _writing(self.folder):
            # Written under another name and renamed, by safetensors itself.
            save_file(tensors, path, {"format": "pt", "fingerprint": self.fingerprint})
            path.chmod(0o666 & ~_umask())

    def add_files(self, records: Sequence[npt.NDArray[np.void]]) -> None:
        """Note what files hold, so that they need not be read again: `file_record`s."""
        if not records:
            return
        self._files = self._files.with_first(np.concatenate(records))
        staged = self.folder / f"{_FILES_NAME}.{os.getpid()}.part"
        with _writing(self.folder):
            with staged.open("wb") as file:
                np.save(file, self._files.records)
            staged.replace(self.folder / _FILES_NAME)

    def refresh(self) -> None:
        """Find shards that came since."""
        known = set(self._shards)
        found, records = sorted(self._own.glob("*.safetensors")), []
        for path in found:
            if path in known:
                continue
            try:
                with safe_open(path, "np") as shard:
                    keys, frames = shard.get_tensor("keys"), shard.get_tensor("frames")
            except (OSError, SafetensorError) as error:
                raise ConfigError(f"{path}: is no shard of a feature cache: remove it") from error
            entries = np.zeros(len(keys), _ENTRY)
            entries["hash"], entries["frames"] = keys.view("<u8"), frames
            entries["start"], entries["shard"] = np.cumsum(frames) - frames, len(self._shards)
            self._shards.append(path)
            records.append(entries)
        if records:
            self._entries = self._entries.with_first(np.concatenate(records))

    def sweep(self) -> None:
        """Remove what runs that were killed left half written."""
        for path in (*self._own.glob(".tmp*"), *self.folder.glob(f"{_FILES_NAME}.*.part")):
            if path.stat().st_mtime < time.time() - _STALE_S:
                path.unlink(missing_ok=True)

    def _open_tower(self, wanted: str | None) -> str:
        path = self._own / _TOWER_NAME
        try:
            dtype: str = json.loads(path.read_text(encoding="utf-8"))["dtype"]
        except FileNotFoundError:
            with _writing(self.folder):
                self._own.mkdir(parents=True, exist_ok=True)
                dtype = wanted or "float16"
                replace_text(path, json.dumps({"fingerprint": self.fingerprint, "width": self.width, "dtype": dtype}) + "\n")
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{path}: can't be read: remove the folder {self._own}") from error
        if wanted not in (None, dtype):
            raise ConfigError(f"{self._own} holds {dtype}, not {wanted}: leave the dtype out, or remove that folder")
        return dtype

    def _read_files(self) -> npt.NDArray[np.void]:
        try:
            records = np.load(self.folder / _FILES_NAME)
        except (OSError, ValueError, EOFError):
            return np.zeros(0, _FILE)  # only costs reading the files again
        return records if records.dtype == _FILE else np.zeros(0, _FILE)

    def _handle(self, shard: int) -> Any:
        if shard not in self._handles:
            if len(self._handles) >= _MAX_OPEN_SHARDS:
                del self._handles[next(iter(self._handles))]
            self._handles[shard] = safe_open(self._shards[shard], "pt")
        return self._handles[shard]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
