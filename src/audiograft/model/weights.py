"""The weights of any checkpoint under common names, read one at a time; an adapter is shown on its base, as what it makes of it.

Checkpoints name the same tensor differently: `audio_encoder.conv1.weight` (system A), `audio_tower.conv1.weight` (a graft),
`model.encoder.conv1.weight` (Whisper). Here all three are `audio_tower.conv1.weight`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from audiograft.model.adapters import (
    ADAPTER_FILE,
    COMPONENTS,
    PEFT_PREFIX,
    PEFT_WEIGHTS,
    PROJECTOR_FILE,
    check_base,
    read_adapter,
    read_lora_settings,
)
from audiograft.model.checkpoint import load_config
from audiograft.model.configuration import AudioGraftConfig
from audiograft.model.graft import is_left_behind
from audiograft.model.inspect import component_of, local_folder
from audiograft.model.load import Bases, locate_bases
from audiograft.model.lora import LoraSettings
from audiograft.model.published.system_a import is_system_a
from audiograft.model.published.system_b import ALPHA, find_system_b, read_system_b, system_b_sources
from audiograft.model.stock import is_stock
from audiograft.model.tensors import DTYPE_NAMES, TRAINED_WEIGHTS, TensorFiles, weight_files
from audiograft.model.towers import TOWERS

LEFT_BEHIND = "left behind"
"""Component of what an encoder's checkpoint holds and a graft does not take: Whisper's decoder, heads."""

_WRAPPERS = {
    "audio_tower": re.compile(r"^(model\.)?(audio_tower|audio_encoder|encoder)\."),
    "projector": re.compile(r"^(model\.)?(multi_modal_projector|audio_projector|projector)\."),
    "vision_tower": re.compile(r"^(language_model\.|model\.)*(visual|vision_tower|vision_model)\."),
    "language_model": re.compile(r"^(language_model\.|model\.)*"),
}
"""What stands in front of a tensor's name, by component: it differs with the layout, and with the version of transformers."""
_WHISPER_WRAPPER = re.compile(r"^(model\.)?encoder\.")
_ENCODER_WRAPPER = re.compile(r"^(wavlm|hubert|wav2vec2|wav2vec2_bert)\.")


@dataclass(frozen=True)
class Weight:
    """One tensor of a model.

    Attributes:
        name: as it is stored.
        component: audio_tower, projector, language_model, vision_tower, or `left behind`.
        dtype: by safetensors' name, such as F32 or BF16.
        shape: its dimensions.
        read: reads it, or computes it where an adapter changes it.
        place: file and name under which it is stored, before an adapter changes it; None where that can't be said.
        adapter: what an adapter does to it: `lora`, `dora`, or `replaced`; empty where it is as stored.
    """

    name: str
    component: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    place: tuple[Path, str] | None = None
    adapter: str = ""


@dataclass(frozen=True)
class ModelWeights:
    """All tensors of a model.

    Attributes:
        model: as it was asked for.
        kind: graft, adapter, system-a, system-b, stock, encoder, language-model or training-checkpoint.
        tensors: by common name.
    """

    model: str
    kind: str
    tensors: Mapping[str, Weight]


def open_weights(name: str | Path) -> ModelWeights:
    """The weights of whatever `load_model` opens, of an encoder, or of a language model. Only headers are read.

    Of a checkpoint of a training run, there is what was trained and nothing else: LoRA's matrices stand for themselves.

    Args:
        name: a shipped name, a folder, also a run's checkpoint-N, a checkpoint.pt, or a hub id, whose files are downloaded.

    Raises:
        ConfigError: there is no such model, it is damaged, or an adapter's base is gone or has other weights.
    """
    file = find_system_b(name)
    if file is not None:
        return _system_b(str(name), file)
    folder = local_folder(name)
    if (folder / ADAPTER_FILE).is_file():
        return _adapter(str(name), folder)
    if (folder / TRAINED_WEIGHTS).is_file():
        return ModelWeights(str(name), "training-checkpoint", _named(TensorFiles([folder / TRAINED_WEIGHTS]), component_of))
    config = load_config(str(name), str(folder))
    files = TensorFiles(weight_files(folder))
    if isinstance(config, AudioGraftConfig) or is_system_a(config) or is_stock(config):
        kind = "graft" if isinstance(config, AudioGraftConfig) else "system-a" if is_system_a(config) else "stock"
        return ModelWeights(str(name), kind, _named(files, component_of))
    if config.model_type in TOWERS:
        return ModelWeights(str(name), "encoder", _encoder(files, config.model_type))
    return ModelWeights(str(name), "language-model", _named(files, _language_model_component))


def _language_model_component(name: str) -> str:
    return "vision_tower" if component_of(name) == "vision_tower" else "language_model"


def _named(files: TensorFiles, component: Callable[[str], str]) -> dict[str, Weight]:
    found: dict[str, Weight] = {}
    for name in files:
        common = common_name(name, component(name))
        # A layout that is not known here may have two names for which the common one is the same.
        found[common if common not in found else name] = _stored(files, name, component(name))
    return found


