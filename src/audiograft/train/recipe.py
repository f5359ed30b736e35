"""The recipe of one training stage: YAML plus `--set key=value` -> frozen dataclasses, every key and type checked."""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from audiograft.types import ConfigError

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names of all linear layers in a decoder block of Qwen, Llama, Mistral, Gemma and their kin."""
MIN_DEAFNESS_CLIPS = 8
"""With fewer paired clips no sign-flip permutation test can reach p < 0.01: the smallest possible p is 1 / 2^n."""


@dataclass(frozen=True)
class DataRecipe:
    """Which manifests are read. Paths are relative to the current directory."""

    train: tuple[str, ...]
    """Manifests to learn from: one path or a list."""
    validation: str | None = None
    """Manifest for validation during the run and for the deafness check."""
    validation_clips: int = 100
    """Clips of it that are scored at each validation, drawn by the seed."""


@dataclass(frozen=True)
class LoraRecipe:
    """Low-rank adapters of the stage `finetune`."""

    rank: int = 16
    """Rank of the two matrices."""
    alpha: float = 32.0
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Share of the adapter's inputs dropped in training, 0 to 1."""
    targets: tuple[str, ...] = ALL_LINEAR
    """Names of the linear layers of the language model that get an adapter."""


@dataclass(frozen=True)
class DeafnessRecipe:
    """The check at the end of each run that the model listens."""

    clips: int = 100
    """Clips scored on true audio, on shuffled audio and on silence."""
    permutations: int = 10_000
    """Draws of the permutation test."""


@dataclass(frozen=True)
class Recipe:
    """One stage of training."""

    stage: Literal["align", "finetune"]
    """align trains the projector; finetune trains projector and LoRA, merged at the end."""
    model: str
    """Folder or name of the grafted model to start from."""
    output_dir: str
    """Folder of the trained model, its checkpoints and its log, relative to the current directory."""
    data: DataRecipe
    """Manifests."""
    prompt: str | None = None
    """Instruction for all rows; each row's own where it is left out."""
    epochs: float = 1.0
    """Passes over the training rows."""
    max_steps: int | None = None
    """Optimiser steps; wins over epochs."""
    tokens_per_batch: int = 2048
    """Positions in the language model, pads included, in one batch."""
    gradient_accumulation_steps: int = 1
    """Batches in one optimiser step."""
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    lr_scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    """Shape of the schedule behind the warm-up."""
    warmup_ratio: float = 0.03
    """Share of the steps over which the learning rate rises, 0 to 1."""
    weight_decay: float = 0.0
    """AdamW's."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 leaves them as they are."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """What is computed in; weights and optimiser stay in fp32."""
    lora: LoraRecipe = field(default_factory=LoraRecipe)
    """Adapters, read by the stage finetune."""
    feature_cache: str | None = None
    """Folder in which the frozen tower's outputs are kept as float16, computed once per clip; both stages can share it. None computes them anew."""
    pad_to_window_share: float = 0.0
    """Share of training clips padded to 30 s, 0 to 1; which ones is fixed by the seed and the row's id."""
    eval_steps: int = 500
    """Optimiser steps between validations; there is one at the end too."""
    save_steps: int = 500
    """Optimiser steps between checkpoints; there is one at the end too."""
    logging_steps: int = 10
    """Optimiser steps between log lines."""
    save_total_limit: int = 2
    """Checkpoints that are kept."""
    sample_transcripts: int = 3
    """Pairs of reference and hypothesis printed at each validation."""
    report_to: tuple[str, ...] = ()
    """Trackers that get the log: tensorboard, wandb and whatever else transformers knows."""
    seed: int = 0
    """Decides batches, their order, the adapters' start and dropout."""
    dataloader_workers: int = 0
    """Processes that read and tokenise; 0 does it in the main process."""
    save_dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Precision of the weights that are saved at the end."""
    deafness: DeafnessRecipe = field(default_factory=DeafnessRecipe)
    """The check at the end."""

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dict, as it stands in train.json."""
        return asdict(self)


_Section = TypeVar("_Section")

