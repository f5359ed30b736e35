"""`inspect`: what lies in a model's folder, and whether it is whole. Weights are read one tensor at a time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from audiograft.model.adapters import ADAPTER_FILE, COMPONENTS, PEFT_PREFIX, PEFT_WEIGHTS, PROJECTOR_FILE, Adapter, check_base, read_adapter
from audiograft.model.checkpoint import load_config, resolve_model, snapshot
from audiograft.model.configuration import AudioGraftConfig
from audiograft.model.load import Bases, find_adapter, load_model, load_processor, locate_bases, no_ears
from audiograft.model.published.system_a import is_system_a
from audiograft.model.published.system_b import find_system_b, read_system_b
from audiograft.model.spectrum import Verdict, judge
from audiograft.model.stock import is_stock
from audiograft.model.tensors import DTYPE_NAMES, StoredTensor, TensorFiles, weight_files
from audiograft.types import SAMPLE_RATE_HZ, WINDOW_SAMPLES, ConfigError

Kind = Literal["graft", "adapter", "system-a", "system-b", "stock", "unknown"]

_PLACES = (
    ("audio_tower", re.compile(r"(^|\.)(audio_tower|audio_encoder)\.|^(model\.)?encoder\.")),
    ("projector", re.compile(r"projector")),
    ("vision_tower", re.compile(r"(^|\.)(visual|vision_tower|vision_model)\.")),
)
"""Which component a stored tensor belongs to; whatever fits none is the language model's."""
_NESTED_KEYS = (
    "model_type", "d_model", "hidden_size", "encoder_layers", "num_hidden_layers", "num_mel_bins", "vocab_size", "tie_word_embeddings",
)  # fmt: skip
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")


@dataclass
class Component:
    """One part of a model, as it is stored.

    Attributes:
        parameters: stored numbers; a 4-bit pair counts as one.
        n_bytes: on the disk.
        dtypes: numbers by element type.
        tensors: by name, layers taken together as `#`: count, shape and element type.
    """

    parameters: int = 0
    n_bytes: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, tensor: StoredTensor) -> None:
        self.parameters += tensor.numel
        self.n_bytes += tensor.n_bytes
        self.dtypes[tensor.dtype] = self.dtypes.get(tensor.dtype, 0) + tensor.numel
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "#", name)
        key = pattern
        # Layers of another shape, as in the first of a mixture of experts, get a line of their own.
        while key in self.tensors and self.tensors[key]["shape"] != list(tensor.shape):
            key += " "
        entry = self.tensors.setdefault(key, {"count": 0, "shape": list(tensor.shape), "dtype": tensor.dtype})
        entry["count"] += 1


@dataclass
class Inspection:
    """What was found.

    Attributes:
        model: as it was asked for.
        kind: what sort of checkpoint it is.
        components: by name.
        config: scalar keys of config.json, those of its parts dotted.
        files: size in bytes by name.
        processor: audio token and its id, ms per token, mel bins and the like.
        adapter: base, LoRA and recipe, for adapters and system B.
        quantised: modules that are stored, or were trained, in 4 bits.
        projector: whether it looks trained, and by what; None where none is stored.
        tied_head: whether the head is the embedding table.
        problems: one line each; none where the model is whole.
    """

    model: str
    kind: Kind = "unknown"
    components: dict[str, Component] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    processor: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] = field(default_factory=dict)
    quantised: list[str] = field(default_factory=list)
    projector: Verdict | None = None
    tied_head: bool | None = None
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"broken": bool(self.problems)}


