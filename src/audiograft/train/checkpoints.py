"""Checkpoints that hold what is trained, are whole or not there, and are only resumed by the run that wrote them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import get_last_checkpoint

from audiograft.model.adapters import weights_sha256
from audiograft.model.checkpoint import one_line
from audiograft.model.tensors import TRAINED_WEIGHTS
from audiograft.train.parallel import is_main_process, process_count, put, reshard, whole
from audiograft.train.recipe import Recipe
from audiograft.types import AudiograftError, ConfigError

STAGING = "incomplete-checkpoint"
"""Folder inside output_dir where a checkpoint is until it is whole."""
WEIGHTS = TRAINED_WEIGHTS
IDENTITY = "identity.json"
STATE = "trainer_state.json"
LOG_WINDOW = "log_window.json"
"""The part of a log line's mean that was known when the checkpoint was written."""
_TORCH_CAN_NOT_WRITE = ("inline_container.cc", "PytorchStreamWriter", "iostream error")
"""In the messages of the plain RuntimeErrors that `torch.save` raises where a file can't be written."""
_NO_INFLUENCE = (
    "output_dir", "report_to", "dataloader_workers", "parallel", "save", "save_dtype", "save_total_limit", "sample_transcripts",
    "deafness", "expected_wer",
)  # fmt: skip
"""Keys of a recipe that change neither the weights nor the steps at which something happens, so that they may differ on resuming."""
_NO_INFLUENCE_OF_DATA = ("held_out", "allow_leakage", "allow_outside", "max_rejected")


def recipe_identity(recipe: Recipe) -> dict[str, Any]:
    """The keys of a recipe that must be the same for a checkpoint to be continued."""
    identity = {key: value for key, value in recipe.as_dict().items() if key not in _NO_INFLUENCE}
    identity["data"] = {key: value for key, value in identity["data"].items() if key not in _NO_INFLUENCE_OF_DATA}
    # Two processes are one with twice the accumulation: either may go on with what the other began.
    identity["batches_in_a_step"] = identity.pop("gradient_accumulation_steps") * process_count()
    # Through JSON, so that tuples compare equal to the lists that are read back.
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def run_identity(recipe: Recipe, data_fingerprint: str) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued: the recipe's keys that matter, the start model's weights, the training data."""
    return recipe_identity(recipe) | {"model_sha256": base_sha256(recipe), "data_fingerprint": data_fingerprint}


def base_sha256(recipe: Recipe) -> str:
    """SHA-256 of the weights that a run starts from, of each part where the model is made of parts. They are on the disk once it was opened."""
    parts = [recipe.model] if recipe.model else [recipe.graft.audio_encoder, recipe.graft.language_model] if recipe.graft else []
    return " and ".join(weights_sha256(part) for part in parts)


def find_checkpoint(output_dir: Path, identity: Mapping[str, Any], whole: bool = True) -> Path | None:
    """The newest whole checkpoint of a run; a half-written one is removed.

    Args:
        output_dir: of the run.
        identity: what it has to be of.
        whole: false where only a part of the identity is known yet, and compared.

    Raises:
        ConfigError: there is one, and it belongs to another run.
    """
    if is_main_process():
        shutil.rmtree(output_dir / STAGING, ignore_errors=True)
    newest = get_last_checkpoint(str(output_dir)) if output_dir.is_dir() else None
    if newest is None:
        return None
    try:
        stored = json.loads((Path(newest) / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{newest} is no checkpoint of audiograft: choose another folder with --set output_dir=..., or delete it") from error
    for key in sorted(stored.keys() | identity.keys() if whole else identity.keys()):
        if stored.get(key) != identity.get(key):
            raise ConfigError(
                f"{newest} belongs to a run with {key} {stored.get(key)!r}, not {identity.get(key)!r}: "
                f"choose another folder with --set output_dir=..., or delete {output_dir}"
            )
    return Path(newest)


def steps_done(checkpoint: Path) -> tuple[int, int]:
    """Optimiser steps of a checkpoint, and those of its whole run."""
    state = TrainerState.load_from_json(str(checkpoint / STATE))
    return state.global_step, state.max_steps


def save_trained(model: nn.Module, folder: Path, identity: Mapping[str, Any]) -> None:
    """Write the trainable parameters, whole, and the run's identity. All processes have to call it; the main one writes."""
    reshard(model)
    tensors = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            values = whole(parameter)
            if is_main_process():
                tensors[name] = values.cpu().contiguous()
    if not is_main_process():
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    (folder / IDENTITY).write_text(json.dumps(identity), encoding="utf-8")


def load_trained(model: nn.Module, folder: Path) -> None:
    """Put saved parameters into the model.

    Raises:
        ConfigError: a trainable parameter is missing from the file, one is extra, or a shape differs.
    """
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{folder / WEIGHTS} can't be read ({one_line(error)}): delete {folder} to go on from the one before") from error
    wanted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors or name not in wanted or wanted[name].shape != tensors[name].shape:
            raise ConfigError(f"{folder / WEIGHTS} does not fit the model, first at tensor {name}: delete {folder} to train anew")
        put(wanted[name], tensors[name])


@contextmanager
def writing(folder: Path, what: str) -> Iterator[None]:
    """Turn a failure to write, such as a full disk, into one line that names the folder; other errors, such as lack of memory, pass."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _TORCH_CAN_NOT_WRITE):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise AudiograftError(f"{folder}: {what} can't be written ({reason}): free space or correct its permissions") from error


def publish(staged: Path, final: Path) -> None:
    """Move a written folder to its name in one step, its bytes being on the disk by then."""
    for path in (*staged.rglob("*"), staged):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    shutil.rmtree(final, ignore_errors=True)
    staged.replace(final)
