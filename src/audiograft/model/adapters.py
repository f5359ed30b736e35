"""Adapter folders: what was trained, and how to find the rest.

adapter.json                format, base, its fingerprints, names of what was trained, where LoRA acts, what was quantised, recipe, provenance, note
projector.safetensors       the projector's tensors, where it was trained or is new
lora-language_model/        LoRA of one component in PEFT's own layout, which PEFT reads onto the plain component;
lora-audio_tower/           likewise
lora-projector/             likewise
and the processor's files
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.utils import CONFIG_NAME
from transformers.utils.hub import cached_file, extract_commit_hash

from audiograft.model.checkpoint import check_keys, one_line, resolve_model
from audiograft.model.gating import LoraGate, gate_lora, gate_of
from audiograft.model.lora import ADAPTER, LoraSettings, inject_lora, is_linear, lora_modules, lora_parameters, lora_settings
from audiograft.model.tensors import TensorFiles, files_sha256
from audiograft.types import AudiograftError, ConfigError

FORMAT = 1
ADAPTER_FILE = "adapter.json"
PROJECTOR_FILE = "projector.safetensors"
COMPONENTS = ("language_model", "audio_tower", "projector")
PEFT_CONFIG, PEFT_WEIGHTS, PEFT_PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
_MAGNITUDE = "lora_magnitude_vector"
"""DoRA's, by PEFT's name on the disk."""


@dataclass(frozen=True)
class Adapter:
    """What stands in adapter.json.

    Attributes:
        base: {"model": name or path}, or {"graft": {audio_encoder, language_model, projector, frame_stack, pad_to_window, match_rms}}.
        trained: names of the tensors in the folder, as in the model that carries them.
        base_sha256: of the weights of each base that is a folder or ships with the package, by the base's name in `base`.
        relative: path from the adapter's folder to each base that is a folder, for when both were moved.
        revision: commit of each base that is a hub id, where the local cache tells it.
        quantised: modules of the base that were in 4 bits during training.
        recipe: the training's.
        provenance: versions, commit and data fingerprint.
        lora_gate: where the language model's LoRA acts; adapters that don't say act on all rows.
        note: what a user of this model should know, in place of its base's note; see `AudioGraftConfig`.
        format: of the folder.
    """

    base: dict[str, Any]
    trained: list[str]
    base_sha256: dict[str, str] = field(default_factory=dict)
    relative: dict[str, str] = field(default_factory=dict)
    revision: dict[str, str] = field(default_factory=dict)
    quantised: list[str] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    lora_gate: LoraGate = "always"
    note: str | None = None
    format: int = FORMAT

    @property
    def sources(self) -> dict[str, str]:
        """Names or paths of what the base consists of: `model` alone, or `audio_encoder` and `language_model`."""
        if "model" in self.base:
            return {"model": self.base["model"]}
        return {part: self.base["graft"][part] for part in ("audio_encoder", "language_model")}

    def as_dict(self) -> dict[str, Any]:
        """As adapter.json has it; without a note where there is none, so that versions which know of none can read it."""
        return {key: value for key, value in asdict(self).items() if key != "note" or value is not None}


def weight_paths(source: str | Path) -> list[Path]:
    """Files that hold the weights of a model: a folder, a shipped one, an adapter, a file, or a hub id whose files are in the local cache.

    Raises:
        ConfigError: unknown.
    """
    path = Path(source)
    if path.is_file():
        return [path]
    path = Path(resolve_model(source))
    if not path.is_dir():
        config = cached_file(str(path), CONFIG_NAME, local_files_only=True)
        assert config is not None
        path = Path(config).parent
    return [*sorted(path.glob("*.safetensors")), *sorted(path.glob("lora-*/*.safetensors"))] or sorted(path.glob("*.bin"))


def weights_sha256(source: str | Path) -> str:
    """SHA-256 over a model's weight files; a hub id's must be on the disk."""
    return files_sha256(weight_paths(source))


def is_local(source: str | Path) -> bool:
    """Whether a model is a folder, a file or ships with the package, and not a hub id."""
    return Path(source).exists() or Path(resolve_model(source)).is_dir()


def _hub_revision(source: str) -> str | None:
    """Commit of a hub id's files in the local cache, where there are any."""
    try:
        return extract_commit_hash(cached_file(source, CONFIG_NAME, local_files_only=True), None)
    except OSError:
        return None