class _Tensors(Mapping[str, StoredTensor]):
    """Tensors under the names that they have in the model, wherever they lie: name -> header and how to read it."""

    def __init__(self, tensors: Mapping[str, tuple[StoredTensor, Callable[[], Tensor]]]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def read(self, name: str) -> Tensor:
        return self._tensors[name][1]()


def inspect_model(name: str | Path, on_tensor: Callable[[int, int], None] = lambda done, total: None) -> Inspection:
    """Look at a graft, an adapter, a published system's checkpoint or a stock audio language model.

    Args:
        name: as for `audiograft.model.load_model`; files of a hub id are downloaded.
        on_tensor: called after each tensor that was read, with how many were and how many there are.

    Raises:
        ConfigError: there is no such model. What is wrong with one that there is stands in `problems`.
    """
    found = Inspection(str(name))
    file = find_system_b(name)
    folder = file.parent if file is not None else local_folder(name)
    # Not the checkpoints of the run that made the model.
    paths = [path for pattern in ("*", "lora-*/*", "vision_processor/*") for path in sorted(folder.glob(pattern)) if path.is_file()]
    found.files = {str(path.relative_to(folder)): path.stat().st_size for path in paths}
    try:
        tensors: TensorFiles | _Tensors
        if file is not None:
            tensors = _system_b(found, file)
        elif (folder / ADAPTER_FILE).is_file():
            tensors = _adapter(found, folder)
        else:
            tensors = _whole(found, folder)
    except ConfigError as error:
        found.problems.append(str(error))
        return found
    _read_weights(found, tensors, on_tensor)
    return found


def local_folder(name: str | Path) -> Path:
    """The folder of a model, that of a hub id downloaded."""
    path = find_adapter(name) or Path(resolve_model(name))
    if not path.is_dir():
        path = Path(snapshot(str(path)))
    return path


def _system_b(found: Inspection, file: Path) -> _Tensors:
    found.kind = "system-b"
    stored = read_system_b(file)
    lora = {f"language_model.{name}.lora_{kind}": pair[i] for name, pair in stored["lora"].items() for i, kind in enumerate("AB")}
    found.adapter = {
        "base": {part: stored["args"].get(key) for part, key in (("language_model", "llama_path"), ("audio_encoder", "whisper_path"))},
        "lora": {"language_model": {"layers": len(stored["lora"]), "ranks": sorted({len(a) for a, _ in stored["lora"].values()}), "alpha": 16.0}},
    }
    tensors = {f"projector.{name}": tensor for name, tensor in stored["projector"].items()} | lora
    return _Tensors({name: (_header(file, tensor), partial(_itself, tensor)) for name, tensor in tensors.items()})


def _header(file: Path, tensor: Tensor) -> StoredTensor:
    return StoredTensor(file, DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape))


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _adapter(found: Inspection, folder: Path) -> _Tensors:
    found.kind = "adapter"
    adapter = read_adapter(folder)
    lora = {}
    for component in COMPONENTS:
        if (config := folder / f"lora-{component}" / "adapter_config.json").is_file():
            fields = json.loads(config.read_text(encoding="utf-8"))
            lora[component] = {key: fields.get(key) for key in ("r", "lora_alpha", "use_rslora", "use_dora")} | {
                "layers": len(fields["target_modules"])
            }
    found.adapter = {key: getattr(adapter, key) for key in ("base", "base_sha256", "revision", "lora_gate", "recipe", "provenance")} | {"lora": lora}
    found.quantised = adapter.quantised
    _check_adapter_base(found, folder, adapter)
    _describe_processor(found, folder)
    tensors: dict[str, tuple[StoredTensor, Callable[[], Tensor]]] = {}
    for component, path in (("projector", folder / PROJECTOR_FILE), *((name, folder / f"lora-{name}" / PEFT_WEIGHTS) for name in COMPONENTS)):
        if path.is_file():
            files = TensorFiles([path])
            tensors |= {f"{component}.{name.removeprefix(PEFT_PREFIX)}": (files[name], partial(files.read, name)) for name in files}
    held, named = set(tensors), set(adapter.trained)
    found.problems += [f"lacks tensor {name}, which adapter.json names" for name in sorted(named - held)]
    found.problems += [f"has tensor {name}, which adapter.json does not name" for name in sorted(held - named)]
    return _Tensors(tensors)


def _check_adapter_base(found: Inspection, folder: Path, adapter: Adapter) -> None:
    try:
        check_base(folder, adapter, locate_bases(folder, adapter, Bases()))
    except ConfigError as error:
        found.problems.append(str(error))


