"""Opening any model that can listen: a graft, an adapter, a published system's checkpoint, a stock audio language model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils.hub import cached_file

from audiograft.model.adapters import ADAPTER_FILE, Adapter, attach_adapter, check_base, is_local, read_adapter
from audiograft.model.checkpoint import SHIPPED, load_config, load_graft, load_graft_processor, loading, resolve_model, snapshot
from audiograft.model.configuration import AudioGraftConfig
from audiograft.model.gating import gate_of
from audiograft.model.graft import graft_in_memory
from audiograft.model.lora import lora_modules, merge_lora
from audiograft.model.processing import AudioGraftProcessor
from audiograft.model.published.system_a import is_system_a, load_system_a, load_system_a_processor, stored_tensors
from audiograft.model.published.system_b import find_system_b, load_system_b, load_system_b_processor
from audiograft.model.stock import StockProcessor, is_stock, load_stock
from audiograft.types import ConfigError


@dataclass(frozen=True)
class Bases:
    """Where the bases of an adapter or of system B's checkpoint are, in place of what it says itself.

    Attributes:
        model: of an adapter that was trained on a whole model.
        language_model: of one that was trained on parts.
        audio_encoder: likewise.
    """

    model: str | Path | None = None
    language_model: str | Path | None = None
    audio_encoder: str | Path | None = None

    def get(self, part: str) -> str | None:
        given = getattr(self, part)
        return None if given is None else str(given)


def load_model(
    name: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    bases: Bases | None = None,
    lora_dtype: torch.dtype | None = None,
    **kwargs: Any,
) -> tuple[Any, Any]:
    """Open whatever can listen, and its processor. LoRA of adapters and of system B stays unmerged.

    Args:
        name: `tiny`, a folder, a checkpoint.pt, or a hub id: a graft, an adapter, system A's or B's checkpoint, a stock audio language model.
        device: where the weights go.
        dtype: of the weights in memory.
        bases: where an adapter's or system B's bases are, in place of where they were.
        lora_dtype: of the adapters in memory; as `dtype` by default.
        **kwargs: for the `from_pretrained` of the model, or of the language model where it is made of parts.

    Raises:
        ConfigError: unknown, none of these, damaged, or a base is missing or has other weights.
    """
    bases = bases or Bases()
    if find_system_b(name) is not None:
        return load_system_b(name, device, dtype, bases.language_model, bases.audio_encoder, lora_dtype, **kwargs)
    folder = find_adapter(name)
    if folder is not None:
        return load_adapter(folder, device, dtype, bases, lora_dtype, **kwargs)
    path = resolve_model(name)
    config = load_config(str(name), path)
    if isinstance(config, AudioGraftConfig):
        return load_graft(name, device, dtype, **kwargs)
    if is_system_a(config):
        return load_system_a(name, device, dtype, **kwargs)
    if is_stock(config):
        return load_stock(str(name), path, device, dtype, **kwargs)
    raise no_ears(name, config)


def load_processor(name: str | Path, bases: Bases | None = None) -> Any:
    """The processor of whatever `load_model` opens, without its weights.

    Args:
        name: as for `load_model`.
        bases: likewise.

    Raises:
        ConfigError: unknown, none of these, or damaged.
    """
    bases = bases or Bases()
    if find_system_b(name) is not None:
        return load_system_b_processor(name, bases.language_model, bases.audio_encoder)
    folder = find_adapter(name)
    if folder is not None:
        return _adapter_processor(folder, read_adapter(folder), bases)
    path = resolve_model(name)
    config = load_config(str(name), path)
    if isinstance(config, AudioGraftConfig):
        return load_graft_processor(name)
    if is_system_a(config):
        return load_system_a_processor(str(name), *stored_tensors(name))
    if is_stock(config):
        with loading(f"the processor of {name}", path):
            return StockProcessor.from_pretrained(path)
    raise no_ears(name, config)


def no_ears(name: str | Path, config: Any) -> ConfigError:
    """The error for a model that takes no audio."""
    return ConfigError(f"{name} is a {config.model_type} model without a graft: make one with `audiograft graft`")


def find_adapter(name: str | Path) -> Path | None:
    """The folder of an adapter, that of a hub id downloaded; None for anything else."""
    path = Path(resolve_model(name) if str(name) in SHIPPED else name).expanduser()
    if path.exists() or is_local(name):
        return path if (path / ADAPTER_FILE).is_file() else None
    with loading(str(name), str(name)):
        options: dict[str, Any] = {f"_raise_exceptions_for_{what}": False for what in ("gated_repo", "missing_entries", "connection_errors")}
        if cached_file(str(name), ADAPTER_FILE, **options) is None:
            return None
    return Path(snapshot(str(name)))


def load_adapter(
    folder: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    bases: Bases | None = None,
    lora_dtype: torch.dtype | None = None,
    **kwargs: Any,
) -> tuple[Any, Any]:
    """Open an adapter folder on its base; LoRA stays unmerged, that of a base that is an adapter itself is merged in memory.

    Args:
        folder: the adapter's.
        device: where the weights go.
        dtype: of the base's weights in memory.
        bases: where the base is, in place of where it was.
        lora_dtype: of the adapters in memory; as `dtype` by default.
        **kwargs: for the base's `from_pretrained`, such as quantization_config.

    Raises:
        ConfigError: damaged, of another base, or the base is missing or has other weights.
    """
    adapter = read_adapter(folder)
    sources = locate_bases(folder, adapter, bases or Bases())
    check_base(folder, adapter, sources)
    if "model" in adapter.base:
        model, _ = load_model(sources["model"], device, dtype, **kwargs)
        if gate_of(model) == "audio":
            raise ConfigError(f"{folder} stands on {sources['model']}, whose LoRA has a gate that merging gives up: audiograft merge that first")
        if lora_modules(model):
            merge_lora(model)
    else:
        options = {key: value for key, value in adapter.base["graft"].items() if key not in sources}
        encoder, language_model = sources["audio_encoder"], sources["language_model"]
        model, _ = graft_in_memory(encoder, language_model, **options, dtype=dtype, device=device, language_model_options=kwargs)
    attach_adapter(model, folder, adapter, lora_dtype)
    return model.eval(), _adapter_processor(folder, adapter, bases or Bases())


def locate_bases(folder: Path, adapter: Adapter, bases: Bases) -> dict[str, str]:
    """Where each part of the base is: as given, where it was, or where it is from the adapter's folder; of a hub id, the revision that was used.

    Raises:
        ConfigError: it is gone.
    """
    found = {}
    for part, source in adapter.sources.items():
        option = "base" if part == "model" else part.replace("_", "-")
        moved = folder / adapter.relative[part] if part in adapter.relative else None
        if (given := bases.get(part)) is not None:
            found[part] = given
        elif part in adapter.relative and not Path(source).exists():
            if moved is None or not moved.exists():
                mend = f"put it back, or give where it is: audiograft merge {folder} --{option} DIR --out DIR"
                raise ConfigError(f"{folder} was trained on {source}, which is gone: {mend}")
            found[part] = str(moved)
        elif part in adapter.revision:
            found[part] = snapshot(source, adapter.revision[part])
        else:
            found[part] = source
    return found


def _adapter_processor(folder: Path, adapter: Adapter, bases: Bases) -> Any:
    """The processor in an adapter's folder; that of its base where the base is a stock model, which training doesn't change."""
    try:
        stored = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
        ours: bool = isinstance(stored, Mapping) and stored.get("processor_class") == AudioGraftProcessor.__name__
    except (OSError, ValueError):
        ours = False
    if ours:
        with loading(f"the processor of {folder}", str(folder)):
            return AudioGraftProcessor.from_pretrained(folder)
    return load_processor(locate_bases(folder, adapter, bases)["model"])
