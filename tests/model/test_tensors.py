"""Tensors by their headers: what is told without reading them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from audiograft.model.tensors import StoredTensor, TensorFiles, weight_files
from audiograft.types import ConfigError


def test_headers_tell_shapes_sizes_and_files(tmp_path: Path) -> None:
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"x.one": torch.ones(2, 3), "y": torch.ones(4, dtype=torch.bfloat16)}, a)
    save_file({"x.two": torch.arange(5)}, b)
    tensors = TensorFiles([a, b])
    assert dict(tensors) == {"x.one": StoredTensor(a, "F32", (2, 3)), "y": StoredTensor(a, "BF16", (4,)), "x.two": StoredTensor(b, "I64", (5,))}
    assert [tensors[name].n_bytes for name in ("x.one", "y", "x.two")] == [24, 8, 40]
    assert torch.equal(tensors.read("x.two"), torch.arange(5))
    assert set(tensors.read_all("x.")) == {"one", "two"}


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"x": torch.ones(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ConfigError, match=r"b\.safetensors holds tensor x, as a\.safetensors does"):
        TensorFiles([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])


@pytest.mark.parametrize("n_bytes", [0, 4, 30, 90])
def test_a_truncated_file_is_one_line(tmp_path: Path, n_bytes: int) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.ones(8, 8)}, file)
    file.write_bytes(file.read_bytes()[:n_bytes])
    with pytest.raises(ConfigError, match=r"model\.safetensors can't be read as safetensors") as error:
        TensorFiles([file])
    assert "\n" not in str(error.value)


def test_weight_files_follow_the_index(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no model\.safetensors"):
        weight_files(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert weight_files(tmp_path) == [tmp_path / "model.safetensors"]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}))
    assert weight_files(tmp_path) == [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    index.write_text('{"weight_map": 3}')
    with pytest.raises(ConfigError, match="is damaged"):
        weight_files(tmp_path)