def save_adapter(
    model: Any,
    processor: Any,
    folder: Path,
    base: Mapping[str, Any],
    recipe: Mapping[str, Any],
    provenance: Mapping[str, Any],
    quantised: Sequence[str] = (),
) -> None:
    """Write what was trained; an adapter that is in the folder already stays until the new one is written beside it, and is then replaced.

    A process that is killed while it replaces files leaves a folder without adapter.json, which nothing takes for an adapter.

    The projector is written where it trains (`requires_grad`) or is new (the base is made of parts); LoRA wherever there is any.

    Args:
        model: a graft or a stock model, its LoRA not merged.
        processor: its processor.
        folder: to write.
        base: {"model": name or path} or {"graft": {...}}; paths are stored as absolute ones.
        recipe: the training's.
        provenance: versions, commit and data fingerprint.
        quantised: modules of the base that were in 4 bits.

    Raises:
        AudiograftError: nothing was trained, or the folder can't be written.
    """
    stored = _absolute(base)
    tensors = _projector_tensors(model.projector) if "graft" in stored or _trains(model.projector) else {}
    lora = {component: lora_modules(getattr(model, component)) for component in COMPONENTS}
    trained = [f"projector.{name}" for name in tensors]
    trained += [f"{component}.{name}" for component, layers in lora.items() for name in _lora_tensors(layers)]
    if not trained:
        raise AudiograftError(f"{folder}: nothing was trained, so that there is nothing to save as an adapter")
    adapter = Adapter(stored, trained, quantised=list(quantised), recipe=dict(recipe), provenance=dict(provenance), lora_gate=gate_of(model))
    for part, source in adapter.sources.items():
        if Path(source).exists():
            adapter.relative[part] = os.path.relpath(source, folder)
        if is_local(source):
            adapter.base_sha256[part] = weights_sha256(source)
        elif (revision := _hub_revision(source)) is not None:
            adapter.revision[part] = revision
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="incomplete-adapter-") as staging:
            if tensors:
                save_file(tensors, Path(staging) / PROJECTOR_FILE, {"format": "pt"})
            for component, layers in lora.items():
                _save_lora(layers, Path(staging) / f"lora-{component}", adapter.sources.get(component))
            processor.save_pretrained(staging)
            (Path(staging) / ADAPTER_FILE).write_text(json.dumps(adapter.as_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            _replace(Path(staging), folder)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise AudiograftError(f"{folder}: the adapter can't be written ({reason}): free space or choose another folder") from error


def _replace(staging: Path, folder: Path) -> None:
    """Move a written adapter into its folder: the older one's adapter.json goes first, the new one's comes last."""
    new = sorted((path.name for path in staging.iterdir()), key=lambda name: name == ADAPTER_FILE)
    for stale in (ADAPTER_FILE, PROJECTOR_FILE, *(f"lora-{component}" for component in COMPONENTS)):
        if stale not in new or stale == ADAPTER_FILE:
            _remove(folder / stale)
    for name in new:
        _remove(folder / name)
        (staging / name).replace(folder / name)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _absolute(base: Mapping[str, Any]) -> dict[str, Any]:
    """The base with its folders and files as absolute paths; shipped names and hub ids as they are."""

    def path_of(source: Any) -> str:
        path = Path(str(source)).expanduser()
        return str(path.resolve()) if path.exists() else str(source)

    if "model" in base:
        return {"model": path_of(base["model"])}
    parts = dict(base["graft"])
    return {"graft": parts | {part: path_of(parts[part]) for part in ("audio_encoder", "language_model")}}


def _trains(module: nn.Module) -> bool:
    lora = {id(parameter) for parameter in lora_parameters(module)}
    return any(parameter.requires_grad for parameter in module.parameters() if id(parameter) not in lora)


def _projector_tensors(projector: nn.Module) -> dict[str, Tensor]:
    """A projector's own tensors, by the names they have without LoRA."""
    tensors = {name.replace(".base_layer.", "."): tensor for name, tensor in projector.state_dict().items() if ".lora_" not in name}
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _lora_tensors(layers: Mapping[str, Any]) -> dict[str, nn.Parameter]:
    """The adapters' parameters, by PEFT's names without its prefix."""
    found: dict[str, nn.Parameter] = {}
    for name, layer in layers.items():
        found |= {f"{name}.lora_A.weight": layer.lora_A[ADAPTER].weight, f"{name}.lora_B.weight": layer.lora_B[ADAPTER].weight}
        if ADAPTER in layer.lora_magnitude_vector:
            found[f"{name}.{_MAGNITUDE}"] = layer.lora_magnitude_vector[ADAPTER].weight
    return found


def _save_lora(layers: Mapping[str, Any], folder: Path, base_name: str | None) -> None:
    """One component's adapters in PEFT's layout."""
    if not layers:
        return
    settings, *others = {lora_settings(layer) for layer in layers.values()}
    if others:
        raise AudiograftError(f"{folder}: adapters of one component have different shapes or scales: give them one rank and one alpha")
    from peft import LoraConfig

    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, use_rslora=settings.rslora, use_dora=settings.dora,  # type: ignore[arg-type]
        target_modules=list(layers), base_model_name_or_path=base_name, inference_mode=True,
    )  # fmt: skip
    config.target_modules = list(layers)  # which PEFT turned into a set, written in another order each time
    config.save_pretrained(str(folder))
    tensors = {PEFT_PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in _lora_tensors(layers).items()}
    save_file(tensors, folder / PEFT_WEIGHTS, {"format": "pt"})


def read_adapter(folder: Path) -> Adapter:
    """What an adapter folder says of itself.

    Raises:
        ConfigError: adapter.json is damaged or of another format.
    """
    file = folder / ADAPTER_FILE
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        adapter = Adapter(**fields)
        if not all(isinstance(source, str) for source in adapter.sources.values()):
            raise ValueError("its base has no names")
        if adapter.lora_gate not in get_args(LoraGate):
            raise ValueError(f"lora_gate is {adapter.lora_gate!r}, not one of {', '.join(get_args(LoraGate))}")
        if not isinstance(adapter.note, str | None):
            raise ValueError("its note is no text")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{file} can't be read as an adapter ({one_line(error)}): save or download it again") from error
    if adapter.format != FORMAT:
        raise ConfigError(f"{file} has format {adapter.format}, not {FORMAT}: use the version of audiograft that wrote it, or a newer one")
    return adapter


def check_base(folder: Path, adapter: Adapter, sources: Mapping[str, str]) -> None:
    """Refuse a base whose weights are not those that the adapter was trained on.

    Args:
        folder: the adapter's; stands in the error.
        adapter: its adapter.json.
        sources: where the base is opened from, by part; parts that are hub ids are taken as they are.

    Raises:
        ConfigError: other weights.
    """
    for part, sha256 in adapter.base_sha256.items():
        source = sources[part]
        if is_local(source) and weights_sha256(source) != sha256:
            raise ConfigError(f"{folder} was trained on other weights than those that are in {source} now: give that {part} again, or train anew")


def attach_adapter(model: Any, folder: Path, adapter: Adapter, lora_dtype: torch.dtype | None = None) -> None:
    """Put an adapter into the model of its base: the projector over the one that is there, LoRA unmerged and with its gate, and its note.

    Args:
        model: the base, opened.
        folder: the adapter's.
        adapter: its adapter.json.
        lora_dtype: of the adapters in memory; as the layers beneath by default.

    Raises:
        ConfigError: a tensor is missing or extra, or belongs to another model.
    """
    held = set()
    if (folder / PROJECTOR_FILE).is_file():
        tensors = TensorFiles([folder / PROJECTOR_FILE])
        held |= {f"projector.{name}" for name in tensors}
        fill_projector(model.projector, tensors.read_all(), str(folder))
    for component in COMPONENTS:
        if (folder / f"lora-{component}").is_dir():
            names = _attach_lora(getattr(model, component), folder / f"lora-{component}", component, lora_dtype)
            held |= {f"{component}.{name}" for name in names}
    named = set(adapter.trained)
    check_keys(str(folder), {"missing_keys": named - held, "unexpected_keys": held - named})
    if adapter.lora_gate == "audio":
        gate_lora(model)
    if adapter.note is not None:
        model.config.note = adapter.note


def fill_projector(projector: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Overwrite a projector's weights.

    Raises:
        ConfigError: they are those of another projector; both are described by their shapes.
    """
    own = projector.state_dict()
    shared = own.keys() & tensors.keys()
    if not shared or (shared != own.keys() and shared != tensors.keys()) or any(own[name].shape != tensors[name].shape for name in shared):
        raise ConfigError(f"{source} is a checkpoint of another projector: it holds {_shapes(tensors)}; this model's has {_shapes(own)}")
    missing, extra = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    check_keys(source, {"missing_keys": [f"projector.{name}" for name in missing], "unexpected_keys": [f"projector.{name}" for name in extra]})
    projector.load_state_dict(dict(tensors))


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {' x '.join(map(str, tensor.shape))}" for name, tensor in tensors.items())


def _attach_lora(component: nn.Module, folder: Path, name: str, dtype: torch.dtype | None) -> list[str]:
    """Put one component's adapters in; gives the names of their tensors."""
    tensors = TensorFiles([folder / PEFT_WEIGHTS])
    return put_lora(component, tensors.read_all(PEFT_PREFIX), read_lora_settings(folder), str(folder), name, dtype)


def read_lora_settings(folder: Path) -> LoraSettings:
    """What the LoRA of one component was made with.

    Args:
        folder: such as lora-language_model in an adapter's.

    Raises:
        ConfigError: adapter_config.json is missing or damaged.
    """
    try:
        config = json.loads((folder / PEFT_CONFIG).read_text(encoding="utf-8"))
        return LoraSettings(config["r"], config["lora_alpha"], config["lora_dropout"], config["use_rslora"], config["use_dora"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{folder / PEFT_CONFIG} can't be read ({one_line(error)}): save or download it again") from error


def put_lora(
    component: nn.Module, tensors: Mapping[str, Tensor], settings: LoraSettings, source: str, name: str, dtype: torch.dtype | None = None
) -> list[str]:
    """Put adapters with these weights into a component.

    Args:
        component: changed in place.
        tensors: by PEFT's names in the component: layer.lora_A.weight (rank, in), layer.lora_B.weight (out, rank), layer.lora_magnitude_vector.
        settings: what they were trained with.
        source: stands in the error.
        name: the component's; stands in the error.
        dtype: in memory; as the layers beneath by default.

    Returns:
        Names of the tensors.

    Raises:
        ConfigError: the component has no such layer, or one of another shape, or a tensor is missing or extra.
    """
    targets = list(dict.fromkeys(key.rpartition(".lora_")[0] for key in tensors))
    modules = dict(component.named_modules())
    for target in targets:
        layer, shape = modules.get(target), tensors.get(f"{target}.lora_A.weight")
        if layer is None or not is_linear(layer):
            raise ConfigError(f"{source} adapts {target}, which is no linear layer of this {name}: it was trained on another base")
        if shape is not None and shape.shape[-1] != layer.in_features:
            raise ConfigError(f"{source} adapts {target} with {shape.shape[-1]} inputs, and this {name}'s has {layer.in_features}: another base")
    inject_lora(component, targets, settings)
    own = _lora_tensors({target: component.get_submodule(target) for target in targets})
    check_keys(
        source,
        {
            "missing_keys": own.keys() - tensors.keys(),
            "unexpected_keys": tensors.keys() - own.keys(),
            "mismatched_keys": [key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape],
        },
    )
    for key, parameter in own.items():
        parameter.data = tensors[key].to(parameter.device, dtype or parameter.dtype)
    return list(tensors)