_AT_LEAST_ONE = (
    "data.validation_clips", "max_steps", "tokens_per_batch", "gradient_accumulation_steps", "eval_steps", "save_steps", "logging_steps",
    "save_total_limit", "lora.rank",
)  # fmt: skip
_POSITIVE = ("epochs", "learning_rate", "lora.alpha")
_NOT_NEGATIVE = ("weight_decay", "max_grad_norm", "sample_transcripts", "dataloader_workers")
_BELOW_ONE = ("warmup_ratio", "lora.dropout")
_NOT_EMPTY = ("data.train", "lora.targets", "model", "output_dir")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: YAML file; paths in it are relative to the current directory, not to the file.
        overrides: `key=value` pairs that win over the file, keys dotted (`data.train=x`), values in YAML.

    Raises:
        ConfigError: an unreadable file, an unknown key (with the closest valid one), a missing key or a wrong type.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a recipe: {getattr(error, 'strerror', None) or error}") from error
    except (yaml.YAMLError, ValueError) as error:  # a ValueError comes from a date or a number that can't be
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a recipe is a list of `key: value` lines, such as `stage: align`")
    for override in overrides:
        _apply(tree, override)
    recipe = _section(Recipe, tree, "", str(path))
    _check_values(recipe, str(path))
    return recipe


def _apply(tree: dict[str, Any], override: str) -> None:
    """Write one `key=value` into the tree."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: write key=value, such as learning_rate=1e-3")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML: quote it") from error
    *sections, last = key.split(".")
    for name in sections:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {name} is not a section with keys of its own")
    tree[last] = value


def _section(cls: type[_Section], tree: Mapping[Any, Any], prefix: str, source: str) -> _Section:
    """Build a dataclass from a mapping, checking its keys."""
    hints = get_type_hints(cls)
    valid = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    for key in tree:
        if key not in valid:
            close = difflib.get_close_matches(str(key), valid, n=1, cutoff=0.0)
            raise ConfigError(f"{source}: unknown key {prefix}{key}: the closest valid one is {prefix}{close[0]}")
    for name, item in valid.items():
        if name not in tree and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{source}: the key {prefix}{name} is missing: add it, or pass --set {prefix}{name}=...")
    return cls(**{key: _convert(value, hints[key], f"{prefix}{key}", source) for key, value in tree.items()})


def _convert(value: Any, hint: Any, key: str, source: str) -> Any:
    """A YAML value as the type that a field declares."""
    if isinstance(hint, types.UnionType) or get_origin(hint) is Union:
        return None if value is None else _convert(value, get_args(hint)[0], key, source)
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(value, dict):
            raise _wrong(key, "a section with keys of its own", value, source)
        return _section(hint, value, f"{key}.", source)
    if get_origin(hint) is tuple:
        values = value if isinstance(value, list) else [value]
        return tuple(_convert(item, get_args(hint)[0], key, source) for item in values)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise _wrong(key, f"one of {', '.join(get_args(hint))}", value, source)
        return value
    if hint is float:
        return _number(value, key, source)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise _wrong(key, {int: "a whole number", bool: "true or false", str: "text"}[hint], value, source)
    return value


def _number(value: Any, key: str, source: str) -> float:
    """A finite float. YAML 1.1 reads `1e-3` as text, since it lacks a dot; here it is a number."""
    try:
        number = float("nan") if isinstance(value, bool) or not isinstance(value, int | float | str) else float(value)
    except (ValueError, OverflowError):
        number = float("nan")
    if not abs(number) < float("inf"):
        raise _wrong(key, "a number", value, source)
    return number


def _wrong(key: str, expected: str, value: Any, source: str) -> ConfigError:
    return ConfigError(f"{source}: {key} must be {expected}, not {value!r}")


def _look_up(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _check_values(recipe: Recipe, source: str) -> None:
    """Ranges that types can't express."""
    for keys, expected, holds in (
        (_AT_LEAST_ONE, "1 or more", lambda value: value is None or value >= 1),
        (_POSITIVE, "above 0", lambda value: value > 0),
        (_NOT_NEGATIVE, "0 or more", lambda value: value >= 0),
        (_BELOW_ONE, "from 0 to below 1", lambda value: 0 <= value < 1),
        (("pad_to_window_share",), "from 0 to 1", lambda value: 0 <= value <= 1),
        (("seed",), "from 0 to 4294967295", lambda value: 0 <= value < 2**32),  # numpy's range
        (_NOT_EMPTY, "given", len),
        (("deafness.permutations",), "100 or more, to be able to reach p < 0.01", lambda value: value >= 100),
        (("deafness.clips",), f"{MIN_DEAFNESS_CLIPS} or more, to be able to reach p < 0.01", lambda value: value >= MIN_DEAFNESS_CLIPS),
    ):
        for key in keys:
            if not holds(_look_up(recipe, key)):
                raise _wrong(key, expected, _look_up(recipe, key), source)
    if Path(recipe.model).resolve() == Path(recipe.output_dir).resolve():
        raise ConfigError(f"{source}: output_dir is the folder of the model it starts from: choose another one")