def _whole(found: Inspection, folder: Path) -> TensorFiles:
    """A folder with a configuration and all weights."""
    config = load_config(found.model, str(folder))
    found.kind = (
        "graft" if isinstance(config, AudioGraftConfig) else "system-a" if is_system_a(config) else "stock" if is_stock(config) else "unknown"
    )
    if found.kind == "unknown":
        raise no_ears(found.model, config)
    found.config = _config_keys(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    found.tied_head = bool(getattr(config, "tie_word_embeddings", False))
    # System A needs none of the second: its features follow from its tensors.
    for group in (_TOKENIZERS,) if found.kind == "system-a" else (_TOKENIZERS, _PROCESSORS):
        if not any((folder / file).is_file() for file in group):
            found.problems.append(f"{folder} lacks {' or '.join(group)}")
    for path in (paths := weight_files(folder)):
        if not path.is_file():
            found.problems.append(f"{folder} lacks {path.name}, which its index names")
    tensors = TensorFiles([path for path in paths if path.is_file()])
    _describe_processor(found, folder)
    if not found.problems:
        _check_names(found, folder, stored_in_4_bits=getattr(config, "quantization_config", None) is not None)
    return tensors


def _check_names(found: Inspection, folder: Path, stored_in_4_bits: bool) -> None:
    """Open the model, which accounts for every tensor: on the meta device, where weights take no memory, unless bitsandbytes has to unpack them."""
    try:
        if stored_in_4_bits:
            load_model(folder)
        else:
            load_model(folder, device="meta", device_map="meta")
    except ConfigError as error:
        found.problems.append(str(error))


def _config_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    keys = {key: value for key, value in config.items() if not isinstance(value, dict | list)}
    for part, fields in config.items():
        if isinstance(fields, dict):
            keys |= {f"{part}.{key}": fields[key] for key in _NESTED_KEYS if key in fields}
    return keys


def _describe_processor(found: Inspection, folder: Path) -> None:
    try:
        processor = load_processor(folder)
    except ConfigError as error:
        found.problems.append(str(error))
        return
    front_end = processor.front_end
    tokens = front_end.audio_tokens(front_end.feature_frames(WINDOW_SAMPLES, processor.pad_to_window))
    found.processor = {
        "audio_token": processor.audio_token,
        "audio_token_id": processor.audio_token_id,
        "pad_to_window": processor.pad_to_window,
        "audio_tokens_per_30s": tokens,
        "ms_per_token": round(1000 * WINDOW_SAMPLES / SAMPLE_RATE_HZ / tokens, 2),
        "channels": front_end.channels,
        "end_of_turn": processor.end_of_turn,
    }


def component_of(name: str) -> str:
    """Which part of a model a stored tensor belongs to, by its name."""
    return next((component for component, pattern in _PLACES if pattern.search(name)), "language_model")


def _read_weights(found: Inspection, tensors: TensorFiles | _Tensors, on_tensor: Callable[[int, int], None]) -> None:
    """Sizes from the headers, and what only the numbers tell: not finite, zero, trained."""
    projector: dict[str, Tensor] = {}
    for number, (name, stored) in enumerate(tensors.items(), 1):
        component = component_of(name) if found.kind != "adapter" else name.partition(".")[0]
        found.components.setdefault(component, Component()).add(name, stored)
        if name.endswith(".weight.absmax"):
            found.quantised.append(name.removesuffix(".weight.absmax"))
        try:
            tensor = tensors.read(name)
        except ConfigError as error:
            found.problems.append(str(error))
            continue
        if tensor.is_floating_point():
            finite = _check_numbers(found, name, tensor)
            if finite and component == "projector" and ".lora_" not in name:
                projector[name] = tensor
        on_tensor(number, len(tensors))
    found.components = {name: found.components[name] for name in sorted(found.components)}
    if projector:
        found.projector = judge(projector.items())


def _check_numbers(found: Inspection, name: str, tensor: Tensor) -> bool:
    """Whether all numbers are finite; what is wrong with them goes into `problems`."""
    # Not isfinite().all(): one pass over the numbers, without a mask of their size.
    total = cast("float", tensor.sum(dtype=torch.float64).item()) if tensor.numel() else 0.0
    if not math.isfinite(total):
        found.problems.append(f"tensor {name} holds NaN or infinite numbers")
        return False
    if tensor.dim() > 1 and not bool(tensor.any()):
        hint = ": this adapter does nothing" if ".lora_B" in name else ""
        found.problems.append(f"tensor {name} is zero throughout{hint}")
    return True