def _stored(files: TensorFiles, name: str, component: str) -> Weight:
    header = files[name]
    return Weight(name, component, header.dtype, header.shape, partial(files.read, name), (header.file.resolve(), name))


def _encoder(files: TensorFiles, encoder_type: str) -> dict[str, Weight]:
    """An encoder's own checkpoint, with a decoder or a head or without."""
    wrapper = _WHISPER_WRAPPER if encoder_type == "whisper" else _ENCODER_WRAPPER
    found = {}
    for name in files:
        part = LEFT_BEHIND if is_left_behind(name, encoder_type) else "audio_tower"
        found[f"{part}.{wrapper.sub('', name)}"] = _stored(files, name, part)
    return found


def common_name(name: str, component: str) -> str:
    """A stored tensor's name without what its layout puts in front of it, behind its component.

    Args:
        name: as it is stored.
        component: of `component_of`.
    """
    bare = _WRAPPERS[component].sub("", name) if component in _WRAPPERS else name
    # The one tensor of system A's projector is its linear layer.
    return f"{component}.{'linear.weight' if component == 'projector' and bare == 'weight' else bare}"


def _adapter(name: str, folder: Path) -> ModelWeights:
    adapter = read_adapter(folder)
    sources = locate_bases(folder, adapter, Bases())
    check_base(folder, adapter, sources)
    found = _bases(sources.values())
    if (folder / PROJECTOR_FILE).is_file():
        files = TensorFiles([folder / PROJECTOR_FILE])
        found |= {f"projector.{part}": replace(_stored(files, part, "projector"), name=f"projector.{part}", adapter="replaced") for part in files}
    for component in COMPONENTS:
        if (folder / f"lora-{component}").is_dir():
            _put_lora(found, component, TensorFiles([folder / f"lora-{component}" / PEFT_WEIGHTS]), read_lora_settings(folder / f"lora-{component}"))
    return ModelWeights(name, "adapter", found)


def _bases(sources: Iterable[str]) -> dict[str, Weight]:
    """What an adapter stands on: one model, or an encoder and a language model, without what a graft does not take of them."""
    return {
        common: weight
        for source in sources
        for common, weight in open_weights(source).tensors.items()
        if weight.component != LEFT_BEHIND
    }  # fmt: skip


def _put_lora(found: dict[str, Weight], component: str, files: TensorFiles, settings: LoraSettings) -> None:
    """Replace the weights that LoRA adapts by what it makes of them; `found` is changed in place."""
    for name in files:
        layer, is_first, _ = name.removeprefix(PEFT_PREFIX).partition(".lora_A.")
        if not is_first:
            continue
        parts = {kind: partial(files.read, f"{PEFT_PREFIX}{layer}.{kind}") for kind in ("lora_A.weight", "lora_B.weight")}
        magnitude = f"{PEFT_PREFIX}{layer}.lora_magnitude_vector"
        update = _Update(
            parts["lora_A.weight"],
            parts["lora_B.weight"],
            settings.alpha / (settings.rank**0.5 if settings.rslora else settings.rank),
            partial(files.read, magnitude) if magnitude in files else None,
        )
        _adapt(found, f"{component}.{layer}", component, update)


@dataclass(frozen=True)
class _Update:
    """What LoRA adds to a weight, and DoRA multiplies it by: (outputs, inputs)."""

    first: Callable[[], Tensor]
    second: Callable[[], Tensor]
    scale: float
    magnitude: Callable[[], Tensor] | None = None

    def onto(self, read: Callable[[], Tensor]) -> Tensor:
        """The weight as the adapted layer has it, in float32 at least: W + scale * B A, its rows brought to DoRA's magnitudes where there are any."""
        weight = read()
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        weight.addmm_(self.second().to(weight.dtype), self.first().to(weight.dtype), alpha=self.scale)
        if self.magnitude is not None:
            weight *= (self.magnitude().to(weight.dtype) / weight.norm(dim=1))[:, None]
        return weight


def _adapt(found: dict[str, Weight], layer: str, component: str, update: _Update) -> None:
    key = f"{common_name(layer, component)}.weight"
    base = found.get(key)
    if base is None or base.dtype not in ("F64", "F32", "F16", "BF16"):
        # A base in 4 bits, or of a layout whose names are not known here: the adapter's matrices stand for themselves.
        for kind, read in (("lora_A", update.first), ("lora_B", update.second)):
            tensor = read()
            name = f"{layer}.{kind}.weight"
            found[name] = Weight(name, component, DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), read)
        return
    found[key] = replace(base, read=partial(update.onto, base.read), adapter="lora" if update.magnitude is None else "dora")


def _system_b(name: str, file: Path) -> ModelWeights:
    stored = read_system_b(file)
    found = _bases(system_b_sources(file).values())
    for part, tensor in stored["projector"].items():
        key = f"projector.{part}"
        found[key] = Weight(key, "projector", DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), partial(_itself, tensor))
    for layer, (first, second) in stored["lora"].items():
        update = _Update(partial(_itself, first), partial(_itself, second), ALPHA / len(first))
        _adapt(found, f"language_model.{layer}", "language_model", update)
    return ModelWeights(name, "system-b", found)


def _itself(tensor: Tensor) -> Tensor:
    return tensor
