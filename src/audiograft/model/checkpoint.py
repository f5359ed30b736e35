"""Finding and opening models: strict about keys, so that nothing is ever initialised at random in silence."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from audiograft.model.configuration import AudioGraftConfig
from audiograft.model.modeling import AudioGraftForConditionalGeneration
from audiograft.model.processing import AudioGraftProcessor
from audiograft.types import ConfigError

SHIPPED = ("tiny", "tiny-encoder", "tiny-lm")
"""Models inside the package, by name."""


def resolve_model(name: str | Path) -> str:
    """A shipped name becomes its folder, an existing folder stays, anything else is taken for a hub id.

    Raises:
        ConfigError: a path that does not exist, or a name that can't be a hub id.
    """
    if str(name) in SHIPPED:
        return str(files("audiograft") / "assets" / str(name))
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists():
        raise ConfigError(f"{name} is a file: give the model's folder, a hub id, or one of {', '.join(SHIPPED)}")
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise ConfigError(f"unknown model {name}: no such folder; give a model's folder, a hub id, or one of {', '.join(SHIPPED)}")
    return str(name)


def one_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_keys(name: str, info: dict[str, Any]) -> None:
    """Raise `ConfigError` where a checkpoint lacks a tensor, has one too many, or one of another shape."""
    for kind, hint in (("missing_keys", "lacks"), ("unexpected_keys", "has an extra"), ("mismatched_keys", "has another shape for")):
        keys = sorted(str(key[0]) if isinstance(key, tuple) else str(key) for key in info.get(kind) or ())
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise ConfigError(f"{name} {hint} tensor {keys[0]}{more}: the folder is incomplete or of another model; save or download it again")


def load_part(loader: Any, name: str, path: str, **kwargs: Any) -> Any:
    """`loader.from_pretrained` with strict key accounting and one-line errors."""
    try:
        # Mismatched sizes are let through here, so that `check_keys` can name the tensor.
        model, info = loader.from_pretrained(path, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(f"can't load {name}: {one_line(error)}") from error
    check_keys(name, info)
    return model


def load_config(name: str, path: str) -> Any:
    """Any model's configuration, or a one-line `ConfigError`."""
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"can't load {name}: {one_line(error)}") from error


def load_graft(
    name: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[AudioGraftForConditionalGeneration, AudioGraftProcessor]:
    """Open a grafted model and its processor.

    Args:
        name: `tiny`, a folder, or a hub id.
        device: where the weights go.
        dtype: of the weights in memory.

    Raises:
        ConfigError: not a graft, unknown, or a tensor is missing, extra or of another shape.
    """
    path = resolve_model(name)
    config = load_config(str(name), path)
    if not isinstance(config, AudioGraftConfig):
        raise ConfigError(f"{name} is a {config.model_type} model without a graft: make one with `audiograft graft`")
    model = load_part(AudioGraftForConditionalGeneration, str(name), path, dtype=dtype)
    if (Path(path) / GENERATION_CONFIG_NAME).exists():
        model.language_model.generation_config = GenerationConfig.from_pretrained(path)
    try:
        processor = AudioGraftProcessor.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't load the processor of {name}: {one_line(error)}") from error
    return model.to(device).eval(), processor
