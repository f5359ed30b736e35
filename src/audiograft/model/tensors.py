"""Tensors of a checkpoint by their headers: names, shapes and sizes without reading a weight, and single tensors where they are asked for."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from audiograft.types import ConfigError

TRAINED_WEIGHTS = "trained.safetensors"
"""In a checkpoint of a training run: what is trained and nothing else."""

_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4}
"""Of the element types in safetensors' header; all others have 8."""

DTYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.uint8: "U8", torch.int64: "I64"}
"""safetensors' names of element types."""


@dataclass(frozen=True)
class StoredTensor:
    """What a file's header says about one of its tensors.

    Attributes:
        file: where it lies.
        dtype: by safetensors' name, such as F32 or BF16.
        shape: its dimensions.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        return self.numel * _BYTES.get(self.dtype, 8)


class TensorFiles(Mapping[str, StoredTensor]):
    """The tensors of some safetensors files, by name.

    Raises:
        ConfigError: a file is missing or damaged, or two of them hold a tensor of the same name.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._tensors: dict[str, StoredTensor] = {}
        for path in self.paths:
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118  # a safetensors file is no mapping
                    if name in self._tensors:
                        raise ConfigError(f"{path} holds tensor {name}, as {self._tensors[name].file.name} does: remove the file that is left over")
                    entry = file.get_slice(name)
                    self._tensors[name] = StoredTensor(path, str(entry.get_dtype()), tuple(entry.get_shape()))

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU."""
        with _opened(self[name].file) as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def read_all(self, prefix: str = "") -> dict[str, Tensor]:
        """All tensors whose names begin with `prefix`, which is taken off."""
        found: dict[str, Tensor] = {}
        for path in self.paths:
            names = [name for name, tensor in self.items() if tensor.file == path and name.startswith(prefix)]
            if names:
                with _opened(path) as file:
                    found |= {name.removeprefix(prefix): file.get_tensor(name) for name in names}
        return found


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise ConfigError(f"{path} can't be read as safetensors ({reason}): save or download it again") from error


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a saved model's weights, as its index names them where there is one.

    Raises:
        ConfigError: the index is damaged, or there are no weights in the folder.
    """
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{index} is damaged: save or download it again") from error
        return [folder / name for name in names]
    if not (folder / SAFE_WEIGHTS_NAME).is_file():
        raise ConfigError(f"{folder} holds no {SAFE_WEIGHTS_NAME} and no {SAFE_WEIGHTS_INDEX_NAME}: save or download it again")
    return [folder / SAFE_WEIGHTS_NAME]


def files_sha256(paths: Sequence[Path]) -> str:
    """SHA-256 of the SHA-256 of each file, in order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
