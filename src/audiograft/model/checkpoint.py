"""Finding and opening models: strict about keys, so that nothing is ever initialised at random in silence."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import AutoConfig

from audiograft.model.configuration import AudioGraftConfig
from audiograft.model.hub import check_hub, hub_reason
from audiograft.model.modeling import AudioGraftForConditionalGeneration
from audiograft.model.processing import AudioGraftProcessor
from audiograft.model.records import ADAPTER_NAME, CONFIG_NAME
from audiograft.types import TRAINING_TRACES, AudiograftError, ConfigError

SHIPPED = ("tiny", "tiny-detect", "tiny-vl", "tiny-encoder", "tiny-lm", "tiny-vl-lm")
"""Models inside the package, by name."""
_PARTS = ("language_model", "audio_encoder")
"""Of a graft, as adapter.json calls them."""


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


@contextmanager
def loading(what: str, path: str, local: bool = False) -> Iterator[None]:
    """Turn whatever goes wrong while files are opened into one `ConfigError` line.

    Args:
        what: stands in the message behind "can't load".
        path: the folder, or the hub id.
        local: nothing is fetched, so that the hub need not be there.
    """
    try:
        if not local and not Path(path).exists():
            check_hub(path)
        yield
    # A damaged folder fails in as many ways as the libraries have that read its files: SafetensorError, TypeError, AttributeError and others.
    except Exception as error:
        reason = one_line(error).rstrip(".")
        if not Path(path).is_dir():
            reason, mend = hub_reason(error, path) or (reason, "")
            reason += ", and there is no such folder here" + (mend and f": {mend}")
        elif not isinstance(error, (OSError, ValueError, ImportError, AudiograftError)):
            reason += ": a file in the folder is damaged; save or download it again"
        raise ConfigError(f"can't load {what}: {reason}") from error


def load_part(loader: Any, name: str, path: str, **kwargs: Any) -> Any:
    """`loader.from_pretrained` with strict key accounting and one-line errors."""
    with loading(name, path):
        # Mismatched sizes are let through here, so that `check_keys` can name the tensor.
        model, info = loader.from_pretrained(path, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs)
    check_keys(name, info)
    return model


def load_config(name: str, path: str) -> Any:
    """Any model's configuration, or a one-line `ConfigError`."""
    if Path(path).is_dir() and not (Path(path) / CONFIG_NAME).is_file():
        _check_contents(name, Path(path))
    with loading(name, path):
        return AutoConfig.from_pretrained(path)


def _check_contents(name: str, folder: Path) -> None:
    """Raise `ConfigError` where a folder without a configuration is known for something else: an adapter, or a run that trains or has failed."""
    if (folder / ADAPTER_NAME).is_file():
        parts = _parts(folder)
        made_of = " or ".join(f"the {key.replace('_', ' ')} {parts[key]}" for key in _PARTS if key in parts)
        raise ConfigError(f"{name} is an audiograft adapter, which has ears already: name {made_of or 'what it was made of'} in its place")
    checkpoints = any(folder.glob("checkpoint-*"))
    if checkpoints or (folder / TRAINING_TRACES).is_file():
        goes_on = ", which goes on from its last checkpoint" if checkpoints else ""
        raise ConfigError(f"{name} is an unfinished training run, and holds no model yet: start the same `audiograft train` again{goes_on}")


def _parts(folder: Path) -> dict[str, Any]:
    """What an adapter was made of in the end, by part, as far as adapter.json tells it."""
    try:
        base = json.loads((folder / ADAPTER_NAME).read_text(encoding="utf-8"))["base"]
        if "graft" in base:
            return dict(base["graft"])
        return _parts(Path(resolve_model(base["model"])))
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return {}


def snapshot(hub_id: str, revision: str | None = None) -> str:
    """The local folder of a hub id, its files downloaded where they are not in the cache.

    Args:
        hub_id: OWNER/NAME.
        revision: commit; the newest one by default.

    Raises:
        ConfigError: the hub has no such model, or can't be reached.
    """
    with loading(hub_id, hub_id):
        return snapshot_download(hub_id, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"])


def load_graft_processor(name: str | Path) -> AudioGraftProcessor:
    """The processor of a grafted model, without its weights.

    Args:
        name: `tiny`, a folder, or a hub id.

    Raises:
        ConfigError: unknown, not a graft, or damaged.
    """
    path = resolve_model(name)
    config = load_config(str(name), path)
    if not isinstance(config, AudioGraftConfig):
        raise ConfigError(f"{name} is a {config.model_type} model without a graft: make one with `audiograft graft`")
    with loading(f"the processor of {name}", path):
        return AudioGraftProcessor.from_pretrained(path)


def load_graft(
    name: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32, **kwargs: Any
) -> tuple[AudioGraftForConditionalGeneration, AudioGraftProcessor]:
    """Open a grafted model and its processor.

    Args:
        name: `tiny`, a folder, or a hub id.
        device: where the weights go.
        dtype: of the weights in memory.
        **kwargs: for `from_pretrained`.

    Raises:
        ConfigError: not a graft, unknown, damaged, or a tensor is missing, extra or of another shape.
    """
    processor = load_graft_processor(name)
    model = load_part(AudioGraftForConditionalGeneration, str(name), resolve_model(name), dtype=dtype, **kwargs)
    return model.to(device).eval(), processor


def save_graft(model: AudioGraftForConditionalGeneration, processor: AudioGraftProcessor, folder: Path) -> None:
    """Write a model and its processor; a model that is in the folder already stays whole until the new one is.

    Raises:
        AudiograftError: the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="incomplete-model-") as staging:
            model.save_pretrained(staging)
            processor.save_pretrained(staging)
            new = {path.name for path in Path(staging).iterdir()}
            # Weights last, so that no new ones ever lie beside an old configuration.
            for name in sorted(new, key=lambda name: ".safetensors" in name):
                if (folder / name).is_dir():
                    shutil.rmtree(folder / name)
                (Path(staging) / name).replace(folder / name)
        # Shards of an older model would be read in place of, or beside, one file.
        for path in folder.glob("model*.safetensors*"):
            if path.name not in new:
                path.unlink()
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise AudiograftError(f"{folder}: the model can't be written ({reason}): free space or choose another folder") from error
