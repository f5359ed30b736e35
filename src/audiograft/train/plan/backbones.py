"""Configurations of backbones without weights and without a network: of folders, shipped models, and well-known hub ids."""

from __future__ import annotations

import difflib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.utils import CONFIG_NAME

from audiograft.model.checkpoint import SHIPPED, loading
from audiograft.types import ConfigError

_DIMENSIONS = files("audiograft") / "train" / "backbones"
"""One file a backbone, `org--name.json`: those keys of its config.json on which shapes depend, read from the model hub's own files."""


def known_backbones() -> list[str]:
    """Hub ids whose dimensions ship."""
    return sorted(entry.name.removesuffix(".json").replace("--", "/") for entry in _DIMENSIONS.iterdir() if entry.name.endswith(".json"))


def find_config(name: str, key: str) -> Any:
    """The configuration of a model that is named in a recipe.

    Args:
        name: folder, path of a config.json, shipped name, or hub id; of the latter also any that is in the local cache.
        key: of the recipe, for the error.

    Raises:
        ConfigError: nothing is known about it here; the line says what to pass instead. Or its config.json is damaged.
    """
    path = Path(name).expanduser()
    if name in SHIPPED:
        path = Path(str(files("audiograft") / "assets" / name))
    if path.is_dir() or (path.is_file() and path.suffix == ".json"):
        with loading(name, str(path.parent if path.is_file() else path)):
            return AutoConfig.from_pretrained(str(path))
    dimensions = _DIMENSIONS / f"{name.replace('/', '--')}.json"
    if name.count("/") == 1 and dimensions.is_file():
        return AutoConfig.for_model(**json.loads(dimensions.read_text(encoding="utf-8")))
    try:
        return AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        vendor = name.partition("/")[0]
        close = (
            difflib.get_close_matches(name, known_backbones(), n=3) or [known for known in known_backbones() if known.startswith(f"{vendor}/")][:3]
        )
        known = f"; those of {', '.join(close)} do" if close else ""
        raise ConfigError(f"{key}: the dimensions of {name} don't ship with audiograft{known}: pass a folder that holds its {CONFIG_NAME}") from error
